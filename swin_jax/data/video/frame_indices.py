"""The frames of a video that a clip takes, by number.

Paper: Video Swin Transformer (arXiv 2106.13230). Reference: the official repository's pipelines
(mmaction 0.15), index by index. Frames are counted, never timed: there is no resampling to a common
frame rate. A video that is shorter than the clip starts again (frame number modulo length).
"""

import numpy as np


def dense_train_indices(
    num_frames: int, rng: np.random.Generator, length: int = 32, stride: int = 2, clips: int = 1
) -> np.ndarray:
    """Draws clips of evenly spaced frames.

    Args:
        num_frames: Number of frames of the video.
        rng: Generator that draws the starts of the clips.
        length: Frames of a clip.
        stride: Distance of the frames that are taken.
        clips: Number of clips; each starts in its own part of the video where that is long enough.

    Returns:
        int64 (clips, length), modulo num_frames.
    """
    # Counts the last stride, too: the last frame taken is start + span - stride.
    span = length * stride
    starts = num_frames - span + 1
    part = starts // clips
    if part > 0:
        first = part * np.arange(clips) + rng.integers(part, size=clips)
    elif num_frames > max(clips, span):
        first = np.sort(rng.integers(starts, size=clips))
    elif part == 0:
        first = np.round(np.arange(clips) * (starts / clips)).astype(np.int64)
    else:
        first = np.zeros(clips, np.int64)
    return (first[:, None] + stride * np.arange(length)[None]) % num_frames


def dense_test_indices(
    num_frames: int, length: int = 32, stride: int = 2, clips: int = 1
) -> np.ndarray:
    """Clips in the middle of equal parts of the video;
    arguments and result as for dense_train_indices.
    """
    starts = num_frames - length * stride + 1
    first = np.zeros(clips, np.int64)
    if starts > 0:
        part = starts / clips
        first = np.floor(np.arange(clips) * part + part / 2).astype(np.int64)
    return (first[:, None] + stride * np.arange(length)[None]) % num_frames


def uniform_train_indices(
    num_frames: int, rng: np.random.Generator, length: int = 32
) -> np.ndarray:
    """Draws one frame of each of `length` segments, both ends included (SlowFast's rule);
    int64 (1, length).
    """
    low, high = _segments(num_frames, length)
    return rng.integers(low, high, endpoint=True)[None]


def uniform_test_indices(num_frames: int, length: int = 32) -> np.ndarray:
    """The middle frame of each of `length` segments, rounded down; int64 (1, length)."""
    low, high = _segments(num_frames, length)
    return ((low + high) // 2)[None]


def _segments(num_frames: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last frame of equal segments; halves are rounded to even."""
    bounds = np.round((num_frames - 1) / length * np.arange(length + 1)).astype(np.int64)
    return bounds[:-1], bounds[1:]
