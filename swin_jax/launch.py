"""Runs an experiment: python -m swin_jax.launch --config=experiments/X.py[:args] --workdir=DIR [--config.key=value ...]

Exit status: 0 done, 1 error, 2 error while the run is set up (bad flag or config, unusable workdir),
3 a loss that is not finite, 130 interrupted, 141 output not read to its end, 143 stopped by SIGTERM. A run that is
training saves first, on SIGTERM and on Ctrl-C; a second Ctrl-C ends it at once.
"""

import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from swin_jax.core import config as configs
from swin_jax.core.errors import UserError, frame_outside, is_ours, nearest
from swin_jax.core.termination import Terminated, terminable

SETUP, ACTION = 2, 1  # exit statuses of a UserError: until everything is set up, and later
CLOSED = 141  # where nobody reads on: the shell's status for SIGPIPE
INTERRUPTED, TERMINATED = 130, 143  # the shell's for SIGINT and SIGTERM

EXAMPLES = """\
python -m swin_jax.launch --config=experiments/X.py[:args] --workdir=DIR [--config.key=value ...]

  train, or resume from DIR's newest checkpoint
    python -m swin_jax.launch --config=experiments/quickstart.py --workdir=runs/quickstart
  list the arguments of an experiment file
    python -m swin_jax.launch --config=experiments/swin/swin_in1k.py:help
  change anything that the experiment file shows
    ... --config.batch_size=512 --config.task.model.drop_path_rate=0.3 --config.mesh.fsdp=4
  show every key and value that a run would have, and end
    ... --print_config
  evaluate only
    ... --config.total_steps=0
  predict a folder of images with DIR's checkpoint: predictions.csv and predictions.png in DIR;
  a model of images and texts writes features.npz
    ... --predict=my_images
  a model of images and texts: index a folder of images, then search it by a text or by a picture
    ... --index=my_images
    ... --search="a red boat"
    ... --search=boat.png
  the trained model as one file that runs without this package, on CPU, GPU and TPU
    ... --export=model.stablehlo
  before a pod is rented: does the step fit, what bounds it; no TPU is needed (pip install -e '.[tpu]')
    ... --plan=v5e:4x4
    ... --plan=auto:v5e:4x4
  how many images per second it trains on, predicts and reads, here
    ... --throughput --throughput_batch_sizes=64,128,256
  try an experiment without its data
    python -m swin_jax.launch --config=experiments/swin/swin_in1k.py:fake --workdir=runs/try
"""


def define_flags() -> flags.FlagValues:
    """Fresh flags, because several runs may share a process."""
    values = flags.FlagValues()

    def define(kind, name, default, text):
        kind(name, default, text, flag_values=values)

    define(flags.DEFINE_string, "workdir", None, "Where checkpoints, logs and pictures go.")
    define(
        flags.DEFINE_string,
        "plan",
        None,
        "Compile for a TPU topology such as v5e:4x4 (no TPU needed) instead of training.",
    )
    flags.DEFINE_enum(
        "plan_effort",
        "full",
        ["full", "quick"],
        "Compiler effort for --plan; 'quick' stops before code generation.",
        flag_values=values,
    )
    define(flags.DEFINE_string, "predict", None, "A folder of images to predict instead of training.")
    define(flags.DEFINE_string, "index", None, "A folder of images to index for --search instead of training.")
    define(flags.DEFINE_string, "search", None, "A text, or a picture file, to look for in the index.")
    define(flags.DEFINE_integer, "top", 10, "How many images --search finds.")
    define(flags.DEFINE_string, "export", None, "A file to write the trained model to (StableHLO) instead of training.")
    define(flags.DEFINE_boolean, "throughput", False, "Measure images per second of training, prediction and data.")
    define(flags.DEFINE_string, "throughput_batch_sizes", "", "Batch sizes for --throughput, such as 64,128.")
    define(flags.DEFINE_multi_string, "allow_change", [], "Dotted key that a resumed run may change; may be repeated.")
    define(flags.DEFINE_string, "profile", None, "a-b: write a profiler trace of steps a to b into the workdir.")
    define(flags.DEFINE_string, "compilation_cache", None, "A folder that keeps compiled programs between runs.")
    define(flags.DEFINE_boolean, "debug_nans", False, "Stop at the first operation that makes a NaN (slow).")
    define(flags.DEFINE_boolean, "distributed", False, "Several hosts: call jax.distributed.initialize() first.")
    define(flags.DEFINE_integer, "heartbeat_timeout", 60, "Seconds of silence after which another host counts as dead.")
    define(flags.DEFINE_boolean, "print_config", False, "Print the resolved config as `key = value` lines, and end.")
    define(flags.DEFINE_boolean, "help", False, "Show this text.")
    return values


def answer(argv: Sequence[str]) -> str | None:
    """The help that a command line asks for, on flags or on an experiment file; None if on none."""
    arguments, paths = _split(argv)
    if any(argument in ("--help", "-help", "-h", "--helpfull") for argument in arguments):
        return EXAMPLES + "\nFlags:\n" + _describe(define_flags())
    return configs.describe_arguments(paths[0]) if len(paths) == 1 else None


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the other arguments, the values of --config) of a command line."""
    arguments, paths = [], []
    for argument in argv[1:]:
        given = re.fullmatch(r"--?config=(.*)", argument)
        (paths.append(given[1]) if given else arguments.append(argument))
    return arguments, paths


def parse(argv: Sequence[str]) -> tuple[flags.FlagValues, object]:
    """Reads the command line.

    Returns:
        (flags, config with the overrides applied).

    Raises:
        UserError: anything that is wrong with it, in one line.
    """
    arguments, paths = _split(argv)
    if len(paths) != 1:
        raise UserError("give one --config=FILE.py[:args]; --help shows examples, --config=FILE.py:help the args")
    config = configs.load(paths[0])
    values = define_flags()
    known = [f"--config.{key}" for key in _dotted(config)] + [f"--{name}" for name in values]
    _check_names(arguments, known)
    arguments = configs.set_sizes(config, arguments)
    tuples = {key: value for key in _dotted(config) if isinstance(value := _leaf(config, key), tuple)}
    command = [argv[0], *arguments]
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=command)
        rest = values(command)
    except UserError:
        raise
    except (flags.Error, TypeError, ValueError, KeyError, AttributeError) as error:
        if not is_ours(error):  # a reference of the experiment file computes with what was given
            raise
        # The argument, because the text of a KeyError is in quotes.
        text = str(error.args[0] if error.args else "").strip() or type(error).__name__
        raise UserError(text.splitlines()[0]) from None
    configs.check_computed_from(values.config)
    _check_tuples(tuples, values.config)
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not a flag; flags look like --config.key=value")
    if not values.workdir and values.plan is None and not (values.print_config or values.throughput):
        raise UserError("give --workdir=DIR, where the run's files go")
    return values, values.config


def _dotted(config, prefix: str = "") -> list[str]:
    """All dotted keys, those of inner configs included."""
    keys = []
    for key in config:
        keys.append(prefix + key)
        if hasattr(config[key], "keys"):
            keys += _dotted(config[key], f"{prefix}{key}.")
    return keys


def _leaf(config, key: str):
    for part in key.split("."):
        config = config[part]
    return config


def _check_tuples(before: dict[str, tuple], config) -> None:
    """Raises UserError for an entry of another type in a tuple of numbers, which ml_collections lets pass."""
    left = set(_dotted(config))  # an override may have emptied what a key was in
    for key, old in before.items():
        if key not in left:
            continue
        kinds = {type(entry) for entry in old}
        for entry in _leaf(config, key) if kinds and kinds <= {int, float} else ():
            if type(entry) not in kinds | ({int} if float in kinds else set()):
                raise UserError(f"--config.{key} takes {'floats' if float in kinds else 'ints'}, not {entry!r}")


def _check_names(arguments: Sequence[str], known: Sequence[str]) -> None:
    """Raises UserError for a flag that does not exist, with the nearest one."""
    for argument in arguments:
        name = "--" + argument.partition("=")[0].lstrip("-")
        if not argument.startswith("-") or name in known or "--" + name[2:].removeprefix("no") in known:
            continue
        # A right last part under a wrong path is the likeliest slip of all.
        same_end = [key for key in known if key.rpartition(".")[2] == name.rpartition(".")[2]]
        hint = same_end[0] if same_end else nearest(name, known, cutoff=0.5)
        raise UserError(f"unknown flag {name}" + (f"; did you mean {hint}?" if hint else ""))


def _describe(values: flags.FlagValues) -> str:
    rows = [
        ("config", "The experiment: FILE.py or FILE.py:args; FILE.py:help lists them."),
        ("config.KEY", "Overrides a key of the experiment; --print_config lists them."),
    ]
    rows += [(name, values[name].help) for name in values]
    return "\n".join(f"  --{name:<18} {text}" for name, text in rows)


def run(argv: Sequence[str]) -> int:
    """The command: parses, sets up one action, and runs it. Returns the exit status."""
    watch, wrong = None, SETUP
    if any(re.match("--?(plan=|print_config)", argument) for argument in argv):
        # Before JAX is imported, by an experiment file: it would ask the cloud which TPU this machine is.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    try:
        with terminable():
            if text := answer(argv):
                return _print(text)
            values, config = parse(argv)
            if values.print_config:
                return _print("\n".join(configs.key_values(config)))
            profile = _profile(values.profile)
            _check_actions(values)
            if values.plan is None:
                # After the flags, so that a wrong one costs no start of an accelerator.
                watch = _start_jax(values, argv)
            from swin_jax.train.workdir import writing_to

            act = _prepare(values, config, profile)
            wrong = ACTION
            with writing_to(values.workdir):
                status = act()
            if watch:
                watch.leave()
            return status
    except Terminated:
        return _terminated(argv)
    except (Exception, KeyboardInterrupt) as error:
        if not watch and not isinstance(error, (UserError, KeyboardInterrupt)):
            raise
        status = _report(error, wrong)
        if watch:
            watch.fail(error, status)
        return status


def _terminated(argv: Sequence[str]) -> int:
    """Says what a SIGTERM has stopped; returns the exit status."""
    acts = any(re.match(r"--?(predict|index|search|export|plan|throughput)\b", argument) for argument in argv)
    where = "stopped" if acts else "stopped during start-up, before anything was trained"
    print(f"SIGTERM: {where}; rerun the same command", file=sys.stderr, flush=True)
    return TERMINATED


def _print(text: str) -> int:
    """Prints a text that may go to `head`; returns the exit status, of SIGPIPE if that had enough."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    return 0


def _report(error: BaseException, wrong: int) -> int:
    """Prints what went wrong; returns the exit status, which is `wrong` for a UserError."""
    if isinstance(error, KeyboardInterrupt):
        print("interrupted; rerun the same command to resume", file=sys.stderr, flush=True)
        return INTERRUPTED
    if isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr, flush=True)
        return wrong
    traceback.print_exception(error)
    return 1


def _start_jax(values: flags.FlagValues, argv: Sequence[str]) -> Any:
    """Sets JAX's options and joins the other processes; returns the watch over them, if any."""
    import jax

    from swin_jax.core import storage
    from swin_jax.train import multihost

    if values.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", str(storage.absolute(values.compilation_cache)))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_debug_nans", values.debug_nans)
    if values.distributed or multihost.detected():
        return multihost.start(argv[1:], values.heartbeat_timeout)
    return None


def _prepare(values: flags.FlagValues, config, profile: tuple[int, int] | None) -> Callable[[], int]:
    """Sets up training, or what a flag asks for instead.

    Returns:
        The function that does it and returns the exit status.

    Raises:
        UserError: anything that is wrong before the work begins.
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
    if values.export is not None:
        from swin_jax.inference import export

        return export.prepare_run(config, values.workdir, values.export)
    if values.throughput:
        from swin_jax.plan import throughput

        return throughput.prepare(config, values.workdir, values.throughput_batch_sizes)
    if config.total_steps == 0:
        from swin_jax.inference import trained_run

        trained_run.check_first_weights(config, values.workdir)
    from swin_jax.train import loop

    return loop.prepare(config, values.workdir, values.allow_change, profile)


def _check_actions(values: flags.FlagValues) -> None:
    """Raises UserError for two things to do at once, or for one without its object."""
    actions = ("plan", "predict", "index", "search", "export")
    given = [name for name in actions if values[name].value is not None] + ["throughput"] * values.throughput
    if len(given) > 1:
        raise UserError(f"--{given[0]} and --{given[1]} are two commands; run one after the other")
    if values.throughput_batch_sizes and not values.throughput:
        raise UserError("--throughput_batch_sizes is for --throughput; give both")
    if given and given != ["throughput"] and not values[given[0]].value.strip():
        objects = {"search": "a text or a picture file", "plan": "a topology, v5e:4x4 for example", "export": "a file"}
        what = objects.get(given[0], "a folder of images")
        raise UserError(f"--{given[0]}= is empty; give it {what}")
    for name in ("top", "heartbeat_timeout"):
        if values[name].value < 1:
            raise UserError(f"--{name}={values[name].value} must be at least 1")


def _profile(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)-(\d+)", text)
    if not found or int(found[1]) > int(found[2]) or int(found[1]) < 1:
        raise UserError(f"--profile={text} is not of the form a-b with 1 <= a <= b, such as 10-12")
    return int(found[1]), int(found[2])


def main() -> None:
    """Entry point of `python -m swin_jax.launch` and of the `swin_jax` command."""
    with warnings.catch_warnings():
        entry = frame_outside().f_code.co_filename
        warnings.showwarning = _show_warnings(entry, warnings.showwarning)
        if sys.stdout.errors == "strict":  # names of files may be of any bytes; standard error escapes them, too
            sys.stdout.reconfigure(errors="backslashreplace")
        status = run(sys.argv)
        multihost = sys.modules.get("swin_jax.train.multihost")
        if status in (TERMINATED, INTERRUPTED) and not (multihost and multihost.joined()):
            # A thread that still compiles a program, or waits for other hosts, would crash while Python takes JAX down.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        if status == ACTION:
            # All is said; of a save that failed, Orbax prints pages more while Python ends.
            sys.stderr.flush()
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        sys.exit(status)


def _show_warnings(entry: str, show: Callable[..., None]) -> Callable[..., None]:
    """Makes a `warnings.showwarning` for the command line.

    Args:
        entry: The file that called `main`: Python's own, or the installed command. A warning at a
            line of it has no line of the user, and is shown as `warning: TEXT`, once.
        show: Shows all others.
    """
    told = set()

    def show_warning(message, category, filename, *where):
        if category is not UserWarning or filename != entry:
            show(message, category, filename, *where)
        elif str(message) not in told:
            told.add(str(message))
            print(f"warning: {message}", file=sys.stderr, flush=True)

    return show_warning


if __name__ == "__main__":
    main()
