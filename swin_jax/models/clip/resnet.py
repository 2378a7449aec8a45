"""CLIP's ResNet: three stem convolutions, average pools in place of strides,
attention in place of the last pool.

CLIP (arXiv 2103.00020); the reference is `ModifiedResNet` of openai/CLIP, clip/model.py.
Convolutions have no bias. The statistics of the norms are those of the whole batch: under `jit`,
with a batch that is split over devices, of all of them.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import PositiveInt, PositiveInts, checked
from swin_jax.core.sizes import Size, cells, per_axis
from swin_jax.models.clip.vit import check_image
from swin_jax.models.layers import batch_norm, conv, init_conv
from swin_jax.models.swin.blocks import REMAT
from swin_jax.ops.attention import dot_product_attention

EXPANSION = 4


def average_pool(x: jax.Array, size: int) -> jax.Array:
    """Means of squares of `size`; what is left over at the end is dropped."""
    return nn.avg_pool(x, (size, size), (size, size)) if size > 1 else x


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, average pool, 1 x 1; the pool is what strides, in the shortcut too."""

    in_channels: int
    planes: int
    stride: int
    dtype: Any
    param_dtype: Any

    def setup(self):
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        out = EXPANSION * self.planes
        self.conv1, self.bn1 = conv(self.in_channels, self.planes, 1, 1, types), batch_norm(types)
        self.conv2, self.bn2 = conv(self.planes, self.planes, 3, 1, types), batch_norm(types)
        self.conv3, self.bn3 = conv(self.planes, out, 1, 1, types), batch_norm(types, zero=True)
        self.has_downsample = self.stride > 1 or self.in_channels != out
        if self.has_downsample:
            self.downsample = [conv(self.in_channels, out, 1, 1, types), batch_norm(types)]

    def __call__(self, x: jax.Array, frozen: bool) -> jax.Array:
        """(B, H, W, c) to (B, H / stride, W / stride, 4 planes);
        `frozen` uses the running statistics.
        """
        out = nn.relu(self.bn1(self.conv1(x), use_running_average=frozen))
        out = nn.relu(self.bn2(self.conv2(out), use_running_average=frozen))
        out = self.bn3(self.conv3(average_pool(out, self.stride)), use_running_average=frozen)
        if self.has_downsample:
            project, norm = self.downsample
            x = norm(project(average_pool(x, self.stride)), use_running_average=frozen)
        return nn.relu(out + x)


class AttentionPool(nn.Module):
    """One attention whose query is the mean of the map: (B, H, W, C) to (B, embed_dim)."""

    positions: int
    width: int
    num_heads: int
    embed_dim: int
    dtype: Any
    param_dtype: Any

    def setup(self):
        normal, bias = nn.initializers.normal(self.width**-0.5), init_conv(self.width)
        shared = dict(
            dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=normal, bias_init=bias
        )
        heads = (self.num_heads, self.width // self.num_heads)
        shape = (self.positions + 1, self.width)
        self.positional_embedding = self.param(
            "positional_embedding", normal, shape, self.param_dtype
        )
        self.q_proj = nn.DenseGeneral(heads, **shared)
        self.k_proj = nn.DenseGeneral(heads, **shared)
        self.v_proj = nn.DenseGeneral(heads, **shared)
        self.c_proj = nn.DenseGeneral(self.embed_dim, axis=(-2, -1), **shared)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.c_proj(self.attend(x))

    def attend(self, x: jax.Array) -> jax.Array:
        """The heads' outputs before the last projection: (B, h, d)."""
        x = x.reshape(x.shape[0], -1, self.width)
        x = jnp.concatenate([x.mean(axis=1, keepdims=True), x], axis=1)  # (B, 1 + H W, C)
        x = x + self.positional_embedding.astype(x.dtype)[None]
        out = dot_product_attention(
            self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x), implementation="xla"
        )
        return out[:, 0]


@checked
class ModifiedResNet(nn.Module):
    """Image tower: (B, H, W, 3) to (B, embed_dim).

    Running statistics are in the collection 'batch_stats'; with train=True it must be mutable. With
    `mutable=['intermediates']` the outputs of 'avgpool' (the stem), 'layer1', ..., 'layer4' are
    kept in `intermediates['outputs']`, each (B, H, W, C).

    Attributes:
        embed_dim: Size of the space that images and texts share.
        image_size: (H, W) in pixels, multiples of 32, or one int for both.
        layers: Blocks of each of the four stages.
        width: Width of the stem; the last map has 32 times as many channels.
        num_heads: Heads of the attention pool.
        freeze_batch_norm: train=True does not change the statistics and uses the
            running ones (for fine-tuning).
        dtype, param_dtype: Types of the activations and of the parameters; statistics are float32.
        remat: The same as in `models.swin.Swin`; convolutions are computed again under every choice
            but 'none'.
    """

    embed_dim: PositiveInt
    image_size: Size = 224
    layers: PositiveInts = (3, 4, 6, 3)
    width: PositiveInt = 64
    num_heads: PositiveInt = 32
    freeze_batch_norm: bool = False
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"

    def setup(self):
        self._check()
        types = dict(dtype=jnp.dtype(self.dtype), param_dtype=jnp.dtype(self.param_dtype))
        half = self.width // 2
        self.conv1, self.bn1 = conv(3, half, 3, 2, types), batch_norm(types)
        self.conv2, self.bn2 = conv(half, half, 3, 1, types), batch_norm(types)
        self.conv3, self.bn3 = conv(half, self.width, 3, 1, types), batch_norm(types)
        block = Bottleneck
        if self.remat != "none":
            block = nn.remat(Bottleneck, policy=REMAT[self.remat], static_argnums=(2,))

        def stage(s):
            planes = self.width * 2**s
            before = self.width if s == 0 else EXPANSION * planes // 2
            first = block(before, planes, 1 if s == 0 else 2, **types)
            return [first] + [
                block(EXPANSION * planes, planes, 1, **types) for _ in range(self.layers[s] - 1)
            ]

        self.layer1, self.layer2, self.layer3, self.layer4 = (stage(s) for s in range(4))
        positions = math.prod(cells(self.image_size, 32))
        self.attnpool = AttentionPool(
            positions, 32 * self.width, self.num_heads, self.embed_dim, **types
        )

    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        """Embeds images.

        Args:
            image: (B, H, W, 3), floating point and normalized.
            train: True if norms use the statistics of the batch and move the running ones.

        Returns:
            (B, embed_dim) in `dtype`, not normalized.

        Raises:
            UserError: Integer images, or images of another size.
        """
        return self.attnpool(self.features(image, train)[-1])

    def pooled(self, image: jax.Array, train: bool = False) -> jax.Array:
        """The output of the attention pool, before its last projection: (B, 32 width)."""
        x = self.attnpool.attend(self.features(image, train)[-1])
        return x.reshape(x.shape[0], -1)

    def features(self, image: jax.Array, train: bool = False) -> list[jax.Array]:
        """Spatial features: the maps after the four stages, (B, H, W, C), of 1/4, 1/8,
        1/16 and 1/32 the image.
        """
        check_image(image, self.image_size)
        frozen = self.freeze_batch_norm or not train
        x = image.astype(jnp.dtype(self.dtype))
        for convolve, norm in (
            (self.conv1, self.bn1),
            (self.conv2, self.bn2),
            (self.conv3, self.bn3),
        ):
            x = nn.relu(norm(convolve(x), use_running_average=frozen))
        x = average_pool(x, 2)
        outputs = {"avgpool": x}
        for s, blocks in enumerate((self.layer1, self.layer2, self.layer3, self.layer4)):
            for block in blocks:
                x = block(x, frozen)
            outputs[f"layer{s + 1}"] = x
        self.sow(
            "intermediates", "outputs", outputs, reduce_fn=lambda _, new: new, init_fn=lambda: None
        )
        return [outputs[f"layer{s + 1}"] for s in range(4)]

    @nn.nowrap
    def flops(self) -> int:
        """Multiply-accumulates per image of convolutions, projections and the attention pool."""
        half, side = self.width // 2, math.prod(per_axis(self.image_size, 2))
        pixels = side // 4
        total = pixels * 9 * (3 * half + half * half + half * self.width)
        pixels, before = pixels // 4, self.width
        for s, blocks in enumerate(self.layers):
            planes, out = self.width * 2**s, EXPANSION * self.width * 2**s
            larger, pixels = pixels, pixels if s == 0 else pixels // 4
            # The pool that strides stands between the second and the third convolution.
            total += larger * (before + 9 * planes) * planes + pixels * (planes + before) * out
            total += (blocks - 1) * pixels * planes * (2 * out + 9 * planes)
            before = out
        tokens = pixels + 1
        pool = (2 * tokens + 1) * before + 2 * tokens + self.embed_dim
        return total + pool * before

    def _check(self) -> None:
        """Raises UserError where fields are not among the known ones or contradict each other."""
        if len(self.layers) != 4 or min(self.layers) < 1:
            raise UserError(f"layers={self.layers} are not the blocks of four stages")
        if any(size < 32 or size % 32 for size in per_axis(self.image_size, 2)):
            raise UserError(f"image_size={self.image_size} is not a multiple of 32")
        if self.width % 2 or 32 * self.width % self.num_heads:
            raise UserError(
                f"width={self.width} is odd, or {self.num_heads} heads do "
                f"not divide {32 * self.width}"
            )
        if self.remat not in ("none", *REMAT):
            raise UserError(f"remat={self.remat!r} is not one of {('none', *REMAT)}")
