"""SimMIM: an encoder that sees a learned token in place of masked patches,
and one linear layer back to pixels.

SimMIM (arXiv 2111.09886); the reference is `SimMIM` of `models/simmim.py` of
microsoft/Swin-Transformer.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.models.layers import init_conv, init_linear
from swin_jax.ops.window_geometry import stage_geometry, total_stride


class SimMIM(nn.Module):
    """Reconstructs masked images.

    Attributes:
        encoder: A `models.swin.Swin` with num_classes=0;
            what it sees and at which stride follows from its fields.
    """

    encoder: nn.Module

    @nn.compact
    def __call__(self, image: jax.Array, mask: jax.Array, train: bool = False) -> jax.Array:
        """Predicts all pixels, masked or not.

        Args:
            image: (B, *size, C), floating point and normalized;
                `size` is a multiple of the encoder's stride.
            mask: (B, *size / patch) of 0 and 1, 1 where the encoder does not see a patch.
            train: True to drop paths; needs `rngs={'dropout': key}` then.

        Returns:
            (B, *size, C) float32, in the units of the target.

        Raises:
            UserError: An image that is not a multiple of the stride.
        """
        axes = image.ndim - 2
        stride = total_stride(self.encoder, axes)
        if any(size % s for size, s in zip(image.shape[1:-1], stride)):
            raise UserError(
                f"images of {image.shape[1:-1]} are not a multiple of the encoder's stride {stride}"
            )
        dtype, param_dtype = jnp.dtype(self.encoder.dtype), jnp.dtype(self.encoder.param_dtype)
        token = self.param("mask_token", init_linear, (1, 1, self.encoder.embed_dim), param_dtype)
        encoded = self.encoder.encode(image, train=train, mask=mask, mask_token=token)
        decode = nn.Conv(
            image.shape[-1] * math.prod(stride),
            (1,) * axes,
            dtype=dtype,
            param_dtype=param_dtype,
            kernel_init=init_conv(encoded.shape[-1]),
            bias_init=init_conv(encoded.shape[-1]),
            name="decoder",
        )
        return pixel_shuffle(decode(encoded), stride).astype(jnp.float32)

    @nn.nowrap
    def flops(self) -> int:
        """Multiply-accumulates per image at the encoder's image size:
        the encoder's, and the decoder's.
        """
        grids, _ = stage_geometry(self.encoder)
        stride = total_stride(self.encoder, len(grids[-1]))
        dim = self.encoder.embed_dim * 2 ** (len(self.encoder.depths) - 1)
        return (
            self.encoder.flops() + math.prod((*grids[-1], *stride)) * self.encoder.in_channels * dim
        )


def pixel_shuffle(x: jax.Array, stride: tuple[int, ...]) -> jax.Array:
    """Spreads channels over cells of `stride` pixels:
    (B, *grid, C * prod(stride)) -> (B, *grid * stride, C).

    The channel is C-major, as PyTorch's PixelShuffle has it:
    c * prod(stride) + row * stride + column.
    """
    batch, *grid, channels = x.shape
    n = len(grid)
    x = x.reshape(batch, *grid, channels // math.prod(stride), *stride)
    order = [axis for i in range(n) for axis in (1 + i, 2 + n + i)]
    return x.transpose(0, *order, 1 + n).reshape(batch, *(g * s for g, s in zip(grid, stride)), -1)
