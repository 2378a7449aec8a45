"""The arguments of `load`: their names, the config of a run, and random weights if it is given none.

Shared by the loaders of all families.
"""

import numbers
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from swin_jax.core import storage
from swin_jax.core.errors import UserError, did_you_mean
from swin_jax.core.public_names import current_names
from swin_jax.pretrained.media import shown

# Arguments that may be one whole number for each axis or stage; and the least value of all that are whole numbers.
_PER_AXIS_OR_STAGE = ("image_size", "patch_size", "window_size", "depths", "num_heads", "vision_layers")
_ONE = ("embed_dim", "in_channels", "context_length", "vocab_size", "vision_width", "vision_heads")
_ONE += ("text_width", "text_heads", "text_layers")
COUNTS = {"num_classes": 0} | dict.fromkeys((*_PER_AXIS_OR_STAGE, *_ONE), 1)


def check_arguments(what: str, overrides: dict, known: Iterable[str]) -> None:
    """Raises UserError for an argument that `what` does not have."""
    unknown = sorted(overrides.keys() - set(known))
    if unknown:
        raise UserError(f"{what} has no argument {unknown[0]!r}{did_you_mean(unknown[0], known)}")


def check_values(overrides: dict, counts: Mapping[str, int]) -> None:
    """Raises UserError for a count or a size that is no whole number, or too small a one.

    Args:
        overrides: Arguments of a model.
        counts: {name of one that is a whole number: its least value}; None passes as any.
    """
    for key, value in overrides.items():
        least = counts.get(key)
        if least is None or value is None:
            continue
        found = list(_leaves(value)) if key in _PER_AXIS_OR_STAGE else [value]
        if not found or not all(_is_count(number, least) for number in found):
            several = ", or a tuple of them" if key in _PER_AXIS_OR_STAGE else ""
            wanted = f"it must be a whole number of at least {least}{several}"
            raise UserError(f"{key}={shown(value)} makes no model: {wanted}")


def _leaves(value: Any) -> Iterable[Any]:
    if not isinstance(value, (tuple, list)):
        yield value
        return
    for part in value:
        yield from _leaves(part)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= least


def check_resize(what: str, resize: Any, choices: Sequence[str]) -> None:
    """Raises UserError for a `resize` that `what` does not have; None always passes."""
    if resize is None or (isinstance(resize, str) and resize in choices):
        return
    if not choices:
        raise UserError(f"resize={shown(resize)}: {what} resizes nothing; leave it out")
    known = ", ".join(map(repr, choices))
    raise UserError(f"resize={shown(resize)} is {'none of' if len(choices) > 1 else 'not'} {known}")


def has_config(name: str | os.PathLike) -> bool:
    """True if a folder, in a bucket too, has a config.json; False for URLs and for what is no folder."""
    known = storage.is_remote(name) or "://" not in os.fspath(name)
    return known and (storage.path(name) / "config.json").is_file()


def read_config(workdir: str | os.PathLike) -> dict:
    """The resolved config of a run: a flat dict of dotted keys."""
    return current_names(storage.read_object(storage.path(workdir) / "config.json"))


def random_variables(model, *inputs: np.ndarray | jax.ShapeDtypeStruct) -> dict:
    """The variables that `model.init` makes for inputs of these shapes."""
    # jax 0.10 takes 0.4 s to optimise each draw for the CPU; level 0 compiles a whole model ten times faster.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    zeros = (np.zeros(x.shape, x.dtype) for x in inputs)
    return jax.jit(model.init, compiler_options=options)(jax.random.key(0), *zeros)
