"""What `load` was given: names of arguments, the config of a run; and random weights where it was given none.

Shared by the families of `hub`.
"""

import difflib
import json
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from swin_jax.errors import UserError


def nearest(word: str, words: Iterable[str]) -> str:
    """The most similar of some words."""
    return difflib.get_close_matches(word, words, 1, 0)[0]


def check_arguments(what: str, overrides: dict, known: set[str]) -> None:
    """Raises UserError where an argument is none of those that `what` has."""
    unknown = sorted(overrides.keys() - known)
    if unknown:
        raise UserError(f"{what} has no argument {unknown[0]!r}; did you mean {nearest(unknown[0], known)!r}?")


def read_config(workdir: Path) -> dict:
    """The resolved config of a run: a flat dict of dotted keys."""
    try:
        return json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir / 'config.json'} cannot be read: {error}") from error


def random_variables(model, *inputs: np.ndarray) -> dict:
    """The variables that `model.init` makes for inputs of these shapes."""
    # jax 0.10 takes 0.4 s to optimise each draw for the CPU; level 0 compiles a whole model ten times faster.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(model.init, compiler_options=options)(jax.random.key(0), *inputs)
