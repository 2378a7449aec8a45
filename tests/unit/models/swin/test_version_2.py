import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.params import flatten
from swin_jax.models import swin

SMALL = dict(num_classes=5, image_size=32, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4)
CHOICES = list(itertools.product([False, True], repeat=3))


@functools.cache
def init(model, size=(32, 32), spread=0.2):
    """Variables with noise added, so that norms which start from zero let something through."""
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *size, model.in_channels)))
    leaves, structure = jax.tree.flatten(variables)
    rng = np.random.default_rng(0)
    return structure.unflatten([leaf + spread * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])


def apply(model, variables, x, **kwargs):
    return jax.jit(lambda v, x: model.apply(v, x, **kwargs))(variables, x)


def image(*shape):
    return jax.random.normal(jax.random.key(1), (*shape, 3))


def v2(**fields):
    return swin.Swin(**SMALL | swin.V2 | fields)


@pytest.mark.parametrize("cosine, post, continuous", CHOICES)
def test_the_three_choices_are_independent(cosine, post, continuous):
    model = swin.Swin(**SMALL, cosine_attention=cosine, post_norm=post, continuous_bias=continuous)
    variables = init(model)
    names = flatten(variables["params"])
    assert any("logit_scale" in name for name in names) == cosine
    assert any("attn/qkv/bias" in name for name in names) == (not cosine)
    assert any("cpb_mlp_0" in name for name in names) == continuous
    assert names["layers_0/downsample/norm/scale"].shape == ((16,) if post else (32,))
    grads = jax.jit(jax.grad(lambda v, x: (model.apply(v, x) ** 2).sum()))(variables, image(2, 32, 32))
    dead = [name for name, g in flatten(grads["params"]).items() if not np.any(g) or not np.all(np.isfinite(g))]
    assert not dead


def test_blocks_of_version_2_start_as_the_identity():
    model = v2()
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    _, kept = apply(model, variables, image(1, 32, 32), mutable=["intermediates"])
    outputs = kept["intermediates"]["outputs"]
    np.testing.assert_array_equal(outputs["patch_embed"], outputs["layers.0.blocks.1"])
    scale = variables["params"]["layers_0"]["blocks_0"]["attn"]["logit_scale"]
    np.testing.assert_allclose(scale, np.log(10), rtol=1e-6)


@pytest.mark.parametrize("cosine", [False, True])
def test_a_folded_bias_is_the_same_function(cosine):
    model = v2(cosine_attention=cosine, pretrained_window_sizes=(3, 0))
    variables, x = init(model), image(2, 40, 32)
    folded, table = swin.fold_bias(model, variables)
    assert not folded.continuous_bias and "cpb_mlp" not in str(jax.tree.structure(table))
    np.testing.assert_allclose(apply(folded, table, x), apply(model, variables, x), atol=2e-5)


def test_the_continuous_bias_is_between_0_and_16_and_follows_the_pretraining_window():
    model = v2()
    variables = init(model)
    own = swin.position_bias(model, variables, "layers.0.blocks.1")
    assert own.shape == (49, 1) and 0 < own.min() and own.max() < 16
    # Scaled by the pretraining window, a window of 4 looks at the middle of what a window of 6 looks at.
    wide = swin.position_bias(v2(window_size=6, image_size=48), variables, "layers.0.blocks.1").reshape(11, 11)
    narrow = swin.position_bias(v2(pretrained_window_sizes=(6, 6)), variables, "layers.0.blocks.1").reshape(7, 7)
    np.testing.assert_allclose(wide[2:-2, 2:-2], narrow, atol=1e-5)


def test_the_bias_is_computed_once_not_per_window():
    model = v2(image_size=64, depths=(1,), num_heads=(1,))
    text = jax.jit(model.apply).lower(init(model), image(4, 64, 64)).as_text()
    assert "tensor<49x512xf32>" in text and "x49x512xf32>" not in text


def test_a_window_of_one_token_works():
    model = v2(image_size=8, depths=(1, 1))  # the second stage is a single token
    logits = apply(model, init(model, (8, 8)), image(2, 8, 8))
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("choices", [{}, swin.V2])
def test_dense_backbone_pads_and_norms(choices):
    model = swin.Swin(**SMALL | choices | dict(small="keep", out_norms=(0, 1), window_size=7))
    variables = init(model)
    assert {"norm0", "norm1"} <= set(variables["params"]) and not {"norm", "head"} & set(variables["params"])
    maps = apply(model, variables, image(2, 37, 50))
    assert [m.shape for m in maps] == [(2, 10, 13, 8), (2, 5, 7, 16)]
    bare = apply(model.clone(out_norms=()), variables, image(2, 37, 50), method="features")
    scale, bias = (variables["params"]["norm1"][leaf] for leaf in ("scale", "bias"))
    centered = (bare[1] - bare[1].mean(-1, keepdims=True)) / np.sqrt(bare[1].var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(maps[1], centered * scale[None, None, None] + bias[None, None, None], atol=1e-4)


def test_one_window_per_stage():
    nested = swin.Swin(**SMALL | dict(small="keep", window_size=((4, 4), (2, 2)), out_norms=(0, 1)))
    shapes = swin.param_shapes(nested)["params"]
    assert shapes["layers_0"]["blocks_0"]["attn"]["relative_position_bias_table"].shape == (49, 1)
    assert shapes["layers_1"]["blocks_0"]["attn"]["relative_position_bias_table"].shape == (9, 2)


def test_masked_tokens_are_replaced_by_the_token():
    model = v2(num_classes=0, ape=True)
    variables = init(model)
    mask = np.zeros((2, 8, 8), np.float32)
    mask[:, 2:4, 4:6] = 1
    token = jax.random.normal(jax.random.key(3), (1, 1, 8))
    encode = jax.jit(lambda x: model.apply(variables, x, mask=mask, mask_token=token, method="encode"))
    x = image(2, 32, 32)
    hidden = np.kron(mask, np.ones((4, 4)))[..., None] == 1
    np.testing.assert_allclose(encode(x), encode(jnp.where(hidden, 5.0, x)), atol=1e-6)
    assert not np.allclose(encode(x), apply(model, variables, x, method="encode"))


@functools.cache
def loss_and_gradient(**fields):
    """Of one state, whatever the fields."""
    model = v2(drop_path_rate=0.2, **fields)
    variables, x = init(v2(drop_path_rate=0.2)), image(2, 40, 32)
    kwargs = dict(train=True, rngs={"dropout": jax.random.key(2)})
    return jax.jit(jax.value_and_grad(lambda v: (model.apply(v, x, **kwargs) ** 2).sum()))(variables)


@pytest.mark.parametrize(
    "fields",
    [dict(remat="full"), dict(remat="dots"), dict(remat="dots_no_batch"), dict(attention=("sequential", "xla"))],
)
def test_memory_tools_change_nothing(fields):
    plain, lean = loss_and_gradient(), loss_and_gradient(**fields)
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(lean), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(remat="some"), "'none', 'full'"),
        (dict(attention=("xla", "xla", "xla")), "one per stage"),
        (dict(attention=("flesh",)), "'sequential'"),
        (dict(out_norms=(2,)), "0 to 1"),
        (dict(window_size=0), "window_size=0: it must be a whole number, at least 1"),
        (dict(window_size=(4, 4, 4, 2)), "one entry per axis"),
        (dict(main_norm_every=-1), "main_norm_every=-1: it must be a whole number, at least 0"),
        (dict(small="grow", num_classes=0), "'shrink', 'axis', 'keep'"),
        (dict(param_dtype="int8"), "param_dtype='int8'"),
        (dict(pretrained_window_sizes=(1, 2, 3)), "3 entries for 2 stages"),
    ],
)
def test_fields_that_make_no_model(fields, message):
    with pytest.raises(ValueError, match=message):
        swin.param_shapes(v2(**fields))


def test_parameters_may_be_bfloat16():
    shapes = swin.param_shapes(v2(param_dtype="bfloat16", dtype="bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.bfloat16)}


def test_attention_weights_can_be_captured():
    model = v2()
    _, kept = apply(model, init(model), image(2, 32, 32), mutable=["attention"])
    weights = kept["attention"]["layers_0"]["blocks_1"]["attn"]["weights"][0]
    assert weights.shape == (2 * 4, 1, 16, 16)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
