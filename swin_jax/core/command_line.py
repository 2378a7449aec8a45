"""The command line of the launcher: its flags, its help, and what is wrong with it in one line."""

import functools
import re
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from swin_jax.core import config as configs
from swin_jax.core import saved_config, sizes
from swin_jax.core.errors import UserError, is_ours, nearest

# Actions on the workdir of a trained run, which need no --config.
USES = ("predict", "index", "search", "edit", "export")
# What Python says of words in the place of numbers, and what is said instead.
_NUMBERS = {
    "invalid literal for int() with base 10:": "it must be a whole number, not",
    "could not convert string to float:": "it must be a number, not",
}
_MEASURES = "throughput(=true)?"  # needs none either, where there is a workdir
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
  a model of images and texts writes features.npz; a trained run needs no --config
    python -m swin_jax.launch --workdir=DIR --predict=my_images
  a model of images and texts: index a folder of images, then search it by a text or by a picture
    ... --index=my_images
    ... --search="a red boat"
    ... --search=boat.png
  edit pictures by a text: a folder of pictures or of latents, or seeds; the pictures, a sheet and a
  video go into DIR
    ... --edit=my_faces --config.text="a face with glasses"
    ... --edit=seeds:0-19
  the trained model as one file that runs without this package, on CPU, GPU and TPU
    ... --export=model.stablehlo
  before a pod is rented: does the step fit, what bounds it; no TPU is needed
  (pip install -e '.[tpu]')
    ... --plan=v5e:4x4
    ... --plan=auto:v5e:4x4
  how many images per second it trains on, predicts and reads, here
    ... --throughput --throughput_batch_sizes=64,128,256
  try an experiment without its data
    python -m swin_jax.launch --config=experiments/swin/swin_in1k.py:fake --workdir=runs/try
"""


_TEXT, _TEXTS = flags.DEFINE_string, flags.DEFINE_multi_string
_NUMBER, _SWITCH = flags.DEFINE_integer, flags.DEFINE_boolean
_EFFORT = functools.partial(flags.DEFINE_enum, enum_values=["full", "quick"])
_FLAGS = (  # kind, name, default, help
    (_TEXT, "workdir", None, "Where checkpoints, logs and pictures go."),
    (
        _TEXT,
        "plan",
        None,
        "Compile for a TPU topology such as v5e:4x4 (no TPU needed) instead of training.",
    ),
    (
        _EFFORT,
        "plan_effort",
        "full",
        "Compiler effort for --plan; 'quick' stops before code generation.",
    ),
    (_TEXT, "predict", None, "A folder of images to predict instead of training."),
    (_TEXT, "index", None, "A folder of images to index for --search instead of training."),
    (_TEXT, "search", None, "A text, or a picture file, to look for in the index."),
    (_NUMBER, "top", 10, "How many images --search finds."),
    (_TEXT, "edit", None, "A folder of pictures or latents, or seeds:0-9, to edit by a text."),
    (
        _TEXT,
        "export",
        None,
        "A file to write the trained model to (StableHLO) instead of training.",
    ),
    (_SWITCH, "throughput", False, "Measure images per second of training, prediction and data."),
    (_TEXT, "throughput_batch_sizes", "", "Batch sizes for --throughput, such as 64,128."),
    (_TEXTS, "allow_change", [], "Dotted key that a resumed run may change; may be repeated."),
    (_TEXT, "profile", None, "a-b: write a profiler trace of steps a to b into the workdir."),
    (_TEXT, "compilation_cache", None, "A folder that keeps compiled programs between runs."),
    (_SWITCH, "debug_nans", False, "Stop at the first operation that makes a NaN (slow)."),
    (_SWITCH, "distributed", False, "Several hosts: call jax.distributed.initialize() first."),
    (
        _NUMBER,
        "heartbeat_timeout",
        60,
        "Seconds of silence after which another host counts as dead.",
    ),
    (_SWITCH, "print_config", False, "Print the resolved config as `key = value` lines, and end."),
    (_SWITCH, "help", False, "Show this text."),
)


def define_flags() -> flags.FlagValues:
    """Fresh flags, because several runs may share a process."""
    values = flags.FlagValues()
    for kind, name, default, text in _FLAGS:
        kind(name, default, help=text, flag_values=values)
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
        UserError: Anything that is wrong with it, in one line.
    """
    arguments, paths = _split(argv)
    values = define_flags()
    workdir = None if paths else _trained_workdir(arguments)
    if len(paths) != 1 and workdir is None:
        raise UserError(
            "give one --config=FILE.py[:args]; --help shows examples, "
            "--config=FILE.py:help the args"
        )
    config = configs.load(paths[0]) if paths else saved_config.read(workdir)
    known = [f"--config.{key}" for key in _dotted(config)] + [f"--{name}" for name in values]
    _check_names(arguments, known)
    if not paths:
        measures = any(re.fullmatch(f"--?{_MEASURES}", argument) for argument in arguments)
        saved_config.check_overrides(config, arguments, ("batch_size",) if measures else ())
    arguments = sizes.set_sizes(config, arguments)
    tuples = {
        key: value for key in _dotted(config) if isinstance(value := _leaf(config, key), tuple)
    }
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
        text = text.splitlines()[0]
        for python_says, needed in _NUMBERS.items():
            text = text.replace(python_says, needed)
        raise UserError(text) from None
    configs.check_computed_from(values.config)
    _check_tuples(tuples, values.config)
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not a flag; flags look like --config.key=value")
    if (
        not values.workdir
        and values.plan is None
        and not (values.print_config or values.throughput)
    ):
        raise UserError("give --workdir=DIR, where the run's files go")
    return values, values.config


def _trained_workdir(arguments: Sequence[str]) -> str | None:
    """The workdir of a command line that uses a trained run and takes its config, or None."""
    line = "\n".join(arguments)
    acts = re.search(rf"^--?(({'|'.join(USES)})(=|$)|{_MEASURES}$)", line, re.MULTILINE)
    given = re.findall(r"^--?workdir[=\n](.+)$", line, re.MULTILINE)
    return given[-1] if acts and given else None


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
    """Raises UserError for an entry of another type in a tuple of numbers,
    which ml_collections lets pass.
    """
    left = set(_dotted(config))  # an override may have emptied what a key was in
    for key, old in before.items():
        if key not in left:
            continue
        kinds = {type(entry) for entry in old}
        for entry in _leaf(config, key) if kinds and kinds <= {int, float} else ():
            if type(entry) not in kinds | ({int} if float in kinds else set()):
                raise UserError(
                    f"--config.{key} takes {'floats' if float in kinds else 'ints'}, not {entry!r}"
                )


def _check_names(arguments: Sequence[str], known: Sequence[str]) -> None:
    """Raises UserError for a flag that does not exist, with the nearest one."""
    for argument in arguments:
        name = "--" + argument.partition("=")[0].lstrip("-")
        if (
            not argument.startswith("-")
            or name in known
            or "--" + name[2:].removeprefix("no") in known
        ):
            continue
        # A right last part under a wrong path is the likeliest slip of all.
        same_end = [key for key in known if key.rpartition(".")[2] == name.rpartition(".")[2]]
        hint = same_end[0] if same_end else nearest(name, known, cutoff=0.5)
        raise UserError(f"unknown flag {name}" + (f"; did you mean {hint}?" if hint else ""))


def _describe(values: flags.FlagValues) -> str:
    rows = [
        (
            "config",
            "The experiment: FILE.py or FILE.py:args; FILE.py:help lists them. "
            "Not needed to use a trained run.",
        ),
        ("config.KEY", "Overrides a key of the experiment; --print_config lists them."),
    ]
    rows += [(name, values[name].help) for name in values]
    return "\n".join(f"  --{name:<18} {text}" for name, text in rows)


def check_actions(values: flags.FlagValues) -> None:
    """Raises UserError for two things to do at once, or for one without its object."""
    actions = ("plan", *USES)
    given = [name for name in actions if values[name].value is not None] + [
        "throughput"
    ] * values.throughput
    if len(given) > 1:
        raise UserError(f"--{given[0]} and --{given[1]} are two commands; run one after the other")
    if values.throughput_batch_sizes and not values.throughput:
        raise UserError("--throughput_batch_sizes is for --throughput; give both")
    if given and given != ["throughput"] and not values[given[0]].value.strip():
        objects = {
            "search": "a text or a picture file",
            "plan": "a topology, v5e:4x4 for example",
            "export": "a file",
        }
        objects["edit"] = "a folder of pictures or latents, or seeds:0-9"
        what = objects.get(given[0], "a folder of images")
        raise UserError(f"--{given[0]}= is empty; give it {what}")
    for name in ("top", "heartbeat_timeout"):
        if values[name].value < 1:
            raise UserError(f"--{name}={values[name].value} must be at least 1")


def profile_steps(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)-(\d+)", text)
    if not found or int(found[1]) > int(found[2]) or int(found[1]) < 1:
        raise UserError(f"--profile={text} is not of the form a-b with 1 <= a <= b, such as 10-12")
    return int(found[1]), int(found[2])
