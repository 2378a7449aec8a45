"""Swin's conversion: both directions are inverses, and everything that does not fit is said."""

import itertools
import warnings

import jax
import numpy as np
import pytest

from swin_jax.core import stacking
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten, official_name
from swin_jax.models import swin
from swin_jax.ops import window_geometry
from swin_jax.pretrained.swin import buffers, convert

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
    dict(swin.V2, image_size=(4, 16, 16), window_size=(2, 4, 4), merge_size=(1, 2, 2), ape=False),
    dict(swin.V2, qkv_bias=False, depths=(2, 4), main_norm_every=3, pretrained_window_sizes=(6, 3)),
    dict(small="keep", window_size=12, out_norms=(0, 1)),
    dict(swin.V2, small="keep", window_size=5, out_norms=(1,), num_classes=7, ape=False),
    swin.MLP,
    dict(swin.MLP, image_size=(16, 32), window_size=(2, 4), patch_size=(2, 4), ape=False),
    dict(relative_position=False, shift="none"),
    dict(token_mixer="sliding", shift="none"),
    dict(token_mixer="performer", shift="none", relative_position=False),
]
CHOICES = ("cosine_attention", "post_norm", "continuous_bias")
VARIATIONS += [dict(zip(CHOICES, values)) for values in itertools.product((False, True), repeat=3)]
# Every preset once, with 6 blocks of a long stage: blocks beyond the sixth are alike, main-branch norm included.
SHORT_PRESETS = [p | dict(depths=tuple(min(depth, 6) for depth in p["depths"])) for p in swin.PRESETS.values()]
SHORT_PRESETS = list({str(preset): preset for preset in SHORT_PRESETS}.values())


def make(**overrides):
    return swin.Swin(**SMALL | overrides)


def random_state(model, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in convert.official_shapes(model).items()}


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("arguments", [*SHORT_PRESETS, *(SMALL | v for v in VARIATIONS)], ids=str)
def test_names_and_sizes_are_those_of_the_model(arguments):
    model = swin.Swin(**arguments)
    ours = flatten(swin.param_shapes(model)["params"])
    official = convert.official_shapes(model)
    assert {official_name(path) for path in ours} == official.keys()
    for path, leaf in ours.items():
        assert np.prod(leaf.shape) == np.prod(official[official_name(path)]), path


@pytest.mark.parametrize("variation", VARIATIONS, ids=str)
def test_to_official_is_the_inverse_of_from_official(variation):
    model = make(**variation)
    state_dict = random_state(model)
    variables = convert.from_official(state_dict, model)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, swin.param_shapes(model))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(variables))
    back = convert.to_official(variables, model)
    if model.out_norms and model.ape:  # the dense backbone stores a map
        assert back["absolute_pos_embed"].shape == (1, 8, 16, 16)
        np.testing.assert_array_equal(back["absolute_pos_embed"][0, :, 2, 5], state_dict["absolute_pos_embed"][0, 37])
        assert_equal(convert.to_official_names(back), state_dict)
    else:
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


def test_biases_of_cosine_attention_hold_heads():
    model = make(**swin.V2)
    state_dict = random_state(model)
    attention = convert.from_official(state_dict, model)["params"]["layers_1"]["blocks_0"]["attn"]
    prefix = "layers.1.blocks.0.attn."
    np.testing.assert_array_equal(attention["q_bias"][2], state_dict[prefix + "q_bias"][8:12])
    np.testing.assert_array_equal(attention["v_bias"][1], state_dict[prefix + "v_bias"][4:8])
    np.testing.assert_array_equal(attention["cpb_mlp_2"]["kernel"][:, 3], state_dict[prefix + "cpb_mlp.2.weight"][3])


def test_a_scanned_model_gets_stacked_parameters_and_gives_them_back():
    model = make(**swin.V2, depths=(4, 2), scan=True)
    state_dict = random_state(model)
    variables = convert.from_official(state_dict, model)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, swin.param_shapes(model))
    assert any(stacking.is_stacked(path) for path in flatten(variables["params"]))
    assert_equal(convert.to_official(variables, model), state_dict)
    plain = convert.from_official(state_dict, model.clone(scan=False))
    assert_equal(flatten(stacking.unstack(variables["params"])), flatten(plain["params"]))


def test_half_precision_and_buffers_and_wrappers_are_taken():
    model = make()
    state_dict = random_state(model)
    wrapped = {"module." + k: v.astype(np.float16) for k, v in (state_dict | convert.official_buffers(model)).items()}
    found = convert.to_official(convert.from_official(wrapped, model), model)
    assert_equal(found, {name: value.astype(np.float16).astype(np.float32) for name, value in state_dict.items()})


@pytest.mark.parametrize("version", [{}, swin.V2], ids=["v1", "v2"])
def test_timm_layout_is_recognized(version):
    model = make(**version, depths=(1, 1, 1), num_heads=(1, 1, 1))
    state_dict = random_state(model)
    timm = convert.to_timm(state_dict | convert.official_buffers(model))
    assert {"layers.1.downsample.norm.weight", "layers.2.downsample.reduction.weight", "head.fc.bias"} <= timm.keys()
    assert len(timm) == len(state_dict) and "layers.0.downsample.norm.weight" not in timm
    assert_equal(convert.from_timm(timm), state_dict)
    assert_equal(convert.from_timm(state_dict), state_dict)
    assert_equal(convert.to_official(convert.from_official(timm, model), model), state_dict)


def test_a_detectors_backbone_is_taken_and_the_rest_told():
    model = make(small="keep", out_norms=(0, 1), num_classes=0)
    state_dict = random_state(model)
    file = convert.to_official(convert.from_official(state_dict, model), model, buffers=True)
    file = {f"backbone.{name}": value for name, value in file.items()}
    file |= {"neck.convs.0.weight": np.zeros(1), "neck.convs.1.weight": np.zeros(1), "roi_head.fc.bias": np.zeros(1)}
    with pytest.warns(UserWarning, match=r"ignored weights .*: neck \(2\), roi_head \(1\)"):
        variables = convert.from_official(file, model)
    assert_equal(convert.to_official_names(convert.to_official(variables, model)), state_dict)
    assert swin.Swin(**convert.infer(file)) == model


def test_simmims_encoder_is_taken_and_the_rest_told():
    model = make(**swin.V2, num_classes=0)
    state_dict = random_state(model)
    file = {f"encoder.{n.replace('cpb_mlp', 'rpe_mlp')}": v for n, v in state_dict.items()}
    file |= {"encoder.mask_token": np.zeros((1, 1, 8)), "decoder.0.weight": np.zeros(1), "decoder.0.bias": np.zeros(1)}
    with pytest.warns(UserWarning, match=r"decoder \(2\), mask_token \(1\)"):
        variables = convert.from_official(file, model)
    assert_equal(convert.to_official(variables, model), state_dict)


def test_a_fine_tuned_simmim_names_its_bias_otherwise():
    model = make(**swin.V2)
    state_dict = random_state(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        variables = convert.from_official({n.replace("cpb_mlp", "rpe_mlp"): v for n, v in state_dict.items()}, model)
    assert_equal(convert.to_official(variables, model), state_dict)


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


@pytest.mark.parametrize(
    "file, model, message",
    [
        (dict(main_norm_every=2), {}, "make the model with main_norm_every=2: 0 missing, 4 unexpected"),
        ({}, dict(main_norm_every=2), "make the model with main_norm_every=0: 4 missing"),
        (swin.V2, {}, "make the model with cosine_attention=True, post_norm=True, continuous_bias=True: "),
        ({}, swin.V2, "make the model with cosine_attention=False, post_norm=False, continuous_bias=False: "),
        (dict(small="keep", out_norms=(0, 1)), {}, r"make the model with out_norms=\(0, 1\): "),
        (swin.MLP, {}, "make the model with token_mixer='mlp', shift='pad': "),
        ({}, swin.MLP, "make the model with token_mixer='attention': "),
        (swin.MLP, dict(swin.MLP, window_size=8), r"windows of \[16, 16\] tokens .* keep window_size and image_size"),
    ],
    ids=str,
)
def test_the_choice_that_the_weights_were_made_with_is_named(file, model, message):
    with pytest.raises(UserError, match=message):
        convert.from_official(random_state(make(**file)), make(**model))


def test_buffers_are_those_of_our_own_attention():
    model = make(image_size=48, window_size=6, depths=(2, 4), patch_size=4)
    windows = window_geometry.stage_geometry(model)[1]
    buffers = convert.official_buffers(model)
    assert sum(name.endswith("index") for name in buffers) == 6
    # 12 x 12 tokens are shifted; 6 x 6 are one window, which is not.
    assert [name for name in buffers if name.endswith("mask")] == ["layers.0.blocks.1.attn_mask"]
    np.testing.assert_array_equal(
        buffers["layers.0.blocks.1.attn_mask"], window_geometry.shift_mask((12, 12), (6, 6), (3, 3))
    )
    index = buffers["layers.1.blocks.0.attn.relative_position_index"]
    assert index.dtype == np.int64
    np.testing.assert_array_equal(index, window_geometry.relative_position_index(windows[1]))


def test_coordinates_are_stored_with_a_continuous_bias():
    model = make(**swin.V2, image_size=48, window_size=6, depths=(2, 2), patch_size=4, pretrained_window_sizes=(3, 0))
    buffers = convert.official_buffers(model)
    assert len(buffers) == 4 * 2 + 1
    first, last = (buffers[f"layers.{s}.blocks.1.attn.relative_coords_table"] for s in (0, 1))
    assert first.shape == (1, 11, 11, 2) and first.dtype == np.float32
    np.testing.assert_array_equal(first[0].reshape(-1, 2), window_geometry.log_coordinates((6, 6), (3, 3)))
    np.testing.assert_array_equal(last[0].reshape(-1, 2), window_geometry.log_coordinates((6, 6), (6, 6)))
    np.testing.assert_allclose(last[0, 5:, 0, 0].max(), 1.056642, rtol=1e-6)


def test_the_dense_backbone_stores_no_masks():
    found = convert.official_buffers(make(small="keep", window_size=7, out_norms=(0, 1)))
    assert {name.rsplit(".", 1)[1] for name in found} == {"relative_position_index"}


@pytest.mark.parametrize(
    "name, entries",
    [
        ("swin_tiny_patch4_window7_224", 190),
        ("swinv2_tiny_patch4_window8_256", 250),
        ("swinv2_tiny_patch4_window16_256", 247),
    ],
)
def test_the_number_of_entries_is_that_of_the_official_file(name, entries):
    model = swin.Swin(**swin.PRESETS[name])
    assert len(convert.official_shapes(model)) + len(convert.official_buffers(model)) == entries


@pytest.mark.parametrize("buffers", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "swin_tiny_patch4_window7_224",
        "swin_large_patch4_window12_384_22k",
        "swin_tiny_c24_patch4_window8_256",
        *(name for name in swin.PRESETS if name.startswith("swin_mlp_")),
    ],
)
def test_presets_are_inferred_from_shapes(name, buffers):
    model = swin.Swin(**swin.PRESETS[name])
    shapes = {k: np.broadcast_to(np.float32(0), shape) for k, shape in convert.official_shapes(model).items()}
    assert swin.Swin(**convert.infer(shapes | (convert.official_buffers(model) if buffers else {}))) == model


@pytest.mark.parametrize(
    "name",
    [
        "swinv2_tiny_patch4_window8_256",
        "swinv2_tiny_patch4_window16_256",
        "swinv2_base_patch4_window12_192_22k",
        "swinv2_large_patch4_window12to24_192to384_22kto1k_ft",
    ],
)
def test_version_2_is_inferred_from_its_buffers(name):
    model = swin.Swin(**swin.PRESETS[name])
    shapes = {k: np.broadcast_to(np.float32(0), shape) for k, shape in convert.official_shapes(model).items()}
    buffers = convert.official_buffers(model)
    assert swin.Swin(**convert.infer(shapes | buffers)) == model
    half = {k: v.astype(np.float16) if v.dtype == np.float32 else v for k, v in buffers.items()}
    assert swin.Swin(**convert.infer(shapes | half)) == model


def test_version_2_without_buffers_names_what_it_needs():
    model = swin.Swin(**swin.PRESETS["swinv2_tiny_patch4_window16_256"])
    shapes = {k: np.broadcast_to(np.float32(0), shape) for k, shape in convert.official_shapes(model).items()}
    with pytest.raises(UserError, match="does not tell window_size and image_size: give it"):
        convert.infer(shapes)
    with pytest.raises(UserError, match="does not tell image_size: give it"):
        convert.infer(shapes, window_size=16)
    assert swin.Swin(**convert.infer(shapes, window_size=16, image_size=256)) == model
    index = {k: v for k, v in convert.official_buffers(model).items() if k.endswith("index")}
    assert swin.Swin(**convert.infer(shapes | index)) == model


@pytest.mark.parametrize("window, scale", [(8, 8), (24, 12), (12, 6), (7, 2), (5, 5), (2, 16), (1, 1)])
def test_coordinates_tell_what_they_were_made_with(window, scale):
    table = window_geometry.log_coordinates((window, window), (scale, scale)).reshape(
        1, 2 * window - 1, 2 * window - 1, 2
    )
    assert buffers.read_coordinates(table) == (window, scale)


def test_coordinates_of_another_formula_are_refused():
    with pytest.raises(UserError, match="not the official formula"):
        buffers.read_coordinates(np.ones((1, 7, 7, 2)))


@pytest.mark.parametrize(
    "arguments",
    [
        dict(image_size=64, window_size=4, ape=False),  # only the mask tells
        dict(image_size=64, window_size=4, ape=True),  # positions tell, too
        dict(image_size=64, window_size=4, ape=True, depths=(2, 6), main_norm_every=3),
        dict(image_size=64, window_size=4, cosine_attention=True, post_norm=True),
        dict(image_size=64, window_size=4, continuous_bias=True),
    ],
    ids=str,
)
def test_image_size_is_inferred_from_what_depends_on_it(arguments):
    model = make(**arguments)
    assert swin.Swin(**convert.infer(random_state(model) | convert.official_buffers(model))) == model


def test_windows_of_each_stage_of_a_dense_backbone_are_inferred():
    for version in ({}, swin.V2):
        arguments = dict(version, window_size=((6, 6), (3, 3)), small="keep", out_norms=(0, 1), num_classes=0)
        model = make(**arguments, ape=False, image_size=8)
        assert swin.Swin(**convert.infer(random_state(model) | convert.official_buffers(model))).window_size == (
            (6, 6),
            (3, 3),
        )


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
        (lambda s: s.pop("layers.1.blocks.0.attn.relative_position_bias_table"), "window_size and num_heads"),
        (lambda s: s.update({"layers.1.blocks.0.attn.relative_position_bias_table": np.zeros((15, 4))}), "window_size"),
        (lambda s: s.update({"layers.0.blocks.0.attn.relative_position_index": np.zeros((4, 4))}), "window_size"),
    ],
)
def test_what_cannot_be_inferred_is_named(change, message):
    state_dict = random_state(make())
    change(state_dict)
    with pytest.raises(UserError, match=message):
        convert.infer(state_dict)
