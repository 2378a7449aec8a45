"""Drawn pictures of three classes that differ in pattern only: a disc, spots, stripes.

Colors, sizes, places and grounds vary within each class.
"""

import pathlib

import numpy as np
from PIL import Image

CLASSES = ("disc", "spots", "stripes")


def draw(rng: np.random.Generator, kind: str) -> Image.Image:
    """A picture of 60 to 120 pixels a side."""
    h, w = rng.integers(60, 121, 2)
    side = min(h, w)
    y, x = np.mgrid[:h, :w].astype(float)
    front, back, other = rng.uniform(0, 255, (3, 3))
    if np.abs(front - back).max() < 100:
        back += np.where(front < 128, 110, -110)
    ground = back + (other - back) * rng.uniform(0, 0.5) * (x / w)[..., None]
    ground += rng.normal(0, rng.uniform(0, 25), (h, w, 3))
    angle = rng.uniform(0, np.pi)
    if kind == "disc":
        r = rng.uniform(0.22, 0.42) * side
        mask = np.hypot(x - rng.uniform(r, w - r), y - rng.uniform(r, h - r)) < r
    else:
        period = side * rng.uniform(0.2, 0.4)
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        u, v = (np.abs((t / period + rng.random()) % 1 - 0.5) for t in (u, v))
        mask = u < 0.25 if kind == "stripes" else np.hypot(u, v) < rng.uniform(0.25, 0.35)
    return Image.fromarray(np.uint8(np.clip(np.where(mask[..., None], front, ground), 0, 255)))


def write(root: pathlib.Path, per_class: int, seed: int) -> None:
    """Draws root/CLASS/000.png and so on."""
    rng = np.random.default_rng(seed)
    for kind in CLASSES:
        folder = pathlib.Path(root) / kind
        folder.mkdir(parents=True)
        for i in range(per_class):
            draw(rng, kind).save(folder / f"{i:03d}.png")
