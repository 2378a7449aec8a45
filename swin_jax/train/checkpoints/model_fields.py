"""Fields of a model that its arrays do not tell: those of the run that saved them, compared with
those of the model that takes them.

Two models may have arrays of equal names and shapes and compute different functions, by another
token mixer or activation for example. The run's config tells which one the arrays are of.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from swin_jax.core import config as configs
from swin_jax.core import saved_config
from swin_jax.core.errors import UserError, warn
from swin_jax.core.params import network_fields
from swin_jax.ops import window_geometry

# Fields to which weights are made fit, of which readers of weights tell; initial values; parts
# that a model has or has not.
_ADAPTED = re.compile(
    r"num_classes|in_channels|auxiliary_channels|(patch|merge|window)_size|pretrained_window_sizes"
    r"|out_norms|context_length|temporal_(window|layers)|init_\w+|logit_bias"
)
# Parameters whose rows lie as a field of their module says, which equal shapes do not tell.
_LAID_OUT = {
    "window_size": re.compile("relative_position_bias_table$"),
    "image_size": re.compile("(absolute_pos_embed|positional_embedding)$"),
}


def tell_other_fields(
    name: str, config: Mapping[str, Any], models: Iterable[Any], inner: bool = False
) -> None:
    """Warns where models compute something else with a run's weights than the run's own did.

    Args:
        name: The workdir.
        config: The run's flat config, with the names of today; {} where it is not known.
        models: The models that take the weights.
        inner: True if the heads of models that are made around a backbone keep their
            initialization, so that the backbone alone counts.
    """
    trained = [module for model in _models_of(config) for module in _modules(model)]
    there, here = [], []
    for model in models:
        modules = list(_modules(model))
        for ours in modules[1:] if inner and len(modules) > 1 else modules:
            theirs = next((module for module in trained if type(module) is type(ours)), None)
            for field in () if theirs is None else _differing(theirs, ours):
                there.append(f"{field}={getattr(theirs, field)!r}")
                here.append(f"{field}={getattr(ours, field)!r}")
    if there:
        warn(
            f"{name} was trained with {', '.join(there)}; this run's model has {', '.join(here)} "
            "and computes something else with the same weights: give the model the same fields "
            "unless that is what you want"
        )


def models_of_task(task: Any) -> list[Any]:
    """The models that a task trains: `model`, or a generator and a discriminator."""
    if hasattr(task, "model"):
        return [task.model]
    fields = dataclasses.fields(task) if dataclasses.is_dataclass(task) else ()
    values = (getattr(task, field.name) for field in fields)
    return [value for value in values if _is_module(value)]


def _models_of(config: Mapping[str, Any]) -> Iterator[Any]:
    """The models of a run's task, those that it trains first."""
    places = [
        key.removesuffix(".fn")
        for key, value in config.items()
        if re.fullmatch(r"task\.\w+(\.model)?\.fn", key)
        and str(value).startswith("swin_jax.models.")
    ]
    for place in sorted(places, key=lambda place: place.count(".")):
        own = {key: value for key, value in config.items() if key.startswith(f"{place}.")}
        makers = [str(value) for key, value in own.items() if key.endswith(".fn")]
        if not all(maker.startswith("swin_jax.models.") for maker in makers):
            continue  # parts of the user's own: the shapes must tell
        try:
            built = configs.build(saved_config.rebuild(own, "config.json"))
        except (UserError, TypeError, ValueError):  # of another version, or damaged
            continue
        for part in place.split("."):
            built = built[part]
        if _is_module(built):
            yield built


def _is_module(value: Any) -> bool:
    """True for a linen module, which this room does not import."""
    is_made = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return is_made and hasattr(value, "apply") and hasattr(value, "init")


def _modules(model: Any) -> Iterator[Any]:
    """A module and those in its fields."""
    if not _is_module(model):
        return
    yield model
    for field in dataclasses.fields(model):
        if field.name != "parent":
            yield from _modules(getattr(model, field.name, None))


def _differing(theirs: Any, ours: Any) -> list[str]:
    """The fields of two modules of a class that differ and that weights are not made to fit."""
    names = (name for name in network_fields(ours) if not _ADAPTED.fullmatch(name))
    return [name for name in names if not _is_same(name, theirs, ours)]


def _is_same(name: str, theirs: Any, ours: Any) -> bool:
    one, other = getattr(theirs, name), getattr(ours, name)
    if _is_module(other) or one == other:
        return True
    if name == "shift":  # two ways to compute one function
        return {one, other} == {"roll", "pad"}
    if name == "small" and hasattr(ours, "window_size"):
        return _fit_alike(theirs, ours)
    return network_fields(one) == network_fields(other)


def _fit_alike(theirs: Any, ours: Any) -> bool:
    """True if two Swins treat the maps of the second one alike, or are of other tasks: a classifier
    and a dense backbone, pictures and clips.
    """
    axes = window_geometry.num_axes(ours)
    if window_geometry.num_axes(theirs) != axes or bool(theirs.out_norms) != bool(ours.out_norms):
        return True
    windows = window_geometry.per_stage(ours.window_size, len(ours.depths), axes)
    return all(
        window_geometry.fit(grid, window, theirs.small)
        == window_geometry.fit(grid, window, ours.small)
        for grid, window in zip(window_geometry.stage_geometry(ours)[0], windows)
    )


def check_layout(
    name: str, config: dict[str, Any], model: Any, paths: Iterable[str], key: str
) -> None:
    """Raises UserError where tables of a workdir are of a window or grid that
    lies across the model's.

    Args:
        name: The workdir.
        config: Flat config of the workdir.
        model: The model that the weights are for.
        paths: Paths of the workdir's parameters.
        key: Dotted key of the source in the config, for messages.
    """
    for entry, theirs in config.items():
        *inside, field = entry.removeprefix("task.model.").split(".")
        if not entry.startswith("task.model.") or field not in _LAID_OUT:
            continue
        module = functools.reduce(lambda outer, part: getattr(outer, part, None), inside, model)
        # Of a CLIP that a function makes.
        if not hasattr(module, field) and hasattr(module, "visual"):
            module, inside = module.visual, [*inside, "visual"]
        ours, place = getattr(module, field, None), "/".join(inside)
        tables = (
            path for path in paths if path.startswith(place) and _LAID_OUT[field].search(path)
        )
        if (table := next(tables, None)) and _is_across(theirs, ours):
            theirs = tuple(theirs) if isinstance(theirs, list) else theirs
            raise UserError(
                f"{name}: {table} is for {field}={theirs}, the model's for {ours}; {key} without "
                f"convert resizes no tables: give the model {field}={theirs}, or a convert such "
                "as swin_jax.pretrained.swin.finetune.pretrained in the experiment"
            )


def _is_across(one: Any, other: Any) -> bool:
    """True for sizes of which each is longer than the other in some axis;
    a longer one may shrink to the other.
    """
    try:
        one, other = np.broadcast_arrays(one, other)
    except ValueError:
        return False
    if one.dtype.kind not in "iu" or other.dtype.kind not in "iu":
        return False
    return bool(np.any((one < other).any(-1) & (one > other).any(-1)))
