"""Reads pictures and videos from files, arrays or images; refuses anything else with a message of
one line.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np

from swin_jax.core import storage
from swin_jax.core.errors import UnreadableError, UserError, warn


def open_picture(image: Any, conversion: str = "display"):
    """Opens one picture, a path, a PIL image or an array, as a PIL image of mode 'RGB'; raises
    UserError for anything else.
    """
    from swin_jax.data.image.transforms import to_rgb

    return to_rgb(_open(image, conversion))


def pictures(
    images: Any,
    transform: Callable[[dict], dict],
    channels: int,
    conversion: str = "display",
    limits: Any = None,
) -> np.ndarray:
    """Transforms one picture or several.

    Args:
        images: A path, a PIL image or a uint8 array (H, W), (H, W, 1) or (H, W, 3), of NumPy or of
            any library whose arrays NumPy reads; a list of them; or a uint8 array (B, H, W, 3).
        transform: {'image': PIL image or array, 'label': int} -> {'image': uint8 (H, W, C)}.
        channels: C; 1 passes gray pictures to the transform.
        conversion: 'reference' or 'display', see data/image/picture.py; arrays are not converted.
        limits: Limits on the files, a `Limits` of that module; None for `Limits()`.

    Returns:
        (B, H, W, C) uint8.

    Raises:
        UserError: There are no pictures, or something is not a picture.
    """
    from swin_jax.data.image.transforms import to_rgb

    if isinstance(images, Set):
        raise UserError("pictures in a set have no order: give a list")
    images = _as_numpy(images)
    several = isinstance(images, Iterable) and not isinstance(images, (str, Path, bytes, Mapping))
    if hasattr(images, "ndim"):
        several = images.ndim > 3
    several = several and not hasattr(images, "convert")
    found = []
    for image in images if several else [images]:
        opened = _open(image, conversion, limits)
        if 0 in (opened.shape if isinstance(opened, np.ndarray) else opened.size):
            raise UserError("a picture without pixels cannot be prepared")
        opened = to_rgb(opened).convert("L") if channels == 1 else opened
        try:
            found.append(transform({"image": opened, "label": 0})["image"])
        except UnreadableError as error:
            raise UserError(
                f"{image if isinstance(image, (str, Path)) else 'the picture'}: {error}"
            ) from error
    if not found:
        raise UserError("preprocess was given no pictures")
    if len({pixels.shape for pixels in found}) > 1:
        raise UserError(
            "pictures that keep their aspect ratio have different sizes and cannot form a batch: "
            "prepare them one at a time, or pass them to swin_jax.inference.segmentation.segment"
        )
    return np.stack(found)


def _as_numpy(value: Any) -> Any:
    """Converts an array of another library, such as JAX or PyTorch, to NumPy; returns anything
    else unchanged.
    """
    if isinstance(value, np.ndarray) or not hasattr(value, "ndim"):
        return value
    try:
        return np.asarray(value)
    except Exception as error:  # on another device, or with gradients: no common class
        if type(error).__name__ == "TracerArrayConversionError":
            message = "pictures and videos are prepared outside of jax.jit and jax.vmap"
            raise UserError(message) from error
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"a {kind} cannot be read as an array of NumPy: {reason}") from error


def _open(image: Any, conversion: str, limits: Any = None):
    """Opens one picture of any accepted form as a PIL image or a uint8 array."""
    from swin_jax.data.image.picture import convert, decode

    if isinstance(image, (str, Path)) and image != "":
        try:
            return decode(storage.expanded(image), conversion, limits)
        except UnreadableError as error:
            raise UserError(f"{image}: not a picture that can be read ({error})") from error
    if hasattr(image, "convert"):
        try:
            return convert(image, conversion)
        except UnreadableError as error:
            raise UserError(f"the picture cannot be read: {error}") from error
    if not hasattr(image, "ndim"):
        raise UserError(
            f"a picture is a file, a PIL image or a uint8 array (H, W, 3), not {shown(image)}"
        )
    image = _as_numpy(image)
    if (
        image.dtype != np.uint8
        or image.ndim not in (2, 3)
        or image.shape[2:] not in ((), (1,), (3,))
    ):
        hint = ""
        if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[-1] not in (1, 3):
            hint = ": channels first? np.moveaxis(picture, 0, -1) puts them last"
        raise UserError(
            "a picture is a uint8 array (H, W), (H, W, 1) or (H, W, 3), "
            f"not {image.dtype} of shape {image.shape}{hint}"
        )
    return image


def shown(value: Any) -> str:
    """The text of a value for a message; only its type if the text has several lines."""
    text = repr(value)
    return f"a {type(value).__name__}" if "\n" in text else text[:100]


def clips(videos: Any, transform: Callable[[dict], dict]) -> np.ndarray:
    """Transforms one video or several.

    Args:
        videos: A path, encoded bytes or a uint8 array (T, H, W, 3); a list of them;
            or a uint8 array (B, T, H, W, 3).
        transform: {'video': an object with `len` and `get`, 'label': int} -> {'video':
            uint8 (..., T, H, W, 3)}.

    Returns:
        (B, T, H, W, 3) uint8, all views of a video one after the other.

    Raises:
        UserError: There are no videos, or something is not a video. A video of one frame, such as
            a picture, causes only a warning.
    """
    if isinstance(videos, Set):
        raise UserError("videos in a set have no order: give a list")
    videos = _as_numpy(videos)
    several = isinstance(videos, Iterable) and not isinstance(
        videos, (str, os.PathLike, bytes, Mapping)
    )
    if hasattr(videos, "ndim"):
        several = videos.ndim > 4
    found = []
    for video in videos if several else [videos]:
        reader, name = (
            _reader(video),
            video if isinstance(video, (str, os.PathLike)) else "the video",
        )
        try:
            if len(reader) == 1:
                warn(f"{name} has only one frame, which is repeated through the whole clip")
            found.append(transform({"video": reader, "label": 0})["video"])
        except UnreadableError as error:
            raise UserError(f"{name}: {error}") from error
    if not found:
        raise UserError("preprocess was given no videos")
    return np.concatenate([clip.reshape(-1, *clip.shape[-4:]) for clip in found])


class _Frames:
    """A video reader for an array of frames (T, H, W, 3)."""

    def __init__(self, frames: np.ndarray):
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def get(self, indices, fit: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
        frames = self.frames[np.asarray(indices)]
        return np.stack([fit(frame) for frame in frames]) if fit else frames


def _reader(video):
    from swin_jax.data.video.decode import Reader

    if isinstance(video, (str, os.PathLike, bytes)) and video:
        return Reader(storage.expanded(video))
    if not hasattr(video, "ndim"):
        raise UserError(f"a video is a file or a uint8 array (T, H, W, 3), not {repr(video)[:100]}")
    video = _as_numpy(video)
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3:
        hint = ""
        if video.ndim == 3:
            hint = ": a single image? np.repeat(image[None], 32, axis=0) shows it 32 times"
        axis = next((axis for axis in (0, 1) if video.ndim == 4 and video.shape[axis] == 3), None)
        if axis is not None and video.shape[-1] != 3:
            hint = f": channels first? np.moveaxis(video, {axis}, -1) puts them last"
        raise UserError(
            "a video is a file or a uint8 array (T, H, W, 3), "
            f"not {video.dtype} of shape {video.shape}{hint}"
        )
    if 0 in video.shape:
        raise UserError(f"a video of shape {video.shape} has no frames or no pixels")
    return _Frames(video)
