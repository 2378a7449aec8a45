"""The training step of an experiment, or the prediction that its evaluations run, compiled ahead
of time by the TPU compiler for a topology.

Nothing is executed and no TPU is needed, only the package `libtpu`. The program is the launcher's
own: task, mesh, layout and jitted step are built by the same code from the same config.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding

from swin_jax.core import config as configs
from swin_jax.core import termination
from swin_jax.core.output.text import say
from swin_jax.core.params import path_name
from swin_jax.ops import batch_sharding
from swin_jax.plan import cache as plan_cache
from swin_jax.plan import chips, collectives, flops, kernels, roofline, tpu_compiler
from swin_jax.tasks.base import prediction_shapes, train_flops
from swin_jax.train import setup

# What a plan was computed with, beside the program: to be counted up when the analysis changes.
_FORMAT = 5
# How far the compiler goes: to the end, or until memory and traffic are known.
# docs/planning.md compares them.
EFFORTS = ("full", "quick")
# What is compiled: the step of a config that makes updates, else what evaluations do with a batch.
PROGRAMS = ("update", "evaluation")


@dataclasses.dataclass(frozen=True)
class _Program:
    """A program to compile for a topology.

    Attributes:
        run: Everything that the launcher builds from a config.
        batch: Shapes and dtypes of what it reads, with shardings.
        kind: One of `PROGRAMS`.
    """

    run: setup.Run
    batch: dict[str, jax.ShapeDtypeStruct]
    kind: str

    def trace(self) -> Any:
        """The traced program, of jax.stages."""
        jitted = setup.jitted_step(self.run)
        if self.kind == "evaluation":
            # The optimizer's state, which it does not read, lies in memory meanwhile.
            jitted = jax.jit(self.run.task.predict, keep_unused=True)
        with jax.set_mesh(self.run.placement.mesh):
            return jitted.trace(self.run.abstract, self.batch, self.run.frozen)


def prepare(
    config, topology: chips.Topology, cache: pathlib.Path | None = None, effort: str = "full"
) -> Callable[[], dict[str, Any]]:
    """Builds the training step of a config for a topology, without compiling it; where its
    `total_steps` is 0, the prediction of a batch of `batch_size` that evaluations run.

    Args:
        config, topology, cache, effort: Arguments of `plan`.

    Returns:
        The function that compiles it, and returns what `plan` does.

    Raises:
        UserError: A mesh that does not fit the topology, and whatever the launcher would refuse.
    """
    program = _build(config, topology)
    setup.check_batch(config, program.run)
    return functools.partial(_plan, config, topology, program, cache, effort)


def plan(
    config, topology: chips.Topology, cache: pathlib.Path | None = None, effort: str = "full"
) -> dict[str, Any]:
    """Compiles the program of `prepare` and reads it.

    Args:
        config: Config from an experiment file.
        topology: A topology from `chips.topology`.
        cache: A folder that keeps the numbers of programs,
            because programs for an absent topology cannot be kept.
        effort: One of EFFORTS.

    Returns:
        JSON values, see docs/planning.md.

    Raises:
        UserError: A mesh that does not fit the topology, and whatever the launcher would refuse.
    """
    return prepare(config, topology, cache, effort)()


def _plan(
    config, topology: chips.Topology, program: _Program, cache, effort: str
) -> dict[str, Any]:
    run = program.run
    facts = {
        "program": program.kind,
        "topology": topology.name,
        "effort": effort,
        "slices": topology.slices,
        "chip": topology.chip.name,
        "chips": topology.size,
        "mesh": dict(run.placement.mesh.shape),
        "batch_size": config.batch_size,
        "accumulate": config.task.get("accumulate", 1),
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(run.abstract.params)),
        "state_bytes": _state_bytes(program),
    }
    began = time.monotonic()
    with progress(f"{topology.name}: tracing"):
        traced = program.trace()
        facts["flops"] = _flops(program, traced, config.batch_size)
        unit = topology.chip.matrix_unit
        facts["flops"]["padded"] = flops.count_jaxpr(traced.jaxpr, unit)
        lowered = traced.lower()
    facts["lower_seconds"] = round(time.monotonic() - began, 1)
    called = kernels.kernels(traced.jaxpr)
    facts |= _kept(cache, lowered, topology, effort) or _compile(
        cache, lowered, config, topology, run, effort, called
    )
    if facts["memory"]["fits"]:
        facts["roofline"] = _roofline(facts, topology)
    else:
        facts["memory"]["largest"] = facts["memory"]["largest"] or _largest(run)
        facts["advice"] = advice(config, facts)
    return facts


def _build(config, topology: chips.Topology) -> _Program:
    """Builds what the launcher would build from a config, and the shapes of a batch."""
    run = setup.build_run(config, tpu_compiler.devices(topology))
    rows = NamedSharding(run.placement.mesh, batch_sharding.BATCH)
    kind = "update" if config.get("total_steps", 1) else "evaluation"
    if kind == "update":
        shapes = run.task.batch_shapes(config.batch_size)
    else:
        shapes = prediction_shapes(run.task, config.batch_size)
    batch = {
        key: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows) for key, x in shapes.items()
    }
    return _Program(run, batch, kind)


def _key(lowered, topology: chips.Topology, effort: str) -> str:
    """Cache key: the program, compiler versions, flags, effort and topology."""
    digest = hashlib.sha256(lowered.as_text().encode())
    digest.update(
        "".join(os.environ.get(name, "") for name in ("LIBTPU_INIT_ARGS", "XLA_FLAGS")).encode()
    )
    digest.update(json.dumps([_FORMAT, tpu_compiler.versions(), topology.name, effort]).encode())
    return digest.hexdigest()


def _kept(
    cache: pathlib.Path | None, lowered, topology: chips.Topology, effort: str
) -> dict[str, Any] | None:
    """The cached result, if any; a full result also serves a quick plan."""
    if cache:
        for tried in dict.fromkeys(("full", effort)):
            found = plan_cache.read(cache / f"{_key(lowered, topology, tried)}.json")
            if found is not None:
                return found | {"from_cache": True}
    return None


def _compile(
    cache: pathlib.Path | None,
    lowered,
    config,
    topology: chips.Topology,
    run: setup.Run,
    effort: str,
    called: Sequence[kernels.Kernel],
):
    mesh = run.placement.mesh
    with progress(f"{topology.name}: compiling"):
        if effort == "full":
            facts = tpu_compiler.compiled(lowered, topology, mesh, called)
        else:
            job = config.copy_and_resolve_references(), topology.name
            module = "swin_jax.plan.compiled_step"
            facts = tpu_compiler.optimized(module, job, topology, mesh, called)
    facts["effort"] = effort
    if cache:
        plan_cache.write(cache / f"{_key(lowered, topology, effort)}.json", facts)
    return facts | {"from_cache": False}


def main(folder: str) -> None:
    """The compiler of a quick plan, in a process of its own: see `tpu_compiler.optimized`."""
    config, name = pickle.load(sys.stdin.buffer)
    termination.end_with_parent()
    tpu_compiler.prepare_backend()
    lowered = _build(config, chips.topology(name)).trace().lower()
    lowered.compile(compiler_options=tpu_compiler.write_to(folder))


def _largest(run: setup.Run) -> list[dict[str, Any]]:
    """The largest arrays of the state: what a chip holds of each."""
    found = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(run.abstract)[0]:
        shape = leaf.sharding.shard_shape(leaf.shape)
        text = f"{leaf.dtype.name}[{','.join(map(str, shape))}]"
        found.append(
            {"bytes": math.prod(shape) * leaf.dtype.itemsize, "shape": text, "of": path_name(path)}
        )
    return sorted(found, key=lambda item: -item["bytes"])[:8]


def _roofline(facts: dict[str, Any], topology: chips.Topology) -> dict[str, Any]:
    """Seconds of an update and what bounds them."""
    moved = [
        collectives.Collective(**item | {"axes": tuple(item["axes"])})
        for item in facts["collectives"]
    ]
    found = roofline.estimate(
        topology, facts["flops"]["padded"] / topology.size, facts["hbm_bytes"], moved
    )
    times = {
        name: getattr(found, name)
        for name in ("compute", "memory", "links", "network", "exposed", "step", "serial")
    }
    return times | {
        "limit": found.limit,
        "mfu": found.mfu(facts["flops"]["model"] / topology.size),
        "examples_per_second": facts["batch_size"] / found.step,
        "sent_bytes": sum(roofline.sent_bytes(item) for item in moved),
    }


def state_bytes(config, topology: chips.Topology) -> dict[str, int]:
    """Bytes per chip of what a config's step is given, by part, without compiling anything."""
    return _state_bytes(_build(config, topology))


def _state_bytes(program: _Program) -> dict[str, int]:
    """Bytes per chip of what a step is given, by part: arithmetic on shapes and layouts."""

    def of(tree) -> int:
        return sum(
            math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
            for x in jax.tree.leaves(tree)
        )

    run = program.run
    parts = {
        name: getattr(run.abstract, name) for name in ("params", "opt_state", "mutable", "ema")
    } | {"frozen": run.frozen, "batch": program.batch}
    return {name: of(tree) for name, tree in parts.items()}


def _flops(program: _Program, traced, batch_size: int) -> dict[str, int]:
    """FLOPs over all chips; `step` includes rematerialization, `model` does not."""
    run, step = program.run, flops.count_jaxpr(traced.jaxpr)
    if program.kind == "evaluation":
        return {"step": step, "model": step}
    model = round(train_flops(run.task) * batch_size)
    if not model:  # a forward pass and its gradient
        with jax.set_mesh(run.placement.mesh):
            model = 3 * flops.count(run.task.predict, run.abstract, program.batch, run.frozen)
    return {"step": step, "model": min(model, step)}


def advice(config, facts: dict[str, Any]) -> list[str]:
    """Flags that would make a program smaller and are not set yet,
    the largest part of its memory first.
    """
    trains = facts["program"] == "update"
    state, mesh, memory = facts["state_bytes"], facts["mesh"], facts["memory"]
    excess = memory["peak"] - memory["hbm"] if memory["peak"] else math.inf
    activations = max(0, (memory["peak"] or 0) - sum(state.values()))  # what is left
    found = []

    def add(saved: float, flag: str, effect: str, known: bool = True) -> None:
        if known and saved:
            effect += f": about -{saved / 2**30:.1f} GiB" + (
                ", enough alone" if saved >= excess else ""
            )
        found.append((saved, f"{flag}  {effect}"))

    if config.partition.get("opt_axis") == "" and mesh["data"] > 1:
        saved = (state["opt_state"] + state["ema"]) * (1 - 1 / mesh["data"])
        add(
            saved,
            "--config.partition.opt_axis=data",
            "splits optimizer state and averages (ZeRO-1)",
        )
    # Of the chips of a slice that hold the same parameters.
    size = math.gcd(mesh["data"] // facts["slices"], 8)
    if mesh["fsdp"] == 1 and size > 1:
        saved = (state["params"] + state["opt_state"] + state["ema"]) * (1 - 1 / size)
        add(saved, f"--config.mesh.fsdp={size}", "splits parameters too (FSDP)")
    half = activations / 2
    for key, now in configs.flatten(config.task).items():
        field = key.rpartition(".")[2]
        if trains and field == "remat" and now == "none":
            add(
                half,
                f"--config.task.{key}=full",
                "computes activations again in the backward pass",
                known=False,
            )
        if field == "dtype" and now == "float32":
            add(half, f"--config.task.{key}=bfloat16", "halves activations")
        whole = {"auto", "xla"}  # attention to all windows at once
        if field == "attention" and isinstance(now, (tuple, list)) and whole & set(now):
            flag = f"""--config.task.{key}="('sequential',)\""""
            add(half, flag, "attends to one window at a time, in all stages", known=False)
    if not trains:
        add(
            half, f"--config.batch_size={facts['batch_size'] // 2}", "halves the examples at a time"
        )
        return [text for _, text in sorted(found, key=lambda item: -item[0])]
    accumulate = 2 * facts["accumulate"]
    smaller, left = divmod(facts["batch_size"], accumulate)
    if (
        not left
        and smaller % (mesh["data"] * mesh["fsdp"]) == 0
        and setup.can_train(configs.build(config.task, "task"), facts["batch_size"], accumulate)
    ):
        add(
            half,
            f"--config.task.accumulate={accumulate}",
            "halves the examples at a time",
        )
    return [text for _, text in sorted(found, key=lambda item: -item[0])]


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """Says every ten seconds, on the standard error stream, that something still goes on."""
    done, began = threading.Event(), time.monotonic()

    def remind():
        while not done.wait(10):
            say(f"{what}, {time.monotonic() - began:.0f} s")

    thread = threading.Thread(target=remind, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1])
