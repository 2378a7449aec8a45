"""Converts ArcFace's IR-SE50 between official state dicts and our parameters.

Official names and shapes are those of TreB1eN/InsightFace_Pytorch, which StyleCLIP, pSp and
e4e also use. Convolutions are transposed from (out, in, h, w) to (h, w, in, out), and the last
layer from (embedding, channels * h * w) to (h, w, channels, embedding). Norms and PReLU slopes
have a `scale`; running statistics are in 'batch_stats'. The functions read only the fields of a
model, so this module imports no model.
"""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.core.params import flatten, unflatten
from swin_jax.pretrained import compare, networks
from swin_jax.pretrained.files import choose

LICENSE = (
    "the released IR-SE50 was trained on pictures derived from MS-Celeb-1M, "
    "and no terms of use are stated for it"
)
_LAST = "output_layer.3.weight"
_NEEDED = (_LAST, "body.0.res_layer.1.weight")
_OWN = r"(input_layer|output_layer|body)\."
_REDUCTION = 16


def official_shapes(model) -> dict[str, tuple[int, ...]]:
    """{official name: official shape} of a `models.arcface.IRSE`, in the official order and
    including running statistics.
    """
    width = model.blocks[-1][1]
    inside = width * (model.image_size // 2 ** len(model.blocks)) ** 2
    stem, body = trunk_shapes(model.blocks)
    output = _norm("output_layer.0", width)
    output |= {_LAST: (model.embed_dim, inside), "output_layer.3.bias": (model.embed_dim,)}
    return stem | output | _norm("output_layer.4", model.embed_dim) | body


def trunk_shapes(blocks: Sequence[tuple[int, int, int]]) -> tuple[dict, dict]:
    """The official shapes of the trunk, as two dicts: `input_layer` and `body`."""
    width = blocks[0][0]
    stem = {"input_layer.0.weight": (width, 3, 3, 3)} | _norm("input_layer.1", width)
    stem["input_layer.2.weight"] = (width,)
    pairs = [(b if i == 0 else a, a) for b, a, count in blocks for i in range(count)]
    body = {}
    for i, (before, after) in enumerate(pairs):
        body |= _block(f"body.{i}", before, after)
    return stem, body


def _block(name: str, before: int, after: int) -> dict:
    shapes, hidden = {}, max(after // _REDUCTION, 1)
    if before != after:
        shapes[f"{name}.shortcut_layer.0.weight"] = (after, before, 1, 1)
        shapes |= _norm(f"{name}.shortcut_layer.1", after)
    name = f"{name}.res_layer"
    shapes |= _norm(f"{name}.0", before)
    shapes[f"{name}.1.weight"] = (after, before, 3, 3)
    shapes[f"{name}.2.weight"] = (after,)
    shapes[f"{name}.3.weight"] = (after, after, 3, 3)
    shapes |= _norm(f"{name}.4", after)
    shapes[f"{name}.5.fc1.weight"] = (hidden, after, 1, 1)
    shapes[f"{name}.5.fc2.weight"] = (after, hidden, 1, 1)
    return shapes


def _norm(name: str, width: int) -> dict:
    return {
        f"{name}.{leaf}": (width,) for leaf in ("weight", "bias", "running_mean", "running_var")
    }


def is_arcface(state_dict: Mapping[str, np.ndarray]) -> bool:
    """True if a state dict holds a whole IR-SE network, under any prefix."""
    return bool(networks.prefixes(state_dict, _NEEDED))


def own_part(state_dict: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of the IR-SE network in a state dict, and the names of all others;
    see `networks.own_part`.
    """
    return networks.own_part(state_dict, _NEEDED, _OWN, "IR-SE network")


def infer(state_dict: Mapping[str, np.ndarray]) -> dict:
    """The `blocks`, `image_size` and `embed_dim` of the IRSE that a state dict belongs to.

    Raises:
        UserError: The arrays have shapes that no IRSE has.
    """
    state_dict, _ = own_part(state_dict)
    blocks = infer_blocks(state_dict)
    embed_dim, inside = np.shape(state_dict[_LAST])
    side = math.isqrt(inside // blocks[-1][1])
    if side < 1 or side**2 * blocks[-1][1] != inside:
        raise UserError(
            f"{_LAST} has the shape {(embed_dim, inside)}, which fits no square map of "
            f"{blocks[-1][1]} channels"
        )
    return dict(blocks=blocks, image_size=side * 2 ** len(blocks), embed_dim=embed_dim)


def infer_blocks(state_dict: Mapping[str, np.ndarray]) -> tuple[tuple[int, int, int], ...]:
    """The stages of a trunk; a new stage starts where a block changes the number of channels.

    Args:
        state_dict: {official name: array}.
    """
    numbers = [int(found[1]) for name in state_dict if (found := re.match(r"body\.(\d+)\.", name))]
    stages: list[tuple[int, int, int]] = []
    for i in range(compare.count_of(numbers, "blocks of body")):
        kernel = state_dict.get(f"body.{i}.res_layer.1.weight")
        if kernel is None:
            raise UserError(f"these weights lack body.{i}.res_layer.1.weight")
        after, before = np.shape(kernel)[:2]
        if not stages or before != after:
            stages.append((before, after, 0))
        stages[-1] = (*stages[-1][:2], stages[-1][2] + 1)
    return tuple(stages)


def from_official(state_dict: Mapping[str, np.ndarray], model) -> dict:
    """Converts a state dict to the variables of an IRSE; every key must fit.

    Args:
        state_dict: {name: array} as `pretrained.files.read` gives it, under any prefix.
        model: A `models.arcface.IRSE`.

    Returns:
        {'params': ..., 'batch_stats': ...}, nested dicts of float32 numpy arrays,
        as `model.init` makes them.

    Raises:
        UserError: Keys are missing, unexpected or of the wrong shape; one line names them all.
    """
    state_dict, left = own_part(state_dict)
    if left:
        warn(f"ignored weights that do not belong to an IR-SE network: {choose.listed(left)}")
    shapes = official_shapes(model)
    _check(state_dict, shapes)
    return to_variables(state_dict, shapes, model.blocks[-1][1])


def load_pretrained(source: str | os.PathLike | Mapping, model, key: str | None = None) -> dict:
    """The variables of an IRSE from a file or from a run, for `train.init_from`.

    Args:
        source: A file that `pretrained.files.read` can read, or the variables of an IRSE.
        model: A `models.arcface.IRSE`.
        key: The weights to take from a file that holds several, see `pretrained.files.read`.

    Raises:
        UserError: The file cannot be read, or its weights do not fit the model.
    """
    return networks.read(source, key, lambda arrays: from_official(arrays, model), LICENSE)


def pretrained() -> Callable:
    """`load_pretrained` as a function of (source, model), for an experiment file."""
    return load_pretrained


def to_variables(
    state_dict: Mapping[str, np.ndarray], names: Sequence[str], last_width: int = 0
) -> dict:
    """Converts arrays in PyTorch's layout to variables.

    Args:
        state_dict: {official name: array}.
        names: The names to take.
        last_width: Channels of the map that `output_layer.3` reads.
    """
    variables: dict = {"params": {}, "batch_stats": {}}
    for name in names:
        value = np.asarray(state_dict[name], np.float32)
        collection, path = path_of(name, value.ndim)
        variables[collection][path] = _to_ours(name, value, last_width)
    return {collection: unflatten(flat) for collection, flat in variables.items()}


def to_official(variables: Mapping, model, buffers: bool = False) -> dict[str, np.ndarray]:
    """Converts the variables of an IRSE to an official state dict; the inverse of `from_official`.

    Gradients, or anything else of the same structure, convert the same way. Without 'batch_stats'
    the result has no running statistics.

    Args:
        variables: {'params': nested dict of arrays, 'batch_stats': the same}.
        model: The `models.arcface.IRSE` that they belong to.
        buffers: True adds `num_batches_tracked`, which a strict `load_state_dict` requires.

    Returns:
        {official name: float32 numpy array in PyTorch's layout}, in the official order.

    Raises:
        UserError: The variables do not belong to this model.
    """
    shapes = official_shapes(model)
    flat = {collection: flatten(tree) for collection, tree in variables.items()}
    if not flat.get("batch_stats"):
        shapes = {name: shape for name, shape in shapes.items() if "running_" not in name}
    state_dict = {}
    for name, shape in shapes.items():
        collection, path = path_of(name, len(shape))
        if path in flat.get(collection, {}):
            state_dict[name] = _to_theirs(np.asarray(flat[collection][path], np.float32), shape)
    _check(state_dict, shapes)
    if buffers:
        norms = [name for name in shapes if name.endswith("running_var")]
        counters = {
            name.replace("running_var", "num_batches_tracked"): np.zeros((), np.int64)
            for name in norms
        }
        state_dict |= counters
    return state_dict


def _check(state_dict: Mapping, shapes: Mapping) -> None:
    if report := compare.compare(state_dict, shapes):
        raise UserError(f"these weights are not for this IR-SE network: {report.line()}")


def path_of(name: str, axes: int) -> tuple[str, str]:
    """The collection and the path that an official name gets.

    Args:
        name: Official name.
        axes: Number of axes of its array.
    """
    *modules, leaf = re.sub(r"\.(\d+)(?=\.)", r"_\1", name).split(".")
    if leaf.startswith("running_"):
        return "batch_stats", "/".join([*modules, leaf.removeprefix("running_")])
    if leaf == "weight":
        leaf = "scale" if axes == 1 else "kernel"
    return "params", "/".join([*modules, leaf])


def _to_ours(name: str, value: np.ndarray, last_width: int) -> np.ndarray:
    """Converts one tensor from PyTorch's layout to ours."""
    if name == _LAST:
        side = math.isqrt(value.shape[1] // last_width)
        value = value.reshape(len(value), last_width, side, side)
    return np.ascontiguousarray(value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T)


def _to_theirs(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Converts one tensor from our layout to PyTorch's, where it has this shape."""
    if value.ndim == 4:
        return np.ascontiguousarray(value.transpose(3, 2, 0, 1)).reshape(shape)
    return value
