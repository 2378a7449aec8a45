"""The blocks of Swin, Swin V2 and Video Swin, patch merging, and stages of them,
over any number of spatial axes.

Swin Transformer (arXiv 2103.14030) and Swin Transformer V2 (arXiv 2111.09883); the references are
`SwinTransformerBlock` and `PatchMerging` of microsoft/Swin-Transformer (models/swin_transformer.py
and swin_transformer_v2.py). Version 2 is three independent choices: scaled cosine attention,
residual post-norm, log-spaced continuous position bias.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core import stacking
from swin_jax.models.layers import Mlp, drop_path, init_linear, layer_norm
from swin_jax.models.swin.attention import (
    TemporalAttention,
    WindowAttention,
    attend_in_windows,
    window_and_shift,
)
from swin_jax.models.swin.mixers import SpatialMlp, attend_performer, attend_sliding
from swin_jax.ops import attention, linear, window
from swin_jax.ops.batch_sharding import constrain_batch

# What the backward pass recomputes, by name; 'none' keeps everything.
REMAT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Block(nn.Module):
    """One transformer block: windowed attention, then an MLP,
    each a residual branch with drop path.

    Attributes:
        attn: The fields of `WindowAttention`.
        post_norm: Norms at the end of the branches, starting from zero; else at their beginning.
        main_norm: A further norm on the residual stream after the block ('enorm' of V2-H and V2-G).
        temporal_window: Window of a `TemporalAttention` between the two branches, dropped together
            with the first; 0 for none.
        token_mixer, shift: The same as in `models.swin.Swin`.
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
    token_mixer: str = "attention"
    shift: str = "roll"

    def setup(self):
        zeros = dict(scale_init=nn.initializers.zeros) if self.post_norm else {}
        self.norm1 = layer_norm(self.dtype, param_dtype=self.param_dtype, **zeros)
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        if self.token_mixer == "mlp":
            heads, size = self.attn_fields["num_heads"], self.attn_fields["window"]
            self.spatial_mlp = SpatialMlp(heads, size, **types)
        else:
            self.attn = WindowAttention(**self.attn_fields, **types)
        if self.temporal_window:
            self.temporal = TemporalAttention(
                self.temporal_window, self.attn_fields, self.shifted, self.post_norm, **types
            )
        self.norm2 = layer_norm(self.dtype, param_dtype=self.param_dtype, **zeros)
        self.mlp = Mlp(int(self.dim * self.mlp_ratio), self.dtype, self.param_dtype)
        if self.main_norm:
            self.enorm = layer_norm(self.dtype, param_dtype=self.param_dtype)

    def __call__(self, x: jax.Array, draws: jax.Array | None, rate: float | jax.Array) -> jax.Array:
        """x is (B, *spatial, C); draws is None (evaluation) or (2, B), uniform;
        `rate` is that of drop path.
        """
        x = constrain_batch(x)
        draws = (None, None) if draws is None else draws
        x = x + drop_path(
            self.norm1(self.attend(x)) if self.post_norm else self.attend(self.norm1(x)),
            draws[0],
            rate,
        )
        if self.temporal_window:
            x = x + drop_path(self.temporal(x), draws[0], rate)
        if self.post_norm:
            x = x + drop_path(self.norm2(self.feed_forward(x)), draws[1], rate)
        else:
            x = x + drop_path(self.feed_forward(self.norm2(x)), draws[1], rate)
        return self.enorm(x) if self.main_norm else x

    def attend(self, x: jax.Array) -> jax.Array:
        """Mixes each token of (B, *spatial, C) with the others of its window, or as `token_mixer`
        says; the shape stays.
        """
        if self.token_mixer == "sliding":
            return attend_sliding(x, self.attn)
        if self.token_mixer == "performer":
            return attend_performer(x, self.attn)
        inside = self.spatial_mlp if self.token_mixer == "mlp" else self.attn
        return attend_in_windows(x, inside, *self.geometry(x.shape[1:-1]), self.shift)

    def feed_forward(self, x: jax.Array) -> jax.Array:
        """The MLP; where windows come one at a time, it takes one row of windows at a time."""
        rows, size = x.shape[1], self.attn_fields["window"][0]
        if (
            self.attn_fields["implementation"] != "sequential"
            or self.is_initializing()
            or rows % size
        ):
            return self.mlp(x)
        params, plain = self.mlp.variables["params"], self.mlp.clone(parent=None)
        # (B * H / w, w * W, C)
        pieces = x.reshape(-1, math.prod(x.shape[2:-1]) * size, x.shape[-1])

        def apply(piece, _):
            return plain.apply({"params": params}, piece)

        return attention.sequential(apply, pieces, None, rows // size).reshape(x.shape)

    @nn.nowrap
    def geometry(self, spatial: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Window and shift on a map of this size."""
        return window_and_shift(spatial, self.attn_fields["window"], self.small, self.shifted)


class PatchMerging(nn.Module):
    """Concatenates the tokens of each small cell and halves the channels:
    (B, *spatial, C) -> (B, *spatial / 2, 2C).

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
        # Official order along channels: the first spatial axis runs fastest,
        # (0,0), (1,0), (0,1), (1,1).
        x = x.transpose(*range(1 + axes), *range(2 * axes, axes, -1), 2 * axes + 1).reshape(
            x.shape[0], *grid, -1
        )
        norm = layer_norm(self.dtype, "norm", param_dtype=self.param_dtype)
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        shared = dict(kernel_init=init_linear, dot_general=linear.dot_general, **types)
        reduction = nn.Dense(2 * channels, use_bias=False, **shared, name="reduction")
        return norm(reduction(x)) if self.post_norm else reduction(norm(x))


class ScannedBlocks(nn.Module):
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
    """Blocks of one resolution, plain and shifted in turn,
    then merging unless it is the last stage.

    Where `scan`, equal units of blocks are one loop over stacked parameters (see
    `swin_jax.core.stacking`).
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
                ScannedBlocks,
                variable_axes={"params": 0, "attention": 0},
                split_rngs={"params": True},
                length=self.depth // self.unit,
            )
            keep = self.is_mutable_collection("intermediates")
            setattr(
                self, stacking.unit_name(self.unit), lifted(tuple(fields[: self.unit]), block, keep)
            )
        else:
            block = self.checkpointed(prevent_cse=True)
            self.blocks = [block(**entry) for entry in fields]
        shared = {key: self.block_fields[key] for key in ("post_norm", "dtype", "param_dtype")}
        self.downsample = PatchMerging(self.merge, **shared) if self.merge else None

    @nn.nowrap
    def fields(self, i: int) -> dict:
        """The fields of block i."""
        every = self.main_norm_every
        shifted = i % 2 == 1 and self.block_fields["shift"] != "none"
        main_norm = bool(every) and (i + 1) % every == 0
        return dict(self.block_fields, shifted=shifted, main_norm=main_norm)

    @nn.nowrap
    def checkpointed(self, prevent_cse: bool) -> Any:
        """The block's class, rematerialized if asked."""
        if self.remat == "none":
            return Block
        return nn.remat(Block, policy=REMAT[self.remat], prevent_cse=prevent_cse)

    def __call__(
        self, x: jax.Array, draws: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
        """Returns the output before merging, after merging, and after each block;
        draws are (depth, 2, B) or None.
        """
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
