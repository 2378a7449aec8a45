"""`load` and `preprocess` for ArcFace: names, files under prefixes and in wrappers, and what does not fit."""

import json
import logging

import jax
import numpy as np
import pytest

import swin_jax
from swin_jax.core.errors import UserError
from swin_jax.models.arcface import IRSE
from swin_jax.pretrained import compare
from swin_jax.pretrained.arcface import convert, loader
from swin_jax.pretrained.load import load, make
from swin_jax.train import checkpoint

TINY = IRSE(blocks=((4, 4, 1), (4, 8, 2)), image_size=12, embed_dim=5)


@pytest.fixture(scope="module")
def state_dict():
    rng = np.random.default_rng(0)
    shapes = convert.official_shapes(TINY)
    return {name: rng.uniform(0.5, 1, size=shape).astype("f") for name, shape in shapes.items()}


def write(tmp_path, state_dict, prefix=""):
    path = tmp_path / "model_ir_se50.npz"
    np.savez(path, **{prefix + name: value for name, value in state_dict.items()})
    return path


def refusal(call, *arguments, **keywords):
    with pytest.raises(UserError) as error:
        call(*arguments, **keywords)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("prefix", ["", "module.", "facenet.", "model.net.facenet."])
def test_a_file_alone_tells_the_network_whatever_stands_before_its_names(prefix, state_dict, tmp_path, caplog):
    path = write(tmp_path, state_dict, prefix)
    with caplog.at_level(logging.INFO):
        model, variables = load(weights=path)
    assert model == TINY and f"{path}: {convert.LICENSE}" in caplog.text
    back = convert.to_official(variables, model)
    assert list(back) == list(convert.official_shapes(TINY))
    for name, value in state_dict.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


def test_buffers_are_passed_over_and_other_parts_are_told(state_dict, tmp_path):
    more = {"input_layer.1.num_batches_tracked": np.zeros((), np.int64), "head.kernel": np.zeros((5, 9), "f")}
    with pytest.warns(UserWarning, match="not belong to an IR-SE network: head.kernel"):
        assert load(weights=write(tmp_path, state_dict | more))[0] == TINY


def test_of_two_networks_in_a_file_the_average_is_left_out(state_dict, tmp_path):
    twice = state_dict | {f"ema.{name}": -value for name, value in state_dict.items()}
    with pytest.warns(UserWarning, match="not belong to an IR-SE network: ema.input_layer.0.weight"):
        _, variables = load(weights=write(tmp_path, twice))
    assert (variables["params"]["output_layer_3"]["bias"] > 0).all()
    twice = {f"{part}.{name}": value for name, value in state_dict.items() for part in ("one", "two")}
    assert "there are weights under one, two: choose with key=" in refusal(load, weights=write(tmp_path, twice))


def test_keys_that_do_not_fit_are_named_in_one_line(state_dict, tmp_path):
    wrong = {name: value for name, value in state_dict.items() if not name.startswith("body.1.shortcut")}
    wrong |= {"body.0.extra.weight": np.zeros(3, "f"), "output_layer.4.bias": np.zeros(6, "f")}
    message = refusal(load, weights=write(tmp_path, wrong))
    assert (
        "not for this IR-SE network: missing body.1.shortcut_layer.0.weight, body.1.shortcut_layer.1.weight" in message
    )
    assert "; unexpected body.0.extra.weight; mis-shaped output_layer.4.bias (6,) instead of (5,)" in message
    lacking = {name: value for name, value in state_dict.items() if name != "body.1.res_layer.1.weight"}
    assert "these weights lack body.1.res_layer.1.weight" in refusal(load, weights=write(tmp_path, lacking))


def test_a_report_of_many_keys_names_the_first():
    report = compare.compare({}, {f"k{i}": (1,) for i in range(7)})
    assert report.line() == "missing k0, k1, k2, k3, k4 and 2 more"


def test_the_name_makes_the_released_network_and_a_file_of_another_is_told(state_dict, tmp_path):
    assert make(loader.FAMILY, loader.FAMILY.preset("ir_se50"), {}) == IRSE()
    assert "ir_se50" in swin_jax.list_models()
    message = refusal(load, "ir_se50", weights=write(tmp_path, state_dict))
    assert (
        "this file is an ArcFace (blocks=((4, 4, 1), (4, 8, 2)), image_size=12, embed_dim=5), not an ir_se50" in message
    )
    fields = dict(blocks=TINY.blocks, image_size=12, embed_dim=5)
    assert load("model_ir_se50.pth", weights=write(tmp_path, state_dict), **fields)[0] == TINY
    with pytest.warns(
        UserWarning, match="ir_se50 has random weights; its file, model_ir_se50.pth, is given as weights="
    ):
        model, variables = load("ir_se50", **fields, param_dtype="bfloat16", channel_order="bgr")
    assert model.channel_order == "bgr" and variables["params"]["output_layer_3"]["bias"].dtype == "bfloat16"


@pytest.mark.parametrize("arguments", [dict(name="ir_se50", weights="official"), dict(weights="model_ir_se50.pth")])
def test_nothing_is_downloaded(arguments):
    assert "ir_se50 is not downloaded, because no terms of use" in refusal(load, **arguments)


def test_a_face_is_prepared_to_the_networks_range(state_dict, tmp_path):
    model, variables = load(weights=write(tmp_path, state_dict))
    prepared = swin_jax.preprocess(model)
    image = prepared(np.full((30, 30, 3), 255, np.uint8))
    assert image.shape == (1, 12, 12, 3) and (image == 1).all()
    features = loader.predict(model, variables, {"image": image}, lambda pixels: pixels)["features"]
    np.testing.assert_allclose(np.linalg.norm(features), 1, atol=1e-5)
    assert "30 x 20 pixels are not an aligned face" in refusal(prepared, np.zeros((20, 30, 3), np.uint8))
    facts = swin_jax.export(model, variables, tmp_path / "face.stablehlo", platforms=("cpu",))
    assert facts["outputs"] == {"features": "float32 (b, 5)"}


def test_the_network_of_a_run_is_loaded_as_it_was_trained(state_dict, tmp_path, monkeypatch):
    fields = dict(fn="swin_jax.models.arcface.IRSE", blocks=TINY.blocks, image_size=12, embed_dim=5)
    (tmp_path / "config.json").write_text(json.dumps({f"task.model.{name}": value for name, value in fields.items()}))
    variables = convert.from_official(state_dict, TINY)
    monkeypatch.setattr(checkpoint, "load_variables", lambda workdir: variables)
    model, found = load(weights=tmp_path)
    assert model == TINY
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    assert "leave out channel_order" in refusal(load, weights=tmp_path, channel_order="bgr")


def test_an_experiment_fills_a_frozen_network_from_a_file_or_a_run(state_dict, tmp_path):
    found = convert.pretrained()(write(tmp_path, state_dict), TINY)
    wanted = convert.from_official(state_dict, TINY)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    assert convert.pretrained()({**wanted, "config": {}}, TINY) == wanted
