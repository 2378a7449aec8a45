"""Meshes, partition rules and the placement of batches.

The mesh has the axes ('data', 'fsdp', 'tensor'). Parameters and optimizer state are laid out by a
table of (regex on the path -> axis names), with a rule on shapes as the default; all that models
say is that examples stay where they are.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.core.params import path_name
from swin_jax.core.ranges import NonNegativeInt, Range, check_pattern, checked
from swin_jax.core.stacking import is_stacked
from swin_jax.ops.batch_sharding import AXES, BATCH

AxisSize = Annotated[int, Range(low=1, also=(-1,))]  # of a mesh; -1 for what is left
# Optimizer state smaller than this is not worth splitting over 'data':
# it is the large matrices that fill a chip.
_OPT_MIN_SIZE = 2**14
_OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED|out of memory", re.IGNORECASE)


@checked
def make_mesh(
    data: AxisSize = -1,
    fsdp: AxisSize = 1,
    tensor: AxisSize = 1,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """A mesh over all devices, or those given; one of the sizes may be -1 for what is left.

    Devices of several slices, which only a data-center network joins, are neighbors along 'data'
    alone: everything that 'fsdp' and 'tensor' move stays within a slice.

    Raises:
        UserError: Sizes that do not multiply to the number of devices,
            or a 'data' that the slices do not divide.
    """
    devices = jax.devices() if devices is None else devices
    sizes, count = [data, fsdp, tensor], len(devices)
    given = math.prod(size for size in sizes if size != -1)
    problem = ""
    if sizes.count(-1) > 1:
        problem = "only one size may be -1"
    elif count % given or (-1 not in sizes and given != count):
        problem = f"{' x '.join(str(size) for size in sizes if size != -1)} = {given}"
    if problem:
        asked = f"data={data}, fsdp={fsdp}, tensor={tensor}"
        raise UserError(f"a mesh of {asked} does not fit {count} devices: {problem}")
    sizes = [count // given if size == -1 else size for size in sizes]
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    on_tpu = devices[0].platform == "tpu"
    if sizes[0] % slices and on_tpu:
        raise UserError(
            f"data={sizes[0]} is not a multiple of the {slices} slices, which only 'data' may span"
        )
    # Auto: under the default, Explicit, linen's Dropout and the window reshape raise.
    types = (AxisType.Auto,) * 3
    if slices == 1:
        try:
            return jax.make_mesh(sizes, AXES, axis_types=types, devices=devices)
        # No sides of the slice multiply to such sizes: sides are divided.
        except NotImplementedError:
            grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
            return Mesh(grid, AXES, axis_types=types)
    # Every host of GPUs is a slice to JAX; their network is one that fsdp and tensor may span.
    if not on_tpu:
        return Mesh(np.reshape(devices, sizes), AXES, axis_types=types)
    inner = (sizes[0] // slices, *sizes[1:])
    grid = mesh_utils.create_hybrid_device_mesh(
        inner, (slices, 1, 1), devices, allow_split_physical_axes=True
    )
    return Mesh(grid, AXES, axis_types=types)


@checked
@dataclasses.dataclass(frozen=True)
class Partition:
    """The layout of parameters and optimizer state.

    Data parallelism is a mesh of `data` alone, with everything whole on every device.
    `opt_axis='data'` makes it ZeRO-1; `fsdp` > 1 in the mesh is FSDP (ZeRO-3), `tensor` > 1 tensor
    parallelism; all of them go together.

    Attributes:
        rules: ((regex on the '/'-path, one axis name or None per dimension), ...);
            the first match decides.
        opt_axis: A mesh axis that optimizer state and averaged parameters, which no layer reads,
            are split over too. 'data' is ZeRO-1 over all devices. 'fsdp' is ZeRO-1 in groups:
            parameters stay whole over that axis. Large pods want it, because few dimensions are
            multiples of thousands, and groups don't span slices.
        gather: 'bfloat16' or 'float32': parameters are kept split as their optimizer state is, and
            a step begins with gathering a copy in this type, which the forward and the backward
            pass use. In bfloat16 that is half of what ZeRO-1 gathers; it rounds the few parameters
            that a model in bfloat16 uses in float32, heads for example.
        min_size: Tensors with at least so many elements that no rule names are split over 'fsdp'
            along their largest divisible dimension.
    """

    rules: tuple = ()
    opt_axis: str = ""
    gather: str = ""
    min_size: NonNegativeInt = 2**20

    def __post_init__(self):
        for pattern, _ in self.rules:
            check_pattern("rules", self.rules, pattern)
        if self.gather not in ("", "float32", "bfloat16"):
            raise UserError(f"gather={self.gather!r} is not one of '', 'float32', 'bfloat16'")
        if self.gather and not self.opt_axis:
            raise UserError(f"gather={self.gather!r} needs an opt_axis to split parameters over")
        if self.opt_axis not in ("", *AXES):
            raise UserError(
                f"opt_axis={self.opt_axis!r} is not one of the mesh's axes {', '.join(AXES)}"
            )

    def shardings(self, shapes: Any, mesh: Mesh) -> Any:
        """A NamedSharding for each leaf of a tree of shapes, a TrainState for example.

        An axis that does not divide its dimension is left out for that leaf.
        """

        def leaf_sharding(path, leaf):
            name = path_name(path)
            units = leaf.ndim > 0 and is_stacked(name)  # a loop runs over axis 0, which stays whole
            shape = leaf.shape[units:]
            axes = next(
                (
                    axes
                    for regex, axes in self.rules
                    if re.search(regex, name) and len(axes) == len(shape)
                ),
                None,
            )
            if axes is None:
                axes = self.shape_rule(shape, mesh)
            if self.opt_axis == "fsdp":
                axes = [a if a != "fsdp" else None for a in axes]
            fits = [
                a if a and n % mesh.shape[a] == 0 else None
                for a, n in zip(axes, shape, strict=True)
            ]
            split = ("opt_state/", "ema/", "params/") if self.gather else ("opt_state/", "ema/")
            if name.startswith(split) and math.prod(shape) >= _OPT_MIN_SIZE:
                fits = self.split_further(fits, shape, mesh)
            return NamedSharding(mesh, PartitionSpec(*[None] * units, *fits))

        return jax.tree_util.tree_map_with_path(leaf_sharding, shapes)

    def shape_rule(self, shape: tuple[int, ...], mesh: Mesh) -> list:
        """One axis name or None per dimension."""
        axes: list = [None] * len(shape)
        divisible = [i for i, n in enumerate(shape) if n % mesh.shape["fsdp"] == 0]
        if math.prod(shape) >= self.min_size and divisible:
            axes[max(divisible, key=lambda i: shape[i])] = "fsdp"
        return axes

    def split_further(self, axes: list, shape: tuple[int, ...], mesh: Mesh) -> list:
        """`axes` with `opt_axis` on the dimension of which each device holds most,
        if there is one that it divides.
        """
        if not self.opt_axis or self.opt_axis in axes or mesh.shape[self.opt_axis] == 1:
            return axes
        parts = [
            n // (mesh.shape[axis] if axis else 1) for axis, n in zip(axes, shape, strict=True)
        ]
        divisible = [i for i, n in enumerate(parts) if n % mesh.shape[self.opt_axis] == 0]
        if not divisible:
            return axes
        chosen = max(divisible, key=lambda i: parts[i])
        return [
            *axes[:chosen],
            (axes[chosen], self.opt_axis) if axes[chosen] else self.opt_axis,
            *axes[chosen + 1 :],
        ]


@dataclasses.dataclass(frozen=True)
class Placement:
    """The rows of a batch that this process reads, and their assembly into one global array.

    Attributes:
        mesh: Mesh that batches are laid out on.
        pause: A function that is called before every batch of `to_global`, and by evaluations that
            compute for long without one. It raises where a run is to stop.
    """

    mesh: Mesh
    pause: Callable[[], None] = dataclasses.field(default=lambda: None, compare=False)

    @property
    def batch_divisor(self) -> int:
        """Batch sizes must be multiples of this."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    def check(self, batch_size: int, what: str = "batch_size") -> None:
        """Raises UserError, naming both numbers, where the mesh does not divide a batch."""
        if batch_size % self.batch_divisor:
            raise UserError(
                f"{what} is {batch_size}, which is not a multiple of the {self.batch_divisor} "
                f"batch shards of the mesh (data={self.mesh.shape['data']} x "
                f"fsdp={self.mesh.shape['fsdp']})"
            )

    def round_up(self, batch_size: int) -> int:
        """The next batch size that the mesh divides."""
        return -(-batch_size // self.batch_divisor) * self.batch_divisor

    def rows(self, batch_size: int) -> list[int]:
        """Row numbers of a global batch that this process holds, in order."""
        indices = NamedSharding(self.mesh, BATCH).addressable_devices_indices_map((batch_size,))
        return sorted({row for (index,) in indices.values() for row in range(batch_size)[index]})

    def to_global(self, batch: dict[str, np.ndarray], batch_size: int) -> dict[str, jax.Array]:
        """Makes global arrays from this process's rows of each array."""
        self.pause()
        sharding = NamedSharding(self.mesh, BATCH)
        return {
            key: jax.make_array_from_process_local_data(
                sharding, value, (batch_size, *value.shape[1:])
            )
            for key, value in batch.items()
        }


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def tree_shardings(abstract: Any) -> Any:
    """The shardings of a tree of jax.ShapeDtypeStruct."""
    return jax.tree.map(lambda x: x.sharding, abstract)


def device_put_tree(tree: Any, abstract: Any) -> Any:
    """Makes global arrays, laid out as `abstract` says,
    from host arrays that every process holds whole.
    """

    def put(array, like):
        array = np.asarray(array, like.dtype)
        return jax.make_array_from_callback(like.shape, like.sharding, lambda index: array[index])

    return jax.tree.map(put, tree, abstract)


def lacks_memory(error: BaseException) -> bool:
    """True if a program did not fit into the memory of the devices."""
    runtime = isinstance(error, jax.errors.JaxRuntimeError)
    return runtime and _OUT_OF_MEMORY.search(str(error)) is not None


@contextlib.contextmanager
def in_memory(what: str) -> Iterator[None]:
    """A block that computes on the devices.

    Args:
        what: The computation, for the message: "a step of training".

    Raises:
        UserError: It does not fit into their memory.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not lacks_memory(error):
            raise
        raise UserError(
            f"{what} does not fit into the memory of the devices "
            f"({storage.first_line(error)}): give a smaller batch_size"
        ) from error
