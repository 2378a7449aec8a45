"""The blocks of Swin, Swin V2 and Video Swin, patch merging, and stages of them, over any number of spatial axes.

Swin Transformer (arXiv 2103.14030) and Swin Transformer V2 (arXiv 2111.09883); the peers are `SwinTransformerBlock` and
`PatchMerging` of microsoft/Swin-Transformer (models/swin_transformer.py and swin_transformer_v2.py). Version 2 is three
independent choices: scaled cosine attention, residual post-norm, log-spaced continuous position bias.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core import stacking
from swin_jax.models.layers import Mlp, drop_path, init_linear, layer_norm
from swin_jax.ops import attention, window, window_geometry
from swin_jax.ops.batch_sharding import copies, examples_stay

MAX_LOGIT_SCALE = math.log(100)

# What the backward pass recomputes, by name; 'none' keeps everything.
REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class HeadsProjection(nn.Module):
    """Linear to q, k and v of all heads: (..., C) -> (..., 3, h, d)."""

    num_heads: int
    bias: bool
    dtype: Any
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (3, self.num_heads, x.shape[-1] // self.num_heads)
        kernel = self.param("kernel", init_linear, (x.shape[-1], *shape), self.param_dtype).astype(self.dtype)
        x = jnp.einsum("bnc,cthd->bnthd", x.astype(self.dtype), kernel)
        if not self.bias:
            return x
        return x + self.param("bias", nn.initializers.zeros, shape, self.param_dtype).astype(self.dtype)[None, None]


class WindowAttention(nn.Module):
    """Multi-head attention inside windows with a relative position bias.

    `qkv` holds heads as an axis of their own, (C, 3, h, d), so that a mesh can split heads. Where the collection
    'attention' is mutable, the weights (B * nW, h, N, N) are kept there.

    Attributes:
        window: that the bias is made for.
        pretrained_window: that scales the coordinates of the continuous bias; 0 for `window`.
        cosine: scaled cosine attention with one learned scale per head, no bias on keys; else dot products.
        continuous_bias: the bias is an MLP of log-spaced coordinates; else a table.
    """

    dim: int
    num_heads: int
    window: tuple[int, ...]
    pretrained_window: tuple[int, ...]
    cosine: bool
    continuous_bias: bool
    qkv_bias: bool
    dtype: Any
    param_dtype: Any
    implementation: str

    def setup(self):
        h, dtype = self.num_heads, self.param_dtype
        shared = dict(param_dtype=dtype, kernel_init=init_linear)
        self.qkv = HeadsProjection(h, self.qkv_bias and not self.cosine, self.dtype, dtype)
        if self.cosine:
            if self.qkv_bias:
                self.q_bias = self.param("q_bias", nn.initializers.zeros, (h, self.dim // h), dtype)
                self.v_bias = self.param("v_bias", nn.initializers.zeros, (h, self.dim // h), dtype)
            self.logit_scale = self.param("logit_scale", nn.initializers.constant(math.log(10)), (h, 1, 1), dtype)
        if self.continuous_bias:
            self.cpb_mlp_0 = nn.Dense(window_geometry.CPB_HIDDEN, **shared)
            self.cpb_mlp_2 = nn.Dense(h, use_bias=False, **shared)
        else:
            rows = math.prod(2 * w - 1 for w in self.window)
            self.relative_position_bias_table = self.param(
                "relative_position_bias_table", init_linear, (rows, h), dtype
            )
        self.proj = nn.DenseGeneral(self.dim, axis=(-2, -1), dtype=self.dtype, **shared)

    def __call__(self, x: jax.Array, regions: jax.Array | None, windows: int) -> jax.Array:
        """x is (B * nW, N, C), `windows` is nW; see `ops.attention.window_attention`."""
        tokens = x.shape[1]
        # The corner is what the official video code takes where the grid is smaller than the window.
        tables = copies(self.bias_table(), x.shape[0] // windows)  # (S, rows, h): gradients travel as tables
        spread = lambda table: window.relative_bias(table, self.window)[:, :tokens, :tokens]  # noqa: E731
        bias = jax.vmap(spread)(tables)  # (S, h, N, N)
        if self.is_mutable_collection("attention") and not self.is_initializing():
            self.sow("attention", "weights", attention.attention_weights(self.heads(x), bias, regions))
        if self.implementation != "sequential" or self.is_initializing():
            return self.attend(x, bias, regions)
        # The projections are inside the loop: q, k and v of all windows would be three maps and their gradients.
        params, plain = self.variables["params"], self.clone(parent=None)
        attend = lambda x, region: plain.apply({"params": params}, x, bias, region, method="attend")  # noqa: E731
        return attention.sequential(attend, x, regions, windows)

    def attend(self, x: jax.Array, bias: jax.Array, regions: jax.Array | None) -> jax.Array:
        """(B * nW, N, C) to the same, windows all at once."""
        return self.proj(attention.window_attention(self.heads(x), bias, regions))

    def heads(self, x: jax.Array) -> jax.Array:
        """q, k and v of all heads, q scaled: (B * nW, N, 3, h, d)."""
        return self.cosine_qkv(x) if self.cosine else self.dot_qkv(x)

    def bias_table(self) -> jax.Array:
        """The bias for every difference of positions: (prod(2 * window - 1), h) float32."""
        if not self.continuous_bias:
            return self.relative_position_bias_table.astype(jnp.float32)
        coordinates = window_geometry.log_coordinates(self.window, self.pretrained_window)
        hidden = nn.relu(self.cpb_mlp_0(jnp.asarray(coordinates)).astype(jnp.float32))
        return 16 * nn.sigmoid(self.cpb_mlp_2(hidden).astype(jnp.float32))

    def dot_qkv(self, x: jax.Array) -> jax.Array:
        """(B * nW, N, 3, h, d), q scaled after its bias was added, as in the official code."""
        scale = (self.dim // self.num_heads) ** -0.5
        return self.qkv(x) * jnp.asarray([scale, 1, 1], self.dtype).reshape(1, 1, 3, 1, 1)

    def cosine_qkv(self, x: jax.Array) -> jax.Array:
        """(B * nW, N, 3, h, d) with q and k of length 1, q times the learned scale; computed in float32."""
        qkv = self.qkv(x).astype(jnp.float32)
        if self.qkv_bias:
            bias = jnp.stack([self.q_bias, jnp.zeros_like(self.q_bias), self.v_bias]).astype(jnp.float32)
            qkv = qkv + bias[None, None]
        # torch.nn.functional.normalize: x / max(|x|, 1e-12).
        inverse = jax.lax.rsqrt(jnp.maximum(jnp.sum(qkv * qkv, axis=-1, keepdims=True), 1e-24))
        # Above the limit no gradient, at the limit all of it, as torch.clamp.
        limited = jnp.where(self.logit_scale > MAX_LOGIT_SCALE, MAX_LOGIT_SCALE, self.logit_scale)
        scale = jnp.exp(limited.astype(jnp.float32)).reshape(1, self.num_heads, 1)
        scale = jnp.concatenate([scale, jnp.ones_like(scale), jnp.ones_like(scale)])[None, None]  # (1, 1, 3, h, 1)
        is_value = (jnp.arange(3) == 2).reshape(1, 1, 3, 1, 1)
        return (qkv * jnp.where(is_value, 1.0, inverse * scale)).astype(self.dtype)


class TemporalAttention(nn.Module):
    """Attention along the first axis only, times a gate that starts at zero: (B, T, *spatial, C) to the same.

    What the 'factorised' design of Video Swin (arXiv 2106.13230, table 4) adds to each block.

    Attributes:
        window: frames that attend to each other; odd blocks shift by half of it.
        attn_fields: of the block's own `WindowAttention`.
    """

    window: int
    attn_fields: dict
    shifted: bool
    post_norm: bool
    dtype: Any
    param_dtype: Any

    def setup(self):
        line = (self.window, *(1,) * (len(self.attn_fields["window"]) - 1))
        fields = dict(self.attn_fields, window=line, pretrained_window=(0,) * len(line), implementation="xla")
        self.norm = layer_norm(self.dtype, param_dtype=self.param_dtype)
        self.attn = WindowAttention(**fields, dtype=self.dtype, param_dtype=self.param_dtype)
        self.gate = self.param("gate", nn.initializers.zeros, (), self.param_dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        size, shift = window_and_shift(x.shape[1:-1], self.attn.window, "axis", self.shifted)
        attend = lambda x: attend_in_windows(x, self.attn, size, shift)  # noqa: E731
        x = self.norm(attend(x)) if self.post_norm else attend(self.norm(x))
        return self.gate.astype(x.dtype) * x


class Block(nn.Module):
    """One transformer block: windowed attention, then an MLP, each a residual branch with drop path.

    Attributes:
        attn: the fields of `WindowAttention`.
        post_norm: norms at the end of the branches, starting from zero; else at their beginning.
        main_norm: a further norm on the residual stream after the block ('enorm' of V2-H and V2-G).
        temporal_window: of a `TemporalAttention` between the two branches, dropped together with the first; 0 for none.
    """

    dim: int
    attn_fields: dict
    shifted: bool
    small: str
    mlp_ratio: float
    post_norm: bool
    main_norm: bool
    dtype: Any
    param_dtype: Any
    temporal_window: int = 0

    def setup(self):
        zeros = dict(scale_init=nn.initializers.zeros) if self.post_norm else {}
        self.norm1 = layer_norm(self.dtype, param_dtype=self.param_dtype, **zeros)
        self.attn = WindowAttention(**self.attn_fields, dtype=self.dtype, param_dtype=self.param_dtype)
        if self.temporal_window:
            types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
            self.temporal = TemporalAttention(
                self.temporal_window, self.attn_fields, self.shifted, self.post_norm, **types
            )
        self.norm2 = layer_norm(self.dtype, param_dtype=self.param_dtype, **zeros)
        self.mlp = Mlp(int(self.dim * self.mlp_ratio), self.dtype, self.param_dtype)
        if self.main_norm:
            self.enorm = layer_norm(self.dtype, param_dtype=self.param_dtype)

    def __call__(self, x: jax.Array, draws: jax.Array | None, rate: float | jax.Array) -> jax.Array:
        """x is (B, *spatial, C); draws is None (evaluation) or (2, B), uniform; `rate` is that of drop path."""
        x = examples_stay(x)
        draws = (None, None) if draws is None else draws
        x = x + drop_path(self.norm1(self.attend(x)) if self.post_norm else self.attend(self.norm1(x)), draws[0], rate)
        if self.temporal_window:
            x = x + drop_path(self.temporal(x), draws[0], rate)
        if self.post_norm:
            x = x + drop_path(self.norm2(self.feed_forward(x)), draws[1], rate)
        else:
            x = x + drop_path(self.feed_forward(self.norm2(x)), draws[1], rate)
        return self.enorm(x) if self.main_norm else x

    def attend(self, x: jax.Array) -> jax.Array:
        """(B, *spatial, C) to the same, every token from its window."""
        return attend_in_windows(x, self.attn, *self.geometry(x.shape[1:-1]))

    def feed_forward(self, x: jax.Array) -> jax.Array:
        """The MLP; where windows come one at a time, it takes one row of windows at a time."""
        rows, size = x.shape[1], self.attn_fields["window"][0]
        if self.attn_fields["implementation"] != "sequential" or self.is_initializing() or rows % size:
            return self.mlp(x)
        params, plain = self.mlp.variables["params"], self.mlp.clone(parent=None)
        pieces = x.reshape(-1, math.prod(x.shape[2:-1]) * size, x.shape[-1])  # (B * H / w, w * W, C)
        apply = lambda piece, _: plain.apply({"params": params}, piece)  # noqa: E731
        return attention.sequential(apply, pieces, None, rows // size).reshape(x.shape)

    @nn.nowrap
    def geometry(self, spatial: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Window and shift on a map of this size."""
        return window_and_shift(spatial, self.attn_fields["window"], self.small, self.shifted)


def attend_in_windows(x: jax.Array, attn: WindowAttention, size: tuple[int, ...], shift: tuple[int, ...]) -> jax.Array:
    """Pads, shifts, partitions, attends and puts everything back: (B, *spatial, C) to the same."""
    spatial = x.shape[1:-1]
    axes = tuple(range(1, 1 + len(spatial)))
    x = window.pad_to_multiple(x, size)
    padded = x.shape[1:-1]
    regions = window_geometry.shift_regions(padded, size, shift) if any(shift) else None
    if any(shift):
        x = jnp.roll(x, [-s for s in shift], axes)
    windows = math.prod(padded) // math.prod(size)
    x = window.reverse(attn(window.partition(x, size), regions, windows), size, padded)
    if any(shift):
        x = jnp.roll(x, shift, axes)
    return x[(slice(None), *(slice(n) for n in spatial))]


def window_and_shift(
    spatial: tuple[int, ...], made_for: tuple[int, ...], small: str, shifted: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Window and shift of a block on a map, one int per axis each.

    Under 'shrink' the parameters have fixed the window, whatever the input's size: `made_for` stays, the map is padded.
    """
    size, shift = window_geometry.fit(spatial, made_for, small)
    return made_for if small == "shrink" else size, shift if shifted else (0,) * len(spatial)


class PatchMerging(nn.Module):
    """Concatenates the tokens of each small cell and halves the channels: (B, *spatial, C) -> (B, *spatial / 2, 2C).

    The norm comes before the reduction, or after it where `post_norm` (Swin V2).
    """

    cell: tuple[int, ...]
    post_norm: bool
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels, axes = x.shape[-1], len(self.cell)
        x = window.pad_to_multiple(x, self.cell)
        grid = [size // c for size, c in zip(x.shape[1:-1], self.cell)]
        x = window.partition(x, self.cell).reshape(x.shape[0], *grid, *self.cell, channels)
        # Official order along channels: the first spatial axis runs fastest, (0,0), (1,0), (0,1), (1,1).
        x = x.transpose(*range(1 + axes), *range(2 * axes, axes, -1), 2 * axes + 1).reshape(x.shape[0], *grid, -1)
        norm = layer_norm(self.dtype, "norm", param_dtype=self.param_dtype)
        shared = dict(dtype=self.dtype, param_dtype=self.param_dtype, kernel_init=init_linear)
        reduction = nn.Dense(2 * channels, use_bias=False, **shared, name="reduction")
        return norm(reduction(x)) if self.post_norm else reduction(norm(x))


class Unit(nn.Module):
    """The blocks that one iteration of a scanned stage runs."""

    blocks_fields: tuple[dict, ...]
    block: Any
    keep: bool

    def setup(self):
        self.blocks = [self.block(**fields) for fields in self.blocks_fields]

    def __call__(self, x: jax.Array, inputs: tuple) -> tuple[jax.Array, list[jax.Array]]:
        """Inputs are the draws, (u, 2, B) or None, and the drop path rates, (u,)."""
        draws, rates = inputs
        outputs = []
        for i, block in enumerate(self.blocks):
            x = block(x, None if draws is None else draws[i], rates[i])
            outputs.append(x)
        return x, outputs if self.keep else []


class Stage(nn.Module):
    """Blocks of one resolution, plain and shifted in turn, then merging unless it is the last stage.

    Where `scan`, equal units of blocks are one loop over stacked parameters (see `swin_jax.core.stacking`).
    """

    depth: int
    block_fields: dict
    main_norm_every: int
    drop_path_rates: tuple[float, ...]
    merge: tuple[int, ...] | None
    remat: str
    scan: bool

    def setup(self):
        self.unit = stacking.unit_size(self.depth, self.main_norm_every) if self.scan else 0
        fields = [self.fields(i) for i in range(self.depth)]
        if self.unit:
            block = self.checkpointed(prevent_cse=False)
            lifted = nn.scan(
                Unit,
                variable_axes={"params": 0, "attention": 0},
                split_rngs={"params": True},
                length=self.depth // self.unit,
            )
            keep = self.is_mutable_collection("intermediates")
            setattr(self, stacking.unit_name(self.unit), lifted(tuple(fields[: self.unit]), block, keep))
        else:
            block = self.checkpointed(prevent_cse=True)
            self.blocks = [block(**entry) for entry in fields]
        shared = {key: self.block_fields[key] for key in ("post_norm", "dtype", "param_dtype")}
        self.downsample = PatchMerging(self.merge, **shared) if self.merge else None

    @nn.nowrap
    def fields(self, i: int) -> dict:
        """The fields of block i."""
        every = self.main_norm_every
        return dict(self.block_fields, shifted=i % 2 == 1, main_norm=bool(every) and (i + 1) % every == 0)

    @nn.nowrap
    def checkpointed(self, prevent_cse: bool) -> Any:
        """The block's class, rematerialised if asked."""
        return Block if self.remat == "none" else nn.remat(Block, policy=REMAT[self.remat], prevent_cse=prevent_cse)

    def __call__(self, x: jax.Array, draws: jax.Array | None) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
        """Returns the output before merging, after merging, and after each block; draws are (depth, 2, B) or None."""
        outputs = []
        if self.unit:
            count = self.depth // self.unit
            rates = jnp.asarray(self.drop_path_rates, jnp.float32).reshape(count, self.unit)
            draws = None if draws is None else draws.reshape(count, self.unit, *draws.shape[1:])
            x, stacked = getattr(self, stacking.unit_name(self.unit))(x, (draws, rates))
            outputs = [out[k] for k in range(count) for out in stacked]
        else:
            for i, block in enumerate(self.blocks):
                x = block(x, None if draws is None else draws[i], self.drop_path_rates[i])
                outputs.append(x)
        return x, self.downsample(x) if self.downsample else x, outputs
