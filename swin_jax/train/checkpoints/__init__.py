"""What `train.checkpoint` is made of: whole files, the layout of arrays, quiet saves."""
