"""The layout of a training step with the best estimated throughput:
mesh, ZeRO-1, recomputation, micro-batches.

Compiling takes minutes, so that not every combination can be compiled. One program per
recomputation policy tells what activations cost; what fits is estimated from that and from the
bytes of the state, which are exact; the most promising are compiled.
"""

import contextlib
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from swin_jax.plan import chips, compiled_step, tpu_compiler
from swin_jax.train import setup, sharding

REMAT = ("none", "dots_no_batch", "full")
StateBytes = dict[tuple[int, int, bool], int]  # of (fsdp, tensor, zero1)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to lay out a step: flags of the launcher."""

    fsdp: int
    tensor: int
    zero1: bool
    remat: str
    accumulate: int

    def settings(self, config) -> dict[str, Any]:
        """{dotted key: value} on a config."""
        found = {
            "mesh.data": -1,
            "mesh.fsdp": self.fsdp,
            "mesh.tensor": self.tensor,
            "partition.opt_axis": "data" if self.zero1 else "",
        }
        if "accumulate" in config.task:
            found["task.accumulate"] = self.accumulate
        return found | dict.fromkeys(remat_keys(config), self.remat)

    def cost(self) -> tuple:
        """The reasons for a slow step, the worst first:
        computing again, moving parameters, small micro-batches.
        """
        return (REMAT.index(self.remat), self.tensor, self.fsdp, self.accumulate, self.zero1)


def remat_keys(config) -> list[str]:
    """The dotted keys that say what models compute again."""
    return [
        f"task.{key}" for key in configs.flatten(config.task) if key.rpartition(".")[2] == "remat"
    ]


def candidates(config, topology: chips.Topology) -> list[Candidate]:
    """Every combination that divides the batch, the cheapest first."""
    found, task = [], configs.build(config.task, "task")
    powers = [2**n for n in range(13)]
    remats = REMAT if remat_keys(config) else REMAT[:1]
    steps = powers[:7] if "accumulate" in config.task else powers[:1]
    for fsdp, tensor, remat, accumulate in itertools.product(powers, (1, 2, 4, 8), remats, steps):
        if topology.slice_size % (fsdp * tensor):
            continue
        data = topology.size // (fsdp * tensor)
        if config.batch_size % (data * fsdp * accumulate):
            continue
        if not setup.can_train(task, config.batch_size, accumulate):
            continue
        if config.partition.gather:  # from what ZeRO-1 splits
            modes = (True,)
        else:
            modes = (False, True) if data > 1 else (False,)
        found += [Candidate(fsdp, tensor, zero1, remat, accumulate) for zero1 in modes]
    return sorted(found, key=Candidate.cost)


def search(
    config,
    topology: chips.Topology,
    states: StateBytes,
    cache: pathlib.Path | None,
    say: Callable[[str], None],
    compiles: int = 6,
) -> list[tuple[Candidate, dict[str, Any]]]:
    """Compiles the most promising layouts of a step.

    Args:
        config: Config from an experiment file; its batch size stays.
        topology: A topology from `chips.topology`.
        states: Sizes from `state_bytes`.
        cache: The same as in `compiled_step.plan`.
        say: A function that is told what is tried.
        compiles: Most programs to compile.

    Returns:
        What was compiled, (candidate, plan), the best first:
        those that fit by throughput, the others by memory.
    """
    waiting = candidates(config, topology)
    activations: dict[str, float] = {}  # bytes per example and chip, by recomputation policy
    tried: list[tuple[Candidate, dict[str, Any]]] = []

    def estimate(item: Candidate) -> float:
        micro = config.batch_size / topology.size / item.accumulate
        return states[item.fsdp, item.tensor, item.zero1] + activations.get(item.remat, 0.0) * micro

    while waiting and len(tried) < compiles:
        waiting = [item for item in waiting if estimate(item) <= topology.chip.hbm_bytes]
        if not waiting or _settled(tried):
            break
        item = waiting.pop(0)
        settings = item.settings(config)
        say(f"plan {len(tried) + 1} of at most {compiles}: {flags(settings)}")
        with applied(config, settings):
            facts = compiled_step.plan(config, topology, cache, "quick")
        tried.append((item, facts))
        state = sum(facts["state_bytes"].values())
        micro = config.batch_size / topology.size / item.accumulate
        used = facts["memory"]["peak"] or 2 * topology.chip.hbm_bytes
        activations[item.remat] = max(activations.get(item.remat, 0.0), (used - state) / micro)
        say(verdict(facts))
    return sorted(tried, key=lambda pair: _order(pair[1]))


def _order(facts: dict[str, Any]) -> tuple[float, float]:
    """The fastest first; of those that don't fit the one that is nearest to it."""
    return -facts.get("roofline", {}).get("examples_per_second", 0.0), facts["memory"][
        "peak"
    ] or math.inf


def _settled(tried) -> bool:
    """True if two layouts fit:
    what comes after them computes more again or has smaller micro-batches.
    """
    return sum(facts["memory"]["fits"] for _, facts in tried) >= 2


def state_bytes(config, topology: chips.Topology) -> StateBytes:
    """Bytes per chip of the state, for every layout that could be tried.

    Raises:
        UserError: No layout divides the batch, or the config does not make a task.
    """
    items = candidates(config, topology)
    if not items:
        raise UserError(f"no mesh of {topology.size} chips divides batch_size {config.batch_size}")
    found, devices = {}, tpu_compiler.devices(topology)
    # The config's own mesh may be of another slice.
    with applied(config, items[0].settings(config)):
        run = setup.build_run(config, devices)
    for item in items:
        key = item.fsdp, item.tensor, item.zero1
        if key not in found:
            with applied(config, item.settings(config)):
                mesh = sharding.make_mesh(**config.mesh, devices=devices)
                partition = configs.build(config.partition, "partition")
            layout = partition.shardings(run.abstract, mesh)
            sizes = jax.tree.map(
                lambda x, s: math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize,
                run.abstract,
                layout,
            )
            found[key] = sum(jax.tree.leaves(sizes))
    return found


def flags(settings: dict[str, Any]) -> str:
    """Settings as flags of the launcher."""
    return " ".join(f"--config.{key}={value}" for key, value in settings.items())


def verdict(facts: dict[str, Any]) -> str:
    """One line: memory, and the bound on the speed where it fits."""
    memory = facts["memory"]
    peak = f"{memory['peak'] / 2**30:.2f} GiB" if memory["peak"] else "more than there is"
    if not memory["fits"]:
        return f"  needs {peak} of {memory['hbm'] / 2**30:.2f} GiB: does not fit"
    rate = facts["roofline"]["examples_per_second"]
    return f"  {peak} of {memory['hbm'] / 2**30:.2f} GiB, at most {rate:,.0f} examples/s"


@contextlib.contextmanager
def applied(config, settings: dict[str, Any]) -> Iterator[None]:
    """A config with some keys set, and as it was afterward."""
    before = {}
    for key, value in settings.items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node[part]
        before[key] = node, last, node[last]
        node[last] = value
    try:
        yield
    finally:
        for node, last, value in before.values():
            node[last] = value
