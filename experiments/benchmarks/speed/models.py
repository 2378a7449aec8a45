"""Examples per second of our models beside those of timm, torchvision and open_clip, forward and
training step.

    pip install -e '.[peers]'
    python experiments/benchmarks/speed/models.py
    # Rows whose NETWORK:PROGRAM contains this:
    python experiments/benchmarks/speed/models.py --only=swin_tiny
    # The table and the chart once more, without measuring:
    python experiments/benchmarks/speed/models.py --table

Ours and the reference's, as it is written (torch eager) and compiled (torch.compile), take turns in
one process, on the same device and inputs of the same size: float32 on CPUs, bfloat16 on a GPU.
A forward has parameters of that type, a training step float32 ones, from which products are cast.
Speeds are of the median time. Each row is written to a JSON as soon as it is known, and the chart
is drawn beside it.

`of the roofline` is the share of the time that a chip needs at least: FLOPs of our program at its
peak, or, on a GPU whose bandwidth is known, `Row.forward_bytes` (three times that for a training
step, and 28 bytes for each parameter) at its bandwidth, whichever is longer. Where the peak is not
known, as on CPUs, it is that of a large product of matrices, measured first.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax

from experiments.benchmarks.speed import networks, references
from experiments.benchmarks.speed.networks import ROWS, Program
from swin_jax.core.errors import UserError
from swin_jax.train.clock import peak_flops

PROGRAMS = ("forward", "step")
CONTENDERS = {"ours": "ours", "eager": "torch eager", "compile": "torch.compile"}
COLUMNS = (
    "model",
    "program",
    "batch",
    "ours, examples/s",
    "torch eager, examples/s",
    "torch.compile, examples/s",
    "ours / eager",
    "ours / compile",
    "compiling ours, s",
    "torch.compile, s",
    "of the roofline",
)
SECONDS = 0.2  # that a sample takes at least
REST = 0.05  # in seconds, for the other library's idle threads to sleep
SIDES = {"cpu": 2048, "gpu": 8192}  # of the matrices whose product gives the peak
# Bytes per second, by a part of the device's kind; from NVIDIA's data sheets of SXM modules.
_BANDWIDTHS = {"H100": 3350e9, "H200": 4800e9}
_OPTIMIZER_BYTES = 28  # that AdamW reads and writes for each parameter


def row_names() -> list[str]:
    """The names of all rows, in order."""
    return [f"{name}:{program}" for name in ROWS for program in PROGRAMS]


def choose_device(asked: str) -> str:
    """'cpu' or 'gpu', as asked for or as JAX and torch see it.

    Raises:
        UserError: One of them sees a GPU and the other does not.
    """
    if asked == "cpu":
        jax.config.update("jax_platforms", "cpu")
        return "cpu"
    seen = {"JAX": jax.default_backend() == "gpu", "torch": references.sees_gpu()}
    if all(seen.values()):
        return "gpu"
    if asked == "gpu" or any(seen.values()):
        blind = " and ".join(name for name, sees in seen.items() if not sees)
        raise UserError(f"{blind} cannot see a GPU: install its build for GPUs, or --device=cpu")
    return "cpu"


def describe(device: str, dtype: str) -> dict[str, Any]:
    """The machine and the versions, which are the same for all rows of a file."""
    packages = {"jax": jax.__version__, "python": platform.python_version()}
    return {
        "device": device,
        "kind": jax.devices()[0].device_kind,
        "processor": _processor(),
        "threads": os.cpu_count(),
        "dtype": dtype,
        "versions": packages | references.versions(),
        "environment": {
            name: os.environ[name] for name in ("GLIBC_TUNABLES", "XLA_FLAGS") if name in os.environ
        },
    }


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _revision() -> str:
    command = ["git", "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def find_peak(facts: Mapping[str, Any], side: int) -> dict[str, Any]:
    """The peak of the device in FLOP/s, and its source: a data sheet, or a product of matrices."""
    known = peak_flops(facts["kind"]) if facts["dtype"] == "bfloat16" else 0.0
    if known:
        return {"peak_flops": known, "peak_source": "data sheet"}
    measured = max(
        networks.measured_peak(facts["dtype"], side),
        references.measured_peak(facts["dtype"], side, facts["device"]),
    )
    return {"peak_flops": measured, "peak_source": f"product of {side} x {side} matrices"}


def alternate(programs: Mapping[str, Program], pairs: int) -> dict[str, list[float]]:
    """Seconds of a run of each program, `pairs` samples, taken in turns and in changing order."""
    calls = {}
    for name, program in programs.items():
        _sample(program, 1)
        calls[name] = max(1, math.ceil(SECONDS / _sample(program, 1)))
    found = {name: [] for name in programs}
    for pair in range(pairs):
        names = list(programs) if pair % 2 == 0 else list(reversed(programs))
        for name in names:
            time.sleep(REST)
            found[name].append(_sample(programs[name], calls[name]))
    return found


def _sample(program: Program, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        out = program.run()
    program.wait(out)
    return (time.perf_counter() - began) / calls


def measure(name: str, facts: Mapping[str, Any], pairs: int, is_small: bool) -> dict[str, Any]:
    """The measurements of a row as JSON values.

    Args:
        name: NETWORK:PROGRAM.
        facts: Facts of `describe` and `find_peak`.
        pairs: Samples of each contender.
        is_small: True for the small network in place of the published one.

    Raises:
        UserError: The reference is not installed.
    """
    network, program = name.split(":")
    row, device, dtype = ROWS[network], facts["device"], facts["dtype"]
    references.check_installed(row.family)
    fields, batch_size = row.arguments(device, is_small), row.batch_size(device, is_small)
    inputs = networks.make_inputs(row, fields, batch_size)
    reference = references.make_reference(row.family, fields, inputs, device)
    ours = networks.make_network(row.family, fields, inputs, dtype)
    count = sum(leaf.size for leaf in jax.tree.leaves(ours.params))
    found = {"batch": batch_size, "example": row.example, "revision": _revision()}
    found |= {"parameters": {"ours": count, "reference": references.parameters(reference)}}
    if program == "forward":
        programs = {"ours": networks.forward_program(ours.cast(dtype))}
        make = references.forward_program
    else:
        programs = {"ours": networks.step_program(ours)}
        make = references.step_program
    programs["eager"] = make(reference, dtype, False)
    try:
        programs["compile"] = make(reference, dtype, True)
    except Exception as error:  # whatever its compiler raises, the rest counts
        found["compile_error"] = _first_line(error)
    found["compile_seconds"] = {
        name: programs[name].compile_seconds for name in ("ours", "compile") if name in programs
    }
    found["flops"] = programs["ours"].flops
    forward_bytes = 0.0 if is_small else row.forward_bytes
    found["floor_seconds"] = floor_seconds(found, facts, forward_bytes, program == "step")
    found["seconds"] = alternate(programs, pairs)
    references.release()
    return found


def floor_seconds(
    found: Mapping[str, Any], facts: Mapping[str, Any], forward_bytes: float, is_step: bool
) -> float:
    """The time that a row needs at least, by the peak and, where it is known, the bandwidth."""
    compute = found["flops"] / facts["peak_flops"]
    known = [value for part, value in _BANDWIDTHS.items() if part in facts["kind"]]
    if not known or not forward_bytes or facts["dtype"] != "bfloat16":
        return compute
    moved = found["batch"] * forward_bytes * (3 if is_step else 1)
    if is_step:
        moved += _OPTIMIZER_BYTES * found["parameters"]["ours"]
    return max(compute, moved / known[0])


def speeds(found: Mapping[str, Any]) -> dict[str, float]:
    """Examples per second of each contender, at the median of its times."""
    return {
        name: found["batch"] / statistics.median(seconds)
        for name, seconds in found["seconds"].items()
    }


def ratios(found: Mapping[str, Any]) -> dict[str, float]:
    """Our speed divided by that of each reference."""
    by_name = speeds(found)
    return {name: by_name["ours"] / speed for name, speed in by_name.items() if name != "ours"}


def header(facts: Mapping[str, Any]) -> list[str]:
    """The machine, the versions and the peak as text."""
    versions = "  ".join(f"{name} {version}" for name, version in facts["versions"].items())
    environment = "  ".join(f"{name}={value}" for name, value in facts["environment"].items())
    lines = [
        f"device    {facts['kind']} beside {facts['threads']} threads of {facts['processor']}",
        f"versions  {versions}",
        f"types     {facts['dtype']}; medians of {facts['pairs']} samples",
        f"peak      {facts['peak_flops'] / 1e9:,.0f} GFLOP/s ({facts['peak_source']})",
    ]
    return lines + ([f"set       {environment}"] if environment else [])


def table(results: Mapping[str, Any]) -> list[str]:
    """Markdown: a line per row that is known."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    rows = results["rows"]
    return lines + [_line(name, rows[name]) for name in row_names() if name in rows]


def _line(name: str, found: Mapping[str, Any]) -> str:
    network, program = name.split(":")
    cells = [f"`{network}`", program]
    if "skipped" in found:
        return f"| {' | '.join([*cells, found['skipped']])} |" + " |" * (len(COLUMNS) - 3)
    by_name, by_reference, compiling = speeds(found), ratios(found), found["compile_seconds"]
    cells.append(f"{found['batch']:,} {found['example']}s")
    cells += [_number(by_name.get(contender), ",.4g") for contender in CONTENDERS]
    cells += [_number(by_reference.get(reference), ".2f") for reference in ("eager", "compile")]
    cells += [_number(compiling.get(contender), ",.1f") for contender in ("ours", "compile")]
    cells.append(f"{found['floor_seconds'] * by_name['ours'] / found['batch']:.0%}")
    return f"| {' | '.join(cells)} |"


def _number(value: float | None, form: str) -> str:
    return "failed" if value is None else format(value, form)


def draw(results: Mapping[str, Any], path: pathlib.Path) -> None:
    """Draws the speeds of ours and of torch.compile, those of torch eager being 1."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(PROGRAMS), 1, figsize=(9, 6), sharey=True, squeeze=False)
    for axis, program in zip(axes[:, 0], PROGRAMS, strict=True):
        measured = {
            name.partition(":")[0]: speeds(found)
            for name, found in results["rows"].items()
            if name.endswith(f":{program}") and "seconds" in found
        }
        names = [name for name in ROWS if name in measured]
        for offset, contender in ((-0.2, "ours"), (0.2, "compile")):
            shown = [index for index, name in enumerate(names) if contender in measured[name]]
            of_rows = [measured[names[index]] for index in shown]
            heights = [speed[contender] / speed["eager"] for speed in of_rows]
            places = [index + offset for index in shown]
            bars = axis.bar(places, heights, 0.4, label=CONTENDERS[contender])
            axis.bar_label(bars, fmt="%.2f", fontsize=8)
        axis.axhline(1.0, color="black", linewidth=0.8)
        axis.set_xticks(range(len(names)), names, fontsize=8)
        axis.set_title({"forward": "forward", "step": "training step"}[program], fontsize=10)
        axis.set_ylabel("speed / torch eager")
    axes[0, 0].legend()
    figure.suptitle(f"{results['facts']['kind']}, {results['facts']['dtype']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def load(path: pathlib.Path, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The results of a file, {'facts': ..., 'rows': {name: row}}; without rows if there is none.

    Raises:
        UserError: It holds those of another machine, or of other versions, than `facts` says; or
            there is none and no facts.
    """
    if not path.exists():
        if facts is None:
            raise UserError(f"there is no {path}; leave out --table to measure")
        return {"facts": dict(facts), "rows": {}}
    results = json.loads(path.read_text())
    differing = [key for key in facts or {} if results["facts"].get(key) != facts[key]]
    if differing:
        raise UserError(f"{path} has rows with other {', '.join(differing)}: give another --out")
    return results


def write(path: pathlib.Path, results: Mapping[str, Any]) -> None:
    """Writes results, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n")
    part.replace(path)


def measure_all(flags: argparse.Namespace) -> dict[str, Any]:
    """Measures the rows that are asked for, and writes each as soon as it is known."""
    device = choose_device(flags.device)
    dtype = flags.dtype or {"cpu": "float32", "gpu": "bfloat16"}[device]
    # What is kept would be read instead of compiled.
    jax.config.update("jax_enable_compilation_cache", False)
    facts = describe(device, dtype) | {"pairs": flags.pairs, "small": flags.tiny}
    results = load(flags.out, facts)
    has_torch = "torch" in facts["versions"]
    with references.prepared(os.cpu_count()) if has_torch else contextlib.nullcontext():
        results["facts"] |= find_peak(facts, 256 if flags.tiny else SIDES[device])
        print("\n".join(header(results["facts"])), flush=True)
        for name in (name for name in row_names() if flags.only in name):
            _add_row(name, results, flags)
    return results


def _add_row(name: str, results: dict[str, Any], flags: argparse.Namespace) -> None:
    """Measures a row and writes the results with it; one that cannot be measured says why."""
    try:
        found = measure(name, results["facts"], flags.pairs, flags.tiny)
    except (UserError, RuntimeError) as error:  # not installed, or too large
        found = {"skipped": _first_line(error)}
        print(f"skipped {name}: {found['skipped']}", file=sys.stderr, flush=True)
    if "skipped" not in found or name not in results["rows"]:
        results["rows"][name] = found
        write(flags.out, results)
    print(_line(name, found), flush=True)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.partition("\n")[0][:200]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--only", default="", help="rows whose NETWORK:PROGRAM contains this")
    parser.add_argument("--pairs", type=int, default=9, help="samples of each program")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "gpu"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="by default the device's")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/model_speed.json"))
    parser.add_argument("--tiny", action="store_true", help="small networks, to try the command")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    flags = parser.parse_args()
    if flags.table:
        results = load(flags.out)
        print("\n".join(header(results["facts"])))
    else:
        # Otherwise JAX takes the memory that torch needs.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        results = measure_all(flags)
    revisions = {row["revision"] for row in results["rows"].values() if "revision" in row}
    print("\n".join([f"commit    {', '.join(sorted(revisions))}", "", *table(results)]))
    draw(results, flags.out.with_suffix(".png"))
    print(f"written   {flags.out.with_suffix('.png')}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
