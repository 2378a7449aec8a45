"""StyleCLIP: what edits of StyleGAN2's pictures by texts are made of (arXiv 2103.17249)."""

from swin_jax.models.styleclip.losses import clip_loss, clip_view, identity_loss

__all__ = ["clip_loss", "clip_view", "identity_loss"]
