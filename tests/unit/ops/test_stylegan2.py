"""Filtered resampling and modulated convolutions against definitions in numpy, and merged against plain."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops import stylegan2 as ops

TAPS = np.array([1.0, 3.0, 3.0, 1.0]) / 8


def upfirdn(image, taps, up, down, padding):
    """The definition, for one channel: zeros after every sample, padding, a true convolution, every down-th sample."""
    wide = np.zeros(np.array(image.shape) * up)
    wide[::up, ::up] = image
    wide = np.pad(wide, [(max(padding[0], 0), max(padding[1], 0))] * 2)
    low, high = -min(padding[0], 0), -min(padding[1], 0)
    wide = wide[low : wide.shape[0] - high, low : wide.shape[1] - high]
    kernel = np.outer(taps, taps)[::-1, ::-1] * up**2
    n = len(taps)
    size = wide.shape[0] - n + 1, wide.shape[1] - n + 1
    out = np.array([[(wide[i : i + n, j : j + n] * kernel).sum() for j in range(size[1])] for i in range(size[0])])
    return out[::down, ::down]


@pytest.mark.parametrize(
    "up, down, padding",
    [(1, 1, (1, 1)), (2, 1, (2, 1)), (1, 2, (1, 1)), (1, 1, (2, 2)), (2, 1, (-1, 3)), (1, 2, (-1, 0))],
)
def test_resampling_is_the_definition(up, down, padding):
    image = np.random.default_rng(0).standard_normal((6, 8))
    taps = np.array([1.0, 2.0, 5.0, 3.0])  # not symmetric: the filter is flipped
    expected = upfirdn(image, taps / taps.sum(), up, down, padding)
    found = ops.upfirdn(jnp.asarray(image, jnp.float32)[None, :, :, None], up, down, padding, taps)
    np.testing.assert_allclose(found[0, :, :, 0], expected, atol=1e-6)


def transposed(image, kernel):
    """A transposed convolution of stride 2 without padding: H -> 2H + 1; torch's weight (O, I, 3, 3)."""
    height, width, _ = image.shape
    out = np.zeros((2 * height + 1, 2 * width + 1, kernel.shape[0]))
    for i in range(height):
        for j in range(width):
            out[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += np.einsum("oiab,i->abo", kernel, image[i, j])
    return out


@pytest.mark.parametrize("resampling", ops.RESAMPLING)
def test_convolving_up_is_the_definition(resampling):
    rng = np.random.default_rng(0)
    image, kernel = rng.standard_normal((4, 5, 3)), rng.standard_normal((2, 3, 3, 3))
    wide = transposed(image, kernel)
    expected = np.stack([4 * upfirdn(wide[..., o], TAPS, 1, 1, (1, 1)) for o in range(2)], axis=-1)
    found = ops.convolve_up(*map(jnp.float32, (image[None], kernel.transpose(2, 3, 1, 0))), resampling)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("resampling", ops.RESAMPLING)
def test_convolving_down_is_the_definition(resampling, size):
    rng = np.random.default_rng(0)
    image, kernel = rng.standard_normal((8, 6, 3)), rng.standard_normal((size, size, 3, 2))
    pad = (2, 2) if size == 3 else (1, 1)
    low = np.stack([upfirdn(image[..., c], TAPS, 1, 1, pad) for c in range(3)], axis=-1)
    expected = np.zeros((4, 3, 2))
    for i in range(4):
        for j in range(3):
            patch = low[2 * i : 2 * i + size, 2 * j : 2 * j + size]
            expected[i, j] = np.einsum("abc,abco->o", patch, kernel)
    found = ops.convolve_down(*map(jnp.float32, (image[None], kernel)), resampling)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def reference(x, kernel):
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((pad, pad),) * 2, dimension_numbers=ops.DIMENSIONS)


def penalty(convolve, x, kernel):
    """Of the gradients, so that its own gradient is of second order."""
    by_x, by_kernel = jax.grad(lambda *args: (jnp.tanh(convolve(*args)) ** 2).sum(), argnums=(0, 1))(x, kernel)
    return (by_x**2).sum() + (by_kernel**3).sum()


@pytest.mark.parametrize("size", [1, 3])
def test_gradients_of_gradients_are_those_of_a_convolution(size):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.float32(rng.standard_normal(shape)) for shape in ((2, 6, 5, 3), (size, size, 3, 4)))
    ours, theirs = (jax.grad(penalty, argnums=(1, 2))(f, x, kernel) for f in (ops.convolve, reference))
    for one, other in zip(ours, theirs):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * float(jnp.abs(other).max()))


def test_all_convolutions_have_the_order_of_dimensions_that_is_fast_within_a_condition():
    """Of any other order, XLA's plain loops on CPUs take 45 times as long."""
    x, kernel = jnp.ones((2, 6, 6, 3)), jnp.ones((3, 3, 3, 4))
    text = str(jax.make_jaxpr(jax.grad(functools.partial(penalty, ops.convolve), argnums=(0, 1)))(x, kernel))
    orders = set(re.findall(r"lhs_spec=\([\d, ]+\), rhs_spec=\([\d, ]+\), out_spec=\([\d, ]+\)", text))
    assert len(orders) == 1, orders


def test_pixels_become_channels_and_back():
    x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    y = ops.space_to_depth(x)
    np.testing.assert_array_equal(y[1, 1, 2], x[1, 2:4, 4:6].reshape(-1))
    np.testing.assert_array_equal(ops.depth_to_space(y), x)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_each_example_has_a_kernel_of_its_own(up, demodulate):
    """The definition: a style scales the kernel's inputs, and the kernel is brought to unit length."""
    rng = np.random.default_rng(0)
    x, kernel, style = (rng.standard_normal(s).astype(np.float32) for s in ((2, 4, 4, 5), (3, 3, 5, 6), (2, 5)))
    found = ops.modulated_convolution(x, kernel, style, demodulate=demodulate, up=up)
    for row in range(2):
        own = kernel / np.sqrt(45) * style[row][None, None, :, None]
        if demodulate:
            own = own / np.sqrt((own**2).sum(axis=(0, 1, 2)) + 1e-8)
        expected = (ops.convolve_up if up else ops.convolve)(x[row : row + 1], jnp.asarray(own))
        np.testing.assert_allclose(found[row], expected[0], atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_no_dtype_overflows_forward_or_backward(dtype, scale):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 4, 4, 5)), dtype)
    kernel, style = jnp.float32(rng.standard_normal((3, 3, 5, 6))), scale * jnp.float32(rng.standard_normal((2, 5)))

    def total(x, kernel, style):
        return (ops.modulated_convolution(x, kernel, style).astype(jnp.float32) ** 2).sum()

    value, gradients = jax.value_and_grad(total, argnums=(0, 1, 2))(x, kernel, style)
    assert jnp.isfinite(value) and all(bool(jnp.isfinite(g).all()) for g in gradients)
