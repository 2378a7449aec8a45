"""The loop: build, shard, restore, step, log, evaluate, save.
It does not depend on any task, model or data set.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from etils import epath

from swin_jax.core import config as configs
from swin_jax.core import storage
from swin_jax.core.output.text import say
from swin_jax.tasks.base import check_frozen, describe, frozen_models
from swin_jax.train import checkpoint, clock, counts, curves, logs, multihost, run_info, sharding
from swin_jax.train.label_space import share_labels
from swin_jax.train.preemption import Interrupted, Preemption
from swin_jax.train.profiler import Profiler
from swin_jax.train.setup import (
    bind_evaluations,
    build_evaluations,
    build_run,
    check_batch,
    check_start,
    jitted_step,
    read_frozen,
)
from swin_jax.train.state import first_state
from swin_jax.train.workdir import Ownership, check_entries, check_shared, make_workdir, own, resume

DONE, NON_FINITE = 0, 3


def _due(step: int, every: int) -> bool:
    """True if something that happens every so many steps does now; 0 is never."""
    return every > 0 and step % every == 0


class Loop:
    """One run. The fields are what its steps share; `execute` is the order of events."""

    def __init__(
        self, config, workdir: epath.Path, owner: Ownership, profile: tuple[int, int] | None
    ):
        self.config, self.workdir, self.owner = config, workdir, owner
        self.run = build_run(config)
        check_batch(config, self.run)
        check_frozen(self.run.task)
        evals = build_evaluations(config)
        self.data, evals, lines = share_labels(
            config, workdir, self.run.task, configs.build(config.data, "data"), evals
        )
        for line in lines if jax.process_index() == 0 else []:
            say(line)
        self.data_line = run_info.data_line(self.data, evals)
        self.preemption = Preemption()
        placement = dataclasses.replace(self.run.placement, pause=self.preemption.pause)
        self.evals = bind_evaluations(config, evals, self.run.task, placement)
        self.train_step = jitted_step(self.run)
        self.clock = clock.Clock(config.batch_size)
        self.rows = self.run.placement.rows(config.batch_size)
        self.profiler = Profiler(workdir, profile)

    def execute(self) -> int:
        """Trains to `total_steps` from wherever the workdir is, then evaluates.
        Returns an exit status.
        """
        with self.owner, jax.set_mesh(self.run.placement.mesh):
            began, lead, total = time.monotonic(), jax.process_index() == 0, self.config.total_steps
            with multihost.meeting("before the first step"):
                start, meta, header = self.start_up()
            restored, values = start if meta else None, configs.flatten(self.config)
            # From here on a request to stop is saved for.
            with self.preemption:
                with logs.Logs(
                    self.workdir,
                    max(total, start),
                    restored,
                    lead,
                    self.config.logs.wandb,
                    values,
                    self.owner.confirm,
                ) as self.log:
                    for line in header:
                        self.log.text(line)
                    if start < total:
                        if meta:
                            self.log.text(f"resuming at step {start} of {total}")
                        status = self.train(start, total, meta)
                    else:
                        if meta:
                            self.log.text(f"evaluates step {start}")
                        status = self.evaluate_only(start)
                    if status != DONE:
                        return status
                checkpoint.finish(self.manager)
                curves.draw_or_tell(self.workdir, self.log.text)
                if lead:
                    kept = checkpoint.latest(self.manager)
                    path = checkpoint.folder(self.workdir) / str(kept) if kept is not None else None
                    ends = int(self.state.step), time.monotonic() - began, path
                    summary = logs.summary(self.workdir, *ends, self.log.measured)
                    print(summary, flush=True)
            return DONE

    def start_up(self) -> tuple[int, dict, list[str]]:
        """Makes all arrays; gives the step to start from, the meta data of its checkpoint,
        and the header.
        """
        total, lead = self.config.total_steps, jax.process_index() == 0
        self.manager = checkpoint.open(self.workdir, self.config.checkpoint.keep, write=total > 0)
        self.state, meta = first_state(self.config, self.run, self.manager, write=total > 0)
        frozen = read_frozen(self.run)
        numbers = getattr(self.data, "records", None)
        self.counts = counts.Counts(meta, self.config.batch_size, self.rows, numbers)
        task, mesh = self.run.task, self.run.placement.mesh
        sources = {name: item.path for name, item in frozen_models(task).items()}
        facts = run_info.facts(
            self.config, describe(task, self.run.abstract), mesh, frozen, sources
        )
        if lead:
            run_info.check_frozen(self.workdir, facts, frozen, meta.get("frozen"))
        if lead and total:
            run_info.write(self.workdir, facts)
        self.frozen = sharding.device_put_tree(frozen, self.run.frozen)
        self.kept = resume.kept(self.data, facts)
        self.clock = run_info.clock(self.config.batch_size, facts)
        return int(self.state.step), meta, [*run_info.lines(facts), self.data_line]

    def train(self, start: int, total: int, meta: dict) -> int:
        """The updates from `start` to `total`, and their evaluations. Returns an exit status."""
        batch_size = self.config.batch_size
        first = meta.get("examples_seen", 0) // batch_size
        batches = self.data.batches(first, self.rows)
        saved, mark = start, self.counts.mark()
        # To be logged of the previous step: fetched while the device works on this one.
        pending = None
        try:
            # The run ended between saving and evaluating, or while it evaluated.
            if meta and not self.evaluate(start, everything=False, done=self.recorded(start)):
                return self.stopped(start)
            for step in range(start + 1, total + 1):
                self.owner.check()
                self.profiler.reach(step, self.state, self.log.text)
                try:
                    batch = self.next_batch(batches)
                except (Exception, Interrupted) as error:
                    seen = (first - start + step - 1) * batch_size
                    return self.without_batch(error, step - 1, seen, pending, mark, saved)
                with self.made_first(step == start + 1), sharding.in_memory("a step of training"):
                    self.state, metrics = self.train_step(self.state, batch, self.frozen)
                if pending is not None:
                    self.write(*pending)
                mark = self.counts.mark()
                pending = step, metrics, mark
                last, stop = step == total, self.preemption.reached()
                saves = last or stop or _due(step, self.config.checkpoint.every)
                evaluates = any(_due(step, every) for every, _ in self.evals.values())
                if saves or evaluates:
                    # Raises on a loss that is not finite, before anything is saved.
                    self.write(*pending)
                    pending = None
                    seen = (first - start + step) * batch_size
                    with self.clock.paused():
                        if saves:  # first, because an evaluation may fail on its data
                            self.save(step, seen, wait=last or stop)
                            saved = step
                        if not stop and not self.evaluate_safely(step, last, seen, saves):
                            stop = True
                            if not saves:
                                self.save(step, seen, wait=True)
                        if evaluates and not (stop or last):
                            curves.draw_or_tell(self.workdir, self.log.text)
                if step == start + 1:
                    self.clock.start(step)
                if stop:
                    return self.stopped(step)
        except FloatingPointError as error:
            # What is still being saved is the last good checkpoint.
            checkpoint.finish(self.manager)
            kept = checkpoint.latest(self.manager)
            self.log.text(
                f"error: {error}; the last good checkpoint is "
                f"{f'step {kept}' if kept is not None else 'none'}"
            )
            return NON_FINITE
        finally:
            self.profiler.stop(self.state, self.log.text)
            batches.close()
        return DONE

    def evaluate_safely(self, step: int, everything: bool, examples_seen: int, saved: bool) -> bool:
        """Evaluates as `evaluate` does; where that fails, on its data, for want of memory or by a
        mistake in an evaluation, the step is saved before the error is raised.
        """
        try:
            return self.evaluate(step, everything)
        except Exception:
            # Other processes may wait within the evaluation.
            if not saved and jax.process_count() == 1:
                self.save(step, examples_seen, wait=True)
            checkpoint.finish(self.manager)
            raise

    def without_batch(
        self,
        error: BaseException,
        step: int,
        examples_seen: int,
        pending: tuple | None,
        mark: counts.Mark,
        saved: int,
    ) -> int:
        """Saves the step after which `error` came instead of a batch, unless it is `saved`.
        Returns the exit status of a request to stop, and raises any other error.
        """
        if pending is not None:
            self.write(*pending)
        # Other processes may wait for this one's rows.
        if step > saved and jax.process_count() == 1:
            self.save(step, examples_seen, wait=True, mark=mark)
        if isinstance(error, Interrupted):
            return self.stopped(step)
        checkpoint.finish(self.manager)
        raise error

    def stopped(self, step: int) -> int:
        """Says what a request to stop has led to; returns the exit status."""
        checkpoint.finish(self.manager)
        what = f"saved at step {step}" if step else "stopped before a step was trained"
        self.log.text(f"{self.preemption.name}: {what}; rerun the same command to resume")
        return self.preemption.status

    def next_batch(self, batches) -> dict[str, jax.Array]:
        """The next batch on the mesh; counts records that could not be read,
        and texts that were cut.
        """
        with self.clock.waiting(), self.preemption.at_once():
            batch = dict(next(batches))
        self.counts.add(batch)
        self.counts.check(self.config.max_bad_records)
        return self.run.placement.to_global(batch, self.config.batch_size)

    @contextlib.contextmanager
    def made_first(self, is_first: bool) -> Iterator[None]:
        """Tells of the first step, which compiles, and waits for it."""
        with self.log.first_step() if is_first else contextlib.nullcontext():
            yield
            if is_first:
                jax.block_until_ready(self.state.step)

    def write(self, step: int, metrics: dict[str, jax.Array], mark: counts.Mark) -> None:
        """Fetches the metrics of a step, checks and logs them; `mark` is that of the counts."""
        values = {f"train/{name}": float(value) for name, value in metrics.items()}
        wrong = {name: value for name, value in values.items() if not math.isfinite(value)}
        due = _due(step, self.config.logs.every) or step == self.config.total_steps
        if due or wrong:
            totals = self.counts.totals(mark)
            values |= {f"data/{name}": count for name, count in totals.items() if count}
            values |= self.clock.read(step)
            self.log.write(step, values)
            counts.check_bad(totals[counts.BAD], self.config.max_bad_records)
        self.log.progress(step, values if due else None)
        if wrong:
            raise FloatingPointError(
                f"{', '.join(f'{n} is {v}' for n, v in wrong.items())} at step {step}"
            )

    def views(self, step: int, everything: bool) -> list[tuple[str, str, bool]]:
        """(evaluation, its name in the log, whether it is of the average) of all that is due,
        or of everything.
        """
        due = [name for name, (every, _) in self.evals.items() if everything or _due(step, every)]
        kinds = [("", False)] if self.state.ema is None else [("", False), ("_ema", True)]
        return [(name, name + suffix, of_ema) for name in due for suffix, of_ema in kinds]

    def recorded(self, step: int) -> set[str]:
        """The names of the evaluations of a step that the log has; the same on all processes."""
        names = [name for _, name, _ in self.views(step, everything=True)]
        return resume.evaluated(self.workdir, step, names)

    def evaluate(self, step: int, everything: bool, done: set[str] = frozenset()) -> bool:
        """Runs the evaluations that are due, on the raw weights and beside them on their average.

        Args:
            step: Step of the state.
            everything: True to run those that are not due as well.
            done: Names of those to leave out.

        Returns:
            False if the run was asked to stop meanwhile; numbers up to there are in the log.
        """
        for name, view, of_ema in self.views(step, everything):
            if view not in done and not self.evaluate_one(step, name, view, of_ema, record=True):
                return False
        return True

    def evaluate_only(self, step: int) -> int:
        """Runs every evaluation, and logs those that the log does not have.
        Returns an exit status.
        """
        done = self.recorded(step)
        for name, view, of_ema in self.views(step, everything=True):
            if not self.evaluate_one(step, name, view, of_ema, record=view not in done):
                self.log.text(
                    f"{self.preemption.name}: not everything is evaluated; the same command does it"
                )
                return self.preemption.status
        return DONE

    def evaluate_one(self, step: int, name: str, view: str, of_ema: bool, record: bool) -> bool:
        """Runs one evaluation and logs it under the name `view`;
        False if the run was asked to stop meanwhile.
        """
        began, (_, run) = time.monotonic(), self.evals[name]
        state = self.state.replace(params=self.state.ema) if of_ema else self.state
        try:
            with self.preemption.at_once(), sharding.in_memory(f"evaluation {name}"):
                found = run(state, self.frozen)
        except Interrupted:
            return False
        if not found:  # an evaluation that lacks what it measures with
            return True
        found = {f"eval/{view}/{key}": value for key, value in found.items()}
        values = {key: value for key, value in found.items() if np.ndim(value) == 0}
        self.log.evaluation(step, values, time.monotonic() - began, record)
        for key in found.keys() - values.keys():
            self.log.attach(step, key, found[key])
        return True

    def save(
        self, step: int, examples_seen: int, wait: bool, mark: counts.Mark | None = None
    ) -> None:
        """Saves the state and what is needed to resume or to predict."""
        with multihost.meeting(f"to save step {step}"):
            meta = {
                "step": step,
                "examples_seen": examples_seen,
                **self.counts.saved(mark),
                "class_names": list(getattr(self.data, "class_names", ())),
                "config": configs.flatten(self.config),
                **self.kept,
            }
            self.owner.confirm()
            if jax.process_index() == 0:
                # Says how the checkpoints beside it were trained.
                resume.save(self.config, self.workdir)
            self.log.flush()  # a resumed run needs the lines up to its checkpoint
            checkpoint.save(self.manager, self.state, step, meta, wait)


def prepare(
    config, workdir: str, allow_change: Sequence[str] = (), profile: tuple[int, int] | None = None
) -> Callable[[], int]:
    """Sets up the run of an experiment in a workdir: all that can fail before arrays exist.

    Args:
        config: Config from an experiment file.
        workdir: Folder of the run; made if missing.
        allow_change: Dotted keys that a resumed run may change although the result depends on them.
        profile: (first, last) step of a profiler trace.

    Returns:
        The function that runs it, from the workdir's newest checkpoint if it has one. It
        returns the exit status: 0 done, 3 a loss that is not finite, 143 saved on SIGTERM,
        130 saved on Ctrl-C.

    Raises:
        UserError: Whatever the user can mend.
    """
    folder = storage.path(workdir)
    check_start(config, folder)
    make_workdir(folder)
    if not storage.is_remote(folder):
        folder = folder.resolve()  # a link in it may be set anew while the run is at work
    check_entries(folder)
    with multihost.meeting("at the start"):
        check_shared(folder)
    for key in allow_change:
        resume.check_key(config, key)
    owner = own(folder)
    try:
        # Evaluation only changes nothing, so it may look at a run with any config
        # that its checkpoint fits.
        if config.total_steps:
            changes = resume.check_resume(config, folder, allow_change)
        else:
            changes = resume.evaluation_changes(config, folder)
        for line in changes if jax.process_index() == 0 else []:
            print(f"changed since this run was started: {line}", flush=True)
        loop = Loop(config, folder, owner, profile)
        resume.check_records(loop.data, folder, config.total_steps > 0, allow_change)
        return loop.execute
    except BaseException:
        owner.release()
        raise
