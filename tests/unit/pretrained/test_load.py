"""`load` and `preprocess`: from every source of weights, and what they say about bad input."""

import json
import warnings

import jax
import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.models import swin
from swin_jax.models.simmim import SimMIM
from swin_jax.ops.window_geometry import stage_geometry
from swin_jax.pretrained import preprocess
from swin_jax.pretrained.load import load
from swin_jax.pretrained.swin import convert, imagenet22k, loader, simmim, urls
from swin_jax.tasks.base import TrainState
from swin_jax.train import checkpoint
from tests.unit.train.checkpoints import save

TINY = dict(num_classes=5, image_size=16, patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4)


@pytest.fixture
def state_dict():
    rng = np.random.default_rng(0)
    shapes = convert.official_shapes(swin.Swin(**TINY))
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def file(state_dict, tmp_path):
    np.savez(tmp_path / "weights.npz", **state_dict)
    return tmp_path / "weights.npz"


def test_a_place_below_home_may_be_written_with_a_tilde(file, monkeypatch, tmp_path):
    """Python's own file functions, and the shell after `=`, leave `~` as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("RGB", (16, 16)).save(tmp_path / "cat.png")
    assert load(weights="~/weights.npz", window_size=4)[0] == load(weights=file, window_size=4)[0]
    prepared = preprocess.preprocess("~/weights.npz", window_size=4)
    assert prepared("~/cat.png").shape == (1, *prepared.image_size, 3)


@pytest.fixture
def presets(monkeypatch):
    monkeypatch.setattr(swin, "PRESETS", {"swin_tiny_patch4_window7_224": TINY})


def assert_holds(variables, model, state_dict):
    found = convert.to_official(variables, model)
    assert found.keys() == state_dict.keys()
    for name, value in state_dict.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_file_alone_tells_the_architecture(file, state_dict):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, variables = load(weights=file)
    assert model == swin.Swin(**TINY)
    assert_holds(variables, model, state_dict)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, swin.param_shapes(model))


def test_buffers_tell_the_image_size_of_a_file(tmp_path):
    model = swin.Swin(**TINY | dict(depths=(2, 2), image_size=32))
    state_dict = {name: np.zeros(shape, np.float32) for name, shape in convert.official_shapes(model).items()}
    np.savez(tmp_path / "weights.npz", **state_dict | convert.official_buffers(model))
    assert load(weights=str(tmp_path / "weights.npz"))[0] == model


def test_overrides_change_the_model_and_fit_the_weights(file, state_dict):
    with pytest.warns(UserWarning, match="starts from zeros"):
        model, variables = load(weights=file, num_classes=3, drop_path_rate=0.3)
    assert (model.num_classes, model.drop_path_rate) == (3, 0.3)
    assert not np.any(variables["params"]["head"]["kernel"])
    with pytest.raises(UserError, match="choose resize='bicubic'"):
        load(weights=file, window_size=8, image_size=32)
    with pytest.warns(UserWarning, match="2 position tables were resized"):
        model, variables = load(weights=file, resize="bicubic", window_size=8, image_size=32)
    assert variables["params"]["layers_0"]["blocks_0"]["attn"]["relative_position_bias_table"].shape == (225, 1)


def write(path, state_dict):
    np.savez(path, **state_dict)
    return path


def zeros(model):
    return {name: np.zeros(shape, np.float32) for name, shape in convert.official_shapes(model).items()}


def test_version_2_is_loaded_from_its_buffers_or_with_what_they_would_tell(tmp_path):
    model = swin.Swin(**TINY, **swin.V2)
    whole = write(tmp_path / "whole.npz", zeros(model) | convert.official_buffers(model))
    assert load(weights=whole)[0] == model
    timm = write(tmp_path / "timm.npz", convert.to_timm(zeros(model)))
    with pytest.raises(UserError, match="does not tell window_size and image_size"):
        load(weights=timm)
    assert load(weights=timm, window_size=4, image_size=16)[0] == model


def test_a_swin_mlp_is_told_by_its_file_and_fits_no_other_window(file, tmp_path):
    model = swin.Swin(**TINY, **swin.MLP)
    weights = write(tmp_path / "mlp.npz", zeros(model))
    assert load(weights=weights)[0] == load(weights=weights, num_classes=5)[0] == model
    with pytest.raises(UserError, match=r"this file is a Swin \(.*token_mixer=mlp\), not a swin_tiny_patch4"):
        load("swin_tiny_patch4_window7_224", weights=weights)
    with pytest.raises(UserError, match="the matrices fit one size only"):
        load(weights=weights, window_size=2)
    with pytest.raises(UserError, match="make the model with token_mixer='attention'"):
        load(weights=file, **swin.MLP)


def test_another_scale_of_the_continuous_bias_is_told_once_and_not_where_it_is_given(tmp_path, monkeypatch):
    model = swin.Swin(**TINY, **swin.V2)
    monkeypatch.setattr(swin, "PRESETS", {"swinv2_tiny_patch4_window8_256": TINY | swin.V2})
    files = [
        write(tmp_path / "whole.npz", zeros(model) | convert.official_buffers(model)),
        write(tmp_path / "timm.npz", convert.to_timm(zeros(model))),
    ]
    for file in files:
        arguments = dict(name="swinv2_tiny_patch4_window8_256", weights=file, window_size=8, image_size=32)
        with pytest.warns(UserWarning, match=r"pretrained_window_sizes=\(4, 4\) keeps the trained scale"):
            load(**arguments)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = load(**arguments, pretrained_window_sizes=(4, 4))[0]
            load(**arguments | dict(window_size=4, image_size=32))
        assert found == model.clone(window_size=8, image_size=32, pretrained_window_sizes=(4, 4))


def test_a_classifier_becomes_a_dense_backbone(file, state_dict):
    with pytest.warns(UserWarning, match="start as ones and zeros"):
        model, variables = load(weights=file, small="keep", out_norms=(0, 1))
    maps = jax.eval_shape(model.apply, variables, np.zeros((1, 18, 21, 3), np.float32))
    assert [x.shape for x in maps] == [(1, 9, 11, 8), (1, 5, 6, 16)]


def test_parameters_have_the_models_dtype_and_storage(file, state_dict):
    overrides = dict(param_dtype="bfloat16", depths=(1, 1), scan=True)
    model, variables = load(weights=file, **overrides)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("bfloat16")}
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, swin.param_shapes(model))


@pytest.mark.parametrize("name", [name for name in urls.WEIGHTS if name.startswith("simmim")])
def test_every_name_of_simmim_is_a_model(name):
    model = swin.Swin(**loader.preset(name))
    windows = [window[0] for window in stage_geometry(model)[1]]
    finetuned = "finetune" in name
    assert model.num_classes == 1000 * finetuned and model.continuous_bias == ("swinv2" in name)
    if "swinv2" in name:
        assert (model.image_size, windows) == ((224, [14, 14, 14, 7]) if finetuned else (192, [12, 12, 12, 6]))
        assert model.pretrained_window_sizes == ((12, 12, 12, 6) if finetuned else ())
        width = dict(small=96, base=128, large=192, huge=352, giant=448)[name.split("_")[3]]
        assert model.embed_dim == width
    else:
        assert f"img{model.image_size}_window{windows[0]}_" in name
        assert model.embed_dim == (128 if "base" in name else 192)


def test_simmims_pretrained_names_give_the_encoder(tmp_path, monkeypatch):
    name = "simmim_pretrain_swinv2_huge_1k_500k"
    monkeypatch.setenv("SWIN_JAX_CACHE", str(tmp_path))
    tiny = dict(embed_dim=8, depths=(2, 2), num_heads=(1, 2))
    monkeypatch.setattr(swin, "VARIANTS", {"huge": tiny})
    masked = SimMIM(swin.Swin(**tiny, **swin.V2, num_classes=0, image_size=192, window_size=12, main_norm_every=2))
    state_dict = {name: np.ones(shape, np.float32) for name, shape in simmim.official_shapes(masked).items()}
    file = {name.replace("cpb_mlp", "rpe_mlp"): value for name, value in state_dict.items()}
    path = write(tmp_path / "file.npz", file).rename(urls.locate(name)[1])
    for arguments in (dict(name=name, weights="official"), dict(weights=name), dict(weights=path.stem)):
        with pytest.warns(UserWarning, match=r"decoder \(2\), mask_token"):
            model, variables = load(**arguments)
        assert model == masked.encoder  # with the main-branch norm that only the file tells of
        assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, swin.param_shapes(model))
    assert preprocess.preprocess(name)(picture(200, 200)).shape == (1, 192, 192, 3)


def test_official_weights_come_from_the_cache(file, state_dict, presets, tmp_path, monkeypatch):
    name = "swin_tiny_patch4_window7_224"
    monkeypatch.setenv("SWIN_JAX_CACHE", str(tmp_path))
    monkeypatch.setenv("SWIN_JAX_OFFLINE", "1")
    with pytest.raises(UserError, match="put it at"):
        load(name, weights="official")
    file.rename(urls.locate(name)[1])
    for arguments in (dict(name=name, weights="official"), dict(weights=name), dict(name=name, weights=name)):
        assert_holds(load(**arguments)[1], swin.Swin(**TINY), state_dict)


def test_without_weights_they_are_random_and_it_is_said(presets):
    with pytest.warns(UserWarning, match="random weights"):
        model, variables = load("swin_tiny_patch4_window7_224", num_classes=2)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, swin.param_shapes(model))
    assert 0.015 < np.std(variables["params"]["layers_1"]["blocks_0"]["mlp"]["fc1"]["kernel"]) < 0.025
    assert jax.eval_shape(model.apply, variables, np.zeros((1, 16, 16, 3), np.float32)).shape == (1, 2)


def test_the_22k_head_is_cut_by_the_map(tmp_path, monkeypatch):
    model = swin.Swin(**TINY | dict(num_classes=21841))
    state_dict = {name: np.zeros(shape, np.float32) for name, shape in convert.official_shapes(model).items()}
    state_dict["head.bias"] = np.arange(21841, dtype=np.float32)
    np.savez(tmp_path / "weights.npz", **state_dict)
    rows = np.random.default_rng(0).permutation(21841)[:1000]
    monkeypatch.setattr(imagenet22k, "derive_map", lambda: rows)
    variables = load(weights=tmp_path / "weights.npz", num_classes=1000)[1]
    np.testing.assert_array_equal(variables["params"]["head"]["bias"], rows)

    def absent():
        raise UserError("pip install timm")

    monkeypatch.setattr(imagenet22k, "derive_map", absent)
    with pytest.warns(UserWarning, match="zeros"), pytest.warns(UserWarning, match="1,000 classes: pip install timm"):
        variables = load(weights=tmp_path / "weights.npz", num_classes=1000)[1]
    assert not np.any(variables["params"]["head"]["bias"])


def make_workdir(path, **config):
    fields = {f"task.model.{key}": list(v) if isinstance(v, tuple) else v for key, v in TINY.items()}
    fields["task.model.fn"] = "swin_jax.models.swin.Swin"
    (path / "config.json").write_text(json.dumps(fields | config))
    return path


def test_a_workdir_gives_its_newest_weights_and_prefers_the_average(state_dict, tmp_path, monkeypatch):
    make_workdir(tmp_path)
    average = convert.from_official(state_dict, swin.Swin(**TINY))["params"]
    params = jax.tree.map(np.zeros_like, average)
    monkeypatch.setattr(checkpoint, "load_params", lambda workdir: (params, average, {}))
    model, variables = load(weights=tmp_path)
    assert model == swin.Swin(**TINY)
    assert_holds(variables, model, state_dict)
    with pytest.warns(UserWarning, match="zeros"):
        assert load(weights=tmp_path, num_classes=2)[0].num_classes == 2
    monkeypatch.setattr(checkpoint, "load_params", lambda workdir: (params, None, {}))
    assert not np.any(load(weights=tmp_path)[1]["params"]["head"]["kernel"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(), "a name or weights"),
        (dict(weights="official"), "needs a name"),
        (dict(name=3), "name=3 is not the name of a model"),
        (dict(name=""), "name='' is not the name of a model"),
        (dict(weights=3), "weights=3 is neither 'official' nor a file"),
        (dict(weights=""), "weights='' is neither 'official' nor a file"),
        (dict(name="swin_tiny_patch4_windw7_224"), "nearest name is 'swin_tiny_patch4_window7_224'"),
        (dict(weights="swin_tiny_patch4_windw7_224"), "not a file, a workdir.*'swin_tiny_patch4_window7_224'"),
        (dict(weights="."), "not the workdir of a run"),
        (dict(weights="w.npz", num_clases=3), "did you mean 'num_classes'"),
    ],
)
def test_bad_arguments_are_said_in_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        load(**arguments)


def test_a_workdir_of_simmim_gives_its_encoder(state_dict, tmp_path, monkeypatch):
    fields = {f"task.model.encoder.{key}": list(v) if isinstance(v, tuple) else v for key, v in TINY.items()}
    fields |= {"task.model.fn": "swin_jax.models.simmim.SimMIM", "task.model.encoder.fn": "swin_jax.models.swin.Swin"}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    encoder = convert.from_official(state_dict, swin.Swin(**TINY))["params"]
    params = {"encoder": encoder, "mask_token": np.zeros((1, 1, 8)), "decoder": {"bias": np.zeros(3)}}
    monkeypatch.setattr(checkpoint, "load_params", lambda workdir: (params, None, {}))
    model, variables = load(weights=tmp_path)
    assert model == swin.Swin(**TINY)
    assert_holds(variables, model, state_dict)
    with pytest.warns(UserWarning, match="resized"):
        load(weights=tmp_path, resize="geometric", window_size=8, image_size=32)


@pytest.mark.parametrize(
    "key, value",
    [("depths", [10**9, 1]), ("num_classes", 10**9), ("window_size", 2), ("ape", True), ("embed_dim", None)],
)
def test_a_config_that_was_edited_by_hand_is_refused_before_anything_is_made(key, value, tmp_path, monkeypatch):
    """Its checkpoint has a copy; a model of another config failed later, or computed something else."""
    key = f"task.model.{key}"
    make_workdir(tmp_path, **{"task.model.ape": False, "task.model.scan": False})
    saved = json.loads((tmp_path / "config.json").read_text())
    monkeypatch.setattr(checkpoint, "saved_config", lambda workdir: saved)
    monkeypatch.setattr(checkpoint, "load_params", lambda workdir: pytest.fail("read"))
    edited = {name: found for name, found in (saved | {key: value}).items() if found is not None}
    (tmp_path / "config.json").write_text(json.dumps(edited))
    with pytest.raises(UserError) as error:
        load(weights=tmp_path)
    was = f"the checkpoint was trained with {saved[key]}; set it back"
    assert str(error.value) == f"{tmp_path}/config.json: {key} is {value}, but {was}"


def test_how_a_model_is_stored_may_be_edited(state_dict, tmp_path, monkeypatch):
    make_workdir(tmp_path, **{"task.model.scan": False})
    saved = json.loads((tmp_path / "config.json").read_text())
    monkeypatch.setattr(checkpoint, "saved_config", lambda workdir: saved | {"task.model.scan": True, "seed": 3})
    params = convert.from_official(state_dict, swin.Swin(**TINY))["params"]
    monkeypatch.setattr(checkpoint, "load_params", lambda workdir: (params, None, {}))
    assert load(weights=tmp_path)[0] == swin.Swin(**TINY)


@pytest.mark.parametrize(
    "key, value, told",
    [("depths", [3_000_000, 1], "task.model.depths is [3000000, 1], and the checkpoint"),
     ("depths", [1], "parameters that the model would ignore, such as layers.0.downsample.norm.bias")],
)  # fmt: skip
def test_a_run_whose_config_and_copy_are_of_another_model_is_refused(key, value, told, state_dict, tmp_path):
    """A model of fewer blocks than its checkpoint computed something else, without a word."""
    make_workdir(tmp_path, **{f"task.model.{key}": value, "task.model.num_heads": [1, 2][: len(value)]})
    params = convert.from_official(state_dict, swin.Swin(**TINY))["params"]
    save(tmp_path, TrainState(jax.numpy.int32(0), params, {}, {}, None))
    with pytest.raises(UserError) as error:
        load(weights=tmp_path)
    assert told in str(error.value)


def test_a_workdir_of_another_task_is_refused(tmp_path):
    make_workdir(tmp_path, **{"task.model.fn": "swin_jax.tasks.classification.Classification"})
    with pytest.raises(UserError, match="Classification, which load.. does not know"):
        load(weights=tmp_path)
    with pytest.raises(UserError, match="omit the name"):
        load("swin_tiny_patch4_window7_224", weights=tmp_path)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_every_form_of_a_picture_gives_the_same(tmp_path):
    apply = preprocess.preprocess("swin_tiny_patch4_window7_224")
    pixels = picture(300, 260)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    wanted = apply(pixels)
    assert wanted.shape == (1, 224, 224, 3) and wanted.dtype == np.float32
    forms = [[pixels], pixels[None], Image.fromarray(pixels), tmp_path / "a.png", str(tmp_path / "a.png")]
    for form in forms:
        np.testing.assert_array_equal(apply(form), wanted)
    mixed = apply([pixels, tmp_path / "a.png", Image.fromarray(picture(40, 90, 1)), pixels[..., 0]])
    assert mixed.shape == (4, 224, 224, 3)


def test_pixels_are_normalized_per_channel():
    gray = np.full((256, 256, 3), 128, np.uint8)
    wanted = (128 / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    found = preprocess.preprocess("swin_base_patch4_window7_224_22k")(gray)
    np.testing.assert_allclose(found, np.broadcast_to(wanted, found.shape), rtol=1e-5)


def test_models_of_384_pixels_see_the_whole_picture():
    pixels = np.zeros((256, 512, 3), np.uint8)
    pixels[:, :100] = 255
    whole = preprocess.preprocess("swin_base_patch4_window12_384")(pixels)
    assert whole.shape == (1, 384, 384, 3) and whole[0, 192, 10, 0] > 2
    center = preprocess.preprocess("swin_base_patch4_window7_224")(pixels)
    assert center.max() < 0


def test_a_workdir_tells_its_own_preparation(tmp_path):
    transform = {"fn": "swin_jax.data.image.small.small_eval_transform", "size": 8, "channels": 1}
    config = {f"predict.transform.{key}": value for key, value in transform.items()}
    make_workdir(tmp_path, **config, **{"task.mean": [0.5], "task.std": [0.25]})
    found = preprocess.preprocess(tmp_path)(np.full((8, 8, 3), 255, np.uint8))
    np.testing.assert_allclose(found, np.full((1, 8, 8, 1), 2.0), rtol=1e-5)
    make_workdir(tmp_path)
    with pytest.raises(UserError, match="does not say how pictures are prepared"):
        preprocess.preprocess(tmp_path)


@pytest.mark.parametrize("old, new", [(3, 1), (1, 3)])
def test_a_workdir_does_not_prepare_for_other_channels(old, new, tmp_path, monkeypatch):
    transform = {"fn": "swin_jax.data.image.small.small_eval_transform", "size": 8, "channels": old}
    config = {f"predict.transform.{key}": value for key, value in transform.items()}
    statistics = {"task.mean": [0.5] * old, "task.std": [0.25] * old, "task.model.in_channels": old}
    make_workdir(tmp_path, **config, **statistics)
    shapes = convert.official_shapes(swin.Swin(**TINY | dict(in_channels=old)))
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    params = convert.from_official(arrays, swin.Swin(**TINY | dict(in_channels=old)))["params"]
    monkeypatch.setattr(checkpoint, "load_params", lambda workdir: (params, None, {}))
    with pytest.warns(UserWarning, match=f"is of {old} channels, the model of {new}"):
        model, _ = load(weights=tmp_path, in_channels=new)
    with pytest.raises(UserError, match=f"prepares pictures of {old} channels, but this model takes {new}"):
        preprocess.preprocess(model)


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), [], np.zeros(3, np.uint8)])
def test_what_is_not_a_picture_is_refused(bad):
    with pytest.raises(UserError, match="picture"):
        preprocess.preprocess("swin_tiny_patch4_window7_224")(bad)


def test_a_damaged_picture_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"a\.jpg: not a picture"):
        preprocess.preprocess("swin_tiny_patch4_window7_224")(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="nearest name"):
        preprocess.preprocess("swin_tiny")
