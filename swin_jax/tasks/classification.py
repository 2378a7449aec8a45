"""Classification of images or clips with the regularization of the official Swin recipe,
all of it on the device.

Reference: `main.py` of microsoft/Swin-Transformer with timm 0.4.12's Mixup and RandomErasing.
"""

import dataclasses
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from swin_jax.core.constants import IMAGENET_MEAN, IMAGENET_STD
from swin_jax.core.errors import UserError
from swin_jax.core.labels import refuse_one_class
from swin_jax.core.ranges import (
    FiniteFloat,
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Range,
    Rate,
    Seed,
    check_each,
    check_statistics,
    checked,
)
from swin_jax.core.sizes import Size
from swin_jax.ops import augmentation, losses
from swin_jax.tasks.base import Batch, Metrics, TrainState, gradient_step, step_key

_FLOAT32 = jnp.finfo(jnp.float32)
_Weight = Annotated[float, Range(low=float(_FLOAT32.tiny), high=float(_FLOAT32.max))]


@checked
@dataclasses.dataclass(frozen=True)
class Classification:
    """Trains `model` to name images, or clips: where `image` is said below, `input` is meant.

    Attributes:
        model: A module that maps (B, H, W, C), or (B, T, H, W, C), to (B, K) logits,
            called with `train`.
        tx: The optimizer.
        image_size: (H, W) of the batch's `image`, or one int for both; (T, H, W) of clips.
        num_classes: K, at least 2 unless `multi_label`.
        channels: Number of image channels.
        seed: Seed of drop path, erasing and mixing.
        mean, std: Mean and standard deviation of the pixels in 0..1, one number per channel.
        erase_probability: Probability of random erasing, per image.
        erase_mode: Content of an erased area, see `augmentation.random_erase`.
        mixup, cutmix: Alphas of their Beta distributions; 0 leaves one out.
        mix_probability, mix_switch: Probability to mix at all, and of CutMix when both are on.
        mix_group: Images that share one lambda and box (the official per-GPU batch).
        accumulate: Micro-batches per update.
        ema_decay: 0 for no average.
        input: Key of the batch, 'image' or 'video'.
        multi_label: True if an image may have several classes. The loss is then the binary
            cross-entropy of each class by itself, averaged over classes too; label smoothing takes
            marks of 0 and 1 toward a half.
        class_weights: K positive numbers, or () for none. Terms of the loss are multiplied by those
            of their classes, and the sum is divided as torch's is: by the weights of the rows'
            classes, but by the number of rows where targets are mixed, and by that of the marks
            with `multi_label`; of each micro-batch by itself.

    Raises:
        UserError: One class without `multi_label`, weights that are not K positive finite numbers.
    """

    predicts: ClassVar[str] = "logits"

    model: nn.Module
    tx: optax.GradientTransformation
    image_size: Size
    num_classes: PositiveInt
    channels: PositiveInt = 3
    seed: Seed = 0
    mean: tuple[FiniteFloat, ...] = IMAGENET_MEAN
    std: tuple[PositiveFloat, ...] = IMAGENET_STD
    label_smoothing: Fraction = 0.1
    erase_probability: Fraction = 0.25
    erase_mode: str = "pixel"
    mixup: NonNegativeFloat = 0.8
    cutmix: NonNegativeFloat = 1.0
    mix_probability: Fraction = 1.0
    mix_switch: Fraction = 0.5
    mix_group: PositiveInt = 128
    accumulate: PositiveInt = 1
    ema_decay: Rate = 0.0
    input: str = "image"
    multi_label: bool = False
    class_weights: tuple[_Weight, ...] = ()

    def __post_init__(self):
        check_statistics(self.mean, self.std, self.channels)
        if not self.multi_label:
            refuse_one_class(
                self.num_classes,
                "a classification",
                "give a second class, of everything else for example, or tell whether the one "
                "is there, by a list of marks 0 and 1 and --config.task.multi_label=True",
            )
        if len(self.class_weights):
            check_each("class_weights", self.class_weights, self.num_classes, "classes")
        object.__setattr__(self, "class_weights", tuple(map(float, self.class_weights)))

    def check_batch(self, batch_size: int, accumulate: int) -> None:
        """Raises UserError where images have no partner to be mixed with."""
        rows = batch_size // accumulate
        whole = rows <= self.mix_group or rows % self.mix_group == 0
        if (self.mixup or self.cutmix) and (rows % 2 or not whole):
            raise UserError(
                "mixup and CutMix pair neighbors in groups of task.mix_group = "
                f"{self.mix_group}: batch_size / accumulate is {rows}, "
                "which is odd, or larger and not a multiple of it"
            )

    def size(self) -> tuple[int, ...]:
        """`image_size` with one entry per axis."""
        sizes = (self.image_size,) if isinstance(self.image_size, int) else self.image_size
        return sizes * 2 if len(sizes) == 1 else sizes

    def init(self, key: jax.Array) -> TrainState:
        """Parameters from the model's own initializers; the average starts at them."""
        params = self.model.init(key, jnp.zeros((1, *self.size(), self.channels)))["params"]
        ema = jax.tree.map(jnp.copy, params) if self.ema_decay else None
        return TrainState(jnp.zeros((), jnp.int32), params, self.tx.init(params), {}, ema)

    def train_step(
        self, state: TrainState, batch: Batch, frozen: Any
    ) -> tuple[TrainState, Metrics]:
        """One update on `image` uint8 (B, H, W, C) and `label`, see `loss`."""
        key = step_key(self.seed, state.step, "train")
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
        """Mean cross-entropy against the mixed targets: normalize, then erase, then mix.

        `label` is int32 (B,), or with `multi_label` int8 (B, K): 1 where the class is there, 0
        where not, -1 where nothing is known, which does not count.
        """
        erase_key, mix_key, model_key = jax.random.split(key, 3)
        image = augmentation.normalize(batch[self.input], self.mean, self.std)
        target = self._target(batch["label"])
        if self.erase_probability:
            image = augmentation.random_erase(
                erase_key, image, self.erase_probability, mode=self.erase_mode
            )
        if self.mixup or self.cutmix:
            image, target = augmentation.mix(
                mix_key,
                image,
                target,
                self.mixup,
                self.cutmix,
                self.mix_probability,
                self.mix_switch,
                self.mix_group,
            )
        logits = self.model.apply(
            {"params": params}, image, train=True, rngs={"dropout": model_key}
        )
        if not (self.multi_label or self.class_weights):
            return losses.soft_cross_entropy(logits, target).mean(), ({}, mutable)
        return self._mean(logits, target, batch["label"]), ({}, mutable)

    def _target(self, label: jax.Array) -> jax.Array:
        """(B, K) float32; with several labels (B, 2 K),
        behind the targets 1 where they are known and 0 where not.
        """
        if not self.multi_label:
            return losses.smooth_one_hot(label, self.num_classes, self.label_smoothing)
        if label.ndim == 1:
            marks = jax.nn.one_hot(label, self.num_classes)
        else:
            marks = label.astype(jnp.float32)
        target = jnp.maximum(marks, 0.0) * (1 - self.label_smoothing) + self.label_smoothing / 2
        return jnp.concatenate([target, (marks >= 0).astype(jnp.float32)], axis=-1)

    def _mean(self, logits: jax.Array, target: jax.Array, label: jax.Array) -> jax.Array:
        weights = jnp.array(self.class_weights) if self.class_weights else None
        if self.multi_label:
            target, known = jnp.split(target, 2, axis=-1)
            # A mixture is known where both of its images are; 1 is a rounded sum there.
            return losses.known_mean(
                losses.sigmoid_cross_entropy(logits, target), known > 1 - 1e-5, weights
            )
        mixed = self.mixup or self.cutmix
        return losses.weighted_cross_entropy(logits, target, weights, None if mixed else label)

    def probabilities(self, logits: jax.Array) -> jax.Array:
        """(..., K) -> (..., K): of all classes together,
        or with `multi_label` of each by itself.
        """
        return jax.nn.sigmoid(logits) if self.multi_label else jax.nn.softmax(logits, axis=-1)

    def predict(self, state: TrainState, batch: Batch, frozen: Any) -> dict[str, jax.Array]:
        """`logits` (B, K) float32 of `image` uint8."""
        image = augmentation.normalize(batch[self.input], self.mean, self.std)
        return {"logits": self.model.apply({"params": state.params}, image)}

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of `image`, or of the key in `input`, and `label`."""
        pixels = jax.ShapeDtypeStruct((batch_size, *self.size(), self.channels), jnp.uint8)
        label = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
        if self.multi_label:
            label = jax.ShapeDtypeStruct((batch_size, self.num_classes), jnp.int8)
        return {self.input: pixels, "label": label}
