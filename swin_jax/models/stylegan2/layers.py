"""Layers of StyleGAN2 with equalized learning rates:
kernels are stored large and scaled when they are used.

Karras et al., arXiv 1710.10196, section 4.1, and 1912.04958. References: training/networks.py of
NVlabs/stylegan2-ada-pytorch, model.py of rosinality/stylegan2-pytorch.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.ops import stylegan2 as ops
from swin_jax.ops.batch_sharding import gather_inputs

GAIN = math.sqrt(2)  # of the activation
SLOPE = 0.2


def activate(x: jax.Array, gain: float = 1.0, clamp: float | None = None) -> jax.Array:
    """Leaky ReLU times sqrt(2) and `gain`, then clamped to +-clamp * gain."""
    x = nn.leaky_relu(x, SLOPE) * jnp.asarray(GAIN * gain, x.dtype)
    return x if clamp is None else jnp.clip(x, -clamp * gain, clamp * gain)


class FullyConnected(nn.Module):
    """(..., I) -> (..., features) in float32.

    Attributes:
        features: Number of outputs.
        lr_multiplier: Factor of the learning rate; the stored kernel has the
            deviation 1 / lr_multiplier.
        bias: Initial value of the bias, as it takes effect.
        activation: Apply `activate`.
    """

    features: int
    lr_multiplier: float = 1.0
    bias: float = 0.0
    activation: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.normal(1 / self.lr_multiplier)
        kernel = gather_inputs(self.param("kernel", init, (x.shape[-1], self.features)))
        constant = nn.initializers.constant(self.bias / self.lr_multiplier)
        bias = self.param("bias", constant, (self.features,))
        x = x.astype(jnp.float32) @ (kernel * (self.lr_multiplier / math.sqrt(x.shape[-1])))
        x = x + (bias * self.lr_multiplier).reshape((1,) * (x.ndim - 1) + (-1,))
        return activate(x) if self.activation else x


class Convolution(nn.Module):
    """A convolution of the discriminator: (B, H, W, I) -> (B, H, W, features), or half the size.

    Attributes:
        features: Number of output channels.
        size: Side of the kernel, 1 or 3.
        down: Halve the size.
        use_bias: True to add a bias.
        activation: Apply `activate`.
        gain: Factor of the output.
        clamp: Bound of the output before `gain`, or None.
        resampling: 'merged' or 'plain', see `ops.stylegan2`.
    """

    features: int
    size: int = 3
    down: bool = False
    use_bias: bool = True
    activation: bool = True
    gain: float = 1.0
    clamp: float | None = None
    resampling: str = "merged"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = gather_inputs(self.param("kernel", nn.initializers.normal(1.0), shape))
        kernel = (kernel * (1 / math.sqrt(math.prod(shape[:3])))).astype(x.dtype)
        x = ops.convolve_down(x, kernel, self.resampling) if self.down else ops.convolve(x, kernel)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x = x + bias.astype(x.dtype)[None, None, None]
        return activate(x, self.gain, self.clamp) if self.activation else x * self.gain


class StyledConvolution(nn.Module):
    """A modulated 3 x 3 convolution, noise, bias and activation.

    Attributes:
        in_channels, features: Channels before and after.
        resolution: Side of the output in pixels.
        w_dim: Width of a latent.
        up: True to double the size.
        clamp: Bound of the output, or None.
        resampling: 'merged' or 'plain', see `ops.stylegan2`.
    """

    in_channels: int
    features: int
    resolution: int
    w_dim: int
    up: bool
    clamp: float | None
    resampling: str

    def setup(self):
        normal, zeros = nn.initializers.normal(1.0), nn.initializers.zeros
        self.affine = FullyConnected(self.in_channels, bias=1.0)
        self.kernel = self.param("kernel", normal, (3, 3, self.in_channels, self.features))
        self.bias = self.param("bias", zeros, (self.features,))
        self.noise_strength = self.param("noise_strength", zeros, ())
        side = (self.resolution, self.resolution)
        self.noise_const = self.variable(
            "noise", "noise_const", lambda: jax.random.normal(self.make_rng("params"), side)
        )

    def style(self, w: jax.Array) -> jax.Array:
        """Latents (B, w_dim) -> styles (B, in_channels)."""
        return self.affine(w)

    def make_noise(self, mode: str, batch: int) -> jax.Array | None:
        """The map (1 or B, resolution, resolution, 1) of a noise mode."""
        if mode == "none":
            return None
        if mode == "const":
            return self.noise_const.value[None, :, :, None]
        return jax.random.normal(
            self.make_rng("noise"), (batch, self.resolution, self.resolution, 1)
        )

    def __call__(self, x: jax.Array, style: jax.Array, noise: jax.Array | None) -> jax.Array:
        x = ops.modulated_convolution(
            x, gather_inputs(self.kernel), style, up=self.up, resampling=self.resampling
        )
        if noise is not None:
            x = x + (noise * self.noise_strength).astype(x.dtype)
        return activate(x + self.bias.astype(x.dtype)[None, None, None], clamp=self.clamp)


class ToRGB(nn.Module):
    """A modulated 1 x 1 convolution to the channels of an image,
    without demodulation or activation.

    Attributes:
        in_channels, features: Channels before and after.
        w_dim: Width of a latent.
        clamp: Bound of the output, or None.
    """

    in_channels: int
    features: int
    w_dim: int
    clamp: float | None

    def setup(self):
        shape = (1, 1, self.in_channels, self.features)
        self.affine = FullyConnected(self.in_channels, bias=1.0)
        self.kernel = self.param("kernel", nn.initializers.normal(1.0), shape)
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,))

    def style(self, w: jax.Array) -> jax.Array:
        """Latents (B, w_dim) -> styles (B, in_channels)."""
        return self.affine(w)

    def __call__(self, x: jax.Array, style: jax.Array) -> jax.Array:
        x = ops.modulated_convolution(x, gather_inputs(self.kernel), style, demodulate=False)
        x = x.astype(jnp.float32) + self.bias[None, None, None]
        return x if self.clamp is None else jnp.clip(x, -self.clamp, self.clamp)
