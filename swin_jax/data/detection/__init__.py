"""Objects in images: boxes and masks."""
