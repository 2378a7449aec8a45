"""The traffic of a compiled program:
its collectives and its memory traffic, read from its optimized HLO.

Cost analyses count the body of a loop once;
here what a loop does is multiplied by how often it runs.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from swin_jax.plan import hlo, kernels
from swin_jax.plan.kernels import Kernel

KINDS = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a program.

    Attributes:
        kind: One of `KINDS`.
        bytes: Size of its arrays, per chip and run, without padding: of the result of an
            all-gather, of the operands of any other.
        axes: Axes of the mesh along which it joins chips; () where the text doesn't say.
        group: Chips that exchange data with one another; 2 in a permutation.
        slices: Number of slices that those chips are in.
        count: Number of times it runs.
        overlaps: True if the program was scheduled to go on while it runs.
        name: Name of the instruction.
    """

    kind: str
    bytes: int
    axes: tuple[str, ...]
    group: int
    slices: int
    count: int
    overlaps: bool
    name: str


def collectives(text: str, mesh: Mapping[str, int], slices: int = 1) -> list[Collective]:
    """All collectives that a program runs, in order.

    Those among slices appear as the compiler splits them:
    within each slice, and with the same place in the others.

    Args:
        text: Text of the optimized module.
        mesh: Name and size of each axis, `Mesh.shape`.
        slices: Number of slices in the mesh; each is a contiguous part of its devices in order.
    """
    module, found = hlo.parse(text), []
    for computation, instruction, count in hlo.run(module, "", 1):
        for where, inner in hlo.fused(module, computation, instruction):
            kind = _kind(where, inner)
            if not kind or _is_step(where, inner):
                continue
            groups = []
            with contextlib.suppress(ValueError):  # of a form that is not known
                groups = _groups(inner, math.prod(mesh.values()), slices)
            axes, group, spans = _extent(groups, mesh, slices)
            operands = inner.operands[:1] if inner.opcode == "send" else inner.operands
            size = sum(where.array(name).size for name in operands) * (
                group if kind == "all-gather" else 1
            )
            beside = where.overlaps or inner.opcode == "send" or inner.opcode.endswith("-start")
            found.append(
                Collective(kind, size, axes, group, spans, count, beside, instruction.name)
            )
    return found


def hbm_bytes(text: str, called: Sequence[Kernel] = ()) -> int:
    """An estimate of the bytes that one chip reads from and writes to its main memory in one run.

    Every instruction (a fusion counts as one) reads its operands and writes its results once, as
    padded by their layouts. Of an array that is sliced or updated in place only the slice counts,
    and of a conditional its longest branch; arrays in on-chip memory count nothing. Products that
    read operands too large for the chip more than once are not seen. A Pallas kernel moves each
    array as often as its blocks cover it.

    Args:
        text: Text of the optimized module.
        called: Kernels of the program; one that is not among them moves each array once.
    """
    module, total = hlo.parse(text), 0
    for computation, instruction, count in hlo.run(module, "", 1):
        if instruction.target == "tpu_custom_call":
            total += count * _kernel_traffic(computation, instruction, called)
        else:
            total += count * _traffic(module, computation, instruction)
    return total


def _kernel_traffic(
    computation: hlo.Computation, instruction: hlo.Instruction, called: Sequence[Kernel]
) -> int:
    """Bytes that one call of a Pallas kernel moves to and from main memory."""
    operands = [computation.array(name) for name in instruction.operands]
    results = instruction.arrays
    times = kernels.times_moved(
        called,
        [array.size for array in operands],
        [array.size for array in results],
        instruction.op_name,
    )
    arrays = [*operands, *results]
    return round(sum(array.hbm * n for array, n in zip(arrays, times, strict=True)))


def _kind(computation: hlo.Computation, instruction: hlo.Instruction) -> str:
    """The kind of collective, or '' for any other instruction."""
    if instruction.opcode == "send":  # through the host to the other slices, or just to the host
        kind = instruction.attribute("_xla_megascale_transfer_type").lower().replace("_", "-")
        if kind in KINDS:
            return kind
        if kind:
            return "collective-permute"
        return ""
    kind = instruction.opcode.removesuffix("-start").removeprefix("ragged-")
    if kind == "all-reduce" and _keeps_parts(computation):
        return "reduce-scatter"
    return kind if kind in KINDS else ""


def _keeps_parts(computation: hlo.Computation) -> bool:
    """True if each chip keeps only its part of all results:
    the fusion all-reduce-scatter, of one array or several.
    """
    root = hlo.source(computation, computation.root)
    if root and root.opcode == "tuple":
        results = [hlo.source(computation, name) for name in root.operands]
    else:
        results = [root]
    return all(result and result.opcode == "dynamic-slice" for result in results)


def _is_step(computation: hlo.Computation, instruction: hlo.Instruction) -> bool:
    """True for a later step of a collective that is fused with products it runs beside;
    its start is counted.
    """
    return '"async_collective_fusion_config"' in instruction.attributes and not computation.overlaps


def _groups(instruction: hlo.Instruction, devices: int, slices: int) -> list[np.ndarray]:
    """Positions in the mesh of the chips that exchange data with one another."""
    text = instruction.attributes
    if instruction.opcode == "send":
        return [np.arange(slices) * (devices // slices)]
    if mesh := re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, ?device_ids=\((.*?)\))? ?\{([^}]*)\}", text
    ):
        return _mesh_groups(*mesh.groups())
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        return list(_iota(iota[2], iota[3]).reshape(hlo.numbers(iota[1])))
    lists = re.search(r"(?:replica_groups|source_target_pairs)=\{(\{.*?\})\}", text)
    groups = []
    if lists:
        groups = [np.array(hlo.numbers(part)) for part in re.findall(r"\{([\d, ]+)\}", lists[1])]
    return groups or [np.arange(devices)]


def _iota(shape: str, order: str | None) -> np.ndarray:
    return (
        np.arange(math.prod(hlo.numbers(shape)))
        .reshape(hlo.numbers(shape))
        .transpose(hlo.numbers(order or "") or None)
    )


def _mesh_groups(mesh: str, device_ids: str | None, grouped: str) -> list[np.ndarray]:
    """The groups that "'a'=8,'b'=2" and "'b','a':(2)4" name:
    of axis a, which is of 2 x 4 x 1, the part of 4.
    """
    sizes = {name: int(size) for name, size in re.findall(r"'?([^',=]+)'?=(\d+)", mesh)}
    names, places, group = list(sizes), np.indices(tuple(sizes.values())).reshape(len(sizes), -1), 1
    for name, before, part in re.findall(r"'?([^',:]+)'?(?::\((\d+)\)(\d+))?", grouped):
        axis, size = names.index(name), int(part or sizes[name])
        after = sizes[name] // (int(before or 1) * size)
        # Those that differ in this part only are the same now.
        places[axis] -= places[axis] // after % size * after
        group *= size
    order = np.argsort(np.ravel_multi_index(tuple(places), tuple(sizes.values())), kind="stable")
    permuted = re.fullmatch(r"\[([\d,]+)\]T\(([\d,]+)\)", device_ids or "")
    if permuted:
        ids = _iota(*permuted.groups()).ravel()
    else:
        ids = np.array(hlo.numbers(device_ids or "") or range(order.size))
    return list(ids[order].reshape(-1, group))


def _extent(
    groups: list[np.ndarray], mesh: Mapping[str, int], slices: int
) -> tuple[tuple[str, ...], int, int]:
    """Axes, chips and slices of the groups of a collective."""
    sizes, devices = tuple(mesh.values()), math.prod(mesh.values())
    groups = [group for group in groups if group.max() < devices]
    varies, spans = np.zeros(len(sizes), bool), 1
    for group in groups:
        places = np.stack(np.unravel_index(group, sizes))
        varies |= (places != places[:, :1]).any(axis=1)
        spans = max(spans, len(set((group // (devices // slices)).tolist())))
    axes = tuple(name for name, different in zip(mesh, varies) if different)
    return axes, max((group.size for group in groups), default=1), spans


_FREE = set(
    (
        "parameter constant tuple get-tuple-element bitcast while conditional "
        "call async-start after-all"
    ).split()
)
_FREE |= {
    "opt-barrier",
    "add-dependency",
    "partition-id",
    "replica-id",
    "ConcatBitcast",
    "AllocateBuffer",
}
_SLICES = ("dynamic-slice", "slice", "gather", "slice-start")
_UPDATES = {"dynamic-update-slice": 1, "scatter": -1}  # which operand is written into the first


def _traffic(module: hlo.Module, computation: hlo.Computation, instruction: hlo.Instruction) -> int:
    """Bytes that one run of an instruction moves to and from main memory."""
    opcode, arrays, operands = instruction.opcode, instruction.arrays, instruction.operands
    if opcode in _FREE or instruction.target in _FREE or opcode.endswith(("-done", "-update")):
        return 0
    called = hlo.called(module, instruction)
    if opcode == "fusion":
        return sum(_reads(module, called, name) for name in called.parameters.values()) + _writes(
            module, called
        )
    read = [computation.array(name).hbm for name in operands]
    if opcode in _UPDATES and len(operands) > 1:
        update = computation.array(operands[_UPDATES[opcode]])
        return update.hbm + (update.padded if any(read[:1]) else 0)
    # Those that start something have their operands among their results.
    first, end = {"copy-start": (0, 1), "recv": (0, 1), "send": (0, 0), "slice-start": (1, 2)}.get(
        opcode, (0, None)
    )
    if opcode in ("all-gather-start", "collective-permute-start"):
        first, end = len(operands), 2 * len(operands)
    if opcode in _SLICES:
        read[:1] = [min(sum(read[:1]), sum(array.padded for array in arrays[first:end]))]
    return sum(array.hbm for array in arrays[first:end]) + sum(read)


def _reads(module: hlo.Module, computation: hlo.Computation, name: str) -> int:
    """Bytes of one of its operands that a fusion reads."""
    whole, total = computation.array(name).hbm, 0
    for user in (user for user in computation.instructions.values() if name in user.operands):
        first = user.operands[0] == name
        if user.opcode == "bitcast":
            total += _reads(module, computation, user.name)
        elif user.opcode in _SLICES and first:
            total += sum(array.padded for array in user.arrays)
        elif user.opcode == "fusion":
            called, places = (
                hlo.called(module, user),
                [str(i) for i, other in enumerate(user.operands) if other == name],
            )
            total += sum(_reads(module, called, called.parameters.get(i, "")) for i in places)
        elif (
            user.opcode in _UPDATES
            and first
            or user.opcode == "tuple"
            or _is_step(computation, user)
        ):
            continue  # updated in place, or handed on
        elif not user.target.startswith("AsyncCollective"):
            return whole
    return min(whole, total)


def _writes(module: hlo.Module, computation: hlo.Computation, name: str = "") -> int:
    """Bytes that a fusion writes, or for one of its results."""
    result = computation.instructions.get(name or computation.root)
    if not result or result.opcode == "parameter" or _is_step(computation, result):
        return 0
    if result.opcode in ("tuple", "bitcast"):
        return sum(_writes(module, computation, operand) for operand in result.operands)
    if result.opcode == "fusion":
        return _writes(module, hlo.called(module, result))
    hbm = sum(array.hbm for array in result.arrays[result.target.startswith("AsyncCollective") :])
    updates = result.opcode in _UPDATES and len(result.operands) > 1
    if updates:
        return min(hbm, computation.array(result.operands[_UPDATES[result.opcode]]).padded)
    return hbm
