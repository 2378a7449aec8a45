"""Mean and deviation of each channel of a generator's style space,
over latents that are drawn as StyleCLIP draws them.

Patashnik et al., arXiv 2103.17249; the reference is orpatashnik/StyleCLIP,
global_directions/GetCode.py.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import FiniteFloat, PositiveInt, Seed, checked
from swin_jax.models.stylegan2 import Generator


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each channel of style space.

    Attributes:
        means: Array (channels,) of each layer, ToRGB among them.
        deviations: The same, of the standard deviations.
    """

    means: tuple[np.ndarray, ...]
    deviations: tuple[np.ndarray, ...]

    def averages(self) -> list[tuple[float, float]]:
        """(mean, standard deviation) of each layer, averaged over its channels."""
        return [
            (float(mean.mean()), float(std.mean()))
            for mean, std in zip(self.means, self.deviations)
        ]


@checked
@dataclasses.dataclass(frozen=True)
class Draws:
    """Latents that statistics are of; the defaults are those of the released code.

    Attributes:
        samples: Number of latents for mean and deviation of each channel.
        seed: Seed of numpy's RandomState.
        truncation: Truncation toward the mean latent.
        truncation_cutoff: Rows of W+ that are truncated, the first ones; None for all. The port to
            torch has 8, so that its statistics differ from the 64-pixel layers on.
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
        parts = [
            self._mapped(generator)(variables, z) for z in self.latents(generator.z_dim, samples)
        ]
        return tuple(
            np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(len(parts[0]))
        )

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
    generator: Generator,
    variables: dict,
    draws: Draws | None = None,
    progress: Callable[[range], Iterable] = iter,
) -> Statistics:
    """Mean and deviation, dividing by the number of samples, of each channel of S.

    Args:
        generator, variables: The model, without labels.
        draws: Latents to draw; None for those of the released code.
        progress: A function around the numbers of the batches, to show a bar for example.
    """
    draws = draws or Draws()
    mapped, batches = draws._mapped(generator), draws.latents(generator.z_dim, draws.samples)
    count, means, squares = 0, 0.0, 0.0
    for _ in progress(range(0, draws.samples, draws.batch_size)):
        styles = np.concatenate(
            [np.asarray(style, np.float64) for style in mapped(variables, next(batches))], axis=1
        )
        # Chan's update: sums of squares about the mean do not lose digits.
        more, mean = len(styles), styles.mean(axis=0)
        step = mean - means
        squares = (
            squares + ((styles - mean) ** 2).sum(axis=0) + step**2 * (count * more / (count + more))
        )
        means = means + step * (more / (count + more))
        count += more
    ends = np.cumsum([layer.channels for layer in generator.style_layers()])[:-1]
    deviations = np.sqrt(squares / count)
    parts = ([*np.split(values.astype(np.float32), ends)] for values in (means, deviations))
    return Statistics(*(tuple(part) for part in parts))
