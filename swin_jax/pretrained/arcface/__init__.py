"""ArcFace's IR-SE50: names, released files and conversion."""
