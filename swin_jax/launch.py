"""Runs an experiment: python -m swin_jax.launch --config=experiments/X.py[:args] --workdir=DIR
[--config.key=value ...]

Exit status: 0 done, 1 error, 2 error while the run is set up (bad flag or config, unusable
workdir), 3 a loss that is not finite, 130 interrupted, 141 output not read to its end, and 128 and
the number of the signal that stopped it: 143 SIGTERM, 129 SIGHUP (a terminal that was closed), 138
and 140 SIGUSR1 and SIGUSR2, 152 SIGXCPU. A run that is training saves first, on these signals and
on Ctrl-C; a second Ctrl-C ends it at once.
"""

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from swin_jax.core import config as configs
from swin_jax.core.command_line import USES, answer, check_actions, parse, profile_steps
from swin_jax.core.errors import UserError, install, plain_warnings
from swin_jax.core.output import streams
from swin_jax.core.output.text import say
from swin_jax.core.termination import SIGNALS, Terminated, terminable

SETUP, ACTION = 2, 1  # exit statuses of a UserError: until everything is set up, and later
CLOSED = 141  # where nobody reads on: the shell's status for SIGPIPE
# The shell's for signals.
INTERRUPTED = 128 + signal.SIGINT
STOPPED = {INTERRUPTED, *(128 + number for number in SIGNALS)}


def run(argv: Sequence[str]) -> int:
    """The command: parses, sets up one action, and runs it. Returns the exit status."""
    watch, wrong = None, SETUP
    if any(re.match("--?(plan=|print_config)", argument) for argument in argv):
        # Before JAX is imported, by an experiment file:
        # it would ask the cloud which TPU this machine is.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    try:
        with terminable():
            if text := answer(argv):
                print(text)
                return 0
            values, config = parse(argv)
            if values.print_config:
                print("\n".join(configs.key_values(config)))
                return 0
            profile = profile_steps(values.profile)
            check_actions(values)
            if values.plan is None:
                # After the flags, so that a wrong one costs no start of an accelerator.
                watch = _start_jax(values, argv)
                _check_platforms()
            from swin_jax.train.workdir import writing_to

            with writing_to(values.workdir):
                act = _prepare(values, config, profile)
                wrong = ACTION
                status = act()
            if watch:
                watch.leave()
            return status
    except Terminated as error:
        return _terminated(argv, error)
    except (Exception, KeyboardInterrupt) as error:
        if not watch and not isinstance(error, (UserError, KeyboardInterrupt)):
            raise
        status = _report(error, wrong, argv)
        if watch:
            watch.fail(error, status)
        return status


def _terminated(argv: Sequence[str], error: Terminated) -> int:
    """Says what a signal has stopped; returns the exit status."""
    where = "stopped" if _action(argv) else "stopped during start-up, before anything was trained"
    say(f"{error.signal.name}: {where}; rerun the same command")
    return 128 + error.signal


def _action(argv: Sequence[str]) -> str:
    """The action that a command line asks for instead of training, or ''."""
    actions = "|".join((*USES, "plan", "throughput"))
    found = (re.match(rf"--?({actions})\b", argument) for argument in argv)
    return next((match[1] for match in found if match), "")


def _status_of_output(error: OSError) -> int:
    """Says, unless a reader had enough, why standard output was not written; returns the status."""
    if error.errno == errno.EPIPE:
        return CLOSED
    say(f"error: standard output cannot be written: {error.strerror}")
    return ACTION


def _report(error: BaseException, wrong: int, argv: Sequence[str]) -> int:
    """Prints what went wrong; returns the exit status, which is `wrong` for a UserError."""
    if isinstance(error, KeyboardInterrupt):
        resumes = _action(argv) in ("", "index")
        say(f"interrupted; rerun the same command{' to resume' if resumes else ''}")
        return INTERRUPTED
    if isinstance(error, UserError):
        say(f"error: {error.message}", error.items)
        return wrong
    traceback.print_exception(error)
    return 1


def _start_jax(values: flags.FlagValues, argv: Sequence[str]) -> Any:
    """Sets JAX's options and joins the other processes; returns the watch over them, if any."""
    import jax

    from swin_jax.core import storage
    from swin_jax.train import multihost

    if values.compilation_cache:
        jax.config.update(
            "jax_compilation_cache_dir", str(storage.absolute(values.compilation_cache))
        )
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_debug_nans", values.debug_nans)
    if values.distributed or multihost.detected():
        return multihost.start(argv[1:], values.heartbeat_timeout)
    return None


def _check_platforms() -> None:
    """Raises UserError where JAX cannot start what $JAX_PLATFORMS names."""
    import jax

    platforms = os.environ.get("JAX_PLATFORMS", "")
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter for 'cuda' without its plugin
        if not platforms:
            raise
        kinds = [{"gpu": "cuda"}.get(kind, kind) for kind in platforms.split(",")]
        extras = " or ".join(install(kind) for kind in kinds if kind in ("cuda", "tpu"))
        reason = " ".join(str(error).split()) or "it is not installed"
        raise UserError(
            f"JAX cannot start JAX_PLATFORMS={platforms}: {reason}" + (f": {extras}" * bool(extras))
        ) from error


def _prepare(
    values: flags.FlagValues, config, profile: tuple[int, int] | None
) -> Callable[[], int]:
    """Sets up training, or what a flag asks for instead.

    Returns:
        The function that does it and returns the exit status.

    Raises:
        UserError: Anything that is wrong before the work begins.
    """
    if values.plan is not None:
        from swin_jax.plan import command

        return command.prepare(config, values.plan, values.workdir, values.plan_effort)
    if values.predict is not None:
        from swin_jax.inference import predict

        return predict.prepare(config, values.workdir, values.predict)
    if values.index is not None or values.search is not None:
        from swin_jax.inference import search

        if values.index is not None:
            return search.prepare_index(config, values.workdir, values.index)
        return search.prepare_search(config, values.workdir, values.search, values.top)
    if values.edit is not None:
        from swin_jax.inference.editing import action

        return action.prepare(config, values.workdir, values.edit)
    if values.export is not None:
        from swin_jax.inference import export

        return export.prepare_run(config, values.workdir, values.export)
    if values.throughput:
        from swin_jax.plan import throughput

        return throughput.prepare(config, values.workdir, values.throughput_batch_sizes)
    # What stands for `init_from` may be anything that loads.
    if config.total_steps == 0 or config.get("init_from", {}).get("path"):
        from swin_jax.inference import trained_run

        if config.total_steps == 0:
            trained_run.check_first_weights(config, values.workdir)
        else:
            trained_run.check_first_pixels(config, values.workdir)
    from swin_jax.train import loop

    return loop.prepare(config, values.workdir, values.allow_change, profile)


def main() -> None:
    """Entry point of `python -m swin_jax.launch` and of the `swin_jax` command."""
    with plain_warnings(), streams.lasting_output():
        # Names of files may be of any bytes; standard error escapes them, too.
        if sys.stdout.errors == "strict":
            sys.stdout.reconfigure(errors="backslashreplace")
        status = run(sys.argv)
        if not status and (error := streams.failure(sys.stdout)):
            status = _status_of_output(error)
        multihost = sys.modules.get("swin_jax.train.multihost")
        if status in STOPPED and not (multihost and multihost.joined()):
            # A thread that still compiles a program, or waits for other hosts,
            # would crash while Python takes JAX down.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        if status == ACTION:
            # All is said; of a save that failed, Orbax prints pages more while Python ends.
            sys.stderr.flush()
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        sys.exit(status)


if __name__ == "__main__":
    main()
