"""Swin's ablations on Fashion-MNIST: the accuracy of each row, and the time and memory it takes.

    python experiments/studies/swin_ablation.py --data_dir=data --out=runs/swin_ablation

accuracy: every row of experiments/swin/swin_fashion_mnist_ablation.py is trained for one epoch with
three seeds, which draw weights, order and augmentation. Test accuracy at the last step, mean and
standard deviation, and the difference from the row `shifted` with twice the pooled deviation.

cost: value and gradient of the loss on 16 made-up images of 28, 56 and 112 pixels (14, 28 and 56
tokens a side): the median time of five, and the temporary memory that the compiler plans. Windows
stay 7 x 7.

One run at a time, on all cores. Each result is kept in a file as soon as it is there, an
interrupted run resumes from its newest checkpoint, and so does the study with the same command.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core import config as configs
from swin_jax.core import termination
from swin_jax.core.errors import UserError
from swin_jax.models.swin import param_shapes
from swin_jax.train.logs import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = ROOT / "experiments" / "swin" / "swin_fashion_mnist_ablation.py"
ROWS = {
    "shifted": "shifted windows, map rolled",
    "padded": "shifted windows, map padded",
    "unshifted": "windows, not shifted",
    "no_positions": "shifted, no positions",
    "absolute": "shifted, absolute positions",
    "both": "shifted, absolute and relative positions",
    "sliding": "a window around each token",
    "performer": "Performer, absolute positions",
    "mlp": "Swin-MLP",
}
REFERENCE = "shifted"
# Rows that differ in what is computed: positions are a sum more or less.
COSTS = ("shifted", "padded", "unshifted", "sliding", "performer", "mlp")
SEEDS = (0, 1, 2)
PIXELS = (28, 56, 112)
BATCH = 16
REPEATS = 5
SECONDS = 1.0  # that a repetition takes at least


@dataclasses.dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        row: Row of the experiment.
        seed: Seed of everything.
        steps: Updates; 0 for those of the experiment.
    """

    row: str
    seed: int
    steps: int = 0

    def workdir(self, out: pathlib.Path) -> pathlib.Path:
        return out / f"{self.row}_seed{self.seed}"

    def command(self, out: pathlib.Path, data_dir: str) -> list[str]:
        """The launcher's command line."""
        flags = dict(seed=self.seed, data_dir=data_dir)
        flags |= {"total_steps": self.steps} if self.steps else {}
        command = [sys.executable, "-m", "swin_jax.launch", f"--config={CONFIG}:row={self.row}"]
        return [
            *command,
            f"--workdir={self.workdir(out)}",
            *(f"--config.{key}={value}" for key, value in flags.items()),
        ]


def train(training: Training, out: pathlib.Path, data_dir: str) -> dict[str, float]:
    """The result of a training, from its file or by running it: `top1` of the test images,
    `steps`, and the `minutes` of its last start.

    Raises:
        UserError: A run that failed, or a result of another number of updates.
    """
    workdir = training.workdir(out)
    file = workdir.with_suffix(".json")
    if not file.exists():
        out.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with open(workdir.with_suffix(".log"), "a") as log:
            command = training.command(out, data_dir)
            status = termination.run_saving(command, cwd=ROOT, stdout=log, stderr=log)
        if status:
            raise UserError(
                f"the training of {workdir.name} ended with status {status}; "
                f"see {log.name}, and run the same command to resume"
            )
        last = [line for line in read_metrics(workdir) if "eval/test/top1" in line][-1]
        found = dict(top1=last["eval/test/top1"], steps=last["step"])
        _write(file, found | dict(minutes=(time.monotonic() - began) / 60))
    found = json.loads(file.read_text())
    if training.steps and found["steps"] != training.steps:
        raise UserError(
            f"{file} is of a run of {found['steps']} updates, not of {training.steps}: "
            "give another --out"
        )
    return found


def cost(row: str, pixels: int, out: pathlib.Path) -> dict[str, float]:
    """The cost of a row at an image size, from its file or measured: `milliseconds` and temporary
    `mebibytes` of a gradient, and `gigaflops`, multiply-accumulates of one image.
    """
    file = out / "cost" / f"{row}_{pixels}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, measure(row, pixels, BATCH, SECONDS))
    return json.loads(file.read_text())


def measure(row: str, pixels: int, batch: int, seconds: float) -> dict[str, float]:
    """Compiles and times the gradient of a row's loss; see `cost`."""
    config = configs.load(f"{CONFIG}:row={row}")
    config.image_size = pixels
    model = configs.build(config.task.model)
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(size=(batch, pixels, pixels, 1)), jnp.float32)
    label = jnp.asarray(rng.integers(0, model.num_classes, batch))
    params = jax.tree.map(
        lambda like: jnp.asarray(rng.normal(0, 0.02, like.shape), like.dtype),
        param_shapes(model)["params"],
    )

    def loss(params, image, label):
        logits = model.apply({"params": params}, image)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], 1).mean()

    compiled = jax.jit(jax.value_and_grad(loss)).lower(params, image, label).compile()
    return dict(
        milliseconds=1e3 * _median(lambda: compiled(params, image, label), seconds),
        mebibytes=compiled.memory_analysis().temp_size_in_bytes / 2**20,
        gigaflops=model.flops() / 1e9,
    )


def _median(call, seconds: float) -> float:
    """The median time of a call, of `REPEATS` series of at least so many seconds."""

    def series(calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            out = call()
        jax.block_until_ready(out)
        return (time.perf_counter() - began) / calls

    calls = max(1, round(seconds / max(series(1), series(1))))
    return statistics.median(series(calls) for _ in range(REPEATS))


def accuracy_table(found: dict[str, list[float]]) -> str:
    """Markdown, in percent; `found` has the accuracies of each row, seed by seed."""
    lines = [
        "| | test accuracy | mean | deviation | from the first row | twice the pooled deviation |",
        "|---|---|---|---|---|---|",
    ]
    for row, values in found.items():
        each = " / ".join(f"{100 * value:.2f}" for value in values)
        cells = [ROWS[row], each, f"**{100 * statistics.mean(values):.2f}**"]
        cells.append(f"{100 * _deviation(values):.2f}")
        if row == REFERENCE or REFERENCE not in found:
            cells += ["", ""]
        else:
            gain = statistics.mean(values) - statistics.mean(found[REFERENCE])
            pooled = (_deviation(values) ** 2 + _deviation(found[REFERENCE]) ** 2) / 2
            cells += [f"{100 * gain:+.2f}", f"{200 * pooled**0.5:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def cost_table(found: dict[tuple[str, int], dict[str, float]]) -> str:
    """Markdown: milliseconds and MiB of a gradient, and both as multiples of the first row's."""
    sizes = sorted({pixels for _, pixels in found})
    heads = [f"{pixels} px, ms | {pixels} px, MiB" for pixels in sizes]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (1 + 2 * len(sizes)) + "|"]
    for row in dict.fromkeys(row for row, _ in found):
        cells = [ROWS[row]]
        for pixels in sizes:
            ours, first = found[row, pixels], found.get((REFERENCE, pixels))
            for key in ("milliseconds", "mebibytes"):
                times = f" ({ours[key] / first[key]:.2f} x)" if first else ""
                cells.append(f"{ours[key]:,.1f}{times}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def study(
    rows: Iterable[str], seeds: Iterable[int], steps: int, out: pathlib.Path, data_dir: str
) -> str:
    """Runs everything that is not there yet. Returns both tables; each is printed as it grows."""
    costs = {}
    for row in (row for row in COSTS if row in rows):
        for pixels in PIXELS:
            costs[row, pixels] = cost(row, pixels, out)
            print(f"{row}, {pixels} px: {_shown(costs[row, pixels])}", flush=True)
    trained = {}
    for row in rows:
        for seed in seeds:
            found = train(Training(row, seed, steps), out, data_dir)
            trained.setdefault(row, []).append(found["top1"])
            print(f"{row}, seed {seed}: {_shown(found)}", flush=True)
    tables = [accuracy_table(trained), cost_table(costs)] if costs else [accuracy_table(trained)]
    return "\n".join(tables)


def _shown(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _write(path: pathlib.Path, values: dict) -> None:
    """Writes a JSON file that is whole or not there."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(values, indent=1) + "\n")
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True, help="folder of the prepared Fashion-MNIST")
    parser.add_argument("--out", default="runs/swin_ablation", help="folder of all results")
    parser.add_argument("--rows", default=",".join(ROWS), help="rows to run, separated by commas")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="number of seeds, from 0")
    parser.add_argument("--steps", type=int, default=0, help="updates, to try; 0 for one epoch")
    options = parser.parse_args()
    rows = options.rows.split(",")
    if unknown := [row for row in rows if row not in ROWS]:
        parser.error(f"--rows: {unknown[0]!r} is not one of {', '.join(ROWS)}")
    if not (pathlib.Path(options.data_dir) / "fashion_mnist").is_dir():
        parser.error(
            f"no data set fashion_mnist in {options.data_dir}; prepare it as docs/data.md says"
        )
    out = pathlib.Path(options.out).resolve()
    data_dir = str(pathlib.Path(options.data_dir).resolve())
    tables = study(rows, range(options.seeds), options.steps, out, data_dir)
    (out / "table.md").write_text(tables)
    print(f"\n{tables}", end="")


if __name__ == "__main__":
    try:
        with termination.resumable():
            main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
