"""Swin Transformer and Swin Transformer V2, as classifiers and backbones over any
number of spatial axes.
"""

from swin_jax.models.swin.bias import block_geometry, fold_bias, position_bias
from swin_jax.models.swin.fields import stage_dims
from swin_jax.models.swin.model import Swin, param_shapes
from swin_jax.models.swin.presets import MLP, PRESETS, V2, VARIANTS
from swin_jax.models.swin.rules import layer_decay

__all__ = [
    "MLP",
    "PRESETS",
    "Swin",
    "V2",
    "VARIANTS",
    "block_geometry",
    "fold_bias",
    "layer_decay",
    "param_shapes",
    "position_bias",
    "stage_dims",
]
