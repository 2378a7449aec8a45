"""Pretrained weights, from files or by name: `load` makes the model, `preprocess` its input."""
