"""UPerNet: the semantic segmenter of the Swin papers, over any Swin.

UPerNet (arXiv 1807.10221) with pyramid pooling (arXiv 1612.01105); the references are `UPerHead`
and `FCNHead` of Swin-Transformer-Semantic-Segmentation, whose names the modules have. Every
interpolation is bilinear between the centers of pixels and never smooths. Logits stay at the size
of the finest map; `swin_jax.inference.segmentation` brings them to that of the picture.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import NonNegativeInt, PositiveInt, PositiveInts, Rate, checked
from swin_jax.core.sizes import per_axis
from swin_jax.models.layers import batch_norm, check_key
from swin_jax.models.swin import stage_dims
from swin_jax.ops import window_geometry
from swin_jax.ops.batch_sharding import constrain_batch
from swin_jax.ops.resampling import adaptive_average_pool, resize_bilinear


class ConvModule(nn.Module):
    """A convolution without bias, batch norm, ReLU: (B, H, W, C) to (B, H, W, features)."""

    features: int
    kernel: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        types, pad = dict(dtype=self.dtype, param_dtype=self.param_dtype), self.kernel // 2
        convolve = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            padding=((pad, pad), (pad, pad)),
            use_bias=False,
            kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
            name="conv",
            **types,
        )
        norm = batch_norm(types | {"name": "bn"})
        return nn.relu(norm(convolve(constrain_batch(x)), use_running_average=not train))


def classifier(num_classes: int, param_dtype: Any) -> nn.Conv:
    """The last layer of a head, of every pixel: (B, H, W, C) to (B, H, W, K) float32."""
    init = nn.initializers.normal(0.01)
    types = dict(dtype=jnp.float32, param_dtype=param_dtype)
    return nn.Conv(num_classes, (1, 1), kernel_init=init, **types)


def channel_dropout(rate: float) -> nn.Dropout:
    """Dropout of whole channels of (B, H, W, C)."""
    return nn.Dropout(rate, broadcast_dims=(1, 2))


class UPerHead(nn.Module):
    """Pyramid pooling of the coarsest map, a feature pyramid over all of them, a classifier."""

    num_classes: int
    channels: int
    pool_scales: tuple[int, ...]
    dropout_rate: float
    num_maps: int
    dtype: Any
    param_dtype: Any

    def setup(self):
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        finer = range(self.num_maps - 1)
        # In the official code the pooling is module 0 of each branch.
        self.psp_modules = [(None, ConvModule(self.channels, 1, **types)) for _ in self.pool_scales]
        self.bottleneck = ConvModule(self.channels, 3, **types)
        self.lateral_convs = [ConvModule(self.channels, 1, **types) for _ in finer]
        self.fpn_convs = [ConvModule(self.channels, 3, **types) for _ in finer]
        self.fpn_bottleneck = ConvModule(self.channels, 3, **types)
        self.dropout = channel_dropout(self.dropout_rate)
        self.conv_seg = classifier(self.num_classes, self.param_dtype)

    def __call__(self, maps: list[jax.Array], train: bool) -> tuple[jax.Array, dict]:
        """Logits of the first map's size, and the outputs of submodules by their official names."""
        pooled, outputs = self._pool(maps[-1], train)
        lateral = [convolve(x, train) for convolve, x in zip(self.lateral_convs, maps)] + [pooled]
        for i in reversed(range(len(lateral) - 1)):
            lateral[i] += resize_bilinear(lateral[i + 1], lateral[i].shape[1:3])
        finer = [convolve(x, train) for convolve, x in zip(self.fpn_convs, lateral)]
        outputs |= {f"fpn_convs.{i}": x for i, x in enumerate(finer)}
        pyramid = [resize_bilinear(x, lateral[0].shape[1:3]) for x in (*finer, pooled)]
        fused = self.fpn_bottleneck(jnp.concatenate(pyramid, axis=-1), train)
        logits = self.conv_seg(self.dropout(fused, deterministic=not train))
        return logits, outputs | {"fpn_bottleneck": fused}

    def _pool(self, x: jax.Array, train: bool) -> tuple[jax.Array, dict]:
        """The coarsest map with its means over coarser and coarser grids, as one map."""
        outputs, branches = {}, [x]
        for i, (scale, (_, convolve)) in enumerate(zip(self.pool_scales, self.psp_modules)):
            branch = convolve(adaptive_average_pool(x, (scale, scale)), train)
            outputs[f"psp_modules.{i}"] = branch
            branches.append(resize_bilinear(branch, x.shape[1:3]))
        x = self.bottleneck(jnp.concatenate(branches, axis=-1), train)
        return x, outputs | {"bottleneck": x}


class FCNHead(nn.Module):
    """One convolution and a classifier, which help training only."""

    num_classes: int
    channels: int
    dropout_rate: float
    dtype: Any
    param_dtype: Any

    def setup(self):
        self.convs = [ConvModule(self.channels, 3, self.dtype, self.param_dtype)]
        self.dropout = channel_dropout(self.dropout_rate)
        self.conv_seg = classifier(self.num_classes, self.param_dtype)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = self.convs[0](x, train)
        return self.conv_seg(self.dropout(x, deterministic=not train))


@checked
class UPerNet(nn.Module):
    """Semantic segmenter; `make_upernet` makes it from flat arguments.

    Running statistics are in the collection 'batch_stats'; with train=True it must be mutable. With
    `mutable=['intermediates']` the outputs of 'features.0', ..., 'decode_head.psp_modules.0', ...,
    'decode_head.fpn_bottleneck' are kept in `intermediates['outputs']`, a dict of these names to
    (B, H, W, C).

    Attributes:
        backbone: A `models.swin.Swin` with `out_norms` of all its stages and small='keep', which
            takes pictures of any size; its types are those of the heads.
        num_classes: K.
        channels: Width of the decode head.
        auxiliary_channels: Width of the auxiliary head, which reads the last map but one and helps
            training only; 0 for none.
        pool_scales: Sides of the grids over which the coarsest map is averaged.
        dropout_rate: Rate at which whole channels are dropped before both classifiers, in training.
    """

    backbone: nn.Module
    num_classes: PositiveInt = 150
    channels: PositiveInt = 512
    auxiliary_channels: NonNegativeInt = 256
    pool_scales: PositiveInts = (1, 2, 3, 6)
    dropout_rate: Rate = 0.1

    def setup(self):
        _check_backbone(self.backbone)
        swin = self.backbone
        types = dict(dtype=jnp.dtype(swin.dtype), param_dtype=jnp.dtype(swin.param_dtype))
        head = dict(num_classes=self.num_classes, dropout_rate=self.dropout_rate, **types)
        self.decode_head = UPerHead(
            channels=self.channels,
            pool_scales=self.pool_scales,
            num_maps=len(swin.depths),
            **head,
        )
        if self.auxiliary_channels:
            self.auxiliary_head = FCNHead(channels=self.auxiliary_channels, **head)

    def __call__(
        self, image: jax.Array, *, train: bool = False, auxiliary: bool = False
    ) -> dict[str, jax.Array]:
        """Classifies the pixels of images.

        Args:
            image: (B, H, W, 3), floating point and normalized, of any size; it is not padded.
            train: True to drop paths and channels, which needs `rngs={'dropout': key}`, and to
                use the statistics of the batch and move the running ones.
            auxiliary: True to run the auxiliary head too.

        Returns:
            `logits` (B, H / 4, W / 4, K) float32, and where asked `auxiliary`
            (B, H / 16, W / 16, K) float32; sizes are rounded up.

        Raises:
            UserError: Integer images; one image in training, whose mean over the whole map is
                one value per channel and has no variance; no auxiliary head.
        """
        if train and image.shape[0] == 1:
            raise UserError(
                "train=True with a batch of one image: pooled to 1 x 1 it has one value per "
                "channel, of which batch norm has no variance; give at least two images"
            )
        if auxiliary and not self.auxiliary_channels:
            raise UserError("auxiliary=True needs a model whose auxiliary_channels are not 0")
        if train and self.dropout_rate:
            check_key(self, "dropout")
        maps = self.backbone.features(image, train)
        logits, inside = self.decode_head(maps, train)
        outputs = {f"features.{i}": x for i, x in enumerate(maps)}
        outputs |= {f"decode_head.{name}": x for name, x in inside.items()}
        self.sow(
            "intermediates", "outputs", outputs, reduce_fn=lambda _, new: new, init_fn=lambda: None
        )
        found = {"logits": logits}
        if self.auxiliary_channels and (auxiliary or self.is_initializing()):
            found["auxiliary"] = self.auxiliary_head(maps[-2], train)
        return found

    @nn.nowrap
    def flops(self, auxiliary: bool = False) -> int:
        """Multiply-accumulates per image of the backbone's `image_size`: matrix products,
        convolutions and attention, with the tokens that padding adds; the auxiliary head's too if
        `auxiliary`.
        """
        grids = window_geometry.stage_geometry(self.backbone)[0]
        dims, width = stage_dims(self.backbone), self.channels
        pixels = [math.prod(grid) for grid in grids]
        total = _backbone_macs(self.backbone)
        total += sum(side**2 for side in self.pool_scales) * dims[-1] * width
        total += pixels[-1] * 9 * (dims[-1] + len(self.pool_scales) * width) * width
        total += sum(n * (d + 9 * width) * width for n, d in zip(pixels[:-1], dims[:-1]))
        fused = 9 * len(grids) * width + self.num_classes
        if auxiliary:
            hidden = self.auxiliary_channels
            total += pixels[-2] * (9 * dims[-2] + self.num_classes) * hidden
        return total + pixels[0] * fused * width


def _check_backbone(swin: Any) -> None:
    """Raises UserError for a Swin that does not give all its maps."""
    stages = len(swin.depths)
    if stages < 2 or tuple(swin.out_norms) != tuple(range(stages)):
        raise UserError(
            f"the backbone of an UPerNet has at least two stages and out_norms of all of them, "
            f"out_norms={tuple(range(max(stages, 2)))}, not {tuple(swin.out_norms)}"
        )


def _backbone_macs(swin: Any) -> int:
    """Multiply-accumulates of a dense Swin at its `image_size`."""
    grids, windows = window_geometry.stage_geometry(swin)
    dims = stage_dims(swin)
    patch = math.prod(per_axis(swin.patch_size, 2))
    total = math.prod(grids[0]) * patch * swin.in_channels * dims[0]
    for s, (grid, window, d) in enumerate(zip(grids, windows, dims)):
        tokens, inside = math.prod(grid), math.prod(window)
        padded = math.prod(-(-side // size) * size for side, size in zip(grid, window))
        attend = padded * (4 * d * d + 2 * inside * d)
        total += swin.depths[s] * (attend + tokens * 2 * d * int(d * swin.mlp_ratio))
        if s < len(dims) - 1:
            total += math.prod(grids[s + 1]) * 8 * d * d
    return total
