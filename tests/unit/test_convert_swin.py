"""Swin's conversion: both directions are inverses, and everything that does not fit is said."""

import jax
import numpy as np
import pytest

from swin_jax import names
from swin_jax.convert import swin as convert
from swin_jax.errors import UserError
from swin_jax.models import swin
from swin_jax.ops import window

SMALL = dict(
    num_classes=5, image_size=32, patch_size=2, embed_dim=8, depths=(2, 2), num_heads=(2, 4), window_size=4, ape=True
)
VARIATIONS = [
    {},
    dict(ape=False, patch_norm=False, qkv_bias=False, num_classes=0),
    dict(window_size=12, in_channels=1, mlp_ratio=2.0),
    dict(depths=(1, 2, 1), num_heads=(1, 2, 4), patch_size=4, small="keep", window_size=7),
    dict(depths=(1, 1, 1), num_heads=(1, 2, 4), patch_size=4, image_size=20),  # grids of 5, 3 and 2
    dict(image_size=(16, 32), window_size=(2, 4), patch_size=(2, 4)),
    dict(image_size=(4, 16, 16), window_size=(2, 4, 4), merge_size=(1, 2, 2), ape=False),
]


def make(**overrides):
    return swin.Swin(**SMALL | overrides)


def random_state(model, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in convert.official_shapes(model).items()}


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("arguments", [*swin.PRESETS.values(), *(SMALL | v for v in VARIATIONS)], ids=str)
def test_names_and_geometry_are_those_of_the_model(arguments):
    model = swin.Swin(**arguments)
    ours = names.flatten(swin.param_shapes(model)["params"])
    official = convert.official_shapes(model)
    assert {names.official_name(path) for path in ours} == official.keys()
    assert convert._geometry(model) == swin.stage_geometry(model)
    for path, leaf in ours.items():
        assert np.prod(leaf.shape) == np.prod(official[names.official_name(path)]), path


@pytest.mark.parametrize("variation", VARIATIONS, ids=str)
def test_to_official_is_the_inverse_of_from_official(variation):
    model = make(**variation)
    state_dict = random_state(model)
    variables = convert.from_official(state_dict, model)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, swin.param_shapes(model))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables))
    back = convert.to_official(variables, model)
    assert_equal(back, state_dict)
    assert list(back) == list(state_dict)
    assert all(value.flags.c_contiguous for value in back.values())


def test_qkv_and_projection_hold_heads_as_the_official_reshape_does():
    model = make()
    state_dict = random_state(model)
    attention = convert.from_official(state_dict, model)["params"]["layers_1"]["blocks_0"]["attn"]
    x = np.random.default_rng(1).normal(size=16).astype(np.float32)
    prefix = "layers.1.blocks.0.attn."
    official = (state_dict[prefix + "qkv.weight"] @ x + state_dict[prefix + "qkv.bias"]).reshape(3, 4, 4)
    ours = np.einsum("c,cthd->thd", x, attention["qkv"]["kernel"]) + attention["qkv"]["bias"]
    np.testing.assert_allclose(ours, official, rtol=1e-5, atol=1e-5)
    official = state_dict[prefix + "proj.weight"] @ official[2].reshape(-1)
    projected = np.einsum("hd,hdc->c", ours[2], attention["proj"]["kernel"])
    np.testing.assert_allclose(projected, official, rtol=1e-4, atol=1e-4)


def test_half_precision_and_buffers_and_wrappers_are_taken():
    model = make()
    state_dict = random_state(model)
    wrapped = {"module." + k: v.astype(np.float16) for k, v in (state_dict | convert.official_buffers(model)).items()}
    found = convert.to_official(convert.from_official(wrapped, model), model)
    assert_equal(found, {name: value.astype(np.float16).astype(np.float32) for name, value in state_dict.items()})


def to_timm(state_dict):
    """timm's layout: merging belongs to the next stage, and the head is inside a module."""
    moved = {f"layers.{s}.downsample": f"layers.{s + 1}.downsample" for s in range(4)}
    renamed = {}
    for name, value in state_dict.items():
        parts = name.split(".")
        if name.startswith("layers.") and parts[2] == "downsample":
            name = moved[".".join(parts[:3])] + "." + ".".join(parts[3:])
        renamed[name.replace("head.", "head.fc.")] = value
    return renamed


def test_timm_layout_is_recognised():
    model = make(depths=(1, 1, 1), num_heads=(1, 1, 1))
    state_dict = random_state(model)
    timm = to_timm(state_dict)
    assert timm.keys() != state_dict.keys()
    assert_equal(convert.from_timm(timm), state_dict)
    assert_equal(convert.from_timm(state_dict), state_dict)
    assert convert.infer(timm) == convert.infer(state_dict)


def test_wrong_weights_are_listed_whole():
    model = make()
    state_dict = random_state(model)
    del state_dict["norm.weight"], state_dict["layers.1.blocks.1.mlp.fc2.bias"]
    state_dict["neck.weight"] = np.zeros(3)
    state_dict["head.bias"] = np.zeros(7)
    with pytest.raises(UserError) as error:
        convert.from_official(state_dict, model)
    for part in ("norm.weight", "layers.1.blocks.1.mlp.fc2.bias", "neck.weight", "head.bias: (7,), expected (5,)"):
        assert part in str(error.value)
    variables = convert.from_official(random_state(model), model)
    del variables["params"]["head"]
    with pytest.raises(UserError, match=r"2 missing.*\n.*head\.weight\n.*head\.bias"):
        convert.to_official(variables, model)


def test_buffers_are_those_of_our_own_attention():
    model = make(image_size=48, window_size=6, depths=(2, 4), patch_size=4)
    windows = swin.stage_geometry(model)[1]
    buffers = convert.official_buffers(model)
    assert sum(name.endswith("index") for name in buffers) == 6
    # 12 x 12 tokens are shifted; 6 x 6 are one window, which is not.
    assert [name for name in buffers if name.endswith("mask")] == ["layers.0.blocks.1.attn_mask"]
    np.testing.assert_array_equal(buffers["layers.0.blocks.1.attn_mask"], window.shift_mask((12, 12), (6, 6), (3, 3)))
    index = buffers["layers.1.blocks.0.attn.relative_position_index"]
    assert index.dtype == np.int64
    np.testing.assert_array_equal(index, window.relative_position_index(windows[1]))


def test_the_number_of_entries_is_that_of_the_official_file():
    model = swin.Swin(**swin.PRESETS["swin_tiny_patch4_window7_224"])
    assert len(convert.official_shapes(model)) + len(convert.official_buffers(model)) == 190


@pytest.mark.parametrize("buffers", [True, False])
@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "swin_large_patch4_window12_384_22k", "swin_tiny_c24_patch4_window8_256"]
)
def test_presets_are_inferred_from_shapes(name, buffers):
    model = swin.Swin(**swin.PRESETS[name])
    shapes = {k: np.broadcast_to(np.float32(0), shape) for k, shape in convert.official_shapes(model).items()}
    assert swin.Swin(**convert.infer(shapes | (convert.official_buffers(model) if buffers else {}))) == model


@pytest.mark.parametrize(
    "arguments",
    [
        dict(image_size=64, window_size=4, ape=False),  # only the mask tells
        dict(image_size=64, window_size=4, ape=True),  # positions tell, too
    ],
    ids=str,
)
def test_image_size_is_inferred_from_what_depends_on_it(arguments):
    model = make(**arguments)
    assert swin.Swin(**convert.infer(random_state(model) | convert.official_buffers(model))) == model


def test_image_size_is_inferred_from_a_window_that_shrank():
    model = make(image_size=16, window_size=6, ape=False)
    assert swin.Swin(**convert.infer(random_state(model))) == model


def test_buffers_of_a_model_that_the_official_code_cannot_build_are_an_error():
    with pytest.raises(UserError, match="does not divide"):
        convert.official_buffers(make(image_size=16, window_size=6))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("patch_embed.proj.weight"), "not a Swin"),
        (lambda s: s.update({"layers.0.blocks.0.attn.logit_scale": np.zeros(2)}), "v2.*window_size"),
        (lambda s: s.pop("layers.1.blocks.0.attn.relative_position_bias_table"), "window_size and num_heads"),
        (lambda s: s.update({"layers.1.blocks.0.attn.relative_position_bias_table": np.zeros((15, 4))}), "window_size"),
        (lambda s: s.update({"patch_embed.proj.weight": np.zeros((8, 3, 2, 4))}), "give image_size"),
    ],
)
def test_what_cannot_be_inferred_is_named(change, message):
    state_dict = random_state(make())
    change(state_dict)
    with pytest.raises(UserError, match=message):
        convert.infer(state_dict)
