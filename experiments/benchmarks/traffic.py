"""Memory traffic and temporary memory per example, by the TPU compiler: forward and training step,
with plain attention and with the fused kernel.

    pip install -e '.[tpu]'
    # A row takes one to five minutes on two cores; those that traffic.json has are left out:
    python experiments/benchmarks/traffic.py
    # Rows whose names contain this, compiled once more:
    python experiments/benchmarks/traffic.py --only=swin_tiny --again
    # No compiling: the table of what is known:
    python experiments/benchmarks/traffic.py --table

The recipes' own programs are compiled for TPU v5e until memory and traffic are known (quick
effort). The forward is the prediction that evaluations run. Nothing is executed. Rows are kept in
traffic.json beside this file, each as soon as it is known.
"""

import argparse
import json
import pathlib
import sys

from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from swin_jax.plan import chips, command, compiled_step, tpu_compiler

RESULTS = pathlib.Path(__file__).with_name("traffic.json")
EXPERIMENTS = RESULTS.parents[1]
# Recipes with the published batch, and slices of v5e on which they fit.
MODELS = {
    "swin_tiny": ("swin/swin_in1k.py:variant=tiny", "v5e:2x4"),
    "swinv2_tiny_w8": ("swin/swinv2_in1k.py:variant=tiny", "v5e:4x4"),
    "swinv2_tiny_w16": ("swin/swinv2_in1k.py:variant=tiny,window=16", "v5e:4x8"),
    "swin_base": ("swin/swin_in1k.py:variant=base", "v5e:4x8"),
    "video_swin_tiny": ("video_swin/video_swin_k400.py:variant=tiny", "v5e:4x4"),
}
PROGRAMS = ("forward", "step")
ATTENTION = {"xla": "plain", "auto": "fused"}
COLUMNS = (
    "model",
    "program",
    "attention",
    "slice",
    "batch",
    "MB of traffic per example",
    "MB of temporary memory per example",
    "examples/s per chip at most",
    "MFU at most",
    "bound by",
)


def rows() -> list[str]:
    """The names of all rows, in order."""
    return [
        f"{model}:{program}:{attention}"
        for model in MODELS
        for program in PROGRAMS
        for attention in ATTENTION
    ]


def load(row: str):
    """The config of a row."""
    model, program, attention = row.split(":")
    recipe, slice_name = MODELS[model]
    config = configs.load(f"{EXPERIMENTS / recipe}")
    config.task.model.attention = (attention,)
    config.topology = slice_name
    if program == "forward":
        config.total_steps = 0
    return config


def compiled(row: str) -> dict:
    """The compiler's numbers for a row."""
    config = load(row)
    topology = chips.topology(config.topology)
    return summary(compiled_step.plan(config, topology, command.cache_folder(), "quick"))


def summary(facts: dict) -> dict:
    """The numbers of the table, per example of a batch."""
    examples = facts["batch_size"] / facts["chips"]
    found = {
        "topology": facts["topology"],
        "batch_size": facts["batch_size"],
        "accumulate": facts["accumulate"],
        "versions": facts["versions"],
        "fits": facts["memory"]["fits"],
        "peak_bytes": facts["memory"]["peak"],
    }
    if found["fits"]:
        bound = facts["roofline"]
        found |= {
            "traffic_bytes": facts["hbm_bytes"] / examples,
            "temporary_bytes": facts["memory"]["temporaries"] / examples,
            "examples_per_second": bound["examples_per_second"] / facts["chips"],
            "mfu": bound["mfu"],
            "limit": bound["limit"],
        }
    return found


def table(results: dict) -> list[str]:
    """Markdown: a line per row that is known."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    return lines + [_line(row, results[row]) for row in rows() if row in results]


def _line(row: str, found: dict) -> str:
    model, program, attention = row.split(":")
    cells = [f"`{model}`", program, ATTENTION[attention]]
    cells += [found["topology"], f"{found['batch_size']:,}"]
    if not found["fits"]:
        return f"| {' | '.join([*cells, 'does not fit'])} | | | | |"
    cells += [f"{found[key] / 1e6:,.0f}" for key in ("traffic_bytes", "temporary_bytes")]
    cells += [f"{found['examples_per_second']:,.0f}", f"{found['mfu']:.0%}", found["limit"]]
    return f"| {' | '.join(cells)} |"


def known() -> dict:
    """The rows of traffic.json."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def keep(row: str, found: dict) -> None:
    """Writes one more row, beside those that are there by now."""
    RESULTS.write_text(json.dumps(known() | {row: found}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="rows whose names contain this")
    parser.add_argument("--again", action="store_true", help="those of traffic.json too")
    parser.add_argument("--table", action="store_true", help="compile nothing")
    flags = parser.parse_args()
    todo = [row for row in rows() if flags.only in row and (flags.again or row not in known())]
    if not flags.table:
        tpu_compiler.prepare_backend()
        for number, row in enumerate(todo, 1):
            keep(row, compiled(row))
            print(f"{number}/{len(todo)} {_line(row, known()[row])}", file=sys.stderr, flush=True)
    print("\n".join(table(known())))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
