"""`preprocess`: finds the preparation of a model, a name, a file, a folder or a workdir."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn

from swin_jax.core import storage
from swin_jax.core.errors import UserError, warn
from swin_jax.pretrained import compare, names, preparation, run_preparation
from swin_jax.pretrained import load as loading
from swin_jax.pretrained.arguments import check_values, read_config
from swin_jax.pretrained.media import shown
from swin_jax.pretrained.preparation import Preparation
from swin_jax.pretrained.preparations import loaded


def preprocess(
    model: nn.Module | str | os.PathLike, key: str | None = None, **overrides: Any
) -> Preparation:
    """The preparation of a model, see `swin_jax.preprocess`; warns about assumptions."""
    model = storage.expanded(model)
    if key is not None and (isinstance(model, nn.Module) or not _is_file(model)):
        raise UserError(
            f"key={shown(key)} selects weights in a file, but {shown(model)} is not a file"
        )
    if isinstance(model, nn.Module):
        found = _of_model(model)
    elif isinstance(model, (str, os.PathLike)) and str(model) != "":
        with storage.permitted():
            found, overrides = _of_source(model, overrides, key)
    else:
        raise UserError(
            "preprocess takes a model, its name, the workdir of a run or a file of weights, "
            f"not {shown(model)}"
        )
    if overrides:
        found = found.replace(**overrides)
    if found.assumed:
        warn(
            f"it is unknown how this model's {found.input}s were prepared; assumed: "
            f"{found.assumptions()}. Give what differs to preprocess()",
        )
    return found


def _of_model(model: nn.Module) -> Preparation:
    """The preparation that a model carries, or that of its family; lists its assumptions only the
    first time.
    """
    carried = preparation.carried(model)
    if carried is None:
        carried = loading.family_of(model).preprocess(model, None)
    preparation.attach(model, dataclasses.replace(carried, assumed=()))
    return carried


def _is_file(source: Any) -> bool:
    return (
        isinstance(source, (str, os.PathLike))
        and Path(source).exists()
        and not loading.is_workdir(source)
    )


def _of_source(
    source: str | os.PathLike, overrides: dict[str, Any], key: str | None
) -> tuple[Preparation, dict[str, Any]]:
    """The preparation of a workdir, a file, a folder or a name; and the overrides not yet used."""
    if loading.is_workdir(source):
        return run_preparation.of_run(read_config(source), source, given=overrides), overrides
    if Path(source).exists():
        weights, word = loading.read_weights(None, None, source, key), None
        try:
            family = loading.recognize_family(weights.arrays)
            check_values(overrides, family.make)
            fields = loading.fields_of(family, weights, overrides)
        except UserError:
            raise
        except compare.SHAPE_ERRORS as error:
            raise compare.no_model_of(source, error) from error
    else:
        known = names.find(str(source), loading.FAMILIES)
        if known is None:
            near = names.suggest(str(source), loading.FAMILIES)
            raise UserError(f"{source} is not a file, a workdir or the name of a model{near}")
        (family, word), weights = known, None
        fields = family.preset(word)
    own = {key: value for key, value in overrides.items() if key in family.fields}
    model = loading.make(family, fields, own)
    if "image_size" in own:
        _check_axes(
            source,
            own["image_size"],
            family.inputs(family.make(**fields), None),
            family.inputs(model, None),
        )
    found = loaded.prepare(family, model, word, weights, "image_size" in overrides)
    if found is None:
        found = family.preprocess(model, word)  # which raises
    return found, {key: value for key, value in overrides.items() if key not in own}


def _check_axes(
    source: str | os.PathLike,
    image_size: Any,
    inputs: Mapping[str, Any],
    changed: Mapping[str, Any],
):
    """Raises UserError for an image size that would turn an image model into a video model, or the
    other way round.
    """
    if inputs.keys() != changed.keys():
        (kind,), (other,) = inputs, changed
        raise UserError(
            f"image_size={image_size} is for a model of {other}s, but {source} takes {kind}s"
        )
