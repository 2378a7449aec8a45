"""StyleCLIP's mappers and global directions against its code: the cases in tests/golden/styleclip."""

import functools
import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.params import flatten, official_name
from swin_jax.models.styleclip import LevelsMapper, SingleMapper, StyleSpaceMapper, directions
from swin_jax.models.stylegan2.style_space import StyleLayer
from swin_jax.pretrained.styleclip import mappers

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

MAPPERS = sorted(GOLDEN.glob("styleclip/mapper_*.json"))
DIRECTIONS = sorted(GOLDEN.glob("styleclip/global_direction*.json"))


def make_mapper(config):
    if config["kind"] == "LevelsMapper":
        return LevelsMapper()
    if config["kind"] == "SingleMapper":
        return SingleMapper()
    return StyleSpaceMapper(tuple(config["dimensions"]), with_rgb=config["kind"] == "FullStyleSpaceMapper")


def load(case, model):
    """The variables of a mapper with a case's weights."""
    return mappers.from_official(case.state_dict(), model)


def released_name(path):
    return re.sub(r"^mapper\.(\d+)", r"mapper_\1", official_name(path))


@pytest.mark.parametrize("path", MAPPERS, ids=lambda path: path.stem)
def test_every_output_of_a_mapper_is_the_official_one(path):
    case = golden.load(path)
    model, names = make_mapper(case.config), case.input_names
    if "w" in names:
        inputs = jnp.asarray(case.input("w"))
    else:
        inputs = tuple(case.input(f"style_{i}").reshape(1, -1) for i in range(len(names)))
    variables = load(case, model)
    with jax.default_matmul_precision("highest"):
        if "w" in names:

            @jax.jit
            @functools.partial(jax.value_and_grad, has_aux=True)
            def loss(params):
                delta = model.apply({"params": params}, inputs)
                return (delta * case.cotangent()).sum(), delta

            (value, delta), gradients = loss(variables["params"])
            found = {"loss": value, "delta": delta}
            found |= {f"gradient of {released_name(path)}": leaf.T for path, leaf in flatten(gradients).items()}
        else:
            deltas = jax.jit(model.apply)(variables, inputs)
            found = {f"delta_{i}": delta.reshape(1, 1, -1, 1, 1) for i, delta in enumerate(deltas)}
    errors = {name: (case.error(name, found[name]), case.tolerance(name)) for name in case.output_names}
    assert all(error <= tolerance for error, tolerance in errors.values()), errors


@pytest.mark.parametrize("path", DIRECTIONS, ids=lambda path: path.stem)
def test_every_step_to_a_direction_is_the_official_one(path):
    case = golden.load(path)
    config = case.config
    layers = [
        StyleLayer("b4/torgb" if "toRGB" in name else "b4/conv1", 4, 0, channels, channels)
        for name, channels in zip(config["layers"], config["channels"])
    ]
    styles = [case.input(f"styles_{i}") for i in range(len(layers))]
    rows = directions.image_directions(case.input("image_features"))
    difference = case.input("text_difference")
    text = directions.text_direction(difference, np.zeros_like(difference))
    found = {"fs3": rows, "delta_t": text, "relevance": rows @ text}
    deviations = [style.std(axis=0) for style in styles]
    for beta in config["betas"]:
        direction = directions.make_direction(found["relevance"], deviations, layers, beta)
        found[f"direction_beta_{beta}"] = np.concatenate(direction.steps)
        edits = [direction.edit([style[:3] for style in styles], alpha) for alpha in config["alphas"]]
        found[f"edited_beta_{beta}"] = np.stack([np.concatenate(edit, axis=1) for edit in edits], axis=1)
    errors = {name: (case.error(name, found[name]), case.tolerance(name)) for name in case.output_names}
    assert all(error <= tolerance for error, tolerance in errors.values()), errors


def test_there_are_cases():
    assert len(MAPPERS) >= 3 and DIRECTIONS
