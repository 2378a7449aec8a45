"""A config beside the weights of a Swin: obeyed, compared with the arrays, or refused by the name of the field."""

import json
import pathlib
import warnings

import numpy as np
import pytest
from safetensors.numpy import save_file

from swin_jax.core.errors import UserError
from swin_jax.models.swin import V2, Swin
from swin_jax.pretrained import beside
from swin_jax.pretrained.load import load
from swin_jax.pretrained.preprocess import preprocess
from swin_jax.pretrained.swin import config, convert, finetune

TINY = dict(image_size=32, patch_size=2, embed_dim=8, depths=(1, 2), num_heads=(1, 2), window_size=4, num_classes=5)
HUGGING = dict(
    model_type="swin",
    image_size=32,
    patch_size=2,
    num_channels=3,
    embed_dim=8,
    depths=[1, 2],
    num_heads=[1, 2],
    window_size=4,
    mlp_ratio=4.0,
    qkv_bias=True,
    hidden_act="gelu",
    layer_norm_eps=1e-5,
    use_absolute_embeddings=False,
    path_norm=True,
    encoder_stride=32,
    out_features=["stage2"],
    drop_path_rate=0.1,
)
TIMM = dict(
    architecture="swin_tiny_patch4_window7_224",
    num_classes=5,
    global_pool="avg",
    model_args=dict(
        img_size=32, patch_size=2, embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=4, drop_path_rate=0.2
    ),
)


def weights(**changes):
    rng = np.random.default_rng(0)
    shapes = convert.official_shapes(Swin(**TINY | changes))
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


ONE, TWO = weights(), weights(**V2)


def at(kind, fields):
    return beside.Config(kind, pathlib.Path("hub/config.json"), fields)


def folder(path, fields, arrays):
    (path / "config.json").write_text(json.dumps(fields))
    save_file(arrays, path / "model.safetensors")
    return path


@pytest.mark.parametrize("kind, fields", [("timm", TIMM), ("transformers", HUGGING)])
def test_a_config_that_fits_tells_what_the_arrays_do_not(kind, fields):
    assert config.arguments_of(at(kind, fields), ONE) == dict(window_size=4, image_size=32)
    pairs = json.loads(json.dumps(fields).replace('"window_size": 4', '"window_size": [4, 4]'))
    assert config.arguments_of(at(kind, pairs), ONE)["window_size"] == (4, 4)


REFUSED = [
    ("transformers", name, value)
    for name, value in dict(
        model_type="vit",
        patch_size=4,
        num_channels=1,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=8,
        mlp_ratio=2.0,
        qkv_bias=False,
        hidden_act="gelu_new",
        layer_norm_eps=1e-6,
        use_absolute_embeddings=True,
        pruned_heads={"0": [1]},
        a_new_field=1,
    ).items()
]
REFUSED += [("transformers", "model_type", "swinv2")]
REFUSED += [("timm", name, value) for name, value in dict(num_classes=7, global_pool="max", model_args=[1]).items()]
REFUSED += [
    ("timm", f"model_args.{name}", value)
    for name, value in dict(
        patch_size=4,
        in_chans=1,
        num_classes=7,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=8,
        mlp_ratio=2.0,
        qkv_bias=False,
        act_layer="silu",
        norm_layer="rmsnorm",
        embed_layer="hybrid",
        always_partition=True,
        global_pool="",
        a_new_field=1,
    ).items()
]


@pytest.mark.parametrize("kind, field, value", REFUSED)
def test_a_field_that_is_not_obeyed_or_contradicts_the_arrays_is_refused_by_its_name(kind, field, value):
    fields = TIMM if kind == "timm" else HUGGING
    outer, _, name = field.rpartition(".")
    fields = fields | ({outer: fields[outer] | {name: value}} if outer else {name: value})
    with pytest.raises(UserError, match=name) as error:
        config.arguments_of(at(kind, fields), ONE)
    assert "\n" not in str(error.value)


def test_version_2_without_buffers_is_loaded_by_its_config(tmp_path):
    """Its window, and the one that it was pretrained with, leave no trace in the arrays."""
    fields = HUGGING | dict(model_type="swinv2", window_size=8, pretrained_window_sizes=[4, 2])
    wanted = Swin(**TINY | V2 | dict(window_size=8, pretrained_window_sizes=(4, 2)))
    folder(tmp_path, fields, TWO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(weights=tmp_path)[0] == wanted
        assert load(weights=tmp_path, image_size=64)[0].image_size == 64
        finetune.load_pretrained(tmp_path, wanted)
    with pytest.warns(UserWarning, match="trained with coordinates scaled by windows of"):
        finetune.load_pretrained(tmp_path, Swin(**TINY | V2 | dict(window_size=8)))
    assert preprocess(tmp_path).image_size == (32, 32)
    folder(tmp_path, fields | dict(pretrained_window_sizes=[0, 0]), TWO)
    assert load(weights=tmp_path)[0].pretrained_window_sizes == ()


@pytest.mark.parametrize(
    "name, told",
    [
        ("swinv2_tiny_window8_256", dict(window_size=8, image_size=256)),
        ("swinv2_tiny_window8_256.ms_in1k", dict(window_size=8, image_size=256)),
        (
            "swinv2_base_window12to16_192to256",
            dict(window_size=16, image_size=256, pretrained_window_sizes=(12, 12, 12, 6)),
        ),
        ("swinv2_custom", {}),
    ],
)
def test_timms_name_of_an_architecture_tells_version_2(name, told):
    assert config.arguments_of(at("timm", dict(architecture=name, num_classes=5)), TWO) == told
    own = dict(architecture=name, num_classes=5, model_args=dict(window_size=4, img_size=32))
    assert config.arguments_of(at("timm", own), TWO)["window_size"] == 4


def test_load_preprocess_and_init_from_refuse_alike(tmp_path):
    model = Swin(**TINY)
    folder(tmp_path, HUGGING | dict(layer_norm_eps=1e-6), ONE)
    for call in (
        lambda: load(weights=tmp_path),
        lambda: load(weights=tmp_path / "model.safetensors"),
        lambda: preprocess(tmp_path),
        lambda: finetune.load_pretrained(tmp_path, model),
        lambda: finetune.load_pretrained(str(tmp_path / "model.safetensors"), model),
    ):
        with pytest.raises(UserError, match="layer_norm_eps=1e-06 is not supported"):
            call()


def test_a_name_that_says_something_else_than_the_config_is_refused(tmp_path):
    arrays = {name: np.zeros(shape, np.float32) for name, shape in convert.official_shapes(Swin(**TINY | V2)).items()}
    folder(tmp_path, dict(architecture="swinv2_tiny_window16_256", num_classes=5), arrays)
    with pytest.raises(UserError, match="says window_size=16, but the name swinv2_tiny.* 8: leave out the name"):
        load("swinv2_tiny_patch4_window8_256", weights=tmp_path)
