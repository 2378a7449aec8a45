"""The action `--throughput`: how fast an experiment trains,
predicts and reads its data on the devices at hand.

As the official Swin code's `--throughput`, for any experiment, and for the training step and
the data as well, so that the slowest of the three shows. Steps run on made-up batches that
lie on the devices.
"""

import dataclasses
import functools
import json
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from swin_jax.core import config as configs
from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.tasks.base import describe, example_name, prediction_shapes
from swin_jax.train import run_info, sharding
from swin_jax.train.setup import Run, build_run, check_batch, jitted_step
from swin_jax.train.workdir import make_workdir

REPEATS = 5
SECONDS = 1.0  # that a repetition takes at least
_FACTS = "throughput.json"  # of a workdir


@dataclasses.dataclass(frozen=True)
class Rate:
    """Examples per second: the median of `REPEATS`, the slowest and the fastest."""

    median: float
    slowest: float
    fastest: float

    def __str__(self) -> str:
        return f"{self.median:,.1f}/s ({self.slowest:,.1f} to {self.fastest:,.1f})"


def prepare(config, workdir: str | None, batch_sizes: str = "") -> Callable[[], int]:
    """Builds an experiment for every batch size.

    Args:
        config: Config from an experiment file, or that of a run.
        workdir: Folder for throughput.json; None to print only. Checkpoints in it are neither read
            nor changed.
        batch_sizes: Global ones, '64,128,256'; by default the config's.

    Returns:
        The function that measures, prints, and returns the exit status:
        0, or 1 if no batch fits into memory.

    Raises:
        UserError: An invalid batch size, or one that mesh or micro-batches do not divide;
            an unusable workdir.
    """
    runs = {}
    for size in _sizes(batch_sizes) or [config.batch_size]:
        _set_batch_size(config, size)
        run = build_run(config)
        check_batch(config, run)
        runs[size] = run
    folder = storage.path(workdir) if workdir else None
    if folder:
        make_workdir(folder)
        storage.check_target(folder / _FACTS)
    return functools.partial(_measure_all, config, runs, folder)


def _set_batch_size(config, size: int) -> None:
    """Sets the batch size of a config, and of its data, which do not follow it in a saved run."""
    config.batch_size = size
    if "batch_size" in config.data:
        config.data.batch_size = size


def _sizes(text: str) -> list[int]:
    sizes = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        if not re.fullmatch(r"\d{1,9}", word) or int(word) < 1:
            raise UserError(
                f"--throughput_batch_sizes={text}: {word!r} is not a batch size; "
                "they look like 64,128,256"
            )
        sizes.append(int(word))
    if text and not sizes:
        raise UserError(
            f"--throughput_batch_sizes={text} has no batch size; they look like 64,128,256"
        )
    return list(dict.fromkeys(sizes))


def _measure_all(config, runs: dict[int, Run], folder: epath.Path | None) -> int:
    lead = jax.process_index() == 0
    say = functools.partial(print, flush=True) if lead else lambda line: None
    first = next(iter(runs.values()))
    told = describe(first.task, first.abstract)
    facts = run_info.facts(config, told, first.placement.mesh, None)
    facts |= {"batch_size": ", ".join(map(str, runs)), "measured": []}
    for line in run_info.lines(facts):
        say(line)
    for size, run in runs.items():
        _set_batch_size(config, size)
        found = {"batch_size": size, **_measure(config, run, size)}
        facts["measured"].append(found)
        for line in _lines(found, f"{example_name(run.task)}s"):
            say(line)
    if folder and lead:
        storage.write(folder / _FACTS, json.dumps(facts, indent=1) + "\n")
        say(f"written     {folder / _FACTS}")
    return 0 if any("training" in found for found in facts["measured"]) else 1


def _measure(config, run: Run, size: int) -> dict[str, Any]:
    """Measurements as JSON values: rates, seconds of compiling,
    bytes of memory; or why there are none.
    """
    found = {"memory_bytes": None}
    try:
        with jax.set_mesh(run.placement.mesh):
            found |= _steps(run, size)
    except jax.errors.JaxRuntimeError as error:
        if not sharding.lacks_memory(error):
            raise
        found["too_large"] = str(error).strip().splitlines()[0][:200]
    stats = jax.local_devices()[0].memory_stats() or {}
    found["memory_bytes"] = stats.get("peak_bytes_in_use")
    try:
        batches = configs.build(config.data, "data").batches(0, run.placement.rows(size))
    except UserError as error:
        return found | {"no_data": str(error)}
    try:
        found["data"] = dataclasses.asdict(_rate(lambda: next(batches), lambda out: None, size))
    finally:
        batches.close()
    return found


def _steps(run: Run, size: int) -> dict[str, Any]:
    """The rates of training and prediction, on a batch and from a state that are made up."""
    batch = run.placement.to_global(_made_up(run, run.task.batch_shapes(size), size), size)
    zeros = jax.tree.map(lambda like: np.zeros(like.shape, like.dtype), run.frozen)
    frozen = sharding.device_put_tree(zeros, run.frozen)
    init = jax.jit(run.task.init, out_shardings=sharding.tree_shardings(run.abstract))
    held = {"state": init(jax.random.key(0))}  # a step uses its memory for the next one
    inputs = run.placement.to_global(_made_up(run, prediction_shapes(run.task, size), size), size)
    predict, step = jax.jit(run.task.predict), jitted_step(run)

    def predict_batch():
        return predict(held["state"].replace(opt_state=None, ema=None), inputs, frozen)

    def train():
        held["state"], metrics = step(held["state"], batch, frozen)
        return metrics

    found = {"compile_seconds": {}}
    for name, call in (("prediction", predict_batch), ("training", train)):
        began = time.perf_counter()
        jax.block_until_ready(call())
        found["compile_seconds"][name] = time.perf_counter() - began
        found[name] = dataclasses.asdict(_rate(call, jax.block_until_ready, size))
    return found


def _made_up(run: Run, shapes: dict[str, jax.ShapeDtypeStruct], size: int) -> dict[str, np.ndarray]:
    """This process's rows of a batch of such shapes: random pixels, labels and tokens of 0."""
    rows, rng = len(run.placement.rows(size)), np.random.default_rng(0)

    def array(like):
        shape = (rows, *like.shape[1:])
        random = like.dtype == np.uint8 and len(shape) > 3
        return rng.integers(0, 256, shape, np.uint8) if random else np.zeros(shape, like.dtype)

    return {name: array(like) for name, like in shapes.items()}


def _rate(call: Callable[[], Any], wait: Callable[[Any], Any], size: int) -> Rate:
    """Repeats a call that was made once already; as often on every process,
    because steps join all of them.
    """

    def seconds(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            out = call()
        wait(out)
        return time.perf_counter() - began

    seconds(1)  # warm
    calls = _calls(seconds)
    rates = [calls * size / seconds(calls) for _ in range(REPEATS)]
    return Rate(statistics.median(rates), min(rates), max(rates))


def _calls(seconds: Callable[[int], float]) -> int:
    """The first number of calls of 1, 2, 4, ... that takes `SECONDS` on process 0."""
    calls = 1
    while multihost_utils.broadcast_one_to_all(np.float32(seconds(calls))) < SECONDS:
        calls *= 2
    return calls


def _lines(found: dict[str, Any], unit: str) -> list[str]:
    """Measurements as text."""
    lines = [f"batch size  {found['batch_size']}"]
    if "too_large" in found:
        lines.append(f"  does not fit into memory: {found['too_large']}")
    for what in ("training", "prediction"):
        if what in found:
            compiled = found["compile_seconds"][what]
            lines.append(
                f"  {what:<10}  {unit} {Rate(**found[what])}, compiled in {compiled:.1f} s"
            )
    if "data" in found:
        share = found["data"]["median"] / found["training"]["median"] if "training" in found else 0
        verdict = f", {share:.0%} of what training takes" if share else ""
        lines.append(f"  data        {unit} {Rate(**found['data'])}{verdict}")
        if 0 < share < 1:
            lines.append(
                "  the data hold training up: more --config.data.num_workers, or smaller files"
            )
    else:
        lines.append(f"  data        not measured: {found['no_data']}")
    if found["memory_bytes"]:
        lines.append(
            f"  memory      {found['memory_bytes'] / 2**30:.2f} GiB at most "
            "on the first device so far"
        )
    return lines
