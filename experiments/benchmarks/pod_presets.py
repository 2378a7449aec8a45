"""The needs of each row of the papers on a pod: every preset of the experiment files, compiled.

    pip install -e '.[tpu]'
    # Two hours on two cores:
    python experiments/benchmarks/pod_presets.py --jobs=2
    # Rows and chips whose names contain these:
    python experiments/benchmarks/pod_presets.py --only=swin_in1k --chips=v5e
    # Resumes where one was stopped:
    python experiments/benchmarks/pod_presets.py --jobs=2 --missing
    # No compiling: docs/pod_presets.md from what is known:
    python experiments/benchmarks/pod_presets.py --page

Each training step is compiled by the real TPU compiler for its slice, until memory and traffic are
known, and what it says is kept in pod_presets.json beside this file, under experiment, row and
chip. Eight H100, for which nothing can be compiled here, are arithmetic: state as the layout splits
it, activations and memory traffic per example as in the program for v5p with plain attention, since
the fused kernel is for TPUs.
"""

import argparse
import concurrent.futures
import json
import pathlib
import sys

from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from swin_jax.plan import chips, command, compiled_step, roofline, tpu_compiler

RESULTS = pathlib.Path(__file__).with_name("pod_presets.json")
PAGE = RESULTS.parents[2] / "docs" / "pod_presets.md"
# Experiments with presets, by name.
FILES = {
    path.stem: path
    for path in sorted(RESULTS.parents[1].glob("*/*.py"))
    if "\nPODS = " in path.read_text()
}
GIB = 2**30
COLUMNS = ("v4", "v5e", "v5p", "v6e", "h100")
INTRO = """\
# Pod presets

<!-- Written by experiments/benchmarks/pod_presets.py --page; change it there. -->

For the rows of the papers `experiments/common/pods.json` names slices of each chip on which they
train with the published batch size, and what makes it fit. `pod=v4`, `v5e`, `v5p`, `v6e` or
`h100` among a file's arguments sets `topology` and, where it is needed, ZeRO-1, FSDP,
rematerialization or micro-batches. The slices of the other chips have about the memory of the
v5e's or more.

```bash
# needs: ImageNet-1K in data/, 32 chips of v5e
python -m swin_jax.launch --config=experiments/swin/swin_in1k.py:variant=base,pod=v5e \\
    --workdir=runs/base_v5e --config.data_dir=data --distributed
```

A cell gives the slice, the memory per chip, a lower bound on the time of a step, and the
chip-hours of the whole schedule at that bound, as reported by the TPU compiler (libtpu 0.0.42.1,
quick effort; no TPU needed). Real runs take longer than a bound. The column of eight H100 is
arithmetic, not a compiler's: the state as the layout splits it, the rest scaled from the v5p's
program. Compiled at commit `917aee3`, StyleGAN2's row at `898d02c`, UPerNet's `tiny` and
`large_22k` at `296b1b0`, its other rows at `c433677`, all with plain attention. On TPUs today's
programs attend by a fused kernel; the six rows for v5e that were compiled with it so far need
less memory and time.

```bash
# needs: libtpu (pip install -e '.[tpu]'), two hours on two cores for each
python experiments/benchmarks/pod_presets.py --jobs=2
python -m pytest tests/e2e/test_pods.py -m "long or not long"
```

The second command tests that all of them fit.

"""


def presets() -> list[tuple[str, str]]:
    """(experiment, row) of all tables PODS."""
    return [(name, row) for name, path in FILES.items() for row in configs.module(str(path)).PODS]


def load(experiment: str, row: str, chip: str):
    """The config of a preset."""
    return configs.load(f"{FILES[experiment]}:{','.join(filter(None, (row, f'pod={chip}')))}")


def compiled(experiment: str, row: str, chip: str) -> dict:
    """The compiler's numbers for a preset."""
    if chip == "h100":
        return arithmetic(experiment, row, planned(plain(load(experiment, row, "v5p"))))
    return planned(load(experiment, row, chip))


def plain(config):
    """The config with attention as it is on a GPU."""
    for key, value in configs.flatten(config).items():
        if key.endswith(".attention") and value == ["auto"]:
            config.update_from_flattened_dict({key: ("xla",)})
    return config


def planned(config) -> dict:
    """The compiler's numbers for a config."""
    facts = compiled_step.plan(
        config, chips.topology(config.topology), command.cache_folder(), "quick"
    )
    return summary(facts, config)


def summary(facts: dict, config) -> dict:
    """The numbers of the table."""
    found = {
        "topology": facts["topology"],
        "chips": facts["chips"],
        "mesh": facts["mesh"],
        "batch_size": facts["batch_size"],
        "accumulate": facts["accumulate"],
        "parameters": facts["parameters"],
        "state_bytes": sum(facts["state_bytes"].values()),
        "peak_bytes": facts["memory"]["peak"],
        "hbm_bytes": facts["memory"]["hbm"],
        "fits": facts["memory"]["fits"],
        "flops": facts["flops"],
        "steps": config.total_steps,
    }
    if found["fits"]:
        found |= {"traffic_bytes": facts["hbm_bytes"], "step_seconds": facts["roofline"]["step"]}
        found |= {"limit": facts["roofline"]["limit"], "mfu": facts["roofline"]["mfu"]}
    return found


def arithmetic(experiment: str, row: str, like: dict) -> dict:
    """A preset on eight H100, from what the compiler says of the same row on v5p.

    What is not state grows with the examples that a chip has at a time, memory traffic with all
    that it has. Sums of gradients over micro-batches are as large as the parameters.
    """
    config = load(experiment, row, "h100")
    here, accumulate = chips.topology(config.topology), config.task.get("accumulate", 1)
    parts = compiled_step.state_bytes(config, chips.topology("v5e:2x4"))  # another eight chips
    state = sum(parts.values())
    fsdp, tensor = config.mesh.fsdp, config.mesh.tensor
    more = like["chips"] / here.size  # examples of an H100 for each of a v5p
    activations = (
        (like["peak_bytes"] - like["state_bytes"]) * more * like["accumulate"] / accumulate
    )
    found = roofline.estimate(
        here, like["flops"]["step"] / here.size, like["traffic_bytes"] * more, []
    )
    peak = round(state + activations + (parts["params"] if accumulate > 1 else 0))
    return like | {
        "topology": here.name,
        "chips": here.size,
        "mesh": {"data": here.size // (fsdp * tensor), "fsdp": fsdp, "tensor": tensor},
        "accumulate": accumulate,
        "state_bytes": state,
        "peak_bytes": peak,
        "hbm_bytes": here.chip.hbm_bytes,
        "fits": peak <= here.chip.hbm_bytes,
        "traffic_bytes": like["traffic_bytes"] * more,
        "step_seconds": found.step,
        "limit": found.limit,
        "mfu": found.mfu(like["flops"]["model"] / here.size),
    }


def table(results: dict) -> list[str]:
    """Markdown: a line per row, a column per chip."""
    lines = ["| experiment | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for experiment, row in presets():
        cells = [_cell(results.get(f"{experiment}:{row}:{chip}")) for chip in COLUMNS]
        name = f"{experiment}.py" + (f":{row}" if row else "")
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def page(results: dict) -> str:
    """The page of the documentation."""
    return INTRO + "\n".join(table(results)) + "\n"


def _cell(found: dict | None) -> str:
    if not found:
        return ""
    if not found["fits"]:
        return (
            f"{found['topology'].partition(':')[2]}: does not fit, "
            f"{found['peak_bytes'] / GIB:.1f} GiB"
        )
    hours = found["steps"] * found["step_seconds"] * found["chips"] / 3600
    seconds = found["step_seconds"]
    step = f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.0f} ms"
    return (
        f"{found['topology'].partition(':')[2]}: {found['peak_bytes'] / GIB:.1f} GiB, "
        f"{step}, {hours:,.0f}"
    )


def compile_all(todo: list[tuple[str, str, str]], jobs: int, results: dict) -> None:
    """Compiles presets, several at a time, and keeps what is known after each."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(compiled, *preset): ":".join(preset) for preset in todo}
        for number, done in enumerate(concurrent.futures.as_completed(waiting), 1):
            found = keep(results, waiting[done], done.result())
            print(
                f"{number}/{len(todo)} {waiting[done]}: {_cell(found)}", file=sys.stderr, flush=True
            )


def keep(results: dict, key: str, found: dict) -> dict:
    """Writes one more result."""
    results[key] = found
    RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="rows whose EXPERIMENT:ROW contains this")
    parser.add_argument("--chips", default=",".join(COLUMNS), help="any of " + ",".join(COLUMNS))
    parser.add_argument(
        "--page", action="store_true", help="write the page of what is known, compile nothing"
    )
    parser.add_argument(
        "--missing", action="store_true", help="only those that are not in pod_presets.json"
    )
    parser.add_argument("--jobs", type=int, default=1, help="compilers at a time")
    flags = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not flags.page:
        tpu_compiler.prepare_backend()
        rows = [(e, r) for e, r in presets() if flags.only in f"{e}:{r}"]
        todo = [(*row, chip) for chip in COLUMNS if chip in flags.chips for row in rows]
        if flags.missing:
            todo = [preset for preset in todo if ":".join(preset) not in results]
        compile_all(todo, flags.jobs, results)
        print("\n".join(table(results)))
    PAGE.write_text(page(results))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
