"""What global directions need to know of a generator, computed once: statistics of S, and the relevance of channels.

The files are those of the released code, S_mean_std and fs3.npy, and beside them statistics.json,
which says of which weights they are.
"""

import dataclasses
import functools
import json
import logging
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.core.params import weights_checksum
from swin_jax.core.ranges import FiniteFloat, PositiveInt, Seed, checked
from swin_jax.inference.editing.batches import progress
from swin_jax.models.stylegan2 import Generator
from swin_jax.pretrained.styleclip.statistics import Statistics, check_belong, read_directions, read_statistics

log = logging.getLogger(__name__)

MOMENTS, DIRECTIONS, ORIGIN = "S_mean_std", "fs3.npy", "statistics.json"
_SUFFIXES = ("", ".npy", ".pkl", ".pickle")  # of S_mean_std
_FEW = 1000  # draws that tell whether statistics are of a generator


@checked
@dataclasses.dataclass(frozen=True)
class Draws:
    """Latents that statistics are of; the defaults are those of the released code.

    Attributes:
        samples: For mean and deviation of each channel.
        seed: Of numpy's RandomState.
        truncation: Towards the mean latent.
        truncation_cutoff: Rows of W+ that are truncated, the first ones; None for all. The port to torch has 8, so that
            its statistics differ from the 64-pixel layers on.
        batch_size: Latents at a time; the numbers do not depend on it but for rounding.
    """

    samples: PositiveInt = 100_000
    seed: Seed = 5
    truncation: FiniteFloat = 0.7
    truncation_cutoff: PositiveInt | None = None
    batch_size: PositiveInt = 1000

    def latents(self, z_dim: int, samples: int) -> Iterator[np.ndarray]:
        """The first z in batches (n, z_dim) float32, as one draw of all of them gives them."""
        random = np.random.RandomState(self.seed)
        for start in range(0, samples, self.batch_size):
            yield random.randn(min(self.batch_size, samples - start), z_dim).astype(np.float32)

    def styles(self, generator: Generator, variables: dict, samples: int) -> tuple[np.ndarray, ...]:
        """S of the first draws: (samples, channels) float32 of each layer."""
        parts = [self._mapped(generator)(variables, z) for z in self.latents(generator.z_dim, samples)]
        return tuple(np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(len(parts[0])))

    def _mapped(self, generator: Generator) -> Callable:
        """A compiled function (variables, z) -> S."""
        if generator.c_dim:
            raise UserError("statistics are of generators without labels; this one is conditional")
        return _mapped(generator, self.truncation, self.truncation_cutoff)


@functools.lru_cache(maxsize=16)
def _mapped(generator: Generator, truncation: float, cutoff: int | None) -> Callable:
    def styles(variables, z):
        ws = generator.apply(variables, z, None, truncation, cutoff, method="map")
        return generator.apply(variables, ws, method="styles")

    return jax.jit(styles)


def style_statistics(
    generator: Generator, variables: dict, draws: Draws | None = None, show: bool = True
) -> Statistics:
    """Mean and deviation, dividing by the number of samples, of each channel of S.

    Args:
        generator, variables: The model, without labels.
        draws: Which latents; None for those of the released code.
        show: Show a progress bar.
    """
    draws = draws or Draws()
    mapped, batches = draws._mapped(generator), draws.latents(generator.z_dim, draws.samples)
    count, means, squares = 0, 0.0, 0.0
    for _ in progress(range(0, draws.samples, draws.batch_size), "statistics of styles", show):
        styles = np.concatenate([np.asarray(style, np.float64) for style in mapped(variables, next(batches))], axis=1)
        # Chan's update: sums of squares about the mean do not lose digits.
        more, mean = len(styles), styles.mean(axis=0)
        step = mean - means
        squares = squares + ((styles - mean) ** 2).sum(axis=0) + step**2 * (count * more / (count + more))
        means = means + step * (more / (count + more))
        count += more
    ends = np.cumsum([layer.channels for layer in generator.style_layers()])[:-1]
    deviations = np.sqrt(squares / count)
    parts = ([*np.split(values.astype(np.float32), ends)] for values in (means, deviations))
    return Statistics(*(tuple(part) for part in parts))


def origin(generator_variables: dict, clip_variables: dict, **settings: Any) -> dict[str, Any]:
    """What statistics depend on: checksums of the weights, and settings, as JSON holds them."""
    checksums = {"generator": weights_checksum(generator_variables), "clip": weights_checksum(clip_variables)}
    return json.loads(json.dumps(checksums | settings))


def write_moments(folder: str | os.PathLike, found: Statistics) -> None:
    """Writes S_mean_std in the released form: a pickle of a list of means and one of deviations."""
    data = pickle.dumps([list(found.means), list(found.deviations)], protocol=2)
    storage.write(storage.path(folder) / MOMENTS, data)


def find_moments(folder: str | os.PathLike) -> Any:
    """The path of S_mean_std in a folder, or None."""
    paths = [storage.path(folder) / f"{MOMENTS}{suffix}" for suffix in _SUFFIXES]
    return next((path for path in paths if path.is_file()), None)


def check_folder(folder: str) -> None:
    """Raises UserError, naming the flag, for a folder without statistics; reads none."""
    path = storage.path(folder)
    missing = [DIRECTIONS] * (not (path / DIRECTIONS).is_file()) + [MOMENTS] * (find_moments(path) is None)
    if missing:
        raise UserError(
            f"--config.statistics={folder}: there is no {' and no '.join(missing)}; give a folder with both, or leave "
            "the flag out to compute them"
        )


def read_folder(
    folder: str | os.PathLike, generator: Generator, variables: dict, clip_variables: dict, features: int | None = None
) -> tuple[Statistics, np.ndarray]:
    """Reads statistics and directions, released or computed here, and checks that they are of a generator.

    Args:
        folder: With S_mean_std and fs3.npy.
        generator, variables: The model.
        clip_variables: Of the CLIP.
        features: Width of its features, if it is known.

    Returns:
        (the statistics, relevance (channels, features) float32, see `read_directions`).

    Raises:
        UserError: Files that are missing, or those of other weights.
    """
    check_folder(os.fspath(folder))
    path, layers = storage.path(folder), generator.style_layers()
    found = read_statistics(find_moments(path), layers)
    rows = read_directions(path / DIRECTIONS, layers, features)
    if (path / ORIGIN).is_file():
        check_origin(path, origin(variables, clip_variables))
    else:
        check_belong(found, Draws().styles(generator, variables, _FEW), layers)
    return found, rows


def is_complete(folder: Any) -> bool:
    """True if a folder holds statistics that were computed here, to the end."""
    return (folder / ORIGIN).is_file() and (folder / DIRECTIONS).is_file() and find_moments(folder) is not None


def check_origin(folder: Any, expected: dict[str, Any]) -> None:
    """Raises UserError if the statistics in a folder are of other weights or, where they are given, settings."""
    stored = storage.read_object(folder / ORIGIN)
    for name, what in (("generator", "another generator"), ("clip", "another CLIP"), ("settings", "other settings")):
        if name in expected and stored.get(name) != expected[name]:
            raise UserError(f"{folder} holds statistics of {what}; move it away to compute those that are asked for")
