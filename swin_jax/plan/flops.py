"""Floating-point operations of a function, counted from its jaxpr.

Compilers count the body of a loop once, so that a model of scanned blocks, or of one window at a
time, looks many times cheaper than it is. A jaxpr still says how often a body runs. Matrix products
and convolutions are counted, two operations per multiply-accumulate, as everybody counts the FLOPs
of a model; what runs beside the matrix units is not.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core


def count(fn: Callable, *args: Any, **kwargs: Any) -> int:
    """FLOPs of one call of a function, over all devices.

    Args:
        fn: Anything that JAX can trace.
        *args, **kwargs: Arrays or jax.ShapeDtypeStruct.

    Returns:
        The operations of its matrix products and convolutions, of recomputed ones too. A loop
        that says how often it runs counts so often (`scan`), others once (`while`); of branches
        the most expensive one.
    """
    return count_jaxpr(jax.make_jaxpr(fn)(*args, **kwargs))


def count_jaxpr(traced: core.ClosedJaxpr) -> int:
    """`count` of what is traced already."""
    return _of_jaxpr(traced.jaxpr)


def _of_jaxpr(jaxpr: core.Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: core.JaxprEqn) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _of_product(equation)
    if name == "conv_general_dilated":
        return _of_convolution(equation)
    inner = [_of_jaxpr(jaxpr) for jaxpr in _inner(params)]
    if name == "cond":
        return max(inner)
    if name == "scan":
        return params["length"] * sum(inner)
    if name == "shard_map":  # its body is what each device does
        return params["mesh"].size * sum(inner)
    return sum(inner)


def _inner(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """The jaxprs among an equation's parameters."""
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _of_product(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return (
        2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
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
