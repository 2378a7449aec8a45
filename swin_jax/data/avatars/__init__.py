"""Drawn faces whose attributes are known."""
