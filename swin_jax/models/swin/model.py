"""Swin Transformer, Swin Transformer V2 and Video Swin:
classifier and backbone over any number of spatial axes.

Swin (arXiv 2103.14030) and Swin V2 (arXiv 2111.09883); the references are `SwinTransformer` and
`SwinTransformerV2` of microsoft/Swin-Transformer, and for dense prediction the backbone of
Swin-Transformer-Semantic-Segmentation. Submodules carry the official names, so that a path becomes
an official name by `swin_jax.core.params`.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import (
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveInts,
    Rate,
    checked,
)
from swin_jax.core.sizes import Size, Windows, per_axis
from swin_jax.models.layers import (
    PREPARE,
    PatchEmbed,
    check_floats,
    check_key,
    check_some,
    init_linear,
    layer_norm,
)
from swin_jax.models.swin import fields, flops
from swin_jax.models.swin.blocks import Stage
from swin_jax.ops import window, window_geometry
from swin_jax.ops.window_geometry import num_axes, stage_geometry


@checked
class Swin(nn.Module):
    """Swin Transformer classifier and backbone.

    `image_size` fixes the shapes of parameters only (tables of shrunk windows, absolute positions);
    other input sizes keep each stage's window and are padded. Sizes are ints (the same for two
    axes) or one int per spatial axis.

    With `mutable=['intermediates']` the outputs of 'patch_embed', 'layers.0.blocks.1', 'layers.0',
    ..., 'norm' are kept in `intermediates['outputs']`, a dict of these official names to
    (B, *spatial, C); with `mutable=['attention']` the weights of every block.

    Attributes:
        num_classes: Outputs of the head; 0 for the pooled features.
        window_size: Window of all stages, or a tuple with one size per stage where one of them is
            itself a tuple.
        token_mixer: The layer that mixes the tokens of a map: 'attention' in windows; 'mlp', the
            grouped linear layer of Swin-MLP in windows; 'sliding', attention of each token to the
            window around it; 'performer', to all tokens by random features. The last two are
            comparisons of the first paper, see `mixers`.
        shift: The way to shift the windows of odd blocks: 'roll' the map; 'pad' it, with one more
            window along each axis, which is the same function, and the way of Swin-MLP; 'none'.
        relative_position: False for attention without a position bias.
        cosine_attention, post_norm, continuous_bias:
            the choices of version 2 (`V2` is all of them), see `blocks`.
        pretrained_window_sizes: One size per stage, the windows of the pretraining, by which
            the coordinates of the continuous bias are scaled; 0 for the stage's own window, and
            () for that everywhere.
        main_norm_every: Number of blocks in a stage after which a norm follows on the residual
            stream (V2-H, V2-G: 6); 0 for none.
        small: Treatment of grids no larger than the window, see `window_geometry.fit`. Under 'pad'
            pixels beyond whole patches are cut off, as torchvision does, instead of padded.
        drop_path_rate: Rate of the last block; it grows linearly from 0 at the first.
        merge_size: Cell of patch merging, an int or one per axis (1 leaves an axis alone).
        temporal_window: Window of gated attention along the first axis in every block ('factorized'
            Video Swin); 0 for none.
        out_norms: Stages whose maps get a norm of their own;
            such a model is a backbone without final norm and head.
        dtype: Type of matrix products and the residual stream, 'float32' or 'bfloat16'.
        param_dtype: Type of the parameters.
        attention: An implementation of `ops.attention` for each stage, a 1-tuple being repeated:
            'auto' is a fused kernel on TPUs and 'xla' elsewhere.
            Under 'sequential' the projections are part of the loop over windows, and the MLP runs
            over one row of windows at a time.
        remat: The part of a block that is computed again in the backward pass: 'none', 'full', or
            all but matrix products ('dots') or all but those without batch dimensions
            ('dots_no_batch', which recomputes q k).
        scan: True to run equal blocks as a loop over stacked parameters: compiled once, see
            `swin_jax.core.stacking`.
    """

    num_classes: NonNegativeInt = 1000
    image_size: Size = 224
    patch_size: Size = 4
    in_channels: PositiveInt = 3
    embed_dim: PositiveInt = 96
    depths: PositiveInts = (2, 2, 6, 2)
    num_heads: PositiveInts = (3, 6, 12, 24)
    window_size: Windows = 7
    mlp_ratio: PositiveFloat = 4.0
    qkv_bias: bool = True
    token_mixer: str = "attention"
    shift: str = "roll"
    relative_position: bool = True
    cosine_attention: bool = False
    post_norm: bool = False
    continuous_bias: bool = False
    pretrained_window_sizes: tuple[NonNegativeInt | tuple[NonNegativeInt, ...], ...] = ()
    main_norm_every: NonNegativeInt = 0
    ape: bool = False
    patch_norm: bool = True
    drop_path_rate: Rate = 0.1
    small: str = "shrink"
    merge_size: Size = 2
    temporal_window: NonNegativeInt = 0
    out_norms: tuple[NonNegativeInt, ...] = ()
    dtype: str = "float32"
    param_dtype: str = "float32"
    attention: tuple[str, ...] = ("auto",)
    remat: str = "none"
    scan: bool = False

    def setup(self):
        fields.check(self)
        grids, windows = stage_geometry(self)
        axes, stages, dims = len(grids[0]), len(self.depths), fields.stage_dims(self)
        types = dict(dtype=jnp.dtype(self.dtype), param_dtype=jnp.dtype(self.param_dtype))
        self.patch_embed = PatchEmbed(
            self.embed_dim, per_axis(self.patch_size, axes), self.patch_norm, **types
        )
        if self.ape:
            shape = (1, math.prod(grids[0]), self.embed_dim)
            self.absolute_pos_embed = self.param(
                "absolute_pos_embed", init_linear, shape, types["param_dtype"]
            )
        depth = sum(self.depths)
        rates = [self.drop_path_rate * i / max(depth - 1, 1) for i in range(depth)]
        attn_fields, rules = (
            fields.attention_fields(self, windows),
            window_geometry.stage_rules(self),
        )
        starts = np.cumsum((0, *self.depths))

        def stage(s):
            block_fields = dict(
                dim=dims[s],
                attn_fields=attn_fields[s],
                small=rules[s],
                mlp_ratio=self.mlp_ratio,
                post_norm=self.post_norm,
                temporal_window=self.temporal_window,
                token_mixer=self.token_mixer,
                shift=self.shift,
                **types,
            )
            return Stage(
                depth=self.depths[s],
                block_fields=block_fields,
                main_norm_every=self.main_norm_every,
                drop_path_rates=tuple(rates[starts[s] : starts[s + 1]]),
                merge=per_axis(self.merge_size, axes) if s < stages - 1 else None,
                remat=self.remat,
                scan=self.scan,
            )

        self.layers = [stage(s) for s in range(stages)]
        norm = functools.partial(layer_norm, types["dtype"], param_dtype=types["param_dtype"])
        for s in self.out_norms:
            setattr(self, f"norm{s}", norm())
        if not self.out_norms:
            self.norm = norm()
            if self.num_classes:
                self.head = nn.Dense(
                    self.num_classes,
                    dtype=jnp.float32,
                    param_dtype=types["param_dtype"],
                    kernel_init=init_linear,
                )

    def features(self, image: jax.Array, train: bool = False) -> list[jax.Array]:
        """Per-stage maps before merging, (B, *spatial, C * 2^i) for stage i.

        All stages without a norm, or those of `out_norms`, each after its own.
        Arguments as `__call__`.
        """
        maps, _, outputs = self._forward(image, train)
        self._keep(outputs)
        return (
            [getattr(self, f"norm{s}")(maps[s]) for s in self.out_norms] if self.out_norms else maps
        )

    def encode(
        self,
        image: jax.Array,
        train: bool = False,
        mask: jax.Array | None = None,
        mask_token: jax.Array | None = None,
    ) -> jax.Array:
        """The last map after the final norm, (B, *spatial, C * 2^(stages - 1)).

        Args:
            image, train: The same as in `__call__`.
            mask: (B, *grid) on the token grid, 1 where a token is replaced after the patch
                embedding and its norm, before absolute positions (SimMIM).
            mask_token: (embed_dim,), up to further axes of size 1.
        """
        _, x, outputs = self._forward(image, train, mask, mask_token)
        x = self.norm(x)
        self._keep(outputs | {"norm": x})
        return x

    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        """Classifies images.

        Args:
            image: (B, *size, in_channels), floating point and normalized.
            train: True to drop paths; needs `rngs={'dropout': key}` then.

        Returns:
            (B, num_classes) float32 logits, or (B, C) pooled features where num_classes is 0; the
            list of `features` where there are `out_norms`.

        Raises:
            UserError: Integer images.
        """
        if self.out_norms:
            return self.features(image, train)
        x = self.encode(image, train)
        x = x.astype(jnp.float32).mean(axis=tuple(range(1, x.ndim - 1)))
        return self.head(x) if self.num_classes else x

    @nn.nowrap
    def flops(self) -> int:
        """Multiply-accumulates per image at `image_size`, by the official formula."""
        return flops.count(self)

    def _keep(self, outputs: dict[str, jax.Array]) -> None:
        self.sow(
            "intermediates", "outputs", outputs, reduce_fn=lambda _, new: new, init_fn=lambda: None
        )

    def _forward(
        self,
        image: jax.Array,
        train: bool,
        mask: jax.Array | None = None,
        mask_token: jax.Array | None = None,
    ) -> tuple[list[jax.Array], jax.Array, dict[str, jax.Array]]:
        """Per-stage maps before merging, the last map, and every output by its official name."""
        axes = num_axes(self)
        kind = "images" if axes == 2 else "videos"
        check_floats(image, kind, PREPARE)
        if image.ndim != axes + 2 or image.shape[-1] != self.in_channels:
            sizes = {2: "height, width", 3: "frames, height, width"}.get(axes, f"{axes} sizes")
            raise UserError(
                f"{kind} are of shape {image.shape}, expected (batch, {sizes}, "
                f"{self.in_channels} channels)"
            )
        check_some(image, kind)
        if self.small == "pad":
            image = window.cut_to_multiple(image, per_axis(self.patch_size, axes))
        x = self.patch_embed(image)
        kept = {"patch_embed": x}
        if mask is not None:
            mask = mask[..., None].astype(x.dtype)
            x = x * (1 - mask) + mask * mask_token.reshape((1,) * (x.ndim - 1) + (-1,)).astype(
                x.dtype
            )
        if self.ape:
            x = x + self._positions(x.shape[1:-1], image.shape[1:-1]).astype(x.dtype)
        # One draw for all blocks, by their global number:
        # cheap to compile, and the same however blocks are stored.
        draws = None
        if train and self.drop_path_rate:
            check_key(self, "dropout")
            draws = jax.random.uniform(self.make_rng("dropout"), (sum(self.depths), 2, x.shape[0]))
        starts = np.cumsum((0, *self.depths))
        maps = []
        for s, stage in enumerate(self.layers):
            before, x, outputs = stage(
                x, None if draws is None else draws[starts[s] : starts[s + 1]]
            )
            kept |= {f"layers.{s}.blocks.{i}": output for i, output in enumerate(outputs)} | {
                f"layers.{s}": x
            }
            maps.append(before)
        return maps, x, kept

    def _positions(self, grid: tuple[int, ...], image: tuple[int, ...]) -> jax.Array:
        """Absolute positions (1, *grid, C); under 'keep' stretched bicubically to the
        grid of any image.
        """
        made_for = stage_geometry(self)[0][0]
        table = self.absolute_pos_embed.reshape(*made_for, self.embed_dim)
        if grid != made_for:
            if self.small != "keep":
                raise UserError(
                    f"the absolute position embedding is for image_size={self.image_size}, "
                    f"not for images of {image}"
                )
            for axis, (old, new) in enumerate(zip(made_for, grid)):
                matrix = jnp.asarray(window_geometry.bicubic_matrix(old, new), table.dtype)
                table = jnp.moveaxis(jnp.tensordot(matrix, table, (1, axis)), 0, axis)
        return table[None]


def param_shapes(model: Swin) -> dict:
    """{'params': tree of jax.ShapeDtypeStruct}, without computing anything."""
    image = jax.ShapeDtypeStruct(
        (1, *per_axis(model.image_size, num_axes(model)), model.in_channels), jnp.float32
    )
    return jax.eval_shape(model.init, jax.random.key(0), image)
