"""Names and channels that weights of a Swin come with: transformers', torchvision's, other images."""

import json
import re
import warnings

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from swin_jax.core.errors import UserError
from swin_jax.models.simmim import SimMIM
from swin_jax.models.swin import V2, Swin
from swin_jax.pretrained import recognize, wrappers
from swin_jax.pretrained.load import load
from swin_jax.pretrained.swin import adapt, convert, finetune, layouts, simmim

TINY = dict(image_size=32, patch_size=2, embed_dim=8, depths=(1, 2), num_heads=(1, 2), window_size=4, num_classes=5)
BOTH = pytest.mark.parametrize("version", [{}, V2], ids=["1", "2"])


def weights(buffers=False, **changes):
    model = Swin(**TINY | changes)
    rng = np.random.default_rng(0)
    found = {name: rng.normal(size=shape).astype(np.float32) for name, shape in convert.official_shapes(model).items()}
    if not buffers:
        return found
    kept = convert.official_buffers(model).items()
    return found | {name: value for name, value in kept if not name.endswith("attn_mask")}


def to_transformers(state_dict, prefix="swin."):
    """The names of transformers' files, by the table of its conversion script read backwards."""
    found = {}
    for name, value in state_dict.items():
        if ".attn.qkv." in name:
            for part, rows in zip(("query", "key", "value"), np.split(value, 3)):
                found["encoder." + name.replace("attn.qkv", f"attention.self.{part}")] = rows
            continue
        for old, new in {
            "attn.q_bias": "attention.self.query.bias",
            "attn.v_bias": "attention.self.value.bias",
            "attn.proj": "attention.output.dense",
            "attn.cpb_mlp": "attention.self.continuous_position_bias_mlp",
            "attn.": "attention.self.",
            "mlp.fc1": "intermediate.dense",
            "mlp.fc2": "output.dense",
            ".norm1": ".layernorm_before",
            ".norm2": ".layernorm_after",
            "patch_embed.proj": "embeddings.patch_embeddings.projection",
            "patch_embed.norm": "embeddings.norm",
            "absolute_pos_embed": "embeddings.position_embeddings",
            "mask_token": "embeddings.mask_token",
        }.items():
            name = name.replace(old, new)
        name = re.sub(r"^norm\.", "layernorm.", re.sub(r"^layers\.", "encoder.layers.", name))
        found[name] = value
    heads = {name: value for name, value in found.items() if name.startswith(("head.", "decoder."))}
    found = {prefix + name: value for name, value in found.items() if name not in heads}
    return found | {name.replace("head.", "classifier."): value for name, value in heads.items()}


def to_torchvision(state_dict):
    found = {}
    for name, value in state_dict.items():
        name = re.sub(r"^layers\.(\d+)\.blocks\.", lambda m: f"features.{2 * int(m[1]) + 1}.", name)
        name = re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"features.{2 * int(m[1]) + 2}.", name)
        name = name.replace("patch_embed.proj.", "features.0.0.").replace("patch_embed.norm.", "features.0.2.")
        name = name.replace(".mlp.fc1.", ".mlp.0.").replace(".mlp.fc2.", ".mlp.3.")
        found[name] = value.reshape(-1) if name.endswith("relative_position_index") else value
    for name in [name for name in found if name.endswith(".q_bias")]:
        q, v = found.pop(name), found.pop(name.replace(".q_bias", ".v_bias"))
        found[name.replace(".q_bias", ".qkv.bias")] = np.concatenate([q, np.ones_like(q), v])  # the key's is ignored
    return found


def file(path, arrays):
    save_file(arrays, path / "weights.safetensors")
    return path / "weights.safetensors"


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize(
    "fields", [{}, dict(qkv_bias=False), dict(num_classes=0, ape=True), dict(V2), dict(V2, qkv_bias=False)]
)
def test_names_of_transformers_are_the_official_ones_again(fields):
    wanted = weights(**fields)
    prefix = "swinv2." if "cosine_attention" in fields else "swin."
    for place in (prefix, "", f"module.{prefix}"):
        found = to_transformers(wanted, place)
        if place.startswith("module."):
            found = {name if name.startswith("module.") else f"module.{name}": value for name, value in found.items()}
        same(layouts.to_official_names(found), wanted)
        assert layouts.library(found) == "transformers"


@pytest.mark.parametrize("layout", [to_transformers, to_torchvision])
@BOTH
def test_files_with_buffers_tell_their_sizes_without_a_config(layout, version, tmp_path):
    """Older transformers and torchvision keep them; those of torchvision are flat."""
    scales = dict(pretrained_window_sizes=(8, 6)) if version else {}
    arrays = layout(weights(buffers=True, **version, **scales))
    model, variables = load(weights=file(tmp_path, arrays))
    small = "pad" if layout is to_torchvision else "shrink"
    # Nothing tells the image: it is the smallest that holds the windows.
    assert model == Swin(**TINY | version | scales | dict(image_size=16), small=small)
    wanted = convert.from_official(weights(**version), model)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(variables), wanted)


@pytest.mark.parametrize("layout", [to_transformers, to_torchvision])
@pytest.mark.parametrize(
    "wrapper", ["model.", "student.backbone.", "img_backbone.", "model.pixel_level_module.encoder."]
)
def test_they_are_found_under_any_wrapper(layout, wrapper, tmp_path):
    arrays = {f"{wrapper}{name}": value for name, value in layout(weights()).items()}
    model, variables = load(weights=file(tmp_path, arrays | {"decode_head.conv.weight": np.zeros(3, np.float32)}))
    assert model.depths == (1, 2) and model.num_classes == 5
    np.testing.assert_array_equal(variables["params"]["head"]["bias"], weights()["head.bias"])


@pytest.mark.parametrize(
    "version, change, named",
    [
        (V2, {"swin.encoder.layers.0.blocks.0.attention.self.key.bias": np.zeros(8)}, "k_proj.bias"),
        ({}, {"swin.encoder.layers.0.blocks.0.attention.self.key.weight": None}, "qkv.weight"),
        ({}, {"swin.encoder.layers.0.blocks.0.attention.self.value.bias": None}, "qkv.bias"),
        ({}, {"hidden_states_norms.stem.weight": np.zeros(8)}, "hidden_states_norms.stem.weight"),
        ({}, {"swin.embeddings.prompts": np.zeros(8)}, "embeddings.prompts"),
        ({}, {"swin.layernorm.weight": None}, "norm.weight"),
    ],
)
def test_what_is_missing_or_changes_the_features_is_named(version, change, named):
    arrays = to_transformers(weights(**version)) | change
    arrays = {name: value for name, value in arrays.items() if value is not None}
    with pytest.raises(UserError, match=rf"(missing|unexpected) +\S*{re.escape(named)}"):
        convert.from_official(arrays, Swin(**TINY | version))


def to_features_only(state_dict):
    """What timm keeps of a model with `features_only`."""
    maps = {name: value for name, value in state_dict.items() if not name.startswith(("norm.", "head."))}
    return {re.sub(r"^layers\.", "layers_", name): value for name, value in layouts.to_timm(maps).items()}


@pytest.mark.parametrize("wrapper", ["", "encoder.model.", "backbone.", "model."])
@BOTH
def test_a_model_of_maps_fills_any_model_with_fresh_norms_and_head(wrapper, version):
    wanted = weights(**version)
    arrays = {wrapper + name: value for name, value in to_features_only(wanted).items()}
    arrays = wrappers.unwrap(arrays)[0]
    assert layouts.library(arrays) == "timm"
    model = Swin(**TINY | version)
    with pytest.warns(UserWarning) as said:
        found = finetune.remap(arrays, model)
    lines = " ".join(str(line.message) for line in said)
    assert "end with the maps of their stages" in lines and "head of 5 classes starts from zeros" in lines
    fresh = {name: value for name, value in found.items() if name.startswith(("norm.", "head."))}
    assert {name: float(value.mean()) for name, value in fresh.items()} == {
        "norm.weight": 1.0, "norm.bias": 0.0, "head.weight": 0.0, "head.bias": 0.0
    }  # fmt: skip
    same(
        {name: value for name, value in found.items() if name not in fresh},
        {n: wanted[n] for n in wanted if n not in fresh},
    )
    with pytest.warns(UserWarning, match=r"output maps of stages \[0, 1\] start as ones"):
        assert "norm0.weight" in finetune.remap(arrays, model.clone(out_norms=(0, 1), small="keep"))


def test_simmim_takes_a_masked_model_of_transformers():
    model = SimMIM(encoder=Swin(**TINY | dict(num_classes=0)))
    rng = np.random.default_rng(0)
    official = {
        name: rng.normal(size=shape).astype(np.float32) for name, shape in simmim.official_shapes(model).items()
    }
    plain = {name.removeprefix("encoder."): value for name, value in official.items()}
    wanted = simmim.from_official(official, model)
    found = simmim.from_official(to_transformers(plain), model)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    with pytest.warns(UserWarning, match=r"decoder \(2\), mask_token \(1\)"):
        encoder = convert.from_official(to_transformers(plain), model.encoder)
    jax.tree.map(np.testing.assert_array_equal, encoder["params"], wanted["params"]["encoder"])


def test_the_config_beside_a_masked_model_is_obeyed_or_refused(tmp_path):
    model = SimMIM(encoder=Swin(**TINY | dict(num_classes=0)))
    zeros = {name: np.zeros(shape, np.float32) for name, shape in simmim.official_shapes(model).items()}
    arrays = to_transformers({name.removeprefix("encoder."): value for name, value in zeros.items()})
    fields = HUGGING | dict(model_type="swin", encoder_stride=4)
    simmim.load_pretrained(folder(tmp_path, fields, arrays), model)
    folder(tmp_path, fields | dict(layer_norm_eps=1e-6), arrays)
    for call in (
        lambda: simmim.load_pretrained(tmp_path, model),
        lambda: finetune.load_simmim(tmp_path, model.encoder),
    ):
        with pytest.raises(UserError, match="layer_norm_eps=1e-06"):
            call()


@pytest.mark.parametrize("layout", [to_transformers, to_torchvision])
def test_a_swin_is_named_where_a_clip_is_wanted(layout):
    assert "look like a Swin" in recognize.recognize_not_clip(layout(weights()))


HUGGING = dict(model_type="swinv2", image_size=32, patch_size=2, num_channels=3, window_size=4, hidden_act="gelu")
HUGGING |= dict(embed_dim=8, depths=[1, 2], num_heads=[1, 2], pretrained_window_sizes=[0, 0])


def folder(path, fields, arrays):
    (path / "config.json").write_text(json.dumps(fields))
    save_file(arrays, path / "model.safetensors")
    return path


@pytest.mark.parametrize("part", ["backbone_config", "encoder"])
def test_the_config_of_a_part_of_a_larger_model_is_read(part, tmp_path):
    arrays = {f"backbone.{name}": value for name, value in to_transformers(weights(**V2), "").items()}
    folder(tmp_path, {"model_type": "upernet", part: HUGGING, "auxiliary_head": True}, arrays)
    assert load(weights=tmp_path)[0] == Swin(**TINY | V2)
    folder(tmp_path, {"model_type": "upernet", part: HUGGING | dict(hidden_act="relu")}, arrays)
    with pytest.raises(UserError, match="hidden_act='relu'"):
        load(weights=tmp_path)


def test_a_window_larger_than_any_map_is_no_contradiction(tmp_path):
    arrays = to_transformers(weights(buffers=True, **V2, window_size=20))
    assert load(weights=folder(tmp_path, HUGGING | dict(window_size=20), arrays))[0].window_size == 20


def test_the_first_versions_tables_are_whole_whatever_the_image(tmp_path):
    fields = HUGGING | dict(model_type="swin", image_size=8)
    arrays = to_transformers(weights())
    assert load(weights=folder(tmp_path, fields, arrays))[0].window_size == 4


@pytest.mark.parametrize(
    "size, fits", [([32, 16], False), ([16, 32], True), ([32, 16 - 8], False), ([34, 34], True), ([18, 18], False)]
)
def test_windows_that_version_2_fits_in_another_way_are_refused(size, fits, tmp_path):
    """transformers makes them fit the height of the image alone, and rounds maps down."""
    folder(
        tmp_path, HUGGING | dict(image_size=size, window_size=5 if size[0] == 18 else 4), to_transformers(weights(**V2))
    )
    if fits:
        assert load(weights=tmp_path)[0].window_size == 4
        return
    with pytest.raises(UserError, match="image_size=.* makes windows of"):
        load(weights=tmp_path)


@pytest.mark.parametrize("old, new", [(3, 1), (3, 2), (3, 4), (3, 7), (1, 3), (4, 3), (6, 1)])
def test_input_channels_are_adapted_as_timm_does(old, new, tmp_path):
    name = "patch_embed.proj.weight"
    arrays = weights(in_channels=old)
    path = file(tmp_path, arrays)
    with pytest.warns(UserWarning, match=f"is of {old} channels, the model of {new}: .*as timm does"):
        model, variables = load(weights=path, in_channels=new)
    with pytest.warns(UserWarning, match="adapt_input_conv"):
        found = finetune.load_pretrained(path, model)
    jax.tree.map(np.testing.assert_array_equal, found, jax.device_get(variables))
    kernel = np.moveaxis(np.asarray(variables["params"]["patch_embed"]["proj"]["kernel"]), (-1, -2), (0, 1))
    repeated = np.tile(arrays[name], (1, -(-new // old), 1, 1))[:, :new] * np.float32(old / new)
    wanted = arrays[name].sum(1, keepdims=True) if new == 1 else repeated
    np.testing.assert_allclose(kernel, wanted, rtol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert adapt.adapt_channels(arrays, old)[name] is arrays[name]


@pytest.mark.parametrize("layout", [to_transformers, to_torchvision])
def test_channels_and_heads_of_other_layouts_are_adapted_too(layout, tmp_path):
    path = file(tmp_path, layout(weights()))
    with pytest.warns(UserWarning, match="summed over its channels"):
        model, _ = load(weights=path, in_channels=1)
    assert model.in_channels == 1
    with pytest.warns(UserWarning, match="head of 5 classes"):
        assert load(weights=path, num_classes=7)[0].num_classes == 7
    assert layouts.num_classes(layout(weights())) == 5
