"""Latents to train on and to edit, as a data source: files of W+ or S, or z that are drawn.

train_faces.pt and test_faces.pt of orpatashnik/StyleCLIP hold 24,176 and 2,824 latents in W+
of faces. Where there are no files, StyleCLIP means to draw 5,000 and 1,000; its code for
that does not run.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import PositiveInt, Seed, checked
from swin_jax.models.stylegan2 import style_space
from swin_jax.pretrained.files.objects import read_object
from swin_jax.pretrained.styleclip.statistics import read_latents, read_styles


@dataclasses.dataclass(frozen=True)
class Latents:
    """A source of records with one array.

    Attributes:
        key: 'latent' or 'styles'.
        rows: float32 (N, ...).
        name: Name for messages.
    """

    key: str
    rows: np.ndarray
    name: str
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {self.key: self.rows[index]}

    def record_name(self, index: int) -> str:
        """The source of a latent, for messages."""
        return f"{self.name} {index}"


@checked
def latents(
    path: str,
    resolution: PositiveInt,
    z_dim: PositiveInt = 512,
    w_dim: PositiveInt = 512,
    count: PositiveInt = 5000,
    seed: Seed = 0,
) -> Latents:
    """Latents of a file, in W+, or z that are drawn.

    Args:
        path: A file of W+: train_faces.pt, w_plus.npy and so on;
            '' draws `count` from a normal distribution.
        resolution: Resolution of the generator.
        z_dim, w_dim: Widths of its latents.
        count: Number of latents that are drawn.
        seed: Seed of the draws; each latent depends on it and on its own number.

    Returns:
        A source of `latent`, W+ (num_ws, w_dim) or z (z_dim,), float32.

    Raises:
        UserError: An unreadable file, or latents of another generator.
    """
    if path:
        return Latents(
            "latent", read_latents(path, style_space.num_ws(resolution), w_dim), f"latent of {path}"
        )
    z = [
        np.random.default_rng([seed, index]).standard_normal(z_dim, np.float32)
        for index in range(count)
    ]
    return Latents("latent", np.stack(z), f"latent of seed {seed}")


@checked
def styles(
    path: str,
    resolution: PositiveInt,
    channel_base: PositiveInt = 32768,
    channel_max: PositiveInt = 512,
) -> Latents:
    """Latents of a file, in S.

    Args:
        path: A list of (N, 1, channels, 1, 1) for each layer,
            as StyleCLIP's mappers are trained on, or the released S.
        resolution, channel_base, channel_max: Sizes of the generator.

    Returns:
        A source of `styles`, float32 (channels of all layers,), layer by layer.

    Raises:
        UserError: An unreadable file, or styles of another generator.
    """
    layers = style_space.style_layers(resolution, channel_base, channel_max)
    value = read_object(path)
    if isinstance(value, list) and value and isinstance(value[0], list):
        found = read_styles(path, layers)
    else:
        found = _layers(path, value, [layer.channels for layer in layers])
    return Latents("styles", np.concatenate(found, axis=1).astype(np.float32), f"styles of {path}")


def _layers(path: str, value: Any, channels: list[int]) -> list[np.ndarray]:
    """The arrays (N, channels) of a list of all layers."""
    arrays = value if isinstance(value, list) else []
    if not arrays or not all(isinstance(array, np.ndarray) and array.ndim for array in arrays):
        raise UserError(
            f"{path}: does not hold a list of styles (N, 1, channels, 1, 1), one for each layer"
        )
    widths = [array.size // max(len(array), 1) for array in arrays]
    if widths != channels or len({len(array) for array in arrays}) > 1:
        raise UserError(
            f"{path}: has styles of widths {widths}, and the generator's are {channels}"
        )
    return [array.reshape(len(array), -1) for array in arrays]


def unchanged() -> Callable:
    """A transform of records for training and evaluation that leaves them as they are."""
    return _same


def _same(example: dict[str, Any], rng: np.random.Generator | None = None) -> dict[str, Any]:
    return example
