"""Weights of official and foreign files <-> our parameters, in numpy only. `read(path)` gives {name: array}."""

from swin_jax.convert.read import read

__all__ = ["read"]
