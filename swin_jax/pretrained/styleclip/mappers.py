"""StyleCLIP's latent mappers: released files <-> our parameters.

A file holds {'state_dict': mapper.* and decoder.*, 'opts'}: the mapper, the whole generator that it
was trained with, and the settings of its training. Names and classes: mapper/latent_mappers.py of
orpatashnik/StyleCLIP, 'course' included. The class of a mapper and its levels follow from the
names. Weights are (out, in) there and (in, out) here.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten, unflatten
from swin_jax.pretrained import beside, compare
from swin_jax.pretrained.files import torch_zip
from swin_jax.pretrained.stylegan2 import convert, rosinality

PREFIX, DECODER = "mapper.", "decoder."
_OWN = (
    r"(?:mapper\.)?"
    r"(((?:course|medium|fine)_mapping|mapping|mapper_\d+)\.mapping\.[1-4]\.(?:weight|bias))"
)
_LEVELS = {"coarse": "course_mapping", "medium": "medium_mapping", "fine": "fine_mapping"}
_LEAVES = {"weight": "kernel", "bias": "bias"}


def is_mapper(state_dict: Mapping[str, np.ndarray]) -> bool:
    """True for the weights of a mapper, with or without the generator beside it."""
    return any(re.fullmatch(_OWN, name) for name in state_dict)


def own_part(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{official name: array} of the mapper alone, without 'mapper.'.

    Raises:
        UserError: There is none.
    """
    matches = [(re.fullmatch(_OWN, name), value) for name, value in state_dict.items()]
    found = {match[1]: value for match, value in matches if match}
    if not found:
        raise UserError(
            "these weights are not those of a latent mapper: names such as "
            "mapper.course_mapping.mapping.1.weight lack"
        )
    return found


def read(path: str | os.PathLike, key: str | None = None) -> dict[str, np.ndarray]:
    """The mapper's part of a file; raises UserError for an unreadable one,
    or one without a mapper.
    """
    try:
        return own_part(beside.read(Path(path), key))
    except UserError as error:
        raise error.about(path) from error


def infer(state_dict: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Arguments of `models.styleclip.make_mapper` that weights were made with;
    they do not tell `norm_axis`.

    Raises:
        UserError: Parts of several classes, or layers that are missing.
    """
    own = own_part(state_dict)
    parts = {name.partition(".")[0] for name in own}
    numbers = sorted(
        int(part.partition("_")[2]) for part in parts if re.fullmatch(r"mapper_\d+", part)
    )
    if parts == {"mapping"}:
        return dict(kind="single")
    if parts <= set(_LEVELS.values()):
        return dict(kind="levels", **{level: part in parts for level, part in _LEVELS.items()})
    if len(numbers) < len(parts):
        raise UserError(
            f"these weights are of mappers of several classes: {', '.join(sorted(parts))}"
        )
    with_rgb = 1 in numbers
    count = numbers[-1] + (1 if with_rgb else 2)  # the last layer is a ToRGB
    # A ToRGB has the input channels of the layer before it.
    sources = [i if with_rgb or i % 3 != 1 else i - 1 for i in range(count)]
    missing = sorted(set(sources) - set(numbers))
    if missing or count % 3 != 2:
        raise UserError(
            f"these weights of a mapper of S lack layers: they have {', '.join(map(str, numbers))}"
        )
    channels = tuple(own[f"mapper_{i}.mapping.1.weight"].shape[0] for i in sources)
    return dict(kind="styles", channels=channels, with_rgb=with_rgb)


def from_official(state_dict: Mapping[str, np.ndarray], model: Any) -> dict[str, Any]:
    """Converts a state dict to the variables of a mapper; every key must fit.

    Args:
        state_dict: {name: array} as `pretrained.files.read` gives it;
            a generator beside the mapper is passed over.
        model: A mapper of `models.styleclip`.

    Returns:
        {'params': ...}, nested dicts of numpy arrays.

    Raises:
        UserError: A mapper of another class or other levels;
            missing, unexpected and mis-shaped keys.
    """
    own = own_part(state_dict)
    report = compare.compare(own, official_shapes(own, model))
    if report:
        raise UserError(f"these weights do not fit a {type(model).__name__}: {report.line()}")
    return {"params": unflatten({_path(name): _turn(value) for name, value in own.items()})}


def official_shapes(state_dict: Mapping[str, np.ndarray], model: Any) -> dict[str, tuple[int, ...]]:
    """{official name: official shape} of a mapper;
    widths that its fields do not tell are those of the weights.
    """
    if hasattr(model, "channels"):
        layers = [i for i in range(len(model.channels)) if model.with_rgb or i % 3 != 1]
        widths = {f"mapper_{i}": model.channels[i] for i in layers}
    else:
        levels = []
        if hasattr(model, "fine"):
            levels = [part for level, part in _LEVELS.items() if getattr(model, level)]
        biases = [value for name, value in state_dict.items() if name.endswith("bias")]
        widths = dict.fromkeys(levels or ["mapping"], len(biases[0]) if biases else 0)
    shapes = {}
    for part, width in widths.items():
        for number in range(1, 5):
            shapes[f"{part}.mapping.{number}.weight"] = (width, width)
            shapes[f"{part}.mapping.{number}.bias"] = (width,)
    return shapes


def to_official(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The state dict of a mapper's variables, names with 'mapper.' before them;
    the inverse of `from_official`.
    """
    return {
        PREFIX + _name(path): _turn(np.asarray(leaf))
        for path, leaf in flatten(variables["params"]).items()
    }


def save(
    path: str | os.PathLike,
    variables: Mapping[str, Any],
    generator: Mapping[str, Any] | None = None,
) -> None:
    """Writes a mapper as the released code saves it: tensors only.

    Args:
        path: The file, .pt.
        variables: Variables of the mapper.
        generator: Variables of the generator, for a file that holds all that an edit needs; see
            `pretrained.stylegan2.convert.to_rosinality` for those that it can be.
    """
    weights, average = to_official(variables), {}
    if generator is not None:
        decoder = convert.to_rosinality(generator)
        if rosinality.MEAN_LATENT in decoder:
            average = {rosinality.MEAN_LATENT: decoder.pop(rosinality.MEAN_LATENT)}
        weights |= {DECODER + name: value for name, value in decoder.items()}
    torch_zip.write(path, {"state_dict": weights, **average, "opts": {}})


def load_pretrained(
    source: str | os.PathLike | Mapping, model: Any, key: str | None = None
) -> dict[str, Any]:
    """The variables of a mapper from a file or from a run, for `train.init_from`.

    Args:
        source: A file of `pretrained.files.read`, or the variables of a mapper.
        model: A mapper of `models.styleclip`.
        key: The weights to take from a file that holds several, see `pretrained.files.read`.

    Raises:
        UserError: An unreadable file, weights that do not fit.
    """
    if isinstance(source, Mapping):
        return {"params": source["params"]}
    return from_official(read(source, key), model)


def pretrained() -> Callable:
    """`load_pretrained` as a function of (source, model), for an experiment file."""
    return load_pretrained


def _path(name: str) -> str:
    part, _, number, leaf = name.split(".")
    return f"{part}/mapping_{number}/{_LEAVES[leaf]}"


def _name(path: str) -> str:
    part, layer, leaf = path.split("/")
    return (
        f"{part}.mapping.{layer.removeprefix('mapping_')}.{'weight' if leaf == 'kernel' else leaf}"
    )


def _turn(value: np.ndarray) -> np.ndarray:
    """A kernel for a weight and a weight for a kernel; biases stay."""
    return np.array(value.T)
