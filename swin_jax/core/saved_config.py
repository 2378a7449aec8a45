"""The config of a saved run, rebuilt from its config.json, without the experiment file.

The file may come from anywhere. So its only functions are those that build models, tasks and data,
under their public names. References between keys are not saved: every key has the value it had.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from swin_jax.core import storage
from swin_jax.core.config import placeholder_of, spec
from swin_jax.core.errors import UserError
from swin_jax.core.public_names import BEFORE, current_names, find, name_of, nearest_name

FILE = "config.json"
# Keys of a model that change how it is stored and computed, and not what.
OF_MEMORY = re.compile(r"(^|\.)(model|encoder)\.(scan|remat|attention)$")
# What the functions of a config may be: those that build and read, none that write or download.
_ROOMS = re.compile(
    r"swin_jax\.(models|ops|optim|tasks|evals\.prompts|train\.(init_from|sharding)"
    r"|pretrained\.styleclip\.latents"
    r"|data(?!\.(builders|workers|file_scan|\w+\.scan|segmentation\.checking|video\.encode)\b))"
    r"\.[\w.]+"
    r"|swin_jax\.evals\.[\w.]+\.[A-Z]\w*"
    r"|swin_jax\.inference\.editing\.[\w.]+\.[A-Z]\w*"
    r"|swin_jax\.pretrained\.[\w.]+\.\w*pretrained"
)
_EXPERIMENT = re.compile(r"experiment(s\.|_)[\w.]+")
_NEEDED = ("task.fn", "partition.fn", "init_from.fn", "total_steps", "mesh.data")
# Keys of the first level that are read where a run is used; from all others some were computed.
_READ = ("truncation", "edit_batch_size", "total_steps", "max_bad_records")


def read(workdir: str) -> ml_collections.ConfigDict:
    """Rebuilds the config of a run.

    Args:
        workdir: The run's, in a bucket too.

    Returns:
        The config, as its experiment file gave it, with plain values in the place of references. A
        function of an experiment file raises UserError when it is called.

    Raises:
        UserError: No config.json, a damaged one, or one that names a function that is not of this
            package or that this version does not have.
    """
    path = storage.path(workdir) / FILE
    try:
        is_there = path.is_file()
    except OSError as error:  # in a folder of another user
        raise UserError(f"{path} cannot be read: {storage.reason(error)}") from error
    if not is_there:
        raise UserError(
            f"{path} does not exist: give the workdir of a trained run, or --config=FILE.py[:args]"
        )
    saved = current_names(storage.read_object(path))
    missing = [key for key in _NEEDED if key not in saved]
    if missing:
        raise UserError(f"{path} has no {missing[0]}; give --config=FILE.py[:args]")
    return rebuild(saved, str(path))


def rebuild(saved: Mapping[str, Any], source: str) -> ml_collections.ConfigDict:
    """The config whose `core.config.flatten` is `saved`, {dotted key: value}; see `read`.

    Args:
        saved: The saved config, with the names of today.
        source: File or folder that it was read from, for messages.
    """
    tree: dict[str, Any] = {}
    for key, value in saved.items():
        *parts, last = key.split(".")
        inner = tree
        for part in parts:
            inner = inner.setdefault(part, {}) if isinstance(inner, dict) else None
        if (
            not isinstance(inner, dict)
            or last in inner
            or not all(map(str.isidentifier, (*parts, last)))
            or isinstance(value, dict)
        ):
            raise UserError(f"{source} is damaged at {ascii(key)}; give --config=FILE.py[:args]")
        inner[last] = _value(value, key, source)
    return _config(tree, "", source)


def _value(value: Any, key: str, source: str) -> Any:
    """A leaf: a function for its name, tuples for lists."""
    if key.rpartition(".")[2] == "fn" or (isinstance(value, str) and _ROOMS.fullmatch(value)):
        return _function(value, key, source)
    return tuples(value)


def tuples(value: Any) -> Any:
    """A value that went through JSON, with tuples for its lists."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def _function(name: Any, key: str, source: str) -> Callable:
    """The function of a name, if that is one that a config may call."""
    if isinstance(name, str) and _EXPERIMENT.fullmatch(name):
        return _elsewhere(name, key, source)
    if not isinstance(name, str) or not _ROOMS.fullmatch(name) or "._" in name:
        raise UserError(
            f"{source}: {key} is {ascii(name)}, which is not a function that a config of this "
            "package calls; give --config=FILE.py[:args]"
        )
    found = find(name)
    if found is None:
        raise UserError(
            f"{source}: {key} is {name}, which this version does not have{nearest_name(name)}"
        )
    # A name may lead through a module to what that imports.
    if not callable(found) or name_of(found) != name:
        raise UserError(f"{source}: {key} is {name}, which is not the public name of a function")
    return found


def _elsewhere(name: str, key: str, source: str) -> Callable:
    """Stands for a function of an experiment file."""

    def missing(**_):
        raise UserError(
            f"{source}: {key} is {name}, which is a function of an experiment file; give that "
            "file, --config=FILE.py[:args]"
        )

    missing.__module__, _, missing.__qualname__ = name.rpartition(".")
    return missing


def _config(tree: Mapping[str, Any], prefix: str, source: str) -> ml_collections.ConfigDict:
    values = {
        key: _config(value, f"{prefix}{key}.", source) if isinstance(value, dict) else value
        for key, value in tree.items()
    }
    fn = values.pop("fn", None)
    if fn is None or name_of(fn).startswith("experiment"):
        values = {key: placeholder_of(None) if v is None else v for key, v in values.items()}
        return ml_collections.ConfigDict(values if fn is None else {"fn": fn, **values})
    parameters = inspect.signature(fn).parameters
    before = {
        argument: value
        for (name, argument), value in BEFORE.items()
        if name == name_of(fn) and argument in parameters
    }
    try:
        return spec(fn, **before | values)
    except TypeError as error:  # an argument that is no more, or a new one without a default
        where = prefix.rstrip(".")
        raise UserError(f"{source}: {where}: {error}; give --config=FILE.py[:args]") from error


def check_overrides(
    config: ml_collections.ConfigDict, arguments: Sequence[str], read: Sequence[str] = ()
) -> None:
    """Checks that flags change what is used, and not only what others were computed from.

    Args:
        config: The config of a run, see `read`.
        arguments: The command line.
        read: Further keys of the first level that the action reads.

    Raises:
        UserError: A flag for such a key, with the keys of the same name that are used.
    """
    for argument in arguments:
        given = re.match(r"--?config\.(\w+)(?:=|$)", argument)
        if given is None or given[1] not in config or given[1] in (*_READ, *read):
            continue
        key = given[1]
        used = ", ".join(f"--config.{name}" for name in _same_name(config, key)[:3])
        raise UserError(
            f"--config.{key} changes nothing that was saved as computed from it: "
            + (f"give {used}, or " if used else "")
            + "the experiment too, --config=FILE.py[:args]"
        )


def _same_name(config: ml_collections.ConfigDict, key: str, prefix: str = "") -> list[str]:
    """The dotted keys below the first level whose last part is `key`, the least deep first."""
    found = []
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            found += _same_name(value, key, f"{prefix}{name}.")
        elif name == key and prefix:
            found.append(prefix + name)
    return sorted(found, key=lambda name: name.count("."))
