"""CLIP's text tower: a causal transformer whose output at the end of the text is projected.

CLIP (arXiv 2103.00020); the reference is the text half of `CLIP` in openai/CLIP, clip/model.py.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import PositiveFloat, PositiveInt, checked
from swin_jax.models.clip.transformer import Transformer, transformer_macs
from swin_jax.models.layers import layer_norm


@checked
class TextTransformer(nn.Module):
    """Text tower: token ids (B, L) to (B, embed_dim).

    Texts end with the highest id of the vocabulary and are padded after it; the features are taken
    at the first place of a text's highest id. What comes after is invisible, so that shorter inputs
    give the same features as padded ones.

    With `mutable=['intermediates']` the outputs of 'transformer.resblocks.0', ... and 'ln_final'
    are kept in `intermediates['outputs']`, each (B, L, width).

    Attributes:
        embed_dim: Size of the space that images and texts share.
        context_length: The longest input.
        width, layers, num_heads, mlp_ratio: Sizes of the transformer.
        act: 'quick_gelu' (OpenAI's weights) or 'gelu'.
        dtype, param_dtype, remat, attention: The same as in `models.clip.transformer.Transformer`.
    """

    embed_dim: PositiveInt
    context_length: PositiveInt = 77
    vocab_size: PositiveInt = 49408
    width: PositiveInt = 512
    layers: PositiveInt = 12
    num_heads: PositiveInt = 8
    mlp_ratio: PositiveFloat = 4.0
    act: str = "quick_gelu"
    dtype: str = "float32"
    param_dtype: str = "float32"
    remat: str = "none"
    attention: str = "xla"

    def setup(self):
        dtype, param_dtype = jnp.dtype(self.dtype), jnp.dtype(self.param_dtype)
        normal = nn.initializers.normal
        shared = dict(dtype=dtype, param_dtype=param_dtype)
        self.token_embedding = nn.Embed(
            self.vocab_size, self.width, embedding_init=normal(0.02), **shared
        )
        positions = (self.context_length, self.width)
        self.positional_embedding = self.param(
            "positional_embedding", normal(0.01), positions, param_dtype
        )
        self.transformer = Transformer(
            width=self.width,
            layers=self.layers,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            act=self.act,
            causal=True,
            init="scaled",
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            remat=self.remat,
            attention=self.attention,
        )
        self.ln_final = layer_norm(dtype, param_dtype=param_dtype)
        projection = (self.width, self.embed_dim)
        self.text_projection = self.param(
            "text_projection", normal(self.width**-0.5), projection, param_dtype
        )

    def __call__(self, ids: jax.Array, train: bool = False) -> jax.Array:
        """Embeds texts.

        Args:
            ids: (B, L) integers, L at most `context_length`, as
                `data.image_text.tokenizer.tokenize` gives them.
            train: An argument without effect, so that towers are called alike.

        Returns:
            (B, embed_dim) in `dtype`, not normalized.

        Raises:
            UserError: Ids that are not integers, or texts longer than `context_length`.
        """
        x = self.features(ids)
        x = jnp.take_along_axis(x, ids.argmax(axis=-1)[:, None, None], axis=1)[:, 0]  # (B, width)
        return x @ self.text_projection.astype(x.dtype)

    @nn.nowrap
    def flops(self) -> int:
        """Multiply-accumulates for a text of `context_length`: matrix products and attention, all
        of it, though causal.
        """
        blocks = transformer_macs(self.context_length, self.width, self.layers, self.mlp_ratio)
        return blocks + self.width * self.embed_dim

    def features(self, ids: jax.Array) -> jax.Array:
        """Every token after the last norm: (B, L, width)."""
        kind = getattr(ids, "dtype", f"a {type(ids).__name__}")
        if isinstance(kind, str) or not jnp.issubdtype(kind, jnp.integer):
            raise UserError(
                f"texts are {kind}; tokenize them first with "
                "swin_jax.data.image_text.tokenizer.tokenize(texts)"
            )
        if ids.ndim != 2 or ids.shape[1] > self.context_length:
            raise UserError(
                f"token ids are of shape {ids.shape}, expected (B, L) with L at most "
                f"context_length={self.context_length}: tokenize(texts, "
                f"context_length={self.context_length}, truncate=True)"
            )
        x = (
            self.token_embedding(ids)
            + self.positional_embedding[: ids.shape[1]].astype(jnp.dtype(self.dtype))[None]
        )
        x, blocks = self.transformer(x)
        x = self.ln_final(x)
        outputs = {f"transformer.resblocks.{i}": block for i, block in enumerate(blocks)} | {
            "ln_final": x
        }
        self.sow(
            "intermediates", "outputs", outputs, reduce_fn=lambda _, new: new, init_fn=lambda: None
        )
        return x
