"""Weights of Swin, Swin V2 and SimMIM in every published layout."""
