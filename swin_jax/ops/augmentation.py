"""Augmentation on the device, inside the compiled step: normalize, then erase, then mix.

The references are timm's `RandomErasing` (one region, on the normalized image) and `Mixup` in batch
mode; Random Erasing (arXiv:1708.04896), mixup (arXiv:1710.09412), CutMix (arXiv:1905.04899). Two
differences from timm, both so that nothing depends on the mesh and no image crosses devices: a
"batch" is a group of consecutive images, and the partner of image i is its neighbor i xor 1 where
timm reverses the batch. Images are NHWC, or NTHWC: the frames of a clip share everything that is
drawn. Everything random is a function of `key`.
"""

import math

import jax
import jax.numpy as jnp

from swin_jax.core.constants import IMAGENET_MEAN, IMAGENET_STD
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import check_statistics

_TRIES = 10  # timm's number of attempts to find a region that fits


def normalize(
    image: jax.Array, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> jax.Array:
    """Turns uint8 images (..., C) into float32 (image / 255 - mean) / std,
    with one mean and std per channel.

    Raises:
        RangeError: Another number of them than channels.
    """
    check_statistics(mean, std, image.shape[-1])
    shape = (1,) * (image.ndim - 1) + (-1,)
    mean, std = (jnp.asarray(values, jnp.float32).reshape(shape) for values in (mean, std))
    return (image.astype(jnp.float32) / 255.0 - mean) / std


def clear_padding(image: jax.Array, size: jax.Array) -> jax.Array:
    """Sets what lies below and on the right of each image to 0, the mean of normalized pixels.

    Args:
        image: (B, H, W, C).
        size: int (B, 2), the rows and columns of each image.

    Returns:
        (B, H, W, C).
    """
    rows, columns = (jnp.arange(side)[None] for side in image.shape[1:3])
    rows, columns = rows < size[:, :1], columns < size[:, 1:]
    return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], image, 0)


def random_erase(
    key: jax.Array,
    image: jax.Array,
    probability: float = 0.25,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    mode: str = "pixel",
) -> jax.Array:
    """Replaces one random rectangle by noise, in each image with some probability.

    Ten rectangles are drawn and the first that is smaller than the image in both axes is used; if
    none is, the image stays as it is.

    Args:
        key: A JAX key.
        image: (B, H, W, C) or (B, T, H, W, C) float32, normalized.
        probability: Probability of erasing, per image or clip.
        area: Least and largest area of the rectangle before rounding, as fractions of the image.
        aspect: Least and largest height / width; the logarithm is uniform.
        mode: 'pixel' fills with N(0, 1) per value, 'rand' with one N(0, 1) color, 'const' with 0.

    Returns:
        The images, of the shape that they had.

    Raises:
        UserError: `mode` is not one of the three.
    """
    if mode not in ("pixel", "rand", "const"):
        raise UserError(f"mode='{mode}' is not one of 'pixel', 'rand', 'const'")
    batch, (height, width, channels) = image.shape[0], image.shape[-3:]
    key, fill_key = jax.random.split(key)
    # One draw for everything: each one costs seconds of compilation.
    draws = jax.random.uniform(key, (batch, 2 * _TRIES + 3))
    apply, y, x = draws[:, 0], draws[:, 1], draws[:, 2]

    low, high = math.log(aspect[0]), math.log(aspect[1])
    # (B, tries)
    pixels = (area[0] + (area[1] - area[0]) * draws[:, 3 : 3 + _TRIES]) * (height * width)
    ratio = jnp.exp(low + (high - low) * draws[:, 3 + _TRIES :])
    h = jnp.round(jnp.sqrt(pixels * ratio)).astype(jnp.int32)
    w = jnp.round(jnp.sqrt(pixels / ratio)).astype(jnp.int32)
    fits = (h < height) & (w < width)
    first = jnp.argmax(fits, axis=1)[:, None]
    h, w = (jnp.take_along_axis(side, first, axis=1)[:, 0] for side in (h, w))  # (B,)
    erase = jnp.any(fits, axis=1) & (apply < probability)

    # Where nothing fits the corners may lie outside; they are not used then.
    top = jnp.floor(y * (height - h + 1)).astype(jnp.int32)
    left = jnp.floor(x * (width - w + 1)).astype(jnp.int32)
    inside = _every_frame(
        _box(top, top + h, left, left + w, height, width) & erase[:, None, None, None], image
    )
    if mode == "const":
        fill = jnp.zeros((1,) * image.ndim, image.dtype)
    else:
        shape = image.shape if mode == "pixel" else (batch, *(1,) * (image.ndim - 2), channels)
        fill = jax.random.normal(fill_key, shape, image.dtype)
    return jnp.where(inside, fill, image)


def mix(
    key: jax.Array,
    image: jax.Array,
    target: jax.Array,
    mixup_alpha: float = 0.8,
    cutmix_alpha: float = 1.0,
    probability: float = 1.0,
    switch_probability: float = 0.5,
    group: int = 128,
) -> tuple[jax.Array, jax.Array]:
    """Mixes each image and its target with its neighbor's, by mixup or by CutMix.

    Within a group of consecutive images there is one lambda, one choice between the two,
    and one box.

    Args:
        key: A JAX key.
        image: (B, H, W, C) or (B, T, H, W, C) float32, normalized.
        target: (B, K) float32, already smoothed.
        mixup_alpha: lambda of mixup is Beta(alpha, alpha); 0: CutMix only.
        cutmix_alpha: The same for CutMix; 0: mixup only; both 0: nothing is mixed.
        probability: Probability that a group is mixed at all.
        switch_probability: Probability that a mixed group uses CutMix, where both are on.
        group: Images per group, even, and a divisor of B; a smaller batch is one group.

    Returns:
        Images of the same shape and (B, K) targets.
        CutMix weights targets by the area after clipping at the border.

    Raises:
        UserError: B or `group` is odd, or `group` does not divide a larger B.
    """
    if not (mixup_alpha or cutmix_alpha):
        return image, target
    batch, (height, width, _) = image.shape[0], image.shape[-3:]
    if batch % 2:
        raise UserError(f"mixing pairs neighbors and needs an even batch, got {batch} images")
    if batch > group and (batch % group or group % 2):
        raise UserError(
            f"mixing needs even groups that divide the batch: {batch} images, groups of {group}"
        )
    size = min(batch, group)
    groups = (batch // size,)

    key, weight_key = jax.random.split(key)
    apply, switch, y, x = jax.random.uniform(key, (4, *groups))
    if mixup_alpha and cutmix_alpha:
        cut = switch < switch_probability
    else:
        cut = jnp.full(groups, bool(cutmix_alpha))
    alpha = jnp.where(cut, cutmix_alpha, mixup_alpha)
    weight = jax.random.beta(weight_key, alpha, alpha)
    weight = jnp.where(apply < probability, weight, 1.0)

    side = jnp.sqrt(1.0 - weight)
    rows = _span(jnp.floor(y * height).astype(jnp.int32), side, height)
    columns = _span(jnp.floor(x * width).astype(jnp.int32), side, width)
    box_area = (rows[1] - rows[0]) * (columns[1] - columns[0])
    weight = jnp.where(cut, 1.0 - box_area / (height * width), weight)  # (groups,)

    # One value per image before anything is as large as the images,
    # so that each device makes its own masks.
    cut, weight, *box = (jnp.repeat(x, size) for x in (cut, weight, *rows, *columns))  # each (B,)
    inside = _box(*box, height, width)
    # (B, H, W, 1)
    own = jnp.where(cut[:, None, None, None], 1.0 - inside, weight[:, None, None, None])
    own = _every_frame(own, image)
    image = own * image + (1.0 - own) * _neighbor(image)
    weight = weight[:, None]
    return image, weight * target + (1.0 - weight) * _neighbor(target)


def _every_frame(mask, image):
    """(B, H, W, 1) with an axis for the frames of clips, if `image` is of them."""
    return mask.reshape(mask.shape[0], *(1,) * (image.ndim - 4), *mask.shape[1:])


def _neighbor(x):
    """x[i xor 1] along axis 0, as a reversal within pairs so that an even shard
    needs no other device.
    """
    return x.reshape(x.shape[0] // 2, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)


def _span(center, ratio, length):
    """Start and end of a cut of int(length * ratio) around `center`, halves rounded down,
    clipped to the image.
    """
    half = (length * ratio).astype(jnp.int32) // 2
    return jnp.clip(center - half, 0, length), jnp.clip(center + half, 0, length)


def _box(top, bottom, left, right, height, width):
    """(N, height, width, 1) bool, True inside the rectangles [top, bottom) x [left, right);
    bounds are (N,).
    """
    y, x = jnp.arange(height)[None, :], jnp.arange(width)[None, :]
    in_rows = (y >= top[:, None]) & (y < bottom[:, None])
    in_columns = (x >= left[:, None]) & (x < right[:, None])
    return (in_rows[:, :, None] & in_columns[:, None, :])[..., None]
