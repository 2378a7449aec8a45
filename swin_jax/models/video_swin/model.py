"""Video Swin Transformer: Swin over frames, rows and columns with a head for actions,
in the paper's three designs.

Video Swin (arXiv 2106.13230); the references are `SwinTransformer3D` and `I3DHead` of
Video-Swin-Transformer (the official repository), and `SwinTransformer3d` of torchvision. Paths
become the official names, `backbone.layers.0.blocks...` and `cls_head.fc_cls...`.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import (
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveInts,
    Rate,
    checked,
)
from swin_jax.core.sizes import per_axis
from swin_jax.models.layers import PREPARE, check_floats, check_key, check_some, layer_norm
from swin_jax.models.swin import Swin, stage_dims
from swin_jax.models.swin.blocks import REMAT, Block
from swin_jax.ops import window_geometry
from swin_jax.ops.window_geometry import stage_geometry

DESIGNS = ("joint", "split", "factorized")


class I3DHead(nn.Module):
    """Mean over all positions, dropout, one linear layer: (B, T, H, W, C) to (B, K) float32."""

    num_classes: int
    dropout_rate: float
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        if train and self.dropout_rate:
            check_key(self, "dropout")
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(pool(x))
        return nn.Dense(
            self.num_classes,
            dtype=jnp.float32,
            param_dtype=self.param_dtype,
            kernel_init=nn.initializers.normal(0.01),
            name="fc_cls",
        )(x)


class TemporalLayers(nn.Module):
    """Transformer layers in which each position attends to all frames at its place, then a norm:
    a map to the same.

    They drop no paths. More frames than the backbone's `image_size` has are attended to in
    groups of as many.
    """

    backbone: Any
    layers: int

    def setup(self):
        swin = self.backbone
        types = dict(dtype=jnp.dtype(swin.dtype), param_dtype=jnp.dtype(swin.param_dtype))
        dim, frames = stage_dims(swin)[-1], stage_geometry(swin)[0][-1][0]
        attn_fields = dict(
            dim=dim,
            num_heads=swin.num_heads[-1],
            window=(frames, 1, 1),
            pretrained_window=(0, 0, 0),
            cosine=swin.cosine_attention,
            continuous_bias=swin.continuous_bias,
            qkv_bias=swin.qkv_bias,
            implementation="xla",
        )
        fields = dict(
            dim=dim,
            attn_fields=attn_fields,
            shifted=False,
            small="axis",
            mlp_ratio=swin.mlp_ratio,
            post_norm=swin.post_norm,
            main_norm=False,
            **types,
        )
        block = Block if swin.remat == "none" else nn.remat(Block, policy=REMAT[swin.remat])
        self.blocks = [block(**fields) for _ in range(self.layers)]
        self.norm = layer_norm(types["dtype"], param_dtype=types["param_dtype"])

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = block(x, None, 0.0)
        return self.norm(x)


def pool(x: jax.Array) -> jax.Array:
    """The mean over frames, rows and columns: (B, T, H, W, C) to (B, C) float32."""
    return x.astype(jnp.float32).mean(axis=tuple(range(1, x.ndim - 1)))


@checked
class VideoSwin(nn.Module):
    """Video classifier; `make_video_swin` makes it from flat arguments.

    Attributes:
        backbone: A `models.swin.Swin` of three axes with num_classes=0; frames are the first axis.
        num_classes: K; 0 for the pooled features.
        dropout_rate: Rate of dropout before the linear layer, in training.
        temporal_layers: Transformer layers over the last map in which each position attends to all
            frames at its place (the 'split' design), with a final norm of their own.
    """

    backbone: nn.Module
    num_classes: NonNegativeInt = 400
    dropout_rate: Rate = 0.5
    temporal_layers: NonNegativeInt = 0

    def setup(self):
        swin = self.backbone
        if window_geometry.num_axes(swin) != 3:
            raise UserError(
                f"the backbone has {window_geometry.num_axes(swin)} axes "
                f"(image_size={swin.image_size}), not 3"
            )
        if self.temporal_layers:
            self.temporal = TemporalLayers(swin.clone(parent=None), self.temporal_layers)
        if self.num_classes:
            self.cls_head = I3DHead(
                self.num_classes, self.dropout_rate, jnp.dtype(swin.param_dtype)
            )

    def features(self, video: jax.Array, train: bool = False) -> list[jax.Array]:
        """Per-stage maps of the backbone before merging, un-normed:
        (B, T', H', W', C * 2^i) for stage i.
        """
        _check_video(video, self.backbone.in_channels)
        return self.backbone.features(video, train)

    def encode(self, video: jax.Array, train: bool = False) -> jax.Array:
        """The last map after the final norm, (B, T', H', W', C * 2^(stages - 1));
        arguments as `__call__`.
        """
        _check_video(video, self.backbone.in_channels)
        x = self.backbone.encode(video, train)
        return self.temporal(x) if self.temporal_layers else x

    def __call__(self, video: jax.Array, train: bool = False) -> jax.Array:
        """Classifies clips.

        Args:
            video: (B, T, H, W, 3), floating point and normalized;
                any number of frames and any size, padded.
            train: True to drop paths and features; needs `rngs={'dropout': key}` then.

        Returns:
            (B, num_classes) float32 logits, or (B, C) pooled features where num_classes is 0.

        Raises:
            UserError: Integer videos, not five axes, no frames, another number of channels.
        """
        x = self.encode(video, train)
        return self.cls_head(x, train) if self.num_classes else pool(x)

    @nn.nowrap
    def flops(self) -> int:
        """Multiply-accumulates per clip of the backbone's `image_size`: what the paper calls FLOPs.

        Counted are the embedding, all matrix products of attention and MLP, merging and the head,
        with the tokens that padding adds; not counted are norms, softmax, and the bias MLP of
        version 2, which does not see the clip.
        """
        swin = self.backbone
        grids, windows = stage_geometry(swin)
        dims = stage_dims(swin)
        total = math.prod((*grids[0], *swin.patch_size)) * swin.in_channels * dims[0]
        for s, (grid, window, d) in enumerate(zip(grids, windows, dims)):
            block = _attention_macs(grid, window, d) + _mlp_macs(grid, d, swin.mlp_ratio)
            if swin.temporal_window:
                block += _attention_macs(grid, (swin.temporal_window, 1, 1), d)
            total += swin.depths[s] * block
            if s < len(dims) - 1:
                total += (
                    math.prod(grids[s + 1]) * math.prod(per_axis(swin.merge_size, 3)) * d * 2 * d
                )
        layer = _attention_macs(grids[-1], (grids[-1][0], 1, 1), dims[-1]) + _mlp_macs(
            grids[-1], dims[-1], swin.mlp_ratio
        )
        return total + self.temporal_layers * layer + dims[-1] * self.num_classes


def _check_video(video: jax.Array, channels: int) -> None:
    check_floats(video, "videos", PREPARE)
    if video.ndim != 5:
        hint = ""
        if video.ndim == 4:
            hint = ": an image, or a clip without its batch axis? Add the axis that is missing"
        raise UserError(
            f"videos are (batch, frames, height, width, channels), not {video.shape}{hint}"
        )
    check_some(video, "videos")
    if 0 in video.shape[1:]:
        raise UserError(f"a video of shape {video.shape} has no frames or no pixels")
    if video.shape[-1] != channels:
        first = next((axis for axis in (1, 2) if video.shape[axis] == channels), None)
        hint = ""
        if first is not None:
            hint = f": channels first? jnp.moveaxis(video, {first}, -1) puts them last"
        raise UserError(
            f"videos are (batch, frames, height, width, {channels}), not {video.shape}{hint}"
        )


def _attention_macs(grid: tuple[int, ...], window: tuple[int, ...], dim: int) -> int:
    """Multiply-accumulates of q, k, v, their two products and the projection,
    in windows that are clamped axis by axis.
    """
    size = window_geometry.fit(grid, window, "axis")[0]
    tokens = math.prod(-(-g // w) * w for g, w in zip(grid, size))
    return tokens * (4 * dim * dim + 2 * math.prod(size) * dim)


def _mlp_macs(grid: tuple[int, ...], dim: int, ratio: float) -> int:
    return math.prod(grid) * 2 * dim * int(dim * ratio)


@checked
def make_video_swin(
    design: str = "joint",
    num_classes: NonNegativeInt = 400,
    dropout_rate: Rate = 0.5,
    image_size: tuple[PositiveInt, PositiveInt, PositiveInt] = (32, 224, 224),
    patch_size: tuple[PositiveInt, PositiveInt, PositiveInt] = (2, 4, 4),
    window_size: tuple[PositiveInt, PositiveInt, PositiveInt] = (8, 7, 7),
    in_channels: PositiveInt = 3,
    embed_dim: PositiveInt = 96,
    depths: PositiveInts = (2, 2, 6, 2),
    num_heads: PositiveInts = (3, 6, 12, 24),
    mlp_ratio: PositiveFloat = 4.0,
    qkv_bias: bool = True,
    cosine_attention: bool = False,
    post_norm: bool = False,
    continuous_bias: bool = False,
    pretrained_window_sizes: tuple[NonNegativeInt | tuple[NonNegativeInt, ...], ...] = (),
    main_norm_every: NonNegativeInt = 0,
    patch_norm: bool = True,
    drop_path_rate: Rate = 0.1,
    dtype: str = "float32",
    param_dtype: str = "float32",
    attention: tuple[str, ...] = ("auto",),
    remat: str = "none",
    scan: bool = False,
) -> VideoSwin:
    """A Video Swin of one of the paper's designs (table 4):
    `make_video_swin(**presets.PRESETS[name])`.

    The code of 'split' and 'factorized' was never released. What is done here, with the parameters
    of Swin-T for 400 classes and 32 frames, beside those that the paper gives in millions:

        joint       28,158,070 (28.2)  windows over time and space: the released models
        split       42,010,330 (42.0)  windows of one frame, then two layers along time with a norm
                                       after them
        factorized  36,486,316 (36.5)  windows of one frame; in each block then attention along
                                       time, in windows of the first entry of `window_size`, times
                                       a gate that starts at zero

    Args:
        design: 'joint', 'split' or 'factorized'.
        num_classes, dropout_rate: The same as in `VideoSwin`.
        image_size: Frames, height and width of the clips; fixes the parameters of 'split', `flops`
            and preprocessing, other sizes are padded.
        patch_size, window_size: (time, height, width);
            windows count tokens, so frames divided by the patch's.
        pretrained_window_sizes: One per stage, with 0 for an axis that has the model's own,
            see `models.swin.Swin`.
        in_channels, embed_dim, depths, num_heads, mlp_ratio, qkv_bias, cosine_attention, post_norm,
            continuous_bias, main_norm_every, patch_norm, drop_path_rate, dtype, param_dtype,
            attention, remat, scan: of the backbone, see `models.swin.Swin`.

    Raises:
        UserError: An unknown design.
    """
    if design not in DESIGNS:
        raise UserError(f"design={design!r} is not one of {DESIGNS}")
    frames, *spatial = window_size
    backbone = Swin(
        num_classes=0,
        image_size=tuple(image_size),
        patch_size=tuple(patch_size),
        window_size=tuple(window_size) if design == "joint" else (1, *spatial),
        merge_size=(1, 2, 2),
        small="axis",
        temporal_window=frames if design == "factorized" else 0,
        in_channels=in_channels,
        embed_dim=embed_dim,
        depths=depths,
        num_heads=num_heads,
        mlp_ratio=mlp_ratio,
        qkv_bias=qkv_bias,
        cosine_attention=cosine_attention,
        post_norm=post_norm,
        continuous_bias=continuous_bias,
        pretrained_window_sizes=pretrained_window_sizes,
        main_norm_every=main_norm_every,
        patch_norm=patch_norm,
        drop_path_rate=drop_path_rate,
        dtype=dtype,
        param_dtype=param_dtype,
        attention=attention,
        remat=remat,
        scan=scan,
    )
    return VideoSwin(
        backbone, num_classes, dropout_rate, temporal_layers=2 if design == "split" else 0
    )


def param_shapes(model: VideoSwin) -> dict:
    """{'params': tree of jax.ShapeDtypeStruct}, without computing anything."""
    video = jax.ShapeDtypeStruct(
        (1, *model.backbone.image_size, model.backbone.in_channels), jnp.float32
    )
    return jax.eval_shape(model.init, jax.random.key(0), video)
