"""Parameters: the path in a tree, the name that the official PyTorch code uses, a checksum of all
of them, and what a network computes with beside them.

Weight decay, learning-rate scales, freezing, partition rules and conversion are all functions of
these names, so they are defined once, here.
"""

import dataclasses
import hashlib
import re
from typing import Any

import jax
import numpy as np

# What is 1-D in the official layout: norm weights, biases. Judged by name:
# an attention bias is (3, heads, d) here.
ONE_DIMENSIONAL = (r"(^|[._])bias$", r"(^|\.)e?norm\d*\.weight$")

# Fields of modules that change nothing but memory, speed and rounding, that count in training only,
# or that follow from the pictures.
_SAME = re.compile("parent|name|scan|remat|attention|.*dtype|.*drop.*|freeze.*|image_size")

# The last part of a path -> the last part of the official name.
_LEAVES = {"kernel": "weight", "scale": "weight"}


def path_name(path) -> str:
    """The '/'-joined form of a JAX key path: `layers_0/blocks_1/attn/qkv/kernel`."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def official_name(path: str) -> str:
    """The official name of a parameter path: `layers_0/blocks_1/norm1/scale` ->
    `layers.0.blocks.1.norm1.weight`.
    """
    *modules, leaf = path.split("/")
    modules = [re.sub(r"((_\d+)+)$", lambda m: m[1].replace("_", "."), name) for name in modules]
    return ".".join([*modules, _LEAVES.get(leaf, leaf)])


def map_named(fn, tree):
    """Maps `fn(official name, leaf)` over a tree of parameters and returns a tree
    of the same structure.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: fn(official_name(path_name(path)), leaf), tree
    )


def flatten(tree) -> dict:
    """{path: leaf} of a tree, paths as `path_name` gives them, in the tree's order."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def unflatten(flat: dict) -> dict:
    """The nested dict of {path: leaf}; the inverse of `flatten` for trees of dicts."""
    tree = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def weights_checksum(tree: Any) -> str:
    """SHA-256, in hex, of all arrays of a tree with their paths, shapes and dtypes.

    Saved with what was computed from a model: run headers, indexes and caches compare it.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def network_fields(value: Any) -> Any:
    """The fields of a module, and of modules in it, that its features follow beside its weights:
    activations, for example; as JSON. Of what is no module, its text.
    """
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return re.sub(" at 0x[0-9a-f]+", "", str(value))
    names = (field.name for field in dataclasses.fields(value))
    return {
        name: network_fields(getattr(value, name)) for name in names if not _SAME.fullmatch(name)
    }
