"""What a score hides: overlap with the training data, robustness to shifts,
groups of people and things.
"""
