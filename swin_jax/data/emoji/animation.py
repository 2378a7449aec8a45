"""Cuts clips from transparent animations, with random start, speed, place and background that are
the same for all frames of a clip.

Animations loop: after the last frame a clip continues with the first.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from swin_jax.core.ranges import (
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveInterval,
    Rate,
    Seed,
    checked,
)


@dataclasses.dataclass(frozen=True)
class Frames:
    """An animation in memory.

    Attributes:
        pixels: uint8 (N, H, W, 4), RGB not multiplied by alpha; or (N, H, W, 3) without
            transparency.
    """

    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def get(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The frames with the given numbers, (n, H, W, C)."""
        return self.pixels[np.asarray(indices)]

    def reversed(self) -> "Frames":
        """The same frames, the last one first."""
        return Frames(self.pixels[::-1])


@checked
def action_train_transform(
    size: PositiveInt = 64,
    num_frames: PositiveInt = 16,
    frame_interval: PositiveFloat = 4.0,
    speed: PositiveInterval = (0.7, 1.5),
    scale: PositiveInterval = (0.8, 1.2),
    stretch: Rate = 0.1,
    overhang: Rate = 0.1,
    hflip: Fraction = 0.5,
    recolor: Fraction = 0.0,
    single_frame: bool = False,
) -> Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]:
    """Makes the transform that cuts training clips from animations.

    Args:
        size: Height and width of the result in pixels.
        num_frames: T, the number of frames of a clip.
        frame_interval: Distance between chosen frames at speed 1;
            the start is uniform over the animation.
        speed: Range of the factor on frame_interval.
        scale: Range of the side of the scaled animation, relative to `size`;
            uniform in the logarithm.
        stretch: Largest relative change of the ratio of width to height, in both directions.
        overhang: Share of the animation's side that may lie outside the result.
        hflip: Probability of a horizontal flip, which must not change the label.
        recolor: Probability of new colors for the figure:
            powers of its channels, permuted and mixed.
        single_frame: True to repeat the first frame T times, as a control without motion.

    Returns:
        transform(example, rng): `video` (Frames, or anything with len and get) becomes uint8
        (T, size, size, 3) over a random background, `label` is kept, other features are dropped.
        Raises UserError for impossible arguments.
    """
    options = _Options(
        size, num_frames, frame_interval, speed, scale, stretch, overhang, single_frame
    )
    return functools.partial(_train, options=options, hflip=hflip, recolor=recolor)


@checked
def action_eval_transform(
    size: PositiveInt = 64,
    num_frames: PositiveInt = 16,
    frame_interval: PositiveFloat = 4.0,
    speed: PositiveInterval = (0.7, 1.5),
    scale: PositiveInterval = (0.8, 1.2),
    stretch: Rate = 0.1,
    overhang: Rate = 0.1,
    single_frame: bool = False,
    views: NonNegativeInt = 0,
    seed: Seed = 0,
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Makes the transform that cuts test clips, with the random choices of training except for
    flips and colors, which depend only on the record and the seed.

    Args:
        size, num_frames, frame_interval, speed, scale, stretch, overhang, single_frame:
            The same as in action_train_transform.
        views: V, the number of clips of a record, which differ only in their evenly spaced starts;
            0 for one clip without the axis of views.
        seed: Seed of the random choices, together with the example's `record`.

    Returns:
        transform(example): `video` becomes uint8 (V, T, size, size, 3), or (T, size, size, 3);
        `label` is kept.
    """
    options = _Options(
        size, num_frames, frame_interval, speed, scale, stretch, overhang, single_frame
    )
    return functools.partial(_eval, options=options, views=views, seed=seed)


def random_background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws a plain color, a gradient of two, or smooth noise: uint8 (size, size, 3)."""
    colors = rng.integers(0, 256, (2, 3)).astype(np.float64)
    kind = rng.integers(3)
    if kind == 0:
        return np.broadcast_to(colors[0], (size, size, 3)).astype(np.uint8)
    if kind == 1:
        angle = rng.uniform(0, 2 * math.pi)
        y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
        position = (x * math.cos(angle) + y * math.sin(angle)) / (
            abs(math.cos(angle)) + abs(math.sin(angle))
        ) + 0.5
        return np.round(colors[0] + position[..., None] * (colors[1] - colors[0])).astype(np.uint8)
    from PIL import Image

    cells = int(rng.integers(2, 9))
    noise = colors[0] + rng.uniform(0.2, 1.0) * (rng.uniform(0, 256, (cells, cells, 3)) - colors[0])
    picture = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))


@dataclasses.dataclass(frozen=True)
class _Options:
    """The settings that training and evaluation share; see action_train_transform."""

    size: int
    num_frames: int
    frame_interval: float
    speed: tuple[float, float]
    scale: tuple[float, float]
    stretch: float
    overhang: float
    single_frame: bool


def _train(example, rng, *, options: _Options, hflip: float, recolor: float) -> dict[str, Any]:
    colors = _random_colors(rng) if recolor and rng.random() < recolor else None
    video = _clips(example["video"], rng, options, views=1, colors=colors)[0]
    if rng.random() < hflip:
        video = video[:, :, ::-1]
    return {"video": np.ascontiguousarray(video), "label": example["label"]}


def _eval(example, *, options: _Options, views: int, seed: int) -> dict[str, Any]:
    clips = _clips(
        example["video"], np.random.default_rng((seed, example["record"])), options, max(views, 1)
    )
    return {"video": clips if views else clips[0], "label": example["label"]}


def _random_colors(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Draws a map of colors, uint8 (..., 3) -> uint8 (..., 3), which keeps edges in place."""
    # Each row makes a new channel.
    mixture = rng.permutation(np.eye(3)) * 0.7 + rng.dirichlet(np.ones(3), size=3) * 0.3
    powers = 2.0 ** rng.uniform(-1, 1, (3, 1))
    curves = np.round(255 * np.linspace(0, 1, 256) ** powers).astype(np.uint8)

    def recolor(pixels: np.ndarray) -> np.ndarray:
        mixed = (pixels @ mixture.T.astype(np.float32)).astype(np.uint8)
        return np.stack(
            [curve[mixed[..., channel]] for channel, curve in enumerate(curves)], axis=-1
        )

    return recolor


def _clips(
    video, rng: np.random.Generator, options: _Options, views: int, colors=None
) -> np.ndarray:
    """Clips with the same random choices, uint8 (views, T, size, size, 3); `colors` recolors the
    figure.
    """
    length = len(video)
    start = rng.uniform(0, length)
    interval = 0.0 if options.single_frame else options.frame_interval
    steps = interval * rng.uniform(*options.speed) * np.arange(options.num_frames)
    starts = start + np.arange(views) * (length / views)
    indices = np.floor(starts[:, None] + steps).astype(int) % length  # (views, T)
    # A frame that occurs several times is processed once.
    chosen, inverse = np.unique(indices, return_inverse=True)
    frames = video.get(chosen)
    if frames.shape[-1] == 3:
        frames = np.pad(frames, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=255)
    placed = _place(frames, rng, options)
    if colors is not None:
        placed[..., :3] = colors(placed[..., :3])
    background = random_background(options.size, rng)
    return _composite(placed, background)[inverse.reshape(indices.shape)]


def _place(frames: np.ndarray, rng: np.random.Generator, options: _Options) -> np.ndarray:
    """Scales frames (n, H, W, 4) and places them randomly in uint8 (n, size, size, 4)."""
    from PIL import Image

    size = options.size
    side = size * math.exp(rng.uniform(*np.log(options.scale)))
    aspect = math.exp(rng.uniform(-1, 1) * math.log1p(options.stretch) / 2)
    extents = [max(1, round(side / aspect)), max(1, round(side * aspect))]  # height, width
    out = np.zeros((len(frames), size, size, 4), np.uint8)
    targets, parts = [], []
    for extent in extents:
        outside = options.overhang * extent
        offset = round(
            rng.uniform(min(0, size - extent) - outside, max(0, size - extent) + outside)
        )
        begin, end = max(0, offset), min(size, offset + extent)
        targets.append(slice(begin, end))
        parts.append(slice(begin - offset, end - offset))
    # Pillow scales without aliasing and weights colors by alpha.
    for index, frame in enumerate(frames):
        scaled = Image.fromarray(frame).resize(extents[::-1], Image.Resampling.BILINEAR)
        out[index][tuple(targets)] = np.asarray(scaled)[tuple(parts)]
    return out


def _composite(frames: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Composites frames (n, H, W, 4) over a background (H, W, 3), rounded."""
    alpha = frames[..., 3:].astype(np.uint16)
    mixed = frames[..., :3] * alpha + background * (255 - alpha) + 127
    return (mixed // 255).astype(np.uint8)
