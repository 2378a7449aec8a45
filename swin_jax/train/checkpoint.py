"""Checkpoints: Orbax behind open, save, restore, latest, and `load_params` for those who only want the model.

A checkpoint is a folder `checkpoints/<step>` that is whole or absent: `params`, `ema` (if there is one), `rest` (step,
optimizer state, mutable collections) and `meta` (JSON). `checksums.json` holds a CRC-32 of every file in them, because
the arrays' files have none of their own: a flipped bit would be restored as it is. A bucket checks its objects itself;
there a checkpoint is whole once it has a `commit_success.txt`.
"""

import functools
import json
import logging
import os
import pathlib
import re
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from swin_jax.core import stacking, storage
from swin_jax.core.errors import UserError
from swin_jax.core.params import path_name, unflatten
from swin_jax.core.public_names import current_names
from swin_jax.tasks.base import TrainState

_LISTED = 8  # arrays that a message names at most
_CHECKSUMS = "checksums.json"
_COMMITTED = "commit_success.txt"  # Orbax' mark in a bucket
# What reading raises of files that are missing or not what was saved. Memory, rights and networks raise other types, or
# a ValueError of TensorStore's with one of these words or with the number of an error other than ENOENT.
_DAMAGE = ValueError, TypeError, LookupError, AttributeError, EOFError, FileNotFoundError, NotADirectoryError
_PASSING = re.compile(
    r"\b(UNAVAILABLE|RESOURCE_EXHAUSTED|PERMISSION_DENIED|UNAUTHENTICATED|DEADLINE_EXCEEDED|ABORTED|CANCELLED|INTERNAL|"
    r"UNKNOWN)\b|os_error_code='(?!2')"
)


def open(workdir: os.PathLike, keep: int = 2, write: bool = True) -> ocp.CheckpointManager:  # noqa: A001 (the four functions' names)
    """The checkpoints of a workdir; saving is asynchronous, the newest `keep` are kept.

    Debris of saves that were cut off is removed, unless `write` is False: another process may be saving there.
    """
    # Called when all files of a save are written and its folder has not got its final name yet.
    seal = None if storage.is_remote(workdir) else functools.partial(_write_checksums, folder(workdir))
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        cleanup_tmp_directories=write and jax.process_index() == 0,
        enable_async_checkpointing=True,
        async_options=ocp.AsyncOptions(post_finalization_callback=seal),
    )
    return ocp.CheckpointManager(folder(workdir), options=options)


def folder(workdir: os.PathLike) -> epath.Path:
    """Where the checkpoints of a workdir lie."""
    return storage.absolute(workdir) / "checkpoints"


def exists(workdir: os.PathLike) -> bool:
    """Whether a workdir holds a checkpoint, whole or damaged; a run that died early leaves an empty folder."""
    return bool(_steps(folder(workdir)))


def _steps(directory: epath.Path) -> list[int]:
    """The steps of the checkpoints in a folder, the newest first."""
    found = [entry for entry in directory.iterdir() if entry.name.isdigit()] if directory.is_dir() else []
    return sorted((int(entry.name) for entry in found if ocp.utils.is_checkpoint_finalized(entry)), reverse=True)


def _write_checksums(directory: epath.Path) -> None:
    for path in directory.glob("*.orbax-checkpoint-tmp*") if jax.process_index() == 0 else ():
        storage.write(path / _CHECKSUMS, json.dumps(_checksums(path), indent=1) + "\n")


def _checksums(path: epath.Path, part: int = 0, parts: int = 1) -> dict[str, int]:
    """The CRC-32 of every file in the parts of a checkpoint, or of each `parts`-th from the `part`-th on."""
    sums = {}
    for file in _files(path)[part::parts]:
        value = 0
        with file.open("rb") as stream:
            while block := stream.read(2**22):
                value = zlib.crc32(block, value)
        sums[str(file.relative_to(path))] = value
    return sums


def _files(path: epath.Path) -> list[pathlib.Path]:
    return sorted(file for file in pathlib.Path(path).glob("*/**/*") if file.is_file())


def _check_whole(path: epath.Path, part: int = 0, parts: int = 1) -> None:
    """Raises ValueError if a file of a checkpoint, one of this part, is not what was saved."""
    if not (path / _CHECKSUMS).exists():
        return
    saved, found = json.loads(storage.read_text(path / _CHECKSUMS)), _checksums(path, part, parts)
    missing = saved.keys() - {str(file.relative_to(path)) for file in _files(path)}
    wrong = sorted(missing | {file for file in found if saved.get(file) != found[file]})
    if wrong:
        raise ValueError(f"{wrong[0]} is not what was saved")


def _is_damage(error: Exception) -> bool:
    """Whether an error is of the files themselves, and no trouble in reading them, which may pass."""
    return isinstance(error, _DAMAGE) and not _PASSING.search(str(error))


def _unreadable(path: epath.Path, error: Exception) -> UserError:
    return UserError(
        f"cannot read the checkpoint {path}: {_first_line(error)}. It stays where it is: the same command tries again; "
        "to go on from the one before, move it away"
    )


class _DamagedError(Exception):
    """A checkpoint's files are not what was saved; on all processes."""


def _together(read: Callable[..., Any], path: epath.Path, *arguments: Any) -> Any:
    """What `read(path, *arguments)` gives on this process, once it has given something on all of them.

    Raises:
        _DamagedError: on all processes, if one found damage and none had trouble in reading.
        UserError: on all processes, if one had trouble in reading.
    """
    error, found = None, None
    try:
        found = read(path, *arguments)
    except Exception as caught:  # whatever the storage raised
        error = caught
    verdict = 0 if error is None else 1 if _is_damage(error) else 2
    verdicts = multihost_utils.process_allgather(np.int32(verdict)).ravel()
    worst = int(verdicts.argmax())
    if not verdicts[worst]:
        return found
    if verdict < verdicts[worst]:
        error = ValueError(f"process {worst} found a file that is not what was saved, or could not read one")
    raise (_unreadable(path, error) if verdicts[worst] == 2 else _DamagedError(_first_line(error))) from error


def _checked_shapes(path: epath.Path) -> dict[str, tuple[int, ...]]:
    """The shapes in a checkpoint, of whose files each process checks a part."""
    _check_whole(path, jax.process_index(), jax.process_count())
    return _saved_shapes(path)


def _read(path: epath.Path, layout: TrainState) -> dict[str, Any]:
    """The parts of a checkpoint. Not by the manager, whose collective at the end never ends where a process fails."""
    path, handler = epath.Path(path), ocp.StandardCheckpointHandler()
    parts = {
        name: handler.restore(path / name, args=ocp.args.StandardRestore(tree)) for name, tree in _parts(layout).items()
    }
    return parts | {"meta": _current_meta(ocp.JsonCheckpointHandler().restore(path / "meta"))}


def latest(manager: ocp.CheckpointManager) -> int | None:
    """The newest step that was saved whole, or None."""
    return manager.latest_step()


def save(manager: ocp.CheckpointManager, state: TrainState, step: int, meta: dict, wait: bool = False) -> None:
    """Saves a state, in the background unless `wait`.

    Raises:
        UserError: this or the previous save failed, a full disk for example. Earlier checkpoints are intact.
    """
    parts = _parts(state)
    arguments = {name: ocp.args.StandardSave(tree) for name, tree in parts.items()}
    try:
        manager.save(step, args=ocp.args.Composite(**arguments, meta=ocp.args.JsonSave(meta)))
        if wait:
            manager.wait_until_finished()
    except Exception as error:  # Orbax passes on whatever the storage raised.
        raise _failed(manager, error) from error


def finish(manager: ocp.CheckpointManager) -> None:
    """Waits for saves in the background; raises UserError if one failed."""
    try:
        manager.wait_until_finished()
    except Exception as error:
        raise _failed(manager, error) from error


def _failed(manager: ocp.CheckpointManager, error: Exception) -> UserError:
    manager.reload()
    kept = manager.latest_step()
    intact = f"the checkpoint of step {kept} is intact" if kept is not None else "no checkpoint was written before"
    return UserError(f"could not save a checkpoint in {manager.directory}: {_first_line(error)}; {intact}")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]


def restore(
    manager: ocp.CheckpointManager, abstract: TrainState, warn: Callable[[str], None], write: bool = True
) -> tuple[TrainState, dict] | None:
    """The newest checkpoint that can be read, laid out as asked.

    Args:
        manager: from `open`.
        abstract: a TrainState of jax.ShapeDtypeStruct with shardings.
        warn: is told of every checkpoint that is damaged.
        write: whether such a folder is moved to `damaged_checkpoints`, or stays where it is.

    Returns:
        (state, meta), or None where there is no checkpoint.

    Raises:
        UserError: all are damaged, or hold a model of other shapes; or there is trouble in reading the newest (memory,
            rights, network), which then stays where it is.
    """
    steps = sorted(manager.all_steps(), reverse=True)
    wanted = _shapes(abstract)
    for step in steps:
        path = storage.path(manager.directory) / str(step)
        try:
            saved = _together(_checked_shapes, path)
            layout = abstract if saved == wanted else _stacked_as(saved, abstract)
            if layout is None:
                raise _other_model(path, saved, wanted)
            found = _together(_read, path, layout)
        except _DamagedError as error:
            last = str(error)
            _set_aside(manager, path, last, warn, write)
            continue
        rest = found["rest"]
        ema = found["ema"] if abstract.ema is not None else None
        state = TrainState(rest["step"], found["params"], rest["opt_state"], rest["mutable"], ema)
        return (state if layout is abstract else _restack(state, abstract)), found["meta"]
    if steps:
        moved = f". They are in {_damaged(manager)} now; the same command starts from scratch" if write else ""
        raise UserError(
            f"none of the checkpoints in {manager.directory} (steps {sorted(steps)}) can be read: {last}{moved}"
        )
    return None


def _damaged(manager: ocp.CheckpointManager) -> epath.Path:
    return storage.path(manager.directory).parent / "damaged_checkpoints"


def _set_aside(manager, path: epath.Path, reason: str, warn: Callable[[str], None], write: bool) -> None:
    """Tells of a damaged checkpoint, and moves it away where `write`."""
    aside = _damaged(manager) / path.name
    warn(f"the checkpoint of step {path.name} is damaged ({reason})" + (f"; it is moved to {aside}" if write else ""))
    if write:
        _move_aside(manager, path, aside)


def _stacked_as(saved: dict[str, tuple[int, ...]], abstract: TrainState) -> TrainState | None:
    """The abstract state with its blocks stored as the saved ones are; None where that isn't the only difference."""
    params = {path.removeprefix("params/"): shape for path, shape in saved.items() if path.startswith("params/")}
    like = unflatten({path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in params.items()})
    layout = _map_dicts(lambda tree: stacking.stack(tree, like), abstract)
    back = _map_dicts(lambda tree: stacking.stack(tree, abstract.params), layout)
    # Frozen parameters leave holes in the optimizer's state, which don't survive stacking.
    same = jax.tree.structure(back) == jax.tree.structure(abstract)
    return layout if same and _shapes(layout) == saved else None


def _restack(state: TrainState, abstract: TrainState) -> TrainState:
    """A state with its blocks stored as the abstract one's are."""
    restack = lambda tree: _map_dicts(lambda part: stacking.stack(part, abstract.params), tree)  # noqa: E731
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(restack, out_shardings=shardings)(state)


def _map_dicts(fn: Callable[[dict], dict], tree: Any) -> Any:
    """Applies a function to every outermost dict: the parameters and what the optimizer keeps in their structure."""
    apply = lambda node: fn(node) if isinstance(node, dict) else node  # noqa: E731
    return jax.tree.map(apply, tree, is_leaf=lambda node: isinstance(node, dict))


def _move_aside(manager: ocp.CheckpointManager, path: epath.Path, aside: epath.Path) -> None:
    if jax.process_index() == 0:
        # In a bucket this takes time, and a kill in between must not leave half of a checkpoint that looks whole.
        (path / _COMMITTED).unlink(missing_ok=True)
        storage.move(path, aside)
    multihost_utils.sync_global_devices("damaged checkpoint moved aside")
    manager.reload()


def _other_model(path: epath.Path, saved: dict, wanted: dict) -> UserError:
    wrong = [key for key in saved.keys() | wanted.keys() if saved.get(key) != wanted.get(key)]
    wrong.sort(key=lambda key: (not key.startswith("params"), key))  # the optimizer's follow from the parameters'
    listed = "; ".join(f"{key}: saved {saved.get(key)}, wanted {wanted.get(key)}" for key in wrong[:_LISTED])
    more = f"; and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
    return UserError(f"the checkpoint {path} is of another model or optimizer: {listed}{more}")


def _saved_shapes(path: epath.Path) -> dict[str, tuple[int, ...]]:
    """Shapes of everything in a checkpoint, by part and path."""
    shapes: dict[str, tuple[int, ...]] = {}
    for part in ("params", "rest", *(["ema"] if (path / "ema").exists() else [])):
        shapes |= _leaf_shapes(part, ocp.PyTreeCheckpointHandler().metadata(path / part).tree)
    return shapes


def _shapes(state: TrainState) -> dict[str, tuple[int, ...]]:
    return {key: shape for name, tree in _parts(state).items() for key, shape in _leaf_shapes(name, tree).items()}


def _leaf_shapes(part: str, tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))[0]
    return {f"{part}/{path_name(path)}": tuple(leaf.shape) for path, leaf in leaves}


def _parts(state: TrainState) -> dict[str, Any]:
    rest = {"step": state.step, "opt_state": state.opt_state, "mutable": state.mutable}
    parts = {"params": state.params, "rest": rest}
    return parts if state.ema is None else parts | {"ema": state.ema}


def load_params(workdir: os.PathLike) -> tuple[dict, dict | None, dict]:
    """The newest readable model of a workdir, on the host, whatever devices it was trained on.

    Returns:
        (params, ema or None, meta): trees of numpy arrays, and what `save` was given as meta.

    Raises:
        UserError: no checkpoint there, or none that can be read.
    """
    return _newest(workdir, _load_params)


def load_variables(workdir: os.PathLike) -> dict:
    """What the newest readable model of a workdir is applied with, on the host.

    Returns:
        {'params': the average if there is one, **mutable collections such as 'batch_stats'}: trees of numpy arrays.
        Raises as `load_params`.
    """

    def load(path):
        params, ema, _ = _load_params(path)
        return {"params": params if ema is None else ema, **read_numpy(path / "rest", "mutable")}

    return _newest(workdir, load)


def _newest(workdir: os.PathLike, load: Callable[[epath.Path], Any]) -> Any:
    """What `load` makes of the newest checkpoint that it can read."""
    directory = folder(workdir)
    steps = _steps(directory)
    for step in steps:
        path = directory / str(step)
        try:
            _check_whole(path)
            return load(path)
        except Exception as error:
            if not _is_damage(error):
                raise _unreadable(path, error) from error
            last = _first_line(error)
            logging.getLogger(__name__).warning("the checkpoint %s is damaged (%s)", path, last)
    if steps:
        raise UserError(f"none of the checkpoints in {directory} (steps {sorted(steps)}) can be read: {last}")
    raise UserError(f"no checkpoint in {directory}")


def _load_params(path: epath.Path) -> tuple[dict, dict | None, dict]:
    ema = read_numpy(path / "ema") if (path / "ema").exists() else None
    meta = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(path / "meta")
    return read_numpy(path / "params"), ema, _current_meta(meta)


def _current_meta(meta: dict) -> dict:
    """The meta data of a checkpoint, with the names of today in the config that it may hold."""
    return meta | {"config": current_names(meta["config"])} if "config" in meta else meta


def read_numpy(path: os.PathLike, key: str = "") -> dict:
    """One part of a checkpoint, `<step>/params` for example, as a tree of numpy arrays on any devices.

    Args:
        path: of the part.
        key: reads only what is under this key of it, {} where there is nothing; '' for all.
    """
    handler = ocp.PyTreeCheckpointHandler()
    tree = handler.metadata(path).tree
    tree = {key: tree.get(key) or {}} if key else tree
    if not jax.tree.leaves(tree):
        return {}
    as_numpy = jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree, is_leaf=lambda x: hasattr(x, "shape")
    )
    arguments = dict(item=tree, partial_restore=True) if key else {}
    found = ocp.Checkpointer(handler).restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy, **arguments))
    return found[key] if key else found
