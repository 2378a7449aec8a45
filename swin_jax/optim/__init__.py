"""Optimizers that are functions of official parameter names, and learning-rate schedules (`optim.schedules`)."""

from swin_jax.optim.optimizers import adamw, lazy_adam, scale_by_name, sgd

__all__ = ["adamw", "lazy_adam", "scale_by_name", "sgd"]
