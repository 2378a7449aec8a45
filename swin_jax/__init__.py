"""Hierarchical vision transformers in JAX. `load` gives a model with weights, `preprocess` what it wants to see."""

__version__ = "0.1.0"


def load(name=None, weights=None, **overrides):
    """A model and its variables; see `swin_jax.pretrained.load.load`."""
    from swin_jax.pretrained.load import load

    return load(name, weights, **overrides)


def preprocess(name):
    """What turns pictures into the input of a model; see `swin_jax.pretrained.preprocess.preprocess`."""
    from swin_jax.pretrained.preprocess import preprocess

    return preprocess(name)


def export(model, variables, path, **options):
    """Writes a model as one file that runs without this package; see `swin_jax.inference.export.export`."""
    from swin_jax.inference.export import export

    return export(model, variables, path, **options)
