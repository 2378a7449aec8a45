"""e4e: names, released files and conversion."""
