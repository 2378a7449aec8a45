"""Optimizers that are functions of official parameter names,
and learning-rate schedules (`optim.schedules`).
"""

from swin_jax.optim.optimizers import adamw, lazy_adam, scale_by_name, sgd
from swin_jax.optim.ranger import ranger

__all__ = ["adamw", "lazy_adam", "ranger", "scale_by_name", "sgd"]
