"""Convolutions of StyleGAN2 (arXiv 1912.04958): filtered resampling and modulation, NHWC.

The filter is [1, 3, 3, 1] on both axes. A convolution that resamples is computed in one of two ways
that agree up to rounding: 'plain', a strided convolution and a filter, as the references do it, and
'merged', which folds the filter into the kernel and has neither strides nor dilation, whose
gradients XLA is slow at on CPUs. References: NVlabs/stylegan2-ada-pytorch
(torch_utils/ops/upfirdn2d.py, training/networks.py) and rosinality/stylegan2-pytorch (model.py).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.ops.normalize import inverse_deviation

TAPS = (1.0, 3.0, 3.0, 1.0)
RESAMPLING = ("merged", "plain")
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def upfirdn(
    x: jax.Array,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int] = (0, 0),
    taps: Sequence[float] = TAPS,
) -> jax.Array:
    """Inserts zeros, pads, filters and thins out, on both axes.

    Args:
        x: (B, H, W, C).
        up: Factor of upsampling: each sample is followed by up - 1 zeros, the last one too.
        down: Factor of downsampling: every down-th filtered sample is kept, from the first one on.
        padding: Zeros before and after both axes; a negative number crops.
        taps: The filter of one axis; it is scaled to a sum of `up`, so that the mean is kept.

    Returns:
        (B, h, w, C) with h = (up H + sum of padding - len(taps)) // down + 1, of the dtype of x.
    """
    scaled = up * np.asarray(taps) / np.sum(taps)
    for axis in (1, 2):
        config = [(0, 0, 0)] * x.ndim
        config[axis] = (padding[0], padding[1] + up - 1, up - 1)
        x = jax.lax.pad(x, jnp.zeros((), x.dtype), config)
        size = x.shape[axis] - len(scaled) + 1
        x = sum(
            jax.lax.slice_in_dim(x, k, k + size, down, axis) * jnp.asarray(tap, x.dtype)
            for k, tap in enumerate(scaled[::-1])
        )
    return x


@jax.custom_vjp
def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution of stride 1 that keeps the size:
    (B, H, W, I), (k, k, I, O) with k odd -> (B, H, W, O).

    Its gradients of any order are such convolutions and `_kernel_gradient`, all with the same order
    of dimensions: XLA 0.10 on CPUs computes any other order within a `lax.cond`, where the
    regularizers of a GAN are, in plain loops, 45 times slower.
    """
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((pad, pad), (pad, pad)), dimension_numbers=DIMENSIONS
    )


def _transposed(kernel: jax.Array) -> jax.Array:
    """The kernel of the gradient by the input."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _kernel_gradient(x: jax.Array, y: jax.Array, size: int) -> jax.Array:
    """The gradient of the kernel: x (B, H, W, I), gradient of the output y (B, H, W, O) -> (size,
    size, I, O).
    """
    x, y, pad = x.transpose(3, 1, 2, 0), y.transpose(1, 2, 0, 3), size // 2
    found = jax.lax.conv_general_dilated(
        x, y, (1, 1), ((pad, pad), (pad, pad)), dimension_numbers=DIMENSIONS
    )
    return found.transpose(1, 2, 0, 3)


def _keep_inputs(x, y, *size):
    function = _kernel_gradient if size else convolve
    return function(x, y, *size), (x, y)


def _convolve_backward(inputs, gradient):
    x, kernel = inputs
    return convolve(gradient, _transposed(kernel)), _kernel_gradient(x, gradient, kernel.shape[0])


def _kernel_gradient_backward(size, inputs, gradient):
    x, y = inputs
    return convolve(y, _transposed(gradient)), convolve(x, gradient)


convolve.defvjp(_keep_inputs, _convolve_backward)
_kernel_gradient.defvjp(_keep_inputs, _kernel_gradient_backward)


def convolve_up(x: jax.Array, kernel: jax.Array, resampling: str = "merged") -> jax.Array:
    """A transposed 3 x 3 convolution of stride 2 and the filter: (B, H, W, I) -> (B, 2H, 2W, O).

    Args:
        x: (B, H, W, I).
        kernel: (3, 3, I, O), the torch weight transposed and not flipped.
        resampling: 'merged' or 'plain'.
    """
    flipped = kernel[::-1, ::-1]
    if resampling == "plain":
        dilated = jax.lax.conv_general_dilated(
            x, flipped, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2), dimension_numbers=DIMENSIONS
        )
        return upfirdn(dilated, padding=(1, 1), taps=TAPS) * jnp.asarray(4, x.dtype)
    features = kernel.shape[-1]
    # (6, 6, I, O), of the map with zeros between its samples
    merged = 4 * _filtered_kernel(flipped)
    # Output 2p + q meets every second tap: those of odd number if q is 0,
    # else those of even number.
    phases = merged.reshape(3, 2, 3, 2, -1, features)[:, ::-1, :, ::-1]
    phases = phases.transpose(0, 2, 4, 1, 3, 5).reshape(3, 3, -1, 4 * features)
    return depth_to_space(convolve(x, phases))


def convolve_down(x: jax.Array, kernel: jax.Array, resampling: str = "merged") -> jax.Array:
    """The filter and a convolution of stride 2, k = 1 or 3: (B, H, W, I) -> (B, H/2, W/2, O)."""
    if kernel.shape[0] == 1:
        return convolve(upfirdn(x, down=2, padding=(1, 1)), kernel)
    if resampling == "plain":
        filtered = upfirdn(x, padding=(2, 2))
        return jax.lax.conv_general_dilated(
            filtered, kernel, (2, 2), "VALID", dimension_numbers=DIMENSIONS
        )
    merged = _filtered_kernel(kernel).reshape(3, 2, 3, 2, *kernel.shape[2:])
    blocks = merged.transpose(0, 2, 1, 3, 4, 5).reshape(3, 3, -1, kernel.shape[3])
    return convolve(space_to_depth(x), blocks)


def _filtered_kernel(kernel: jax.Array) -> jax.Array:
    """The kernel (6, 6, I, O) that does what a kernel (3, 3, I,
    O) and the filter do one after the other.
    """
    kernel = kernel.transpose(2, 0, 1, 3)  # (I, 3, 3, O)
    return upfirdn(kernel, padding=(3, 3)).transpose(1, 2, 0, 3)


def space_to_depth(x: jax.Array) -> jax.Array:
    """Squares of 2 x 2 pixels become channels: (B, 2H, 2W, C) -> (B, H, W, 4C),
    the pixel before the channel.
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, 4 * channels)


def depth_to_space(x: jax.Array) -> jax.Array:
    """The inverse of `space_to_depth`: (B, H, W, 4C) -> (B, 2H, 2W, C)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)


def modulated_convolution(
    x: jax.Array,
    kernel: jax.Array,
    style: jax.Array,
    *,
    demodulate: bool = True,
    up: bool = False,
    resampling: str = "merged",
) -> jax.Array:
    """A convolution whose input channels are scaled by a style,
    example by example (section 2.2 of the paper).

    The batch shares one kernel: the style scales the input, and the demodulation the output, which
    equals a kernel for every example.

    Args:
        x: (B, H, W, I).
        kernel: (k, k, I, O) as it is stored, float32;
            the gain of equalized learning rates is applied here.
        style: (B, I) float32.
        demodulate: Scale the outputs to unit variance, as for inputs of unit variance.
        up: True to double the size, k = 3.
        resampling: 'merged' or 'plain'.

    Returns:
        (B, H, W, O), or (B, 2H, 2W, O), of the dtype of x.
    """
    height, width, channels, _ = kernel.shape
    kernel = kernel * (1 / np.sqrt(height * width * channels))
    largest = None
    if demodulate and x.dtype != jnp.float32:
        # Products of 16 bits overflow; the factor is given back with the demodulation.
        largest = jnp.maximum(jnp.abs(style).max(axis=1, keepdims=True), 1e-8)
    scale = style if largest is None else style / largest
    modulated = x * scale[:, None, None, :].astype(x.dtype)
    weight = kernel.astype(x.dtype)
    out = convolve_up(modulated, weight, resampling) if up else convolve(modulated, weight)
    if not demodulate:
        return out
    power = jnp.einsum("bi,io->bo", style**2, (kernel**2).sum(axis=(0, 1)))
    factor = inverse_deviation(power)
    if largest is not None:
        factor = factor * largest
    return out * factor[:, None, None, :].astype(x.dtype)
