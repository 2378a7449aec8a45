"""Clips for video models: which frames (`frame_indices`), at what size, which crops;
uint8 out, normalization happens on the device.

Paper: Video Swin Transformer (arXiv 2106.13230). Reference: the official repository's pipelines
(mmaction 0.15), index by index and pixel by pixel. An example comes in as `video`, a Video such as
decode.Reader, and leaves as an array.

Resizing is OpenCV's INTER_LINEAR on uint8, half-pixel centers and no antialiasing, as in the
original. PIL's bilinear, which antialiases, differs by up to 21 gray levels.
"""

import functools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from swin_jax.core.errors import UserError, extra
from swin_jax.core.ranges import (
    Fraction,
    NonNegativeInt,
    PositiveInt,
    PositiveInterval,
    Shares,
    checked,
)
from swin_jax.core.sizes import Size, per_axis
from swin_jax.data.image.picture import check_resized
from swin_jax.data.video import frame_indices
from swin_jax.data.video.decode import Reader
from swin_jax.data.video.randaugment import Magnitude, VideoRandAugment

MAX_RESIZED_PIXELS = 2**24  # of a frame; a clip has dozens
SAMPLINGS = ("dense", "uniform")
_CROP_TRIES = 10


class Video(Protocol):
    """Frames that can be asked for by number."""

    def __len__(self) -> int: ...

    def get(self, indices: Sequence[int] | np.ndarray) -> np.ndarray: ...  # uint8 (n, H, W, 3)


@checked
def video_train_transform(
    size: Size = 224,
    length: PositiveInt = 32,
    stride: PositiveInt = 2,
    sampling: str = "dense",
    short_side: PositiveInt = 256,
    scale: Shares = (0.08, 1.0),
    ratio: PositiveInterval = (3 / 4, 4 / 3),
    hflip: Fraction = 0.5,
    randaugment_ops: NonNegativeInt = 0,
    randaugment_magnitude: Magnitude = 7,
    hidden_flip: bool = True,
    hidden_crop: bool = True,
) -> Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]:
    """One random clip: resize of the short side, random resized crop, flip, RandAugment,
    each the same for all frames.

    Kinetics: the defaults. Something-Something V2: sampling='uniform', hflip=0, randaugment_ops=4.

    Args:
        size: (H, W) of the result in pixels, or one int for both.
        length: Frames of a clip.
        stride: Distance of the frames that are taken, for 'dense'.
        sampling: 'dense' takes `length` frames from a random start on; 'uniform' one of each of
            `length` equal segments.
        short_side: Size to which the short side is resized first, in pixels.
        scale: Range of the crop's share of the area.
        ratio: Range of the crop's width / height.
        hflip: Probability of a flip, beside that of RandAugment.
        randaugment_ops: Operations of RandAugment; 0 for none, nor the hidden flip and crop.
        randaugment_magnitude: Magnitude of RandAugment's operations, 0 to 30.
        hidden_flip: The same as in `VideoRandAugment`.
        hidden_crop: The same as in `VideoRandAugment`.

    Returns:
        transform(example, rng): replaces `video` (a Video) by uint8 (length, H, W, 3). Raises
        UserError for an unknown sampling, sizes that are not whole numbers from 1 on, and invalid
        ranges; transform raises what the Video raises, UnreadableError where it cannot be
        decoded.
    """
    _check(sampling, size=size, length=length, stride=stride, short_side=short_side)
    augment = None
    if randaugment_ops:
        augment = VideoRandAugment(randaugment_ops, randaugment_magnitude, hidden_flip, hidden_crop)
    return functools.partial(
        _train,
        size=per_axis(size, 2),
        clip=dict(length=length, stride=stride, sampling=sampling),
        short_side=short_side,
        scale=tuple(scale),
        ratio=tuple(ratio),
        hflip=hflip,
        augment=augment,
    )


@checked
def video_eval_transform(
    size: Size = 224,
    length: PositiveInt = 32,
    stride: PositiveInt = 2,
    sampling: str = "dense",
    short_side: PositiveInt = 256,
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """One view: the middle clip, the short side resized, the center cropped.

    A frame that does not hold the view then, which is possible unless that is square,
    is resized to hold it.

    Args:
        size, length, stride, sampling, short_side: The same as in `video_train_transform`.

    Returns:
        transform(example): replaces `video` (a Video) by uint8 (length, H, W, 3). Raises as
        video_train_transform, and UserError for a short side less than `size`.
    """
    _check(sampling, size=size, length=length, stride=stride, short_side=short_side)
    _check_short_side(short_side, size)
    clip = dict(length=length, stride=stride, sampling=sampling, clips=1)
    return functools.partial(_eval, size=per_axis(size, 2), clip=clip, short_side=short_side)


@checked
def video_views_transform(
    clips: PositiveInt = 4,
    crops: PositiveInt = 3,
    size: Size = 224,
    length: PositiveInt = 32,
    stride: PositiveInt = 2,
    sampling: str = "dense",
    short_side: NonNegativeInt = 0,
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """All views of the test protocol: Kinetics 4 x 3,
    Something-Something V2 1 x 3 with sampling='uniform'.

    Args:
        clips: V_t, evenly spread over the video.
        crops: V_s, along the long side; see crop_offsets.
        size: (H, W) of a view in pixels, or one int for both.
        length, stride, sampling: The same as in `video_train_transform`.
        short_side: Size to which the short side is resized, in pixels; 0 for that of `size`, as in
              the protocol.

    Returns:
        transform(example): replaces `video` (a Video) by uint8 (crops * clips, length, H, W, 3),
        views of one crop beside each other. Raises as video_train_transform, and UserError for a
        short side less than `size`.
    """
    _check(sampling, clips=clips, crops=crops, size=size, length=length, stride=stride)
    short_side = short_side or min(per_axis(size, 2))
    _check(sampling, size=size, short_side=short_side)
    if sampling == "uniform" and clips != 1:
        raise UserError(
            f"uniform sampling covers the whole video with one clip: clips must be 1, not {clips}"
        )
    _check_short_side(short_side, size)
    # Plain values only: their text tells a test that was stopped, and resumes in another process,
    # what its views are.
    clip = dict(length=length, stride=stride, sampling=sampling, clips=clips)
    return functools.partial(
        _views, size=per_axis(size, 2), clip=clip, short_side=short_side, crops=crops
    )


def resize_short_side(frame: np.ndarray, short_side: int) -> np.ndarray:
    """Resizes a frame uint8 (H, W, 3) bilinearly so that its short side is `short_side`;
    keeps the aspect.
    """
    height, width = frame.shape[:2]
    factor = short_side / min(height, width)
    return resize(frame, int(height * factor + 0.5), int(width * factor + 0.5))


def resize_to_hold(frame: np.ndarray, short_side: int, size: tuple[int, int]) -> np.ndarray:
    """`resize_short_side`, to a larger one where the frame would not hold `size` (H, W)."""
    least = min(frame.shape[:2])
    needed = max(math.ceil(least * part / side) for part, side in zip(size, frame.shape[:2]))
    return resize_short_side(frame, max(short_side, needed))


def resize(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes a frame uint8 (H, W, 3) to (height, width, 3) as cv2.INTER_LINEAR does,
    without antialiasing.

    Raises UnreadableError for more than MAX_RESIZED_PIXELS.
    """
    if frame.shape[:2] == (height, width):
        return frame
    check_resized(width, height, MAX_RESIZED_PIXELS)
    return _cv2().resize(frame, (width, height), interpolation=_cv2().INTER_LINEAR)


def crop_offsets(long_side: int, size: int, crops: int) -> list[int]:
    """The starts of crops along the long side.

    Args:
        long_side: Length of the long side in pixels.
        size: Side of a crop in pixels.
        crops: 1 for the center; 3 for left, right and middle in the order of the protocol, where
            with odd slack the right crop ends a pixel before the edge; others evenly from edge to
            edge (the paper's 5 are not published).

    Returns:
        `crops` offsets in pixels.
    """
    slack = long_side - size
    if crops == 1:
        return [slack // 2]
    if crops == 3:
        return [0, 2 * (slack // 2), slack // 2]
    return [slack * crop // (crops - 1) for crop in range(crops)]


def random_crop_box(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """Draws the box of a random resized crop; after ten misses the centered square
    of the short side.

    Args:
        height: Height of the frame in pixels.
        width: Width of the frame in pixels.
        scale: Range of the box's share of the area.
        ratio: Range of the box's width / height, drawn log-uniformly.
        rng: Generator of the draws.

    Returns:
        (top, left, height, width) in pixels, inside the frame.
    """
    areas = height * width * rng.uniform(*scale, size=_CROP_TRIES)
    aspects = np.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1]), size=_CROP_TRIES))
    for w, h in zip(
        np.round(np.sqrt(areas * aspects)).astype(int),
        np.round(np.sqrt(areas / aspects)).astype(int),
    ):
        if 0 < w <= width and 0 < h <= height:
            return (
                int(rng.integers(height - h + 1)),
                int(rng.integers(width - w + 1)),
                int(h),
                int(w),
            )
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def _train(example, rng, *, size, clip, short_side, scale, ratio, hflip, augment):
    chosen = _train_indices(len(example["video"]), rng, **clip)[0]
    frames, rows = _read(
        example["video"], chosen, functools.partial(resize_short_side, short_side=short_side)
    )
    top, left, height, width = random_crop_box(*frames.shape[1:3], scale, ratio, rng)
    frames = frames[:, top : top + height, left : left + width]
    pixels = np.stack([resize(frame, *size) for frame in frames])[rows]
    if rng.random() < hflip:
        pixels = pixels[:, :, ::-1]
    if augment is not None:
        pixels = augment(pixels, rng)
    return {**example, "video": np.ascontiguousarray(pixels)}


def _eval(example, *, size, clip, short_side):
    fit = functools.partial(resize_to_hold, short_side=short_side, size=size)
    frames, rows = _read(example["video"], _eval_indices(len(example["video"]), **clip)[0], fit)
    height, width = size
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    return {**example, "video": frames[rows, top : top + height, left : left + width]}


def _views(example, *, size, clip, short_side, crops):
    chosen = _eval_indices(len(example["video"]), **clip)
    fit = functools.partial(resize_to_hold, short_side=short_side, size=size)
    frames, rows = _read(example["video"], chosen.reshape(-1), fit)
    height, width = size
    slack = frames.shape[1] - height, frames.shape[2] - width
    tops = crop_offsets(frames.shape[1], height, crops if slack[0] > slack[1] else 1)
    lefts = crop_offsets(frames.shape[2], width, crops if slack[0] <= slack[1] else 1)
    tops, lefts = np.broadcast_arrays(tops, lefts)
    views = np.stack(
        [frames[:, top : top + height, left : left + width] for top, left in zip(tops, lefts)]
    )
    return {**example, "video": views[:, rows].reshape(-1, chosen.shape[1], height, width, 3)}


def _read(
    video: Video, indices: np.ndarray, fit: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The different frames among `indices`, resized by `fit`,
    and for each index its row of them.
    """
    unique, rows = np.unique(indices, return_inverse=True)
    if isinstance(video, Reader):
        with video:
            return video.get(unique, fit), rows
    return np.stack([fit(frame) for frame in video.get(unique)]), rows


def _train_indices(num_frames, rng, *, length, stride, sampling):
    if sampling == "uniform":
        return frame_indices.uniform_train_indices(num_frames, rng, length)
    return frame_indices.dense_train_indices(num_frames, rng, length, stride)


def _eval_indices(num_frames, *, length, stride, sampling, clips):
    if sampling == "uniform":
        return frame_indices.uniform_test_indices(num_frames, length)
    return frame_indices.dense_test_indices(num_frames, length, stride, clips)


def _check(sampling: str, size: Size, **counts: int) -> None:
    if sampling not in SAMPLINGS:
        raise UserError(f"sampling {sampling!r} is not known: use one of {', '.join(SAMPLINGS)}")
    sides = [
        ("size", side)
        for side in (per_axis(size, 2) if isinstance(size, (tuple, list)) else [size])
    ]
    for name, value in (*sides, *counts.items()):
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
            what = "length (the frames of a clip)" if name == "length" else name
            raise UserError(f"{what} must be a whole number of at least 1, not {value!r}")


def _check_short_side(short_side: int, size: Size) -> None:
    if short_side < min(per_axis(size, 2)):
        raise UserError(f"short_side must be at least the size of a view, {size}, not {short_side}")


@functools.cache
def _cv2():
    """OpenCV, in one thread: loader processes and threads are the parallelism."""
    with extra("video", "frames are resized with OpenCV"):
        import cv2
    cv2.setNumThreads(0)
    return cv2
