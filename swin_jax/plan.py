"""The training step of an experiment, compiled by the real TPU compiler for a topology that is not there.

Nothing is executed and no TPU is needed, only the package `libtpu`. The program is the launcher's own: task, mesh,
layout and jitted step are built by the same code from the same config.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import re
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import NamedSharding

from swin_jax import chips, flops, hlo, roofline, sharding, start
from swin_jax import config as configs
from swin_jax.errors import UserError
from swin_jax.names import path_name

_PACKAGES = ("jax", "jaxlib", "libtpu")
# What a plan was computed with, beside the program: to be counted up when the analysis changes.
_FORMAT = 2
# Several plans at a time, no question to the cloud about this machine, and no complaints that it has no TPU.
_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}
# How hard the compiler tries: 'full' as the launcher does, 'quick' in a quarter of the time. The README compares them.
EFFORTS = {"full": {}, "quick": {"exec_time_optimization_effort": -1.0}}


def prepare_backend() -> None:
    """Makes JAX start without an accelerator and the TPU compiler without a TPU. To be called before any computation.

    Raises:
        UserError: the TPU compiler is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("--plan needs the TPU compiler, which is not installed: pip install -e '.[tpu]'")
    for name, value in _ENVIRONMENT.items():
        if os.environ.get(name, "WARNING").startswith("WARNING"):  # what JAX writes where it finds no TPU
            os.environ[name] = value
    jax.config.update("jax_platforms", "cpu")


def devices(topology: chips.Topology) -> list[Any]:
    """The devices of a topology that is not there.

    Raises:
        UserError: the compiler does not know such a topology (exit status 2).
    """
    try:
        return list(topologies.get_topology_desc(**topology.compiler_options()).devices)
    except jax.errors.JaxRuntimeError as error:
        text = " ".join(str(error).split())
        raise UserError(f"the TPU compiler makes no {topology.name}: {text[:200]}", 2) from error


def plan(config, topology: chips.Topology, cache: pathlib.Path | None = None, effort: str = "full") -> dict[str, Any]:
    """Compiles the training step of a config for a topology and reads the program.

    Args:
        config: from an experiment file.
        topology: from `chips.topology`.
        cache: a folder that keeps the numbers of programs, because programs for an absent topology cannot be kept.
        effort: one of EFFORTS.

    Returns:
        JSON values: see the README, section Planning.

    Raises:
        UserError: a mesh that does not fit the topology, and whatever the launcher would refuse.
    """
    at = start.setup(config, devices(topology))
    start.check_batch(config, at.placement)
    batch = _batch(at, config.batch_size)
    facts = {
        "topology": topology.name,
        "effort": effort,
        "slices": topology.slices,
        "chip": topology.chip.name,
        "chips": topology.size,
        "mesh": dict(at.placement.mesh.shape),
        "batch_size": config.batch_size,
        "accumulate": config.task.get("accumulate", 1),
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(at.abstract.params)),
        "state_bytes": _state_bytes(at, batch),
        "flops": _flops(at, batch),
    }
    began = time.monotonic()
    with jax.set_mesh(at.placement.mesh), progress(f"{topology.name}: tracing"):
        lowered = start.jitted_step(at).lower(at.abstract, batch, at.frozen)
        key = _key(lowered, topology, effort)
    facts["lower_seconds"] = round(time.monotonic() - began, 1)
    kept = cache / f"{key}.json" if cache else None
    if kept and kept.exists():
        compiled = json.loads(kept.read_text()) | {"from_cache": True}
    else:
        compiled = _compile(lowered, topology, at.placement.mesh, effort) | {"from_cache": False}
        if kept:
            cache.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(compiled, indent=1) + "\n")
            partial.replace(kept)
    facts |= compiled
    if facts["memory"]["fits"]:
        facts["roofline"] = _roofline(facts, topology)
    else:
        if "temporaries" in facts["memory"]:
            facts["memory"]["peak"] = facts["memory"]["temporaries"] + sum(facts["state_bytes"].values())
        facts["memory"]["largest"] = facts["memory"]["largest"] or _largest(at)
        facts["advice"] = advice(config, facts)
    return facts


def _largest(at: start.Setup) -> list[dict[str, Any]]:
    """The largest arrays of the state: what a chip holds of each."""
    found = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(at.abstract)[0]:
        shape = leaf.sharding.shard_shape(leaf.shape)
        text = f"{leaf.dtype.name}[{','.join(map(str, shape))}]"
        found.append({"bytes": math.prod(shape) * leaf.dtype.itemsize, "shape": text, "of": path_name(path)})
    return sorted(found, key=lambda item: -item["bytes"])[:8]


def _roofline(facts: dict[str, Any], topology: chips.Topology) -> dict[str, Any]:
    """Seconds of an update and what bounds them."""
    moved = [hlo.Collective(**item | {"axes": tuple(item["axes"])}) for item in facts["collectives"]]
    found = roofline.estimate(topology, facts["flops"]["step"] / topology.size, facts["hbm_bytes"], moved)
    times = {
        name: getattr(found, name) for name in ("compute", "memory", "links", "network", "exposed", "step", "serial")
    }
    return times | {
        "limit": found.limit,
        "mfu": found.mfu(facts["flops"]["model"] / topology.size),
        "examples_per_second": facts["batch_size"] / found.step,
        "sent_bytes": sum(roofline.sent_bytes(item) for item in moved),
    }


def _batch(at: start.Setup, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    rows = NamedSharding(at.placement.mesh, sharding.BATCH)
    shapes = at.task.batch_shapes(batch_size)
    return {key: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows) for key, x in shapes.items()}


def _state_bytes(at: start.Setup, batch) -> dict[str, int]:
    """Bytes per chip of what a step is given, by part: arithmetic on shapes and layouts."""

    def of(tree) -> int:
        return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))

    parts = {name: getattr(at.abstract, name) for name in ("params", "opt_state", "mutable", "ema")}
    return {name: of(tree) for name, tree in (parts | {"frozen": at.frozen, "batch": batch}).items()}


def _flops(at: start.Setup, batch) -> dict[str, int]:
    """Of one update over all chips: `step` with what is computed again, `model` without (three forward passes)."""
    with jax.set_mesh(at.placement.mesh):
        step = flops.count(at.task.train_step, at.abstract, batch, at.frozen)
        forward = flops.count(at.task.predict, at.abstract, batch, at.frozen)
    return {"step": step, "model": min(3 * forward, step)}


def _key(lowered, topology: chips.Topology, effort: str) -> str:
    """Of a program, the versions of the compiler, its options and the topology."""
    digest = hashlib.sha256(lowered.as_text().encode())
    digest.update(json.dumps([_FORMAT, versions(), topology.name, EFFORTS[effort]]).encode())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of the packages that the program depends on."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def _compile(lowered, topology: chips.Topology, mesh, effort: str) -> dict[str, Any]:
    """What the compiler says: memory, collectives, traffic."""
    began = time.monotonic()
    facts = {"versions": versions()}
    try:
        with progress(f"{topology.name}: compiling"), _no_cache():
            program = lowered.compile(compiler_options=EFFORTS[effort] or None)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        memory = exhausted(str(error)) | {"hbm": topology.chip.hbm_bytes, "fits": False}
        return facts | {"memory": memory, "compile_seconds": round(time.monotonic() - began, 1)}
    facts["compile_seconds"] = round(time.monotonic() - began, 1)
    found, text = program.memory_analysis(), program.as_text()
    facts["memory"] = {
        "arguments": found.argument_size_in_bytes,
        "outputs": found.output_size_in_bytes - found.alias_size_in_bytes,
        "temporaries": found.temp_size_in_bytes,
        "peak": found.peak_memory_in_bytes,
        "hbm": topology.chip.hbm_bytes,
        "fits": True,
    }
    facts["hbm_bytes"] = hlo.hbm_bytes(text)
    found = hlo.collectives(text, mesh.shape, topology.slices)
    facts["collectives"] = [dataclasses.asdict(item) for item in found]
    return facts


def exhausted(text: str) -> dict[str, Any]:
    """What the compiler says of a program that does not fit: bytes at the `peak` or of `temporaries`, the `largest`."""
    used = re.search(r"Used ([\d.]+)([KMGT]?) of", text)
    temporaries = re.search(r"required for HLO temporaries \(([\d.]+)([KMGT]?)\)", text)
    found: dict[str, Any] = {"peak": _bytes(*used.groups()) if used else None, "largest": []}
    if temporaries:
        found["temporaries"] = _bytes(*temporaries.groups())
    for item in re.split(r"\n\s*\d+\. Size: ", text)[1:]:
        size = re.match(r"([\d.]+)([KMGT]?)", item)
        shape, operator = re.search(r"Shape: (\S+?)[{\s]", item), re.search(r'op_name="([^"]*)"', item)
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


def advice(config, facts: dict[str, Any]) -> list[str]:
    """Flags that would make a program smaller and are not set yet, the largest part of its memory first."""
    state, mesh = facts["state_bytes"], facts["mesh"]
    found = []
    shards = mesh["data"] * mesh["fsdp"]
    per_chip = facts["batch_size"] // facts["accumulate"] // shards

    def add(size: float, flag: str, effect: str) -> None:
        found.append((size, f"{flag}  {effect}"))

    gib = 2**30
    if config.partition.get("opt_axis") == "" and mesh["data"] > 1:
        saved = (state["opt_state"] + state["ema"]) * (1 - 1 / mesh["data"])
        add(
            saved,
            "--config.partition.opt_axis=data",
            f"splits optimizer state and averages (ZeRO-1): -{saved / gib:.1f} GiB",
        )
    if mesh["fsdp"] == 1 and facts["chips"] > 1:
        size = min(facts["chips"], 8)
        saved = (state["params"] + state["opt_state"] + state["ema"]) * (1 - 1 / size)
        add(saved, f"--config.mesh.fsdp={size}", f"splits parameters too (FSDP): about -{saved / gib:.1f} GiB")
    # The activations are what is left.
    activations = max(0, (facts["memory"]["peak"] or 0) - sum(state.values()))
    half = activations / 2
    for key, now in configs.flatten(config.task).items():
        field = key.rpartition(".")[2]
        if field == "remat" and now == "none":
            add(half, f"--config.task.{key}=full", "computes activations again in the backward pass")
        if field == "dtype" and now == "float32":
            add(half, f"--config.task.{key}=bfloat16", "halves activations")
        if field == "attention" and isinstance(now, (tuple, list)) and "xla" in now:
            add(half, f"""--config.task.{key}="('sequential',)\"""", "attends to one window at a time")
    if per_chip > 1:
        add(half, f"--config.task.accumulate={2 * facts['accumulate']}", "halves the examples at a time")
    return [text for _, text in sorted(found, key=lambda item: -item[0])]


@contextlib.contextmanager
def _no_cache() -> Iterator[None]:
    """Without JAX's own cache of programs, out of which one for an absent topology cannot be read."""
    before = jax.config.jax_enable_compilation_cache

    def enable(value: bool) -> None:
        jax.config.update("jax_enable_compilation_cache", value)
        compilation_cache.reset_cache()  # JAX looks at the setting once

    enable(False)
    try:
        yield
    finally:
        enable(before)


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """Says every ten seconds, on the standard error stream, that something still goes on."""
    done, began = threading.Event(), time.monotonic()

    def report():
        while not done.wait(10):
            print(f"{what}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
