"""The very same training step, compiled for a topology without its chips:
does it fit, and what bounds it.
"""
