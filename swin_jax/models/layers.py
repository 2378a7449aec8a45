"""Layers that the networks of this package share,
with the settings and initializers of the official code.

References: microsoft/Swin-Transformer and timm 0.4.12 (the version it pins).
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.ops import linear, window
from swin_jax.ops.normalize import widen

# timm's trunc_normal_(std=0.02) cuts at +-2, a hundred standard deviations:
# it is a plain normal distribution.
init_linear = nn.initializers.normal(0.02)

PREPARE = "; normalize them first, e.g. with swin_jax.preprocess(model)"  # for check_floats


def check_some(batch: jax.Array, what: str) -> None:
    """Raises UserError for an empty batch of images or videos, which `what` calls so."""
    if isinstance(batch.shape[0], int) and batch.shape[0] == 0:
        raise UserError(f"a batch of no {what} has no outputs: give at least one")


def check_floats(batch: jax.Array, what: str, advice: str) -> None:
    """Raises UserError for anything but an array of floats.

    Args:
        batch: Images or videos, or whatever was given for them, such as the path of a file.
        what: Their name in the error, a plural.
        advice: The end of the error: how to make them floats.
    """
    kind = getattr(batch, "dtype", None)
    if kind is None:
        raise UserError(f"{what} are a {type(batch).__name__}{advice}")
    try:
        floating = jnp.issubdtype(kind, jnp.floating)
    except TypeError:  # of another library
        raise UserError(f"{what} are a {type(batch).__name__} of {kind}{advice}") from None
    if not floating:
        raise UserError(f"{what} are {kind}{advice}")


def check_key(module: nn.Module, name: str, cause: str = "train=True") -> None:
    """Raises UserError where a module is to draw random numbers and was given no key to do so.

    Args:
        module: The module that draws, bound.
        name: The name of the key, under which `apply` takes it.
        cause: The argument that asks for random numbers.
    """
    # Flax takes the key 'params' where there is none of the name.
    if not (module.has_rng(name) or module.has_rng("params")):
        raise UserError(
            f"{cause} draws random numbers: give apply(..., rngs={{{name!r}: jax.random.key(0)}}), "
            "a new key for each call"
        )


def init_conv(fan_in: int):
    """PyTorch's default for convolutions, weights and biases alike: uniform in +-1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )


class LayerNorm(nn.LayerNorm):
    """flax's, whose gradient stays finite in float16 where the input hardly varies."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(widen(x))


def layer_norm(dtype: Any, name: str | None = None, epsilon: float = 1e-5, **kwargs) -> LayerNorm:
    """LayerNorm with PyTorch's epsilon; statistics in float32, the output in `dtype`."""
    return LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name, **kwargs)


def conv(in_channels: int, features: int, kernel: int, stride: int, types: dict) -> nn.Conv:
    """A convolution without a bias that pads `kernel // 2` on every side, as PyTorch does.

    'SAME' would shift the grid under strides.
    """
    pad = kernel // 2
    init = init_conv(kernel * kernel * in_channels)
    types = dict(use_bias=False, kernel_init=init, **types)
    return nn.Conv(features, (kernel,) * 2, (stride,) * 2, padding=((pad, pad),) * 2, **types)


class BatchNorm(nn.BatchNorm):
    """flax's, with PyTorch's running variance, which is the unbiased one, and a gradient that
    stays finite in float16 where the input hardly varies.
    """

    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
        before = self.get_variable("batch_stats", "var")
        found = super().__call__(widen(x), use_running_average)
        frozen = nn.merge_param("frozen", self.use_running_average, use_running_average)
        if frozen or self.is_initializing():
            return found
        values = math.prod(x.shape[:-1])
        after = self.get_variable("batch_stats", "var")
        # flax has moved it by a share of the biased variance, which is (n - 1) / n of the other.
        added = (after - self.momentum * before) / max(values - 1, 1)
        self.put_variable("batch_stats", "var", after + added)
        return found


def batch_norm(types: dict, zero: bool = False) -> BatchNorm:
    """Batch norm with PyTorch's epsilon and momentum; `zero` starts its gain at 0."""
    init = nn.initializers.zeros if zero else nn.initializers.ones
    kinds = dict(use_fast_variance=False, scale_init=init, **types)
    return BatchNorm(momentum=0.9, epsilon=1e-5, **kinds)


def drop_path(x: jax.Array, uniform: jax.Array | None, rate: float | jax.Array) -> jax.Array:
    """Stochastic depth (arXiv 1603.09382): zeroes a whole sample with probability `rate`,
    scales the rest by 1/keep.

    Args:
        x: (B, ...).
        uniform: (B,) draws from [0, 1), or None for the identity.
        rate: Probability to drop, a number or a float32 scalar.
    """
    if uniform is None or (isinstance(rate, (int, float)) and rate == 0):
        return x
    keep = 1 - rate
    kept = (uniform < keep).reshape((-1,) + (1,) * (x.ndim - 1))
    return jnp.where(kept, x / keep, 0).astype(x.dtype)


class Mlp(nn.Module):
    """Linear, exact GELU, Linear on the last axis."""

    hidden: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        shared = dict(kernel_init=init_linear, dot_general=linear.dot_general, **types)
        hidden = nn.gelu(nn.Dense(self.hidden, **shared, name="fc1")(x), approximate=False)
        return nn.Dense(x.shape[-1], **shared, name="fc2")(hidden)


class PatchProjection(nn.Module):
    """A convolution whose stride is its kernel size, as one matrix product;
    the kernel keeps the layout of a conv.
    """

    features: int
    patch: tuple[int, ...]
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        fan_in = math.prod(self.patch) * x.shape[-1]
        init = init_conv(fan_in)
        kernel = self.param(
            "kernel", init, (*self.patch, x.shape[-1], self.features), self.param_dtype
        )
        x = window.pad_to_multiple(x, self.patch).astype(self.dtype)
        grid = [size // p for size, p in zip(x.shape[1:-1], self.patch)]
        # First the patches of each frame: whole pixels would be mostly a TPU's padding.
        if frames := self.patch[:-2]:
            images = window.partition(x.reshape(-1, *x.shape[-3:]), self.patch[-2:])
            x = images.reshape(*x.shape[:-3], math.prod(grid[-2:]), -1)
            patches = window.partition(x, (*frames, 1))
        else:
            patches = window.partition(x, self.patch)
        patches = patches.reshape(x.shape[0], *grid, fan_in)
        kernel = kernel.reshape(fan_in, -1).astype(self.dtype)
        out = linear.dot_general(patches, kernel, (((patches.ndim - 1,), (0,)), ((), ())))
        if not self.use_bias:
            return out
        bias = self.param("bias", init, (self.features,), self.param_dtype)
        return out + bias.astype(self.dtype).reshape((1,) * (out.ndim - 1) + (-1,))


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens, then LayerNorm: (B, *size, c) -> (B, *size / patch, C)."""

    features: int
    patch: tuple[int, ...]
    norm: bool = True
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = PatchProjection(self.features, self.patch, self.dtype, self.param_dtype, name="proj")(x)
        return layer_norm(self.dtype, "norm", param_dtype=self.param_dtype)(x) if self.norm else x
