"""Released files of latent mappers: told by their content, bitwise there and back."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models.styleclip import LevelsMapper, SingleMapper, StyleSpaceMapper, make_mapper
from swin_jax.models.stylegan2 import Generator
from swin_jax.models.stylegan2.style_space import style_layers
from swin_jax.pretrained.styleclip import mappers
from swin_jax.pretrained.stylegan2 import convert
from swin_jax.pretrained.stylegan2.sizes import GENERATOR
from tests import stylegan2

CHANNELS = tuple(layer.channels for layer in style_layers(16, 64, 8))
LEVELS = ("course_mapping", "medium_mapping", "fine_mapping")
# The released mappers without a fine level, and those with all three, as the flags in the notebook have them.
WITHOUT_FINE = ("afro", "angry", "bobcut", "bowlcut", "curly_hair", "mohawk", "surprised")
WHOLE = ("beyonce", "hilary_clinton", "depp", "purple_hair", "taylor_swift", "trump", "zuckerberg")
CLASSES = {
    "levels": (dict.fromkeys(LEVELS, 6), LevelsMapper()),
    "without fine": (dict.fromkeys(LEVELS[:2], 6), LevelsMapper(fine=False)),
    "without coarse": (dict.fromkeys(LEVELS[1:], 6), LevelsMapper(coarse=False)),
    "single": ({"mapping": 6}, SingleMapper()),
    "full": ({f"mapper_{i}": width for i, width in enumerate(CHANNELS)}, StyleSpaceMapper(CHANNELS, True)),
    "without rgb": (
        {f"mapper_{i}": width for i, width in enumerate(CHANNELS) if i % 3 != 1},
        StyleSpaceMapper(CHANNELS, False),
    ),
}


def released(parts, width=None):
    """The state dict of a file: names as StyleCLIP saves them."""
    rng, weights = np.random.default_rng(0), {}
    for part, own in parts.items():
        for number in range(1, 5):
            name = f"mapper.{part}.mapping.{number}"
            weights[f"{name}.weight"] = rng.standard_normal((width or own,) * 2).astype(np.float32) * 100
            weights[f"{name}.bias"] = rng.standard_normal(width or own).astype(np.float32)
    return weights


def write(path, weights):
    decoder = {f"decoder.{name}": value for name, value in stylegan2.rosinality(GENERATOR).items()}
    path.write_bytes(pickle.dumps({"state_dict": weights | decoder, "opts": {"description": "purple hair", "lr": 0.5}}))


def inputs(model):
    if isinstance(model, StyleSpaceMapper):
        return tuple(jnp.ones((1, width)) for width in model.channels)
    return jnp.ones((1, 10, 6))


@pytest.mark.parametrize("kind", CLASSES)
def test_a_file_tells_its_class_and_fits_bitwise_there_and_back(kind, tmp_path):
    parts, model = CLASSES[kind]
    weights = released(parts)
    write(tmp_path / "mapper.pt", weights)
    found = mappers.read(tmp_path / "mapper.pt")
    assert make_mapper(**mappers.infer(found)) == model
    variables = mappers.from_official(found, model)
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs(model))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    again = mappers.to_official(variables)
    assert again.keys() == weights.keys() and all(np.array_equal(again[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    "name, fine", [*dict.fromkeys(WITHOUT_FINE, False).items(), *dict.fromkeys(WHOLE, True).items()]
)
def test_the_levels_of_the_released_mappers_are_told_by_their_parts(name, fine):
    parts = LEVELS if fine else LEVELS[:2]
    shapes = released(dict.fromkeys(parts, 4))
    assert mappers.infer(shapes) == dict(kind="levels", coarse=True, medium=True, fine=fine)


def test_levels_that_are_off_give_exact_zeros():
    parts, model = CLASSES["without fine"]
    variables = mappers.from_official(released(parts), model)
    step = np.asarray(model.apply(variables, inputs(model)))
    assert not step[:, 8:].any() and step[:, :8].all()


def test_a_written_file_holds_the_mapper_and_its_generator(tmp_path):
    parts, model = CLASSES["single"]
    sizes = stylegan2.GENERATORS["usual"]
    generator = convert.from_official(stylegan2.official(GENERATOR), Generator(**sizes))
    mappers.save(tmp_path / "ours.pt", mappers.from_official(released(parts), model), generator)
    found = mappers.read(tmp_path / "ours.pt")
    weights = released(parts)
    assert all(np.array_equal(found[name.removeprefix("mapper.")], weights[name]) for name in weights)
    again = convert.from_official(mappers.beside.read(tmp_path / "ours.pt"), Generator(**sizes))
    jax.tree.map(np.testing.assert_array_equal, again["params"], generator["params"])


@pytest.mark.parametrize(
    "parts, model, message",
    [
        ("levels", SingleMapper(), "do not fit a SingleMapper: missing mapping.mapping.1.weight"),
        ("levels", LevelsMapper(fine=False), "do not fit a LevelsMapper: unexpected fine_mapping"),
        ("without rgb", StyleSpaceMapper((4,) * 8), "do not fit a StyleSpaceMapper: mis-shaped"),
    ],
)
def test_weights_of_another_mapper_are_refused_in_one_line(parts, model, message):
    with pytest.raises(UserError, match=message) as error:
        mappers.from_official(released(CLASSES[parts][0]), model)
    assert "\n" not in str(error.value)


def test_other_weights_are_no_mapper(tmp_path):
    np.savez(tmp_path / "other.npz", **{"layers.0.weight": np.zeros((2, 2))})
    with pytest.raises(UserError, match="other.npz: these weights are not those of a latent mapper"):
        mappers.read(tmp_path / "other.npz")
    mixed = released({"mapping": 4, "fine_mapping": 4})
    with pytest.raises(UserError, match="several classes"):
        mappers.infer(mixed)
    some = {name: value for name, value in released(CLASSES["full"][0]).items() if "mapper_4" not in name}
    with pytest.raises(UserError, match="lack layers: they have 0, 1, 2, 3, 5"):
        mappers.infer(some)
