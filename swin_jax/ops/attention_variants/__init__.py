"""Attention that is not inside fixed windows: what Swin Transformer is compared with."""
