"""Checks of the arguments of `load`, and helpers that the loaders of all families share.

The helpers read the config of a run, make random weights, and refuse weights of another model
than the name says.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from swin_jax.core import stacking, storage
from swin_jax.core.errors import UserError, did_you_mean, with_article
from swin_jax.core.output.text import quoted
from swin_jax.core.params import flatten
from swin_jax.core.public_names import current_names
from swin_jax.core.ranges import check, shown
from swin_jax.core.saved_config import OF_MEMORY
from swin_jax.pretrained.family import Family, Weights


def check_arguments(what: str, overrides: dict, known: Iterable[str]) -> None:
    """Raises UserError for an argument that `what` does not have."""
    unknown = sorted(overrides.keys() - set(known))
    if unknown:
        raise UserError(f"{what} has no argument {unknown[0]!r}{did_you_mean(unknown[0], known)}")


def check_values(overrides: dict, make: Callable) -> None:
    """Raises RangeError for a number outside the range that the model's signature gives it.

    Args:
        overrides: Arguments of a model; None always passes.
        make: The class or function that makes the model.
    """
    check(make, {key: value for key, value in overrides.items() if value is not None})


def check_resize(what: str, resize: Any, choices: Sequence[str]) -> None:
    """Raises UserError for a `resize` that `what` does not have; None always passes."""
    if resize is None or (isinstance(resize, str) and resize in choices):
        return
    if not choices:
        raise UserError(f"resize={shown(resize)}: {what} has nothing to resize; leave it out")
    known = ", ".join(map(repr, choices))
    raise UserError(f"resize={shown(resize)} is not {'one of ' if len(choices) > 1 else ''}{known}")


def has_config(name: str | os.PathLike) -> bool:
    """True if a folder, local or in a bucket, has a config.json; False for URLs and for anything
    that is not a folder.
    """
    known = storage.is_remote(name) or "://" not in os.fspath(name)
    return known and (storage.path(name) / "config.json").is_file()


def read_config(workdir: str | os.PathLike) -> dict:
    """The resolved config of a run: a flat dict of dotted keys."""
    return current_names(storage.read_object(storage.path(workdir) / "config.json"))


def load_run(
    family: Family, workdir: str | os.PathLike, config: dict, resize: str | None, overrides: dict
) -> tuple[Any, dict]:
    """The model of a run and its variables; the model has a place for each of them.

    Args:
        family: The family of the model.
        workdir: Workdir of the run.
        config: The run's config, as `read_config` gives it.
        resize, overrides: The same as in `load`.

    Raises:
        UserError: config.json and the checkpoint describe different models, or the family's
            `load_workdir` raises it.
    """
    from swin_jax.train import checkpoint

    _check_model_of_run(config, workdir, family.place)
    checkpoint.check_layers(workdir, config)
    model, variables = family.load_workdir(workdir, config, resize, overrides)
    made = jax.eval_shape(model.init, jax.random.key(0), *family.inputs(model).values())
    wanted, found = (_official_names(tree["params"]) for tree in (made, variables))
    # A latent mapper has parameters only for the levels of its input, so missing ones are not
    # checked here; they show when the model is called.
    if ignored := sorted(found - wanted):
        raise UserError(
            f"{workdir}/config.json describes another model than its checkpoint, which has "
            f"{len(ignored)} parameters that the model would ignore, such as {ignored[0]}"
        )
    return model, variables


def _official_names(params: Any) -> set[str]:
    """The official names of parameters, which are the same whether or not layers are stacked."""
    leaves = flatten(params).items()
    return {name for path, leaf in leaves for name in stacking.official_names(path, leaf)}


def _check_model_of_run(config: dict, workdir: str | os.PathLike, place: str) -> None:
    """Raises UserError if config.json was edited so that it no longer describes the model of the
    checkpoint.

    Args:
        config: The run's config, as `read_config` gives it.
        workdir: Workdir of the run; its newest checkpoint may hold a copy of the config.
        place: Dotted key of the model in the config.
    """
    from swin_jax.train import checkpoint

    for key, trained in sorted(checkpoint.saved_config(workdir).items()):
        found = config.get(key)
        if key.startswith(f"{place}.") and not OF_MEMORY.search(key) and found != trained:
            raise UserError(
                f"{workdir}/config.json: {quoted(key)} is {quoted(found)}, but the checkpoint was "
                f"trained with {quoted(trained)}; set it back"
            )


def random_variables(model, *inputs: np.ndarray | jax.ShapeDtypeStruct) -> dict:
    """The random variables that `model.init` makes for inputs of these shapes."""
    # jax 0.10 takes 0.4 s to optimize each random draw for the CPU;
    # level 0 compiles a whole model ten times faster.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    zeros = (np.zeros(x.shape, x.dtype) for x in inputs)
    return jax.jit(model.init, compiler_options=options)(jax.random.key(0), *zeros)


def check_sizes(family: Family, fields: dict, overrides: dict, weights: Weights) -> None:
    """Raises UserError if the weights are for a model of another size than the name says."""
    kind = next((kind for kind in (family, *family.takes) if kind.recognizes(weights.arrays)), None)
    if kind is None:
        return
    try:
        found = kind.infer(weights.arrays, fields | overrides)
    except UserError:  # fitting the weights raises a more detailed error
        return
    wrong = [key for key in family.sizes if key in fields and found.get(key) != fields[key]]
    if not wrong or set(wrong) & overrides.keys():
        return
    sizes = _shown_sizes(wrong, found)
    name = _closest(kind, found)
    if kind is not family:  # a name of the weights' own family would make another kind of model
        same = _closest(family, fields | {key: found.get(key) for key in family.sizes})
        advice = f"give the name {same!r}" if same else f"give {sizes}"
    elif name:
        advice = "give that name, or leave out the name"
    else:
        advice = f"leave out the name, or give {sizes}"
    raise UserError(
        f"{weights.path or weights.words[-1]}: this file is {with_article(name or kind.title)} "
        f"({sizes}), not {with_article(weights.name)} ({_shown_sizes(wrong, fields)}); {advice}"
    )


def _shown_sizes(keys: Sequence[str], fields: dict) -> str:
    return ", ".join(f"{key}={fields.get(key)}" for key in keys)


def _closest(family: Family, found: dict) -> str | None:
    """The name of the model with these sizes that shares most of the other fields;
    None if no model has these sizes.
    """
    scores = {}
    for name in family.names():
        fields = family.preset(name)
        if all(fields.get(key) == found.get(key) for key in family.sizes if key in fields):
            scores[name] = sum(found.get(key) == value for key, value in fields.items()) / len(
                fields
            )
    return max(scores, key=scores.get) if scores else None
