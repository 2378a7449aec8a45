"""Finds networks that judge or encode pictures in larger state dicts, for `train.init_from`.

A released file may hold such a network under a prefix, beside a generator or a head that is not
needed.
"""

import logging
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.pretrained import beside, compare
from swin_jax.pretrained.files import choose

log = logging.getLogger(__name__)


def prefixes(state_dict: Collection[str], needed: Sequence[str]) -> list[str]:
    """The prefixes of the names of each network in a state dict.

    Args:
        state_dict: Names of arrays.
        needed: Names that every network of the kind has, the rarest one first.
    """
    first, *others = needed
    found = (name.removesuffix(first) for name in state_dict if name.endswith(first))
    return [prefix for prefix in found if all(f"{prefix}{name}" in state_dict for name in others)]


def own_part(
    state_dict: Mapping[str, np.ndarray], needed: Sequence[str], own: str, kind: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of a network under their official names, without prefix and buffers; and the names
    of all other arrays.

    Args:
        state_dict: {name: array}.
        needed: The same as in `prefixes`.
        own: A regex that matches the beginning of the network's own names.
        kind: The kind of network, for the error.

    Raises:
        UserError: There is no such network, or there are several and the rule of `files.choose`
            does not decide.
    """
    names = compare.strip_wrappers(state_dict)
    found = prefixes(names, needed)
    if not found:
        missing = [name for name in needed if name not in names]
        raise UserError(f"these weights are not those of a {kind}: they lack {', '.join(missing)}")
    roots = [prefix.removesuffix(".") for prefix in found]
    chosen = choose.preferred(roots) if len(roots) > 1 else roots[0]
    if chosen is None:
        raise choose.several(roots)
    prefix = found[roots.index(chosen)]
    places = {name: name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    inside = {name: place for name, place in places.items() if re.match(own, place)}
    arrays = {place: names[name] for name, place in inside.items()}
    return compare.drop_buffers(arrays), [name for name in names if name not in inside]


def read(
    source: str | os.PathLike | Mapping,
    key: str | None,
    convert: Callable[[Mapping[str, np.ndarray]], dict],
    license: str,
) -> dict:
    """The variables of a network from a run, or from a file, whose license is logged.

    Args:
        source: A file that `pretrained.files.read` can read, or variables, of which 'params',
            'batch_stats' and 'averages' are used.
        key: The weights to take from a file that holds several, see `pretrained.files.read`.
        convert: A function that converts a file's state dict to variables.
        license: License of the released file.

    Raises:
        UserError: The file cannot be read, or its weights do not fit.
    """
    if isinstance(source, Mapping):
        taken = ("params", "batch_stats", "averages")
        return {name: source[name] for name in taken if name in source}
    variables = convert(beside.read(Path(source), key))
    log.warning("%s: %s", source, license)
    return variables
