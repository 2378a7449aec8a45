"""StyleCLIP: what edits of StyleGAN2's pictures by texts are made of (arXiv 2103.17249)."""

from swin_jax.models.styleclip.directions import Direction, NoChannel
from swin_jax.models.styleclip.losses import clip_loss, clip_view, identity_loss
from swin_jax.models.styleclip.mapper import (
    LevelsMapper,
    SingleMapper,
    StyleSpaceMapper,
    make_mapper,
)

__all__ = [
    "Direction",
    "LevelsMapper",
    "NoChannel",
    "SingleMapper",
    "StyleSpaceMapper",
    "clip_loss",
    "clip_view",
    "identity_loss",
    "make_mapper",
]
