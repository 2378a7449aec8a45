"""Weights of UPerNet: files in each layout, classifiers as backbones, and what fits nowhere."""

import json
import pickle
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import swin_jax
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.models.segmentation import PRESETS, make_upernet
from swin_jax.models.swin import V2, Swin
from swin_jax.pretrained.load import load
from swin_jax.pretrained.preparation import FIT
from swin_jax.pretrained.segmentation import convert, finetune, openmmlab, urls
from swin_jax.pretrained.swin import convert as swin_convert
from swin_jax.train import checkpoint
from swin_jax.train.init_from import InitFrom
from tests.unit.models.segmentation.test_upernet import TINY, shapes
from tests.unit.pretrained.swin.test_layouts import to_transformers

RNG = np.random.default_rng(0)
MODEL = make_upernet(**TINY)
OFFICIAL = {name: RNG.normal(size=x).astype(np.float32) for name, x in convert.official_shapes(MODEL).items()}
BACKBONE = {key: TINY[key] for key in ("embed_dim", "depths", "num_heads", "window_size")}
CLASSIFIER = Swin(**BACKBONE, image_size=64, num_classes=7)


def classifier():
    names = swin_convert.official_shapes(CLASSIFIER).items()
    return {name: RNG.normal(size=shape).astype(np.float32) for name, shape in names}


def file(path, arrays):
    save_file(arrays, path / "weights.safetensors")
    return path / "weights.safetensors"


def same(found, wanted):
    found, wanted = flatten(jax.device_get(found)), flatten(wanted)
    assert found.keys() == wanted.keys()
    for path, value in wanted.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)


def unfolded(places):
    """mmcv's order for the official one along the last axis, (..., 4 * C): `correct_unfold_norm_order` of its
    converter."""
    cells = places.reshape(*places.shape[:-1], 4, -1)[..., [0, 2, 1, 3], :]
    return np.ascontiguousarray(np.moveaxis(cells, -2, -1)).reshape(places.shape)


def to_openmmlab(state_dict):
    """Names and order of mmsegmentation's files, as its converter makes them of the official ones."""
    found = {}
    for name, value in state_dict.items():
        if "downsample" in name:
            value = unfolded(value)
        name = re.sub(r"\bbackbone\.layers\.", "backbone.stages.", name)
        name = name.replace(".attn.", ".attn.w_msa.").replace("patch_embed.proj.", "patch_embed.projection.")
        found[name.replace(".mlp.fc1.", ".ffn.layers.0.0.").replace(".mlp.fc2.", ".ffn.layers.1.")] = value
    return found


def to_hub(state_dict):
    """Names of transformers' `UperNetForSemanticSegmentation`."""
    backbone = to_transformers(convert.backbone_of(state_dict), "")
    stages = {f"norm{s}.": f"hidden_states_norms.stage{s + 1}." for s in range(4)}
    found = {}
    for name, value in backbone.items():
        found["backbone." + re.sub(r"^norm\d\.", lambda match: stages[match[0]], name)] = value
    heads = {name: value for name, value in state_dict.items() if "_head." in name}
    return found | {n.replace(".bn.", ".batch_norm.").replace("conv_seg", "classifier"): x for n, x in heads.items()}


@pytest.mark.parametrize("layout", [dict, to_openmmlab, to_hub], ids=["official", "mmsegmentation", "transformers"])
def test_a_file_in_any_layout_gives_the_same_model(layout, tmp_path):
    model, variables = load(weights=file(tmp_path, layout(OFFICIAL)), image_size=32)
    assert model == MODEL.clone(backbone=MODEL.backbone.clone(drop_path_rate=0.3))
    same(variables, convert.from_official(OFFICIAL, MODEL))


def test_merging_of_unfolded_maps_is_the_official_one():
    """The same linear layer on the same map, cut into cells in the order of each."""
    image, weight = RNG.normal(size=(6, 4, 3)), RNG.normal(size=(5, 12))
    cells = image.reshape(3, 2, 2, 2, 3).transpose(0, 2, 1, 3, 4)  # (3, 2, row of the cell, column, channel)
    by_channel = cells.transpose(0, 1, 4, 2, 3).reshape(3, 2, 12)  # as torch.nn.Unfold
    by_place = cells.transpose(0, 1, 3, 2, 4).reshape(3, 2, 12)  # as the official merging
    name = "backbone.stages.0.downsample.reduction.weight"
    (ours,) = openmmlab.to_official_names({name: weight}).values()
    np.testing.assert_allclose(by_place @ ours.T, by_channel @ weight.T, atol=1e-12)


def test_a_checkpoint_of_the_official_code_has_meta_buffers_and_a_prefix(tmp_path):
    counters = {n.replace("running_var", "num_batches_tracked"): np.int64(3) for n in OFFICIAL if "running_var" in n}
    state_dict = convert.to_official(convert.from_official(OFFICIAL, MODEL), MODEL, buffers=True)
    assert len(state_dict) == len(OFFICIAL) + len(counters) + sum(TINY["depths"])
    checkpoint = {
        "meta": {"CLASSES": ("a", "b"), "epoch": 1},
        "state_dict": {f"module.{name}": x for name, x in (state_dict | counters).items()},
    }
    (tmp_path / "upernet.pth").write_bytes(pickle.dumps(checkpoint, 2))
    model, variables = load(weights=tmp_path / "upernet.pth", image_size=32)
    same(variables, convert.from_official(OFFICIAL, model))


@pytest.mark.parametrize("changes", [dict(V2), dict(pool_scales=(1, 2)), dict(auxiliary_channels=0), dict(ape=True)])
def test_arguments_are_read_off_the_arrays(changes):
    model = make_upernet(**TINY | changes)
    found = {name: np.zeros(shape, np.float32) for name, shape in convert.official_shapes(model).items()}
    state_dict = convert.to_official(convert.from_official(found, model), model, buffers=True)
    known = dict(image_size=32, pool_scales=changes.get("pool_scales", (1, 2, 3, 6)))
    assert make_upernet(**convert.infer(state_dict, known)) == model


def test_what_arrays_do_not_tell_is_asked_for():
    pools = {name: x for name, x in OFFICIAL.items() if "psp_modules.3" not in name}
    with pytest.raises(UserError, match="pool to 3 grids.*give pool_scales"):
        convert.infer(pools, {})
    assert convert.infer(pools, dict(pool_scales=(1, 3, 5)))["pool_scales"] == (1, 3, 5)
    with pytest.raises(UserError, match="has them of all"):
        convert.infer({name: x for name, x in OFFICIAL.items() if ".norm2." not in name[:16]}, {})


def test_other_classes_and_windows_are_said(tmp_path):
    path = file(tmp_path, OFFICIAL)
    with pytest.warns(UserWarning, match="not of 9 classes: decode_head and auxiliary_head end with zeros"):
        model, variables = load(weights=path, num_classes=9)
    assert variables["params"]["decode_head"]["conv_seg"]["kernel"].shape == (1, 1, 8, 9)
    assert not variables["params"]["auxiliary_head"]["conv_seg"]["kernel"].any()
    with pytest.raises(UserError, match="choose resize='bicubic'"):
        load(weights=path, window_size=3)
    with pytest.warns(UserWarning, match="4 position tables were resized"):
        assert load(weights=path, window_size=3, resize="bicubic")[0].backbone.window_size == 3
    with pytest.raises(UserError, match=r"\(1, 1, 1, 1\).*, not a?n? ?upernet_swin_tiny"):
        load("upernet_swin_tiny_patch4_window7_512x512", weights=path)


def test_every_key_that_does_not_fit_is_listed():
    broken = {name: x for name, x in OFFICIAL.items() if name != "decode_head.fpn_convs.1.bn.bias"}
    broken["decode_head.conv_seg.bias"] = np.zeros(6, np.float32)
    with pytest.raises(UserError) as caught:
        convert.from_official(broken | {"neck.weight": np.zeros(1, np.float32)}, MODEL)
    for part in ("decode_head.fpn_convs.1.bn.bias", "conv_seg.bias: (6,), expected (5,)", "unexpected  neck.weight"):
        assert part in str(caught.value)


def test_published_files_have_addresses_and_the_others_say_that_they_have_none():
    tiny = "upernet_swin_tiny_patch4_window7_512x512"
    assert urls.URLS[tiny].endswith(f"/v1.0.1/{tiny}.pth")
    assert urls.URLS[f"moby_{tiny}"].endswith(f"/v1.0.3/moby_{tiny}.pth")
    with pytest.raises(UserError, match="were never published, only their accuracy"):
        load("upernet_swin_large_patch4_window12_640x640_22k", weights="official")


@pytest.mark.parametrize("name, scale", [("swin_tiny_patch4_window7_512x512", 512), ("window12_640x640_22k", 640)])
def test_pictures_are_prepared_as_published(name, scale):
    prepared = swin_jax.preprocess(next(known for known in PRESETS if name in known))
    assert prepared.transform == FIT and prepared.arguments == {"scale": (4 * scale, scale)}
    assert prepared.image_size is None and not prepared.assumed
    assert prepared.replace(image_size=320).arguments == {"scale": (1280, 320)}
    picture = RNG.integers(0, 256, (30, 40, 3), np.uint8)
    assert prepared.replace(scale=None)(np.zeros((5, 9, 3), np.uint8)).shape == (1, 5, 9, 3)
    small = prepared.replace(scale=(64, 16))
    assert small(picture).shape == (1, 16, 21, 3) and small(picture[:, :4]).shape == (1, 64, 9, 3)
    with pytest.raises(UserError, match="different sizes and cannot form a batch"):
        small([picture, picture[:, :30]])


def test_a_segmenter_is_no_classifier(tmp_path):
    path = file(tmp_path, OFFICIAL)
    name, sizes = "swin_tiny_patch4_window7_224", {key: BACKBONE[key] for key in ("embed_dim", "depths", "num_heads")}
    with pytest.raises(UserError, match=r"of a whole segmenter \(UPerNet\), not of a classifier"):
        load(name, weights=path, **sizes, window_size=4)
    with pytest.raises(UserError, match=r"of a whole segmenter.*--config.init_from.backbone=False"):
        InitFrom(str(path), convert=swin_convert_pretrained()).load(Task(CLASSIFIER), {})
    assert load(name, weights=path, **BACKBONE, small="keep", out_norms=(0, 1, 2, 3))[0].out_norms == (0, 1, 2, 3)


def swin_convert_pretrained():
    from swin_jax.pretrained.swin.finetune import pretrained

    return pretrained()


class Task:
    """What `InitFrom` looks at."""

    def __init__(self, model):
        self.model = model


def start(source, model=MODEL, **fields):
    """(first values, report) of a run of a segmenter."""
    known = shapes(model)
    init = InitFrom(str(source), head=finetune.FRESH, convert=finetune.pretrained("bicubic"), **fields)
    return init.load(Task(model), known["params"], {"batch_stats": known["batch_stats"]})


@pytest.mark.parametrize("scan", [False, True])
def test_a_classifier_becomes_the_backbone(tmp_path, scan):
    model = make_upernet(**TINY | dict(scan=scan, window_size=3))
    path = file(tmp_path, classifier())
    with pytest.warns(UserWarning, match="norms of the output maps of stages"):
        found, report = start(path, model, backbone=True)
    assert "left at initialization: auxiliary_head (" in report and "decode_head (" in report
    assert "the weights have them too" not in report
    assert found.keys() == {path for path in flatten(shapes(model)["params"]) if path.startswith("backbone/")}
    kernel = found["backbone/layers_0/blocks_0/mlp/fc1/kernel"]
    np.testing.assert_array_equal(kernel.T, swin_read(path)["layers.0.blocks.0.mlp.fc1.weight"])
    with pytest.raises(UserError, match=r"has a backbone only, and lacks auxiliary_head.*init_from.backbone=True"):
        start(path, model)


def swin_read(path):
    from swin_jax.pretrained.swin.finetune import read

    return read(path, None)


def test_a_whole_segmenter_starts_a_run_and_its_heads_can_be_left(tmp_path):
    path = file(tmp_path, OFFICIAL)
    found, report = start(path)
    assert len(found) == len(OFFICIAL) and "batch_stats/decode_head/bottleneck/bn/var" in found
    assert report.endswith(f"{len(found)} of {len(found)} parameters")
    left, report = start(path, backbone=True)
    assert not [name for name in left if "_head/" in name]
    assert "the weights have them too: --config.init_from.backbone=False takes them" in report


def test_files_without_a_head_that_is_wanted_are_one_line(tmp_path):
    name = "upernet_swin_tiny_patch4_window7_512x512"
    with pytest.raises(UserError, match="have no decode_head.*of a classifier") as error:
        load(name, weights=file(tmp_path, classifier()), **TINY)
    assert not error.value.items
    path = file(tmp_path, {key: x for key, x in OFFICIAL.items() if not key.startswith("auxiliary_head.")})
    flags = "--config.task.model.auxiliary_channels=0 --config.task.auxiliary_weight=0"
    for read in (lambda: start(path), lambda: load(name, weights=path, **TINY)):
        with pytest.raises(UserError, match=f"no auxiliary head: give auxiliary_channels=0, .*{flags}"):
            read()
    load(name, weights=path, **TINY | dict(auxiliary_channels=0))


@pytest.mark.parametrize("scan", [False, True])
def test_the_segmenter_of_a_run_is_loaded_as_it_was_trained(tmp_path, monkeypatch, scan):
    fields = TINY | dict(scan=scan, depths=(1, 1, 4, 1))
    trained = make_upernet(**fields)
    saved = {f"task.model.{name}": value for name, value in fields.items()}
    saved |= {"task.model.fn": "swin_jax.models.segmentation.make_upernet", "predict.transform.fn": FIT}
    saved |= {"predict.transform.scale": [64, 16], "task.mean": [0.5] * 3, "task.std": [0.5] * 3}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    official = {name: RNG.normal(size=x).astype(np.float32) for name, x in convert.official_shapes(trained).items()}
    variables = convert.from_official(official, trained)
    monkeypatch.setattr(checkpoint, "load_variables", lambda workdir: variables)
    model, found = load(weights=tmp_path)
    assert model == trained and swin_jax.preprocess(model).arguments == {"scale": [64, 16]}
    same(found, variables)
    with pytest.warns(UserWarning, match="7 position tables were resized"):
        assert load(weights=tmp_path, window_size=3, resize="bicubic")[0].backbone.window_size == 3


def test_runs_are_sources_too():
    variables = convert.from_official(OFFICIAL, MODEL)
    same(finetune.load_pretrained(variables, MODEL), variables)
    params = swin_convert.from_official(classifier(), CLASSIFIER)["params"]
    inside = finetune.load_pretrained({"params": params, "config": None}, MODEL, "bicubic")
    assert inside["params"].keys() == {"backbone"} and "batch_stats" not in inside


def test_a_segmenter_carries_the_class_names_of_its_file(tmp_path):
    names = [f"class {k}" for k in range(TINY["num_classes"])]
    for count, path in ((len(names), tmp_path / "named.pth"), (1, tmp_path / "other.pth")):
        path.write_bytes(pickle.dumps({"state_dict": OFFICIAL, "meta": {"CLASSES": names[:count]}}))
    assert swin_jax.class_names(load(weights=tmp_path / "named.pth", **BACKBONE)[0]) == tuple(names)
    with pytest.raises(UserError, match="no installed package names"):
        swin_jax.class_names(load(weights=tmp_path / "other.pth", **BACKBONE)[0])
