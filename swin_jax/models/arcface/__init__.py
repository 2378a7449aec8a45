"""ArcFace's IR-SE50: a network for faces whose features of one person lie close together."""

from swin_jax.models.arcface.model import IR_SE50, IRSE

__all__ = ["IRSE", "IR_SE50"]
