"""Composes scenes of emoji on photographs, with the exact mask of each object.

A scene is a crop of a photograph with two to seven emoji of various sizes, rotated, flipped and
partly covering each other, with noise over everything. A random generator decides all of it.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.data import tfds
from swin_jax.data.segmentation.folder import label_folder

NAME, VERSION = "emoji_scenes", "1.0.0"

# Names and code points, in the order of labels 1 to 12; 0 is the background.
CODES = {
    "cat face": "1f431",
    "frog": "1f438",
    "octopus": "1f419",
    "butterfly": "1f98b",
    "red apple": "1f34e",
    "banana": "1f34c",
    "pizza": "1f355",
    "automobile": "1f697",
    "airplane": "2708",
    "umbrella": "2602",
    "guitar": "1f3b8",
    "alarm clock": "23f0",
}
CLASSES = ("background", *CODES)
TRAIN_VENDORS = ("noto", "twemoji", "fluent_flat", "noto_v1", "emojione")
SHIFT_VENDORS = ("openmoji",)
SIDE = 128  # pixels of a scene
SPRITE_SIDE = 96  # pixels that emoji are rendered at

_OPAQUE = 127  # alpha above which a pixel belongs to an emoji
_CROP = (0.35, 1.0)  # of the photograph's shorter side
_PHOTO_BRIGHTNESS = (0.6, 1.1)
_OBJECTS = (2, 7)
_SIZES = (18, 64)  # pixels of an emoji's longer side
_DEGREES = (-25, 25)
_BRIGHTNESS = (0.75, 1.2)
_OUTSIDE = 0.25  # share of its width and height by which an emoji may leave the scene
_NOISE = 4.0
_MIN_VISIBLE = 40  # pixels
_MIN_SHARE = 0.3  # of its pixels inside the scene


@dataclasses.dataclass(frozen=True)
class Split:
    """One part of the data set.

    Attributes:
        seed: Seed of its scenes; scene i is drawn by the generator of (seed, i).
        vendors: Names of the vendors of its emoji.
        right: True if its backgrounds are the right halves of the photographs, else the left ones.
        count: Number of scenes.
    """

    seed: int
    vendors: tuple[str, ...]
    right: bool
    count: int


SPLITS = {
    "train": Split(0, TRAIN_VENDORS, right=False, count=4000),
    "val": Split(1, TRAIN_VENDORS, right=True, count=400),
    "shift": Split(2, SHIFT_VENDORS, right=True, count=400),
}


@dataclasses.dataclass(frozen=True)
class Object:
    """One emoji of a scene that is visible enough to count.

    Attributes:
        label: Class number, 1 to 12.
        mask: Visible pixels, bool (SIDE, SIDE).
    """

    label: int
    mask: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The bounding box of the mask: x, y, width, height in pixels."""
        rows, columns = (np.flatnonzero(self.mask.any(axis)) for axis in (1, 0))
        x, y = int(columns[0]), int(rows[0])
        return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image with its labels and objects.

    Attributes:
        image: uint8 (SIDE, SIDE, 3).
        label: The class of each pixel, uint8 (SIDE, SIDE), including emoji that are not visible
            enough to count as objects.
        objects: The emoji that count, from the back to the front.
    """

    image: np.ndarray
    label: np.ndarray
    objects: tuple[Object, ...]


def emoji_scenes(data_dir: str | None, split: str, in_memory: bool = True) -> Any:
    """Opens the scenes written by `data.builders.emoji_scenes`, with the class of each pixel.

    Args:
        data_dir: Folder of data sets; None for $TFDS_DATA_DIR, or else ~/tensorflow_datasets.
        split: 'train', 'val' or 'shift'.
        in_memory: True to cache decoded images.

    Returns:
        A source of `image` and of `label` uint8 (SIDE, SIDE), see `segmentation.folder`. Raises
        UserError if the data set is missing.
    """
    data_dir = os.path.expanduser(data_dir or tfds.default_data_dir())
    root = os.path.join(data_dir, NAME, VERSION)
    if not os.path.isdir(root):
        raise UserError(
            f"there is no folder {root}; prepare it with: python -m "
            f"swin_jax.data.builders.{NAME} --data_dir={data_dir}"
        )
    return label_folder(root, split, in_memory=in_memory)


def crop_sprite(image: np.ndarray) -> np.ndarray:
    """Crops a drawing, uint8 (H, W, 4), to its opaque part."""
    rows, columns = (np.flatnonzero((image[..., 3] > _OPAQUE).any(axis)) for axis in (1, 0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def compose(
    sprites: Mapping[int, Sequence[np.ndarray]],
    photos: Sequence[np.ndarray],
    rng: np.random.Generator,
) -> Scene:
    """Draws a random scene.

    Args:
        sprites: {label: drawings by several vendors, uint8 (h, w, 4)}.
        photos: Backgrounds, uint8 (H, W, 3).
        rng: Generator that makes all choices.
    """
    canvas = _background(photos[rng.integers(len(photos))], rng)
    labels = sorted(sprites)
    owner = np.full((SIDE, SIDE), -1)  # the number of the frontmost emoji, or -1
    drawn, inside = [], []
    for number in range(rng.integers(_OBJECTS[0], _OBJECTS[1] + 1)):
        label = labels[rng.integers(len(labels))]
        sprite = sprites[label][rng.integers(len(sprites[label]))]
        area, pixels = _place(_vary(sprite, rng), rng)
        alpha = pixels[..., 3:] / 255
        canvas[area] = canvas[area] * (1 - alpha) + pixels[..., :3] * alpha
        opaque = pixels[..., 3] > _OPAQUE
        owner[area][opaque] = number
        drawn.append(label)
        inside.append(int(opaque.sum()))
    noisy = canvas + rng.normal(0, _NOISE, canvas.shape)
    objects = []
    for number, (label, pixels) in enumerate(zip(drawn, inside)):
        mask = owner == number
        if is_object(int(mask.sum()), pixels):
            objects.append(Object(label, mask))
    classes = np.array([*drawn, 0], np.uint8)  # the last one is what -1 picks
    image = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return Scene(image, classes[owner], tuple(objects))


def is_object(visible: int, inside: int) -> bool:
    """True if enough of an emoji's pixels are visible, given those that lie inside the scene."""
    return visible >= max(_MIN_VISIBLE, _MIN_SHARE * inside)


def _background(photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random square of a photograph, resized to float (SIDE, SIDE, 3)."""
    from PIL import Image

    height, width = photo.shape[:2]
    side = int(round(rng.uniform(*_CROP) * min(height, width)))
    y, x = rng.integers(height - side + 1), rng.integers(width - side + 1)
    square = Image.fromarray(photo[y : y + side, x : x + side])
    square = square.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    brightness = rng.uniform(*_PHOTO_BRIGHTNESS)
    return np.clip(np.asarray(square, np.float64) * brightness, 0, 255)


def _vary(sprite: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Changes an emoji's size, orientation and brightness at random: float (h, w, 4)."""
    from PIL import Image

    longer = np.exp(rng.uniform(*np.log(_SIZES)))
    if rng.random() < 0.5:
        sprite = sprite[:, ::-1]
    image = Image.fromarray(np.ascontiguousarray(sprite))
    scale = longer / max(image.size)
    size = [max(1, round(side * scale)) for side in image.size]
    image = image.resize(size, Image.Resampling.BILINEAR)
    image = image.rotate(rng.uniform(*_DEGREES), Image.Resampling.BILINEAR, expand=True)
    pixels = crop_sprite(np.asarray(image)).astype(np.float64)
    pixels[..., :3] = np.minimum(pixels[..., :3] * rng.uniform(*_BRIGHTNESS), 255)
    return pixels


def _place(pixels: np.ndarray, rng: np.random.Generator) -> tuple[tuple[slice, slice], np.ndarray]:
    """Places an emoji at random: returns its area in the scene and its pixels there."""
    area, inside = [], []
    for length in pixels.shape[:2]:
        start = round(rng.uniform(-_OUTSIDE * length, SIDE - (1 - _OUTSIDE) * length))
        area.append(slice(max(start, 0), min(start + length, SIDE)))
        inside.append(slice(area[-1].start - start, area[-1].stop - start))
    return tuple(area), pixels[tuple(inside)]
