"""Resampling by matrices, against what each is defined as."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from swin_jax.ops.resampling import (
    adaptive_average,
    adaptive_average_pool,
    align_corners,
    area,
    bicubic,
    face_view,
    half_pixels,
    resample,
    resample_bytes,
    resize_bilinear,
)

RNG = np.random.default_rng(0)


def bins(matrix):
    """(first place, one behind the last) of each row."""
    return [(int(row.nonzero()[0][0]), int(row.nonzero()[0][-1]) + 1) for row in matrix]


@pytest.mark.parametrize("before, after", [(188, 112), (1024, 256), (140, 256), (7, 7), (5, 1), (1, 3), (10, 7)])
def test_an_adaptive_pool_averages_its_bins(before, after):
    matrix, x = adaptive_average(before, after), RNG.normal(size=before)
    starts = [int(np.floor(i * before / after)) for i in range(after)]
    ends = [int(np.ceil((i + 1) * before / after)) for i in range(after)]
    assert bins(matrix) == list(zip(starts, ends))
    np.testing.assert_allclose(matrix @ x, [x[a:b].mean() for a, b in zip(starts, ends)], atol=1e-12)


def test_the_bins_of_the_face_are_those_of_the_released_code():
    found = bins(adaptive_average(188, 112))
    assert found[:8] == [(0, 2), (1, 4), (3, 6), (5, 7), (6, 9), (8, 11), (10, 12), (11, 14)]
    lengths = [end - start for start, end in found]
    assert (lengths.count(2), lengths.count(3)) == (40, 72)


@pytest.mark.parametrize(
    "before, after", [(64, 224), (256, 224), (1024, 224), (32, 224), (64, 64), (96, 32), (128, 96)]
)
def test_an_area_is_what_repeating_and_pooling_gives(before, after):
    matrix, x = area(before, after), RNG.normal(size=before)
    repeated = np.repeat(x, after // 32)
    np.testing.assert_allclose(matrix @ x, repeated.reshape(after, before // 32).mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)


def test_rows_of_areas_are_the_known_ones():
    large, small = area(1024, 224), area(256, 224)
    np.testing.assert_allclose(large[0, :6], [0.21875] * 4 + [0.125, 0], atol=1e-12)
    np.testing.assert_allclose(large[1, 4:11], [0.09375, *[0.21875] * 4, 0.03125, 0], atol=1e-12)
    np.testing.assert_allclose(small[0, :3], [0.875, 0.125, 0], atol=1e-12)


@pytest.mark.parametrize("before, after", [(16, 32), (32, 64), (2, 4), (5, 5), (1, 3), (7, 1)])
def test_interpolation_aligns_the_corners(before, after):
    matrix, x = align_corners(before, after), RNG.normal(size=before)
    wanted = np.interp(np.linspace(0, before - 1, after) if after > 1 else [0], np.arange(before), x)
    np.testing.assert_allclose(matrix @ x, wanted, atol=1e-12)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(matrix[0], np.eye(before)[0])
    if after > 1:
        np.testing.assert_allclose(matrix[-1], np.eye(before)[-1], atol=1e-12)


def test_rows_and_columns_have_matrices_of_their_own():
    image, rows, columns = (RNG.normal(size=size) for size in ((2, 3, 5, 2), (4, 3), (6, 5)))
    found = resample(jnp.asarray(image, jnp.bfloat16), rows, columns)
    wanted = np.einsum("ih,bhwc,jw->bijc", rows, np.asarray(jnp.asarray(image, jnp.bfloat16), np.float64), columns)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("height, width", [(256, 256), (512, 512), (140, 140), (140, 300), (256, 250)])
def test_the_face_is_pooled_cut_and_pooled(height, width):
    image = RNG.normal(size=(1, height, width, 3)).astype(np.float32)
    whole = image[0].astype(np.float64)
    if height != 256:
        whole = pool(pool(whole, 256).swapaxes(0, 1), 256).swapaxes(0, 1)
    face = whole[35:223, 32:220]
    wanted = pool(pool(face, 112).swapaxes(0, 1), 112).swapaxes(0, 1)
    np.testing.assert_allclose(face_view(jnp.asarray(image))[0], wanted, atol=1e-5)


def pool(x, after):
    """Adaptive average pooling of the first axis."""
    edges = [(i * len(x) // after, -(-(i + 1) * len(x) // after)) for i in range(after)]
    return np.stack([x[start:end].mean(axis=0) for start, end in edges])


@pytest.mark.parametrize("before, after", [(32, 224), (64, 17), (24, 24), (7, 20)])
def test_bytes_are_resized_as_by_pillow(before, after):
    picture = RNG.integers(0, 256, (before, before + 5, 3), np.uint8)
    expected = np.asarray(Image.fromarray(picture).resize((after, after), Image.Resampling.BICUBIC))
    matrices = bicubic(before, after), bicubic(before + 5, after)
    found = np.asarray(resample_bytes(jnp.asarray(picture, jnp.float32)[None], *matrices)[0])
    assert (found == np.floor(found)).all()
    # Pillow's weights have 22 bits, so that a half may be rounded the other way.
    assert np.abs(found - expected).max() <= 1 and (found != expected).mean() < 1e-3


def test_half_pixels_are_interpolated_between_centers():
    # Recorded from torch.nn.functional.interpolate(mode='bilinear', align_corners=False), torch 2.13.
    line = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(half_pixels(3, 6) @ line, [1, 1.25, 1.75, 2.5, 3.5, 4], rtol=1e-12)
    np.testing.assert_allclose(half_pixels(3, 2) @ line, [1.25, 3.5], rtol=1e-12)
    assert np.array_equal(half_pixels(5, 5), np.eye(5))


@pytest.mark.parametrize("size", [(6, 3), (4, 9), (1, 1), (5, 7)])
@pytest.mark.parametrize("resize, matrix", [(resize_bilinear, half_pixels), (adaptive_average_pool, adaptive_average)])
def test_maps_are_resized_and_pooled_by_their_matrices_forward_and_backward(resize, matrix, size):
    image, weights = RNG.normal(size=(2, 5, 7, 3)), RNG.normal(size=(2, *size, 3))
    rows, columns = matrix(5, size[0]), matrix(7, size[1])
    found, back = jax.vjp(lambda x: resize(x, size), jnp.asarray(image, jnp.float32))
    np.testing.assert_allclose(found, np.einsum("ih,bhwc,jw->bijc", rows, image, columns), atol=2e-6)
    gradient = np.einsum("ih,bijc,jw->bhwc", rows, weights, columns)
    np.testing.assert_allclose(back(jnp.asarray(weights, jnp.float32))[0], gradient, atol=2e-6)
    assert resize(jnp.asarray(image, jnp.bfloat16), size).dtype == jnp.bfloat16
