"""The discriminator of StyleGAN2, residual by default.

Karras et al., arXiv 1912.04958. References: `Discriminator` of NVlabs/stylegan2-ada-pytorch
(training/networks.py), whose names the parameters have, and that of rosinality/stylegan2-pytorch
(model.py).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import NonNegativeInt, PositiveFloat, PositiveInt, checked
from swin_jax.models.layers import check_some
from swin_jax.models.stylegan2 import style_space
from swin_jax.models.stylegan2.layers import Convolution, FullyConnected
from swin_jax.models.stylegan2.mapping import MappingNetwork
from swin_jax.ops import stylegan2 as ops
from swin_jax.ops.batch_sharding import constrain_batch

ARCHITECTURES = ("resnet", "orig")


def minibatch_deviation(x: jax.Array, group_size: int | None) -> jax.Array:
    """Appends a channel with the deviation within groups of the batch:
    (B, H, W, C) -> (B, H, W, C + 1).

    Rows b, b + n, b + 2n, ... are a group, n = B / group:
    a function of the whole batch, however it lies on devices.

    Raises:
        UserError: The group does not divide the batch.
    """
    batch, height, width, channels = x.shape
    group = batch if group_size is None else min(group_size, batch)
    if batch % group:
        raise UserError(f"a batch of {batch} is not a multiple of mbstd_group_size={group}")
    grouped = x.astype(jnp.float32).reshape(group, batch // group, height, width, channels)
    centered = grouped - grouped.mean(axis=0, keepdims=True)
    deviation = jnp.sqrt((centered**2).mean(axis=0) + 1e-8).mean(axis=(1, 2, 3))  # (n,)
    rows = jnp.tile(deviation, group)[:, None, None, None]
    rows = jnp.broadcast_to(rows, (batch, height, width, 1)).astype(x.dtype)
    return jnp.concatenate([x, rows], axis=-1)


def _latest(_, new):
    return new


class Block(nn.Module):
    """Half the size: two convolutions and, if residual, a shortcut;
    the first block reads pixels.
    """

    channels: int
    features: int
    first: bool
    architecture: str
    clamp: float | None
    resampling: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shared = dict(clamp=self.clamp, resampling=self.resampling)
        if self.first:
            x = Convolution(self.channels, 1, clamp=self.clamp, name="fromrgb")(x)
            self.sow("intermediates", "pixels", x, reduce_fn=_latest, init_fn=lambda: None)
        residual = self.architecture == "resnet"
        gain = math.sqrt(0.5) if residual else 1.0
        out = Convolution(self.channels, **shared, name="conv0")(x)
        out = Convolution(self.features, down=True, gain=gain, **shared, name="conv1")(out)
        if not residual:
            return out
        skip = Convolution(
            self.features, 1, True, False, False, gain, resampling=self.resampling, name="skip"
        )
        return out + skip(x)


class Epilogue(nn.Module):
    """4 x 4 maps -> features (B, out_features) float32."""

    out_features: int
    group_size: int | None
    clamp: float | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = x.shape[-1]
        x = x.astype(jnp.float32)
        x = minibatch_deviation(x, self.group_size)
        x = Convolution(features, clamp=self.clamp, name="conv")(x)
        self.sow("intermediates", "maps", x, reduce_fn=_latest, init_fn=lambda: None)
        x = FullyConnected(features, activation=True, name="fc")(x.reshape(x.shape[0], -1))
        return FullyConnected(self.out_features, name="out")(x)


@checked
class Discriminator(nn.Module):
    """Images (B, resolution, resolution, image_channels), floats in -1..1 -> logits (B,
    1) float32, high for real ones.

    With `mutable=['intermediates']` the maps after the blocks are kept in
    `intermediates['outputs']` as 'b32', 'b16' and so on, those after the first convolution in
    `pixels` of the first block, those after the last one in `maps` of 'b4'.

    Attributes:
        resolution, c_dim, channel_base, channel_max, image_channels, conv_clamp, resampling: The
            same as in `models.stylegan2.Generator`.
        mapping_layers: Layers of the network that maps labels, if c_dim is not 0.
        mbstd_group_size: Images whose deviation is one feature; None for the whole batch.
        architecture: 'resnet', or 'orig' without shortcuts (ADA's 'cifar').
        dtype: Type of the maps above 4 x 4.
    """

    resolution: PositiveInt
    c_dim: NonNegativeInt = 0
    channel_base: PositiveInt = 32768
    channel_max: PositiveInt = 512
    image_channels: PositiveInt = 3
    mapping_layers: PositiveInt = 8
    mbstd_group_size: PositiveInt | None = 4
    architecture: str = "resnet"
    conv_clamp: PositiveFloat | None = None
    resampling: str = "merged"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, image: jax.Array, c: jax.Array | None = None) -> jax.Array:
        self._check(image)
        channels = {
            size: style_space.channels_at(size, self.channel_base, self.channel_max)
            for size in style_space.resolutions(self.resolution)
        }
        x, outputs = constrain_batch(image.astype(jnp.dtype(self.dtype))), {}
        for size in sorted(channels, reverse=True)[:-1]:
            x = Block(
                channels[size],
                channels[size // 2],
                size == self.resolution,
                self.architecture,
                self.conv_clamp,
                self.resampling,
                name=f"b{size}",
            )(x)
            x = constrain_batch(x)
            outputs[f"b{size}"] = x
        self.sow("intermediates", "outputs", outputs, reduce_fn=_latest, init_fn=lambda: None)
        width = channels[4]
        out = Epilogue(
            width if self.c_dim else 1, self.mbstd_group_size, self.conv_clamp, name="b4"
        )(x)
        if not self.c_dim:
            if c is not None:
                raise UserError("this discriminator has no labels; leave out c")
            return out
        label = MappingNetwork(0, self.c_dim, width, self.mapping_layers, name="mapping")(None, c)
        return (out * label).sum(axis=1, keepdims=True) / math.sqrt(width)

    @nn.nowrap
    def flops(self) -> int:
        """Multiply-accumulates of the convolutions and fully connected layers for one image."""
        channels = {
            size: style_space.channels_at(size, self.channel_base, self.channel_max)
            for size in style_space.resolutions(self.resolution)
        }
        total = self.resolution**2 * self.image_channels * channels[self.resolution]
        for size in sorted(channels)[1:]:
            own, out, pixels = channels[size], channels[size // 2], (size // 2) ** 2
            total += 9 * own * (own * 4 + out) * pixels
            if self.architecture == "resnet":
                total += own * out * pixels
        width = channels[4]
        total += 16 * (9 * (width + 1) + width) * width + width * (width if self.c_dim else 1)
        if self.c_dim:
            total += width * (self.c_dim + self.mapping_layers * width)
        return total

    def _check(self, image: jax.Array) -> None:
        if self.architecture not in ARCHITECTURES:
            raise UserError(
                f"architecture={self.architecture!r} must be one of {', '.join(ARCHITECTURES)}"
            )
        if self.resampling not in ops.RESAMPLING:
            raise UserError(f"resampling={self.resampling!r} must be 'merged' or 'plain'")
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise UserError(f"images are {image.dtype}; give them as floats in -1..1")
        shape = (self.resolution, self.resolution, self.image_channels)
        if image.shape[1:] != shape:
            raise UserError(
                f"images are of shape {image.shape}, but this discriminator takes (B, {shape})"
            )
        check_some(image, "images")
