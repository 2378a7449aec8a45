"""The losses of StyleCLIP (arXiv 2103.17249): what a picture shows, and whom.

Reference: orpatashnik/StyleCLIP, criteria/clip_loss.py and criteria/id_loss.py.
"""

import jax
import numpy as np

from swin_jax.core.constants import CLIP_MEAN, CLIP_STD
from swin_jax.core.errors import UserError
from swin_jax.core.sizes import Size, per_axis
from swin_jax.models.clip import CLIP
from swin_jax.ops.resampling import area, resample

PREPROCESS = ("compat", "clip")


def identity_loss(features: jax.Array, reference_features: jax.Array) -> jax.Array:
    """The distance of persons from those that they should stay,
    by embeddings of their faces (`ops.resampling.face_view`).

    Args:
        features: (B, E) of length 1, of edited pictures.
        reference_features: (B, E) of length 1, of the pictures before; they get no gradient.

    Returns:
        The mean of 1 - cosine, a float32 scalar.
    """
    cosines = (features * jax.lax.stop_gradient(reference_features)).sum(axis=-1)
    return (1 - cosines).mean()


def clip_view(
    image: jax.Array,
    size: Size,
    preprocess: str = "compat",
    mean: tuple[float, ...] = CLIP_MEAN,
    std: tuple[float, ...] = CLIP_STD,
) -> jax.Array:
    """A generator's picture as CLIP is shown it.

    Args:
        image: (B, H, W, 3) in -1..1, not clipped.
        size: (H', W') of CLIP's pictures, or one int for both; means are taken over equal areas.
        preprocess: 'compat' leaves the values as they are, as the released code does; 'clip'
            normalizes them as CLIP was trained.
        mean, std: Mean and standard deviation of the channels, for 'clip'.

    Returns:
        (B, H', W', 3) float32.

    Raises:
        UserError: Another word for `preprocess`.
    """
    if preprocess not in PREPROCESS:
        raise UserError(
            f"preprocess={preprocess!r} must be 'compat' (the released code) or "
            "'clip' (as CLIP was trained)"
        )
    height, width = per_axis(size, 2)
    shown = resample(image, area(image.shape[1], height), area(image.shape[2], width))
    if preprocess == "compat":
        return shown
    return (shown * 0.5 + 0.5 - np.float32(mean).reshape(1, 1, 1, -1)) / np.float32(std).reshape(
        1, 1, 1, -1
    )


def clip_loss(
    image: jax.Array,
    text_features: jax.Array,
    clip: CLIP,
    variables: dict,
    preprocess: str = "compat",
    **statistics,
) -> jax.Array:
    """The distance of pictures from texts.

    Args:
        image: (B, H, W, 3) in -1..1.
        text_features: (T, E) of length 1, `encode_text(ids, normalize=True)` of the texts.
        clip: The model.
        variables: Variables of the CLIP.
        preprocess: A choice of `clip_view`.
        **statistics: `mean` and `std` of `clip_view`.

    Returns:
        1 - logits / 100, (B, T) float32: 1 - cosine for the released models, whose scale is 100.
    """
    shown = clip_view(image, clip.visual.image_size, preprocess, **statistics)
    features = clip.apply(variables, shown, method="encode_image", normalize=True)
    logits = clip.apply(variables, features, text_features, method="logits")
    return 1 - logits / 100
