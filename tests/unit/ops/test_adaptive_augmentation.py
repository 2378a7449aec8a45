"""ADA's augmentation against numpy: the resampling, each transform by itself, all of them in their order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from swin_jax.ops import adaptive_augmentation as ada

HEIGHT, WIDTH = 10, 12
IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, HEIGHT, WIDTH, 3)).astype(np.float32)
TIGHT = dict(rtol=1e-4, atol=2e-5)


# ---- the resampling ----


def along(image, axis, taps):
    return np.apply_along_axis(lambda line: np.convolve(line, taps), axis, image)


def scale(x, y):
    return np.diag([x, y, 1.0])


def shift(x, y):
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def turn(angle):
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def warp(image, matrix):
    """The reference step by step: reflect, up by 2, bilinear in normalized coordinates, down by 2."""
    taps = np.array(ada.SYM6) / np.sum(ada.SYM6)
    height, width, channels = image.shape
    padded = np.pad(image.astype(np.float64), ((height - 1,) * 2, (width - 1,) * 2, (0, 0)), mode="reflect")
    fine = np.zeros((2 * padded.shape[0], 2 * padded.shape[1], channels))
    fine[::2, ::2] = padded
    for axis in (0, 1):  # padded by 6 before and 5 after: of the full convolution 5 and 6 samples are left out
        fine = along(fine, axis, 2 * taps).take(np.arange(5, 5 + fine.shape[axis]), axis)

    tall, wide = 2 * (height + 6), 2 * (width + 6)
    theta = scale(2, 2) @ matrix @ scale(0.5, 0.5)
    theta = shift(-0.5, -0.5) @ theta @ shift(0.5, 0.5)
    theta = scale(2 / fine.shape[1], 2 / fine.shape[0]) @ theta @ scale(wide / 2, tall / 2)
    x, y = np.meshgrid((2 * np.arange(wide) + 1) / wide - 1, (2 * np.arange(tall) + 1) / tall - 1)
    places = np.einsum("ij,jhw->ihw", theta, np.stack([x, y, np.ones_like(x)]))
    columns, rows = ((places[i] + 1) * fine.shape[1 - i] / 2 - 0.5 for i in (0, 1))
    sampled = [
        ndimage.map_coordinates(fine[..., c], [rows, columns], order=1, mode="grid-constant") for c in range(channels)
    ]
    found = np.stack(sampled, axis=-1)
    for axis in (0, 1):  # the filter flipped; padding -1, and every second sample from the first on
        found = along(found, axis, taps[::-1])[(slice(None),) * axis + (slice(12, -12),)]
        found = found[(slice(None),) * axis + (slice(None, None, 2),)]
    return found


MATRICES = {
    "identity": np.eye(3),
    "flip": scale(-1, 1),
    "quarter": turn(np.pi / 2),
    "shift by pixels": shift(3, -2),
    "shift by less": shift(0.3, 1.7),
    "larger": scale(0.6, 0.6),
    "smaller": scale(1.7, 1.7),
    "turned and stretched": turn(0.4) @ scale(1.3, 1 / 1.3) @ turn(-1.1),
    "far away": shift(25, 0),
}


@pytest.mark.parametrize("name", MATRICES)
def test_images_are_resampled_as_by_the_reference(name):
    matrix = np.repeat(MATRICES[name][None], 3, axis=0).astype(np.float32)
    matrix[2] = np.eye(3)
    found = jax.jit(ada.warp)(IMAGES, matrix)
    for image, result in zip(IMAGES[:2], found):
        np.testing.assert_allclose(result, warp(image, MATRICES[name]), **TIGHT)
    np.testing.assert_allclose(found[2], IMAGES[2], atol=1e-5)


def test_a_warp_moves_what_is_smooth_where_it_is_told():
    y, x = np.mgrid[:12, :12] / 4
    image = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1).astype(np.float32)
    cases = {
        "flip": (scale(-1, 1), image[:, ::-1]),
        "quarter": (turn(np.pi / 2), np.rot90(image, 1)),
        "right": (shift(-2, 0), np.roll(image, 2, axis=1)),
        "down": (shift(0, -2), np.roll(image, 2, axis=0)),
    }
    found = ada.warp(jnp.stack([image] * 4), jnp.float32(np.stack([matrix for matrix, _ in cases.values()])))
    inside = slice(3, -3)
    for result, (_, expected) in zip(found, cases.values()):
        np.testing.assert_allclose(result[inside, inside], expected[inside, inside], atol=0.03)


def test_a_smaller_margin_gives_the_same_where_it_is_enough():
    images = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (1, 24, 24, 3)), jnp.float32)
    matrix = jnp.float32((turn(0.1) @ shift(1.5, -1))[None])
    np.testing.assert_allclose(ada.warp(images, matrix, 0.4), ada.warp(images, matrix), atol=1e-5)
    assert np.abs(ada.warp(images, matrix, 0.01) - ada.warp(images, matrix)).max() > 0.02


# ---- what is drawn ----


class Fixed:
    """In the place of random numbers: the same ones for every image, and one transform only, or all."""

    only, uniforms, normals = None, 0.8, 0.7

    def __init__(self, batch, key):
        self.batch, self.asked = batch, []
        Fixed.last = self

    def uniform(self, low, high):
        return jnp.full(self.batch, low + (high - low) * self.uniforms)

    def normal(self, deviation):
        return jnp.full(self.batch, deviation * self.normals)

    def happens(self, probability):
        self.asked.append(float(probability))
        return jnp.full(self.batch, 1.0 if self.only in (None, len(self.asked) - 1) else 0.0)


@pytest.fixture
def fixed(monkeypatch):
    monkeypatch.setattr(ada, "_Draws", Fixed)
    yield Fixed
    Fixed.only = None


# From pixels of the result to those of the image; a transform of the image is the inverse of its matrix.
ANGLE = np.pi * 0.6  # of a uniform draw of 0.8 from -pi..pi
GEOMETRY = {
    "x-flip": np.linalg.inv(scale(-1, 1)),
    "quarters": np.linalg.inv(turn(-np.pi / 2 * 3)),
    "whole pixels": np.linalg.inv(shift(round(0.075 * WIDTH), round(0.075 * HEIGHT))),
    "scale": np.linalg.inv(scale(2**0.14, 2**0.14)),
    "turn before": np.linalg.inv(turn(-ANGLE)),
    "stretch": np.linalg.inv(scale(2**0.14, 2**-0.14)),
    "turn after": np.linalg.inv(turn(-ANGLE)),
    "fractions": np.linalg.inv(shift(0.0875 * WIDTH, 0.0875 * HEIGHT)),
}


@pytest.mark.parametrize("number, name", [*enumerate(GEOMETRY), (None, "all")])
def test_each_geometric_transform_and_all_in_their_order(fixed, number, name):
    fixed.only = number
    expected = GEOMETRY[name] if name in GEOMETRY else np.linalg.multi_dot([*GEOMETRY.values()])
    found = ada.geometric_matrix(2, HEIGHT, WIDTH, 0.3, None)
    assert found.shape == (2, 3, 3)
    np.testing.assert_allclose(found[1], expected, atol=1e-5)
    asked = np.array(fixed.last.asked)
    turns = asked[[4, 6]]
    np.testing.assert_allclose(np.delete(asked, [4, 6]), 0.3)
    np.testing.assert_allclose(1 - (1 - turns[0]) * (1 - turns[1]), 0.3, rtol=1e-5)


AXIS = np.ones(3) / np.sqrt(3)
GRAY = np.outer(AXIS, AXIS)
CONTRAST = 2**0.35
COLORS = {
    "brightness": lambda x: x + 0.14,
    "contrast": lambda x: x * CONTRAST,
    "luma flip": lambda x: x - 2 * x @ GRAY,
    "hue": lambda x: x @ Rotation.from_rotvec(ANGLE * AXIS).as_matrix().T,
    "saturation": lambda x: x @ GRAY + (x - x @ GRAY) * 2**0.7,
}


@pytest.mark.parametrize("number, name", [*enumerate(COLORS), (None, "all")])
def test_each_color_transform_and_all_in_their_order(fixed, number, name):
    fixed.only = number
    expected = IMAGES.astype(np.float64)
    for other, transform in COLORS.items():
        expected = transform(expected) if name in (other, "all") else expected
    matrix = ada.color_matrix(3, 0.3, None)
    np.testing.assert_allclose(ada.recolor(IMAGES, matrix), expected, **TIGHT)
    np.testing.assert_allclose(fixed.last.asked, 0.3)
    gray = IMAGES[..., :1]
    expected = np.repeat(gray.astype(np.float64), 3, axis=-1)
    for other, transform in COLORS.items():
        expected = transform(expected) if name in (other, "all") else expected
    np.testing.assert_allclose(ada.recolor(gray, matrix), expected.mean(axis=-1, keepdims=True), **TIGHT)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_transforms_happen_as_often_as_is_asked_image_by_image(probability):
    key = jax.random.key(0)
    geometry = np.asarray(ada.geometric_matrix(3000, HEIGHT, WIDTH, probability, key))
    color = np.asarray(ada.color_matrix(3000, probability, key))
    assert np.isfinite(geometry).all() and np.isfinite(color).all()
    unchanged = np.isclose(geometry, np.eye(3), atol=1e-6).all(axis=(1, 2)).mean()
    # Flips and quarters that happen change nothing in 1 of 2 and of 4; scale, turn, stretch and fractions always do.
    flip, quarter = 1 - probability / 2, 1 - probability * 3 / 4
    rest = (1 - probability) ** 4
    np.testing.assert_allclose(unchanged, flip * quarter * rest * (1 - probability), atol=0.04)
    unchanged = np.isclose(color, np.eye(4), atol=1e-6).all(axis=(1, 2)).mean()
    np.testing.assert_allclose(unchanged, (1 - probability) ** 4 * flip, atol=0.04)


# ---- the whole ----


@pytest.mark.parametrize("channels", [3, 1])
def test_nothing_happens_with_a_probability_of_zero(channels):
    augment = ada.bgc()
    images = jnp.asarray(IMAGES[..., :channels])
    weights = jnp.asarray(np.random.default_rng(2).normal(size=images.shape), jnp.float32)

    def total(images, probability):
        augmented = augment(images, probability, jax.random.key(1))
        return (augmented * weights).sum(), augmented

    gradient, augmented = jax.jit(jax.grad(total, has_aux=True))(images, 0.0)
    np.testing.assert_allclose(augmented, images, atol=1e-5)
    np.testing.assert_allclose(gradient, weights, atol=1e-5)


def test_images_of_a_batch_are_augmented_each_in_its_own_way_and_differentiably():
    augment = ada.bgc()
    images = jnp.asarray(np.repeat(IMAGES[:1], 4, axis=0))

    def squares(images, probability):
        return (augment(images, probability, jax.random.key(3)) ** 2).sum()

    augmented = jax.jit(augment)(images, 1.0, jax.random.key(3))
    assert augmented.shape == images.shape
    for one, other in ((0, 1), (1, 2), (2, 3)):
        assert np.abs(augmented[one] - augmented[other]).max() > 0.1
    penalty = jax.jit(jax.grad(lambda x: (jax.grad(squares)(x, 1.0) ** 2).sum()))(images)
    assert np.isfinite(penalty).all() and np.abs(penalty).max() > 0
