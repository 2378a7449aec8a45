"""LPIPS: how different two pictures look, by the maps of VGG16.

Zhang et al., arXiv 1801.03924; the reference is version 0.1 of richzhang/PerceptualSimilarity,
whose convolutions are those of torchvision's VGG16, under the same numbers.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import PositiveInts, checked
from swin_jax.models.layers import init_conv
from swin_jax.ops.normalize import unit

# Of pixels in -1..1: nearly ImageNet's mean and deviation.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@checked
class LPIPS(nn.Module):
    """The perceptual distance of pictures: two of (B, H, W, 3) to (B,).

    Attributes:
        widths: Channels of the convolutions of each stage.
        depths: Convolutions of each stage; a pool halves the maps between two stages.
    """

    widths: PositiveInts = (64, 128, 256, 512, 512)
    depths: PositiveInts = (2, 2, 3, 3, 3)

    def setup(self):
        if len(self.widths) != len(self.depths):
            raise UserError(
                f"widths={self.widths} and depths={self.depths} must be for the same stages"
            )
        layers: list[nn.Conv | None] = []
        for number, before, after in self.convolutions():
            init = init_conv(9 * before)
            # Where torchvision counts activations and pools.
            layers += [None] * (number - len(layers))
            layers.append(
                nn.Conv(after, (3, 3), padding=((1, 1), (1, 1)), kernel_init=init, bias_init=init)
            )
        self.features = layers
        init = nn.initializers.constant(1.0)
        self.heads = [self.param(f"lin{k}", init, (width,)) for k, width in enumerate(self.widths)]

    def convolutions(self) -> list[tuple[int, int, int]]:
        """(number in torchvision's `features`, channels before,
        channels after) of each convolution.
        """
        found, number, before = [], 0, 3
        for width, depth in zip(self.widths, self.depths):
            for _ in range(depth):
                found.append((number, before, width))
                number, before = number + 2, width
            number += 1
        return found

    def __call__(self, image: jax.Array, other: jax.Array) -> jax.Array:
        """The distance of each pair of pictures, both (B, H, W, 3), floating point in -1..1:
        (B,) float32.
        """
        return self.compare(self.embed(image), self.embed(other))

    def embed(self, image: jax.Array) -> tuple[jax.Array, ...]:
        """The maps that are compared, one (B, h, w, C) of each stage,
        of length 1 along the channels.

        Args:
            image: (B, H, W, 3), floating point in -1..1.

        Raises:
            UserError: Integer images, and those that are too small for all stages.
        """
        least = 2 ** (len(self.widths) - 1)
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise UserError(f"images are {image.dtype}: bring them to -1..1 first")
        if image.ndim != 4 or image.shape[-1] != 3 or min(image.shape[1:3]) < least:
            raise UserError(
                f"images are of shape {image.shape}; they must be (B, H, W, 3), "
                f"at least {least} x {least}"
            )
        x = (image.astype(jnp.float32) - np.float32(SHIFT).reshape(1, 1, 1, 3)) / np.float32(
            SCALE
        ).reshape(1, 1, 1, 3)
        convolutions, maps = iter([layer for layer in self.features if layer is not None]), []
        for depth in self.depths:
            x = nn.max_pool(x, (2, 2), (2, 2)) if maps else x
            for _ in range(depth):
                x = nn.relu(next(convolutions)(x))
            maps.append(unit(x))
        return tuple(maps)

    def compare(self, maps: Sequence[jax.Array], others: Sequence[jax.Array]) -> jax.Array:
        """The distance of pictures whose maps `embed` gave: (B,) float32."""
        parts = []
        for head, one, other in zip(self.heads, maps, others):
            parts.append(jnp.square(one - other).mean(axis=(1, 2)) @ head)
        return sum(parts)
