"""Weights of files and names <-> our parameters: `load` makes a model of either, `preprocess` what it wants to see."""
