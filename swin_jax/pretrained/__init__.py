"""Weights of files and names <-> our parameters:
`load` makes a model of either, `preprocess` its input.
"""
