"""Inception-v3 of FID: its file."""
