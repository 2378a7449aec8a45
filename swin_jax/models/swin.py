"""Swin Transformer over any number of spatial axes.

Swin Transformer (arXiv 2103.14030); the peer is `SwinTransformer` of microsoft/Swin-Transformer. Submodules carry the
official names, so that a path becomes an official name by `swin_jax.names`.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.models.layers import Mlp, PatchEmbed, drop_path, init_linear, layer_norm
from swin_jax.ops import attention, window

Size = int | tuple[int, ...]


def per_axis(value: Size, axes: int) -> tuple[int, ...]:
    """One int per axis: an int or a 1-tuple is repeated."""
    value = (value,) if isinstance(value, int) else tuple(value)
    if len(value) not in (1, axes):
        raise ValueError(f"{value} has {len(value)} entries for {axes} axes")
    return value * axes if len(value) == 1 else value


class WindowAttention(nn.Module):
    """Multi-head attention inside windows with a learned table of relative position biases.

    `qkv` holds heads as an axis of their own, (C, 3, h, d), so that a mesh can split heads.
    """

    num_heads: int
    window: tuple[int, ...]  # the window that the table is made for
    qkv_bias: bool = True
    dtype: Any = jnp.float32
    implementation: str = "xla"

    @nn.compact
    def __call__(self, x: jax.Array, mask: np.ndarray | None) -> jax.Array:
        tokens, channels = x.shape[1:]
        head_dim = channels // self.num_heads
        qkv = HeadsProjection(self.num_heads, self.qkv_bias, self.dtype, name="qkv")(x)  # (B*nW, N, 3, h, d)
        # The official code scales q after the bias was added.
        qkv = qkv * jnp.asarray([head_dim**-0.5, 1, 1], self.dtype).reshape(1, 1, 3, 1, 1)
        table = self.param(
            "relative_position_bias_table", init_linear, (math.prod(2 * w - 1 for w in self.window), self.num_heads)
        )
        # The corner slice is what the official video code does where the grid is smaller than the window.
        index = window.relative_position_index(self.window)[:tokens, :tokens]
        bias = table[index].transpose(2, 0, 1)  # (h, N, N)
        out = attention.window_attention(qkv, bias, mask, self.implementation)
        return nn.DenseGeneral(channels, axis=(-2, -1), dtype=self.dtype, kernel_init=init_linear, name="proj")(out)


class HeadsProjection(nn.Module):
    """Linear to q, k and v of all heads: (..., C) -> (..., 3, h, d)."""

    num_heads: int
    bias: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (3, self.num_heads, x.shape[-1] // self.num_heads)
        kernel = self.param("kernel", init_linear, (x.shape[-1], *shape)).astype(self.dtype)
        x = jnp.einsum("bnc,cthd->bnthd", x.astype(self.dtype), kernel)
        if not self.bias:
            return x
        return x + self.param("bias", nn.initializers.zeros, shape).astype(self.dtype)[None, None]


class Block(nn.Module):
    """One pre-norm transformer block: windowed attention, then an MLP, each a residual branch with drop path."""

    num_heads: int
    window: tuple[int, ...]
    shifted: bool
    small: str
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    drop_path_rate: float = 0.0
    dtype: Any = jnp.float32
    implementation: str = "xla"

    @nn.compact
    def __call__(self, x: jax.Array, draws: jax.Array | None) -> jax.Array:
        """x is (B, *spatial, C); draws is None (evaluation) or (2, B), uniform, for the drop path of the branches."""
        draws = (None, None) if draws is None else draws
        x = x + drop_path(self.attend(layer_norm(self.dtype, "norm1")(x)), draws[0], self.drop_path_rate)
        mlp = Mlp(int(x.shape[-1] * self.mlp_ratio), self.dtype, name="mlp")
        return x + drop_path(mlp(layer_norm(self.dtype, "norm2")(x)), draws[1], self.drop_path_rate)

    def attend(self, x: jax.Array) -> jax.Array:
        """Pads, shifts, partitions, attends and puts everything back."""
        spatial = x.shape[1:-1]
        size, shift = self.geometry(spatial)
        axes = tuple(range(1, 1 + len(spatial)))
        x = window.pad_to_multiple(x, size)
        padded = x.shape[1:-1]
        mask = window.shift_mask(padded, size, shift) if any(shift) else None
        if any(shift):
            x = jnp.roll(x, [-s for s in shift], axes)
        attend = WindowAttention(
            self.num_heads, self.window, self.qkv_bias, self.dtype, self.implementation, name="attn"
        )
        x = window.reverse(attend(window.partition(x, size), mask), size, padded)
        if any(shift):
            x = jnp.roll(x, shift, axes)
        return x[(slice(None), *(slice(n) for n in spatial))]

    def geometry(self, spatial: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Window and shift on this map. Under 'shrink' the table has fixed the window, whatever the input's size."""
        size, shift = window.fit(spatial, self.window, self.small)
        size = self.window if self.small == "shrink" else size
        return size, shift if self.shifted else (0,) * len(spatial)


class PatchMerging(nn.Module):
    """Concatenates the tokens of each small cell and halves the channels: (B, *spatial, C) -> (B, *spatial / 2, 2C)."""

    cell: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels, axes = x.shape[-1], len(self.cell)
        x = window.pad_to_multiple(x, self.cell)
        grid = [size // c for size, c in zip(x.shape[1:-1], self.cell)]
        x = window.partition(x, self.cell).reshape(x.shape[0], *grid, *self.cell, channels)
        # Official order along channels: the first spatial axis runs fastest, (0,0), (1,0), (0,1), (1,1).
        x = x.transpose(*range(1 + axes), *range(2 * axes, axes, -1), 2 * axes + 1).reshape(x.shape[0], *grid, -1)
        x = layer_norm(self.dtype, "norm")(x)
        return nn.Dense(2 * channels, use_bias=False, dtype=self.dtype, kernel_init=init_linear, name="reduction")(x)


class Stage(nn.Module):
    """Blocks of one resolution, plain and shifted in turn, then merging unless it is the last stage."""

    depth: int
    num_heads: int
    window: tuple[int, ...]
    drop_path_rates: tuple[float, ...]
    merge: tuple[int, ...] | None
    block: dict
    dtype: Any = jnp.float32

    def setup(self):
        self.blocks = [
            Block(self.num_heads, self.window, i % 2 == 1, drop_path_rate=self.drop_path_rates[i], **self.block)
            for i in range(self.depth)
        ]
        self.downsample = PatchMerging(self.merge, self.dtype) if self.merge else None

    def __call__(self, x: jax.Array, draws: jax.Array | None) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
        """Returns the output before merging, after merging, and after each block; draws are (depth, 2, B) or None."""
        outputs = []
        for i, block in enumerate(self.blocks):
            x = block(x, None if draws is None else draws[i])
            outputs.append(x)
        return x, self.downsample(x) if self.downsample else x, outputs


class Swin(nn.Module):
    """Swin Transformer classifier and backbone.

    `image_size` fixes the shapes of parameters only (tables of shrunk windows, absolute positions); other input sizes
    keep each stage's window and are padded. Sizes are ints (the same for two axes) or one int per spatial axis.

    With `mutable=['intermediates']` the outputs of 'patch_embed', 'layers.0.blocks.1', 'layers.0', ..., 'norm' are kept
    in `intermediates['outputs']`, a dict of these official names to (B, *spatial, C).

    Attributes:
        num_classes: outputs of the head; 0 for the pooled features.
        small: what happens on grids no larger than the window, see `ops.window.fit`.
        drop_path_rate: of the last block; grows linearly from 0 at the first.
        merge_size: cell of patch merging, an int or one per axis (1 leaves an axis alone).
        dtype: of matrix products and the residual stream, 'float32' or 'bfloat16'. Parameters are float32.
    """

    num_classes: int = 1000
    image_size: Size = 224
    patch_size: Size = 4
    in_channels: int = 3
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: Size = 7
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    ape: bool = False
    patch_norm: bool = True
    drop_path_rate: float = 0.1
    small: str = "shrink"
    merge_size: Size = 2
    dtype: str = "float32"
    attention: str = "xla"

    def setup(self):
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"dtype={self.dtype!r} is none of 'float32', 'bfloat16', 'float16'")
        if len(self.depths) != len(self.num_heads):
            raise ValueError(f"depths={self.depths} and num_heads={self.num_heads} are of different lengths")
        dtype = jnp.dtype(self.dtype)
        grids, windows = stage_geometry(self)
        axes = len(grids[0])
        for dim, heads in zip(stage_dims(self), self.num_heads, strict=True):
            if dim % heads:
                raise ValueError(f"{heads} heads do not divide {dim} channels")
        self.patch_embed = PatchEmbed(self.embed_dim, per_axis(self.patch_size, axes), self.patch_norm, dtype)
        if self.ape:
            self.absolute_pos_embed = self.param(
                "absolute_pos_embed", init_linear, (1, math.prod(grids[0]), self.embed_dim)
            )
        depth = sum(self.depths)
        rates = [self.drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
        shared = dict(
            small=self.small,
            mlp_ratio=self.mlp_ratio,
            qkv_bias=self.qkv_bias,
            dtype=dtype,
            implementation=self.attention,
        )
        merge = per_axis(self.merge_size, axes)
        starts = np.cumsum((0, *self.depths))
        self.layers = [
            Stage(
                self.depths[s],
                self.num_heads[s],
                windows[s],
                tuple(rates[starts[s] : starts[s + 1]]),
                merge if s < len(self.depths) - 1 else None,
                shared,
                dtype,
            )
            for s in range(len(self.depths))
        ]
        self.norm = layer_norm(dtype)
        self.head = nn.Dense(self.num_classes, dtype=jnp.float32, kernel_init=init_linear) if self.num_classes else None

    def features(self, image: jax.Array, train: bool = False) -> list[jax.Array]:
        """Per-stage maps before merging, without a norm: (B, *spatial, C * 2^i) for stage i."""
        maps, _, outputs = self._forward(image, train)
        self._keep(outputs)
        return maps

    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        """Classifies images.

        Args:
            image: (B, *size, in_channels), floating point and normalised.
            train: whether to drop paths; needs `rngs={'dropout': key}` then.

        Returns:
            (B, num_classes) float32 logits, or (B, C) pooled features where num_classes is 0.

        Raises:
            TypeError: integer images.
        """
        _, x, outputs = self._forward(image, train)
        x = self.norm(x)
        self._keep(outputs | {"norm": x})
        x = x.astype(jnp.float32).mean(axis=tuple(range(1, x.ndim - 1)))
        return self.head(x) if self.num_classes else x

    @nn.nowrap
    def flops(self) -> int:
        """Multiply-accumulates per image at `image_size`, by the official formula."""
        grids, windows = stage_geometry(self)
        dims = stage_dims(self)
        patch = math.prod(per_axis(self.patch_size, len(grids[0])))
        total = math.prod(grids[0]) * dims[0] * (patch * self.in_channels + self.patch_norm)
        for s, (grid, size, d) in enumerate(zip(grids, windows, dims)):
            tokens, n = math.prod(grid), math.prod(size)
            attend = (4 * n * d * d + 2 * n * n * d) * tokens / n
            total += self.depths[s] * int(2 * tokens * d + attend + 2 * tokens * d * d * self.mlp_ratio)
            if s < len(dims) - 1:
                merged = math.prod(per_axis(self.merge_size, len(grid)))
                total += tokens * d + tokens // merged * merged * d * 2 * d
        # The official formula divides the first grid by 2^stages, not by 4^(stages - 1), for the final norm.
        return total + dims[-1] * math.prod(grids[0]) // 2 ** len(dims) + dims[-1] * self.num_classes

    def _keep(self, outputs: dict[str, jax.Array]) -> None:
        self.sow("intermediates", "outputs", outputs, reduce_fn=lambda _, new: new, init_fn=lambda: None)

    def _forward(self, image: jax.Array, train: bool) -> tuple[list[jax.Array], jax.Array, dict[str, jax.Array]]:
        """Per-stage maps before merging, the last map, and every output by its official name."""
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise TypeError(f"images are {image.dtype}; normalise them first, e.g. with swin_jax.preprocess(name)")
        axes = len(stage_geometry(self)[0][0])
        if image.ndim != axes + 2 or image.shape[-1] != self.in_channels:
            raise ValueError(
                f"images are of shape {image.shape}, expected (batch, {axes} sizes, {self.in_channels} channels)"
            )
        x = self.patch_embed(image)
        kept = {"patch_embed": x}
        if self.ape:
            if math.prod(x.shape[1:-1]) != self.absolute_pos_embed.shape[1]:
                raise ValueError(
                    f"the absolute position embedding is for image_size={self.image_size}, not for images of "
                    f"{image.shape[1:-1]}"
                )
            x = x + self.absolute_pos_embed.reshape(1, *x.shape[1:]).astype(x.dtype)
        # One draw for all blocks, by their global number: cheap to compile, and the same however blocks are stored.
        draws = None
        if train and self.drop_path_rate:
            draws = jax.random.uniform(self.make_rng("dropout"), (sum(self.depths), 2, x.shape[0]))
        starts = np.cumsum((0, *self.depths))
        maps = []
        for s, stage in enumerate(self.layers):
            before, x, outputs = stage(x, None if draws is None else draws[starts[s] : starts[s + 1]])
            kept |= {f"layers.{s}.blocks.{i}": output for i, output in enumerate(outputs)} | {f"layers.{s}": x}
            maps.append(before)
        return maps, x, kept


def stage_dims(model: Swin) -> list[int]:
    """Channels of each stage."""
    return [model.embed_dim * 2**s for s in range(len(model.depths))]


def stage_geometry(model: Swin) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """(grids, windows) of each stage at `image_size`: the windows that the parameters are shaped for."""
    given = [model.image_size, model.patch_size, model.window_size, model.merge_size]
    axes = max([2, *(len(value) for value in given if not isinstance(value, int))])
    image, patch, size, merge = (per_axis(value, axes) for value in given)
    grid = tuple(-(-n // p) for n, p in zip(image, patch))
    grids = []
    for _ in model.depths:
        grids.append(grid)
        grid = tuple(-(-n // m) for n, m in zip(grid, merge))
    shrink = model.small == "shrink"
    return grids, [window.fit(g, size, "shrink")[0] if shrink else size for g in grids]


def param_shapes(model: Swin) -> dict:
    """{'params': tree of jax.ShapeDtypeStruct}, without computing anything."""
    axes = len(stage_geometry(model)[0][0])
    image = jax.ShapeDtypeStruct((1, *per_axis(model.image_size, axes), model.in_channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)


VARIANTS = {
    "tiny": dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    "tiny_c24": dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(4, 8, 16, 32)),
    "small": dict(embed_dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    "base": dict(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
    "large": dict(embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48)),
}


def _presets() -> dict[str, dict]:
    """Arguments of `Swin` for every official v1 checkpoint (README of microsoft/Swin-Transformer)."""
    shapes = [(variant, 7, 224) for variant in ("tiny", "small", "base", "large")]
    shapes += [("base", 12, 384), ("large", 12, 384)]
    only_22k = {"large"}
    presets = {"swin_tiny_c24_patch4_window8_256": dict(VARIANTS["tiny_c24"], window_size=8, image_size=256)}
    for variant, size, image_size in shapes:
        name = f"swin_{variant}_patch4_window{size}_{image_size}"
        arguments = dict(VARIANTS[variant], window_size=size, image_size=image_size)
        if variant not in only_22k:
            presets[name] = arguments
        presets[name + "_22k"] = dict(arguments, num_classes=21841)
        presets[name + "_22kto1k"] = arguments
    return {name: dict(num_classes=1000) | arguments for name, arguments in presets.items()}


PRESETS = _presets()
