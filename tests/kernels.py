"""Kernels without the chip that they are for."""

import functools

from swin_jax.ops import batch_sharding
from swin_jax.ops.kernels import window_attention


def interpret_kernels(monkeypatch):
    """Has `ops.attention` take this machine for a TPU, and interpret the kernels of one."""
    interpreted = functools.partial(window_attention.window_attention, interpret=True)
    monkeypatch.setattr(window_attention, "window_attention", interpreted)
    monkeypatch.setattr(batch_sharding, "platform", lambda: "tpu")
