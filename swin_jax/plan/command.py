"""The action `--plan`: plans for a topology, or searches for the best layout on one."""

import functools
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from etils import epath

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.core.output.text import say
from swin_jax.plan import chips, compiled_step, tpu_compiler
from swin_jax.plan import report as plan_report
from swin_jax.plan.search import StateBytes, applied, flags, search, state_bytes, verdict
from swin_jax.train.workdir import make_workdir

_FACTS, _CHART = "plan.json", "plan.png"  # of a workdir


def prepare(config, text: str, workdir: str | None, effort: str = "full") -> Callable[[], int]:
    """Checks what to plan, and builds the step of the config for it.

    Args:
        config: Config from an experiment file.
        text: 'v5e:4x4' or 'v5p:4x4x4,slices=2'; with 'auto:' before it to search; 'auto' alone, or
            'config', takes the topology that the config names.
        workdir: Folder for plan.json and plan.png; None to print only.
        effort: Effort of the compiler, one of `compiled_step.EFFORTS`.

    Returns:
        The function that compiles: it prints the plan, or the best of several, writes it into the
        workdir, and returns the exit status, 0 if the step fits and 1 if it does not.

    Raises:
        UserError: An unknown topology, a mesh that does not fit it, no TPU compiler,
            an unusable workdir.
    """
    auto = text == "auto" or text.startswith("auto:")
    name = text.removeprefix("auto").removeprefix(":").removeprefix("config") or config.get(
        "topology"
    )
    if auto and config.get("total_steps") == 0:
        raise UserError(
            f"--plan={text} searches for the layout of a training step, and total_steps=0 makes "
            "none: give the topology alone, --plan=v5e:4x4 for example"
        )
    if not name:
        raise UserError(
            f"--plan={text}: the config has no topology; give one, --plan=auto:v5e:4x4 for example"
        )
    topology = chips.topology(name)
    topology.compiler_options()  # refuses what cannot be compiled for
    folder = storage.path(workdir) if workdir else None
    if folder:
        make_workdir(folder)
        for name in (_FACTS, _CHART):
            storage.check_target(folder / name)
    tpu_compiler.prepare_backend()
    if auto:
        states = state_bytes(config, topology)
        find = functools.partial(_best, config, topology, states, effort)
    else:
        find = compiled_step.prepare(config, topology, cache_folder(), effort)
    return functools.partial(_report, find, folder)


def _best(config, topology: chips.Topology, states: StateBytes, effort: str) -> dict[str, Any]:
    """The plan of the best layout, with its `settings` and all that was `tried`."""

    found = search(config, topology, states, cache_folder(), say)
    if not found:
        raise UserError(
            f"the state alone is larger than a chip of {topology.name} on "
            "every mesh; take more chips"
        )
    best, facts = found[0]
    if effort == "full" and facts["memory"]["fits"]:
        say("the best of them once more, with the compiler's full effort")
        with applied(config, best.settings(config)):
            facts = compiled_step.plan(config, topology, cache_folder())
    facts["settings"] = best.settings(config)
    facts["tried"] = [flags(item.settings(config)) + ":" + verdict(tried) for item, tried in found]
    return facts


def _report(find: Callable[[], dict[str, Any]], folder: epath.Path | None) -> int:
    """Prints the plan that `find` makes, and writes it into a workdir; returns the exit status."""
    facts = find()
    print("\n".join(plan_report.lines(facts)), flush=True)
    if "settings" in facts:
        print(f"flags       {flags(facts['settings'])}", flush=True)
    if folder:
        storage.write(folder / _FACTS, json.dumps(facts, indent=1) + "\n")
        plan_report.draw(facts, folder / _CHART)
        print(f"written     {folder / _FACTS}, {folder / _CHART}", flush=True)
    return 0 if facts["memory"]["fits"] else 1


def cache_folder() -> pathlib.Path:
    """The folder for the numbers of compiled programs:
    $XDG_CACHE_HOME or ~/.cache, swin_jax/plans in it.
    """
    return (
        pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        / "swin_jax"
        / "plans"
    )
