"""The layout of a checkpoint's arrays: its parts, their shapes, other ways to stack blocks."""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from swin_jax.core import stacking, storage
from swin_jax.core.errors import UserError
from swin_jax.core.output.text import quoted
from swin_jax.core.params import path_name, unflatten
from swin_jax.tasks.base import TrainState
from swin_jax.train.checkpoints.integrity import check_sizes

_LISTED = 8  # arrays that a message names at most
# Numbers of layers, each of which has parameters of its own, in the models that a run trains.
_LAYERS = re.compile(
    r"task\.(model\.(\w+\.)*|generator\.|discriminator\.)(depths|blocks|(\w+_)?layers)"
)


def stacked_as(saved: dict[str, tuple[int, ...]], abstract: TrainState) -> TrainState | None:
    """The abstract state with its blocks stored as the saved ones are;
    None where that isn't the only difference.
    """
    params = {
        path.removeprefix("params/"): shape
        for path, shape in saved.items()
        if path.startswith("params/")
    }
    like = unflatten(
        {path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in params.items()}
    )
    layout = _map_dicts(lambda tree: stacking.stack(tree, like), abstract)
    back = _map_dicts(lambda tree: stacking.stack(tree, abstract.params), layout)
    # Frozen parameters leave holes in the optimizer's state, which don't survive stacking.
    same = jax.tree.structure(back) == jax.tree.structure(abstract)
    return layout if same and shapes_of(layout) == saved else None


def restack(state: TrainState, abstract: TrainState) -> TrainState:
    """A state with its blocks stored as the abstract one's are."""

    def restack(tree):
        return _map_dicts(lambda part: stacking.stack(part, abstract.params), tree)

    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(restack, out_shardings=shardings)(state)


def _map_dicts(fn: Callable[[dict], dict], tree: Any) -> Any:
    """Applies a function to every outermost dict: the parameters and what the optimizer
    keeps in their structure.
    """

    def apply(node):
        return fn(node) if isinstance(node, dict) else node

    return jax.tree.map(apply, tree, is_leaf=lambda node: isinstance(node, dict))


def other_model(path: epath.Path, saved: dict, wanted: dict) -> UserError:
    wrong = [key for key in saved.keys() | wanted.keys() if saved.get(key) != wanted.get(key)]
    # The optimizer's follow from the parameters'.
    wrong.sort(key=lambda key: (not key.startswith("params"), key))
    listed = "; ".join(
        f"{key}: saved {saved.get(key)}, wanted {wanted.get(key)}" for key in wrong[:_LISTED]
    )
    more = f"; and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
    return UserError(f"the checkpoint {path} is of another model or optimizer: {listed}{more}")


def refuse_layers(path: epath.Path, config: Mapping[str, Any]) -> None:
    """Refuses a model of more layers than its checkpoint has parameters, before it is built.

    Building takes time for each layer, so that a config.json that somebody else wrote could keep it
    at work for hours. Other differences are found when shapes are compared.

    Args:
        path: Path of the checkpoint.
        config: Flat config of the model's run.

    Raises:
        UserError: The key, its value and the number of parameters.
    """
    tree = ocp.PyTreeCheckpointHandler().metadata(storage.LiteralPath(path) / "params").tree
    shapes = _leaf_shapes("", tree)
    most = sum(shape[0] if stacking.is_stacked(key) else 1 for key, shape in shapes.items())
    for key, value in config.items():
        if _LAYERS.fullmatch(key) and _number(value) > most:
            shown = list(value) if isinstance(value, tuple) else value
            raise UserError(
                f"{key} is {quoted(shown)}, and the checkpoint {path} has parameters for no more "
                f"than {most} layers: it is of another model, set the key back"
            )


def _number(layers: Any) -> int:
    """The layers of all stages; 0 for what is no number of layers."""
    layers = layers if isinstance(layers, (list, tuple)) else [layers]
    return sum(number for number in layers if isinstance(number, int))


def saved_shapes(path: epath.Path) -> dict[str, tuple[int, ...]]:
    """Shapes of everything in a checkpoint, by part and path."""
    shapes: dict[str, tuple[int, ...]] = {}
    path = storage.LiteralPath(path)
    for part in ("params", "rest", *(["ema"] if (path / "ema").exists() else [])):
        shapes |= _leaf_shapes(part, ocp.PyTreeCheckpointHandler().metadata(path / part).tree)
    return shapes


def shapes_of(state: TrainState) -> dict[str, tuple[int, ...]]:
    return {
        key: shape
        for name, tree in parts_of(state).items()
        for key, shape in _leaf_shapes(name, tree).items()
    }


def _leaf_shapes(part: str, tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))[0]
    return {f"{part}/{path_name(path)}": tuple(leaf.shape) for path, leaf in leaves}


def parts_of(state: TrainState) -> dict[str, Any]:
    rest = {"step": state.step, "opt_state": state.opt_state, "mutable": state.mutable}
    parts = {"params": state.params, "rest": rest}
    return parts if state.ema is None else parts | {"ema": state.ema}


def read_numpy(path: os.PathLike, key: str = "") -> dict:
    """One part of a checkpoint, `<step>/params` for example,
    as a tree of numpy arrays on any devices.

    Args:
        path: Path of the part.
        key: Key of the tree to read, {} where it has nothing; '' for all.

    Raises:
        ValueError: Arrays far larger than the files; and what Orbax raises of damaged ones.
    """
    handler, path = ocp.PyTreeCheckpointHandler(), storage.LiteralPath(path)
    tree = handler.metadata(path).tree
    tree = {key: tree.get(key) or {}} if key else tree
    if not jax.tree.leaves(tree):
        return {}
    check_sizes(path, tree)
    as_numpy = jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
        tree,
        is_leaf=lambda x: hasattr(x, "shape"),
    )
    arguments = dict(item=tree, partial_restore=True) if key else {}
    found = ocp.Checkpointer(handler).restore(
        path, args=ocp.args.PyTreeRestore(restore_args=as_numpy, **arguments)
    )
    return found[key] if key else found
