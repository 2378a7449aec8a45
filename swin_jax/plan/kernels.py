"""The memory traffic of Pallas kernels, from the grids and index maps in a program's jaxpr.

A compiled program shows a kernel as one instruction, which says nothing of how often its grid
fetches a block. The jaxpr does: an index map gives the block that each step of the grid works on,
and the pipeline around a kernel moves a block where it differs from that of the step before. What a
kernel copies by itself, out of operands that it is given whole (`pl.ANY`), is not seen: such an
operand counts once.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import pallas as pl
from jax.extend import core

from swin_jax.plan import flops


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A `pallas_call` of a program.

    Attributes:
        name: Name that it was given, or ''.
        operands: Bytes of each operand on one chip, without padding.
        results: The same of the results.
        moved: Number of times that the whole of each operand is fetched, then that the whole of
            each result is written.
        count: Number of times that the program calls it.
    """

    name: str
    operands: tuple[int, ...]
    results: tuple[int, ...]
    moved: tuple[float, ...]
    count: int


def kernels(traced: core.ClosedJaxpr) -> tuple[Kernel, ...]:
    """The kernels that a program calls, those of all branches; in a loop that does not say how
    often it runs, once.
    """
    return tuple(_kernel(equation, count) for equation, count in _calls(traced.jaxpr, 1))


def times_moved(
    found: Sequence[Kernel], operands: Sequence[int], results: Sequence[int], op_name: str
) -> tuple[float, ...]:
    """The number of times that a compiled kernel moves each of its arrays, operands first.

    Args:
        found: Kernels of the program.
        operands: Bytes of each operand, without padding.
        results: The same of the results.
        op_name: Operation of the call, 'jit(f)/name/pallas_call' for example.

    Returns:
        The mean over the kernels of these arrays, weighted by how often each is called, if several
        have them and no name tells which one it is; 1 for each array if there is none.
    """
    alike = [k for k in found if (k.operands, k.results) == (tuple(operands), tuple(results))]
    named = [k for k in alike if k.name and k.name in re.split(r"[/()]", op_name)]
    alike = named or [k for k in alike if not k.name] or alike
    total = sum(k.count for k in alike)
    if not total:
        return (1.0,) * (len(operands) + len(results))
    columns = zip(*(k.moved for k in alike), strict=True)
    return tuple(sum(x * k.count for x, k in zip(column, alike)) / total for column in columns)


def _calls(jaxpr: core.Jaxpr, count: int) -> Iterator[tuple[core.JaxprEqn, int]]:
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "pallas_call":
            yield equation, count
            continue
        turns = params["length"] if name == "scan" else 1
        for inner in flops.inner_jaxprs(params):
            yield from _calls(inner, count * turns)


def _kernel(equation: core.JaxprEqn, count: int) -> Kernel:
    mapping = equation.params["grid_mapping"]
    grid = flops.grid(equation)
    # Before what the grid splits into blocks come sizes of the grid and numbers for index maps.
    before = len(equation.invars) - mapping.num_inputs
    blocks = [_times(block, grid, len(mapping.grid)) for block in mapping.block_mappings]
    return Kernel(
        equation.params.get("name") or "",
        tuple(_bytes(variable.aval) for variable in equation.invars),
        tuple(_bytes(variable.aval) for variable in equation.outvars),
        (1.0,) * before + tuple(blocks),
        count,
    )


def _times(mapping: Any, grid: tuple[int, ...] | None, axes: int) -> float:
    """The blocks that a kernel fetches of an array, or writes to it, as a multiple of its size.

    Args:
        mapping: The kernel's `BlockMapping` of the array.
        grid: The steps along each axis; None where they are known at run time only.
        axes: Number of axes of the grid.
    """
    whole = np.array(mapping.array_aval.shape, np.int64)
    block = np.array([getattr(side, "block_size", 1) for side in mapping.block_shape], np.int64)
    if grid is None or not whole.size or not whole.all():
        return 1.0
    indices = _indices(mapping, grid, axes)
    if indices is None:  # not known here: another block at each step
        return math.prod(grid) * float(np.prod(block / whole))
    by_element = [isinstance(side, pl.Element) for side in mapping.block_shape]
    start = indices * np.where(by_element, 1, block)
    inside = np.minimum(start + block, whole) - np.maximum(start, 0)
    moves = np.ones(len(indices), bool)
    moves[1:] = (indices[1:] != indices[:-1]).any(axis=1)
    return float(np.prod(np.maximum(inside, 0) / whole, axis=1)[moves].sum())


def _indices(mapping: Any, grid: tuple[int, ...], axes: int) -> np.ndarray | None:
    """The place of the block of each step, (steps, axes of the array), the last axis of the grid
    running fastest; None if it depends on what is known at run time only.
    """
    index_map = mapping.index_map_jaxpr
    inputs, jaxpr = index_map.jaxpr.invars, index_map.jaxpr
    read = {id(v) for equation in jaxpr.eqns for v in equation.invars}
    given = inputs[axes:]
    regular = len(jaxpr.outvars) == len(mapping.block_shape)
    if not regular or any(id(variable) in read for variable in given):
        return None
    # A kernel without a grid makes one step.
    places = np.indices(grid or (1,)).reshape(max(1, len(grid)), -1).astype(np.int32)

    def place(*ids):
        return core.jaxpr_as_fun(index_map)(*ids[:axes], *(np.int32(0) for _ in given))

    found = jax.jit(jax.vmap(place))(*places)
    return np.stack([np.asarray(x, np.int64) for x in found], axis=1)


def _bytes(aval: Any) -> int:
    """The size of an array as kernels have it, who are given booleans as int32."""
    item = 4 if aval.dtype == bool else aval.dtype.itemsize
    return math.prod(aval.shape) * item
