"""CLIP: an image tower and a text tower into one space, compared by a scaled cosine.

CLIP (arXiv 2103.00020); the reference is `CLIP` of openai/CLIP, clip/model.py, and of
mlfoundations/open_clip.
"""

import math
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.ranges import (
    FiniteFloat,
    PositiveFloat,
    PositiveInt,
    PositiveInts,
    Rate,
    checked,
)
from swin_jax.core.sizes import Size
from swin_jax.models.clip.resnet import ModifiedResNet
from swin_jax.models.clip.text import TextTransformer
from swin_jax.models.clip.vit import VisionTransformer
from swin_jax.ops.batch_sharding import one_by_one
from swin_jax.ops.normalize import unit

INIT_LOGIT_SCALE = math.log(1 / 0.07)


@checked
class CLIP(nn.Module):
    """Two towers.

    The scale is not clipped here: in training that is done after each update,
    so that its gradient never stops.

    Attributes:
        visual: Any module that is called as visual(image, train=...) and gives (B, embed_dim).
        text: Any module that is called as text(ids, train=...) and gives (B, embed_dim).
        init_logit_scale: Logarithm of the initial scale.
        logit_bias: Initial value of a bias on the logits (SigLIP: -10); None for none.
    """

    visual: nn.Module
    text: nn.Module
    init_logit_scale: FiniteFloat = INIT_LOGIT_SCALE
    logit_bias: FiniteFloat | None = None

    def setup(self):
        constant = nn.initializers.constant
        self.scale = self.param("logit_scale", constant(self.init_logit_scale), (), jnp.float32)
        if self.logit_bias is not None:
            self.bias = self.param("logit_bias", constant(self.logit_bias), (), jnp.float32)

    @nn.nowrap
    def flops(self) -> int:
        """Multiply-accumulates of both towers for a pair; 0 if one does not count its own."""
        towers = self.visual, self.text
        if not all(hasattr(tower, "flops") for tower in towers):
            return 0
        return sum(tower.flops() for tower in towers)

    def encode_image(
        self, image: jax.Array, train: bool = False, normalize: bool = False
    ) -> jax.Array:
        """Embeds (B, H, W, 3) normalized float images:
        (B, embed_dim) float32, of length 1 if `normalize`.
        """
        return _finish(self.visual(image, train=train), normalize)

    def encode_text(
        self, text: jax.Array, train: bool = False, normalize: bool = False
    ) -> jax.Array:
        """Embeds token ids (B, L): (B, embed_dim) float32, of length 1 if `normalize`."""
        return _finish(self.text(text, train=train), normalize)

    def __call__(
        self, image: jax.Array, text: jax.Array, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Compares every image with every text.

        Args:
            image: (B, H, W, 3), floating point and normalized.
            text: (B', L) token ids.
            train: Mode of both towers.

        Returns:
            (logits_per_image (B, B'), logits_per_text (B', B)), float32: exp(logit_scale) times the
            cosine, plus logit_bias if there is one.
        """
        images = self.encode_image(image, train, normalize=True)
        texts = self.encode_text(text, train, normalize=True)
        logits = self.logits(images, texts)
        return logits, logits.T

    def logits(self, images: jax.Array, texts: jax.Array) -> jax.Array:
        """Compares features of length 1, (B, embed_dim) of images with (B', embed_dim) of texts:
        (B, B') float32.
        """
        # Times 100, a cosine that was rounded to bfloat16 is off by half a unit.
        logits = jnp.exp(self.scale) * jnp.matmul(
            images, texts.T, precision=jax.lax.Precision.HIGHEST
        )
        return logits if self.logit_bias is None else logits + self.bias


def _finish(features: jax.Array, normalized: bool) -> jax.Array:
    return unit(features) if normalized else features.astype(jnp.float32)


def encode(
    model: CLIP,
    variables: dict,
    batch: Mapping[str, jax.Array],
    prepare: Callable[[jax.Array], jax.Array],
) -> dict[str, jax.Array]:
    """Features of the pictures and texts that are there;
    on a CPU the same to the last bit in any batch.

    Args:
        model: Two towers.
        variables: Variables of the model.
        batch: `image` (B, H, W, 3), `text` (B', L) token ids, or one of them.
        prepare: A function that is applied to `image` first, normalization for example.

    Returns:
        `image_features` (B, E) and `text_features` (B', E), float32 of length 1, of what is there;
        and `logit_scale`, the factor itself.
    """
    found = {"logit_scale": jnp.exp(variables["params"]["logit_scale"].astype(jnp.float32))}

    def encode_image(variables, image):
        return model.apply(variables, prepare(image), normalize=True, method="encode_image")

    def encode_text(variables, text):
        return model.apply(variables, text, normalize=True, method="encode_text")

    if "image" in batch:
        found["image_features"] = one_by_one(encode_image, variables, batch["image"])
    if "text" in batch:
        found["text_features"] = one_by_one(encode_text, variables, batch["text"])
    return found


@checked
def make_clip(
    embed_dim: PositiveInt,
    image_size: Size = 224,
    vision_layers: PositiveInt | PositiveInts = 12,
    vision_width: PositiveInt = 768,
    vision_heads: PositiveInt | None = None,
    vision_mlp_ratio: PositiveFloat = 4.0,
    patch_size: Size | None = 32,
    context_length: PositiveInt = 77,
    vocab_size: PositiveInt = 49408,
    text_width: PositiveInt = 512,
    text_heads: PositiveInt | None = None,
    text_layers: PositiveInt = 12,
    act: str = "quick_gelu",
    init_logit_scale: FiniteFloat = INIT_LOGIT_SCALE,
    logit_bias: FiniteFloat | None = None,
    patch_dropout: Rate = 0.0,
    freeze_batch_norm: bool = False,
    dtype: str = "float32",
    param_dtype: str = "float32",
    remat: str = "none",
    attention: str = "xla",
) -> CLIP:
    """A CLIP with OpenAI's towers: `make_clip(**presets.PRESETS["ViT-B/32"])`.

    Args:
        embed_dim: Size of the space that images and texts share.
        image_size: (H, W) of the images in pixels, or one int for both.
        vision_width: Width of the image tower.
        vision_layers: Blocks of a ViT, or a tuple of four numbers, those of each stage of a ResNet.
        vision_heads: None for one per 64 channels (of the last map of a ResNet).
        patch_size, vision_mlp_ratio, patch_dropout: Settings of a ViT.
        freeze_batch_norm: True to keep the running statistics of a ResNet.
        context_length, vocab_size, text_width, text_layers: Settings of the text tower.
        text_heads: None for one per 64 channels.
        act: Activation in the MLPs of both towers, 'quick_gelu' or 'gelu'.
        init_logit_scale, logit_bias: The same as in `CLIP`.
        dtype, param_dtype, remat, attention: Settings of both towers, see
            `models.clip.transformer.Transformer`.
    """
    shared = dict(embed_dim=embed_dim, dtype=dtype, param_dtype=param_dtype, remat=remat)
    if isinstance(vision_layers, int):
        visual = VisionTransformer(
            image_size=image_size,
            patch_size=patch_size,
            width=vision_width,
            layers=vision_layers,
            num_heads=vision_heads or vision_width // 64,
            mlp_ratio=vision_mlp_ratio,
            act=act,
            patch_dropout=patch_dropout,
            attention=attention,
            **shared,
        )
    else:
        visual = ModifiedResNet(
            image_size=image_size,
            layers=tuple(vision_layers),
            width=vision_width,
            num_heads=vision_heads or vision_width * 32 // 64,
            freeze_batch_norm=freeze_batch_norm,
            **shared,
        )
    text = TextTransformer(
        context_length=context_length,
        vocab_size=vocab_size,
        width=text_width,
        layers=text_layers,
        num_heads=text_heads or text_width // 64,
        act=act,
        attention=attention,
        **shared,
    )
    return CLIP(visual, text, init_logit_scale, logit_bias)
