"""Reads files of weights safely and with NumPy only: `read.read(path)` returns {name: array}."""
