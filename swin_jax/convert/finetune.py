"""Makes a checkpoint fit a model of another window, image size or classifier before fine-tuning.

What `load_pretrained` of microsoft/Swin-Transformer does, step by step: position tables are resized with PyTorch's
bicubic interpolation; a head of other classes becomes zero, or the 1,000 rows of a 22K head. State dicts are in
official names; `remap` takes the official and timm's layouts alike.
"""

import functools
import math
import warnings
from collections.abc import Callable, Mapping

import numpy as np

from swin_jax.convert import imagenet22k, read, swin
from swin_jax.errors import UserError


def remap(state_dict: Mapping[str, np.ndarray], model, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Resizes position tables and adapts the head to a Swin; everything else stays, and is checked by `from_official`.

    Args:
        state_dict: {name: array} of a Swin of any window, image size and number of classes.
        model: the `models.swin.Swin` to fill.
        rows: (1000,) rows of a 22K head that are the 1K classes, see `convert.imagenet22k`; None: a zero head.

    Returns:
        The state dict for `convert.swin.from_official`. A head of zeros and resized tables are told in warnings.
    """
    state_dict = adapt_head(swin.normalise(state_dict), model.num_classes, rows)
    resized = []
    for name, shape in swin.official_shapes(model).items():
        table = state_dict.get(name)
        if table is None or table.shape == shape:
            continue
        if name.endswith("relative_position_bias_table") and table.ndim == 2 and table.shape[1] == shape[1]:
            state_dict[name] = resize_rows(table, shape[0])
            resized.append(name)
        if name == "absolute_pos_embed" and table.ndim == 3 and table.shape[2] == shape[2]:
            state_dict[name] = resize_rows(table[0], shape[1])[None]
            resized.append(name)
    if resized:
        warnings.warn(f"{len(resized)} position tables were resized to another window or image size", stacklevel=2)
    return state_dict


def adapt_head(state_dict: Mapping[str, np.ndarray], num_classes: int, rows: np.ndarray | None = None) -> dict:
    """Gives a state dict a head of another size.

    Args:
        state_dict: in official names.
        num_classes: classes of the new head; 0 takes the head off.
        rows: (1000,) which row of a 22K head each 1K class is.

    Returns:
        The state dict: unchanged where the sizes agree; with the 1,000 rows where a head of 21,841 classes becomes one
        of 1,000 and `rows` is given; otherwise with a head of zeros, and a warning.
    """
    weight = state_dict.get("head.weight")
    classes = 0 if weight is None else len(weight)
    if classes == num_classes:
        return dict(state_dict)
    if (classes, num_classes) == (21841, 1000) and rows is not None:
        return head_22k_to_1k(state_dict, rows)
    rest = {name: value for name, value in state_dict.items() if not name.startswith("head.")}
    if num_classes == 0:
        return rest
    if "norm.weight" not in rest:  # not a Swin: `from_official` lists what is missing
        return dict(state_dict)
    warnings.warn(
        f"the weights have a head of {classes} classes; the head of {num_classes} classes starts from zeros and must "
        "be trained",
        stacklevel=2,
    )
    zeros = np.zeros((num_classes, len(rest["norm.weight"])), np.float32)
    return rest | {"head.weight": zeros, "head.bias": zeros[:, 0]}


def head_22k_to_1k(state_dict: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Picks the rows of a 22K head that are the ImageNet-1K classes, in the order given (never sorted).

    Args:
        state_dict: in official names.
        rows: (1000,) int.
    """
    rows = np.asarray(rows)
    classes = len(state_dict["head.weight"])
    if classes <= rows.max():
        raise UserError(f"the head has {classes} classes, the map asks for row {rows.max()}")
    return dict(state_dict) | {name: state_dict[name][rows] for name in ("head.weight", "head.bias")}


def resize_rows(table: np.ndarray, length: int) -> np.ndarray:
    """Resizes a square map that is stored as rows: (S1 * S1, C) -> (length, C), length a square number."""
    old, new = math.isqrt(len(table)), math.isqrt(length)
    if old * old != len(table) or new * new != length:
        raise UserError(f"only square position tables can be resized, not one of {len(table)} rows to {length}")
    matrix = bicubic_matrix(old, new)
    square = table.astype(np.float64).reshape(old, old, -1)
    return np.einsum("ai,bj,ijc->abc", matrix, matrix, square, optimize=True).reshape(length, -1).astype(np.float32)


def bicubic_matrix(old: int, new: int) -> np.ndarray:
    """PyTorch's bicubic interpolation along one axis as a matrix (new, old), float64.

    Keys' kernel with A = -0.75 (`jax.image.resize` has -0.5), half-pixel centres, taps clamped at the edges, no
    antialiasing.
    """
    a = -0.75
    matrix = np.zeros((new, old))
    x = (np.arange(new) + 0.5) * old / new - 0.5
    for tap in range(-1, 3):
        place = np.floor(x) + tap
        u = np.abs(x - place)
        near = (a + 2) * u**3 - (a + 3) * u**2 + 1
        far = a * u**3 - 5 * a * u**2 + 8 * a * u - 4 * a
        np.add.at(matrix, (np.arange(new), np.clip(place, 0, old - 1).astype(int)), np.where(u <= 1, near, far))
    return matrix


def load_pretrained(source, model, class_map=None) -> dict:
    """Fits weights of any window, image size and head into a Swin for fine-tuning.

    Args:
        source: a file of `convert.read`, or {'params': ...} of another Swin.
        model: the `models.swin.Swin` to fill.
        class_map: path of map22kto1k.txt, used where a head of 21,841 classes becomes one of 1,000; None derives it
            from an installed timm.

    Returns:
        {'params': nested dict of float32 numpy arrays}.

    Raises:
        UserError: an unreadable file; missing, unexpected and mis-shaped keys, all listed; no map where one is needed.
    """
    found = swin.to_state_dict(source) if isinstance(source, Mapping) else read(source)
    state_dict = swin.normalise(found)
    needs_map = model.num_classes == 1000 and len(state_dict.get("head.weight", ())) == 21841
    rows = imagenet22k.find_map(class_map) if needs_map else None
    try:
        return swin.from_official(remap(state_dict, model, rows), model)
    except UserError as error:
        raise UserError(f"{source}: {error}" if not isinstance(source, Mapping) else str(error)) from error


def pretrained(class_map: str | None = None) -> Callable:
    """`load_pretrained` as a function of (source, model), for an experiment file."""
    return functools.partial(load_pretrained, class_map=class_map)
