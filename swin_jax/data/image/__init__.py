"""Pictures: reading, augmenting and masking them."""
