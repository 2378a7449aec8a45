"""Synthetic images, videos, captions and segmentation maps that a model can learn, to run
experiments without data.
"""

import dataclasses
from typing import Any

import numpy as np

from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import PositiveInt, Seed, checked
from swin_jax.core.sizes import Size, per_axis

_CELLS = 4  # a class is a pattern of 4 x 4 colored cells
_SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class _Images:
    image_size: int
    num_classes: int
    num_examples: int
    seed: int
    split: str
    channels: int

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(f"class {i}" for i in range(self.num_classes))

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        label = index % self.num_classes
        cells = np.random.default_rng([self.seed, 0, label]).integers(
            32, 224, (_CELLS, _CELLS, self.channels)
        )
        rows = np.arange(self.image_size) * _CELLS // self.image_size
        rng = np.random.default_rng([self.seed, 1 + _SPLITS.index(self.split), index])
        noise = rng.integers(-32, 32, (self.image_size, self.image_size, self.channels))
        return {"image": (cells[rows][:, rows] + noise).astype(np.uint8), "label": label}

    def record_name(self, index: int) -> str:
        return f"fake {self.split} record {index}"


@checked
def images(
    image_size: PositiveInt,
    num_classes: PositiveInt = 10,
    num_examples: PositiveInt = 512,
    seed: Seed = 0,
    split: str = "train",
    channels: PositiveInt = 3,
) -> _Images:
    """Makes a source of noisy images with one colored pattern per class.

    An index gives the same image every time.

    Args:
        image_size: Height and width in pixels.
        num_classes: Number of classes; record i has the label i % num_classes.
        num_examples: Length of the source.
        seed: Seed of patterns and noise.
        split: 'train' or 'test', with the same patterns but different noise.
        channels: Number of image channels.

    Returns:
        A source of `image` uint8 (image_size, image_size,
        channels) and `label`. Raises UserError for any other split.
    """
    if split not in _SPLITS:
        raise UserError(f"fake images have the splits 'train' and 'test', not {split!r}")
    return _Images(image_size, num_classes, num_examples, seed, split, channels)


@dataclasses.dataclass(frozen=True)
class _Pairs:
    images: _Images
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.images[index], **self.record(index)}

    def record(self, index: int) -> dict[str, Any]:
        name = self.images.class_names[index % self.images.num_classes]
        return {
            "text": (f"a picture of {name}", name),
            "name": name,
            "keywords": ("picture", "noise", name),
        }

    def record_name(self, index: int) -> str:
        return self.images.record_name(index)


@checked
def pairs(
    image_size: PositiveInt,
    num_classes: PositiveInt = 10,
    num_examples: PositiveInt = 512,
    seed: Seed = 0,
    split: str = "train",
) -> _Pairs:
    """Makes a source of image-text pairs (see data/image_text/pairs.py) from the same images, with
    two captions each that name the class.

    Args:
        image_size, num_classes, num_examples, seed, split: The same as in `images`.

    Returns:
        A source of `image`, `label`, `text` and, for caption functions, `name` and `keywords`.
    """
    found = images(image_size, num_classes, num_examples, seed, split)
    return _Pairs(found, found.class_names)


@dataclasses.dataclass(frozen=True)
class _Video:
    """Frames in memory, with the interface of the videos of `data.video.decode`."""

    frames: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def get(self, indices) -> np.ndarray:
        return self.frames[indices]


@dataclasses.dataclass(frozen=True)
class _Videos:
    images: _Images
    num_frames: int

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.images.class_names

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        label, still = index % self.images.num_classes, self.images[index]["image"]
        turn = 2 * np.pi * label / self.images.num_classes
        steps = [
            np.round(2 * i * np.array([np.sin(turn), np.cos(turn)])).astype(int)
            for i in range(self.num_frames)
        ]
        frames = np.stack([np.roll(still, step, (0, 1)) for step in steps])
        return {"video": _Video(frames), "label": label}

    def record_name(self, index: int) -> str:
        return f"{self.images.record_name(index)} (video)"


@checked
def videos(
    image_size: PositiveInt,
    num_frames: PositiveInt = 40,
    num_classes: PositiveInt = 10,
    num_examples: PositiveInt = 64,
    seed: Seed = 0,
    split: str = "train",
) -> _Videos:
    """Makes a source of videos in which each image of `images` moves two pixels per frame, in a
    direction that depends on its class.

    Args:
        image_size, num_classes, num_examples, seed, split: The same as in `images`.
        num_frames: Length of every video.

    Returns:
        A source of `video`, with len() and get(indices) -> uint8 (n, image_size, image_size,
        3), and `label`. Raises the same errors as `images`.
    """
    return _Videos(images(image_size, num_classes, num_examples, seed, split), num_frames)


_RECTANGLES = 4  # in a scene, over its background of class 0


@dataclasses.dataclass(frozen=True)
class _Scenes:
    image_size: tuple[int, int]
    num_classes: int
    num_examples: int
    seed: int
    split: str

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(f"class {i}" for i in range(self.num_classes))

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, 1 + _SPLITS.index(self.split), index])
        label = np.zeros(self.image_size, np.uint8)
        # The last rectangle lies on top and belongs to no class.
        for value in (*rng.integers(0, self.num_classes, _RECTANGLES), IGNORED):
            top, left = rng.integers(0, self.image_size)
            height, width = (rng.integers(1, side // 2 + 2) for side in self.image_size)
            label[top : top + height, left : left + width] = value
        palette = np.random.default_rng([self.seed, 0]).integers(32, 224, (IGNORED + 1, 3))
        noise = rng.integers(-32, 32, (*self.image_size, 3))
        return {"image": (palette[label] + noise).astype(np.uint8), "label": label}

    def record_name(self, index: int) -> str:
        return f"fake {self.split} scene {index}"


@checked
def scenes(
    image_size: Size,
    num_classes: PositiveInt = 4,
    num_examples: PositiveInt = 64,
    seed: Seed = 0,
    split: str = "train",
) -> _Scenes:
    """Makes a segmentation source of noisy rectangles, each in the color of its class.

    Args:
        image_size: (H, W) in pixels, or one int for both.
        num_classes: Number of classes, at most 255.
        num_examples: Length of the source.
        seed: Seed of colors, rectangles and noise.
        split: 'train' or 'test', with the same colors but different scenes.

    Returns:
        A source of `image` uint8 (H, W, 3) and `label` uint8 (H, W), the class of each pixel or
        255 where it has none. Raises UserError for any other split and for too many classes.
    """
    if split not in _SPLITS:
        raise UserError(f"fake scenes have the splits 'train' and 'test', not {split!r}")
    if num_classes > IGNORED:
        raise UserError(
            f"labels of one byte distinguish at most {IGNORED} classes, not {num_classes}"
        )
    return _Scenes(per_axis(image_size, 2), num_classes, num_examples, seed, split)
