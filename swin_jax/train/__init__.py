"""Running an experiment: setup, the loop, layout on a mesh, checkpoints, logs.
It knows no task, model or data set.
"""
