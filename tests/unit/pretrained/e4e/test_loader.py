"""`load` for e4e: a file laid out as the released ones, the mean latent, and what does not fit."""

import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swin_jax
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.models.e4e import E4E
from swin_jax.pretrained.e4e import convert, loader
from swin_jax.pretrained.files import read
from swin_jax.pretrained.load import FAMILIES, load, make

FILE = Path(__file__).parents[3] / "golden" / "e4e" / "tiny.pt"  # its make.py wrote it with PyTorch
TINY = E4E(num_ws=4, image_size=16, blocks=((2, 2, 1), (2, 3, 1), (3, 4, 1), (4, 5, 1)), w_dim=5)


@pytest.fixture(scope="module")
def arrays():
    return read.read(FILE)


def refusal(call, *arguments, **keywords):
    with pytest.raises(UserError) as error:
        call(*arguments, **keywords)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_released_file_gives_the_encoder_and_its_mean_latent(arrays, caplog):
    said = r"ignored the generator beside the encoder \(1 arrays\); key='decoder' loads it"
    with pytest.warns(UserWarning, match=said), caplog.at_level(logging.INFO):
        model, variables = load("e4e_ffhq", weights=FILE, num_ws=4, image_size=16, blocks=TINY.blocks, w_dim=5)
    assert model == TINY and convert.LICENSE in caplog.text
    np.testing.assert_array_equal(variables["averages"]["latent_avg"], arrays["latent_avg"])
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("f"))
    invert = jax.jit(lambda variables, image: loader.predict(model, variables, {"image": image}, jnp.asarray))
    latents = invert(variables, image)["latents"]
    without = invert({**variables, "averages": {"latent_avg": jnp.zeros((4, 5))}}, image)["latents"]
    np.testing.assert_allclose(latents - without, np.broadcast_to(arrays["latent_avg"], (2, 4, 5)), atol=1e-6)
    rows = [invert(variables, row[None])["latents"] for row in image]
    np.testing.assert_allclose(latents, jnp.concatenate(rows), atol=1e-5)


def test_a_file_alone_tells_the_encoder(arrays, tmp_path):
    for prefix in ("", "net.module."):
        path = tmp_path / "encoder.npz"
        own = {name.removeprefix("encoder."): x for name, x in arrays.items() if name.startswith("encoder.")}
        np.savez(path, latent_avg=arrays["latent_avg"], **{prefix + name: value for name, value in own.items()})
        assert load(weights=path)[0] == TINY


def test_a_file_with_a_generator_is_an_encoder_and_the_key_takes_the_generator(arrays, tmp_path):
    shapes = {"style.1.weight": (5, 5), "style.1.bias": (5,), "input.input": (1, 3, 4, 4), "to_rgb1.bias": (1, 3, 1, 1)}
    shapes |= {"conv1.conv.weight": (1, 3, 3, 3, 3), "conv1.noise.weight": (1,), "conv1.activate.bias": (3,)}
    shapes |= {"to_rgb1.conv.weight": (1, 3, 3, 1, 1), "noises.noise_0": (1, 1, 4, 4)}
    for layer in ("conv1", "to_rgb1"):
        shapes |= {f"{layer}.conv.modulation.weight": (3, 5), f"{layer}.conv.modulation.bias": (3,)}
    own = {name: x for name, x in arrays.items() if not name.startswith("decoder.")}
    path = tmp_path / "e4e.npz"
    np.savez(path, **own, **{f"decoder.{name}": np.zeros(shape, "f") for name, shape in shapes.items()})
    with pytest.warns(UserWarning, match="key='decoder' loads it"):
        assert load(weights=path)[0] == TINY
    decoder = read.read(path, "decoder")
    assert [family.title for family in FAMILIES if family.recognizes(decoder)] == ["StyleGAN2"]


@pytest.mark.parametrize("shape", [(5,), (4, 5), (1, 4, 5)])
def test_the_mean_latent_is_one_for_all_rows_or_one_for_each(shape):
    average = np.random.default_rng(0).normal(size=shape).astype("f")
    np.testing.assert_array_equal(convert.mean_latent(average, TINY), np.broadcast_to(average.reshape(-1, 5), (4, 5)))


def test_a_mean_latent_of_another_shape_or_none_is_told():
    message = refusal(convert.mean_latent, np.zeros((18, 512)), TINY)
    assert "latent_avg has the shape (18, 512), but the encoder has 4 latents of 5" in message
    assert "the shape must be (5,) or (4, 5)" in message
    with pytest.warns(UserWarning, match="no latent_avg, the mean latent"):
        assert not convert.mean_latent(None, TINY).any()


def test_keys_that_do_not_fit_are_named_in_one_line(arrays):
    wrong = {name: x for name, x in arrays.items() if name != "encoder.styles.3.convs.0.bias"}
    wrong["encoder.styles.2.convs.0.weight"] = np.zeros((5, 5, 3, 3), "f")
    message = refusal(convert.from_official, wrong, TINY)
    assert message.endswith("missing styles.3.convs.0.bias; unexpected styles.2.convs.0.weight")


def test_another_number_of_latents_than_the_names_is_told(arrays, tmp_path):
    message = refusal(load, "e4e_horse", weights=FILE)
    assert "this file is an e4e (num_ws=4," in message and "not an e4e_horse (num_ws=14," in message


@pytest.mark.parametrize("name, num_ws", loader.NUM_WS.items())
def test_names_make_the_released_encoders(name, num_ws):
    model = make(loader.FAMILY, loader.FAMILY.preset(f"{name}_encode.pt"), {})
    assert model == E4E(num_ws=num_ws) and name in swin_jax.list_models("e4e*")
    assert model.head_convs == (4,) * 3 + (5,) * 4 + (6,) * (num_ws - 7)
    assert f"{name} is not downloaded, because its file holds a generator" in refusal(load, name, weights="official")


def test_the_names_of_the_released_encoder_are_the_models():
    model = E4E()
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32))
    paths = {convert.arcface.path_of(name, len(shape)) for name, shape in convert.official_shapes(model).items()}
    assert {f"{collection}/{path}" for collection, path in paths} | {"averages/latent_avg"} == set(flatten(shapes))


def test_a_frozen_encoder_of_another_size_is_told_with_both_numbers():
    read = convert.pretrained()
    message = refusal(read, FILE, TINY.clone(num_ws=6))
    assert "these weights are for an e4e encoder with num_ws=4, not 6" in message
    with pytest.warns(UserWarning, match="ignored the generator"):
        assert read(FILE, TINY)["averages"]["latent_avg"].shape == (4, 5)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(image_size=48), "image_size=48 must be a power of two, at least 16"),
        (dict(image_size=8), "image_size=8 must be a power of two, at least 16"),
        (dict(blocks=((2, 2, 1), (2, 3, 1))), "the heads read the maps of three stages"),
    ],
)
def test_fields_that_make_no_encoder_are_refused(fields, message):
    image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    assert message in refusal(jax.eval_shape, TINY.clone(**fields).init, jax.random.key(0), image)
