"""Stacked storage of equal blocks: the only module that depends on it.

A scanned stage keeps its blocks as units of u blocks under one path,
`layers_2/units_2/blocks_1/attn/proj/kernel`, with the units along axis 0: element k belongs to
block k * u + 1. A unit is a plain and a shifted block, or as many as it takes until the norm on the
residual stream comes round. Decay, learning-rate scales, freezing and conversion remain functions
of official names: for a stacked leaf they ask here for the names of its elements.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from swin_jax.core.params import flatten, official_name, path_name, unflatten

_STACKED = re.compile(r"^((?:.*/)?layers_\d+)/units_(\d+)/blocks_(\d+)/(.*)$")
_BLOCK = re.compile(r"^((?:.*/)?layers_(\d+))/blocks_(\d+)/(.*)$")


def unit_size(depth: int, main_norm_every: int) -> int:
    """Blocks per unit of a stage, or 0 where its blocks don't make two whole units and
    stay as they are.
    """
    reached = main_norm_every if main_norm_every <= depth else 0  # a shorter stage has no such norm
    size = math.lcm(2, reached or 1)
    return size if depth % size == 0 and depth // size > 1 else 0


def unit_name(size: int) -> str:
    """The name of the module that holds a stage's stacked units."""
    return f"units_{size}"


def is_stacked(path: str) -> bool:
    """True if axis 0 of the parameter under a '/'-joined path counts units of blocks."""
    return _STACKED.match(path) is not None


def official_names(path: str, leaf: Any) -> list[str]:
    """The official names of a parameter: one for each element of a stacked leaf,
    one for any other.
    """
    return [official_name(element) for element in _element_paths(path, leaf)]


def multipliers(fn: Callable[[str], float], params: Any) -> Any:
    """A function of official names for every leaf of a tree of parameters.

    Returns:
        A tree of numbers; float32 arrays (units, 1, ...) for stacked leaves whose elements differ.
    """

    def of_leaf(path, leaf):
        values = [fn(name) for name in official_names(path_name(path), leaf)]
        if all(value == values[0] for value in values):
            return values[0]
        return np.asarray(values, np.float32).reshape(-1, *(1,) * (leaf.ndim - 1))

    return jax.tree_util.tree_map_with_path(of_leaf, params)


def unstack(params: Any) -> Any:
    """A nested dict of parameters with one leaf for every block;
    leaves may be arrays or shapes with shardings.
    """
    flat = {}
    for path, leaf in flatten(params).items():
        paths = _element_paths(path, leaf)
        if is_stacked(path):
            flat |= {element: _element(leaf, k) for k, element in enumerate(paths)}
        else:
            flat |= {path: leaf}
    return unflatten(flat)


def stack(params: Any, like: Any) -> Any:
    """A nested dict of parameters, stored as another one stores the same stages;
    the inverse of `unstack`.

    Args:
        params: Parameters, stacked or not.
        like: A nested dict of parameters or shapes.
    """
    matches = [found for path in flatten(like) if (found := _STACKED.match(path))]
    sizes = {found[1]: int(found[2]) for found in matches}
    return _stack(unstack(params), lambda stage, number: sizes.get(stage, 0))


def stack_as(params: Any, model: Any) -> Any:
    """Parameters as a Swin stores them; `model` has the fields of `models.swin.Swin`,
    `params` may have any prefix.
    """
    if not model.scan:
        return unstack(params)
    return _stack(
        unstack(params),
        lambda stage, number: unit_size(model.depths[number], model.main_norm_every),
    )


def _stack(params: Any, size_of: Callable[[str, int], int]) -> Any:
    flat, units = {}, {}
    for path, leaf in flatten(params).items():
        found = _BLOCK.match(path)
        size = size_of(found[1], int(found[2])) if found else 0
        if not size:
            flat[path] = leaf
            continue
        unit, first = divmod(int(found[3]), size)
        stacked = f"{found[1]}/{unit_name(size)}/blocks_{first}/{found[4]}"
        units.setdefault(stacked, {})[unit] = leaf
    for path, elements in units.items():
        flat[path] = _join([elements[k] for k in sorted(elements)])
    return unflatten(flat)


def _element_paths(path: str, leaf: Any) -> list[str]:
    found = _STACKED.match(path)
    if not found:
        return [path]
    stage, size, first, rest = found.groups()
    return [f"{stage}/blocks_{k * int(size) + int(first)}/{rest}" for k in range(leaf.shape[0])]


def _element(leaf: Any, k: int) -> Any:
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf[k]
    sharding = leaf.sharding
    if sharding is not None:
        sharding = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype, sharding=sharding)


def _join(leaves: list[Any]) -> Any:
    first = leaves[0]
    if not isinstance(first, jax.ShapeDtypeStruct):
        return np.stack(leaves) if isinstance(first, np.ndarray) else jnp.stack(leaves)
    sharding = first.sharding
    if sharding is not None:
        sharding = NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))
    return jax.ShapeDtypeStruct((len(leaves), *first.shape), first.dtype, sharding=sharding)
