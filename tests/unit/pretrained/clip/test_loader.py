"""`load` and `preprocess` for CLIP: every source of weights, what is inferred, what is said."""

import json
import logging
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models.clip import make_clip
from swin_jax.models.clip import presets as clip_presets
from swin_jax.pretrained import preprocess
from swin_jax.pretrained.clip import convert
from swin_jax.pretrained.clip import urls as clip_official
from swin_jax.pretrained.files import download
from swin_jax.pretrained.load import load
from swin_jax.pretrained.swin import urls

ARCHIVE = Path(__file__).resolve().parents[3] / "golden" / "clip" / "tiny_archive.pt"
TINY = dict(
    embed_dim=6,
    image_size=16,
    context_length=5,
    vocab_size=20,
    text_width=64,
    text_layers=1,
    vision_layers=1,
    vision_width=64,
    patch_size=8,
    act="quick_gelu",
)


@pytest.fixture
def presets(monkeypatch):
    monkeypatch.setattr(clip_presets, "PRESETS", {"ViT-B/32": TINY, "ViT-L/14@336px": TINY | dict(image_size=32)})


@pytest.fixture(scope="module")
def state_dict():
    rng = np.random.default_rng(0)
    shapes = convert.official_shapes(make_clip(**TINY))
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write(path, state_dict):
    path.parent.mkdir(exist_ok=True)
    with open(path, "wb") as file:
        np.savez(file, **state_dict)
    return path


def assert_holds(loaded, state_dict, **fields):
    model, variables = loaded
    assert model == make_clip(**TINY | fields)
    found = convert.to_official(variables, model)
    for name, value in state_dict.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("name", [None, "ViT-B/32", "ViT-B-32"])
def test_a_file_is_loaded_with_and_without_a_name_and_an_assumed_activation_is_said(
    name, presets, state_dict, tmp_path
):
    file = write(tmp_path / "weights.npz", state_dict)
    with pytest.warns(UserWarning, match="act='gelu' is assumed.*give act="):
        loaded = load(name, weights=file)
    assert_holds(loaded, state_dict, act="gelu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_holds(load(name, weights=file, act="quick_gelu", remat="full"), state_dict, remat="full")


def test_where_the_activation_is_known_from_is_logged(presets, state_dict, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        named = load("ViT-B-32-quickgelu", weights=write(tmp_path / "b.npz", state_dict))
    assert named[0].text.act == "quick_gelu"
    assert "act='quick_gelu': the name says quickgelu" in caplog.text
    with pytest.warns(UserWarning, match="but the weights were trained with 'quick_gelu': the name says quickgelu"):
        load("ViT-B-32-quickgelu", weights=tmp_path / "b.npz", act="gelu")


def test_an_archive_of_openai_is_loaded_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, variables = load(weights=ARCHIVE, vision_heads=4, text_heads=2, dtype="bfloat16")
    assert model.text.act == "quick_gelu" and model.visual.dtype == "bfloat16"
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    image, ids = np.zeros((2, 32, 32, 3), np.float32), np.ones((3, 5), np.int32)
    assert jax.eval_shape(model.apply, variables, image, ids)[0].shape == (2, 3)


def test_a_folder_of_transformers_is_loaded_with_its_activation(presets, state_dict, tmp_path):
    folder = tmp_path / "laion"
    write(folder / "pytorch_model.bin", state_dict)
    config = {"model_type": "clip", "text_config": {"hidden_act": "gelu"}, "vision_config": {"hidden_act": "gelu"}}
    (folder / "config.json").write_text(json.dumps(config))
    for name in (None, "ViT-B/32"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_holds(load(name, weights=folder), state_dict, act="gelu")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="neither model.safetensors nor pytorch_model.bin"):
        load(weights=folder)


def test_official_weights_are_checked_and_come_from_the_cache(presets, state_dict, tmp_path, monkeypatch):
    monkeypatch.setenv("SWIN_JAX_CACHE", str(tmp_path))
    monkeypatch.setenv("SWIN_JAX_OFFLINE", "1")
    url = clip_official.URLS["ViT-B/32"]
    with pytest.raises(UserError, match="put it at"):
        load("ViT-B/32", weights="official")
    path = write(urls.locate(url)[1], state_dict)
    with pytest.raises(UserError, match="is not OpenAI's file"):
        load("ViT-B/32", weights="official")
    monkeypatch.setattr(download, "sha256", lambda _: url.split("/")[-2])
    path.with_name(path.name + ".json").unlink()
    for arguments in (dict(name="ViT-B/32", weights="official"), dict(weights="ViT-B-32")):
        assert_holds(load(**arguments), state_dict)
    assert "OpenAI" in path.with_name(path.name + ".json").read_text()
    hub_url = f"https://huggingface.co/{clip_official.HUB['ViT-B/32']}/resolve/main/open_clip_model.safetensors"
    write(urls.locate(hub_url)[1], state_dict)
    assert_holds(load(weights=clip_official.HUB["ViT-B/32"]), state_dict)


def test_every_openai_model_has_an_address_with_its_checksum():
    assert clip_official.URLS.keys() == clip_official.HUB.keys() == clip_presets.OPENAI.keys()
    for name, url in clip_official.URLS.items():
        digest, file = url.split("/")[-2:]
        assert len(digest) == 64 and int(digest, 16) and clip_presets.canonical_name(file[:-3]) == name


def test_without_weights_they_are_random_and_it_is_said(presets):
    with pytest.warns(UserWarning, match="random weights"):
        model, variables = load("ViT-B/32", embed_dim=10)
    assert model == make_clip(**TINY | dict(embed_dim=10))
    assert 0.015 < np.std(variables["params"]["text"]["token_embedding"]["embedding"]) < 0.025


def test_another_image_size_is_a_choice(presets, state_dict, tmp_path):
    file = write(tmp_path / "openai.npz", state_dict)
    for arguments in (dict(name="ViT-B/32", image_size=32), dict(name="ViT-L/14@336px"), dict(image_size=32)):
        with pytest.raises(UserError, match="choose resize="):
            load(weights=file, **arguments)
        model, variables = load(weights=file, resize="bilinear", **arguments)
        assert variables["params"]["visual"]["positional_embedding"].shape == (17, 64)
        assert model.visual.image_size == 32


def test_parameters_have_the_models_dtype_but_for_scale_and_statistics():
    _, variables = load(weights=ARCHIVE, vision_heads=4, text_heads=2, param_dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(variables["params"]["visual"])} == {np.dtype("bfloat16")}
    assert variables["params"]["logit_scale"].dtype == np.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables["batch_stats"])} == {np.dtype("float32")}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(name="ViT-B/32", window_size=3), "^make_clip has no argument 'window_size'"),
        (dict(name="ViT-B/32", vision_width=8, weights="absent.pt"), "not a file, a workdir or the name of official"),
        (dict(name="ViT-B/32", weights="."), "nor a folder of a hub"),
        (dict(name="ViT-B/23"), "nearest name is 'ViT-B/32'"),
        (dict(weights="weights.npz", window_size=3), "^make_clip has no argument 'window_size'"),
        (dict(weights="weights.npz", name="ViT-B/32", embed_dim=8), "embed_dim is 6 in the weights and 8 in the model"),
        (dict(weights="weights.npz", name="swin_tiny_patch4_window7_224"), "look like CLIP"),
        (dict(name="ViT-B/23", context_length=5), "nearest name is 'ViT-B/32'"),
        (dict(name="ViT-B/32", act="gleu"), "act='gleu' does not make a model: .*gelu"),
        (dict(name="ViT-B/32", dtype="fp16"), "dtype='fp16' does not make a model"),
        (dict(name="ViT-B/32", image_size=20), "image_size=20 does not make a model"),
        (dict(name="ViT-B/32", weights="workdir"), "determines the model; omit the name 'ViT-B/32'"),
    ],
)
def test_bad_arguments_are_said_in_one_line(arguments, message, presets, state_dict, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "weights.npz", state_dict)
    (tmp_path / "workdir").mkdir()
    (tmp_path / "workdir" / "config.json").write_text("{}")
    with warnings.catch_warnings(), pytest.raises(UserError, match=message) as error:
        warnings.simplefilter("ignore")
        load(**arguments)
    assert "\n" not in str(error.value)


def test_preprocess_makes_what_a_clip_wants():
    apply = preprocess.preprocess("ViT-B-32")
    gray = np.full((250, 300, 3), 128, np.uint8)
    found = apply([gray, gray])
    assert found.shape == (2, 224, 224, 3) and found.dtype == np.float32
    wanted = (128 / 255 - np.array([0.48145466, 0.4578275, 0.40821073])) / [0.26862954, 0.26130258, 0.27577711]
    np.testing.assert_allclose(found, np.broadcast_to(wanted, found.shape), rtol=1e-5)
    assert preprocess.preprocess("ViT-L/14@336px")(gray).shape == (1, 336, 336, 3)
