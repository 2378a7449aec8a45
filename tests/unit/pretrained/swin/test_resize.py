"""Resizing position tables: PyTorch's bicubic interpolation and SimMIM's spline on a geometric grid."""

import numpy as np
import pytest
from scipy.interpolate import RectBivariateSpline

from swin_jax.core.errors import UserError
from swin_jax.pretrained.swin import resize


@pytest.mark.parametrize("method", ["bicubic", "geometric"])
def test_rows_are_the_first_axis_and_channels_stay_apart(method):
    table = np.random.default_rng(0).normal(size=(9, 9, 2)).astype(np.float32)
    resized = resize.resize_rows(table.reshape(81, 2), (9, 9), (15, 15), method).reshape(15, 15, 2)
    swapped = table.transpose(1, 0, 2)[..., ::-1].reshape(81, 2)
    swapped = resize.resize_rows(swapped, (9, 9), (15, 15), method).reshape(15, 15, 2)
    np.testing.assert_allclose(resized, swapped.transpose(1, 0, 2)[..., ::-1], atol=1e-6)
    rows = np.repeat(np.arange(9.0), 9)[:, None]
    resized = resize.resize_rows(rows, (9, 9), (15, 15), method).reshape(15, 15)
    np.testing.assert_allclose(resized, np.broadcast_to(resized[:, :1], (15, 15)), atol=1e-6)
    assert np.all(np.diff(resized[1:-1, 0]) > 0)
    with pytest.raises(UserError, match="15 rows is not of 4 x 4"):
        resize.resize_rows(np.zeros((15, 2)), (4, 4), (5, 5), method)


def test_the_ratio_is_that_of_the_official_bisection():
    assert resize.progression_ratio(11, 13) == pytest.approx(1.0912813, abs=1e-7)
    assert resize.progression_ratio(23, 27) == pytest.approx(1.0328930, abs=1e-7)


@pytest.mark.parametrize("old, new", [(11, 13), (23, 27), (13, 23), (27, 13), (47, 63), (5, 9), (5, 5)])
def test_the_geometric_grid_is_scipys_spline(old, new):
    ratio = resize.progression_ratio(old, new)
    side, reach = [1.0], 1.0
    for i in range(1, old // 2):
        reach += ratio**i
        side.append(reach)
    x = np.array([*(-p for p in reversed(side)), 0, *side])
    table = np.random.default_rng(old).normal(size=(old, old))
    to = np.arange(-(new // 2), new // 2 + 1)
    wanted = RectBivariateSpline(x, x, table, kx=3, ky=3, s=0)(to, to)
    matrix = resize.geometric_matrix(old, new)
    np.testing.assert_allclose(matrix @ table @ matrix.T, wanted, atol=1e-6)


@pytest.mark.parametrize("method", ["bicubic", "geometric"])
@pytest.mark.parametrize("old, new", [((9, 9), (9, 13)), ((5, 9), (7, 9)), ((5, 9), (7, 11)), ((7, 5), (5, 7))])
def test_each_axis_is_resized_by_itself(old, new, method):
    rows, columns = np.random.default_rng(0).normal(size=(2, 13))
    rows, columns = rows[: old[0]], columns[: old[1]]
    along = [
        line if a == b else resize.resize_rows(line[:, None], (a, 1), (b, 1), method)[:, 0]
        for line, a, b in ((rows, old[0], new[0]), (columns, old[1], new[1]))
    ]
    table = np.outer(rows, columns).reshape(-1, 1)
    found = resize.resize_rows(table, old, new, method).reshape(new)
    np.testing.assert_allclose(found, np.outer(*along), atol=1e-6)


def test_the_spline_keeps_cubics_and_goes_through_its_points():
    x = np.array([-5.0, -2.2, -1.0, 0.0, 0.7, 3.0, 4.0])
    at = np.linspace(-5, 4, 31)
    cubic = np.polynomial.Polynomial([1.0, -2.0, 0.5, 0.3])
    np.testing.assert_allclose(resize.spline_matrix(x, at) @ cubic(x), cubic(at), atol=1e-10)
    np.testing.assert_allclose(resize.spline_matrix(x, x), np.eye(7), atol=1e-12)
    np.testing.assert_allclose(resize.spline_matrix(x, np.array([-9.0, 9.0])), np.eye(7)[[0, -1]], atol=1e-12)


def test_a_window_too_small_for_a_spline_is_named():
    with pytest.raises(UserError, match="windows of 3 or more, not 2"):
        resize.resize_rows(np.zeros((9, 1)), (3, 3), (5, 5), "geometric")
