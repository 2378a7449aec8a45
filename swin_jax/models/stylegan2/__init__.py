"""StyleGAN2: generator and discriminator, for any resolution, and the layers of its style space."""

from swin_jax.models.stylegan2.discriminator import Discriminator
from swin_jax.models.stylegan2.generator import Generator
from swin_jax.models.stylegan2.presets import PRESETS
from swin_jax.models.stylegan2.style_space import StyleLayer, num_ws, style_layers

__all__ = ["Discriminator", "Generator", "PRESETS", "StyleLayer", "num_ws", "style_layers"]
