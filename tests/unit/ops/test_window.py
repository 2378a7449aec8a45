import jax
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.ops import window, window_geometry


@pytest.mark.parametrize("spatial, size", [((8, 12), (4, 4)), ((4, 6), (2, 3)), ((4, 6, 8), (2, 3, 4)), ((9,), (3,))])
def test_reverse_undoes_partition(spatial, size):
    x = np.random.default_rng(0).normal(size=(2, *spatial, 3)).astype(np.float32)
    np.testing.assert_array_equal(window.reverse(window.partition(x, size), size, spatial), x)


def test_partition_is_batch_major_then_raster():
    x = np.arange(2 * 4 * 6).reshape(2, 4, 6, 1)
    windows = np.asarray(window.partition(x, (2, 3)))
    assert windows.shape == (8, 6, 1)
    np.testing.assert_array_equal(windows[1, :, 0], [3, 4, 5, 9, 10, 11])  # second window of the first row
    assert windows[4, 0, 0] == 24  # the second image starts after all windows of the first


@pytest.mark.parametrize("size", [(1,), (5,), (2, 3), (4, 4), (2, 3, 4), (1, 3)])
def test_relative_bias_is_the_indexed_table(size):
    index = window_geometry.relative_position_index(size)
    rng = np.random.default_rng(0)
    table = rng.normal(size=(np.prod(2 * np.array(size) - 1), 2)).astype(np.float32)
    cotangent = rng.normal(size=(2, *index.shape)).astype(np.float32)
    bias, pull = jax.vjp(lambda t: window.relative_bias(t, size), table)
    np.testing.assert_array_equal(bias, table[index].transpose(2, 0, 1))
    expected = np.zeros_like(table)
    np.add.at(expected, index, cotangent.transpose(1, 2, 0))
    np.testing.assert_allclose(pull(cotangent)[0], expected, rtol=1e-4, atol=1e-5)


def test_cut_to_multiple_keeps_whole_windows():
    x = np.arange(2 * 5 * 6, dtype=np.float32).reshape(2, 5, 6, 1)
    np.testing.assert_array_equal(window.cut_to_multiple(x, (2, 4)), x[:, :4, :4])
    np.testing.assert_array_equal(window.cut_to_multiple(x, (5, 3)), x)
    with pytest.raises(UserError, match="smaller than a patch"):
        window.cut_to_multiple(x, (2, 7))
