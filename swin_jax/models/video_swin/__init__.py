"""Video Swin Transformer: a Swin over time and space with a classifier of videos,
in the paper's three designs.
"""

from swin_jax.models.video_swin.model import VideoSwin, make_video_swin, param_shapes
from swin_jax.models.video_swin.presets import PRESETS

__all__ = ["PRESETS", "VideoSwin", "make_video_swin", "param_shapes"]
