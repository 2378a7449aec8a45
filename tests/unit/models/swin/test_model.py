import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models import layers, swin

SMALL = dict(num_classes=5, image_size=32, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4)

# Parameters and GFLOPs by the official formula (the official README and code; spec of the variants).
SIZES = {
    "swin_tiny_patch4_window7_224": (28_288_354, 4.494),
    "swin_tiny_patch4_window7_224_22k": (44_315_083, None),
    "swin_tiny_patch4_window7_224_22kto1k": (28_288_354, 4.494),
    "swin_tiny_c24_patch4_window8_256": (28_306_432, 5.926),
    "swin_small_patch4_window7_224": (49_606_258, 8.747),
    "swin_small_patch4_window7_224_22k": (65_632_987, None),
    "swin_small_patch4_window7_224_22kto1k": (49_606_258, 8.747),
    "swin_base_patch4_window7_224": (87_768_224, 15.438),
    "swin_base_patch4_window7_224_22k": (109_130_249, None),
    "swin_base_patch4_window7_224_22kto1k": (87_768_224, 15.438),
    "swin_base_patch4_window12_384": (87_903_584, 47.105),
    "swin_base_patch4_window12_384_22k": (109_265_609, None),
    "swin_base_patch4_window12_384_22kto1k": (87_903_584, 47.105),
    "swin_large_patch4_window7_224_22k": (228_565_093, None),
    "swin_large_patch4_window7_224_22kto1k": (196_532_476, 34.487),
    "swin_large_patch4_window12_384_22k": (228_768_133, None),
    "swin_large_patch4_window12_384_22kto1k": (196_735_516, 103.952),
    # Rounded, the millions and the GFLOPs of the official README: 20 M, 21 M, 23 M, 61 M; 4.0, 4.0, 4.0, 10.4.
    "swin_mlp_tiny_c24_patch4_window8_256": (20_386_632, 4.032),
    "swin_mlp_tiny_c12_patch4_window8_256": (21_152_072, 4.032),
    "swin_mlp_tiny_c6_patch4_window8_256": (22_682_952, 4.032),
    "swin_mlp_base_patch4_window7_224": (60_659_416, 10.42),
    "swinv2_tiny_patch4_window8_256": (28_347_154, 5.926),
    "swinv2_small_patch4_window8_256": (49_728_418, 11.515),
    "swinv2_base_patch4_window8_256": (87_918_816, 20.286),
    "swinv2_tiny_patch4_window16_256": (28_347_154, 6.605),
    "swinv2_small_patch4_window16_256": (49_728_418, 12.647),
    "swinv2_base_patch4_window16_256": (87_918_816, 21.796),
    "swinv2_base_patch4_window12_192_22k": (109_280_841, None),
    "swinv2_large_patch4_window12_192_22k": (228_772_549, None),
    "swinv2_base_patch4_window12to16_192to256_22kto1k_ft": (87_918_816, 21.796),
    "swinv2_base_patch4_window12to24_192to384_22kto1k_ft": (87_918_816, 54.748),
    "swinv2_large_patch4_window12to16_192to256_22kto1k_ft": (196_739_932, 47.491),
    "swinv2_large_patch4_window12to24_192to384_22kto1k_ft": (196_739_932, 115.417),
    "swinv2_huge": (655_219_370, None),  # with the norm on the main branch; 655,210,922 without
    "swinv2_giant_1b": (1_060_976_996, None),
    "swinv2_giant": (2_997_843_680, None),  # 2,997,815,008 without
}


def count(model):
    return sum(leaf.size for leaf in jax.tree.leaves(swin.param_shapes(model)))


def test_every_preset_has_a_size():
    assert set(SIZES) == set(swin.PRESETS)


@pytest.mark.parametrize("name", SIZES)
def test_size(name):
    """Blocks are stored in stacks, because those are traced in a third of the time."""
    model = swin.Swin(**swin.PRESETS[name], scan=True)
    parameters, gflops = SIZES[name]
    assert count(model) == parameters
    assert gflops is None or round(model.flops() / 1e9, 3) == gflops


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_patch4_window8_256", "swinv2_huge"])
def test_size_with_blocks_stored_one_by_one(name):
    model = swin.Swin(**swin.PRESETS[name])
    assert not model.scan and count(model) == SIZES[name][0]


@pytest.mark.parametrize("name, parameters", [("swinv2_huge", 655_210_922), ("swinv2_giant", 2_997_815_008)])
@pytest.mark.parametrize("scan", [False, True])
def test_size_without_the_norm_on_the_main_branch(name, parameters, scan):
    assert count(swin.Swin(**swin.PRESETS[name] | dict(main_norm_every=0), scan=scan)) == parameters


@pytest.mark.parametrize("variant, parameters", [("tiny", 27_519_354), ("small", 48_837_258), ("base", 86_743_224)])
def test_backbone_size(variant, parameters):
    assert count(swin.Swin(**swin.VARIANTS[variant], num_classes=0)) == parameters


def test_options_add_and_remove_parameters():
    plain = count(swin.Swin(**SMALL))
    assert count(swin.Swin(**SMALL, ape=True)) - plain == 64 * 8
    assert plain - count(swin.Swin(**SMALL, patch_norm=False)) == 2 * 8
    assert plain - count(swin.Swin(**SMALL, qkv_bias=False)) == 2 * 3 * 8 + 2 * 3 * 16


@functools.cache
def init(model, size=(32, 32)):
    return jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *size, model.in_channels)))


def apply(model, variables, x, **kwargs):
    return jax.jit(lambda v, x: model.apply(v, x, **kwargs))(variables, x)


def image(*shape):
    return jax.random.normal(jax.random.key(1), (*shape, 3))


def test_three_axes_with_one_frame_equal_two_axes():
    flat = swin.Swin(**SMALL | dict(image_size=64))  # grids 16 and 8 exceed the window
    deep = swin.Swin(
        **SMALL | dict(image_size=(1, 64, 64), patch_size=(1, 4, 4), window_size=(1, 4, 4)),
        merge_size=(1, 2, 2),
        small="axis",
    )
    variables = init(flat, (64, 64))
    lifted = init(deep, (1, 64, 64))
    assert jax.tree.map(jnp.size, variables) == jax.tree.map(jnp.size, lifted)
    lifted = jax.tree.map(lambda x, like: x.reshape(like.shape), variables, lifted)
    x = image(2, 64, 64)
    np.testing.assert_allclose(apply(deep, lifted, x[:, None]), apply(flat, variables, x), atol=1e-5)


def test_shift_moves_information_between_windows():
    # One block: nothing crosses a window. Two blocks: it does.
    for depth, crosses in ((1, False), (2, True)):
        model = swin.Swin(**SMALL | dict(depths=(depth,), num_heads=(1,)))
        variables = init(model)

        def token(x):
            return model.apply(variables, x, method="features")[-1][0, 2, 2].var()  # noqa: B023

        gradient = np.asarray(jax.jit(jax.grad(token))(image(1, 32, 32)))[0]
        assert (gradient[:16, :16] != 0).all()
        assert (gradient[16:] != 0).any() == crosses


def test_features_are_maps_before_merging():
    model = swin.Swin(**SMALL)
    maps = apply(model, init(model), image(2, 32, 32), method="features")
    assert [m.shape for m in maps] == [(2, 8, 8, 8), (2, 4, 4, 16)]


@pytest.mark.parametrize("small", ["shrink", "axis", "keep"])
@pytest.mark.parametrize("size", [(32, 32), (20, 52), (33, 30), (12, 12)])
def test_other_sizes_are_padded(small, size):
    model = swin.Swin(**SMALL, small=small)
    maps = apply(model, init(model), image(1, *size), method="features")
    rows, columns = -(-size[0] // 4), -(-size[1] // 4)
    assert maps[0].shape[1:3] == (rows, columns)
    assert maps[1].shape[1:3] == (-(-rows // 2), -(-columns // 2))
    assert all(bool(jnp.isfinite(m).all()) for m in maps)


def test_what_lies_beyond_the_padding_does_not_matter():
    # 'shrink' and 'keep' agree wherever no grid is as small as the window.
    x = image(1, 64, 48)
    shrink, keep = (swin.Swin(**SMALL | dict(image_size=(64, 48)), small=s) for s in ("shrink", "keep"))
    variables = init(shrink, (64, 48))
    np.testing.assert_array_equal(apply(shrink, variables, x), apply(keep, variables, x))


def test_intermediates_have_official_names():
    model = swin.Swin(**SMALL)
    _, kept = apply(model, init(model), image(1, 32, 32), mutable=["intermediates"])
    assert set(kept["intermediates"]["outputs"]) == {
        "patch_embed", "layers.0.blocks.0", "layers.0.blocks.1", "layers.0", "layers.1.blocks.0", "layers.1.blocks.1",
        "layers.1", "norm",
    }  # fmt: skip


def test_bfloat16_keeps_float32_parameters_and_logits():
    model, full = swin.Swin(**SMALL, dtype="bfloat16"), swin.Swin(**SMALL)
    variables = init(model)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    x = image(4, 32, 32)
    logits = apply(model, variables, x)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, apply(full, variables, x), atol=0.03)


def test_integer_images_are_refused():
    model = swin.Swin(**SMALL)
    with pytest.raises(ValueError, match="swin_jax.preprocess"):
        model.apply(init(model), jnp.zeros((1, 32, 32, 3), jnp.uint8))


@pytest.mark.parametrize("frames, sizes", [((), "height, width"), ((4,), "frames, height, width")])
def test_an_image_without_its_batch_axis_is_told_which_axes_are_expected(frames, sizes):
    shape = (*frames, 32, 32)
    axes = {"patch_size": (2, 4, 4), "window_size": (2, 4, 4), "image_size": shape} if frames else {}
    model = swin.Swin(**SMALL | axes)
    with pytest.raises(ValueError, match=rf"expected \(batch, {sizes}, 3 channels\)"):
        model.init(jax.random.key(0), jnp.zeros((*shape, 3)))


def test_heads_must_divide_channels():
    with pytest.raises(ValueError, match=re.escape("3 heads do not divide 8 channels")):
        init(swin.Swin(**SMALL | dict(num_heads=(3, 2))))


def test_initialization():
    variables = init(swin.Swin(embed_dim=96, depths=(2, 2), num_heads=(3, 6), num_classes=1000), (224, 224))["params"]
    kernel = variables["layers_1"]["blocks_0"]["mlp"]["fc1"]["kernel"]
    assert abs(float(kernel.std()) - 0.02) < 5e-4 and float(jnp.abs(kernel).max()) > 0.05  # not cut at two sigma
    proj = variables["patch_embed"]["proj"]
    assert 0.143 < float(jnp.abs(proj["kernel"]).max()) <= 48**-0.5 and float(jnp.abs(proj["bias"]).max()) > 0.1
    assert not variables["head"]["bias"].any() and not variables["layers_0"]["blocks_0"]["attn"]["qkv"]["bias"].any()


def test_drop_path_is_per_sample_and_keeps_the_expectation():
    x = jnp.ones((2000, 3, 2))
    assert layers.drop_path(x, None, 0.5) is x
    dropped = layers.drop_path(x, jax.random.uniform(jax.random.key(0), (2000,)), 0.25)
    per_sample = np.asarray(dropped.reshape(2000, -1))
    assert (per_sample == per_sample[:, :1]).all()
    assert set(np.unique(per_sample)) == {0.0, np.float32(1 / 0.75)}
    assert abs(per_sample.mean() - 1) < 0.05


def test_drop_path_ramp_is_linear_and_only_trains():
    model = swin.Swin(**SMALL, drop_path_rate=0.3)
    bound = model.bind(init(model))
    rates = [rate for stage in bound.layers for rate in stage.drop_path_rates]
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3])
    variables, x = init(model), image(8, 32, 32)
    assert (apply(model, variables, x) == apply(swin.Swin(**SMALL), variables, x)).all()
    draws = [apply(model, variables, x, train=True, rngs={"dropout": jax.random.key(i)}) for i in range(2)]
    assert not np.allclose(*draws)
