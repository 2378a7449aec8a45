"""SimMIM pretraining: predict the pixels of masked cells, L1 over the whole global batch.

SimMIM (arXiv 2111.09886); the reference is `main_simmim_pt.py` of microsoft/Swin-Transformer, whose
mean is over each process's batch instead.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from swin_jax.core.constants import IMAGENET_MEAN, IMAGENET_STD
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import (
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Rate,
    Seed,
    check_statistics,
    checked,
)
from swin_jax.core.sizes import Size, cells, per_axis
from swin_jax.ops import augmentation, masked_image
from swin_jax.ops.window_geometry import stage_grids
from swin_jax.tasks.base import Batch, Metrics, TrainState, gradient_step, step_key


@checked
@dataclasses.dataclass(frozen=True)
class MaskedImageModeling:
    """Trains `model` to reconstruct masked images.

    Attributes:
        model: A `models.simmim.SimMIM`.
        tx: The optimizer.
        image_size: (H, W) of the batch's `image`, or one int for both.
        channels: Number of image channels.
        seed: Seed of drop path.
        mean, std: Mean and standard deviation of the pixels in 0..1, one number per channel.
        norm_target: Side in pixels of the window that the target is normalized in (47 for the
            official Swin v2 runs), odd; 0 predicts the image as the encoder sees it.
        accumulate: Micro-batches per update.
        ema_decay: 0 for no average.
        mask_cell: (H, W) in pixels of a cell of the batch's `mask`, or one int for both.
    """

    predicts: ClassVar[str] = "reconstruction"

    model: nn.Module
    tx: optax.GradientTransformation
    image_size: Size
    channels: PositiveInt = 3
    seed: Seed = 0
    mean: tuple[FiniteFloat, ...] = IMAGENET_MEAN
    std: tuple[PositiveFloat, ...] = IMAGENET_STD
    norm_target: NonNegativeInt = 0
    accumulate: PositiveInt = 1
    ema_decay: Rate = 0.0
    mask_cell: Size = 32

    def __post_init__(self):
        check_statistics(self.mean, self.std, self.channels)
        if self.norm_target and (self.norm_target < 3 or self.norm_target % 2 == 0):
            raise UserError(f"norm_target={self.norm_target} must be odd and at least 3, or 0")

    def size(self) -> tuple[int, int]:
        """`image_size` with one entry per axis."""
        return per_axis(self.image_size, 2)

    def init(self, key: jax.Array) -> TrainState:
        """Parameters from the model's own initializers; the average starts at them."""
        mask = jnp.zeros((1, *self.token_grid(self.size())))
        params = self.model.init(key, jnp.zeros((1, *self.size(), self.channels)), mask)["params"]
        ema = jax.tree.map(jnp.copy, params) if self.ema_decay else None
        return TrainState(jnp.zeros((), jnp.int32), params, self.tx.init(params), {}, ema)

    def train_step(
        self, state: TrainState, batch: Batch, frozen: Any
    ) -> tuple[TrainState, Metrics]:
        """One update on `image` uint8 (B, H, W, C) and `mask` uint8 (B, *cells),
        cells of whole patches.
        """
        key = step_key(self.seed, state.step, "train")
        batch = {name: batch[name] for name in ("image", "mask")}
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
        """Mean absolute difference over the masked pixels of the batch."""
        image = augmentation.normalize(batch["image"], self.mean, self.std)
        predicted = self.reconstruct(
            params, image, batch["mask"], train=True, rngs={"dropout": key}
        )
        target = (
            masked_image.normalize_locally(image, self.norm_target) if self.norm_target else image
        )
        pixels = masked_image.upsample(batch["mask"], image.shape[1:-1])
        return masked_image.masked_mean(*masked_image.masked_error(predicted, target, pixels)), (
            {},
            mutable,
        )

    def predict(self, state: TrainState, batch: Batch, frozen: Any) -> dict[str, jax.Array]:
        """Reconstructions of `image` uint8 under `mask`, and how far off they are.

        Returns:
            `reconstruction` (B, H, W, C) float32, pixels in 0..1 units (a normalized target
            is undone with the image's own statistics); `pixel_mask` (B, H, W) uint8; `error`
            and `masked` (B,) float32, as `masked_image.masked_error` gives them, in the
            units of the target.
        """
        image = augmentation.normalize(batch["image"], self.mean, self.std)
        predicted = self.reconstruct(state.params, image, batch["mask"])
        pixels = masked_image.upsample(batch["mask"], image.shape[1:-1])
        if self.norm_target:
            mean, variance = masked_image.local_statistics(image, self.norm_target)
            deviation = jnp.sqrt(variance + masked_image.NORM_EPSILON)
            error, masked = masked_image.masked_error(predicted, (image - mean) / deviation, pixels)
            predicted = predicted * deviation + mean
        else:
            error, masked = masked_image.masked_error(predicted, image, pixels)
        std, mean = (
            jnp.asarray(values, jnp.float32).reshape(1, 1, 1, -1)
            for values in (self.std, self.mean)
        )
        return {
            "reconstruction": predicted * std + mean,
            "pixel_mask": pixels,
            "error": error,
            "masked": masked,
        }

    def reconstruct(self, params: Any, image: jax.Array, mask: jax.Array, **kwargs) -> jax.Array:
        """The model's prediction for normalized images under a mask of cells."""
        tokens = masked_image.upsample(mask, self.token_grid(image.shape[1:-1]))
        return self.model.apply({"params": params}, image, tokens, **kwargs)

    def token_grid(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The encoder's tokens along each axis."""
        return stage_grids(self.model.encoder, tuple(size))[0]

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of `image` and `mask`."""
        grid = cells(self.size(), self.mask_cell)
        shapes = {"image": (batch_size, *self.size(), self.channels), "mask": (batch_size, *grid)}
        return {name: jax.ShapeDtypeStruct(shape, jnp.uint8) for name, shape in shapes.items()}
