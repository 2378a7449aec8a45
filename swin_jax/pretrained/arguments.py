"""The arguments of `load`: their names, the config of a run, random weights if it is given none,
and weights of another model than the name.

Shared by the loaders of all families.
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
    """Raises RangeError for a number that is out of its range in the signature of
    what makes the model.

    Args:
        overrides: Arguments of a model; None passes as any.
        make: The class or function that makes the model.
    """
    check(make, {key: value for key, value in overrides.items() if value is not None})


def check_resize(what: str, resize: Any, choices: Sequence[str]) -> None:
    """Raises UserError for a `resize` that `what` does not have; None always passes."""
    if resize is None or (isinstance(resize, str) and resize in choices):
        return
    if not choices:
        raise UserError(f"resize={shown(resize)}: {what} resizes nothing; leave it out")
    known = ", ".join(map(repr, choices))
    raise UserError(f"resize={shown(resize)} is not {'one of ' if len(choices) > 1 else ''}{known}")


def has_config(name: str | os.PathLike) -> bool:
    """True if a folder, in a bucket too, has a config.json;
    False for URLs and for what is not a folder.
    """
    known = storage.is_remote(name) or "://" not in os.fspath(name)
    return known and (storage.path(name) / "config.json").is_file()


def read_config(workdir: str | os.PathLike) -> dict:
    """The resolved config of a run: a flat dict of dotted keys."""
    return current_names(storage.read_object(storage.path(workdir) / "config.json"))


def load_run(
    family: Family, workdir: str | os.PathLike, config: dict, resize: str | None, overrides: dict
) -> tuple[Any, dict]:
    """The model of a run and its variables, all of which the model has.

    Args:
        family: The family of the model.
        workdir: Workdir of the run.
        config: The run's config, as `read_config` gives it.
        resize, overrides: The same as in `load`.

    Raises:
        UserError: config.json and the checkpoint are of different models; what the family's
            `load_workdir` raises.
    """
    from swin_jax.train import checkpoint

    _check_model_of_run(config, workdir, family.place)
    checkpoint.check_layers(workdir, config)
    model, variables = family.load_workdir(workdir, config, resize, overrides)
    made = jax.eval_shape(model.init, jax.random.key(0), *family.inputs(model).values())
    wanted, found = (_official_names(tree["params"]) for tree in (made, variables))
    # A latent mapper has those of the levels that its input has; what is lacking shows in a call.
    if ignored := sorted(found - wanted):
        raise UserError(
            f"{workdir}/config.json is of another model than its checkpoint, which has "
            f"{len(ignored)} parameters that the model would ignore, {ignored[0]} for one"
        )
    return model, variables


def _official_names(params: Any) -> set[str]:
    """The names of parameters, which stacking does not change."""
    leaves = flatten(params).items()
    return {name for path, leaf in leaves for name in stacking.official_names(path, leaf)}


def _check_model_of_run(config: dict, workdir: str | os.PathLike, place: str) -> None:
    """Raises UserError where config.json, edited by hand, is of another model than its checkpoint.

    Args:
        config: The run's config, as `read_config` gives it.
        workdir: Workdir of the run; the newest checkpoint has a copy of its config, if any.
        place: Dotted key of the model.
    """
    from swin_jax.train import checkpoint

    for key, trained in sorted(checkpoint.saved_config(workdir).items()):
        found = config.get(key)
        if key.startswith(f"{place}.") and not OF_MEMORY.search(key) and found != trained:
            raise UserError(
                f"{workdir}/config.json: {quoted(key)} is {quoted(found)}, and its checkpoint was "
                f"trained with {quoted(trained)}; set it back"
            )


def random_variables(model, *inputs: np.ndarray | jax.ShapeDtypeStruct) -> dict:
    """The variables that `model.init` makes for inputs of these shapes."""
    # jax 0.10 takes 0.4 s to optimize each draw for the CPU;
    # level 0 compiles a whole model ten times faster.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    zeros = (np.zeros(x.shape, x.dtype) for x in inputs)
    return jax.jit(model.init, compiler_options=options)(jax.random.key(0), *zeros)


def check_sizes(family: Family, fields: dict, overrides: dict, weights: Weights) -> None:
    """Raises UserError for weights of a model of another size than their name says."""
    kind = next((kind for kind in (family, *family.takes) if kind.recognizes(weights.arrays)), None)
    if kind is None:
        return
    try:
        found = kind.infer(weights.arrays, fields | overrides)
    except UserError:  # told with more words by whoever fits them
        return
    wrong = [key for key in family.sizes if key in fields and found.get(key) != fields[key]]
    if not wrong or set(wrong) & overrides.keys():
        return
    sizes = _shown_sizes(wrong, found)
    name = _closest(kind, found)
    if kind is not family:  # a name of the file's own family would make another kind of model
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
    """The name of the model that has these sizes, and most of these other fields;
    None if no model has.
    """
    scores = {}
    for name in family.names():
        fields = family.preset(name)
        if all(fields.get(key) == found.get(key) for key in family.sizes if key in fields):
            scores[name] = sum(found.get(key) == value for key, value in fields.items()) / len(
                fields
            )
    return max(scores, key=scores.get) if scores else None
