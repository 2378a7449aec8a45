"""The text of an optimized HLO module as computations and instructions, and how often each runs.

The text is what `jax.stages.Compiled.as_text` returns. The forms are those of the TPU compiler of
libtpu 0.0.42 and 0.0.50 and the general ones of XLA (openxla/xla, hlo/parser). What cannot be read
is left out, never an error.
"""

import dataclasses
import functools
import math
import re


def trip_counts(text: str) -> dict[str, int | None]:
    """The number of times that the body of each loop runs,
    by the name of the `while`; None where the text doesn't show it.
    """
    module = parse(text)
    return {
        i.name: _trip_count(module, where, i)
        for where, i, _ in run(module, "", 1)
        if i.opcode == "while"
    }


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of a result, in bytes."""

    size: int  # bytes
    padded: int  # bytes, as the layout has it
    hbm: int  # of these, in main memory


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]  # of the result, flat
    operands: tuple[str, ...]
    arguments: str
    attributes: str

    def attribute(self, key: str) -> str:
        """The name or number that follows a key, or ''."""
        match = re.search(rf'\b{key}="?%?([\w.\-]+)', self.attributes)
        return match[1] if match else ""

    @functools.cached_property
    def op_name(self) -> str:
        """The operation that it comes from, 'jit(f)/while/body/add' for example, or ''."""
        match = re.search(r'\bop_name="([^"]*)"', self.attributes)
        return match[1] if match else ""

    @functools.cached_property
    def target(self) -> str:
        return self.attribute("custom_call_target") if self.opcode == "custom-call" else ""


@dataclasses.dataclass
class Computation:
    """The lines between a header and its closing brace, by name."""

    instructions: dict[str, Instruction] = dataclasses.field(default_factory=dict)
    root: str = ""
    wrapped: bool = False  # called by an async-start

    def array(self, name: str) -> Array:
        """The array that an operand names; for a tuple, the total over its elements."""
        arrays = self.instructions[name].arrays if name in self.instructions else ()
        return Array(
            sum(a.size for a in arrays), sum(a.padded for a in arrays), sum(a.hbm for a in arrays)
        )

    @functools.cached_property
    def parameters(self) -> dict[str, str]:
        return {i.arguments: i.name for i in self.instructions.values() if i.opcode == "parameter"}

    @functools.cached_property
    def overlaps(self) -> bool:
        """True if its caller goes on before it is done."""
        return self.wrapped or any(
            i.target == "AsyncCollectiveStart" for i in self.instructions.values()
        )


Module = dict[str, Computation]  # by name, the entry computation by '' too


def called(module: Module, instruction: Instruction, key: str = "calls") -> Computation:
    """The computation that an instruction names, an empty one where it names none."""
    return module.get(instruction.attribute(key) or "none", Computation())


# Bits; the names of the others tell theirs.
_WIDTHS = {"token": 0, "opaque": 0, "pred": 8, "c64": 64, "c128": 128}
_ARRAY = re.compile(r"([a-z]\w*)\[([^\]]*)\](?:\{([^}]*)\})?")
_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_ASSIGNMENT = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")


@functools.lru_cache(maxsize=2)
def parse(text: str) -> Module:
    """The computations of a module."""
    module, current = {}, Computation()
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = module[header[2]] = Computation()
            module |= {"": current} if header[1] else {}
        elif line.startswith("}"):
            current = Computation()
        elif assignment := _ASSIGNMENT.match(line):
            instruction = _instruction(assignment[2], re.sub(r"/\*.*?\*/", "", assignment[3]))
            if instruction:
                current.instructions[instruction.name] = instruction
                current.root = instruction.name if assignment[1] else current.root
    for name in re.findall(r" async-start\(.*?calls=%?([\w.\-]+)", text):
        module.get(name, current).wrapped = True
    for computation in module.values():
        _name_elements(computation)
    return module


def _name_elements(computation: Computation) -> None:
    """Adds a get-tuple-element for each operand such as `all-reduce.1#2`, an element of a result:
    libtpu 0.0.50 writes it in place of that instruction.
    """
    for instruction in list(computation.instructions.values()):
        for name in instruction.operands:
            whole, mark, index = name.partition("#")
            if not mark or name in computation.instructions:
                continue
            result = computation.instructions.get(whole)
            arrays = result.arrays[int(index) :][:1] if result else ()
            computation.instructions[name] = Instruction(
                name, "get-tuple-element", arrays, (whole,), f"%{whole}", f", index={index}"
            )


def _instruction(name: str, text: str) -> Instruction | None:
    end = _closing(text, 0) if text.startswith("(") else text.find(" ")
    opcode = _OPCODE.match(text, end) if end > 0 else None
    if not opcode:
        return None
    close = _closing(text, opcode.end() - 1)
    arguments = text[opcode.end() : close - 1]
    operands = re.findall(r"%([\w.\-]+(?:#\d+)?)", arguments) or [
        name.strip() for name in arguments.split(",")
    ]
    arrays = tuple(_array(*match.groups()) for match in _ARRAY.finditer(text[:end]))
    return Instruction(
        name, opcode[1], arrays, tuple(filter(None, operands)), arguments, text[close:]
    )


def _closing(text: str, start: int) -> int:
    """The end of what the parenthesis at `start` opens."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return match.end()
    return len(text)


def _array(dtype: str, dims: str, layout: str | None) -> Array:
    shape, digits = numbers(dims), numbers(dtype)
    width = _WIDTHS.get(dtype, digits[0] if digits else 0)
    order, _, tiling = (layout or "").partition(":")
    physical = [shape[axis] for axis in reversed(numbers(order)) if axis < len(shape)]
    tile = re.match(r"T\(([\d,]+)\)", tiling)
    sides = numbers(tile[1]) if tile and len(physical) == len(shape) else []
    physical = [1] * (len(sides) - len(shape)) + (physical if sides else shape)
    for axis, side in zip(range(-len(sides), 0), sides):
        physical[axis] = -(-physical[axis] // side) * side
    padded = -(-math.prod(physical) * width // 8)
    return Array(
        -(-math.prod(shape) * width // 8), padded, 0 if re.search(r"S\([1-9]", tiling) else padded
    )


def run(module: Module, name: str, count: int) -> list[tuple[Computation, Instruction, int]]:
    """Instructions that a computation runs, those of fusions apart, with how often."""
    computation, found = module.get(name, Computation()), []
    for instruction in computation.instructions.values():
        found.append((computation, instruction, count))
        if instruction.opcode == "while":
            trips = _trip_count(module, computation, instruction)
            found += run(
                module, instruction.attribute("body"), count * (1 if trips is None else trips)
            )
        elif instruction.opcode in ("conditional", "call", "async-start"):
            names = re.findall(r"%([\w.\-]+)", instruction.attributes)
            found += max((run(module, name, count) for name in names), key=len, default=[])
    return found


def _trip_count(module: Module, computation: Computation, loop: Instruction) -> int | None:
    if known := re.search(r"known_trip_count\D+(\d+)", loop.attributes):
        return int(known[1])
    # The TPU compiler doesn't write it down: the condition compares a counter of the loop's
    # state with its bound.
    condition, body = called(module, loop, "condition"), called(module, loop, "body")
    state = computation.instructions.get(loop.operands[0]) if loop.operands else None
    test, following = condition.instructions.get(condition.root), body.instructions.get(body.root)
    if not (
        state
        and test
        and following
        and test.opcode == "compare"
        and state.opcode == following.opcode == "tuple"
    ):
        return None
    before, after = (dict(enumerate(values.operands)) for values in (state, following))
    counter, limit = (source(condition, name) for name in (*test.operands, "", "")[:2])
    at, limit_at = (
        numbers(place.attribute("index")) if place else [] for place in (counter, limit)
    )
    start = _constant(computation, before.get(at[0], "")) if at else None
    step = _step(body, after.get(at[0], "")) if at else None
    if limit_at:
        bound = _constant(computation, before.get(limit_at[0], ""))
    else:
        bound = _constant(condition, test.operands[-1])
    if start is None or bound is None or not step:
        return None
    bound += {"LE": 1, "GE": -1}.get(test.attribute("direction"), 0)
    return max(0, -(-(bound - start) // step))


def _step(body: Computation, name: str) -> int | None:
    """The amount that an iteration adds to an element of the state."""
    addition = source(body, name)
    if not addition or addition.opcode not in ("add", "subtract"):
        return None
    step = next(
        (n for n in (_constant(body, name) for name in addition.operands) if n is not None), None
    )
    return -step if step is not None and addition.opcode == "subtract" else step


def _constant(computation: Computation, name: str) -> int | None:
    value = source(computation, name)
    found = value and value.opcode == "constant" and re.fullmatch(r"-?\d+", value.arguments)
    return int(found[0]) if found else None


def source(computation: Computation, name: str) -> Instruction | None:
    """The instruction of that name, or what it is a copy of."""
    instruction = computation.instructions.get(name)
    while instruction and instruction.opcode in (
        "copy",
        "bitcast",
        "convert",
        "copy-done",
        "copy-start",
    ):
        instruction = (
            computation.instructions.get(instruction.operands[0]) if instruction.operands else None
        )
    return instruction


def fused(module: Module, computation: Computation, instruction: Instruction) -> list:
    """The instruction or all those that are fused into it, with the computation that each is of."""
    if instruction.opcode != "fusion":
        return [(computation, instruction)]
    inside = called(module, instruction)
    return [
        found for inner in inside.instructions.values() for found in fused(module, inside, inner)
    ]


def numbers(text: str) -> list[int]:
    """The whole numbers that a text writes, in order."""
    return [int(digits) for digits in re.findall(r"\d+", text)]
