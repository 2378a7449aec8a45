"""The TPU compiler on a machine without a TPU:
its numbers for a program, with code generation or without.
"""

import collections
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import cloudpickle
import jax
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache

from swin_jax.core.errors import UserError, install
from swin_jax.plan import chips, collectives
from swin_jax.plan.kernels import Kernel

_LOADING = threading.Lock()
_PACKAGES = ("jax", "jaxlib", "libtpu")
# Several plans at a time, no question to the cloud about this machine,
# and no complaints that it has no TPU.
_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}
# What the compiler writes of a program once it has given every buffer its place, in this order.
_OPTIMIZED, _BUFFERS, _REPORT, _LAST = (
    "after_optimizations.txt",
    "after_optimizations-buffer-assignment.txt",
    "after_optimizations-memory-usage-report.txt",
    "after_optimizations_after_buffer_assignment.txt",
)


def prepare_backend() -> None:
    """Makes JAX start without an accelerator and the TPU compiler without a TPU. To be
    called before any computation.

    Raises:
        UserError: The TPU compiler is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"the TPU compiler is needed and not installed: {install('tpu')}")
    for name, value in _ENVIRONMENT.items():
        # What JAX writes where it finds no TPU.
        if os.environ.get(name, "WARNING").startswith("WARNING"):
            os.environ[name] = value
    jax.config.update("jax_platforms", "cpu")


def devices(topology: chips.Topology) -> list[Any]:
    """The devices of a topology, described; no TPU is needed.

    Raises:
        UserError: The compiler does not know such a topology.
    """
    try:
        with _LOADING:  # Two threads at once would both load the compiler, which it refuses.
            return list(topologies.get_topology_desc(**topology.compiler_options()).devices)
    except jax.errors.JaxRuntimeError as error:
        text = " ".join(str(error).split())
        raise UserError(f"the TPU compiler does not know {topology.name}: {text[:200]}") from error


def versions() -> dict[str, str]:
    """Versions of the packages that affect the program."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def compiled(
    lowered, topology: chips.Topology, mesh, called: Sequence[Kernel] = ()
) -> dict[str, Any]:
    """Compiles a program to the end.

    Args:
        lowered: Lowered program.
        topology: Topology of the program.
        mesh: Mesh of the program.
        called: Kernels that the program calls.

    Returns:
        {memory, hbm_bytes, collectives, compile_seconds, versions}; without hbm_bytes and
        collectives where the program does not fit the memory of a chip.
    """
    began = time.monotonic()
    try:
        with _no_cache():
            program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _facts(began) | {"memory": _memory(topology, **exhausted(str(error)), fits=False)}
    facts, found, text = _facts(began), program.memory_analysis(), program.as_text()
    facts["memory"] = _memory(
        topology,
        arguments=found.argument_size_in_bytes,
        outputs=found.output_size_in_bytes - found.alias_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
        peak=found.peak_memory_in_bytes,
        fits=True,
    )
    return facts | _moved(text, topology, mesh, called)


def optimized(
    module: str, job: Any, topology: chips.Topology, mesh, called: Sequence[Kernel] = ()
) -> dict[str, Any]:
    """The numbers of `compiled` without code generation, which takes most of the time.

    The compiler runs in a process of its own, which is ended once memory and traffic are known.

    Args:
        module: `python -m module FOLDER` finds the job, pickled, in its standard input and compiles
            it with `write_to(FOLDER)` as compiler options.
        job: Job of that process.
        topology: Topology of the program.
        mesh: Mesh of the program.
        called: Kernels that the program calls.

    Raises:
        UserError: The process ended before it knew.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, open(pathlib.Path(name) / "stderr", "w+") as errors:
        folder = pathlib.Path(name)
        search = [str(pathlib.Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        child = subprocess.Popen(
            [sys.executable, "-m", module, name],
            stdin=subprocess.PIPE,
            stderr=errors,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search))},
        )
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended already, and said why
                cloudpickle.dump(job, child.stdin)
                child.stdin.close()
            while child.poll() is None and not _written(folder, _LAST):
                time.sleep(0.1)
        finally:
            child.kill()
            child.wait()
        errors.seek(0)
        said, report = errors.read(), _written(folder, _REPORT)
        if _written(folder, _LAST):
            facts = _facts(began) | {"memory": _memory(topology, **_parts(folder), fits=True)}
            program = _written(folder, _OPTIMIZED).read_text()
            return facts | _moved(program, topology, mesh, called)
        if "RESOURCE_EXHAUSTED" not in said:
            word = (said.strip().splitlines() or ["no word"])[-1][:500]
            killed = " (killed: is this machine's own memory full?)" if child.returncode < 0 else ""
            raise UserError(
                f"the compiler's process ended with status {child.returncode}: {word}{killed}"
            )
        found = exhausted(said)
        if report:
            program = _written(folder, _OPTIMIZED).read_text()
            found |= {
                "peak": _total(report.read_text()),
                "largest": largest(_written(folder, _BUFFERS).read_text(), program),
            }
        return _facts(began) | {"memory": _memory(topology, **found, fits=False)}


def write_to(folder: str) -> dict[str, Any]:
    """Compiler options that write what `optimized` reads."""
    return {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}


def _written(folder: pathlib.Path, suffix: str) -> pathlib.Path | None:
    return next(folder.glob(f"*.{suffix}"), None)


def _facts(began: float) -> dict[str, Any]:
    return {"versions": versions(), "compile_seconds": round(time.monotonic() - began, 1)}


def _memory(topology: chips.Topology, **parts) -> dict[str, Any]:
    return parts | {"hbm": topology.chip.hbm_bytes}


def _moved(text: str, topology: chips.Topology, mesh, called: Sequence[Kernel]) -> dict[str, Any]:
    """The bytes that a program moves through memory and between chips."""
    found = collectives.collectives(text, mesh.shape, topology.slices)
    return {
        "hbm_bytes": collectives.hbm_bytes(text, called),
        "collectives": [dataclasses.asdict(item) for item in found],
    }


def _parts(folder: pathlib.Path) -> dict[str, int]:
    """Bytes by what they are for, out of the list of buffers."""
    text = _written(folder, _BUFFERS).read_text()
    sizes = re.findall(
        r"^allocation \d+: size (\d+), (?:page \d+, )?(parameter|output shape|maybe-live-out)",
        text,
        re.M,
    )
    arguments = sum(int(size) for size, kind in sizes if kind == "parameter")
    outputs = sum(int(size) for size, kind in sizes if kind != "parameter")
    peak = _total(_written(folder, _REPORT).read_text())
    return {
        "arguments": arguments,
        "outputs": outputs,
        "temporaries": peak - arguments - outputs,
        "peak": peak,
    }


def _total(report: str) -> int:
    """Bytes of all buffers, out of the compiler's report on memory usage."""
    return int(re.search(r"Memory Space: default.*\nTotal bytes: (\d+)", report)[1])


def largest(buffers: str, program: str, count: int = 8) -> list[dict[str, Any]]:
    """The largest arrays that lie beside each other in the memory of a chip.

    Args:
        buffers: The compiler's list of buffers, and of the values that each of them holds in turn.
        program: The optimized program.
        count: Number of arrays.

    Returns:
        [{bytes, shape, of}], of: what the program computes there.
    """
    values, taken, found = [], collections.defaultdict(list), []
    for index, block in enumerate(re.split(r"^allocation ", buffers, flags=re.M)[1:]):
        for name, size, offset, shape in re.findall(
            r"^ value: <\d+ (\S+?)(?:\{[\d,]*\})? @0> \(size=(\d+),offset=(\d+)\): (\w+\[[\d,]*\])",
            block,
            re.M,
        ):
            values.append((int(size), index, int(offset), name, shape))
    for size, index, offset, name, shape in sorted(values, key=lambda value: -value[0]):
        if len(found) < count and all(
            offset + size <= start or end <= offset for start, end in taken[index]
        ):
            taken[index].append((offset, offset + size))
            line = re.search(rf"^.*%{re.escape(name)} = .*$", program, re.M)
            of = re.search(r'op_name="([^"]*)"', line[0]) if line else None
            of = re.sub(r"\[\\?'([^\]]*?)\\?'\]", r"/\1", of[1]) if of else ""
            found.append({"bytes": size, "shape": shape, "of": of.removeprefix("state.")})
    return found


def exhausted(text: str) -> dict[str, Any]:
    """The compiler's numbers for a program that does not fit:
    bytes at the `peak` if it gives them, the `largest` buffers.
    """
    used = re.search(r"(?:Used|required for HLO temporaries) \(?([\d.]+)([KMGT]?)\b", text)
    found: dict[str, Any] = {"peak": _bytes(*used.groups()) if used else None, "largest": []}
    for item in re.split(r"\n\s*\d+\. Size: ", text)[1:]:
        size = re.match(r"([\d.]+)([KMGT]?)", item)
        shape, operator = (
            re.search(r"Shape: (\S+?)[{\s]", item),
            re.search(r'op_name="([^"]*)"', item),
        )
        if size:
            found["largest"].append(
                {
                    "bytes": _bytes(*size.groups()),
                    "shape": shape[1] if shape else "",
                    "of": operator[1] if operator else "",
                }
            )
    return found


def _bytes(number: str, unit: str) -> int:
    return round(float(number) * 1024 ** " KMGT".index(unit or " "))


@contextlib.contextmanager
def _no_cache() -> Iterator[None]:
    """Without JAX's own cache of programs, out of which one for an absent
    topology cannot be read.
    """
    before = jax.config.jax_enable_compilation_cache

    def enable(value: bool) -> None:
        jax.config.update("jax_enable_compilation_cache", value)
        compilation_cache.reset_cache()  # JAX looks at the setting once

    enable(False)
    try:
        yield
    finally:
        enable(before)
