"""Distances between samples and real images: closed forms, numpy, and the evaluation of a task."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import linalg

from swin_jax.core.errors import UserError
from swin_jax.data.pipeline import EvalData
from swin_jax.data.sources import ArraySource
from swin_jax.evals.sample_quality import SampleQuality, frechet_distance, kernel_distance, moments
from swin_jax.evals.samples import draw_latents, to_bytes
from swin_jax.models.stylegan2 import Discriminator, Generator
from swin_jax.tasks.gan import GAN
from swin_jax.train import sharding

RNG = np.random.default_rng(0)


# ---- the distances ----


def covariance(size, rank=None):
    root = RNG.normal(size=(size, rank or 2 * size))
    return root @ root.T / size


def test_gaussians_with_one_covariance_are_as_far_as_their_means():
    shared = covariance(6)
    mean = RNG.normal(size=6)
    np.testing.assert_allclose(frechet_distance(mean, shared, mean + 2, shared), 24, rtol=1e-10)
    np.testing.assert_allclose(frechet_distance(mean, shared, mean, shared), 0, atol=1e-10)


def test_gaussians_on_axes_are_as_far_as_their_deviations():
    ours, theirs = RNG.uniform(0.1, 3, (2, 5))
    zero = np.zeros(5)
    found = frechet_distance(zero, np.diag(ours**2), zero, np.diag(theirs**2))
    np.testing.assert_allclose(found, ((ours - theirs) ** 2).sum(), rtol=1e-10)


def test_the_frechet_distance_is_that_of_the_matrix_root_either_way_round():
    ours, theirs = covariance(8), covariance(8)
    mean, other = RNG.normal(size=(2, 8))
    root = linalg.sqrtm(ours @ theirs)
    expected = ((mean - other) ** 2).sum() + np.trace(ours + theirs - 2 * root.real)
    np.testing.assert_allclose(frechet_distance(mean, ours, other, theirs), expected, rtol=1e-9)
    np.testing.assert_allclose(frechet_distance(other, theirs, mean, ours), expected, rtol=1e-9)


def test_singular_covariances_have_a_distance():
    zero = np.zeros(6)
    ours = covariance(6, rank=2)
    np.testing.assert_allclose(frechet_distance(zero, ours, zero, ours), 0, atol=1e-6)
    # Two lines that are orthogonal: no overlap.
    first, second = np.diag([4.0, 0, 0]), np.diag([0, 9.0, 0])
    assert frechet_distance(zero[:3], first, zero[:3], second) == 13
    assert frechet_distance(zero, 0 * ours, zero, ours) == pytest.approx(np.trace(ours))


def test_moments_are_those_of_numpy_in_float64():
    x = RNG.normal(size=(50, 4)).astype(np.float32) + 1000
    mean, found = moments(x)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(axis=0), rtol=1e-12)
    centered = x.astype(np.float64) - mean
    np.testing.assert_allclose(found, centered.T @ centered / 49, rtol=1e-9)
    assert moments(x[:, :1])[1].shape == (1, 1)


def test_the_kernel_distance_is_the_sum_over_pairs_that_differ():
    x, y = RNG.normal(size=(2, 5, 3))
    kernel = lambda a, b: (a @ b / 3 + 1) ** 3  # noqa: E731
    within = [np.mean([kernel(z[i], z[j]) for i in range(5) for j in range(5) if i != j]) for z in (x, y)]
    across = np.mean([kernel(a, b) for a in x for b in y])
    for subsets in (1, 3):
        found = kernel_distance(x, y, subsets=subsets, subset_size=5)
        np.testing.assert_allclose(found, sum(within) - 2 * across, rtol=1e-10)


def test_the_kernel_distance_is_unbiased_and_repeats_itself():
    x, y = RNG.normal(size=(2, 2000, 4)).astype(np.float32)
    found = kernel_distance(x, y, 50, 200)
    assert found == kernel_distance(x, y, 50, 200) != kernel_distance(x, y, 50, 200, seed=1)
    assert abs(found) < 0.02 < kernel_distance(x + 0.3, y, 50, 200)


# ---- the evaluation ----


class Means(nn.Module):
    """The mean color of halves of an image, as a map; times a weight."""

    @nn.compact
    def __call__(self, image):
        weight = self.param("weight", nn.initializers.ones, (3,))
        return image.reshape(len(image), 2, -1, image.shape[-1]).mean(axis=2) * weight.reshape(1, 1, 3)

    def twice(self, image):
        return [None, jnp.concatenate([self(image)] * 2, axis=-1)]


class Inception(Means):
    distance_names = ("fid", "kid")


@dataclasses.dataclass(frozen=True)
class Frozen:
    """Weights in memory."""

    model: nn.Module
    path: str = "weights"

    def load(self, batch, key):
        assert batch["image"].shape == (1, 8, 8, 3) and batch["image"].dtype == jnp.uint8
        if self.path == "missing":
            raise UserError(f"no weights: --config.{key}.path")
        return {"params": {"weight": np.array([1, 2, 3], np.float32)}}


IMAGES = RNG.integers(0, 256, (13, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def task():
    width = dict(resolution=8, channel_base=32, channel_max=4)
    networks = Generator(**width, z_dim=4, w_dim=4, mapping_layers=1), Discriminator(**width)
    return GAN(*networks, optax.sgd(0.1), optax.sgd(0.1))


@pytest.fixture(scope="module")
def state(task):
    return jax.jit(task.init)(jax.random.key(0))


@pytest.fixture
def placement():
    return sharding.Placement(sharding.make_mesh(2, 1, 1, devices=jax.devices()[:2]))


class Read(ArraySource):
    """Counts what is read."""

    count = 0

    def __getitem__(self, index):
        type(self).count += 1
        return super().__getitem__(index)


def quality(**fields):
    source = Read("real", IMAGES, np.zeros(len(IMAGES), np.int32), ("face",))
    data = EvalData(source, dict, batch_size=4, num_threads=0)
    network = fields.pop("network", Frozen(Means()))
    return SampleQuality(data, network, samples=7, batch_size=3, subsets=2, subset_size=5, **fields)


def expected(task, state, mean=0.0, std=1.0):
    """(features of the samples, of the real images)."""
    rng = np.random.default_rng(0)
    latent = np.concatenate([draw_latents(task, rng, 4)["latent"] for _ in range(2)])[:7]
    samples = to_bytes(task.predict(state, {"latent": jnp.asarray(latent)}, {})["image"])

    def means(images):
        pixels = (np.asarray(images, np.float64) / 255 - mean) / std
        return pixels.reshape(len(pixels), -1, 3).mean(axis=1) * [1, 2, 3]

    return means(samples), means(IMAGES)


def test_samples_and_real_images_are_compared_by_the_features_of_a_network(task, state, placement):
    run = quality(of="means", mean=(0.5,) * 3, std=(0.25,) * 3).bind(task, placement)
    with jax.set_mesh(placement.mesh):
        Read.count = 0
        found = run(state, {})
        read = Read.count
        again = run(state, {})
    assert read >= len(IMAGES) and Read.count == read and found == again
    samples, real = expected(task, state, 0.5, 0.25)
    names = {"frechet_distance_of_means", "kernel_distance_of_means", "kernel_distance_of_means_real"}
    assert found.keys() == names
    distance = frechet_distance(*moments(samples), *moments(real))
    np.testing.assert_allclose(found["frechet_distance_of_means"], distance, rtol=1e-3)
    np.testing.assert_allclose(found["kernel_distance_of_means"], kernel_distance(samples, real, 2, 5), rtol=1e-3)
    order = np.random.default_rng(0).permutation(13)
    halves = kernel_distance(real[order[::2]], real[order[1::2]], 2, 5)
    np.testing.assert_allclose(found["kernel_distance_of_means_real"], halves, rtol=1e-2, atol=1e-4)


def test_only_inceptions_distances_are_called_fid_and_kid(task, state, placement):
    run = quality(network=Frozen(Inception()), method="twice").bind(task, placement)
    with jax.set_mesh(placement.mesh):
        found = run(state, {})
    samples, real = (np.concatenate([x, x], axis=1) for x in expected(task, state))
    assert found.keys() == {"fid", "kid", "kid_real"}
    np.testing.assert_allclose(found["fid"], frechet_distance(*moments(samples), *moments(real)), rtol=1e-3)
    # Without weights it is not Inception, whatever its architecture.
    assert "fid" not in quality(network=Frozen(Inception(), "")).names()[0]


def test_without_weights_nothing_is_measured_where_that_is_allowed(task, state, placement):
    assert quality(network=Frozen(Means(), ""), optional=True).bind(task, placement)(state, {}) == {}
    with pytest.raises(UserError, match="no weights"):
        quality(network=Frozen(Means(), "missing"), optional=True).bind(task, placement)


@pytest.mark.parametrize("fields", [dict(samples=1), dict(subset_size=1)])
def test_a_single_image_has_no_distance(fields):
    with pytest.raises(UserError, match="two"):
        dataclasses.replace(quality(), **fields)


def test_too_few_real_images_are_refused(task, state, placement):
    source = ArraySource("real", IMAGES[:3], np.zeros(3, np.int32), ("face",))
    few = dataclasses.replace(quality(), data=EvalData(source, dict, batch_size=4, num_threads=0))
    with jax.set_mesh(placement.mesh), pytest.raises(UserError, match="3 real images are too few"):
        few.bind(task, placement)(state, {})
