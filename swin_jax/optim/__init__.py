"""Optimizers that are functions of official parameter names, and learning-rate schedules (`optim.schedules`)."""

from swin_jax.optim.optimizers import adamw, scale_by_name, sgd

__all__ = ["adamw", "scale_by_name", "sgd"]
