"""The effect of a channel of S on pictures, as CLIP sees it:
the images of StyleCLIP's relevance, and what they cost.

Patashnik et al., arXiv 2103.17249, section 6. Reference: orpatashnik/StyleCLIP,
global_torch/{SingleChannel,manipulate}.py. The layers before a changed one are the same for all its
channels, so that they are computed once.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.constants import CLIP_MEAN, CLIP_STD
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import (
    FiniteFloat,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    check_scale,
    checked,
)
from swin_jax.core.sizes import Size, per_axis
from swin_jax.models.clip import CLIP
from swin_jax.models.styleclip.directions import moves
from swin_jax.models.styleclip.statistics import Draws
from swin_jax.models.stylegan2 import Generator, StyleLayer
from swin_jax.ops.resampling import bicubic, resample_bytes

FORMS = ("code", "paper")


@checked
@dataclasses.dataclass(frozen=True)
class Change:
    """The change of a channel.

    Attributes:
        alpha: Step in deviations of the channel, down and up.
        form: 'code' moves it from its mean, in all pictures alike, as the released code does;
            'paper' from its own value in each picture.
        cumulative: Leave every channel at its mean when the next ones are moved. So does the
            released script, whose copies share their memory; by the last layer most channels
            are at their means.
    """

    alpha: PositiveFloat = 5.0
    form: str = "code"
    cumulative: bool = False

    def __post_init__(self):
        if self.form not in FORMS:
            raise UserError(
                f"form={self.form!r} is neither 'code' (from the channel's mean) "
                "nor 'paper' (from its value)"
            )
        if self.cumulative and self.form == "paper":
            raise UserError(
                "cumulative=True is of form='code'; with form='paper' no channel is set to its mean"
            )

    def apply(
        self, style: jax.Array, mean: jax.Array, deviation: jax.Array, channels: jax.Array
    ) -> jax.Array:
        """Styles of one layer with each of some channels moved.

        Args:
            style: (C,) of one picture.
            mean, deviation: (C,) of the layer.
            channels: (M,) int32.

        Returns:
            (M, 2, C), each channel lowered and raised.
        """
        places = jnp.arange(style.shape[0])[None]
        here = places == channels[:, None]
        base = jnp.broadcast_to(style[None], here.shape)
        if self.cumulative:
            base = jnp.where(places < channels[:, None], mean[None], base)
        center = mean[None] if self.form == "code" else base
        step = self.alpha * deviation[None]
        sides = [jnp.where(here, center + sign * step, base) for sign in (-1, 1)]
        return jnp.stack(sides, axis=1)

    def before(
        self, styles: Sequence[np.ndarray], means: Sequence[np.ndarray], layers, layer: int
    ) -> tuple:
        """Styles (N, C) of all layers, as they are when the first channel of `layer` is moved."""
        if not self.cumulative:
            return tuple(styles)
        passed = [index < layer and not layers[index].is_rgb for index in range(len(layers))]
        return tuple(
            np.broadcast_to(mean, style.shape) if done else style
            for style, mean, done in zip(styles, means, passed)
        )


@checked
@dataclasses.dataclass(frozen=True)
class Survey:
    """The settings by which statistics and relevance are computed;
    the defaults are those of the released code.

    Attributes:
        draws: Latents.
        images: Number of latents, the first ones, on which relevance is measured.
        change: Change of each channel.
        batch_size: Pictures at a time, two for each channel. In memory are the maps of as many,
            about 1 GiB for each of 1024 pixels, and those before the changed layer of one.
        mean, std: Mean and standard deviation of pixels in 0..1, as the CLIP was trained.
        save_seconds: Time between two saves of the work done so far.
    """

    draws: Draws = Draws()
    images: PositiveInt = 100
    change: Change = Change()
    batch_size: PositiveInt = 8
    mean: tuple[FiniteFloat, ...] = CLIP_MEAN
    std: tuple[PositiveFloat, ...] = CLIP_STD
    save_seconds: NonNegativeFloat = 60.0

    def __post_init__(self):
        check_scale(self.mean, self.std)

    def settings(self) -> dict[str, Any]:
        """The settings that the numbers depend on, besides the weights."""
        found = dataclasses.asdict(self)
        del found["save_seconds"]
        return found


def picture_view(
    image: jax.Array,
    size: Size,
    mean: tuple[float, ...] = CLIP_MEAN,
    std: tuple[float, ...] = CLIP_STD,
) -> jax.Array:
    """A generator's picture as CLIP sees the file that it would be:
    bytes, resized as Pillow does, and normalized.

    Args:
        image: (B, H, W, 3), nominally in -1..1, square.
        size: (H', W') of CLIP's pictures, or one int for both.
        mean, std: Mean and standard deviation of the channels, in 0..1.

    Returns:
        (B, H', W', 3) float32.
    """
    height, width = per_axis(size, 2)
    pixels = jnp.clip(jnp.floor(image * 127.5 + 128), 0, 255)
    pixels = resample_bytes(pixels, bicubic(image.shape[1], height), bicubic(image.shape[2], width))
    mean, std = (np.float32(values).reshape(1, 1, 1, -1) for values in (mean, std))
    return (pixels / 255 - mean) / std


def channel_moves(
    generator: Generator,
    clip: CLIP,
    variables: dict[str, Any],
    start: tuple[jax.Array, jax.Array | None],
    styles: Sequence[jax.Array],
    changed: jax.Array,
    layer: int,
    pixels: dict[str, tuple[float, ...]],
) -> jax.Array:
    """The moves of one picture in CLIP's space with each of M styles of a layer,
    computed from that layer on.

    Args:
        generator, clip: The models.
        variables: Variables of the models, under 'generator' and 'clip'.
        start: (maps, image) of the picture before the layer,
            `Generator.activations` of a batch of 1.
        styles: Styles of all layers, (1, C).
        changed: (M, 2, C), lowered and raised styles of the layer.
        layer: Index of the layer in `style_layers()`.
        pixels: `mean` and `std` of `picture_view`.

    Returns:
        (M, E) float32 of length 1.
    """
    count = 2 * len(changed)

    def repeat(x):
        return None if x is None else jnp.broadcast_to(x, (count, *x.shape[1:]))

    styles = [repeat(style) for style in styles]
    styles[layer] = changed.reshape(count, -1)
    x, image = map(repeat, start)
    images = generator.apply(variables["generator"], x, image, styles, layer, method="resume")
    shown = picture_view(images, clip.visual.image_size, **pixels)
    features = clip.apply(variables["clip"], shown, method="encode_image")
    return moves(features.reshape(-1, 2, features.shape[-1]))


@dataclasses.dataclass(frozen=True)
class Cost:
    """Multiply-accumulates of the convolutions for all pictures of a relevance, CLIP's not counted.

    Attributes:
        pictures: Number of pictures.
        whole: Operations if each is made from its latent.
        from_layer: Operations if each is made from the changed layer on.
        rank_one: Operations if, besides, the first convolution is computed for the changed input
            channel alone and added to that of the unchanged picture.
    """

    pictures: int
    whole: int
    from_layer: int
    rank_one: int


def flops_of_relevance(layers: Sequence[StyleLayer], images: int = 100) -> Cost:
    """The cost that the table of layers implies:
    two pictures for each image and channel, ToRGB's left out.

    Args:
        layers: `Generator.style_layers()`.
        images: Number of latents.
    """
    each = [layer.convolution() for layer in layers]
    whole = from_layer = rank_one = pictures = 0
    for index, layer in enumerate(layers):
        if layer.is_rgb:
            continue
        count = 2 * images * layer.channels
        pictures += count
        whole += count * sum(each)
        from_layer += count * sum(each[index:])
        rank_one += count * sum(each[index + 1 :]) + count * each[index] // layer.channels
    return Cost(pictures, whole, from_layer, rank_one)
