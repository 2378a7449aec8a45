"""The records of a run: metrics.jsonl, TensorBoard,
W&B on request, the console, pictures, a clock, the summary.

`metrics.jsonl` is the record; everything else can be made from it. Each line is one flat JSON
object, "step" and then name -> number, such as {"step": 100, "train/loss": 0.25,
"time/images_per_second": 812.5}. Numbers pass through float32, so that equal float32 values give
equal text; NaN and infinity are null. Names that begin with `time/` differ from run to run; all
others are equal in a resumed and an uninterrupted run. For that, what belongs to step s is
written before checkpoint s.
"""

import contextlib
import csv
import io
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from etils import epath
from tqdm import tqdm

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.core.output import progress
from swin_jax.core.output.text import say, shown
from swin_jax.train.trackers import tensorboard, weights_and_biases

_LARGEST = float(np.finfo(np.float32).max)
# Cannot be printed, or does something to a terminal.
_NO_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


# ---- metrics.jsonl ----


def metrics_path(workdir: str | os.PathLike) -> epath.Path:
    """The path of a run's metrics."""
    return storage.path(workdir) / "metrics.jsonl"


def format_line(step: int, metrics: Mapping[str, float]) -> str:
    """One line of metrics.jsonl, without the line break; values are anything that `float` takes."""
    values = {name: float(np.float32(value)) for name, value in metrics.items()}
    values = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return json.dumps({"step": int(step), **values}, allow_nan=False)


def read_metrics(workdir: str | os.PathLike) -> list[dict]:
    """The lines of metrics.jsonl as dicts, in the order written; no file gives [].

    Torn lines are left out, and those with anything but numbers or a name with control characters.

    Raises:
        UserError: It is not a file, or one that cannot be read.
    """
    lines = (_parse(line) for line in _lines(metrics_path(workdir)))
    return [line for line in lines if line is not None]


def _lines(path: epath.Path) -> list[str]:
    try:
        return storage.read_text(path).removeprefix("\ufeff").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read: {storage.reason(error)}") from error


def truncate(workdir: str | os.PathLike, step: int) -> None:
    """Drops from metrics.jsonl every line after `step` and every torn one,
    leaving the other lines byte for byte.

    Where there are lines that this program does not write, as of an editor that saves UTF-16 or
    lays JSON out anew, all that was there is kept in a copy, and that is said.
    """
    path = metrics_path(workdir)
    if not path.exists():
        return
    kept, foreign = [], 0
    for line in _lines(path):
        parsed = _parse(line)
        if parsed is None:
            foreign += bool(line.strip()) and not _is_torn(line)
        elif parsed["step"] <= step:
            kept.append(line + "\n")
    if foreign:
        aside = _copy_aside(path)
        say(f"{path} has {foreign} lines that are not of a log; as it was, it is kept in {aside}")
    # Whole, so that a kill in between leaves the old file or the new one.
    storage.write(path, "".join(kept))


def _is_torn(line: str) -> bool:
    """True for the beginning of a line of `format_line`."""
    start = '{"step": '
    return line[: len(start)] == start[: len(line)]


def _copy_aside(path: epath.Path) -> epath.Path:
    """Copies a log to metrics_1.jsonl, or the next number that is free; returns its path."""
    number = 1
    while (aside := path.with_name(f"metrics_{number}.jsonl")).exists():
        number += 1
    storage.write(aside, path.read_bytes())
    return aside


def set_aside(workdir: str | os.PathLike) -> None:
    """Moves the log of an earlier run of which there is no checkpoint to metrics_1.jsonl, or the
    next number that is free, and says so; a log without lines stays.
    """
    lines = read_metrics(workdir)
    if not lines:
        return
    path = metrics_path(workdir)
    aside = _copy_aside(path)
    path.unlink()
    say(
        f"{path} has {len(lines)} lines up to step {lines[-1]['step']} of an earlier run, "
        f"from which this one does not resume; they are kept in {aside}"
    )


def _parse(line):
    """The dict of one line, or None if the line is not whole."""
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, dict) or type(parsed.get("step")) is not int:
        return None
    whole = all(value is None or _is_number(value) for value in parsed.values())
    return parsed if whole and not any(_NO_NAME.search(name) for name in parsed) else None


def _is_number(value):
    """True if a value is a number of float32, as `format_line` writes them;
    others may stand for nan and infinity.
    """
    return type(value) in (int, float) and not _LARGEST < abs(value) < math.inf


# ---- the writer ----


class Logs:
    """Writes a run's metrics and shows its progress; a context manager.

    On a terminal with room for it the progress is a bar, otherwise plain lines; both go to stderr.

    Args:
        workdir: Folder for metrics.jsonl and tensorboard/; made if missing.
        total_steps: Updates in the run.
        restored_step: The step of the checkpoint that the run resumes from: what was logged later
            is dropped. None: the run starts from scratch, and an earlier log is set aside.
        enabled: False writes nothing anywhere; for every process but the first.
        wandb_project: Weights & Biases project to log to as well, as one run per workdir; '' for
            none.
        config: The run's configuration that W&B shows.
        check: A function that is called before anything is overwritten; it raises UserError where
            the workdir is of another run by now.

    Raises:
        UserError: W&B was asked for and is not installed.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        total_steps: int,
        restored_step: int | None = None,
        enabled: bool = True,
        wandb_project: str = "",
        config: Mapping | None = None,
        check: Callable[[], None] = lambda: None,
    ):
        self._enabled = enabled
        self._total_steps, self._check = total_steps, check
        self._shown = {}  # latest metrics on the console
        self.measured = {}  # latest numbers of evaluations, for the summary
        self._last_line = time.monotonic()
        self._file = self._tensorboard = self._wandb = self._bar = self._spool = None
        if not enabled:
            return
        start = -1 if restored_step is None else restored_step
        self._workdir = workdir = storage.path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        self._spool = storage.Spool(workdir, check=check)  # what is appended to
        try:
            self._open(start, wandb_project, config)
        except OSError as error:
            raise UserError(f"no log can be written in {workdir}: {error}") from error
        if progress.draws_bars():
            self._bar = tqdm(
                total=total_steps, initial=max(start, 0), unit="step", dynamic_ncols=True
            )

    def _open(self, start: int, wandb_project: str, config: Mapping | None) -> None:
        """Opens the files of the log, without what was written after step `start`."""
        workdir = self._workdir
        if wandb_project:
            self._wandb = weights_and_biases.Run(workdir, self._spool.folder, wandb_project, config)
        if start < 0:
            set_aside(workdir)
        truncate(workdir, start)
        self._record = self._spool.folder / "metrics.jsonl"
        if storage.is_remote(workdir) and metrics_path(workdir).exists():
            self._record.write_bytes(metrics_path(workdir).read_bytes())
        self._file = self._record.open("a")
        self._tensorboard = tensorboard.start(self._spool.folder, start)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records metrics of a step everywhere but on the console;
        on return the line is in metrics.jsonl.

        In a bucket it is after half a minute, and after `flush`.
        """
        if not self._enabled:
            return
        self._find_record()
        self._file.write(format_line(step, metrics) + "\n")
        self._file.flush()
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        for name, value in finite.items():
            self._tensorboard.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(finite, step=int(step))
        self._spool.tick()

    def _find_record(self) -> None:
        """Opens metrics.jsonl again where someone has removed or replaced it,
        an editor for example.
        """
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self._record), os.fstat(self._file.fileno())):
                return
        self._check()
        self.text(
            f"{self._record} was removed or replaced; "
            "what is logged from now on goes into the new one"
        )
        self._file.close()
        self._file = self._record.open("a")

    def flush(self) -> None:
        """Returns when all that was written is in the workdir; call it before a checkpoint.

        Raises:
            UserError: The bucket cannot be written to.
        """
        if self._enabled:
            self._spool.sync()

    def attach(self, step: int, name: str, value: np.ndarray | Sequence[Sequence]) -> None:
        """Keeps an evaluation's picture, uint8 (H, W, 1 or 3), as pictures/<name>_<step>.png and in
        TensorBoard, or its table, rows of which the first has titles, as tables/<name>_<step>.csv.
        """
        if not self._enabled:
            return
        kind = "pictures" if isinstance(value, np.ndarray) else "tables"
        (self._workdir / kind).mkdir(exist_ok=True)
        path = self._workdir / kind / f"{name.removeprefix('eval/').replace('/', '_')}_{step:07d}"
        if kind == "tables":
            csv.writer(text := io.StringIO(newline="")).writerows(value)
            storage.write(f"{path}.csv", text.getvalue().encode("utf-8", "surrogateescape"))
            return
        from PIL import Image

        shown = np.repeat(value, 3, axis=-1) if value.shape[-1] == 1 else value
        with storage.writing(f"{path}.png") as file:
            Image.fromarray(shown).save(file, "PNG")
        self._tensorboard.add_image(name, shown, step, dataformats="HWC")

    def progress(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Shows how far the run is; may be called at every step.

        Args:
            step: Updates done.
            metrics: The latest ones, of which `train/loss`, `time/images_per_second` and
                `time/step_seconds` are shown. Without them and without a terminal a line is printed
                only if there was none for 10 s.
        """
        if not self._enabled:
            return
        self._shown.update(metrics or {})
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            if metrics:
                self._bar.set_postfix_str(", ".join(_loss_and_speed(self._shown)))
        elif metrics or time.monotonic() - self._last_line >= progress.SECONDS:
            parts = [f"step {step}/{self._total_steps}", *_loss_and_speed(self._shown)]
            if "time/step_seconds" in self._shown:
                remaining = (self._total_steps - step) * float(self._shown["time/step_seconds"])
                parts.append(f"ETA {tqdm.format_interval(max(remaining, 0))}")
            self.text("  ".join(parts))

    def evaluation(
        self, step: int, values: Mapping[str, float], seconds: float, record: bool
    ) -> None:
        """Shows the numbers of an evaluation, and records them if `record`."""
        if record and values:
            self.write(step, values)
        self.measured |= values
        text = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        self.text(f"step {step}  {text}  ({seconds:.1f} s){'' if record else ', not logged again'}")

    @contextlib.contextmanager
    def first_step(self) -> Iterator[None]:
        """Tells of a block that compiles; its time counts for no speed and no ETA."""
        self.text("compiling the first step")
        began = time.monotonic()
        yield
        self.text(f"compiled in {time.monotonic() - began:.1f} s")
        if self._bar is not None:
            self._bar.unpause()

    def text(self, line: str) -> None:
        """Prints a line to stderr, above the bar if there is one."""
        if not self._enabled:
            return
        self._last_line = time.monotonic()
        if self._bar is not None:
            self._bar.write(shown(line), file=sys.stderr)
        else:
            say(line)

    def close(self) -> None:
        """Ends the bar and closes what is open; a second call does nothing."""
        if not self._enabled:
            return
        self._enabled = False
        if self._bar is not None:
            self._bar.close()
        self._file.close()
        self._tensorboard.close()
        if self._wandb:
            self._wandb.finish()
        self._spool.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        # A full disk that has ended the run is met once more here, by what is still in a buffer.
        with contextlib.suppress(*([OSError, UserError] if kind else [])):
            self.close()


def _loss_and_speed(metrics):
    names = (("train/loss", "loss {:.4f}"), ("time/images_per_second", "{:.1f} images/s"))
    return [text.format(float(metrics[name])) for name, text in names if name in metrics]


# ---- at the end ----


def summary(
    workdir: str | os.PathLike,
    steps: int,
    seconds: float,
    checkpoint: str | os.PathLike | None,
    measured: Mapping[str, float] | None = None,
) -> str:
    """The closing lines of a run: last losses and evaluations, steps, time, and where things lie.

    Args:
        workdir: The run's, with its metrics.jsonl.
        steps: Updates done in all.
        seconds: Wall time of this process.
        checkpoint: The last one's path, or None.
        measured: Numbers of evaluations that count instead of those in the log.

    Returns:
        Several lines of text.
    """
    last = {name: value for line in read_metrics(workdir) for name, value in line.items()}
    last |= {
        name: value if math.isfinite(value) else None for name, value in (measured or {}).items()
    }
    final = {
        name: value
        for name, value in last.items()
        if name == "train/loss" or name.startswith("eval/")
    }
    rows = [
        (name, "not finite" if value is None else f"{value:.4f}")
        for name, value in sorted(final.items())
    ]
    rows += [(name, f"{value}") for name, value in sorted(last.items()) if name.startswith("data/")]
    rows += [("metrics", str(metrics_path(workdir))), ("checkpoint", str(checkpoint or "none"))]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    return "\n".join(
        [f"Done: {steps} steps, {tqdm.format_interval(seconds)} in this process", *lines]
    )
