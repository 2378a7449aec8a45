"""Resampling of pictures by one matrix for their rows and one for their columns.

The matrices are NumPy arrays that depend on sizes only. `jax.image.resize` has none of these: its
bins don't overlap as PyTorch's adaptive pools do, and its corners are not aligned.
"""

import jax
import jax.numpy as jnp
import numpy as np

FACE_POOL = 256  # pixels, the height at which faces are cropped
FACE_ROWS, FACE_COLUMNS = (35, 223), (32, 220)


def adaptive_average(before: int, after: int) -> np.ndarray:
    """The matrix (after, before) of `torch.nn.AdaptiveAvgPool2d` along one axis, float64.

    Row i averages the places floor(i before / after) to ceil((i + 1) before / after) - 1,
    so that bins may overlap.
    """
    rows, places = np.arange(after)[:, None], np.arange(before)
    start, end = rows * before // after, -(-(rows + 1) * before // after)
    inside = (places >= start) & (places < end)
    return inside / inside.sum(axis=1, keepdims=True)


def area(before: int, after: int) -> np.ndarray:
    """The matrix (after, before) of the mean over equal shares of an axis, float64.

    For `before` = 32 k and `after` = 32 r that is what StyleCLIP computes: every place is repeated
    r times (7 for 224 pixels), then means are taken of k. The enlarged picture is never made.
    """
    rows, places = np.arange(after)[:, None], np.arange(before)
    # In units of 1 / after of a place: row i covers [before i, before (i + 1)), place j [after j,
    # after (j + 1)).
    start = np.maximum(rows * before, places * after)
    end = np.minimum((rows + 1) * before, (places + 1) * after)
    return np.maximum(end - start, 0) / before


def align_corners(before: int, after: int) -> np.ndarray:
    """The matrix (after, before) of linear interpolation whose first and last places are those
    of the input, float64.

    Reference: `torch.nn.functional.interpolate(mode='bilinear', align_corners=True)`.
    """
    at = np.arange(after) * ((before - 1) / max(after - 1, 1))
    return np.maximum(1 - np.abs(at[:, None] - np.arange(before)), 0)


def half_pixels(before: int, after: int) -> np.ndarray:
    """The matrix (after, before) of linear interpolation between the centers of pixels, float64.

    It does not smooth where the picture shrinks. Reference:
    `torch.nn.functional.interpolate(mode='bilinear', align_corners=False)`.
    """
    at = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    return np.maximum(1 - np.abs(at[:, None] - np.arange(before)), 0)


def bicubic(before: int, after: int) -> np.ndarray:
    """The matrix (after, before) of Pillow's bicubic interpolation,
    which smooths where it shrinks, float64.

    The kernel is Keys' with a = -0.5; what lies outside is left out of the mean.
    """
    scale = before / after
    centers = (np.arange(after)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(before) + 0.5 - centers) / max(scale, 1.0)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


def resample_bytes(image: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """`resample` as Pillow does it with pictures of bytes:
    columns first, each pass rounded to 0, 1, ..., 255.

    Args:
        image: (B, H, W, C), floating point with values of bytes.
        rows: (H', H).
        columns: (W', W).

    Returns:
        (B, H', W', C) float32.
    """
    image = jnp.clip(jnp.floor(_columns(image, columns) + 0.5), 0, 255)
    return jnp.clip(jnp.floor(_rows(image, rows) + 0.5), 0, 255)


def resample(image: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """Applies a matrix to the rows and one to the columns of pictures, in float32.

    Args:
        image: (B, H, W, C), floating point.
        rows: (H', H).
        columns: (W', W).

    Returns:
        (B, H', W', C) float32.
    """
    return _columns(_rows(image, rows), columns)


def resize_bilinear(image: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Bilinear interpolation between the centers of pixels, which does not smooth where it shrinks.

    Reference: `torch.nn.functional.interpolate(mode='bilinear', align_corners=False)`.

    Args:
        image: (B, H, W, C), floating point.
        size: (H', W').

    Returns:
        (B, H', W', C) of the same type, computed in float32.
    """
    height, width = image.shape[1:3]
    if (height, width) == tuple(size):
        return image
    found = resample(image, half_pixels(height, size[0]), half_pixels(width, size[1]))
    return found.astype(image.dtype)


def adaptive_average_pool(image: jax.Array, size: tuple[int, int]) -> jax.Array:
    """`torch.nn.functional.adaptive_avg_pool2d`: means over bins that may overlap.

    Args:
        image: (B, H, W, C), floating point.
        size: (H', W').

    Returns:
        (B, H', W', C) of the same type, computed in float32.
    """
    height, width = image.shape[1:3]
    found = resample(image, adaptive_average(height, size[0]), adaptive_average(width, size[1]))
    return found.astype(image.dtype)


def _rows(image: jax.Array, matrix: np.ndarray) -> jax.Array:
    matrix, image = jnp.asarray(matrix, jnp.float32), image.astype(jnp.float32)
    return jnp.einsum("ih,bhwc->biwc", matrix, image, precision=jax.lax.Precision.HIGHEST)


def _columns(image: jax.Array, matrix: np.ndarray) -> jax.Array:
    matrix, image = jnp.asarray(matrix, jnp.float32), image.astype(jnp.float32)
    return jnp.einsum("jw,biwc->bijc", matrix, image, precision=jax.lax.Precision.HIGHEST)


def face_view(image: jax.Array, size: int = 112) -> jax.Array:
    """The part of an aligned picture that StyleCLIP's identity loss compares.

    Pictures that are not 256 high are pooled to 256 x 256, the face is cut out, rows 35 to 222 and
    columns 32 to 219, and pooled to `size`.

    Args:
        image: (B, H, W, C), floating point, aligned as FFHQ.
        size: Height and width of the result.

    Returns:
        (B, size, size, C) float32.
    """
    pool = image.shape[1] != FACE_POOL
    rows = _face_matrix(image.shape[1], pool, FACE_ROWS, size)
    return resample(image, rows, _face_matrix(image.shape[2], pool, FACE_COLUMNS, size))


def _face_matrix(before: int, pool: bool, cut: tuple[int, int], after: int) -> np.ndarray:
    """Both pools and the cut between them as one matrix."""
    pooled = adaptive_average(before, FACE_POOL) if pool else np.eye(before)
    face = pooled[slice(*cut)]
    return adaptive_average(len(face), after) @ face
