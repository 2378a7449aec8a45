"""CLIP's vision transformer: patches, a class token, learned positions, pre-norm blocks,
a projection.

ViT (arXiv 2010.11929) as in CLIP (arXiv 2103.00020); the reference is `VisionTransformer` of
openai/CLIP, clip/model.py. Patch dropout is that of FLIP (arXiv 2212.00794).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import PositiveFloat, PositiveInt, Rate, checked
from swin_jax.core.sizes import Size, cells, per_axis
from swin_jax.models.clip.transformer import Transformer, transformer_macs
from swin_jax.models.layers import (
    PREPARE,
    PatchProjection,
    check_floats,
    check_key,
    check_some,
    layer_norm,
)


def check_image(image: jax.Array, size: Size) -> None:
    """Raises UserError for integer images, and for others than (B, H, W, 3) of this size."""
    height, width = per_axis(size, 2)
    check_floats(image, "images", PREPARE)
    if image.ndim != 4 or image.shape[1:] != (height, width, 3):
        raise UserError(
            f"images are of shape {image.shape}, but the positions of this tower are for (B, "
            f"{height}, {width}, 3): resize the images, or load the weights with another "
            "image_size and resize='bilinear' or 'bicubic'"
        )
    check_some(image, "images")


@checked
class VisionTransformer(nn.Module):
    """Image tower: (B, H, W, 3) to (B, embed_dim).

    With `mutable=['intermediates']` the outputs of 'conv1', 'ln_pre',
    'transformer.resblocks.0', ... and 'ln_post' are kept in `intermediates['outputs']`, tokens
    as (B, N, width), class token first.

    Attributes:
        embed_dim: Size of the space that images and texts share.
        image_size: (H, W) in pixels, or one int for both;
            a multiple of `patch_size`, which is given alike.
        width, layers, num_heads, mlp_ratio: Sizes of the transformer.
        act: 'quick_gelu' (OpenAI's weights) or 'gelu'.
        patch_dropout: Fraction of patches that are left out in training, other ones for each image.
        dtype, param_dtype, remat, attention: The same as in `models.clip.transformer.Transformer`.
    """

    embed_dim: PositiveInt
    image_size: Size = 224
    patch_size: Size = 32
    width: PositiveInt = 768
    layers: PositiveInt = 12
    num_heads: PositiveInt = 12
    mlp_ratio: PositiveFloat = 4.0
    act: str = "quick_gelu"
    patch_dropout: Rate = 0.0
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"
    attention: str = "xla"

    def setup(self):
        dtype, param_dtype = jnp.dtype(self.dtype), jnp.dtype(self.param_dtype)
        normal = nn.initializers.normal(self.width**-0.5)
        tokens = math.prod(self._grid()) + 1
        patch = per_axis(self.patch_size, 2)
        self.conv1 = PatchProjection(self.width, patch, dtype, param_dtype, use_bias=False)
        self.class_embedding = self.param("class_embedding", normal, (self.width,), param_dtype)
        self.positional_embedding = self.param(
            "positional_embedding", normal, (tokens, self.width), param_dtype
        )
        self.ln_pre = layer_norm(dtype, param_dtype=param_dtype)
        self.transformer = Transformer(
            width=self.width,
            layers=self.layers,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            act=self.act,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            remat=self.remat,
            attention=self.attention,
        )
        self.ln_post = layer_norm(dtype, param_dtype=param_dtype)
        self.proj = self.param("proj", normal, (self.width, self.embed_dim), param_dtype)

    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        """Embeds images.

        Args:
            image: (B, H, W, 3), floating point and normalized.
            train: True to drop patches; needs `rngs={'patch_dropout': key}` then.

        Returns:
            (B, embed_dim) in `dtype`, not normalized.

        Raises:
            UserError: Integer images, or images of another size.
        """
        x = self.pooled(image, train)
        return x @ self.proj.astype(x.dtype)

    def pooled(self, image: jax.Array, train: bool = False) -> jax.Array:
        """The class token after the last norm, before the projection: (B, width)."""
        x, outputs = self._tokens(image, train)
        x = self.ln_post(x[:, 0])
        outputs["ln_post"] = x
        self.sow(
            "intermediates", "outputs", outputs, reduce_fn=lambda _, new: new, init_fn=lambda: None
        )
        return x

    def features(self, image: jax.Array, train: bool = False) -> list[jax.Array]:
        """Spatial features: a list of one map, the patch tokens after the last norm, (B, rows,
        columns, width).
        """
        if train and self.patch_dropout:
            raise UserError(
                "with patches left out there is no map of them: "
                "features(train=True) needs patch_dropout=0"
            )
        x, _ = self._tokens(image, train)
        return [self.ln_post(x[:, 1:]).reshape(x.shape[0], *self._grid(), self.width)]

    @nn.nowrap
    def flops(self) -> int:
        """Multiply-accumulates per image: matrix products and attention, without patch dropout."""
        patches = math.prod(self._grid())
        embed = patches * math.prod(per_axis(self.patch_size, 2)) * 3 * self.width
        blocks = transformer_macs(patches + 1, self.width, self.layers, self.mlp_ratio)
        return embed + blocks + self.width * self.embed_dim

    @nn.nowrap
    def _grid(self) -> tuple[int, ...]:
        """Rows and columns of patches."""
        try:
            return cells(self.image_size, self.patch_size)
        except UserError:
            raise UserError(
                f"image_size={self.image_size} is not a multiple of patch_size={self.patch_size}"
            ) from None

    def _tokens(self, image: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """All tokens after the last block, (B, N, width), and every output by its official name."""
        check_image(image, self.image_size)
        conv1 = self.conv1(image)
        x = conv1.reshape(conv1.shape[0], -1, self.width)
        token = jnp.broadcast_to(self.class_embedding.astype(x.dtype), (x.shape[0], 1, self.width))
        x = jnp.concatenate([token, x], axis=1) + self.positional_embedding.astype(x.dtype)[None]
        if train and self.patch_dropout:
            check_key(self, "patch_dropout")
            x = self._drop_patches(x)
        x = self.ln_pre(x)
        outputs = {"conv1": conv1, "ln_pre": x}
        x, blocks = self.transformer(x)
        return x, outputs | {f"transformer.resblocks.{i}": block for i, block in enumerate(blocks)}

    def _drop_patches(self, x: jax.Array) -> jax.Array:
        """Keeps the class token and a random subset of the patches of each image,
        the same number for all.
        """
        patches = x.shape[1] - 1
        kept = max(1, int(patches * (1 - self.patch_dropout)))
        draws = jax.random.uniform(self.make_rng("patch_dropout"), (x.shape[0], patches))
        index = jax.lax.top_k(draws, kept)[1]
        return jnp.concatenate(
            [x[:, :1], jnp.take_along_axis(x[:, 1:], index[:, :, None], axis=1)], axis=1
        )
