"""Weights of segmenters."""
