"""Activations on a mesh: where the partitioner needs to be told that examples
stay on their devices.

The mesh has the axes ('data', 'fsdp', 'tensor'); a batch is split over the first two.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))


def constrain_batch(x: jax.Array) -> jax.Array:
    """Activations, whose examples (axis 0) stay on the devices that the batch has put them on;
    nothing without a mesh.

    Layers that share parameters over 'fsdp' then gather those. Left to itself the partitioner may,
    in a loop over blocks, gather the examples instead and add up partial products of activations.
    """
    return _split_rows(x) if _batch_shards(x.shape[0]) > 1 else x


def gather_inputs(kernel: jax.Array) -> jax.Array:
    """A kernel (..., I, O), whole along all axes but the last one; nothing without a mesh.

    Where it is split over 'fsdp' along I, and examples are split over 'fsdp' too, the
    partitioner of jaxlib 0.10.2 computes wrong gradients of activations that do not come from
    the batch, such as StyleGAN2's styles.
    """
    if not _splits(jax.sharding.get_abstract_mesh()):
        return kernel
    whole = (None,) * (kernel.ndim - 1)
    return jax.lax.with_sharding_constraint(
        kernel, PartitionSpec(*whole, PartitionSpec.UNCONSTRAINED)
    )


def per_shard_copies(x: jax.Array, examples: int) -> jax.Array:
    """A copy of `x` for each group of devices that shares examples, along a new first axis,
    each where it is used.

    What is computed from a copy has its gradient added up over the devices where the copy was
    made, however much larger it is than `x`. There is one copy without a mesh, or where the mesh
    doesn't divide the examples.
    """
    count = _batch_shards(examples)
    spread = jnp.broadcast_to(x, (count, *x.shape))
    return _split_rows(spread) if count > 1 else spread


def rows_and_heads(copies: int, heads: int) -> tuple[Any, Any] | None:
    """The axes of the mesh that rows and heads are split over, for a function that is mapped over
    devices; None without a mesh on which the partitioner decides.

    Args:
        copies: Number of copies that `per_shard_copies` made for these rows.
        heads: Number of heads; they stay together if 'tensor' does not divide them.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not _splits(mesh):
        return None
    rows = BATCH[0] if copies == mesh.shape["data"] * mesh.shape["fsdp"] else None
    return rows, "tensor" if heads % mesh.shape["tensor"] == 0 else None


def splits_features() -> bool:
    """True where the current mesh splits the features of layers, over 'tensor'."""
    return jax.sharding.get_abstract_mesh().shape.get("tensor", 1) > 1


def platform() -> str:
    """The platform that is compiled for, 'cpu', 'gpu' or 'tpu': that of the mesh, which may be
    another than this machine's, or of `jax.default_device`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    device = mesh.abstract_device or jax.config.jax_default_device or jax.default_backend()
    return getattr(device, "platform", device)


def one_by_one(fn: Callable[[Any, jax.Array], jax.Array], held: Any, rows: jax.Array) -> jax.Array:
    """`fn(held, rows)`, on CPUs by itself for each row,
    so that a row's result does not depend on how many there are.

    Products of matrices of other sizes add up in another order, and differ in their last bits.
    Accelerators get all rows at once.

    Args:
        fn: (held, (B, ...)) -> (B, ...), row by row.
        held: A tree of arrays that are the same for all rows.
        rows: (B, ...).
    """

    def loop(held, rows):
        count = rows.shape[0]
        if count == 1 or not isinstance(count, int):  # one row, or exported for any number
            # The compiler takes a loop of one turn apart, and what it fuses then has other bits.
            rows = jnp.concatenate([rows, rows[-1:]])
        return jax.lax.map(lambda row: fn(held, row[None])[0], rows)[:count]

    if jax.sharding.get_abstract_mesh().size <= 1:
        return jax.lax.platform_dependent(held, rows, cpu=loop, default=fn)
    if not isinstance(rows.shape[0], int) or _batch_shards(rows.shape[0]) == 1:
        return fn(held, rows)
    # Each device loops over its own rows.
    loops = jax.shard_map(loop, in_specs=(PartitionSpec(), BATCH), out_specs=BATCH, check_vma=False)
    return jax.lax.platform_dependent(held, rows, cpu=loops, default=fn)


def _batch_shards(examples: int) -> int:
    """The number of parts into which the current mesh splits so many examples; 1 if it doesn't."""
    mesh = jax.sharding.get_abstract_mesh()
    if not _splits(mesh):
        return 1
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    return shards if examples % shards == 0 else 1


def _splits(mesh: Any) -> bool:
    """True for a mesh of our axes on which the partitioner decides."""
    return set(AXES) <= set(mesh.axis_names) and all(
        kind == AxisType.Auto for kind in mesh.axis_types
    )


def _split_rows(x: jax.Array) -> jax.Array:
    free = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*BATCH, *free))
