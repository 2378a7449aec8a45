"""A plan as text and as a picture."""

import re
from collections.abc import Sequence
from typing import Any

from etils import epath

from swin_jax.core import storage

GIB = 2**30
# Names in a program that are those of no module and of no operation.
_WRAPPER = re.compile(
    r"^(jit|jvp|transpose|vmap|while|body|closed_call|checkpoint|rematted_computation)(\(|$)"
    r"|^\w+\.\w+$"
)
# What is planned, and how it is told.
PROGRAMS = {
    "update": "the training step",
    "evaluation": "the prediction of evaluations, because total_steps is 0",
}
TIMES = ("compute", "memory", "links", "network")


def lines(facts: dict[str, Any]) -> list[str]:
    """A plan, see `compiled_step.plan`, as lines of text."""
    memory, state = facts["memory"], facts["state_bytes"]
    mesh = " x ".join(f"{axis} {size}" for axis, size in facts["mesh"].items())
    slices = f", {facts['slices']} slices" if facts["slices"] > 1 else ""
    micro = f" in {facts['accumulate']} micro-batches" if facts["accumulate"] > 1 else ""
    shards = facts["mesh"]["data"] * facts["mesh"]["fsdp"]
    rows = [
        ("program", PROGRAMS[facts["program"]]),
        ("topology", f"{facts['topology']}{slices}: {facts['chips']} chips, mesh {mesh}"),
        (
            "batch",
            (
                f"{facts['batch_size']} examples, "
                f"{facts['batch_size'] / shards:g} per batch shard{micro}"
            ),
        ),
        ("parameters", f"{facts['parameters']:,}"),
        (
            "state",
            ", ".join(f"{name} {_bytes(size)}" for name, size in state.items() if size)
            + " per chip",
        ),
    ]
    rows += _memory(memory, facts.get("advice", ()))
    rows.append(("FLOPs", _flops(facts["flops"], facts["program"])))
    if memory["fits"]:
        rows += _speed(facts)
    cached = "kept from an earlier plan, " if facts["from_cache"] else ""
    done = "compiled" if facts["effort"] == "full" else "compiled without code generation"
    rows.append(
        (
            "time",
            (
                f"traced in {facts['lower_seconds']:.0f} s, "
                f"{cached}{done} in {facts['compile_seconds']:.0f} s"
            ),
        )
    )
    return [f"{name:<12}{text}" for name, text in rows]


def _memory(memory: dict[str, Any], advice: Sequence[str]) -> list[tuple[str, str]]:
    """The lines on memory: its parts where the step fits, else the largest arrays and advice."""
    if memory["fits"]:
        share = memory["peak"] / memory["hbm"]
        total = f"{_bytes(memory['peak'])} of {_bytes(memory['hbm'])} per chip ({share:.0%}): fits"
        parts = ("arguments", "outputs", "temporaries")
        return [
            ("memory", total),
            ("", ", ".join(f"{name} {_bytes(memory[name])}" for name in parts)),
        ]
    needs = f"needs {_bytes(memory['peak'])}" if memory["peak"] else "needs more than there is"
    rows = [("memory", f"{needs}, a chip has {_bytes(memory['hbm'])}: DOES NOT FIT")]
    rows += [
        (
            "largest" if index == 0 else "",
            f"{_bytes(item['bytes'])}  {item['shape']}  {_place(item['of'])}",
        )
        for index, item in enumerate(memory["largest"][:8])
    ]
    return rows + [("try" if index == 0 else "", text) for index, text in enumerate(advice)]


def _place(of: str) -> str:
    """The modules and the operation among the names of a program's instruction,
    and whether it is of the gradient.
    """
    parts = [part for part in of.split("/") if not _WRAPPER.search(part)]
    parts = [part for part, before in zip(parts, ["", *parts]) if part != before]
    return "/".join(parts) + (" (backward pass)" if "transpose(" in of else "")


def _flops(flops: dict[str, int], program: str) -> str:
    """FLOPs of the model, and what is executed beyond them."""
    model, step, padded = flops["model"], flops["step"], flops["padded"]
    more = step / model - 1 if model else 0
    text = f"{_si(model)} per {program}"
    if program == "update":
        text += f", and {more:.0%} more executed"
    if padded > step:
        text += (
            f"; kernels pad their products: {_si(padded)} executed, {padded / step - 1:.0%} more"
        )
    return text


def _speed(facts: dict[str, Any]) -> list[tuple[str, str]]:
    found = facts["roofline"]
    rows = [("HBM traffic", f"{_bytes(facts['hbm_bytes'])} per chip and {facts['program']}")]
    table = collective_rows(facts["collectives"])
    rows += [
        (
            "collectives" if index == 0 else "",
            (
                f"{row['kind']:<19} over {row['axes']:<12} {row['count']:>5} x, "
                f"{_bytes(row['bytes'])} per chip and {facts['program']}"
            ),
        )
        for index, row in enumerate(table)
    ]
    if not table:
        rows.append(("collectives", "none"))
    times = ", ".join(f"{name} {1e3 * found[name]:.1f} ms" for name in TIMES)
    rows.append(
        ("roofline", f"{times}; {1e3 * found['exposed']:.1f} ms of communication not overlapped")
    )
    bound = (
        f"at most {found['examples_per_second']:,.0f} examples/s, MFU at most {found['mfu']:.0%}"
    )
    step = f"{1e3 * found['step']:.1f} ms per {facts['program']}"
    rows.append(("", f"{step}, bound by {found['limit']}: {bound}"))
    return rows


def collective_rows(collectives: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Collectives added up by kind and axes, the largest first."""
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for item in collectives:
        axes = " and ".join(item["axes"]) or "some chips"
        row = sums.setdefault(
            (item["kind"], axes), {"kind": item["kind"], "axes": axes, "count": 0, "bytes": 0}
        )
        row["count"] += item["count"]
        row["bytes"] += item["count"] * item["bytes"]
    return sorted(sums.values(), key=lambda row: -row["bytes"])


def draw(facts: dict[str, Any], path: epath.Path) -> None:
    """Memory against the chip's, and the times of the roofline, as a PNG."""
    from matplotlib.figure import Figure

    fits = facts["memory"]["fits"]
    figure = Figure(figsize=(9, 3.6 if fits else 2.2), layout="constrained")
    axes = figure.subplots(2 if fits else 1, 1, squeeze=False)[:, 0]
    _draw_memory(axes[0], facts)
    if fits:
        _draw_times(axes[1], facts)
    storage.write_figure(path, figure, dpi=110)


def _draw_memory(axis, facts: dict[str, Any]) -> None:
    memory, left = facts["memory"], 0.0
    peak = memory["peak"] or memory["hbm"]
    parts = {name: size for name, size in facts["state_bytes"].items() if size}
    parts["activations and the rest"] = max(0, peak - sum(parts.values()))
    for name, size in parts.items():
        axis.barh(0, size / GIB, left=left, label=f"{name} {_bytes(size)}", edgecolor="white")
        left += size / GIB
    axis.axvline(memory["hbm"] / GIB, color="black", linestyle="--")
    axis.text(memory["hbm"] / GIB, 0, facts["chip"], va="center", ha="right", rotation=90)
    axis.set(yticks=[], xlabel="GiB per chip", xlim=(0, 1.05 * max(left, memory["hbm"] / GIB)))
    mesh = " x ".join(f"{name} {size}" for name, size in facts["mesh"].items())
    verdict = "fits" if memory["fits"] else "does not fit"
    axis.set_title(
        f"{facts['topology']}, mesh {mesh}, batch {facts['batch_size']}: {verdict}", fontsize=10
    )
    axis.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.45), frameon=False)


def _draw_times(axis, facts: dict[str, Any]) -> None:
    found = facts["roofline"]
    bars = axis.barh(TIMES, [1e3 * found[name] for name in TIMES], color=["C0", "C1", "C2", "C3"])
    axis.bar_label(bars, fmt=" %.1f ms", fontsize=8)
    axis.margins(x=0.12)
    axis.invert_yaxis()
    axis.set_xlabel(
        f"ms per {facts['program']}; at most {found['examples_per_second']:,.0f} examples/s",
        fontsize=9,
    )


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:,.2f} GiB"


def _si(number: float) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if number < 1000:
            return f"{number:.3g} {unit}FLOP"
        number /= 1000
    return f"{number:,.1f} PFLOP"
