"""Distances between generated and real images, in the features that a network has of both.

The Fréchet distance between two Gaussians (arXiv 1706.08500) and the kernel distance
(arXiv 1801.01401) are called FID and KID if the network is the Inception-v3 that these were defined
with; of any other network they are other numbers and have other names. The reference is metrics/ of
NVlabs/stylegan2-ada-pytorch.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.output import progress
from swin_jax.core.ranges import (
    FiniteFloat,
    PositiveFloat,
    PositiveInt,
    Seed,
    check_scale,
    checked,
)
from swin_jax.data.unreadable import left_out
from swin_jax.evals import features
from swin_jax.evals.samples import draw_latents, to_bytes
from swin_jax.ops import augmentation
from swin_jax.tasks.base import FrozenModel, Task, TrainState, check_predicts

_FEWEST = 4  # real images: two halves, in each of which two differ


@dataclasses.dataclass(frozen=True)
class _Features:
    """A network's features of images,
    in the form of a task for `evals.features`; its state is the variables.
    """

    predicts: ClassVar[str] = "features of images"

    network: FrozenModel
    method: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def predict(self, state: Any, batch: dict[str, jax.Array], frozen: Any) -> dict[str, jax.Array]:
        """`features` (B, D) float32 of `image` uint8; maps are averaged over their places."""
        image = augmentation.normalize(batch["image"], self.mean, self.std)
        found = self.network.model.apply(state, image, method=self.method)
        found = found[-1] if isinstance(found, (list, tuple)) else found
        return {"features": found.astype(jnp.float32).mean(axis=tuple(range(1, found.ndim - 1)))}


@checked
@dataclasses.dataclass(frozen=True)
class SampleQuality:
    """Measures the distance of samples from real images, for a task that predicts samples.

    Attributes:
        data: A `data.pipeline.EvalData` of real images, of the size of the samples.
        network: A model of features, such as `train.init_from.Frozen` with
            `models.inception.Inception`. Its weights are read when the evaluation is
            bound to a task.
        of: Name of the features if they are not Inception's, for the names
            'frechet_distance_of_...'.
        method: Method of the model that gives features (B, D) or maps (B, ..., D),
            or a list that ends with them.
        mean, std: Mean and standard deviation of the pixels in 0..1, as the network takes them.
        optional: True to measure nothing where the network has no weights;
            else those are an error, or random ones.
        samples: Number of images to generate.
        batch_size: Images at a time.
        seed: Seed of latents and subsets, so that each evaluation sees the same.
        subsets, subset_size: The kernel distance is a mean over so many random subsets of so many
            images, or of as many as there are.
    """

    data: Any
    network: Any
    of: str = "features"
    method: str = "__call__"
    mean: tuple[FiniteFloat, ...] = (0.0, 0.0, 0.0)
    std: tuple[PositiveFloat, ...] = (1.0, 1.0, 1.0)
    optional: bool = False
    samples: PositiveInt = 50_000
    batch_size: PositiveInt = 64
    seed: Seed = 0
    subsets: PositiveInt = 100
    subset_size: PositiveInt = 1000

    def __post_init__(self):
        check_scale(self.mean, self.std)
        if self.samples < 2:
            raise UserError("samples=1: a distance needs two samples at least")
        if self.subset_size < 2:
            raise UserError("subset_size=1: a kernel distance needs two images at least")

    def names(self) -> tuple[str, str]:
        """The names of the Fréchet and the kernel distance."""
        own = getattr(self.network.model, "distance_names", None)
        if own and self.network.path:
            return own
        of = self.of if self.network.path else "random_features"
        return f"frechet_distance_of_{of}", f"kernel_distance_of_{of}"

    def bind(self, task: Task, placement: Any) -> Callable[[TrainState, Any], dict[str, float]]:
        """Reads the network's weights and compiles for a task and a `sharding.Placement`.

        Returns:
            run(state, frozen) -> {name: value}: 'fid', 'kid' and 'kid_real', the kernel distance
            between two halves of the real images, or the same under the names of another network;
            `left_out` where `data` leaves out records.

        Raises:
            UserError: Another task; weights that are missing or do not fit.
        """
        check_predicts(task, "samples", type(self).__name__)
        if self.optional and not self.network.path:
            return lambda state, frozen: {}
        shapes = {
            "image": jax.ShapeDtypeStruct((1, *task.batch_shapes(1)["image"].shape[1:]), jnp.uint8)
        }
        everywhere = jax.sharding.NamedSharding(placement.mesh, jax.sharding.PartitionSpec())
        variables = jax.device_put(self.network.load(shapes, "network"), everywhere)
        seen = _Features(self.network, self.method, self.mean, self.std)
        extract = features.extractor(seen, placement, self.data, ("features",), kept=())

        def features_of_samples(state, batch, frozen, variables):
            image = to_bytes(task.predict(state, batch, frozen)["image"])
            return seen.predict(variables, {"image": image}, {})["features"]

        predict = jax.jit(features_of_samples, out_shardings=everywhere)
        real: dict[str, Any] = {}  # kept from one evaluation to the next

        def run(state: TrainState, frozen: Any) -> dict[str, float]:
            if not real:
                found = extract(variables, {})["features"]
                check_real(found)
                real.update(
                    features=found, moments=moments(found), between=self._between_halves(found)
                )
            made = np.concatenate(
                [*self._generate(task, placement, predict, state, frozen, variables)]
            )
            frechet, kernel = self.names()
            distance = kernel_distance(
                made, real["features"], self.subsets, self.subset_size, self.seed
            )
            results = {
                frechet: frechet_distance(*moments(made), *real["moments"]),
                kernel: distance,
                f"{kernel}_real": real["between"],
            }
            return results | left_out(self.data, len(real["features"]))

        return run

    def _generate(self, task, placement, predict, state, frozen, variables) -> Iterator[np.ndarray]:
        """Features of the samples, a batch at a time, the next of which is computed meanwhile."""
        size = placement.round_up(min(self.batch_size, self.samples))
        rows, rng, pending = placement.rows(size), np.random.default_rng(self.seed), None
        starts = range(0, self.samples, size)
        for start in progress.steps(starts, "batches", "samples", jax.process_index() == 0):
            batch = draw_latents(task, rng, size)
            batch = placement.to_global({key: value[rows] for key, value in batch.items()}, size)
            found = predict(state, batch, frozen, variables)
            if pending is not None:
                yield np.asarray(pending)
            pending = found[: self.samples - start]
        yield np.asarray(pending)

    def _between_halves(self, found: np.ndarray) -> float:
        order = np.random.default_rng(self.seed).permutation(len(found))
        halves = found[order[::2]], found[order[1::2]]
        return kernel_distance(*halves, self.subsets, self.subset_size, self.seed)


def check_real(found: np.ndarray) -> None:
    """Raises UserError where there are too few real images for a distance,
    or features that are not finite.
    """
    if len(found) < _FEWEST:
        raise UserError(
            f"{len(found)} real images are too few for a distance; there must be {_FEWEST}"
        )
    if not np.isfinite(found).all():
        raise UserError(
            "the network has features of the real images that are not finite; "
            "are its weights damaged?"
        )


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance (D, D) of features (N, D), in float64."""
    x = np.asarray(x, np.float64)
    return x.mean(axis=0), np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1])


def frechet_distance(
    mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray
) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of two Gaussians with means (D,)
    and covariances (D, D).

    (C C')^(1/2) has the trace of the root of the symmetric C^(1/2) C' C^(1/2), which exists where
    covariances are singular too, as those of fewer samples than features are.
    """
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    values = np.linalg.eigvalsh(root @ other_covariance @ root)
    overlap = np.sqrt(np.maximum(values, 0)).sum()
    between = np.square(mean - other_mean).sum()
    return float(between + np.trace(covariance) + np.trace(other_covariance) - 2 * overlap)


@checked
def kernel_distance(
    x: np.ndarray,
    y: np.ndarray,
    subsets: PositiveInt = 100,
    subset_size: PositiveInt = 1000,
    seed: Seed = 0,
) -> float:
    """The squared maximum mean discrepancy of two sets of features (N, D),
    (M, D), unbiased, in float64.

    Args:
        x, y: Features, at least two rows each.
        subsets: The distance is a mean over so many pairs of random subsets.
        subset_size: Rows of each, if there are as many.
        seed: Seed of the subsets.
    """
    rng = np.random.default_rng(seed)
    size = min(len(x), len(y), subset_size)
    total = 0.0
    for _ in range(subsets):
        first, second = (np.asarray(z[rng.choice(len(z), size, False)], np.float64) for z in (x, y))
        within = _kernel(first, first) + _kernel(second, second)
        pairs = (within.sum() - np.trace(within)) / (size * (size - 1))
        total += pairs - 2 * _kernel(first, second).mean()
    return total / subsets


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3
