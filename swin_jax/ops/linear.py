"""The products of activations and kernels in linear layers."""

import math
from typing import Any

import jax

from swin_jax.ops import batch_sharding


def dot_general(
    x: jax.Array, kernel: jax.Array, dimension_numbers: tuple, **options: Any
) -> jax.Array:
    """`jax.lax.dot_general` for `flax.linen.Dense` and `DenseGeneral`, with gradients that are
    quick on CPUs.

    The gradient of a kernel sums over all axes of the activations but the last ones. Where these
    are several, XLA for CPUs transposes both operands in memory before it multiplies them: half
    of the time of Swin-B's gradient. As matrices they need no copies. The other compilers know
    better layouts than rows of tokens, and a mesh that splits features splits the axes of heads,
    which rows and columns would hide.

    Args:
        x: (..., *inputs).
        kernel: (*inputs, *features).
        dimension_numbers: ((axes of the inputs in x, in the kernel), ((), ())).
        **options: Others of `jax.lax.dot_general`.

    Returns:
        (..., *features).
    """
    (last, _), _ = dimension_numbers
    if batch_sharding.platform() != "cpu" or batch_sharding.splits_features():
        return jax.lax.dot_general(x, kernel, dimension_numbers, **options)
    inputs, features = kernel.shape[: len(last)], kernel.shape[len(last) :]
    rows = x.reshape(-1, math.prod(inputs))
    columns = kernel.reshape(math.prod(inputs), -1)
    found = jax.lax.dot_general(rows, columns, (((1,), (0,)), ((), ())), **options)
    return found.reshape(*x.shape[: x.ndim - len(last)], *features)
