"""Semantic segmentation: UPerNet over any Swin."""

from swin_jax.models.segmentation.presets import PRESETS, make_upernet
from swin_jax.models.segmentation.upernet import UPerNet

__all__ = ["PRESETS", "UPerNet", "make_upernet"]
