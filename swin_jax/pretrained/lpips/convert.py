"""Converts official state dicts of LPIPS on VGG16 to our parameters.

The convolutions are torchvision's (`vgg16-397923af.pth`, names `features.0.weight`), and the heads
are those of version 0.1 of richzhang/PerceptualSimilarity (`lpips/weights/v0.1/vgg.pth`, names
`lin0.model.1.weight`). A state dict of the whole `lpips.LPIPS(net="vgg")` holds both. The functions
read only the fields of a model, so this module imports no model.
"""

import functools
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.params import unflatten
from swin_jax.pretrained import beside, compare

_HEADS = "vgg.pth in lpips/weights/v0.1 of the package lpips"
_HEAD = re.compile(r"lin(\d+)\.model\.1\.weight")
_CONVOLUTION = re.compile(r"(?:net\.slice\d+|features)\.(\d+\.(?:weight|bias))")


def official_shapes(model) -> dict[str, tuple[int, ...]]:
    """{official name: official shape} of a `models.lpips.LPIPS`; convolutions have torchvision's
    names.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for number, before, after in model.convolutions():
        shapes |= {
            f"features.{number}.weight": (after, before, 3, 3),
            f"features.{number}.bias": (after,),
        }
    return shapes | {
        f"lin{k}.model.1.weight": (1, width, 1, 1) for k, width in enumerate(model.widths)
    }


def from_official(state_dict: Mapping[str, np.ndarray], model) -> dict:
    """Converts a state dict to the variables of an LPIPS.

    Args:
        state_dict: {name: array} with convolutions and heads; classifiers and buffers are ignored.
        model: A `models.lpips.LPIPS`.

    Returns:
        {'params': ...}, nested dicts of float32 numpy arrays.

    Raises:
        UserError: Keys are missing or of the wrong shape; one line names them all.
    """
    own = {}
    for name, array in compare.strip_wrappers(state_dict).items():
        if found := _CONVOLUTION.fullmatch(name):
            own[f"features.{found[1]}"] = array
        elif _HEAD.fullmatch(name):
            own[name] = array
    shapes = official_shapes(model)
    if report := compare.compare(own, shapes):
        raise UserError(f"these weights are not for this LPIPS: {report.line()}")
    params = {}
    for name, array in own.items():
        array = np.asarray(array, np.float32)
        if found := _HEAD.fullmatch(name):
            params[f"lin{found[1]}"] = array.reshape(-1)
        else:
            _, number, leaf = name.split(".")
            params[f"features_{number}/{'kernel' if leaf == 'weight' else 'bias'}"] = (
                array.transpose(2, 3, 1, 0) if leaf == "weight" else array
            )
    return {"params": unflatten(params)}


def load_pretrained(
    source: str | os.PathLike | Mapping,
    model,
    key: str | None = None,
    heads: str | os.PathLike = "",
) -> dict:
    """The variables of an LPIPS from its files.

    Args:
        source: The file of torchvision's VGG16, or one that holds the heads as well.
        model: A `models.lpips.LPIPS`.
        key: The weights to take from a file that holds several.
        heads: The file of the heads; '' if `source` holds them too.

    Raises:
        UserError: The weights do not fit, or there are no heads.
    """
    if isinstance(source, Mapping):
        return {"params": source["params"]}
    arrays = dict(beside.read(Path(source), key))
    if heads:
        arrays |= beside.read(Path(heads))
    elif not any(_HEAD.fullmatch(name) for name in arrays):
        raise UserError(f"{source} has no heads of LPIPS: give heads=FILE as well, {_HEADS}")
    return from_official(arrays, model)


def pretrained(heads: str = "") -> Callable:
    """`load_pretrained` as a function of (source, model), for an experiment file.

    Raises:
        UserError: `heads` is given but is not a file.
    """
    if heads and not Path(heads).expanduser().is_file():
        raise UserError(f"heads={heads}: there is no such file; it is {_HEADS}")
    return functools.partial(load_pretrained, heads=Path(heads).expanduser() if heads else "")
