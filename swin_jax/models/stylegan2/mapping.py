"""The mapping network of StyleGAN2: from a normal latent z, and a label, to the latent w.

Karras et al., arXiv 1812.04948 and 1912.04958; the reference is `MappingNetwork` of
NVlabs/stylegan2-ada-pytorch.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.models.stylegan2.layers import FullyConnected
from swin_jax.ops.normalize import unit_power

LR_MULTIPLIER = 0.01


class MappingNetwork(nn.Module):
    """z (B, z_dim) and label vectors (B, c_dim) -> w (B, w_dim), float32.

    Attributes:
        z_dim: Width of z; 0 maps labels only, as a conditional discriminator does.
        c_dim: Width of a label vector; 0 for a network without labels.
        w_dim: Width of w.
        num_layers: Fully connected layers, 8 in the papers and 2 in some networks of ADA.
        averages: True to keep a mean of w, toward which latents are truncated.
    """

    z_dim: int
    c_dim: int
    w_dim: int
    num_layers: int
    averages: bool = False

    def setup(self):
        if self.c_dim:
            self.embed = FullyConnected(self.w_dim)
        for index in range(self.num_layers):
            setattr(self, f"fc{index}", FullyConnected(self.w_dim, LR_MULTIPLIER, activation=True))
        if self.averages:
            self.w_avg = self.variable("averages", "w_avg", jnp.zeros, (self.w_dim,))

    def __call__(self, z: jax.Array | None, c: jax.Array | None = None) -> jax.Array:
        parts = []
        if self.z_dim:
            if z.ndim != 2 or z.shape[1] != self.z_dim:
                raise UserError(
                    f"z is of shape {z.shape}, but this network takes (B, {self.z_dim})"
                )
            parts.append(unit_power(z.astype(jnp.float32)))
        if self.c_dim:
            self._check_labels(c)
            parts.append(unit_power(self.embed(c)))
        elif c is not None:
            raise UserError("this network has no labels; leave out c")
        x = jnp.concatenate(parts, axis=1)
        for index in range(self.num_layers):
            x = getattr(self, f"fc{index}")(x)
        return x

    def truncate(self, ws: jax.Array, truncation: float | jax.Array) -> jax.Array:
        """Latents (..., w_dim), brought closer to the mean: by 1 not at all, by 0 wholly."""
        center = self.w_avg.value.reshape((1,) * (ws.ndim - 1) + (-1,))
        return center + truncation * (ws - center)

    def _check_labels(self, c: jax.Array | None) -> None:
        if c is None or c.ndim != 2 or c.shape[1] != self.c_dim:
            given = "there are none" if c is None else f"those given are of shape {c.shape}"
            raise UserError(
                f"this network is conditional: give it label vectors c of (B, {self.c_dim}), "
                f"one 1 in each row; {given}"
            )
