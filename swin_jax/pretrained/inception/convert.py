"""Converts FID's Inception-v3 between the state dict of mseitzer/pytorch-fid and our variables.

The file is `pt_inception-2015-12-05-6726825d.pth` of its releases: TensorFlow's graph of 2015 under
torchvision's names. Convolutions are transposed from (out, in, h, w) to (h, w, in, out); norms have
a `scale`, and running statistics are in 'batch_stats'.
"""

import os
from collections.abc import Callable, Mapping

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten, unflatten
from swin_jax.pretrained import compare, networks

LICENSE = (
    "the Inception-v3 of FID is Google's of 2015, "
    "published under the Apache License 2.0 and trained on ImageNet"
)
FILE = "pt_inception-2015-12-05-6726825d.pth of github.com/mseitzer/pytorch-fid/releases"
_LEAVES = {
    "conv.weight": ("params", "conv/kernel"),
    "bn.weight": ("params", "bn/scale"),
    "bn.bias": ("params", "bn/bias"),
    "bn.running_mean": ("batch_stats", "bn/mean"),
    "bn.running_var": ("batch_stats", "bn/var"),
}
_CLASSIFIER = ("fc.weight", "fc.bias", "AuxLogits.")


def official_shapes(model) -> dict[str, tuple[int, ...]]:
    """{official name: official shape} of a `models.inception.Inception`, including running
    statistics.
    """
    shapes = {}
    for name, before, after, kernel in model.convolutions():
        shapes[f"{name}.conv.weight"] = (after, before, *kernel)
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.bn.{leaf}"] = (after,)
    return shapes


def path_of(name: str) -> tuple[str, str]:
    """The collection and the path that an official name gets."""
    module, layer, leaf = name.rsplit(".", 2)
    collection, path = _LEAVES[f"{layer}.{leaf}"]
    return collection, f"{module.replace('.', '/')}/{path}"


def from_official(state_dict: Mapping[str, np.ndarray], model) -> dict:
    """Converts a state dict to the variables of an Inception; the classifier is left out.

    Args:
        state_dict: {name: array}.
        model: A `models.inception.Inception`.

    Returns:
        {'params': ..., 'batch_stats': ...}, nested dicts of float32 numpy arrays.

    Raises:
        UserError: Keys are missing, unexpected or of the wrong shape; one line names them all.
    """
    shapes = official_shapes(model)
    own = compare.drop_buffers(compare.strip_wrappers(state_dict))
    own = {name: array for name, array in own.items() if not name.startswith(_CLASSIFIER)}
    if report := compare.compare(own, shapes):
        raise UserError(f"these weights are not FID's Inception-v3, {FILE}: {report.line()}")
    variables: dict = {"params": {}, "batch_stats": {}}
    for name in shapes:
        collection, path = path_of(name)
        array = np.asarray(own[name], np.float32)
        variables[collection][path] = np.ascontiguousarray(
            array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        )
    return {collection: unflatten(flat) for collection, flat in variables.items()}


def to_official(variables: Mapping, model) -> dict[str, np.ndarray]:
    """The inverse of `from_official`: {official name: float32 numpy array}."""
    flat = {collection: flatten(tree) for collection, tree in variables.items()}
    state_dict = {}
    for name in official_shapes(model):
        collection, path = path_of(name)
        array = np.asarray(flat[collection][path], np.float32)
        state_dict[name] = np.ascontiguousarray(
            array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
        )
    return state_dict


def load_pretrained(source: str | os.PathLike | Mapping, model, key: str | None = None) -> dict:
    """The variables of an Inception from its file, for `train.init_from`.

    Args:
        source: The file, or the variables of an Inception.
        model: A `models.inception.Inception`.
        key: The weights to take from a file that holds several.

    Raises:
        UserError: The file cannot be read, or its weights do not fit the model.
    """
    return networks.read(source, key, lambda arrays: from_official(arrays, model), LICENSE)


def pretrained() -> Callable:
    """`load_pretrained` as a function of (source, model), for an experiment file."""
    return load_pretrained
