import numpy as np
import pytest

from swin_jax.models.swin import Swin
from swin_jax.ops import window_geometry


def test_relative_position_index_golden():
    np.testing.assert_array_equal(
        window_geometry.relative_position_index((2, 2)), [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    )
    index = window_geometry.relative_position_index((2, 3))
    np.testing.assert_array_equal(index[0], [7, 6, 5, 2, 1, 0])
    np.testing.assert_array_equal(index[-1], [14, 13, 12, 9, 8, 7])
    index = window_geometry.relative_position_index((7, 7))
    assert (np.diag(index) == 84).all() and index[0, 48] == 0 and index[48, 0] == 168 and index.sum() == 201_684
    np.testing.assert_array_equal(index[0, :9], [84, 83, 82, 81, 80, 79, 78, 71, 70])


@pytest.mark.parametrize(
    "spatial, size, shift, masked",
    [((4, 4), (2, 2), (1, 1), [0, 8, 8, 12]), ((14, 14), (7, 7), (3, 3), [0, 1176, 1176, 1776])],
)
def test_shift_mask_golden(spatial, size, shift, masked):
    mask = window_geometry.shift_mask(spatial, size, shift)
    np.testing.assert_array_equal((mask == -100).sum(axis=(1, 2)), masked)


def test_shift_mask_golden_sum():
    assert window_geometry.shift_mask((56, 56), (7, 7), (3, 3)).sum() == -1_824_000


def test_shift_mask_of_an_axis_without_shift_does_not_cut_it():
    mask = window_geometry.shift_mask((4, 8), (4, 4), (0, 2))
    per_axis = window_geometry.shift_mask((8,), (4,), (2,))  # (2, 4, 4)
    np.testing.assert_array_equal(mask.reshape(2, 4, 4, 4, 4)[:, 1, :, 3, :], per_axis)


@pytest.mark.parametrize(
    "grid, size, small, expected",
    [
        ((56, 56), (7, 7), "shrink", ((7, 7), (3, 3))),
        ((7, 7), (7, 7), "shrink", ((7, 7), (0, 0))),
        ((6, 12), (7, 7), "shrink", ((6, 6), (0, 0))),
        ((5, 6), (5, 6), "shrink", ((5, 6), (0, 0))),
        ((5, 12), (5, 6), "shrink", ((5, 6), (0, 3))),
        ((4, 20), (5, 6), "shrink", ((4, 6), (0, 3))),
        ((10, 5), (5, 6), "shrink", ((5, 5), (2, 0))),
        ((6, 12), (7, 7), "shrink_axis", ((6, 7), (0, 3))),
        ((10, 7), (7, 7), "shrink_axis", ((7, 7), (3, 0))),
        ((2, 14, 14), (8, 7, 7), "axis", ((2, 7, 7), (0, 3, 3))),
        ((7, 7), (7, 7), "keep", ((7, 7), (3, 3))),
        ((6, 12), (7, 7), "pad", ((7, 7), (0, 3))),
        ((8, 5), (4, 5), "pad", ((4, 5), (2, 0))),
    ],
)
def test_fit(grid, size, small, expected):
    assert window_geometry.fit(grid, size, small) == expected


@pytest.mark.parametrize(
    "window, pretrained, expected",
    [
        (8, 0, [0, 0.366512, 0.572069, 0.715614, 0.826016, 0.915745, 0.991335, 1.056642]),
        (16, 12, [0, 0.262832, 0.431819, 0.556617, 0.655611]),
        (12, 6, [0, 0.459504, 0.690130, 0.845351, 0.962508, 1.056642]),
    ],
)
def test_log_coordinates_are_the_official_ones(window, pretrained, expected):
    rows = window_geometry.log_coordinates((window, window), (pretrained, pretrained)).reshape(2 * window - 1, -1, 2)
    middle = window - 1
    np.testing.assert_allclose(rows[middle : middle + len(expected), 0, 0], expected, atol=1e-6)
    np.testing.assert_array_equal(rows[..., 0], rows[..., 1].T)  # the first axis of the table is the first coordinate
    np.testing.assert_array_equal(rows, -rows[::-1, ::-1])


@pytest.mark.parametrize("window, pretrained, largest", [(16, 12, 1.191330), (24, 12, 1.382633), (8, 6, 1.202936)])
def test_largest_log_coordinate(window, pretrained, largest):
    assert window_geometry.log_coordinates((window,), (pretrained,)).max() == pytest.approx(largest, abs=1e-6)


def test_log_coordinates_of_a_window_of_one_token_are_zero():
    np.testing.assert_array_equal(window_geometry.log_coordinates((1, 1), (0, 0)), [[0, 0]])
    assert np.isfinite(window_geometry.log_coordinates((1, 3), (1, 0))).all()


def test_coordinates_belong_to_the_rows_that_the_index_means():
    window = (2, 3)
    rows = window_geometry.log_coordinates(window, (0, 0))
    places = np.indices(window).reshape(2, -1).T
    index = window_geometry.relative_position_index(window)
    for a, b in np.ndindex(6, 6):
        np.testing.assert_array_equal(np.sign(rows[index[a, b]]), np.sign(places[a] - places[b]))


@pytest.mark.parametrize(
    "fields, windows",
    [
        (dict(image_size=224, window_size=7), [7, 7, 7, 7]),
        (dict(image_size=192, window_size=12), [12, 12, 12, 6]),
        (dict(image_size=256, window_size=16), [16, 16, 16, 8]),
        (dict(image_size=384, window_size=24), [24, 24, 24, 12]),
        (dict(image_size=224, window_size=14), [14, 14, 14, 7]),
        (dict(image_size=224, window_size=((30, 30), 30, 30, 15), small="keep"), [30, 30, 30, 15]),
    ],
)
def test_windows_of_the_published_models(fields, windows):
    assert window_geometry.stage_geometry(Swin(**fields))[1] == [(w, w) for w in windows]


def test_bicubic_matrix_is_pytorchs():
    matrix = window_geometry.bicubic_matrix(13, 23)
    np.testing.assert_allclose(matrix[0, :3], [1.09986, -0.09986, 0], atol=1e-5)
    np.testing.assert_allclose(matrix[1, :3], [0.669434, 0.389743, -0.059176], atol=1e-5)
    squares = matrix @ np.arange(13) ** 2
    expected = [-0.09986, 0.153037, 0.766335, 2.076765, 4.249938, 6.556752]
    np.testing.assert_allclose(squares[:6], expected, atol=1e-5)
    np.testing.assert_allclose(squares[[11, 21, 22]], [36, 137.639681, 146.296786], atol=1e-5)
