"""Pairs of pictures and texts: where they come from, and CLIP's tokenizer."""
