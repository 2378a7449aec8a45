"""Embeddings whose cosine says how much two records have in common.

A record has a class of each of several choices, such as the color of the hair and the form of the
nose. The cosine of two embeddings is trained to be the share of the choices in which both have the
same class: 1 for what differs in no choice, whatever else differs, and 1 - 1/n if one of n choices
is another.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from swin_jax.core.ranges import (
    FiniteFloat,
    PositiveFloat,
    PositiveInt,
    Rate,
    Seed,
    check_statistics,
    checked,
)
from swin_jax.core.sizes import Size, per_axis
from swin_jax.ops import augmentation, losses
from swin_jax.tasks.base import Batch, Metrics, TrainState, gradient_step, step_key


@checked
@dataclasses.dataclass(frozen=True)
class SharedChoices:
    """Trains `model` to embed images.

    Statistics of batch norms are those of the whole batch, with `accumulate` of each micro-batch.

    Attributes:
        model: Module that maps (B, H, W, C) to (B, E) of length 1, called with `train`.
        tx: Optimizer.
        image_size: (H, W) of the batch's `image`, or one int for both.
        num_classes: K, the number of classes of all choices together.
        channels: Number of image channels.
        seed: Seed of dropout.
        mean, std: Mean and standard deviation of the pixels in 0..1, one number per channel.
        accumulate: Micro-batches per update; records are compared within one.
        ema_decay: 0 for no average.
    """

    predicts: ClassVar[str] = "embedding"

    model: nn.Module
    tx: optax.GradientTransformation
    image_size: Size
    num_classes: PositiveInt
    channels: PositiveInt = 3
    seed: Seed = 0
    mean: tuple[FiniteFloat, ...] = (0.5, 0.5, 0.5)
    std: tuple[PositiveFloat, ...] = (0.5, 0.5, 0.5)
    accumulate: PositiveInt = 1
    ema_decay: Rate = 0.0

    def __post_init__(self):
        check_statistics(self.mean, self.std, self.channels)

    def init(self, key: jax.Array) -> TrainState:
        """Parameters and statistics from the model's own initializers;
        the average starts at the parameters.
        """
        mutable = dict(
            self.model.init(key, jnp.zeros((1, *per_axis(self.image_size, 2), self.channels)))
        )
        params = mutable.pop("params")
        ema = jax.tree.map(jnp.copy, params) if self.ema_decay else None
        return TrainState(jnp.zeros((), jnp.int32), params, self.tx.init(params), mutable, ema)

    def train_step(
        self, state: TrainState, batch: Batch, frozen: Any
    ) -> tuple[TrainState, Metrics]:
        """One update on `image` uint8 (B, H, W, C) and `label` int8 (B, K), see `loss`."""
        key = step_key(self.seed, state.step, "train")
        batch = {name: batch[name] for name in ("image", "label")}
        return gradient_step(
            state,
            batch,
            self.loss,
            self.tx,
            key,
            accumulate=self.accumulate,
            ema_decay=self.ema_decay,
        )

    def loss(
        self, params: Any, mutable: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Metrics, Any]]:
        """Mean square difference of the cosine of two records and the share that
        they have in common.

        It is taken over all pairs of different rows of which a choice is known for both; `label` is
        as of `losses.shared_marks`.
        """
        image = augmentation.normalize(batch["image"], self.mean, self.std)
        embedding, updated = self.model.apply(
            {"params": params, **mutable},
            image,
            train=True,
            rngs={"dropout": key},
            mutable=list(mutable),
        )
        common, known = losses.shared_marks(batch["label"], batch["label"])
        error = jnp.square(embedding @ embedding.T - common / jnp.maximum(known, 1))
        pairs = (known > 0) & ~jnp.eye(len(error), dtype=bool)
        value = jnp.where(pairs, error, 0.0).sum() / jnp.maximum(pairs.sum(), 1)
        return value, ({}, {**mutable, **updated})

    def predict(self, state: TrainState, batch: Batch, frozen: Any) -> dict[str, jax.Array]:
        """`embedding` (B, E) float32 of length 1 of `image` uint8."""
        image = augmentation.normalize(batch["image"], self.mean, self.std)
        return {"embedding": self.model.apply({"params": state.params, **state.mutable}, image)}

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of `image` and `label`."""
        pixels = (batch_size, *per_axis(self.image_size, 2), self.channels)
        label = jax.ShapeDtypeStruct((batch_size, self.num_classes), jnp.int8)
        return {"image": jax.ShapeDtypeStruct(pixels, jnp.uint8), "label": label}
