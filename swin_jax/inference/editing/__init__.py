"""Edits of a generator's pictures by texts, from latents, seeds or photographs to files."""
