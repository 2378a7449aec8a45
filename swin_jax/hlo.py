"""What a compiled program moves: its collectives and its memory traffic, read from the text of its optimized HLO.

The text is what `jax.stages.Compiled.as_text` returns. Cost analyses count the body of a loop once; here what a loop
does is multiplied by how often it runs. The forms are those of the TPU compiler of libtpu 0.0.42 and the general ones
of XLA (openxla/xla, hlo/parser). What cannot be read is left out, never an error.
"""

import contextlib
import dataclasses
import functools
import math
import re
from collections.abc import Mapping

import numpy as np

KINDS = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of a program.

    Attributes:
        kind: of `KINDS`.
        bytes: of its arrays, per chip and run, without padding: of an all-gather what comes out, else what goes in.
        axes: of the mesh that it joins chips along; () where the text doesn't say.
        group: chips that exchange data with one another; 2 in a permutation.
        slices: that those chips are in; 1 where all are in the same.
        count: how often it runs.
        overlaps: whether the program was scheduled to go on while it runs.
        name: of the instruction.
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

    Those among slices appear as the compiler splits them: within each slice, and with the same place in the others.

    Args:
        text: of the optimized module.
        mesh: name and size of each axis, `Mesh.shape`.
        slices: that the mesh is of; each is a contiguous part of its devices in order.
    """
    module, found = _parse(text), []
    for computation, instruction, count in _run(module, "", 1):
        for where, inner in _fused(module, computation, instruction):
            kind = _kind(where, inner)
            if not kind or _is_step(where, inner):
                continue
            groups = []
            with contextlib.suppress(ValueError):  # of a form that is not known
                groups = _groups(inner, math.prod(mesh.values()), slices)
            axes, group, spans = _extent(groups, mesh, slices)
            operands = inner.operands[:1] if inner.opcode == "send" else inner.operands
            size = sum(where.array(name).size for name in operands) * (group if kind == "all-gather" else 1)
            beside = where.overlaps or inner.opcode == "send" or inner.opcode.endswith("-start")
            found.append(Collective(kind, size, axes, group, spans, count, beside, instruction.name))
    return found


def hbm_bytes(text: str) -> int:
    """An estimate of the bytes that one chip reads from and writes to its main memory in one run.

    Every instruction, a fusion is one, reads its operands and writes its results once, as padded by their layouts; of
    what is sliced or updated in place the slice counts, of a conditional the longest branch, of arrays in on-chip
    memory nothing. Products that read operands too large for the chip more than once are not seen.
    """
    module = _parse(text)
    return sum(count * _traffic(module, computation, i) for computation, i, count in _run(module, "", 1))


def trip_counts(text: str) -> dict[str, int | None]:
    """How often the body of each loop runs, by the name of the `while`; None where the text doesn't show it."""
    module = _parse(text)
    return {i.name: _trip_count(module, where, i) for where, i, _ in _run(module, "", 1) if i.opcode == "while"}


@dataclasses.dataclass(frozen=True)
class _Array:
    size: int  # bytes
    padded: int  # bytes, as the layout has it
    hbm: int  # of these, in main memory


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    opcode: str
    arrays: tuple[_Array, ...]  # of the result, flat
    operands: tuple[str, ...]
    arguments: str
    attributes: str

    def attribute(self, key: str) -> str:
        """The name or number that follows a key, or ''."""
        match = re.search(rf'\b{key}="?%?([\w.\-]+)', self.attributes)
        return match[1] if match else ""

    @functools.cached_property
    def target(self) -> str:
        return self.attribute("custom_call_target") if self.opcode == "custom-call" else ""


@dataclasses.dataclass
class _Computation:
    instructions: dict[str, _Instruction] = dataclasses.field(default_factory=dict)
    root: str = ""
    wrapped: bool = False  # called by an async-start

    def array(self, name: str) -> _Array:
        """That an operand is; the sum of them if it is a tuple."""
        arrays = self.instructions[name].arrays if name in self.instructions else ()
        return _Array(sum(a.size for a in arrays), sum(a.padded for a in arrays), sum(a.hbm for a in arrays))

    @functools.cached_property
    def parameters(self) -> dict[str, str]:
        return {i.arguments: i.name for i in self.instructions.values() if i.opcode == "parameter"}

    @functools.cached_property
    def overlaps(self) -> bool:
        """Whether what calls it goes on before it is done."""
        return self.wrapped or any(i.target == "AsyncCollectiveStart" for i in self.instructions.values())


_Module = dict[str, _Computation]  # by name, the entry computation by '' too


def _called(module: _Module, instruction: _Instruction, key: str = "calls") -> _Computation:
    return module.get(instruction.attribute(key) or "none", _Computation())


_WIDTHS = {"token": 0, "opaque": 0, "pred": 8, "c64": 64, "c128": 128}  # bits; the names of the others tell theirs
_ARRAY = re.compile(r"([a-z]\w*)\[([^\]]*)\](?:\{([^}]*)\})?")
_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_ASSIGNMENT = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")


@functools.lru_cache(maxsize=2)
def _parse(text: str) -> _Module:
    module, current = {}, _Computation()
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = module[header[2]] = _Computation()
            module |= {"": current} if header[1] else {}
        elif line.startswith("}"):
            current = _Computation()
        elif assignment := _ASSIGNMENT.match(line):
            instruction = _instruction(assignment[2], re.sub(r"/\*.*?\*/", "", assignment[3]))
            if instruction:
                current.instructions[instruction.name] = instruction
                current.root = instruction.name if assignment[1] else current.root
    for name in re.findall(r" async-start\(.*?calls=%?([\w.\-]+)", text):
        module.get(name, current).wrapped = True
    return module


def _instruction(name: str, text: str) -> _Instruction | None:
    end = _closing(text, 0) if text.startswith("(") else text.find(" ")
    opcode = _OPCODE.match(text, end) if end > 0 else None
    if not opcode:
        return None
    close = _closing(text, opcode.end() - 1)
    arguments = text[opcode.end() : close - 1]
    operands = re.findall(r"%([\w.\-]+)", arguments) or [name.strip() for name in arguments.split(",")]
    arrays = tuple(_array(*match.groups()) for match in _ARRAY.finditer(text[:end]))
    return _Instruction(name, opcode[1], arrays, tuple(filter(None, operands)), arguments, text[close:])


def _closing(text: str, start: int) -> int:
    """The end of what the parenthesis at `start` opens."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return match.end()
    return len(text)


def _array(dtype: str, dims: str, layout: str | None) -> _Array:
    shape, digits = _numbers(dims), _numbers(dtype)
    width = _WIDTHS.get(dtype, digits[0] if digits else 0)
    order, _, tiling = (layout or "").partition(":")
    physical = [shape[axis] for axis in reversed(_numbers(order)) if axis < len(shape)]
    tile = re.match(r"T\(([\d,]+)\)", tiling)
    sides = _numbers(tile[1]) if tile and len(physical) == len(shape) else []
    physical = [1] * (len(sides) - len(shape)) + (physical if sides else shape)
    for axis, side in zip(range(-len(sides), 0), sides):
        physical[axis] = -(-physical[axis] // side) * side
    padded = -(-math.prod(physical) * width // 8)
    return _Array(-(-math.prod(shape) * width // 8), padded, 0 if re.search(r"S\([1-9]", tiling) else padded)


def _run(module: _Module, name: str, count: int) -> list[tuple[_Computation, _Instruction, int]]:
    """Instructions that a computation runs, those of fusions apart, with how often."""
    computation, found = module.get(name, _Computation()), []
    for instruction in computation.instructions.values():
        found.append((computation, instruction, count))
        if instruction.opcode == "while":
            trips = _trip_count(module, computation, instruction)
            found += _run(module, instruction.attribute("body"), count * (1 if trips is None else trips))
        elif instruction.opcode in ("conditional", "call", "async-start"):
            names = re.findall(r"%([\w.\-]+)", instruction.attributes)
            found += max((_run(module, name, count) for name in names), key=len, default=[])
    return found


def _trip_count(module: _Module, computation: _Computation, loop: _Instruction) -> int | None:
    if known := re.search(r"known_trip_count\D+(\d+)", loop.attributes):
        return int(known[1])
    # The TPU compiler doesn't write it down: the condition compares a counter of the loop's state with its bound.
    condition, body = _called(module, loop, "condition"), _called(module, loop, "body")
    state = computation.instructions.get(loop.operands[0]) if loop.operands else None
    test, following = condition.instructions.get(condition.root), body.instructions.get(body.root)
    if not (state and test and following and test.opcode == "compare" and state.opcode == following.opcode == "tuple"):
        return None
    before, after = (dict(enumerate(values.operands)) for values in (state, following))
    counter, limit = (_source(condition, name) for name in (*test.operands, "", "")[:2])
    at, limit_at = (_numbers(place.attribute("index")) if place else [] for place in (counter, limit))
    start = _constant(computation, before.get(at[0], "")) if at else None
    step = _step(body, after.get(at[0], "")) if at else None
    bound = _constant(computation, before.get(limit_at[0], "")) if limit_at else _constant(condition, test.operands[-1])
    if start is None or bound is None or not step:
        return None
    bound += {"LE": 1, "GE": -1}.get(test.attribute("direction"), 0)
    return max(0, -(-(bound - start) // step))


def _step(body: _Computation, name: str) -> int | None:
    """What an iteration adds to an element of the state."""
    addition = _source(body, name)
    if not addition or addition.opcode not in ("add", "subtract"):
        return None
    step = next((n for n in (_constant(body, name) for name in addition.operands) if n is not None), None)
    return -step if step is not None and addition.opcode == "subtract" else step


def _constant(computation: _Computation, name: str) -> int | None:
    source = _source(computation, name)
    found = source and source.opcode == "constant" and re.fullmatch(r"-?\d+", source.arguments)
    return int(found[0]) if found else None


def _source(computation: _Computation, name: str) -> _Instruction | None:
    """The instruction of that name, or what it is a copy of."""
    instruction = computation.instructions.get(name)
    while instruction and instruction.opcode in ("copy", "bitcast", "convert", "copy-done", "copy-start"):
        instruction = computation.instructions.get(instruction.operands[0]) if instruction.operands else None
    return instruction


def _fused(module: _Module, computation: _Computation, instruction: _Instruction) -> list:
    """The instruction or all those that are fused into it, with the computation that each is of."""
    if instruction.opcode != "fusion":
        return [(computation, instruction)]
    called = _called(module, instruction)
    return [found for inner in called.instructions.values() for found in _fused(module, called, inner)]


def _kind(computation: _Computation, instruction: _Instruction) -> str:
    """Of `KINDS`, or ''."""
    if instruction.opcode == "send":  # through the host to the other slices, or just to the host
        kind = instruction.attribute("_xla_megascale_transfer_type").lower().replace("_", "-")
        return kind if kind in KINDS else "collective-permute" if kind else ""
    kind = instruction.opcode.removesuffix("-start").removeprefix("ragged-")
    if kind == "all-reduce" and _keeps_parts(computation):
        return "reduce-scatter"
    return kind if kind in KINDS else ""


def _keeps_parts(computation: _Computation) -> bool:
    """Whether each chip keeps its part only of all results: the fusion all-reduce-scatter, of one array or several."""
    root = _source(computation, computation.root)
    results = [_source(computation, name) for name in root.operands] if root and root.opcode == "tuple" else [root]
    return all(result and result.opcode == "dynamic-slice" for result in results)


def _is_step(computation: _Computation, instruction: _Instruction) -> bool:
    """Whether it is a later step of a collective that is fused with products it runs beside; its start is counted."""
    return '"async_collective_fusion_config"' in instruction.attributes and not computation.overlaps


def _groups(instruction: _Instruction, devices: int, slices: int) -> list[np.ndarray]:
    """Positions in the mesh of the chips that exchange data with one another."""
    text = instruction.attributes
    if instruction.opcode == "send":
        return [np.arange(slices) * (devices // slices)]
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, ?device_ids=\((.*?)\))? ?\{([^}]*)\}", text):
        return _mesh_groups(*mesh.groups())
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        return list(_iota(iota[2], iota[3]).reshape(_numbers(iota[1])))
    lists = re.search(r"(?:replica_groups|source_target_pairs)=\{(\{.*?\})\}", text)
    groups = [np.array(_numbers(part)) for part in re.findall(r"\{([\d, ]+)\}", lists[1])] if lists else []
    return groups or [np.arange(devices)]


def _iota(shape: str, order: str | None) -> np.ndarray:
    return np.arange(math.prod(_numbers(shape))).reshape(_numbers(shape)).transpose(_numbers(order or "") or None)


def _mesh_groups(mesh: str, device_ids: str | None, grouped: str) -> list[np.ndarray]:
    """Of "'a'=8,'b'=2" and "'b','a':(2)4": of axis a, which is of 2 x 4 x 1, the part of 4."""
    sizes = {name: int(size) for name, size in re.findall(r"'?([^',=]+)'?=(\d+)", mesh)}
    names, places, group = list(sizes), np.indices(tuple(sizes.values())).reshape(len(sizes), -1), 1
    for name, before, part in re.findall(r"'?([^',:]+)'?(?::\((\d+)\)(\d+))?", grouped):
        axis, size = names.index(name), int(part or sizes[name])
        after = sizes[name] // (int(before or 1) * size)
        places[axis] -= places[axis] // after % size * after  # those that differ in this part only are the same now
        group *= size
    order = np.argsort(np.ravel_multi_index(tuple(places), tuple(sizes.values())), kind="stable")
    permuted = re.fullmatch(r"\[([\d,]+)\]T\(([\d,]+)\)", device_ids or "")
    ids = _iota(*permuted.groups()).ravel() if permuted else np.array(_numbers(device_ids or "") or range(order.size))
    return list(ids[order].reshape(-1, group))


def _extent(groups: list[np.ndarray], mesh: Mapping[str, int], slices: int) -> tuple[tuple[str, ...], int, int]:
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


def _numbers(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]


_FREE = set("parameter constant tuple get-tuple-element bitcast while conditional call async-start after-all".split())
_FREE |= {"opt-barrier", "add-dependency", "partition-id", "replica-id", "ConcatBitcast", "AllocateBuffer"}
_SLICES = ("dynamic-slice", "slice", "gather", "slice-start")
_UPDATES = {"dynamic-update-slice": 1, "scatter": -1}  # which operand is written into the first


def _traffic(module: _Module, computation: _Computation, instruction: _Instruction) -> int:
    """Bytes that one run of an instruction moves to and from main memory."""
    opcode, arrays, operands = instruction.opcode, instruction.arrays, instruction.operands
    if opcode in _FREE or instruction.target in _FREE or opcode.endswith(("-done", "-update")):
        return 0
    called = _called(module, instruction)
    if opcode == "fusion":
        return sum(_reads(module, called, name) for name in called.parameters.values()) + _writes(module, called)
    read = [computation.array(name).hbm for name in operands]
    if opcode in _UPDATES and len(operands) > 1:
        update = computation.array(operands[_UPDATES[opcode]])
        return update.hbm + (update.padded if any(read[:1]) else 0)
    # Those that start something have their operands among their results.
    first, end = {"copy-start": (0, 1), "recv": (0, 1), "send": (0, 0), "slice-start": (1, 2)}.get(opcode, (0, None))
    if opcode in ("all-gather-start", "collective-permute-start"):
        first, end = len(operands), 2 * len(operands)
    if opcode in _SLICES:
        read[:1] = [min(sum(read[:1]), sum(array.padded for array in arrays[first:end]))]
    return sum(array.hbm for array in arrays[first:end]) + sum(read)


def _reads(module: _Module, computation: _Computation, name: str) -> int:
    """Bytes of one of its operands that a fusion reads."""
    whole, total = computation.array(name).hbm, 0
    for user in (user for user in computation.instructions.values() if name in user.operands):
        first = user.operands[0] == name
        if user.opcode == "bitcast":
            total += _reads(module, computation, user.name)
        elif user.opcode in _SLICES and first:
            total += sum(array.padded for array in user.arrays)
        elif user.opcode == "fusion":
            called, places = _called(module, user), [str(i) for i, other in enumerate(user.operands) if other == name]
            total += sum(_reads(module, called, called.parameters.get(i, "")) for i in places)
        elif user.opcode in _UPDATES and first or user.opcode == "tuple" or _is_step(computation, user):
            continue  # updated in place, or handed on
        elif not user.target.startswith("AsyncCollective"):
            return whole
    return min(whole, total)


def _writes(module: _Module, computation: _Computation, name: str = "") -> int:
    """Bytes that a fusion writes, or for one of its results."""
    result = computation.instructions.get(name or computation.root)
    if not result or result.opcode == "parameter" or _is_step(computation, result):
        return 0
    if result.opcode in ("tuple", "bitcast"):
        return sum(_writes(module, computation, operand) for operand in result.operands)
    if result.opcode == "fusion":
        return _writes(module, _called(module, result))
    hbm = sum(array.hbm for array in result.arrays[result.target.startswith("AsyncCollective") :])
    updates = result.opcode in _UPDATES and len(result.operands) > 1
    return min(hbm, computation.array(result.operands[_UPDATES[result.opcode]]).padded) if updates else hbm
