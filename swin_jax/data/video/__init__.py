"""Videos: containers, decoding, sampling clips, augmenting them."""
