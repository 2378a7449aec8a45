"""The parts of `train.checkpoint`: whole files, the layout of arrays, quiet saves."""
