"""Semantic segmentation: a class for each pixel, with the losses of the official UPerNet recipe.

Reference: `EncoderDecoder` of Swin-Transformer-Semantic-Segmentation in training, whose resizing,
cropping and distortion are in `swin_jax.data.segmentation`.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from swin_jax.core.constants import IGNORED, IMAGENET_MEAN, IMAGENET_STD
from swin_jax.core.errors import UserError
from swin_jax.core.labels import refuse_one_class
from swin_jax.core.ranges import (
    FiniteFloat,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Rate,
    Seed,
    check_statistics,
    checked,
)
from swin_jax.core.sizes import Size, per_axis
from swin_jax.ops import augmentation
from swin_jax.ops.segmentation import pixel_labels, pixel_loss
from swin_jax.tasks.base import Batch, Metrics, TrainState, gradient_step, step_key


@checked
@dataclasses.dataclass(frozen=True)
class Segmentation:
    """Trains `model` to name the class of every pixel.

    Statistics of batch norms are those of the global batch, on any mesh.

    Attributes:
        model: A `models.segmentation.UPerNet`, or another module with its call.
        tx: The optimizer.
        image_size: (H, W) of the batch's `image` in training, or one int for both.
        num_classes: K, 2 to 255.
        channels: Number of image channels.
        seed: Seed of drop path and dropout.
        mean, std: Mean and standard deviation of the pixels in 0..1, one number per channel.
        auxiliary_weight: Factor of the auxiliary head's loss; 0 leaves the head out.
        count_ignored: True divides the loss and the accuracy by the number of all pixels, as the
            released code does; False by that of the labeled ones.
        accumulate: Micro-batches per update.
        micro_batch_statistics: True allows several of them, with the statistics of each by itself.
        ema_decay: 0 for no average.

    Raises:
        UserError: One class, or more than labels of one byte tell apart.
    """

    predicts: ClassVar[str] = "maps"

    model: nn.Module
    tx: optax.GradientTransformation
    image_size: Size
    num_classes: PositiveInt
    channels: PositiveInt = 3
    seed: Seed = 0
    mean: tuple[FiniteFloat, ...] = IMAGENET_MEAN
    std: tuple[PositiveFloat, ...] = IMAGENET_STD
    auxiliary_weight: NonNegativeFloat = 0.4
    count_ignored: bool = True
    accumulate: PositiveInt = 1
    micro_batch_statistics: bool = False
    ema_decay: Rate = 0.0

    def __post_init__(self):
        check_statistics(self.mean, self.std, self.channels)
        refuse_one_class(
            self.num_classes,
            "a segmentation",
            "let the background be a class too, in classes.txt and in the labels, with "
            "num_classes=2 and without reduce_zero_label",
        )
        if self.num_classes > IGNORED:
            raise UserError(
                f"num_classes={self.num_classes}: labels of one byte tell {IGNORED} classes apart"
            )

    def check_batch(self, batch_size: int, accumulate: int) -> None:
        """Raises UserError where a batch norm has no statistics, or other ones than published, and
        for the loss of an auxiliary head that the model lacks.
        """
        if self.auxiliary_weight > 0 and getattr(self.model, "auxiliary_channels", None) == 0:
            raise UserError(
                "a model of auxiliary_channels=0 has no auxiliary head for a loss: "
                "give --config.task.auxiliary_weight=0 too"
            )
        rows = batch_size // accumulate
        if accumulate > 1 and not self.micro_batch_statistics:
            raise UserError(
                f"task.accumulate is {accumulate}: batch norms would see micro-batches of {rows} "
                f"images, not the batch of {batch_size}; give --config.task.accumulate=1, or "
                "--config.task.micro_batch_statistics=True if that is wanted"
            )
        if rows == 1:
            raise UserError(
                "a training batch of one image: pooled to 1 x 1, it has one value per channel and "
                f"batch norms no variance; give --config.batch_size={2 * accumulate} or more"
            )

    def notes(self) -> list[str]:
        """Returns a line for the log where batch norms see micro-batches."""
        if self.accumulate == 1:
            return []
        return [f"batch norms use the statistics of each of {self.accumulate} micro-batches"]

    def init(self, key: jax.Array) -> TrainState:
        """Parameters and statistics from the model's own initializers;
        the average starts at the parameters.
        """
        image = jnp.zeros((1, *per_axis(self.image_size, 2), self.channels))
        mutable = dict(self.model.init(key, image))
        params = mutable.pop("params")
        ema = jax.tree.map(jnp.copy, params) if self.ema_decay else None
        return TrainState(jnp.zeros((), jnp.int32), params, self.tx.init(params), mutable, ema)

    def train_step(
        self, state: TrainState, batch: Batch, frozen: Any
    ) -> tuple[TrainState, Metrics]:
        """One update on `image` uint8 (B, H, W, C), `label` uint8 (B, H, W) and, where there is
        one, `size` int32 (B, 2), the rows and columns of each image within its padding.

        Metrics are the loss, `decode_loss` and `auxiliary_loss`, its two parts (the weight
        included), and `pixel_accuracy`.
        """
        names = [name for name in ("image", "label", "size") if name in batch]
        return gradient_step(
            state,
            {name: batch[name] for name in names},
            self.loss,
            self.tx,
            step_key(self.seed, state.step, "train"),
            accumulate=self.accumulate,
            ema_decay=self.ema_decay,
        )

    def loss(
        self, params: Any, mutable: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Metrics, Any]]:
        """The mean cross entropy of the pixels, and the auxiliary head's times its weight."""
        image = augmentation.normalize(batch["image"], self.mean, self.std)
        if "size" in batch:
            image = augmentation.clear_padding(image, batch["size"])
        with_auxiliary = self.auxiliary_weight > 0
        found, updated = self.model.apply(
            {"params": params, **mutable},
            image,
            train=True,
            auxiliary=with_auxiliary,
            rngs={"dropout": key},
            mutable=list(mutable),
        )
        loss, accuracy = pixel_loss(found["logits"], batch["label"], self.count_ignored)
        metrics = {"decode_loss": loss, "pixel_accuracy": accuracy}
        if with_auxiliary:
            other, _ = pixel_loss(found["auxiliary"], batch["label"], self.count_ignored)
            metrics["auxiliary_loss"] = self.auxiliary_weight * other
            loss = loss + metrics["auxiliary_loss"]
        return loss, (metrics, {**mutable, **updated})

    def train_flops(self) -> float:
        """Operations of one update for each image, the auxiliary head included where it trains;
        0 for a model that does not count them.
        """
        if not hasattr(self.model, "flops"):
            return 0.0
        return 6.0 * self.model.flops(auxiliary=self.auxiliary_weight > 0)

    def predict(self, state: TrainState, batch: Batch, frozen: Any) -> dict[str, jax.Array]:
        """`maps` (B, h, w, K) float32 and `labels` uint8 (B, H, W) of `image` uint8 of any size."""
        image = augmentation.normalize(batch["image"], self.mean, self.std)
        maps = self.model.apply({"params": state.params, **state.mutable}, image)["logits"]
        return {"maps": maps, "labels": pixel_labels(maps, image.shape[1:3])}

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of `image`, `label` and `size`."""
        size = (batch_size, *per_axis(self.image_size, 2))
        image = jax.ShapeDtypeStruct((*size, self.channels), jnp.uint8)
        label = jax.ShapeDtypeStruct(size, jnp.uint8)
        within = jax.ShapeDtypeStruct((batch_size, 2), jnp.int32)
        return {"image": image, "label": label, "size": within}
