"""The facts behind a score: overlap with the training data,
robustness to shifts, groups of people and things.
"""
