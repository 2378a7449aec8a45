"""Video Swin's state dicts: every layout in, the official one out; inflation, other windows, other heads."""

import json
import re
import warnings

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.models.segmentation import make_upernet
from swin_jax.models.swin import V2, Swin
from swin_jax.models.video_swin import PRESETS, make_video_swin, param_shapes
from swin_jax.models.video_swin.presets import TORCHVISION, canonical_name
from swin_jax.pretrained.segmentation import convert as upernet
from swin_jax.pretrained.swin import convert as convert_swin
from swin_jax.pretrained.swin import finetune, urls
from swin_jax.pretrained.video_swin import convert
from swin_jax.pretrained.video_swin import finetune as video_swin_finetune
from swin_jax.pretrained.video_swin import urls as video_swin_official

TINY = dict(
    num_classes=5,
    image_size=(32, 16, 16),
    patch_size=(2, 2, 2),
    window_size=(3, 4, 4),
    embed_dim=8,
    depths=(2, 4),
    num_heads=(1, 2),
)
FLAT = dict(num_classes=7, image_size=16, patch_size=2, window_size=4, embed_dim=8, depths=(2, 4), num_heads=(1, 2))
TABLE = "layers.1.blocks.3.attn.relative_position_bias_table"


def noise(shapes):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def model():
    return make_video_swin(**TINY)


@pytest.fixture(scope="module")
def state_dict(model):
    return noise(convert.official_shapes(model))


@pytest.fixture(scope="module")
def image_weights():
    return noise(convert_swin.official_shapes(Swin(**FLAT)))


def mmaction(state_dict):
    renamed = {name.replace("backbone.norm.", "backbone.norm3."): value for name, value in state_dict.items()}
    return renamed | {"data_preprocessor.mean": np.zeros((3, 1, 1)), "data_preprocessor.std": np.ones((3, 1, 1))}


LAYOUTS = {
    "official": lambda found: found,
    "wrapped": lambda found: {f"module.{name}": value for name, value in found.items()},
    "torchvision": convert.to_torchvision,
    "mmaction2": mmaction,
}


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_goes_in_and_the_official_one_comes_out_bitwise(layout, scan, model, state_dict):
    model = make_video_swin(**TINY, scan=scan)
    indices = {name: value for name, value in convert.to_official(
        convert.from_official(state_dict, model), model, buffers=True
    ).items() if name.endswith("_index")}  # fmt: skip
    assert len(indices) == 6 and all(index.shape == (48, 48) for index in indices.values())
    variables = convert.from_official(LAYOUTS[layout](state_dict | indices), model)
    assert_same(convert.to_official(variables, model), state_dict)
    wanted = flatten(param_shapes(model)["params"])
    found = flatten(variables["params"])
    assert {path: leaf.shape for path, leaf in found.items()} == {path: leaf.shape for path, leaf in wanted.items()}
    assert sum("units_2" in path for path in found) == 13 * 2 * scan
    assert convert.infer(LAYOUTS[layout](state_dict)) == convert.infer(state_dict | indices)


def test_torchvisions_names():
    found = convert.to_torchvision(
        {
            "backbone.layers.2.blocks.5.mlp.fc2.weight": 0,
            "backbone.layers.1.downsample.reduction.weight": 1,
            "cls_head.fc_cls.bias": 2,
        }
    )
    assert list(found) == ["features.4.5.mlp.3.weight", "features.3.reduction.weight", "head.bias"]


@pytest.mark.parametrize("name", [name for name in PRESETS if not name.startswith("video")])
def test_the_architecture_of_every_published_file_is_inferred(name):
    model = make_video_swin(**PRESETS[name])
    found = convert.infer({key: np.empty(shape, np.uint8) for key, shape in convert.official_shapes(model).items()})
    assert make_video_swin(**found, drop_path_rate=model.backbone.drop_path_rate) == model


def test_what_does_not_fit_is_listed(model, state_dict, image_weights):
    bad = dict(state_dict, extra=np.zeros(1), **{"cls_head.fc_cls.bias": np.zeros(4)})
    del bad["backbone.norm.weight"]
    with pytest.raises(UserError) as error:
        convert.from_official(bad, model)
    for part in (
        "window_size=(3, 4, 4)",
        "missing     backbone.norm.weight",
        "unexpected  extra",
        "mis-shaped  cls_head.fc_cls.bias: (4,), expected (5,)",
    ):
        assert part in str(error.value)
    with pytest.raises(UserError, match="2 spatial axes.*pretrained.video_swin.inflate"):
        convert.from_official(image_weights, model)
    with pytest.raises(UserError, match="2 spatial axes"):
        convert.infer(image_weights)
    with pytest.raises(UserError, match="CLIP"):
        convert.from_official({"visual.conv1.weight": np.zeros((1, 3, 4, 4))}, model)
    with pytest.raises(UserError, match="not a Video Swin state dict"):
        convert.infer({"weight": np.zeros(3)})
    for design in ("split", "factorized"):
        with pytest.raises(UserError, match="only design='joint'"):
            convert.from_official(state_dict, make_video_swin(**TINY, design=design))


def test_inflation_tiles_tables_and_spreads_patches(model, image_weights):
    found = convert.to_official(convert.inflate(image_weights, model), model.clone(num_classes=0))
    tables = found[f"backbone.{TABLE}"].reshape(5, 49, 2)
    for offset in range(5):
        np.testing.assert_array_equal(tables[offset], image_weights[TABLE])
    proj = image_weights["patch_embed.proj.weight"]
    for frame in range(2):
        np.testing.assert_array_equal(found["backbone.patch_embed.proj.weight"][:, :, frame], proj / 2)
    centered = convert.inflate(image_weights, model, patch="center", bias="center")
    centered = convert.to_official(centered, model.clone(num_classes=0))
    np.testing.assert_array_equal(centered["backbone.patch_embed.proj.weight"][:, :, 1], proj)
    assert not centered["backbone.patch_embed.proj.weight"][:, :, 0].any()
    tables = centered[f"backbone.{TABLE}"].reshape(5, 49, 2)
    np.testing.assert_array_equal(tables[2], image_weights[TABLE])
    assert (np.delete(tables, 2, axis=0) == np.float32(-4.6)).all()


def test_inflation_resizes_tables_of_another_window(image_weights):
    model = make_video_swin(**TINY | dict(window_size=(2, 6, 5), num_classes=0))
    with pytest.warns(UserWarning, match="6 position tables were resized"):
        found = convert.to_official(convert.inflate(image_weights, model), model)
    tables = found[f"backbone.{TABLE}"].reshape(3, 11, 9, 2)
    np.testing.assert_array_equal(tables[0], tables[1])
    # Of a constant a constant, of a row of constants again one: the interpolation is separable.
    constant = dict(image_weights, **{TABLE: np.tile(np.arange(7.0).repeat(7)[:, None], 2)})
    with pytest.warns(UserWarning):
        tables = convert.to_official(convert.inflate(constant, model), model)[f"backbone.{TABLE}"]
    tables = tables.reshape(3, 11, 9, 2)
    assert np.ptp(tables, axis=2).max() < 1e-5 and (np.diff(tables[0, :, 0, 0]) > 0).all()


def test_inflation_of_version_2_adds_a_silent_axis():
    flat, model = Swin(**FLAT, **V2), make_video_swin(**TINY | V2 | dict(num_classes=0))
    weights = noise(convert_swin.official_shapes(flat))
    found = convert.to_official(convert.inflate(weights, model), model)
    name = "layers.0.blocks.1.attn.cpb_mlp.0.weight"
    np.testing.assert_array_equal(found[f"backbone.{name}"][:, 1:], weights[name])
    assert not found[f"backbone.{name}"][:, 0].any()
    with pytest.raises(UserError, match="bias='center' needs position tables"):
        convert.inflate(weights, model, bias="center")
    whole = weights | convert_swin.official_buffers(flat)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert.inflate(whole, model)
    larger = make_video_swin(**TINY | dict(window_size=(3, 8, 8)), **V2)
    with pytest.warns(UserWarning, match=re.escape("pretrained_window_sizes=((3, 4, 4), (3, 4, 4)) keeps")):
        convert.inflate(whole, larger)


@pytest.mark.parametrize("arguments", [dict(patch="middle"), dict(bias="broadcast")])
def test_unknown_choices_of_inflation_are_named(arguments, model, image_weights):
    with pytest.raises(UserError, match="is not one of"):
        convert.inflate(image_weights, model, **arguments)


def test_only_images_are_inflated(model, state_dict):
    with pytest.raises(UserError, match="only an image Swin can be inflated"):
        convert.inflate(state_dict, model)


UPERNET = dict(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=4, channels=8, num_classes=2)


def test_a_run_of_another_model_around_a_swin_is_refused_as_its_file_is(model, state_dict):
    """Such a run's config lacks fields of the Swin, which the function that makes the model sets."""
    segmenter = make_upernet(**UPERNET)
    arrays = {name: np.zeros(shape, np.float32) for name, shape in upernet.official_shapes(segmenter).items()}
    run = upernet.from_official(arrays, segmenter) | {
        "config": {f"task.model.{name}": value for name, value in UPERNET.items()}
    }
    with pytest.raises(UserError, match="these weights are of a whole segmenter"):
        video_swin_finetune.load_pretrained(run, model)
    with pytest.raises(UserError, match="these weights are of a whole segmenter"):
        convert.inflate(arrays, model)
    video = convert.from_official(state_dict, model) | {"config": {"task.model.window_size": (3, 4, 4)}}
    for load in (finetune.load_pretrained, finetune.load_simmim):
        with pytest.warns(UserWarning, match="cls_head"), pytest.raises(UserError, match="look like Video Swin"):
            load(video, Swin(**FLAT))


def test_a_run_of_a_clip_over_a_swin_is_refused(model, image_weights):
    tower = convert_swin.from_official(image_weights, Swin(**FLAT))["params"]
    with pytest.raises(UserError, match="2 spatial axes"):
        video_swin_finetune.load_pretrained({"params": {"visual": tower, "logit_scale": np.zeros(())}}, model)


@pytest.mark.parametrize("frames, kept", [(5, [0, 0, 0, 1, 2, 3, 4, 4, 4]), (2, [1, 2, 3]), (1, [2])])
def test_another_window_in_time_keeps_the_offsets_that_both_have(frames, kept, state_dict):
    model = make_video_swin(**TINY | dict(window_size=(frames, 4, 4)))
    with pytest.raises(UserError, match="choose resize='bicubic'"):
        video_swin_finetune.remap(state_dict, model)
    with pytest.warns(UserWarning, match="6 position tables were resized"):
        found = video_swin_finetune.remap(state_dict, model, resize="bicubic")
    old = state_dict[f"backbone.{TABLE}"].reshape(5, 49, 2)
    np.testing.assert_array_equal(found[f"backbone.{TABLE}"].reshape(-1, 49, 2), old[kept])
    convert.from_official(found, model)


def test_another_head_is_zero_and_none_is_taken_off(model, state_dict):
    with pytest.warns(UserWarning, match="5 classes; the head of 9 classes starts from zeros"):
        found = video_swin_finetune.remap(state_dict, model.clone(num_classes=9))
    assert found["cls_head.fc_cls.weight"].shape == (9, 16) and not found["cls_head.fc_cls.weight"].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = video_swin_finetune.remap(state_dict, model.clone(num_classes=0))
        assert_same(video_swin_finetune.remap(state_dict, model), state_dict)
    assert not any("cls_head" in name for name in found)


def write(path, state_dict):
    np.savez(path, **state_dict)
    return str(path)


def test_any_source_gives_first_weights(model, state_dict, image_weights, tmp_path):
    load = video_swin_finetune.pretrained()
    variables = convert.from_official(state_dict, model)
    for source in (write(tmp_path / "a.npz", convert.to_torchvision(state_dict)), variables):
        assert_same(convert.to_official(load(source, model), model), state_dict)
    flat = convert_swin.from_official(image_weights, Swin(**FLAT))
    simmim = {"params": {"encoder": flat["params"], "mask_token": np.zeros(1), "decoder": {}}}
    wanted = flatten(convert.inflate(image_weights, model)["params"])
    for source in (write(tmp_path / "b.npz", image_weights), flat, simmim):
        found = flatten(load(source, model)["params"])
        assert found.keys() == wanted.keys() and not any(path.startswith("cls_head") for path in found)
        for path, leaf in wanted.items():
            np.testing.assert_array_equal(found[path], leaf)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = model.clone(num_classes=9)
        found = video_swin_finetune.pretrained(head=False)(variables, other)
    assert set(found["params"]) == {"backbone"}
    with pytest.raises(UserError, match=r"a\.npz: .*choose resize"):
        load(str(tmp_path / "a.npz"), make_video_swin(**TINY | dict(window_size=(5, 4, 4))))


def test_what_stays_fresh_is_what_image_weights_do_not_have(image_weights):
    for design in ("joint", "split", "factorized"):
        model = make_video_swin(**TINY, design=design)
        found = flatten(convert.inflate(image_weights, model)["params"])
        rest = flatten(param_shapes(model)["params"]).keys() - found.keys()
        assert rest == {
            path for path in flatten(param_shapes(model)["params"]) if re.search(video_swin_finetune.FRESH, path)
        }
        assert any("temporal" in path for path in rest) == (design != "joint")


def test_scale_of_a_run_s_continuous_bias_is_told():
    flat = Swin(**FLAT, **V2)
    variables = convert_swin.from_official(noise(convert_swin.official_shapes(flat)), flat)
    config = {f"task.model.{key}": value for key, value in (FLAT | V2).items()}
    config |= {"task.model.pretrained_window_sizes": [], "task.model.small": "shrink", "task.model.merge_size": 2}
    config = json.loads(json.dumps(config))
    model = make_video_swin(**TINY | dict(window_size=(3, 8, 8)), **V2)
    with pytest.warns(UserWarning, match="trained with coordinates scaled"):
        video_swin_finetune.load_pretrained({**variables, "config": config}, model)


def test_a_run_s_config_tells_what_its_weights_do_not():
    for fields, wanted in (
        (dict(window_size=(8, 8, 8)), "6 position tables were resized"),
        (V2 | dict(window_size=(3, 8, 8)), r"keeps the trained scale"),
    ):
        model = make_video_swin(**TINY | fields)
        variables = convert.from_official(noise(convert.official_shapes(model)), model)
        config = {
            f"task.model.{key}": value for key, value in (TINY | fields | dict(pretrained_window_sizes=())).items()
        }
        config = json.loads(json.dumps(config | {"task.model.fn": "make_video_swin"}))
        other = make_video_swin(**TINY | fields | dict(window_size=(8, 4, 4)))
        with pytest.warns(UserWarning, match=wanted):
            video_swin_finetune.load_pretrained({**variables, "config": config}, other, resize="bicubic")


def test_published_files():
    base = "https://github.com/SwinTransformer/storage/releases/download/v1.0.4/"
    files = {name for name, url in video_swin_official.URLS.items() if url == f"{base}{name}.pth"}
    large = {name for name, url in video_swin_official.URLS.items() if "openmmlab" in url}
    assert len(files) == 7 and len(large) == 2 and all("_large_" in name for name in large)
    unreleased = {name for name in PRESETS if name.startswith(("video_swinv2", "swin_large_384"))}
    assert files | large == PRESETS.keys() - unreleased
    assert video_swin_official.TORCHVISION_URLS.keys() == TORCHVISION.keys()
    assert canonical_name("swin3d_b_22k") == "swin_base_patch244_window877_kinetics400_22k"
    assert canonical_name("swin_base_patch244_window1677_sthv2.pth") == "swin_base_patch244_window1677_sthv2"
    assert canonical_name("swin3d") is None
    # No name of an image Swin is taken.
    assert not any(urls.canonical_name(name) for name in PRESETS)


def test_files_are_kept_in_the_cache_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIN_JAX_CACHE", str(tmp_path))
    monkeypatch.setenv("SWIN_JAX_OFFLINE", "1")
    with pytest.raises(UserError, match="nearest name is 'swin_tiny_patch244_window877_kinetics400_1k'"):
        video_swin_official.fetch("swin_tiny_patch244_window877_kinetics400")
    name = "swin_tiny_patch244_window877_kinetics400_1k"
    with pytest.raises(UserError, match="put it at"):
        video_swin_official.fetch(name)
    path = urls.locate(video_swin_official.URLS[name])[1]
    path.write_bytes(b"by hand")
    assert video_swin_official.fetch(name) == video_swin_official.fetch(f"{name}.pth") == path
    assert "Apache-2.0" in path.with_name(path.name + ".json").read_text()
    urls.locate(video_swin_official.TORCHVISION_URLS["swin3d_t"])[1].write_bytes(b"something else")
    with pytest.raises(UserError, match="does not begin with 7615ae03"):
        video_swin_official.fetch("swin3d_t")
