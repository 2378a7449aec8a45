"""Preparations of published models, and of models as they are loaded."""
