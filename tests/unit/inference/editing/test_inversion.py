"""From pictures to latents: the projector against its description, and the encoder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.inference.editing import inversion
from swin_jax.inference.editing.distances import FeatureDistance, PerceptualDistance
from swin_jax.inference.editing.inversion import E4EInversion, OptimizationInversion
from swin_jax.models.e4e import E4E
from swin_jax.models.lpips import LPIPS
from swin_jax.models.stylegan2 import Generator
from swin_jax.tasks.editing import Given
from swin_jax.train.init_from import Frozen
from tests.editing import networks

ENCODER = E4E(num_ws=4, image_size=16, blocks=((2, 2, 1), (2, 3, 1), (3, 4, 1), (4, 5, 1)), w_dim=8)


class Pixels:
    """The mean square between pixels."""

    name = "pixels"

    def check(self):
        pass

    def load(self):
        return {}

    def describe(self, variables, images):
        return images

    def compare(self, variables, one, other):
        return jnp.square(one - other).mean(axis=(1, 2, 3))


@pytest.fixture(scope="module")
def made():
    """Generator, variables, three latents and their pictures."""
    generator, variables = networks()["generator"].model, networks()["generator"].variables
    variables = jax.tree.map(lambda x: x, variables)
    ws = jax.jit(lambda z: generator.apply(variables, z, method="map"))(jax.random.normal(jax.random.key(3), (3, 8)))
    images = jax.jit(lambda ws: generator.apply(variables, ws, method="synthesize"))(ws)
    scale = 1 / np.abs(images).max()  # of random weights, whose pictures leave -1..1
    return generator, variables, ws, np.asarray((images * scale + 1) * 127.5).round().astype(np.uint8)


def refused(match, call, *arguments, **keywords):
    with pytest.raises(UserError, match=match) as error:
        call(*arguments, **keywords)
    assert "\n" not in str(error.value)


# ---- its parts ----


def test_noise_of_latents_falls_as_a_parabola():
    found = [float(inversion.latent_noise(step, 1000, 0.75)) for step in (0, 375, 750, 999)]
    np.testing.assert_allclose(found, [1, 0.25, 0, 0], atol=1e-6)


def test_patterns_of_noise_are_what_the_reference_sums_up():
    rng = np.random.default_rng(0)
    noises = [rng.normal(size=(2, side, side, 1)).astype(np.float32) for side in (4, 8, 16, 32)]

    def of_one(noise):
        total = 0.0
        while True:
            total += (noise * np.roll(noise, 1, axis=1)).mean() ** 2 + (noise * np.roll(noise, 1, axis=0)).mean() ** 2
            if len(noise) <= 8:
                return total
            noise = (noise[::2, ::2] + noise[1::2, ::2] + noise[::2, 1::2] + noise[1::2, 1::2]) / 4

    expected = [sum(of_one(noise[row, ..., 0].astype(np.float64)) for noise in noises) for row in range(2)]
    np.testing.assert_allclose(inversion.noise_patterns(noises), expected, rtol=1e-4)


def test_maps_of_noise_get_mean_0_and_power_1_each_by_itself():
    noise = np.random.default_rng(0).normal(3, [[[[1]]], [[[5]]]], (2, 8, 8, 1)).astype(np.float32)
    found = np.asarray(inversion.standardize(noise), np.float64)
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose((found**2).mean(axis=(1, 2, 3)), 1, rtol=1e-5)


def test_latents_begin_at_the_mean_of_many(made):
    generator, variables, *_ = made
    mean, deviation = inversion.mean_latent(generator, variables, 500)
    z = np.random.RandomState(123).randn(500, 8).astype(np.float32)
    w = np.asarray(jax.jit(lambda z: generator.apply(variables, z, method="map"))(z), np.float64)[:, 0]
    np.testing.assert_allclose(mean, w.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(deviation, np.sqrt(((w - w.mean(axis=0)) ** 2).sum() / 500), rtol=1e-5)


# ---- the projector ----


def restated(settings, projector, generator, variables, image):
    """The latents, in float64 but for the gradients, as projector.py of NVlabs finds them for one picture."""
    rows = 1 if settings.space == "w" else generator.num_ws
    target = jnp.asarray(image, jnp.float32)[None] / 127.5 - 1
    state = projector._start(1)[0]
    values = [np.asarray(state["latents"], np.float64), *(np.asarray(x, np.float64) for x in state["noises"])]
    first, second = [0.0] * len(values), [0.0] * len(values)
    key = jax.random.fold_in(jax.random.key(settings.seed), 1)

    @jax.jit
    def gradients(latents, noises, moved):
        def loss(latents, noises):
            ws = jnp.repeat(latents + moved, generator.num_ws // rows, axis=1)
            image = generator.apply(variables, ws, noise=noises or "const", method="synthesize")
            penalty = inversion.noise_patterns(noises)[0] if noises else 0.0
            return jnp.square(image - target).mean() + 1e5 * penalty

        return jax.grad(loss, argnums=(0, 1))(latents, noises)

    for step in range(settings.num_steps):
        t = step / settings.num_steps
        rate = 0.5 - 0.5 * np.cos(min(1.0, (1 - t) / 0.25) * np.pi)
        rate *= settings.learning_rate * min(1.0, t / 0.05)
        scale = 0.05 * max(0.0, 1 - t / 0.75) ** 2 * projector.deviation
        moved = scale * jax.random.normal(jax.random.fold_in(key, step), (1, rows, 8))
        latents, *noises = (jnp.asarray(value, jnp.float32) for value in values)
        found = gradients(latents, tuple(noises), moved)
        for i, gradient in enumerate([found[0], *found[1]]):
            gradient = np.asarray(gradient, np.float64)
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.999 * second[i] + 0.001 * gradient**2
            direction = first[i] / (1 - 0.9 ** (step + 1)) / (np.sqrt(second[i] / (1 - 0.999 ** (step + 1))) + 1e-8)
            values[i] = values[i] - rate * direction
        for i in range(1, len(values)):
            values[i] = values[i] - values[i].mean()
            values[i] = values[i] / np.sqrt((values[i] ** 2).mean())
    return values


def test_a_picture_gets_the_latents_of_the_reference_in_a_batch_too(made):
    generator, variables, _, images = made
    settings = OptimizationInversion(Pixels(), num_steps=6, mean_samples=100)
    projector = settings.load(generator, variables)
    found = projector.project(images)
    assert found.ws.shape == (3, 4, 8) and found.ws.dtype == np.float32
    for row in (0, 2):
        latents, *noises = restated(settings, projector, generator, variables, images[row])
        np.testing.assert_allclose(found.ws[row], np.repeat(latents[0], 4, axis=0), atol=2e-4)
        for ours, theirs in zip(found.noises, noises, strict=True):
            np.testing.assert_allclose(ours[row], theirs[0], atol=5e-3)


@pytest.fixture(scope="module")
def projector(made):
    """One that looks in W+ and keeps the generator's noise; batches of two."""
    generator, variables, *_ = made
    fields = dict(space="w+", num_steps=60, mean_samples=100, optimize_noise=False, batch_size=2)
    return OptimizationInversion(Pixels(), **fields).load(generator, variables)


def test_pictures_of_several_batches_get_what_each_gets_by_itself(made, projector):
    *_, images = made
    together = projector.project(images)
    assert together.noises == () and np.std(together.ws, axis=1).max() > 0.01  # rows of W+ part
    for row in range(3):
        alone = projector.project(images[row : row + 1])
        np.testing.assert_allclose(alone.ws[0], together.ws[row], atol=2e-3)
        np.testing.assert_allclose(alone.distances[0], together.distances[row], rtol=1e-2)


def test_the_picture_comes_near(made, projector):
    generator, variables, _, images = made
    mean = jnp.broadcast_to(projector.mean, (3, 4, 8))
    start = jax.jit(lambda ws: generator.apply(variables, ws, method="synthesize"))(mean)
    before = np.square(start - (jnp.asarray(images, jnp.float32) / 127.5 - 1)).mean(axis=(1, 2, 3))
    assert (projector.project(images).distances < 0.3 * np.asarray(before)).all()


def test_one_step_at_a_rate_of_0_leaves_the_mean(made):
    generator, variables, _, images = made
    projector = OptimizationInversion(Pixels(), num_steps=1, mean_samples=100, optimize_noise=False)
    projector = projector.load(generator, variables)
    np.testing.assert_allclose(projector.invert(images), np.broadcast_to(projector.mean, (3, 4, 8)), atol=1e-7)


# ---- distances ----


def test_features_are_compared_at_the_size_of_their_network(made):
    faces = networks()["arcface"]  # of 16 pixels
    distance = FeatureDistance(faces, pixel_weight=2.0, feature_weight=0.0)
    one, other = (jax.random.uniform(jax.random.key(i), (2, 8, 8, 3), minval=-1) for i in range(2))
    variables = distance.load()

    describe = jax.jit(lambda x: distance.describe(variables, x))

    def between(distance, one, other):
        return distance.compare(variables, describe(one), describe(other))

    @jax.jit
    def features(x):
        return faces.model.apply(variables, x.repeat(2, 1).repeat(2, 2), method="features")

    np.testing.assert_allclose(between(distance, one, other), 2 * np.square(one - other).mean((1, 2, 3)), rtol=1e-5)
    both = FeatureDistance(faces)
    assert not np.any(between(both, one, one))
    maps = map(features, (one, other))
    expected = np.square(one - other).mean((1, 2, 3))
    for ours, theirs in zip(*maps):
        ours, theirs = (np.asarray(x) / np.linalg.norm(x, axis=-1, keepdims=True) for x in (ours, theirs))
        expected += np.square(ours - theirs).sum(-1).mean((1, 2))
    np.testing.assert_allclose(between(both, one, other), expected, rtol=1e-3)


def test_large_pictures_are_shrunk_for_lpips():
    model = LPIPS(widths=(4, 4), depths=(1, 1))
    image = jnp.zeros((1, 8, 8, 3))
    distance = PerceptualDistance(Given(model, jax.jit(model.init)(jax.random.key(0), image, image)), size=8)
    one, other = (jax.random.uniform(jax.random.key(i), (2, 16, 16, 3), minval=-1) for i in range(2))
    variables = distance.load()
    small = [x.reshape(2, 8, 2, 8, 2, 3).mean((2, 4)) for x in (one, other)]
    describe = jax.jit(lambda x: distance.describe(variables, x))
    found = distance.compare(variables, describe(one), describe(other))
    np.testing.assert_allclose(found, distance.compare(variables, *map(describe, small)), rtol=1e-4)
    assert describe(one)[0].shape == (2, 8, 8, 4)


@pytest.mark.parametrize("distance", [FeatureDistance, PerceptualDistance])
def test_a_distance_without_weights_names_the_flag(distance):
    model = networks()["arcface"].model
    missing = Frozen(model, flag="classifier")
    refused("--config.classifier=FILE_OR_WORKDIR", OptimizationInversion(distance(missing)).check)


def test_a_network_without_maps_is_refused():
    refused("the maps of a model with a method `features`", FeatureDistance, Given(ENCODER, {}))


# ---- the encoder ----


@pytest.fixture(scope="module")
def encoder():
    variables = jax.jit(ENCODER.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    return Given(ENCODER, {**variables, "averages": {"latent_avg": jnp.arange(32.0).reshape(4, 8)}})


def encoded(given, images):
    """Latents by the model itself."""
    floats = jnp.asarray(images, jnp.float32) / 127.5 - 1
    return np.asarray(jax.jit(ENCODER.apply)(given.variables, floats))


def test_the_encoder_inverts_in_batches(made, encoder):
    generator, variables, *_ = made
    loaded = E4EInversion(encoder, batch_size=2).load(generator, variables)
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    found = loaded.invert(images)
    assert loaded.image_size == 16 and found.shape == (3, 4, 8) and found.dtype == np.float32
    np.testing.assert_allclose(found, encoded(encoder, images), atol=1e-5)


def test_the_mean_of_the_generator_takes_the_place_of_one_that_is_missing(made, encoder):
    generator, variables, *_ = made
    images = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    without = Given(ENCODER, {**encoder.variables, "averages": {"latent_avg": jnp.zeros((4, 8))}})
    with pytest.warns(UserWarning, match="no mean latent; the mean of 10000 latents of the generator is used instead"):
        found = E4EInversion(without).load(generator, variables).invert(images)
    mean, _ = inversion.mean_latent(generator, variables, 10_000)
    np.testing.assert_allclose(found, encoded(without, images) + mean, atol=1e-4)


def test_an_encoder_of_another_generator_is_refused_with_both_numbers(made, encoder):
    _, variables, *_ = made
    other = Generator(16, z_dim=8, w_dim=6, channel_base=64, channel_max=8)
    message = "finds 4 latents of 8 for a picture, and the generator takes 6 of 6"
    refused(message, E4EInversion(encoder).load, other, variables)


def test_a_missing_encoder_names_the_flag(tmp_path):
    refused("--config.e4e=FILE_OR_WORKDIR", E4EInversion(Frozen(ENCODER, flag="e4e")).check)
    missing = Frozen(ENCODER, str(tmp_path / "e4e.pt"), convert=lambda source, model: {}, flag="e4e")
    refused("e4e=.*e4e.pt is neither a workdir with checkpoints nor a file", E4EInversion(missing).check)


# ---- what is refused ----


@pytest.mark.parametrize("shape, dtype", [((2, 8, 8, 3), np.float32), ((2, 9, 9, 3), np.uint8), ((8, 8, 3), np.uint8)])
def test_pictures_of_another_size_are_told_how_to_align(projector, shape, dtype):
    message = r"aligned faces are uint8 \(N, 8, 8, 3\): cut them out with swin_jax.data.image.alignment.align"
    refused(message, projector.invert, np.zeros(shape, dtype))


def test_conditional_and_gray_generators_are_refused(made):
    load = OptimizationInversion(Pixels()).load
    refused("this one is conditional", load, dataclasses.replace(made[0], c_dim=3), made[1])
    refused("this generator has 1 channels", load, dataclasses.replace(made[0], image_channels=1), made[1])


def test_a_space_that_does_not_exist_is_refused():
    refused(r"space='w_plus' must be 'w' or 'w\+'", OptimizationInversion, Pixels(), space="w_plus")
