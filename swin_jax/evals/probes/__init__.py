"""Classifiers of a model's features: fitted to all labels, or to a few of each class."""
