"""Configs: specs, building them, and the arguments of experiments.

Besides the experiment files this is the only place that knows ml_collections. A spec is a
ConfigDict with a callable under `fn` and its keyword arguments beside it, so that a config is plain
Python whose every knob has a dotted key.
"""

import contextlib
import copy
import importlib.machinery
import importlib.util
import inspect
import json
import pathlib
import shlex
import sys
import types
import typing
from collections.abc import Callable

import cloudpickle
import ml_collections
from ml_collections import config_dict

from swin_jax.core import ranges
from swin_jax.core.errors import UserError, did_you_mean, nearest
from swin_jax.core.output.text import say
from swin_jax.core.public_names import name_of
from swin_jax.core.sizes import Size

# Keys from which experiment files compute others, by division too.
_COMPUTED_FROM = {
    **dict.fromkeys(("batch_size", "num_train", "num_classes", "accumulate"), ranges.PositiveInt),
    **dict.fromkeys(("image_size", "size"), Size),
    **dict.fromkeys(
        ("base_lr", "peak_lr", "warmup_lr", "min_lr", "warmup_epochs"), ranges.NonNegativeFloat
    ),
    **dict.fromkeys(("epochs", "warmup_steps"), ranges.NonNegativeInt),
}
LAUNCH = "python -m swin_jax.launch --config=FILE.py[:args] --workdir=DIR"


def spec(fn, **kwargs) -> ml_collections.ConfigDict:
    """A config for the call `fn(**kwargs)`, with the defaults of the signature filled in.

    A default of None becomes a placeholder of the annotated type,
    so that the command line can set it.

    Raises:
        TypeError: An argument that `fn` does not have, or a required one that is missing.
    """
    values = {}
    try:
        hints = typing.get_type_hints(fn.__init__ if inspect.isclass(fn) else fn)
    except NameError:  # a library's annotations may name types that exist only for type checkers
        hints = {}
    parameters = dict(inspect.signature(fn).parameters)
    # Flax modules have these two fields beside their own.
    for field in {"parent", "name"} - set(kwargs) if "parent" in parameters else ():
        parameters.pop(field, None)
    unknown = sorted(set(kwargs) - set(parameters))
    if unknown:
        raise TypeError(
            f"{fn.__qualname__} has no argument {unknown[0]!r}; it has {', '.join(parameters)}"
        )
    for name, parameter in parameters.items():
        value = kwargs.get(name, parameter.default)
        if value is inspect.Parameter.empty:
            raise TypeError(f"{fn.__qualname__} needs the argument {name!r}")
        if "factory" in type(value).__name__.lower():
            continue
        values[name] = placeholder_of(hints.get(name)) if value is None else value
    return ml_collections.ConfigDict({"fn": fn, **values})


def placeholder_of(hint: typing.Any) -> config_dict.FieldReference:
    """A None that the command line can set to a value of the type in the annotation `T | None`."""
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    known = (bool, int, float, str, tuple)
    return config_dict.placeholder(next((t for t in known if options and options[0] is t), object))


def derived(fn, *references: config_dict.FieldReference) -> config_dict.FieldReference:
    """A reference to `fn(*values)` of other references, for a field that follows several;
    it can be overridden. Values may be None.
    """

    def apply(_, *boxed):
        return fn(*(reference.get() for (reference,) in boxed))

    # In tuples, because ml_collections applies no operation to a reference to None.
    boxed = [(reference,) for reference in references]
    operation = types.SimpleNamespace(fn=apply, args=boxed)
    return config_dict.FieldReference(apply(None, *boxed), op=operation)


def build(value, key: str = ""):
    """Turns a config into what it describes: inner specs first, then the call of `fn`.

    Args:
        value: A spec, a dict of them, or any other value, which is given back.
        key: Key of the value in the config, for messages.

    Raises:
        UserError: A number out of its range, named by its key.
    """
    if not isinstance(value, (ml_collections.ConfigDict, ml_collections.FrozenConfigDict)):
        return value
    at = f"{key}." if key else ""
    built = {name: build(value[name], at + name) for name in value}
    fn = built.pop("fn", None)
    try:
        return fn(**built) if fn else built
    except ranges.RangeError as error:
        if error.argument not in built:  # of something that `fn` calls
            raise
        raise UserError(f"--config.{at}{error.argument}{error.reason}") from error


def parse_arg(arg: str | None, **defaults) -> types.SimpleNamespace:
    """Parses what follows the colon of `--config=experiments/x.py:variant=small,fake`.

    Args:
        arg: Comma-separated `key=value`, or `key` alone for a boolean; None for all defaults.
        **defaults: The known keys. A tuple of strings lists the choices, the first one is the
            default; otherwise the type of the default decides how a value is read.

    Raises:
        UserError: An unknown key or value, with the nearest one.
    """
    if isinstance(arg, _Question):
        raise _Answer(defaults)
    result = {
        key: value[0] if isinstance(value, tuple) else value for key, value in defaults.items()
    }
    seen = set()
    for item in filter(None, (arg or "").split(",")):
        key, given, text = item.partition("=")
        if key not in defaults:
            hint = _meant(key, defaults) or ";"
            raise UserError(f"unknown config argument {key!r}{hint} --config=FILE:help lists them")
        if key in seen:
            raise UserError(f"config argument {key!r} is given twice")
        seen.add(key)
        default = defaults[key]
        if isinstance(default, tuple):
            if text not in default:
                options = ", ".join(filter(None, default))
                raise UserError(
                    f"config argument {key}={text!r} is not one of "
                    f"{options}{did_you_mean(text, default)}"
                )
            result[key] = text
        elif isinstance(default, bool):
            if given and text not in ("true", "false", "True", "False", "0", "1"):
                raise UserError(f"config argument {key}={text!r} is neither true nor false")
            result[key] = not given or text in ("true", "True", "1")
        else:
            try:
                result[key] = type(default)(text)
            except ValueError:
                raise UserError(
                    f"config argument {key}={text!r} is not of type {type(default).__name__}"
                ) from None
    return types.SimpleNamespace(**result)


def _meant(key: str, defaults: dict) -> str:
    """A suggestion for an unknown key, which may be the choice of a known one."""
    for name, default in defaults.items():
        if key and isinstance(default, tuple) and key in default:
            return f"; did you mean {name}={key}?"
    return did_you_mean(key, defaults)


def load(path: str) -> ml_collections.ConfigDict:
    """The config of an experiment file, given as `file.py` or `file.py:argument`.

    Raises:
        UserError: No such file, none that defines get_config(arg),
            or an argument that it does not take.
    """
    file, _, arg = path.partition(":")
    config = _get_config(module(file), file)(arg or None)
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(
            f"{file!r} is not an experiment: its get_config returns a "
            f"{type(config).__name__}; {LAUNCH}"
        )
    _separate(config, set(), [])
    return config


def _separate(config: ml_collections.ConfigDict, seen: set, references: list) -> None:
    """Gives each key a reference of its own.

    An expression that an experiment file uses for several keys is one reference, so that a flag for
    one of the keys would set all of them.
    """
    if id(config) in seen:
        return
    seen.add(id(config))
    for key, value in list(config.items(preserve_field_references=True)):
        if isinstance(value, config_dict.FieldReference):
            if any(value is other for other in references):
                with config.unlocked():
                    del config[key]
                    config[key] = copy.copy(value)
            references.append(value)
        if isinstance(config[key], ml_collections.ConfigDict):
            _separate(config[key], seen, references)


def describe_arguments(path: str) -> str | None:
    """Describes an experiment file and its arguments, asked for as `file.py:help`.

    The text is that of the file's docstring and of its call of `parse_arg`.

    Returns:
        Several lines of text; None for a path that does not ask, or if the file has an argument of
        its own called help.

    Raises:
        UserError: No such file, or none that defines get_config(arg).
    """
    file, _, arg = path.partition(":")
    if "help" not in arg.split(","):
        return None
    experiment = module(file)
    lines = [inspect.cleandoc(experiment.__doc__ or file).partition("\n\n")[0], ""]
    try:
        _get_config(experiment, file)(_Question("help"))
    except _Answer as answer:
        if "help" in answer.defaults:
            return None
        if answer.defaults:
            lines += [
                f"Arguments, joined by commas: --config={file}:KEY=VALUE,KEY=VALUE",
                *_rows(answer.defaults),
            ]
        else:
            lines += [f"{file} takes no arguments."]
    else:
        lines += [f"{file} takes no arguments."]
    return "\n".join(lines)


class _Question(str):
    """The argument of a file that is asked which arguments it takes."""


class _Answer(Exception):
    """Ends the get_config of such a file with what it gave to `parse_arg`."""

    def __init__(self, defaults: dict):
        super().__init__()
        self.defaults = defaults


def _rows(defaults: dict) -> list[str]:
    """A line for each argument: its key, the values that it takes, its default."""
    rows = []
    for key, default in defaults.items():
        if isinstance(default, tuple):
            values, default = " | ".join(filter(None, default)), default[0]
        elif isinstance(default, bool):
            values, default = "true | false", str(default).lower()
        else:
            values = type(default).__name__
        shown = "none" if default == "" else default
        rows.append((key, f"{values}  (default: {shown})"))
    width = max((len(key) for key, _ in rows), default=0)
    return [f"  {key:<{width}}  {text}" for key, text in rows]


def _get_config(experiment: types.ModuleType, file: str) -> Callable:
    get_config = getattr(experiment, "get_config", None)
    if not callable(get_config) or not inspect.signature(get_config).parameters:
        raise UserError(
            f"{file!r} is not an experiment: it does not define get_config(arg); {LAUNCH}"
        )
    return get_config


def module(file: str) -> types.ModuleType:
    """An experiment file, imported.

    Raises:
        UserError: No such file, none of Python, or an import from a folder experiments/
            that is not there.
    """
    path = pathlib.Path(file)
    if path.is_dir():
        raise UserError(f"{file!r} is a folder, not an experiment file; {LAUNCH}")
    if not path.is_file():
        raise UserError(f"no experiment file {file!r}{_nearest_file(path)}; {LAUNCH}")
    if path.suffix != ".py":
        raise UserError(f"{file!r} is not an experiment, which is a Python file; {LAUNCH}")
    _import_folder(path.resolve())
    module_spec = importlib.util.spec_from_file_location("experiment_" + path.stem, path)
    experiment = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(experiment)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "experiments":
            raise
        enough = (
            ", or set PYTHONPATH to the repository if it imports nothing but experiments.common"
        )
        raise UserError(
            f"{file!r} imports {error.name}, which is not there: keep the file inside the folder "
            f"experiments/ of the repository{enough if error.name == 'experiments' else ''}"
        ) from error
    except SyntaxError as error:
        if error.filename not in (None, module_spec.origin):  # of what it imports
            raise
        line = f", line {error.lineno}" if error.lineno else ""
        raise UserError(f"{file!r}{line} is not Python: {error.msg}; {LAUNCH}") from error
    return experiment


def refuse_as_script() -> typing.NoReturn:
    """Ends `python experiments/X.py` with the command that runs X, and status 2."""
    file = shlex.quote(sys.argv[0])
    say(f"error: {file} is not a script: python -m swin_jax.launch --config={file} --workdir=DIR")
    sys.exit(2)


def _nearest_file(path: pathlib.Path) -> str:
    """The experiment of the nearest name in the folder of a path or one level below,
    as a question.
    """
    known = {}
    for file in [*path.parent.glob("*.py"), *path.parent.glob("*/*.py")]:
        with contextlib.suppress(OSError):  # a dangling link, another user's file
            if "def get_config(" in file.read_text("utf-8", "ignore"):
                known[file.name] = str(file)
    near = nearest(path.name, known, cutoff=0.6)
    return f"; did you mean {known[near]!r}?" if near else ""


def _import_folder(path: pathlib.Path) -> None:
    """Makes the folder `experiments` around a file the package of that name,
    for the imports in the file.

    That holds in any working directory, and wins over an installed package. Worker processes, which
    start without it, get the functions of the package by value.
    """
    folder = next((str(parent) for parent in path.parents if parent.name == "experiments"), None)
    if folder is None or list(getattr(sys.modules.get("experiments"), "__path__", ())) == [folder]:
        return
    for name in [name for name in sys.modules if name.partition(".")[0] == "experiments"]:
        del sys.modules[name]
    package_spec = importlib.machinery.ModuleSpec("experiments", None, is_package=True)
    package_spec.submodule_search_locations = [folder]
    sys.modules["experiments"] = importlib.util.module_from_spec(package_spec)
    cloudpickle.register_pickle_by_value(sys.modules["experiments"])


def check_computed_from(config) -> None:
    """Raises UserError for a number out of its range from which an
    experiment file computes others.
    """
    for key in _COMPUTED_FROM:
        if isinstance(value := config.get(key), (int, float, tuple)):
            ranges.check_settings({key: value}, _COMPUTED_FROM)


def key_values(config) -> list[str]:
    """The resolved config as sorted lines `key = value`, as the launcher takes --config.key=value.

    Callables, which it does not take, are shown by their public names.
    """
    lines = []
    for key in sorted(config):
        value = config[key]
        if isinstance(value, (ml_collections.ConfigDict, dict)) and value:
            lines += [f"{key}.{line}" for line in key_values(value)]
        elif callable(value):
            lines.append(f"{key} = {name_of(value)}")
        else:
            lines.append(f"{key} = {value}")
    return sorted(lines)


def flatten(config) -> dict:
    """{dotted key: value} of all leaves; callables by their public names, tuples as lists,
    so that it survives JSON.
    """
    leaves = {}
    for key in sorted(config):
        value = config[key]
        if isinstance(value, (ml_collections.ConfigDict, dict)):
            leaves |= {f"{key}.{inner}": leaf for inner, leaf in flatten(value).items()}
        elif callable(value):
            leaves[key] = name_of(value)
        else:
            leaves[key] = json.loads(json.dumps(value))
    return leaves
