"""LPIPS: the files of its distance, and conversion."""
