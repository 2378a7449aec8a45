"""Kernels written for one kind of chip; `ops.attention` chooses among them."""
