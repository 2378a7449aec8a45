"""Meshes, partition rules and the placement of batches.

The mesh has the axes ('data', 'fsdp', 'tensor'). Parameters and optimizer state are laid out by a table of
(regex on the path -> axis names), with a rule on shapes as the default; models carry no annotation.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from swin_jax.errors import UserError
from swin_jax.names import path_name
from swin_jax.stacking import is_stacked

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))

# Heads and the hidden width of the MLP over 'tensor', the other side of each matrix over 'fsdp'.
SWIN_RULES = (
    (r"attn/qkv/kernel$", ("fsdp", None, "tensor", None)),
    (r"attn/qkv/bias$", (None, "tensor", None)),
    (r"attn/(q|v)_bias$", ("tensor", None)),
    (r"attn/logit_scale$", ("tensor", None, None)),
    (r"attn/(relative_position_bias_table|cpb_mlp_2/kernel)$", (None, "tensor")),
    (r"attn/proj/kernel$", ("tensor", None, "fsdp")),
    (r"mlp/fc1/kernel$", ("fsdp", "tensor")),
    (r"mlp/fc1/bias$", ("tensor",)),
    (r"mlp/fc2/kernel$", ("tensor", "fsdp")),
)


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices, or those given; one of the sizes may be -1 for what is left.

    Raises:
        UserError: sizes that do not multiply to the number of devices (exit status 2).
    """
    devices = jax.devices() if devices is None else devices
    sizes, count = [data, fsdp, tensor], len(devices)
    given = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1 or min(sizes) < -1 or given < 1 or count % given or (-1 not in sizes and given != count):
        raise UserError(f"a mesh of data={data}, fsdp={fsdp}, tensor={tensor} does not fit {count} devices", 2)
    sizes = [count // given if size == -1 else size for size in sizes]
    # Auto: under the default, Explicit, linen's Dropout and the window reshape raise.
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


@dataclasses.dataclass(frozen=True)
class Partition:
    """How parameters and optimizer state are laid out.

    Attributes:
        rules: ((regex on the '/'-path, one axis name or None per dimension), ...); the first match decides.
        opt_rules: the same for optimizer state only, looked at before `rules` (ZeRO-1 is such a table).
        min_size: tensors with at least so many elements that no rule names are split over 'fsdp' along their largest
            divisible dimension.
    """

    rules: tuple = ()
    opt_rules: tuple = ()
    min_size: int = 2**20

    def shardings(self, shapes: Any, mesh: Mesh) -> Any:
        """A NamedSharding for each leaf of a tree of shapes, a TrainState for example.

        An axis that does not divide its dimension is left out for that leaf.
        """

        def leaf_sharding(path, leaf):
            name = path_name(path)
            tables = (*self.opt_rules, *self.rules) if name.startswith("opt_state/") else self.rules
            units = leaf.ndim > 0 and is_stacked(name)  # a loop runs over axis 0, which stays whole
            shape = leaf.shape[units:]
            axes = next((axes for regex, axes in tables if re.search(regex, name) and len(axes) == len(shape)), None)
            if axes is None:
                axes = self.shape_rule(shape, mesh)
            fits = [a if a and n % mesh.shape[a] == 0 else None for a, n in zip(axes, shape, strict=True)]
            return NamedSharding(mesh, PartitionSpec(*[None] * units, *fits))

        return jax.tree_util.tree_map_with_path(leaf_sharding, shapes)

    def shape_rule(self, shape: tuple[int, ...], mesh: Mesh) -> list:
        """One axis name or None per dimension."""
        axes: list = [None] * len(shape)
        divisible = [i for i, n in enumerate(shape) if n % mesh.shape["fsdp"] == 0]
        if math.prod(shape) >= self.min_size and divisible:
            axes[max(divisible, key=lambda i: shape[i])] = "fsdp"
        return axes


@dataclasses.dataclass(frozen=True)
class Placement:
    """Which rows of a batch this process reads, and how they become one global array."""

    mesh: Mesh

    @property
    def batch_divisor(self) -> int:
        """Batch sizes must be multiples of this."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    def check(self, batch_size: int, what: str = "batch_size") -> None:
        """Raises UserError, naming both numbers, where the mesh does not divide a batch."""
        if batch_size % self.batch_divisor:
            raise UserError(
                f"{what} is {batch_size}, which is not a multiple of the {self.batch_divisor} batch shards of the mesh "
                f"(data={self.mesh.shape['data']} x fsdp={self.mesh.shape['fsdp']})",
                2,
            )

    def round_up(self, batch_size: int) -> int:
        """The next batch size that the mesh divides."""
        return -(-batch_size // self.batch_divisor) * self.batch_divisor

    def rows(self, batch_size: int) -> list[int]:
        """Row numbers of a global batch that this process holds, in order."""
        indices = NamedSharding(self.mesh, BATCH).addressable_devices_indices_map((batch_size,))
        return sorted({row for (index,) in indices.values() for row in range(batch_size)[index]})

    def put(self, batch: dict[str, np.ndarray], batch_size: int) -> dict[str, jax.Array]:
        """Makes global arrays from this process's rows of each array."""
        sharding = NamedSharding(self.mesh, BATCH)
        return {
            key: jax.make_array_from_process_local_data(sharding, value, (batch_size, *value.shape[1:]))
            for key, value in batch.items()
        }


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def of(abstract: Any) -> Any:
    """The shardings of a tree of jax.ShapeDtypeStruct."""
    return jax.tree.map(lambda x: x.sharding, abstract)


def put_tree(tree: Any, abstract: Any) -> Any:
    """Makes global arrays, laid out as `abstract` says, from host arrays that every process holds whole."""

    def put(array, like):
        array = np.asarray(array, like.dtype)
        return jax.make_array_from_callback(like.shape, like.sharding, lambda index: array[index])

    return jax.tree.map(put, tree, abstract)
