"""Checkpoints: Orbax behind open, save, restore, latest,
and `load_params` for those who only want the model.

A checkpoint is a folder `checkpoints/<step>` that is whole or absent: `params`, `ema`
(if there is one), `rest` (step, optimizer state, mutable collections) and `meta` (JSON).
`checksums.json` holds a CRC-32 of every file in them, because the arrays' files have none of their
own: a flipped bit would be restored as it is. `meta` says that there is one. A bucket checks its
objects itself; there a checkpoint is whole once it has a `commit_success.txt`.
"""

import functools
import logging
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.core.public_names import current_names
from swin_jax.tasks.base import TrainState
from swin_jax.train.checkpoints import noise
from swin_jax.train.checkpoints.integrity import (
    SEALED,
    DamagedError,
    check_file,
    check_whole,
    is_damage,
    is_passed,
    newest_first,
    read_together,
    steps_in,
    unreadable,
    write_checksums,
)
from swin_jax.train.checkpoints.layout import (
    other_model,
    parts_of,
    read_numpy,
    refuse_layers,
    restack,
    saved_shapes,
    shapes_of,
    stacked_as,
)

_COMMITTED = "commit_success.txt"  # Orbax' mark in a bucket
_NOTES = "_CHECKPOINT_METADATA"  # Orbax' times and kinds of a checkpoint


def open(workdir: os.PathLike, keep: int = 2, write: bool = True) -> ocp.CheckpointManager:
    """The checkpoints of a workdir; saving is asynchronous, the newest `keep` are kept.

    Temporary files of interrupted saves are removed, unless `write` is False:
    another process may be saving there.

    Raises:
        UserError: What Orbax notes of a checkpoint is damaged.
    """
    noise.hush()
    # Called when all files of a save are written and its folder has not got its final name yet.
    seal = (
        None if storage.is_remote(workdir) else functools.partial(write_checksums, folder(workdir))
    )
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        cleanup_tmp_directories=write and jax.process_index() == 0,
        enable_async_checkpointing=True,
        async_options=ocp.AsyncOptions(post_finalization_callback=seal),
    )
    directory = folder(workdir)
    steps = steps_in(directory)
    try:
        for step in steps:
            check_file(directory / str(step) / _NOTES)
        return ocp.CheckpointManager(storage.LiteralPath(directory), options=options)
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        said = f"a file {directory}/STEP/{_NOTES} is damaged ({storage.first_line(error)})"
        raise UserError(f"{said}: remove it, checkpoints are read without it") from error
    except (FileNotFoundError, NotADirectoryError):
        if write or steps_in(directory) == steps:
            raise
        # A run at work has removed one while Orbax listed them.
        return open(workdir, keep, write)


def folder(workdir: os.PathLike) -> epath.Path:
    """The folder of a workdir's checkpoints."""
    return storage.absolute(workdir) / "checkpoints"


def exists(workdir: os.PathLike) -> bool:
    """True if a workdir holds a checkpoint, whole or damaged;
    a run that died early leaves an empty folder.
    """
    return bool(steps_in(folder(workdir)))


def _checked_shapes(path: epath.Path) -> dict[str, tuple[int, ...]]:
    """The shapes in a checkpoint, of whose files each process checks a part."""
    check_whole(path, jax.process_index(), jax.process_count())
    return saved_shapes(path)


def _read(path: epath.Path, layout: TrainState) -> dict[str, Any]:
    """The parts of a checkpoint. Not by the manager,
    whose collective at the end never ends where a process fails.
    """
    path, handler = storage.LiteralPath(path), ocp.StandardCheckpointHandler()
    parts = {
        name: handler.restore(path / name, args=ocp.args.StandardRestore(tree))
        for name, tree in parts_of(layout).items()
    }
    return parts | {"meta": _current_meta(ocp.JsonCheckpointHandler().restore(path / "meta"))}


def class_names(workdir: os.PathLike) -> tuple[str, ...]:
    """The class names that the newest checkpoint of a workdir was saved with, in label order;
    () where it has none.
    """
    return tuple(_newest_meta(workdir).get("class_names") or ())


def saved_config(workdir: os.PathLike) -> dict[str, Any]:
    """The flat config, with the names of today, that the newest checkpoint was saved with;
    {} where it has none.
    """
    return _newest_meta(workdir).get("config") or {}


def saved_records(workdir: os.PathLike) -> dict[str, Any]:
    """The fingerprint, by `workdir.resume`, of the training data that the newest checkpoint was
    saved with; {} where there is none, or an older one.
    """
    found = _newest_meta(workdir).get("records")
    return found if isinstance(found, dict) else {}


def _newest_meta(workdir: os.PathLike) -> dict[str, Any]:
    """The meta data of the newest checkpoint whose meta data can be read,
    {} where there is none.
    """
    for path in newest_first(folder(workdir)):
        try:
            check_file(path / "meta" / "metadata")
            return _current_meta(ocp.JsonCheckpointHandler().restore(path / "meta"))
        except Exception:  # noqa: S112 (a damaged one, which `restore` tells of)
            continue
    return {}


def check_layers(workdir: os.PathLike, config: Mapping[str, Any]) -> None:
    """Raises UserError where a flat config is of a model of more layers than the newest
    checkpoint of a workdir has parameters; see `layout.refuse_layers`.
    """
    for path in newest_first(folder(workdir)):
        try:
            return refuse_layers(path, config)
        except UserError:
            raise
        except Exception:  # noqa: S112 (a damaged one, which `restore` tells of)
            continue


def latest(manager: ocp.CheckpointManager) -> int | None:
    """The newest step that was saved whole, or None."""
    return manager.latest_step()


def save(
    manager: ocp.CheckpointManager, state: TrainState, step: int, meta: dict, wait: bool = False
) -> None:
    """Saves a state, in the background unless `wait`.

    Raises:
        UserError: This or the previous save failed, a full disk for example.
            Earlier checkpoints are intact.
    """
    parts = parts_of(state)
    arguments = {name: ocp.args.StandardSave(tree) for name, tree in parts.items()}
    if not storage.is_remote(manager.directory):
        meta = meta | {SEALED: True}
    try:
        saves = manager.save(
            step, args=ocp.args.Composite(**arguments, meta=ocp.args.JsonSave(meta))
        )
        if wait:
            manager.wait_until_finished()
    except Exception as error:  # Orbax passes on whatever the storage raised.
        raise _failed(manager, error) from error
    if saves is False:
        later = f"there is one of step {manager.latest_step()} in {manager.directory}"
        raise UserError(f"the checkpoint of step {step} is not saved: {later}; move that one away")


def finish(manager: ocp.CheckpointManager) -> None:
    """Waits for saves in the background; raises UserError if one failed."""
    try:
        manager.wait_until_finished()
    except Exception as error:
        raise _failed(manager, error) from error


def _failed(manager: ocp.CheckpointManager, error: Exception) -> UserError:
    manager.reload()
    kept = manager.latest_step()
    if kept is not None:
        intact = f"the checkpoint of step {kept} is intact"
    else:
        intact = "no checkpoint was written before"
    # At the end of a long text of TensorStore's.
    number = re.search(r"os_error_code='(\d+)'", str(error))
    why = os.strerror(int(number[1])) if number else storage.first_line(error)
    return UserError(f"could not save a checkpoint in {manager.directory}: {why}; {intact}")


def restore(
    manager: ocp.CheckpointManager,
    abstract: TrainState,
    warn: Callable[[str], None],
    write: bool = True,
) -> tuple[TrainState, dict] | None:
    """The newest checkpoint that can be read, laid out as asked.

    Args:
        manager: Manager from `open`.
        abstract: A TrainState of jax.ShapeDtypeStruct with shardings.
        warn: A function that is called with a line for each damaged checkpoint.
        write: True to move such a folder to `damaged_checkpoints`; otherwise it stays where it is.

    Returns:
        (state, meta), or None where there is no checkpoint.

    Raises:
        UserError: All are damaged or hold a model of other shapes, or the newest cannot be read
            (memory, permissions, network) and stays where it is.
    """
    steps: list[int] = []
    wanted = shapes_of(abstract)
    listed = (
        manager.all_steps if write else functools.partial(steps_in, storage.path(manager.directory))
    )
    while left := [step for step in listed() if step not in steps]:
        steps.append(max(left))
        path = storage.path(manager.directory) / str(steps[-1])
        try:
            saved = read_together(_checked_shapes, path)
            layout = abstract if saved == wanted else stacked_as(saved, abstract)
            if layout is None:
                raise other_model(path, saved, wanted)
            found = read_together(_read, path, layout)
        except (DamagedError, UserError) as error:
            last = str(error)
            if write or not _is_passed_on_first(path, max(steps)):
                if isinstance(error, UserError):
                    raise
                _set_aside(manager, path, last, warn, write)
            if write:
                manager.reload()
            continue
        if write and found["meta"].get("step", steps[-1]) != steps[-1]:
            raise _other_step(path, found["meta"]["step"])
        rest = found["rest"]
        ema = found["ema"] if abstract.ema is not None else None
        state = TrainState(rest["step"], found["params"], rest["opt_state"], rest["mutable"], ema)
        return (state if layout is abstract else restack(state, abstract)), found["meta"]
    if steps:
        moved = ""
        if write:
            moved = f". They are in {_damaged(manager)} now; the same command starts from scratch"
        raise UserError(
            f"none of the checkpoints in {manager.directory} (steps {sorted(steps)}) "
            f"can be read: {last}{moved}"
        )
    return None


def _damaged(manager: ocp.CheckpointManager) -> epath.Path:
    return storage.path(manager.directory).parent / "damaged_checkpoints"


def _is_passed_on_first(path: epath.Path, newest: int) -> bool:
    """The answer of `_is_passed` on process 0; call it on all processes."""
    return bool(multihost_utils.broadcast_one_to_all(np.int32(is_passed(path, newest))))


def _set_aside(
    manager, path: epath.Path, reason: str, warn: Callable[[str], None], write: bool
) -> None:
    """Tells of a damaged checkpoint, and moves it away where `write`."""
    aside = _damaged(manager) / path.name
    warn(
        f"the checkpoint of step {path.name} is damaged "
        f"({reason}){f'; it is moved to {aside}' if write else ''}"
    )
    if write:
        _move_aside(path, aside)


def _move_aside(path: epath.Path, aside: epath.Path) -> None:
    if jax.process_index() == 0:
        # In a bucket this takes time, and a kill in between must not leave half of a
        # checkpoint that looks whole.
        (path / _COMMITTED).unlink(missing_ok=True)
        storage.move(path, aside)
    multihost_utils.sync_global_devices("damaged checkpoint moved aside")


def _other_step(path: epath.Path, step: int) -> UserError:
    # Orbax saves no step below the highest number, and says nothing.
    why = "a run saves no step below the highest number"
    return UserError(f"{path} holds step {step}, and {why}: rename it to {step}, or move it away")


def load_params(workdir: os.PathLike) -> tuple[dict, dict | None, dict]:
    """The newest readable model of a workdir, on the host, whatever devices it was trained on.

    Returns:
        (params, ema or None, meta): trees of numpy arrays, and what `save` was given as meta.

    Raises:
        UserError: No checkpoint there, or none that can be read.
    """
    return _newest(workdir, _load_params)


def load_variables(workdir: os.PathLike) -> dict:
    """The variables of the newest readable model of a workdir, on the host.

    Returns:
        {'params': the average if there is one, **mutable collections such as 'batch_stats'}: trees
        of numpy arrays. Raises as `load_params`.
    """

    def load(path):
        params, ema, _ = _load_params(path)
        return {"params": params if ema is None else ema, **read_numpy(path / "rest", "mutable")}

    return _newest(workdir, load)


def _newest(workdir: os.PathLike, load: Callable[[epath.Path], Any]) -> Any:
    """The result of `load` for the newest checkpoint that it can read."""
    noise.hush()
    directory = folder(workdir)
    steps: list[int] = []
    for path in newest_first(directory):
        steps.append(int(path.name))
        try:
            check_whole(path)
            return load(path)
        except Exception as error:
            last = storage.first_line(error)
            if is_passed(path, max(steps)):
                continue
            if not is_damage(error):
                raise unreadable(path, error) from error
            logging.getLogger(__name__).warning("the checkpoint %s is damaged (%s)", path, last)
    if steps:
        raise UserError(
            f"none of the checkpoints in {directory} (steps {sorted(steps)}) can be read: {last}"
        )
    raise UserError(f"no checkpoint in {directory}")


def _load_params(path: epath.Path) -> tuple[dict, dict | None, dict]:
    path = storage.LiteralPath(path)
    ema = read_numpy(path / "ema") if (path / "ema").exists() else None
    meta = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(path / "meta")
    return read_numpy(path / "params"), ema, _current_meta(meta)


def _current_meta(meta: dict) -> dict:
    """The meta data that `save` was given; a config in it has the names of today.

    Raises:
        ValueError: It is not what `save` writes.
    """
    if not isinstance(meta, dict) or not isinstance(meta.get("config") or {}, dict):
        raise ValueError("its meta data are damaged")
    names = meta.get("class_names") or []
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ValueError("its class names are damaged")
    meta = {key: value for key, value in meta.items() if key != SEALED}
    return meta | {"config": current_names(meta["config"])} if meta.get("config") else meta
