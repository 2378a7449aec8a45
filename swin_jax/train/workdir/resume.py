"""The rules for what a resumed run may change:
its resolved config is saved, and compared when the run resumes.
"""

import hashlib
import inspect
import json
import os
import re
import typing

import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from swin_jax.core import storage
from swin_jax.core.config import flatten
from swin_jax.core.errors import UnreadableError, UserError, did_you_mean, warn
from swin_jax.core.output.text import quoted
from swin_jax.core.public_names import BEFORE, current_names, find, is_unknown, nearest_name
from swin_jax.core.saved_config import OF_MEMORY
from swin_jax.train import checkpoint
from swin_jax.train.logs import read_metrics

# Keys that a resumed run may change: lengths, intervals, mesh, workers, paths and all that
# only looks at the run. What follows `conversion` is compared itself, and frozen weights
# are by their checksum.
FREE = re.compile(
    r"^(topology|mesh|partition(?!\.gather)|evals|predict|predict_method|edit|invert|logs|init_from"
    r"|checkpoint|conversion|generator|clip|arcface|e4e|vgg16|lpips|classifier|mapper|statistics)\b"
    r"|(^|\.)(total_steps|epochs|num_workers|num_threads|prefetch|data_dir|root|path|in_memory"
    r"|max_bad_records|palette|source\.check|\w+_every)$"
    rf"|{OF_MEMORY.pattern}"
)

_DAMAGE = (UnreadableError, UserError, OSError, EOFError)
_NAMED, _LOOKED_UP = 10_000, 100  # records whose names, and whose images' paths, are compared
# Keys of an evaluation that its results do not follow.
_OF_LOADING = re.compile(
    rf"\.(every|batch_size|num_workers|num_threads|prefetch|in_memory|check)$|{OF_MEMORY.pattern}"
)


def check_key(config, key: str) -> None:
    """Raises UserError, with the nearest one, for what is neither a dotted key nor
    the beginning of one.
    """
    known = flatten(config)
    if not any(leaf == key or leaf.startswith(key + ".") for leaf in known):
        raise UserError(
            f"--allow_change={key} is not a key of the config{did_you_mean(key, known)}"
        )


def used_changes(config, saved: dict) -> str:
    """Tells in one line which keys that predictions depend on have another value in a saved config.

    These are the keys of the task, without its optimizer and those of FREE, and of how pictures
    are prepared.

    Args:
        config: The config of this command.
        saved: A flat config, {dotted key: value}.

    Returns:
        Up to three changes and the number of the others; '' where there are none.
    """
    new, old = _by_function(flatten(config)), _by_function(current_names(saved))
    changes = [
        f"{key}: {quoted(old[key])} -> {quoted(new[key])}"
        for key in sorted(new.keys() & old.keys())
        if old[key] != new[key] and _is_used(key)
    ]
    more = f"; and {len(changes) - 3} more" if len(changes) > 3 else ""
    return "; ".join(changes[:3]) + more


def evaluation_changes(config, workdir: epath.Path) -> list[str]:
    """One line for each key that evaluations depend on and that has another value than in the
    config saved in a workdir, if there is one. Nothing is refused.
    """
    try:
        saved = _saved(workdir)
    except UserError as error:
        return [f"not known, {error}"]
    new = _by_function(flatten(config))
    old = _by_function(_with_new_arguments(saved, new))
    return [
        _difference(key, old, new)
        for key in sorted(new.keys() & old.keys())
        if old[key] != new[key] and (_is_used(key) or _is_measured(key))
    ]


def _by_function(config: dict) -> dict:
    """A flat config in which attention 'auto', which is a fused kernel on TPUs, goes by the form
    that it computes the same as.
    """
    found = dict(config)
    for key, value in config.items():
        if key.endswith(".attention") and isinstance(value, list):
            found[key] = ["xla" if name == "auto" else name for name in value]
    return found


def _is_measured(key: str) -> bool:
    return key.startswith("evals.") and not _OF_LOADING.search(key)


def _is_used(key: str) -> bool:
    of_task = key.startswith("task.") and not key.startswith("task.tx.") and not FREE.search(key)
    return of_task or key.startswith("predict.transform.")


def save(config, workdir: epath.Path) -> None:
    """Writes the resolved config, as a flat JSON object of dotted keys."""
    storage.write(workdir / "config.json", json.dumps(flatten(config), indent=1) + "\n")


def _with_new_arguments(old: dict, new: dict) -> dict:
    """A saved flat config and the arguments that its callables have got since,
    with what they stood for.
    """
    defaults = {}
    for key in new.keys() - old.keys():
        inside, _, argument = key.rpartition(".")
        fn = old.get(f"{inside}.fn" if inside else "fn")
        if (
            fn is None
            or fn != new.get(f"{inside}.fn" if inside else "fn")
            or not callable(find(fn))
        ):
            continue
        if (fn, argument) in BEFORE:
            defaults[key] = BEFORE[fn, argument]
            continue
        parameter = inspect.signature(find(fn)).parameters.get(argument)
        if parameter is not None and parameter.default is not inspect.Parameter.empty:
            defaults |= flatten({key: parameter.default}) if _is_plain(parameter.default) else {}
    return old | defaults


def _is_plain(value: typing.Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, tuple, list))


def check_resume(config, workdir: epath.Path, allow_change: typing.Sequence[str] = ()) -> list[str]:
    """Compares a config with the one saved in a workdir;
    a new argument stood for its default, or `BEFORE`.

    Args:
        config: Config of this run.
        workdir: Workdir, which may hold `config.json` of the run that is resumed; without it, that
            of its newest checkpoint counts.
        allow_change: Dotted keys, or their beginnings,
            that may change although the result depends on them.

    Returns:
        One line per difference.

    Raises:
        UserError: A difference that is not allowed.
    """
    saved, new = _saved(workdir), flatten(config)
    if not saved:
        return []
    old, new = _by_function(_with_new_arguments(saved, new)), _by_function(new)
    lines, refused = [], []
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            lines.append(_difference(key, old, new))
            if is_unknown(old.get(key)):
                lines[-1] += f" (the saved name is unknown{nearest_name(old[key])})"
            if not FREE.search(key) and not any(
                key == k or key.startswith(k + ".") for k in allow_change
            ):
                refused.append((key, lines[-1]))
    if len(refused) > 5:
        more = f"{'; '.join(line for _, line in refused[:5])}; and {len(refused) - 5} more"
        raise UserError(
            f"{workdir} was trained with another config: {more}. Give another --workdir"
        )
    if refused:
        keys = " ".join(f"--allow_change={quoted(key)}" for key, _ in refused)
        changes = "; ".join(line for _, line in refused)
        raise UserError(
            f"{workdir} was trained with another config: {changes}. To resume anyway: {keys}"
        )
    return lines


def fingerprint(data: typing.Any) -> dict[str, typing.Any]:
    """A checksum of the records of a run, by which a resumed run is known to have the same.

    It depends on the order and the names of records, from where the first two of them differ: a
    folder may be moved. Where records tell the paths of their images, as lines of a list do, these
    count, too. Of large sets it takes records at equal distances.

    Args:
        data: Training data. It has a fingerprint if it has a `source` of `data.pipeline`.

    Returns:
        {'number' of records, 'sha256'}, or {}.
    """
    source = getattr(data, "source", None)
    if not hasattr(source, "record_name"):
        return {}
    number = len(source)
    digest = hashlib.sha256(str(number).encode())
    for read, most in ((_name, _NAMED), (_image_path, _LOOKED_UP)):
        column = [read(source, i) for i in range(0, number, max(-(-number // most), 1))]
        start = len(os.path.commonprefix(column))
        text = "\n".join(value[start:] for value in column)
        digest.update(b"\0" + text.encode("utf-8", "backslashreplace"))
    return {"number": number, "sha256": digest.hexdigest()}


def _name(source: typing.Any, index: int) -> str:
    """The name of a record; '' where it is damaged and names itself by what it holds."""
    # As in messages, so that other words there would make earlier runs ask for --allow_change.
    try:
        return source.record_name(index)
    except _DAMAGE:
        return ""


def _image_path(source: typing.Any, index: int) -> str:
    """The path of the image of a pair; '' where the record does not tell it."""
    try:
        return str(source.record(index).get("image_path", "")) if hasattr(source, "record") else ""
    except _DAMAGE:
        return ""


def check_records(
    data: typing.Any, workdir: epath.Path, trains: bool, allow_change: typing.Sequence[str] = ()
) -> None:
    """Compares the training data of a run with that of its newest checkpoint.

    Args:
        data: Training data.
        workdir: Workdir. Nothing is compared where its checkpoint is older than fingerprints.
        trains: True for a run that trains. One that only evaluates may have any data; it is warned
            of as many records under other names.
        allow_change: The same as in `check_resume`.

    Raises:
        UserError: Other records.
    """
    old, new = checkpoint.saved_records(workdir), fingerprint(data)
    if not (old and new) or old.get("sha256") == new["sha256"]:
        return
    text = (
        f"the {new['number']} training records are not those that {workdir} was trained on: names "
        f"or order differ from the {old.get('number')} of then. What is held back by name to "
        "measure with may have been trained on"
    )
    if not trains:
        if old.get("number") == new["number"]:
            warn(text)
        return
    if any(
        key in ("data", "num_train") or f"{key}.".startswith("data.source.") for key in allow_change
    ):
        return
    raise UserError(
        f"{text}. Give the records their old names, or another --workdir; to resume anyway: "
        "--allow_change=data.source"
    )


def kept(data: typing.Any, facts: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """Meta data that later runs are compared with: the `fingerprint` as `records`, and `frozen` of
    the header if it is there.
    """
    return {"records": fingerprint(data)} | {key: facts[key] for key in ("frozen",) if key in facts}


def _saved(workdir: epath.Path) -> dict:
    """The flat config that a workdir holds, {} for none. Checkpoints hold a copy, so that the lack
    of the file permits nothing.
    """
    path = workdir / "config.json"
    if path.exists():
        return current_names(storage.read_object(path))
    return checkpoint.saved_config(workdir)


def _difference(key: str, old: dict, new: dict) -> str:
    return f"{quoted(key)}: {quoted(old.get(key))} -> {quoted(new.get(key))}"


def evaluated(workdir: epath.Path, step: int, names: typing.Sequence[str]) -> set[str]:
    """The evaluations of a step that are in the log; the same on all processes.

    Args:
        workdir: Workdir of the run.
        step: Step of the state.
        names: Names of the evaluations in the log.
    """
    lines = [line for line in read_metrics(workdir) if line["step"] == step]
    found = {key.split("/")[1] for line in lines for key in line if key.startswith("eval/")}
    if not names:
        return set()
    # Process 0 writes them.
    there = multihost_utils.broadcast_one_to_all(np.array([x in found for x in names], np.int32))
    return {name for name, is_there in zip(names, there) if is_there}
