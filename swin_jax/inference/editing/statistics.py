"""The facts of a generator that global directions need,
as files: statistics of S, and the relevance of channels.

The files are those of the released code, S_mean_std and fs3.npy, and beside them statistics.json,
which says of which weights they are.
"""

import json
import os
import pickle
from typing import Any

import numpy as np

from swin_jax.core import storage
from swin_jax.core.errors import UserError, warn
from swin_jax.core.params import network_fields, weights_checksum
from swin_jax.models.styleclip.statistics import Draws, Statistics
from swin_jax.models.stylegan2 import Generator
from swin_jax.pretrained.styleclip.statistics import check_belong, read_directions, read_statistics

MOMENTS, DIRECTIONS, ORIGIN = "S_mean_std", "fs3.npy", "statistics.json"
_SUFFIXES = ("", ".npy", ".pkl", ".pickle")  # of S_mean_std
_PORT_CUTOFF = 8  # rows of W+ that the port to torch truncates
_FEW = 1000  # draws that tell whether statistics are of a generator


def origin(
    generator_variables: dict, clip_variables: dict, clip: Any, **settings: Any
) -> dict[str, Any]:
    """The facts that statistics depend on: checksums of the weights, what the CLIP's image tower
    computes with beside them, and settings, as JSON holds them.
    """
    facts = {
        "generator": weights_checksum(generator_variables),
        "clip": weights_checksum(clip_variables),
    }
    if clip is not None:
        facts["network"] = network_fields(clip.visual)
    return json.loads(json.dumps(facts | settings))


def write_moments(folder: str | os.PathLike, found: Statistics) -> None:
    """Writes S_mean_std in the released form: a pickle of a list of means and one of deviations."""
    data = pickle.dumps([list(found.means), list(found.deviations)], protocol=2)
    storage.write(storage.path(folder) / MOMENTS, data)


def find_moments(folder: str | os.PathLike) -> Any:
    """The path of S_mean_std in a folder, or None."""
    paths = [storage.path(folder) / f"{MOMENTS}{suffix}" for suffix in _SUFFIXES]
    return next((path for path in paths if path.is_file()), None)


def check_folder(folder: str) -> None:
    """Raises UserError, naming the flag, for a folder without statistics; reads none."""
    path = storage.path(folder)
    missing = [DIRECTIONS] * (not (path / DIRECTIONS).is_file()) + [MOMENTS] * (
        find_moments(path) is None
    )
    if missing:
        raise UserError(
            f"--config.statistics={folder}: there is no {' and no '.join(missing)}; "
            "give a folder with both, or leave the flag out to compute them"
        )


def read_folder(
    folder: str | os.PathLike,
    generator: Generator,
    variables: dict,
    clip_variables: dict,
    features: int | None = None,
    clip: Any = None,
) -> tuple[Statistics, np.ndarray]:
    """Reads statistics and directions, released or computed here,
    and checks that they are of a generator.

    Args:
        folder: Folder with S_mean_std and fs3.npy.
        generator, variables: The model.
        clip_variables: Variables of the CLIP.
        features: Width of its features, if it is known.
        clip: The CLIP, whose activation and the like are compared; None compares its weights only.

    Returns:
        (the statistics, relevance (channels, features) float32, see `read_directions`).

    Raises:
        UserError: Files that are missing, or those of other weights.
    """
    check_folder(os.fspath(folder))
    path, layers = storage.path(folder), generator.style_layers()
    found = read_statistics(find_moments(path), layers)
    rows = read_directions(path / DIRECTIONS, layers, features)
    if (path / ORIGIN).is_file():
        check_origin(path, origin(variables, clip_variables, clip))
    else:
        _check_released(found, generator, variables)
    return found, rows


def _check_released(found: Statistics, generator: Generator, variables: dict) -> None:
    """Raises UserError for statistics of another generator;
    the released code and its port truncate in two ways.
    """
    layers, problems = generator.style_layers(), []
    for cutoff in (None, _PORT_CUTOFF):
        draws = Draws(truncation_cutoff=cutoff)
        try:
            return check_belong(found, draws.styles(generator, variables, _FEW), layers)
        except UserError as error:
            problems.append(error)
    raise problems[0]


def is_complete(folder: Any) -> bool:
    """True if a folder holds statistics that were computed here, to the end."""
    return (
        (folder / ORIGIN).is_file()
        and (folder / DIRECTIONS).is_file()
        and find_moments(folder) is not None
    )


def check_origin(folder: Any, expected: dict[str, Any]) -> None:
    """Raises UserError if the statistics in a folder are of other weights or,
    where they are given, settings. Warns of older ones, which do not tell the CLIP's activation.
    """
    stored = storage.read_object(folder / ORIGIN)
    for name, what in (
        ("generator", "another generator"),
        ("clip", "another CLIP"),
        ("network", "a CLIP with another activation or the like"),
        ("settings", "other settings"),
    ):
        if name not in expected:
            continue
        if name == "network" and name not in stored:
            warn(
                f"{folder} does not tell with which activation of the CLIP its statistics were "
                "made; compute them again if the model's has changed since"
            )
        elif stored.get(name) != expected[name]:
            raise UserError(
                f"{folder} holds statistics of {what}; move it away to "
                "compute those that are asked for"
            )
