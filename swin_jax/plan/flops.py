"""Floating-point operations of a function, counted from its jaxpr.

Compilers count the body of a loop once, so that a model of scanned blocks, or of one window at a
time, looks many times cheaper than it is. A jaxpr still says how often a body runs. Matrix products
and convolutions are counted, two operations per multiply-accumulate, as everybody counts the FLOPs
of a model; what runs beside the matrix units is not.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core

_Product = Callable[[core.JaxprEqn], int]


def count(fn: Callable, *args: Any, **kwargs: Any) -> int:
    """FLOPs of one call of a function, over all devices.

    Args:
        fn: Anything that JAX can trace.
        *args, **kwargs: Arrays or jax.ShapeDtypeStruct.

    Returns:
        The operations of its matrix products and convolutions, of recomputed ones too. A loop
        that says how often it runs counts so often (`scan`, the grid of a Pallas kernel),
        others once (`while`); of branches the most expensive one.
    """
    return count_jaxpr(jax.make_jaxpr(fn)(*args, **kwargs))


def count_jaxpr(traced: core.ClosedJaxpr, matrix_unit: int = 0) -> int:
    """`count` of what is traced already.

    Args:
        traced: A traced function.
        matrix_unit: Side of the chip's matrix unit: products within kernels count as padded to it,
            as the chip executes them. 0 counts them as they are.
    """
    return _of_jaxpr(traced.jaxpr, _of_product, matrix_unit)


def grid(equation: core.JaxprEqn) -> tuple[int, ...] | None:
    """The steps of a `pallas_call` along each axis of its grid; None where a size is known at run
    time only.
    """
    sizes = equation.params["grid_mapping"].grid
    return tuple(sizes) if all(isinstance(size, int) for size in sizes) else None


def inner_jaxprs(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """The jaxprs among an equation's parameters."""
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _of_jaxpr(jaxpr: core.Jaxpr, product: _Product, matrix_unit: int) -> int:
    return sum(_of_equation(equation, product, matrix_unit) for equation in jaxpr.eqns)


def _of_equation(equation: core.JaxprEqn, product: _Product, matrix_unit: int) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return product(equation)
    if name == "conv_general_dilated":
        return _of_convolution(equation)
    if name == "pallas_call" and matrix_unit:
        product = functools.partial(_of_padded_product, matrix_unit=matrix_unit)
    inner = [_of_jaxpr(jaxpr, product, matrix_unit) for jaxpr in inner_jaxprs(params)]
    if name == "cond":
        return max(inner)
    if name == "scan":
        return params["length"] * sum(inner)
    if name == "shard_map":  # its body is what each device does
        return params["mesh"].size * sum(inner)
    if name == "pallas_call":  # its body is what each step of the grid does
        return math.prod(grid(equation) or ()) * sum(inner)
    return sum(inner)


def _of_product(equation: core.JaxprEqn) -> int:
    return 2 * math.prod(_sides(equation))


def _of_padded_product(equation: core.JaxprEqn, matrix_unit: int) -> int:
    """The FLOPs of a product as a matrix unit executes it: contracted and right sides fill whole
    units, rows of the left whole registers.
    """
    batch, rows, contracted, columns = _sides(equation)
    # Of 8 x 4 bytes in each lane.
    register = 32 // max(1, equation.invars[0].aval.dtype.itemsize)
    sides = _padded(rows, register), _padded(contracted, matrix_unit), _padded(columns, matrix_unit)
    return 2 * batch * math.prod(sides)


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _sides(equation: core.JaxprEqn) -> tuple[int, int, int, int]:
    """The sizes of a product: batch, rows of the left, what is contracted, columns of the right."""
    (over, over_right), (batched, batched_right) = equation.params["dimension_numbers"]
    left, right = (variable.aval.shape for variable in equation.invars)
    return (
        math.prod(left[axis] for axis in batched),
        math.prod(size for axis, size in enumerate(left) if axis not in (*over, *batched)),
        math.prod(left[axis] for axis in over),
        math.prod(
            size for axis, size in enumerate(right) if axis not in (*over_right, *batched_right)
        ),
    )


def _of_convolution(equation: core.JaxprEqn) -> int:
    params, kernel = equation.params, equation.invars[1].aval.shape
    # (output channels, input channels of one group, *window)
    inputs, window = (
        kernel[params["dimension_numbers"].rhs_spec[1]],
        params["dimension_numbers"].rhs_spec[2:],
    )
    size = inputs * math.prod(kernel[axis] for axis in window)
    # Of a transposed convolution's input, all but one in so many pixels are zeros
    # that were put there.
    outputs = math.prod(equation.outvars[0].aval.shape) // params["batch_group_count"]
    return 2 * outputs * size // math.prod(params["lhs_dilation"])
