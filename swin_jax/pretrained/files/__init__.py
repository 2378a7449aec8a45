"""Files of weights, read safely and in numpy only: `read.read(path)` gives {name: array}."""
