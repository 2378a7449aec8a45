"""Labels of an image at its original size from the logits of a segmenter, strip by strip.

As published, logits are resized twice, to the network's input and then to the original image, and
those of overlapping windows are averaged in between. All of it is NumPy on the host: no program is
compiled for a size, and no array of all classes at all pixels is made. Reference:
`EncoderDecoder` of Swin-Transformer-Semantic-Segmentation.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from swin_jax.core.ranges import PositiveFloat, RangeError, checked
from swin_jax.core.sizes import Size, per_axis

MODES = ("whole", "slide")
# Ratios of the published results at several scales, which are mirrored too.
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
_STRIP_BYTES = 2**25

Box = tuple[int, int, int, int]


@checked
@dataclasses.dataclass(frozen=True)
class Method:
    """The passes over an image whose results make its labels.

    Attributes:
        mode: 'whole' for one pass over the resized image, as the published results; 'slide' for
            one over each of overlapping windows, whose logits are averaged.
        crop: Height and width of a window in pixels.
        stride: Pixels from one window to the next; the last one is moved back into the image.
        ratios: Factors on the size to which an image is resized; the probabilities of all of them
            are averaged. `SCALES` are the published ones.
        flip: True for a mirrored pass at every ratio as well.
    """

    mode: str = "whole"
    crop: Size = 512
    stride: Size = 341
    ratios: tuple[PositiveFloat, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self):
        if self.mode not in MODES:
            raise RangeError("mode", f"={self.mode!r} is not one of {MODES}")
        if not self.ratios:
            raise RangeError("ratios", "=() are no passes: give (1.0,) for one")
        crop, stride = per_axis(self.crop, 2), per_axis(self.stride, 2)
        if any(step > side for step, side in zip(stride, crop)):
            raise RangeError(
                "stride", f"={self.stride} leaves pixels between windows of {self.crop}"
            )

    def boxes(self, size: tuple[int, int]) -> list[Box]:
        """The windows (top, left, bottom, right) over an image of (H, W), in reading order.

        An image that is smaller than a window is one window, as large as the image.
        """
        if self.mode == "whole":
            return [(0, 0, *size)]
        return windows(size, per_axis(self.crop, 2), per_axis(self.stride, 2))


WHOLE = Method()


def windows(size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]) -> list[Box]:
    """The windows (top, left, bottom, right) that cover an image, in reading order."""
    spans = []
    for side, length, step in zip(size, crop, stride):
        count = max(side - length + step - 1, 0) // step + 1
        ends = [min(i * step + length, side) for i in range(count)]
        spans.append([(max(end - length, 0), end) for end in ends])
    return [(top, left, bottom, right) for top, bottom in spans[0] for left, right in spans[1]]


@dataclasses.dataclass(frozen=True)
class View:
    """The result of one pass.

    Attributes:
        size: (h, w) of the image that the network has seen, in pixels.
        boxes: The windows in it.
        logits: float32 (h', w', K) of each window, coarser than the window.
        mirrored: True if the image was mirrored.
    """

    size: tuple[int, int]
    boxes: Sequence[Box]
    logits: Sequence[np.ndarray]
    mirrored: bool = False

    def rows(self, size: tuple[int, int], start: int, stop: int) -> np.ndarray:
        """Logits of some rows of the original image.

        Args:
            size: (H, W) of the original image.
            start, stop: The first row, and the one behind the last.

        Returns:
            float32 (stop - start, W, K), mirrored back.
        """
        if size[0] == self.size[0]:
            found = self._seen(start, stop)
        else:
            above, below, down = _neighbors(self.size[0], size[0], start, stop)
            first = above[0]
            found = self._seen(first, below[-1] + 1)
            found = _blend(found, above - first, below - first, down, axis=0)
        if size[1] != self.size[1]:
            found = _blend(found, *_neighbors(self.size[1], size[1], 0, size[1]), axis=1)
        return found[:, ::-1] if self.mirrored else found

    def _seen(self, start: int, stop: int) -> np.ndarray:
        """Mean logits of all windows in some rows of the image that the network has seen."""
        if len(self.boxes) == 1:
            return _enlarged(self.logits[0], self.size, start, stop)
        found = np.zeros((stop - start, self.size[1], self.logits[0].shape[-1]), np.float32)
        passes = np.zeros((*found.shape[:2], 1), np.float32)
        for (top, left, bottom, right), logits in zip(self.boxes, self.logits):
            first, last = max(start, top), min(stop, bottom)
            if first < last:
                place = slice(first - start, last - start), slice(left, right)
                within = (bottom - top, right - left)
                found[place] += _enlarged(logits, within, first - top, last - top)
                passes[place] += 1
        found /= passes
        return found


def view(
    predict: Callable[[np.ndarray], Any], image: np.ndarray, method: Method, mirrored: bool = False
) -> View:
    """Runs a network over an image.

    Args:
        predict: (1, h, w, C) -> logits (1, h', w', K) of any floating type.
        image: (H, W, C), as the network takes it.
        method: The windows; ratios and mirroring are the caller's.
        mirrored: True to mirror the image.
    """
    found, parts = cut(image, method, mirrored)
    found.logits[:] = [np.asarray(predict(part[None])[0], np.float32) for part in parts]
    return found


def cut(image: np.ndarray, method: Method, mirrored: bool = False) -> tuple[View, list[np.ndarray]]:
    """The windows of an image.

    Args:
        image: (H, W, C).
        method: The windows; ratios and mirroring are the caller's.
        mirrored: True to mirror the image.

    Returns:
        A view of the image whose logits are None, one for each window, and the windows, (h, w, C).
    """
    image = image[:, ::-1] if mirrored else image
    boxes = method.boxes(image.shape[:2])
    parts = [image[top:bottom, left:right] for top, left, bottom, right in boxes]
    return View(image.shape[:2], boxes, [None] * len(boxes), mirrored), parts


def labels(views: Sequence[View], size: tuple[int, int]) -> np.ndarray:
    """The most probable class of every pixel.

    Args:
        views: Passes over one image; with several, their probabilities are averaged.
        size: (H, W) of the original image.

    Returns:
        uint8 (H, W), or int32 where there are more than 256 classes.
    """
    classes = views[0].logits[0].shape[-1]
    found = np.empty(size, np.uint8 if classes <= 256 else np.int32)
    step = max(_STRIP_BYTES // (4 * classes * size[1]), 1)
    for start in range(0, size[0], step):
        stop = min(start + step, size[0])
        if len(views) == 1:
            scores = views[0].rows(size, start, stop)
        else:
            scores = probabilities(views, size, start, stop)
        found[start:stop] = scores.argmax(axis=-1)
    return found


def probabilities(
    views: Sequence[View], size: tuple[int, int], start: int = 0, stop: int | None = None
) -> np.ndarray:
    """Mean class probabilities of some rows of an image, all of them by default.

    Args:
        views: Passes over the image.
        size: (H, W) of the original image.
        start, stop: The first row, and the one behind the last.

    Returns:
        float32 (rows, W, K).
    """
    stop = size[0] if stop is None else stop
    total = 0
    for one in views:
        scores = one.rows(size, start, stop)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        total = total + scores
    return total / np.float32(len(views))


def _enlarged(logits: np.ndarray, size: tuple[int, int], start: int, stop: int) -> np.ndarray:
    """Some rows of logits (h', w', K) that are resized to `size`."""
    height, width = logits.shape[:2]
    found = _blend(logits, *_neighbors(height, size[0], start, stop), axis=0)
    return _blend(found, *_neighbors(width, size[1], 0, size[1]), axis=1)


def _neighbors(
    before: int, after: int, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(the places on both sides of each place of the result, the weight of the second)."""
    at = np.clip((np.arange(start, stop) + 0.5) * before / after - 0.5, 0, before - 1)
    first = np.floor(at).astype(np.int64)
    return first, np.minimum(first + 1, before - 1), np.float32(at - first)


def _blend(
    x: np.ndarray, first: np.ndarray, second: np.ndarray, share: np.ndarray, axis: int
) -> np.ndarray:
    """x[first] + share (x[second] - x[first]) along an axis of (H, W, K)."""
    found = np.take(x, first, axis=axis)
    added = np.take(x, second, axis=axis)
    added -= found
    added *= share.reshape((-1,) + (1,) * (2 - axis))
    found += added
    return found
