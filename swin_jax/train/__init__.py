"""Running an experiment: setup, the loop, layout on a mesh, checkpoints, logs.
It does not depend on any task, model or data set.
"""
