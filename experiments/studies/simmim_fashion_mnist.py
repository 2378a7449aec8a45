"""Does SimMIM help on Fashion-MNIST with few labels? Runs the whole comparison and writes
its tables and plot.

    python experiments/studies/simmim_fashion_mnist.py --data_dir=data --out=runs/simmim_study

For each of three seeds: pretraining without labels, then fine-tuning with 1 % (600) or 10 % (6,000)
of the labels. Against it the same network from scratch with the same labels, augmentation and batch
size, and as many updates as pretraining and fine-tuning together; an update costs the same in both
but for the decoder, 1 % of the work. With 1 % of the labels the learning rate from scratch and its
length (all of these updates, or 3,500) are the best of 3 x 2 by accuracy on 5,000 held-out labeled
training images, seed 0; with 10 % the rate is the same and all updates are used. The numbers are
test accuracies at the last step; nothing is chosen on the test set.

Runs go side by side, one core each. Finished ones are skipped and interrupted ones resume from
their newest checkpoint, so that a killed study can be run again; its times are those of the last
attempt of each run.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import queue
import signal
import statistics
import subprocess
import sys
import threading
import time

from swin_jax.core import termination

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEEDS = (0, 1, 2)
LABELS = (1, 10)  # percent
PRETRAIN_STEPS = 9000
FINETUNE_STEPS = {1: 2000, 10: 3000}
SCRATCH_RATES = (3e-4, 1e-3, 3e-3)
SCRATCH_LENGTHS = (PRETRAIN_STEPS + FINETUNE_STEPS[1], 3500)


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        name: Name of its workdir.
        config: The experiment file and its arguments.
        steps: Updates.
        seed: Seed of everything but the choice of labeled images.
        base_lr: Peak learning rate; 0 leaves the config's.
        start: Name of the run that it starts from, or ''.
    """

    name: str
    config: str
    steps: int
    seed: int
    base_lr: float = 0.0
    start: str = ""

    def command(self, out: pathlib.Path, data_dir: str) -> list[str]:
        """The launcher's command line."""
        flags = dict(total_steps=self.steps, seed=self.seed, data_dir=data_dir)
        flags |= {"task.tx.schedule.base_lr": self.base_lr} if self.base_lr else {}
        flags |= {"init_from.path": out / self.start} if self.start else {}
        command = [sys.executable, "-m", "swin_jax.launch", f"--config=experiments/{self.config}"]
        return [
            *command,
            f"--workdir={out / self.name}",
            *(f"--config.{key}={flags[key]}" for key in flags),
        ]


def pretraining(seed: int) -> Run:
    return Run(f"pretrain_seed{seed}", "simmim/simmim_fashion_mnist.py", PRETRAIN_STEPS, seed)


def finetuning(labels: int, seed: int) -> Run:
    config = f"simmim/simmim_fashion_mnist_finetune.py:labels={labels}"
    return Run(
        f"simmim_{labels}_seed{seed}",
        config,
        FINETUNE_STEPS[labels],
        seed,
        start=pretraining(seed).name,
    )


def scratch(labels: int, seed: int, base_lr: float, steps: int) -> Run:
    config = f"simmim/simmim_fashion_mnist_finetune.py:labels={labels}"
    return Run(
        f"scratch_{labels}_lr{base_lr:g}_steps{steps}_seed{seed}", config, steps, seed, base_lr
    )


class Runner:
    """Runs trainings side by side, each on a core of its own; a context manager.

    An error or interruption in the block starts no further training, and those at work save and
    end before the block does.
    """

    def __init__(self, out: pathlib.Path, data_dir: str, jobs: int):
        self.out, self.data_dir = out, data_dir
        self.cores = queue.SimpleQueue()
        available = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        for job in range(jobs):
            self.cores.put(available[job % len(available)] if available else None)
        self.pool = concurrent.futures.ThreadPoolExecutor(jobs)
        self._lock, self._stops = threading.Lock(), False
        self._working: set[int] = set()  # process numbers

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        with self._lock:
            self._stops = kind is not None
            for number in self._working if self._stops else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGTERM)
        self.pool.shutdown(cancel_futures=self._stops)

    def start(self, *runs: Run) -> concurrent.futures.Future:
        """Queues runs that must follow each other."""
        return self.pool.submit(lambda: [self._run(run) for run in runs])

    def _run(self, run: Run) -> None:
        if time_file(self.out, run).exists():
            return
        core = self.cores.get()
        try:
            began, usage = time.time(), self._train(run, core)
        finally:
            self.cores.put(core)
        spent = dict(began=began, ended=time.time(), cpu_seconds=usage.ru_utime + usage.ru_stime)
        time_file(self.out, run).write_text(json.dumps(spent) + "\n")
        found = {key: round(value, 4) for key, value in results(self.out, run).items()}
        print(
            f"{time.strftime('%H:%M:%S')}  {run.name}  "
            f"{(time.time() - began) / 60:.1f} min  {found}",
            flush=True,
        )

    def _train(self, run: Run, core: int | None):
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
        environment = os.environ | {"XLA_FLAGS": flags, "OMP_NUM_THREADS": "1"}
        pin = (lambda: os.sched_setaffinity(0, {core})) if core is not None else None
        with open(self.out / f"{run.name}.log", "a") as log:
            with self._lock:
                if self._stops:
                    raise SystemExit("the study was stopped")
                process = subprocess.Popen(
                    run.command(self.out, self.data_dir),
                    cwd=ROOT,
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    preexec_fn=pin,
                )
                self._working.add(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
            with self._lock:
                self._working.discard(process.pid)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(
                f"error: {run.name} ended with status {process.returncode}; see {log.name}"
            )
        return usage


def time_file(out: pathlib.Path, run: Run) -> pathlib.Path:
    """The file with the time of a finished run; it is there once everything else of the run is."""
    return out / run.name / "time.json"


def results(out: pathlib.Path, run: Run) -> dict[str, float]:
    """The evaluations of a finished run's last step, by name."""
    text = (out / run.name / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    last = [line for line in lines if line["step"] == run.steps]
    return {
        key[5:]: value for line in last for key, value in line.items() if key.startswith("eval/")
    }


def study(runner: Runner) -> dict:
    """Runs everything that is not there yet. Returns what `write` writes."""
    out = runner.out
    grid = [
        scratch(1, SEEDS[0], rate, steps) for steps in SCRATCH_LENGTHS for rate in SCRATCH_RATES
    ]
    waiting = [
        runner.start(pretraining(seed), *(finetuning(labels, seed) for labels in LABELS))
        for seed in SEEDS
    ]
    waiting += [runner.start(run) for run in grid]
    for future in waiting:
        future.result()
    best = max(grid, key=lambda run: results(out, run)["heldout/top1"])
    theirs = {
        labels: [scratch(labels, seed, best.base_lr, scratch_steps(labels, best)) for seed in SEEDS]
        for labels in LABELS
    }
    for future in [runner.start(run) for runs in theirs.values() for run in runs]:
        future.result()
    ours = {labels: [finetuning(labels, seed) for seed in SEEDS] for labels in LABELS}
    runs = {
        *(pretraining(seed) for seed in SEEDS),
        *grid,
        *itertools.chain(*ours.values(), *theirs.values()),
    }

    def test(runs):
        return [results(out, run)["test/top1"] for run in runs]

    return dict(
        table={labels: compare(test(ours[labels]), test(theirs[labels])) for labels in LABELS},
        grid=[
            dict(base_lr=run.base_lr, steps=run.steps, heldout=results(out, run)["heldout/top1"])
            for run in grid
        ],
        chosen=dict(base_lr=best.base_lr, steps=best.steps),
        pretraining_loss=[results(out, pretraining(seed))["heldout/loss"] for seed in SEEDS],
        time=spent(out, runs),
    )


def scratch_steps(labels: int, best: Run) -> int:
    """Updates from scratch: the chosen length with 1 % of the labels, else all that SimMIM gets."""
    return best.steps if labels == 1 else PRETRAIN_STEPS + FINETUNE_STEPS[labels]


def compare(ours: list[float], theirs: list[float]) -> dict:
    """Means, the gain, and the pooled standard deviation of two samples of the same size."""
    pooled = ((statistics.variance(ours) + statistics.variance(theirs)) / 2) ** 0.5
    gain = statistics.mean(ours) - statistics.mean(theirs)
    return dict(
        simmim=ours, scratch=theirs, gain=gain, pooled_deviation=pooled, clear=gain > 2 * pooled
    )


def spent(out: pathlib.Path, runs: set[Run]) -> dict[str, float]:
    """Minutes of all runs: of the processors, and by the clock where at least one run was going."""
    times = sorted(
        (json.loads(time_file(out, run).read_text()) for run in runs), key=lambda t: t["began"]
    )
    wall, until = 0.0, 0.0
    for t in times:
        wall += max(t["ended"] - max(t["began"], until), 0.0)
        until = max(until, t["ended"])
    return dict(
        runs=len(times),
        wall_minutes=wall / 60,
        cpu_minutes=sum(t["cpu_seconds"] for t in times) / 60,
    )


def markdown(found: dict) -> str:
    """The tables of `study` as text."""
    lines = [
        (
            "| labels | SimMIM, then fine-tuned | from scratch, "
            "same compute | gain | 2 x pooled deviation |"
        )
    ]
    lines.append("|---|---|---|---|---|")
    for labels, row in found["table"].items():
        cells = [
            (
                f"**{100 * statistics.mean(row[name]):.2f}** "
                f"({', '.join(f'{100 * v:.2f}' for v in row[name])})"
            )
            for name in ("simmim", "scratch")
        ]
        gain, deviation = (
            f"{100 * value:.2f}" for value in (row["gain"], 2 * row["pooled_deviation"])
        )
        lines.append(f"| {labels} % | {' | '.join(cells)} | {gain} | {deviation} |")
    chosen = found["chosen"]
    lines += [
        "",
        "From scratch with 1 % of the labels, seed 0, accuracy on the held-out training images:",
        "",
    ]
    lines.append(
        "| learning rate | " + " | ".join(f"{steps} steps" for steps in SCRATCH_LENGTHS) + " |"
    )
    lines.append("|---" * (1 + len(SCRATCH_LENGTHS)) + "|")
    cell = {
        (item["base_lr"], item["steps"]): f"{100 * item['heldout']:.2f}" for item in found["grid"]
    }
    cell[chosen["base_lr"], chosen["steps"]] = f"**{cell[chosen['base_lr'], chosen['steps']]}**"
    lines += [
        f"| {rate:g} | " + " | ".join(cell[rate, s] for s in SCRATCH_LENGTHS) + " |"
        for rate in SCRATCH_RATES
    ]
    t = found["time"]
    lines += [
        "",
        (
            f"{t['runs']} runs, {t['wall_minutes']:.0f} minutes, "
            f"{t['cpu_minutes']:.0f} minutes of processor time."
        ),
    ]
    return "\n".join(lines) + "\n"


def plot(found: dict, path: pathlib.Path) -> None:
    """Draws every seed's accuracy and the means."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for name, color, shift in (("scratch", "tab:gray", -0.12), ("simmim", "tab:blue", 0.12)):
        for x, row in enumerate(found["table"].values()):
            values = [100 * value for value in row[name]]
            label = {"scratch": "from scratch, same compute", "simmim": "SimMIM, then fine-tuned"}[
                name
            ]
            axes.plot(
                [x + shift] * len(values),
                values,
                "o",
                color=color,
                alpha=0.6,
                label=None if x else label,
            )
            axes.plot(
                [x + shift - 0.09, x + shift + 0.09],
                [statistics.mean(values)] * 2,
                color=color,
                linewidth=2,
            )
    axes.set_xticks(range(len(LABELS)), [f"{labels} % of the labels" for labels in LABELS])
    axes.set_xlim(-0.5, len(LABELS) - 0.5)
    axes.set_ylabel("test accuracy (%)")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True, help="folder of the prepared Fashion-MNIST")
    parser.add_argument(
        "--out", default="runs/simmim_study", help="folder of all workdirs, the table and the plot"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs side by side")
    arguments = parser.parse_args()
    if not (pathlib.Path(arguments.data_dir) / "fashion_mnist").is_dir():
        raise SystemExit(
            f"error: no data set fashion_mnist in {arguments.data_dir}; "
            "prepare it as docs/data.md says"
        )
    out = pathlib.Path(arguments.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    data_dir = str(pathlib.Path(arguments.data_dir).resolve())
    with Runner(out, data_dir, arguments.jobs) as runner:
        found = study(runner)
    (out / "table.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "table.md").write_text(markdown(found))
    plot(found, out / "table.png")
    print(markdown(found))


if __name__ == "__main__":
    with termination.resumable():
        main()
