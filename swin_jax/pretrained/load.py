"""Loads a model with its weights in one line.

model, variables = swin_jax.load("swin_tiny_patch4_window7_224", weights="official")
logits = model.apply(variables, swin_jax.preprocess(model)("cat.jpg"))

model, variables = swin_jax.load("ViT-B/32", weights="official")
features = model.apply(variables, swin_jax.preprocess(model)("cat.jpg"), method="encode_image")

model, variables = swin_jax.load("swin_tiny_patch244_window877_kinetics400_1k", weights="official")
logits = model.apply(variables, swin_jax.preprocess(model)("jump.mp4"))
"""

import fnmatch
import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

from swin_jax.core import storage
from swin_jax.core.errors import UserError, is_ours, warn, with_article
from swin_jax.core.public_names import check_names, name_of
from swin_jax.core.ranges import plain_arguments
from swin_jax.pretrained import (
    beside,
    compare,
    names,
    preparation,
    recognize,
    run_preparation,
)
from swin_jax.pretrained.arcface import loader as arcface
from swin_jax.pretrained.arguments import (
    check_arguments,
    check_resize,
    check_sizes,
    check_values,
    has_config,
    load_run,
    random_variables,
    read_config,
)
from swin_jax.pretrained.beside import read
from swin_jax.pretrained.clip import loader as clip
from swin_jax.pretrained.e4e import loader as e4e
from swin_jax.pretrained.family import Family, Weights
from swin_jax.pretrained.files import download
from swin_jax.pretrained.media import shown
from swin_jax.pretrained.preparation import Preparation
from swin_jax.pretrained.preparations.loaded import prepare
from swin_jax.pretrained.segmentation import loader as segmentation
from swin_jax.pretrained.styleclip import loader as styleclip
from swin_jax.pretrained.stylegan2 import loader as stylegan2
from swin_jax.pretrained.swin import loader as swin
from swin_jax.pretrained.video_swin import loader as video_swin

FAMILIES: tuple[Family, ...] = (
    swin.FAMILY,
    clip.FAMILY,
    video_swin.FAMILY,
    segmentation.FAMILY,
    stylegan2.FAMILY,
    stylegan2.DISCRIMINATOR_FAMILY,
    arcface.FAMILY,
    e4e.FAMILY,
    styleclip.FAMILY,
)


def list_models(pattern: str = "*") -> list[str]:
    """Lists the names that `load` takes; see `swin_jax.list_models`."""
    if not isinstance(pattern, str):
        raise UserError(f"pattern={shown(pattern)} must be a str, such as 'swinv2_*'")
    found = {name for family in FAMILIES for name in family.names()}
    return sorted(name for name in found if fnmatch.fnmatch(name.lower(), pattern.lower()))


def load(
    name: str | None = None,
    weights: str | Path | None = None,
    resize: str | None = None,
    key: str | None = None,
    **overrides,
) -> tuple[nn.Module, dict]:
    """A model, which carries its preparation, and its variables; see `swin_jax.load`."""
    weights = storage.expanded(weights)
    try:
        with storage.permitted():
            model, variables, prepared = _load(name, weights, resize, key, overrides)
    except UserError:
        raise
    except compare.SHAPE_ERRORS as error:
        if (
            overrides
            and is_ours(error)
            and isinstance(error, (ValueError, TypeError, ArithmeticError))
        ):
            raise _no_model(overrides, error) from error
        if weights is None or not is_ours(error):
            raise
        if is_workdir(weights):
            why = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"{weights}/config.json describes a model that this version cannot make ({why})"
            ) from error
        if not Path(weights).exists():
            raise
        raise compare.no_model_of(weights, error) from error
    beside.attach_origin(model, weights)
    return preparation.attach(model, prepared), variables


def _no_model(overrides: dict, error: Exception) -> UserError:
    given = ", ".join(f"{key}={shown(value)}" for key, value in overrides.items())
    # Some of Flax's messages contain a model printed in many lines.
    text = re.split(r"\.? *\w+\(\s*# attributes|(?<=\.)\s", " ".join(str(error).split()))[0]
    return UserError(f"{given} does not make a model: {text[:200]}")


def make(family: Family, fields: dict, overrides: dict) -> nn.Module:
    """Makes a model of a family, without variables; raises UserError for invalid overrides."""
    check_values(overrides, family.make)
    try:
        model = family.make(**fields | overrides)
        if overrides:
            shapes(model)
    except (ValueError, TypeError, ArithmeticError) as error:
        if not overrides or not is_ours(error):
            raise
        raise _no_model(overrides, error) from error
    return model


def shapes(model: nn.Module) -> dict:
    """The shapes of a model's variables, found by tracing it; raises the model's own error if its
    fields don't fit.
    """
    return jax.eval_shape(model.init, jax.random.key(0), *family_of(model).inputs(model).values())


def family_of(model: nn.Module) -> Family:
    """The family of a model; raises UserError if it belongs to none."""
    for family in FAMILIES:
        if isinstance(model, family.models):
            return family
    known = " or ".join(
        with_article(kind.__name__) for family in FAMILIES for kind in family.models
    )
    kind = with_article(type(model).__name__)
    raise UserError(f"this takes a model that load() returned, {known}, not {kind}")


def _load(
    name: str | None,
    weights: str | Path | None,
    resize: str | None,
    key: str | None,
    overrides: dict,
) -> tuple[nn.Module, dict, Preparation | UserError | None]:
    """Resolves a name and weights in the order of the six sentences of docs/architecture.md."""
    _check_given(name, weights)
    if weights is not None and is_workdir(weights):
        if key is not None:
            raise UserError(
                f"{weights} is the workdir of a run, whose weights are "
                f"taken without key={shown(key)}"
            )
        if name is not None:
            raise UserError(f"{weights} determines the model; omit the name {name!r}")
        return _load_workdir(weights, resize, overrides)
    family, word = _find(name, weights)
    overrides = _check_arguments(family, resize, overrides)
    if weights is None and key is not None:
        raise UserError(f"key={shown(key)} selects weights in a file: give weights= as well")
    if weights is None:
        return _load_random(family, word, overrides)
    found = read_weights(family, word, weights, key)
    if family is None:
        family = recognize_family(found.arrays)
        overrides = _check_arguments(family, resize, overrides)
        fields = fields_of(family, found, overrides)
    else:
        fields = family.preset(word) | _told_beside(family, word, found)
        check_sizes(family, fields, overrides, found)
    if overrides:
        make(family, fields, overrides)  # refuse an invalid model before fitting a file to it
    model, variables = family.load(found, fields, resize, overrides)
    return model, variables, prepare(family, model, word, found, "image_size" in overrides)


def _told_beside(family: Family, word: str, weights: Weights) -> dict:
    """The arguments that a config beside weights gives a named model; raises UserError if they
    contradict the name.

    The activation may differ: OpenAI's names are used for weights with the other activation too.
    """
    told, preset = family.configured(weights), family.preset(word)
    for key in told.keys() & preset.keys() - {"act"}:
        if told[key] != preset[key]:
            raise UserError(
                f"{weights.config.path} says {key}={told[key]}, "
                f"but the name {weights.name} means {preset[key]}: leave out the name"
            )
    return told


def fields_of(family: Family, weights: Weights, overrides: dict) -> dict:
    """The arguments of the model that weights without a name belong to."""
    told = family.configured(weights)
    return family.infer(weights.arrays, told | overrides) | told


def _check_given(name: str | None, weights: str | Path | None) -> None:
    if name is None and weights is None:
        raise UserError("give load() a name or weights; swin_jax.list_models() gives all names")
    if not isinstance(name, (str, type(None))) or name == "":
        raise UserError(
            f"name={shown(name)} is not the name of a model; swin_jax.list_models() gives all names"
        )
    if not isinstance(weights, (str, os.PathLike, type(None))) or weights == "":
        raise UserError(
            f"weights={shown(weights)} is neither 'official' nor a file, a folder or a name"
        )


def _find(name: str | None, weights: str | Path | None) -> tuple[Family | None, str | None]:
    """The family of a name, and the name as the family accepts it; (None, None) if only weights are
    given.
    """
    if name is not None:
        found = names.find(name, FAMILIES)
        if found is None and weights is None and ("://" in name or Path(name).exists()):
            raise UserError(
                f"{name!r} is not the name of a model but a path to weights: load(weights={name!r})"
            )
        if found is None:
            raise names.unknown(name, FAMILIES)
        return found
    if Path(weights).exists():
        return None, None
    return names.find(str(weights), FAMILIES) or (None, None)


def _check_arguments(family: Family | None, resize: str | None, overrides: dict) -> dict:
    """Checks the names of overrides and, if the family is known, their values, which become plain,
    see `ranges.plain`.
    """
    families = FAMILIES if family is None else (family,)
    known = set().union(*(family.fields for family in families))
    check_arguments("a model" if family is None else family.make.__name__, overrides, known)
    if family is not None:
        check_values(overrides, family.make)
    choices = dict.fromkeys(choice for family in families for choice in family.resizes)
    check_resize(
        " or ".join(with_article(family.title) for family in families), resize, tuple(choices)
    )
    return overrides if family is None else overrides | plain_arguments(family.make, overrides)


def is_workdir(folder: str | Path) -> bool:
    """True if a folder, local or in a bucket, is the workdir of a run: it has a config.json that
    no hub wrote.
    """
    return has_config(folder) and ("://" in str(folder) or beside.weights_in(folder) is None)


def _load_random(
    family: Family, word: str, overrides: dict
) -> tuple[nn.Module, dict, Preparation | None]:
    model = make(family, family.preset(word), overrides)
    warn(f"{word} has random weights; {family.source}")
    variables = random_variables(model, *family.inputs(model).values())
    return model, variables, prepare(family, model, word)


def _load_workdir(
    workdir: str | Path, resize: str | None, overrides: dict
) -> tuple[nn.Module, dict, Preparation | UserError]:
    config = read_config(workdir)
    for place in dict.fromkeys(family.place for family in FAMILIES):
        check_names(config, f"{place}.", f"{workdir}/config.json")
    families = [
        family
        for family in FAMILIES
        if config.get(f"{family.place}.fn") in map(name_of, family.makers)
    ]
    if not families:
        maker = config.get("task.model.fn")
        known = ", ".join(fn.__name__ for family in FAMILIES for fn in family.makers)
        raise UserError(
            f"{workdir}: task.model.fn of its config.json is {maker}, "
            f"which load() does not know ({known})"
        )
    overrides = _check_arguments(families[0], resize, overrides)
    model, variables = load_run(families[0], workdir, config, resize, overrides)
    try:
        prepared = run_preparation.of_run(config, workdir)
    except UserError as error:  # raised when the preparation is used
        return model, variables, _refusal(families[0], model) or error
    channels = overrides.get("in_channels", prepared.channels)
    if channels != prepared.channels:
        error = (
            f"{workdir} prepares pictures of {prepared.channels} channels, "
            f"but this model takes {channels}"
        )
        return model, variables, UserError(f"{error}: give your own preparation")
    if "image_size" in overrides:
        prepared = prepared.replace(image_size=overrides["image_size"])
    return model, variables, prepared


def _refusal(family: Family, model: nn.Module) -> UserError | None:
    """The reason why a family's models of this kind have no preparation; None if they have one."""
    try:
        family.preprocess(model, None)
    except UserError as error:
        return error
    return None


def read_weights(
    family: Family | None, word: str | None, weights: str | Path, key: str | None = None
) -> Weights:
    """Reads the arrays that `weights` stands for.

    Args:
        family: The family of the name, or None.
        word: The name of the model, or None.
        weights: 'official', a file, a folder of a hub, a name of published weights, or a URL.
        key: The weights to take from a file that holds several, see `files.read.read`.
    """
    take = functools.partial(read, key=key)
    words = tuple(dict.fromkeys(str(text) for text in (word, weights) if text is not None))
    if weights == "official":
        if word is None:
            raise UserError("weights='official' needs a name")
        path = family.fetch(word)
        return Weights(take(path), path, words, word, published=True)
    path = Path(weights)
    if path.is_dir():
        path = beside.weights_in(path)
        if path is None:
            raise _no_weights(weights)
    if path.exists() or path.is_symlink():
        config = beside.config_beside(path)
        return Weights(take(path), path, (word,) if word else (), word, config=config)
    if "://" in str(weights):
        path = download.fetch(str(weights))
        arrays = download.read(path, str(weights), take)
        return Weights(arrays, path, words, word, config=beside.config_beside(path))
    publisher = names.find(str(weights), FAMILIES)
    if publisher is None:
        raise UserError(
            f"{weights} is not a file, a workdir or the name of official weights"
            f"{names.suggest(str(weights), FAMILIES)}"
        )
    path = publisher[0].fetch(publisher[1])
    return Weights(take(path), path, words, word, published=True)


def _no_weights(folder: str | Path) -> UserError:
    """Makes the error for a folder that is neither a workdir nor a folder of a hub."""
    for parent in Path(folder).absolute().parents[:2]:
        if (parent / "checkpoints").is_dir() and is_workdir(parent):
            return UserError(
                f"{folder} is a folder inside the workdir of a run: give the workdir, {parent}"
            )
    return UserError(
        f"{folder} is a directory without a config.json: not the workdir of a run, "
        "nor a folder of a hub (config.json and model.safetensors)"
    )


def recognize_family(arrays: Mapping[str, np.ndarray]) -> Family:
    """The one family that recognizes these arrays; raises UserError if none does, or several do."""
    found = [family for family in FAMILIES if family.recognizes(arrays)]
    if len(found) == 1:
        return found[0]
    if found:
        titles = " or ".join(with_article(family.title) for family in found)
        usual = " or ".join(repr(family.usual) for family in found)
        raise UserError(
            f"these weights could be {titles}: give load() the name of the model, "
            f"{usual} for example"
        )
    looks = recognize.foreign(arrays)
    titles = ", ".join(family.title for family in FAMILIES)
    unknown = (
        f"these weights are not of a family that load() supports ({titles}): {_first(list(arrays))}"
    )
    raise UserError(looks or f"{unknown}; take a file of one of these")


def _first(keys: Sequence[str]) -> str:
    return f"their {len(keys)} names begin with {', '.join(keys[:3])}" if keys else "there are none"
