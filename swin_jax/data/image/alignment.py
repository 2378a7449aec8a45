"""Alignment of photographs of faces: turned, cut and resized as the pictures of FFHQ.

That is how networks for faces see them: e4e, StyleCLIP's identity loss and its generators. Karras
et al. (arXiv 1812.04948), appendix C; the reference is `align_face` of omertov/encoder4editing,
utils/alignment.py. Landmarks are not found here: they are given, or a function finds them.
"""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from swin_jax.core import text_files
from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.data.image import picture
from swin_jax.data.image.transforms import crop_transform, to_rgb

Find = Callable[[np.ndarray], Sequence]

# Places of the eyes and of the corners of the mouth among the points of a face, as they are seen,
# from left to right.
_PLACES = {
    5: ((0,), (1,), (3,), (4,)),
    68: (tuple(range(36, 42)), tuple(range(42, 48)), (48,), (54,)),
}
_SMALLEST = 4  # pixels that a face is wide
_LARGEST = 4  # times the picture that a face may be wide


@checked
def face_transform(
    size: PositiveInt, interpolation: str = "bilinear"
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Resize of an aligned face, which is a square picture.

    Args:
        size: Height and width of the result in pixels.
        interpolation: 'nearest', 'bilinear', 'bicubic' or 'lanczos'.

    Returns:
        transform(example): replaces `image` (PIL, or uint8 (H, W), (H, W, 1) or (H, W, 3)) by uint8
        (size, size, 3). It raises UnreadableError for a picture that is not square.
    """
    return functools.partial(_face, resize=crop_transform(size, 0, interpolation))


def _face(example: dict[str, Any], *, resize: Callable) -> dict[str, Any]:
    image = to_rgb(example["image"])
    if image.width != image.height:
        raise UnreadableError(
            f"{image.width} x {image.height} pixels are not an aligned face, which is a square "
            "picture: align it first, swin_jax.data.image.alignment.align(picture, landmarks)"
        )
    return resize({**example, "image": image})


@checked
def align(
    image: Any,
    landmarks: Any = None,
    size: PositiveInt = 256,
    transform_size: PositiveInt | None = None,
    conversion: str = "display",
) -> Image.Image:
    """Turns, cuts and resizes a photograph so that the face lies as in FFHQ.

    What lies outside of the photograph is filled with its reflection, blurred.

    Args:
        image: A path, encoded bytes, a PIL image or a uint8 array (H, W, 3).
        landmarks: 5 points (both eyes, the nose, both corners of the mouth) or dlib's 68, (n, 2) in
            pixels (x, y), from left to right as they are seen; a function of the uint8 array
            (H, W, 3) that finds them; the path of a JSON file; or None for the JSON file beside the
            picture, `face.json` for `face.jpg`.
        size: Height and width of the result in pixels.
        transform_size: Height and width of the cut before it is resized; None is `size`. FFHQ
            itself has 4096 for 1024.
        conversion: 'display' or 'reference', see `data.image.picture`;
            landmarks are in pixels of the converted picture.

    Returns:
        A PIL image of mode 'RGB', size x size.

    Raises:
        UserError: Invalid landmarks, another number of them, or those of another picture.
        UnreadableError: A picture that cannot be read.
    """
    if transform_size is not None and transform_size < size:
        raise UserError(f"transform_size={transform_size} must be at least size={size}")
    if isinstance(image, (str, os.PathLike, bytes)):
        opened = to_rgb(picture.decode(image, conversion))
    else:
        opened = to_rgb(
            picture.convert(image, conversion) if isinstance(image, Image.Image) else image
        )
    center, x = _center_and_axis(_landmarks(image, opened, landmarks))
    side = 2 * np.hypot(*x)
    _check_place(center, side, opened.size)
    return _cut_out(opened, _square(center, x), side, size, transform_size or size)


def face_quad(landmarks: Sequence) -> np.ndarray:
    """The square around a face that FFHQ would cut out.

    Args:
        landmarks: The same as in `align`.

    Returns:
        The corners in pixels (x, y), upper left, lower left, lower right and upper right as the
        face stands: (4, 2) float64.

    Raises:
        UserError: Points that are not landmarks of a face.
    """
    return _square(*_center_and_axis(landmarks))


def _square(center: np.ndarray, x: np.ndarray) -> np.ndarray:
    y = np.array([-x[1], x[0]])
    return np.stack([center - x - y, center - x + y, center + x + y, center + x - y])


def _center_and_axis(landmarks: Any) -> tuple[np.ndarray, np.ndarray]:
    """The center of a face's square, and what leads from there to the middle of its right side."""
    points = _checked(landmarks)
    left_eye, right_eye, *mouth = (
        points[list(places)].mean(axis=0) for places in _PLACES[len(points)]
    )
    eyes, across = (left_eye + right_eye) / 2, right_eye - left_eye
    down = (mouth[0] + mouth[1]) / 2 - eyes
    if not across.any() or not down.any():
        raise UserError(
            "these landmarks are not those of a face: its eyes, or eyes and mouth, are in one place"
        )
    if across[0] * down[1] - across[1] * down[0] <= 0:
        raise UserError(
            "these landmarks are mirrored: the points of both eyes and of both "
            "corners of the mouth go from left to right, x before y"
        )
    x = across + [down[1], -down[0]]
    x /= np.hypot(*x)
    x *= max(2 * np.hypot(*across), 1.8 * np.hypot(*down))
    return eyes + 0.1 * down, x


def read_landmarks(path: str | os.PathLike) -> np.ndarray:
    """The landmarks in a JSON file, [[x, y], ...] or the same under 'landmarks';
    UserError for anything else.
    """
    try:
        found = text_files.parse_json(text_files.read(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    try:
        return _checked(
            found["landmarks"] if isinstance(found, dict) and "landmarks" in found else found
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _landmarks(image: Any, opened: Image.Image, given: Any) -> Sequence:
    if callable(given):
        return given(np.asarray(opened))
    if given is None:
        if not isinstance(image, (str, os.PathLike)):
            raise UserError(
                "give the landmarks of this face: 5 or 68 points, or a function that finds them"
            )
        given = Path(image).with_suffix(".json")
        if not given.exists():
            raise UserError(
                f"{image} needs landmarks to be aligned: 5 or 68 points [x, "
                f"y] in {given}, or a function"
            )
    return read_landmarks(given) if isinstance(given, (str, os.PathLike)) else given


def _checked(landmarks: Any) -> np.ndarray:
    try:
        points = np.asarray(landmarks, np.float64)
    except (ValueError, TypeError):
        points = np.zeros(0)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) not in _PLACES:
        shape = f"of shape {points.shape}" if points.size else "not numbers"
        raise UserError(
            f"landmarks are {shape}: 5 or 68 points (x, y) are needed, as dlib or MTCNN find them"
        )
    if not np.isfinite(points).all():
        raise UserError("landmarks are not finite: points of the face were not found")
    return points


def _check_place(center: np.ndarray, side: float, size: tuple[int, int]) -> None:
    """Raises UserError for a face that is not in a picture of this width and height."""
    x, y = center
    if side < _SMALLEST:
        raise UserError(
            f"the face is {side:.2g} pixels wide: landmarks are in pixels of "
            "the picture, not shares of it"
        )
    if not (0 <= x < size[0] and 0 <= y < size[1]) or side > _LARGEST * max(size):
        raise UserError(
            f"the face around ({x:.0f}, {y:.0f}), {side:.0f} pixels wide, is not in this picture "
            f"of {size[0]} x {size[1]}: are the landmarks those of this picture, at this size?"
        )


def _cut_out(
    image: Image.Image, quad: np.ndarray, side: float, size: int, transform_size: int
) -> Image.Image:
    shrink = int(side / size * 0.5)
    if shrink > 1:
        small = tuple(max(round(length / shrink), 1) for length in image.size)
        image, quad, side = (
            image.resize(small, Image.Resampling.LANCZOS),
            quad / shrink,
            side / shrink,
        )
    border = max(round(side * 0.1), 3)
    low, high = _box(quad)
    low, high = np.maximum(low - border, 0), np.minimum(high + border, image.size)
    image, quad = image.crop((*low.tolist(), *high.tolist())), quad - low
    low, high = _box(quad)
    # Before and after, of columns and rows.
    pads = np.maximum([-low + border, high - image.size + border], 0)
    if pads.max() > border - 4:
        pads = np.maximum(pads, round(side * 0.3))
        image, quad = _padded(image, pads, side * 0.02), quad + pads[0]
    corners = tuple((quad + 0.5).flatten().tolist())
    image = image.transform(
        (transform_size, transform_size), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR
    )
    return image if size == transform_size else image.resize((size, size), Image.Resampling.LANCZOS)


def _box(quad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integer bounds of a quad: (x, y) of its upper left and lower right."""
    return np.floor(quad.min(axis=0)).astype(int), np.ceil(quad.max(axis=0)).astype(int)


def _padded(image: Image.Image, pads: np.ndarray, blur: float) -> Image.Image:
    """Pads with the reflection, blurred more the farther out it is,
    toward the median color at the very edge.
    """
    from scipy import ndimage

    (left, top), (right, bottom) = pads.tolist()
    pixels = np.pad(
        np.asarray(image, np.float32), ((top, bottom), (left, right), (0, 0)), "reflect"
    )
    height, width = pixels.shape[:2]
    y, x = np.ogrid[:height, :width]
    across = np.minimum(np.float32(x) / left, np.float32(width - 1 - x) / right)
    down = np.minimum(np.float32(y) / top, np.float32(height - 1 - y) / bottom)
    outside = np.maximum(1 - across, 1 - down)[..., None]
    blurred = ndimage.gaussian_filter(pixels, (blur, blur, 0))
    pixels += (blurred - pixels) * np.clip(3 * outside + 1, 0, 1)
    pixels += (np.median(pixels, axis=(0, 1)) - pixels) * np.clip(outside, 0, 1)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
