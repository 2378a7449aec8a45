"""What blocks may have in place of shifted windows of attention, and ways to shift them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models import swin
from swin_jax.models.swin import mixers
from swin_jax.models.swin.attention import WindowAttention
from swin_jax.ops.attention_variants import performer

SMALL = dict(image_size=32, patch_size=2, embed_dim=8, depths=(2,), num_heads=(2,), window_size=4, num_classes=0)
SLIDING = dict(token_mixer="sliding", shift="none")
PERFORMER = dict(token_mixer="performer", shift="none", relative_position=False)


def make(**fields):
    return swin.Swin(**SMALL | fields)


def init(model):
    """Variables with biases and tables that are not near zero, as they are at the start."""
    size = model.image_size if isinstance(model.image_size, tuple) else (model.image_size,) * 2
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *size, 3)))

    def spread(path, leaf):
        key = jax.random.fold_in(jax.random.key(1), len(str(path)))
        return leaf + 0.3 * jax.random.normal(key, leaf.shape)

    return jax.tree_util.tree_map_with_path(spread, variables)


def image(*shape, seed=1):
    return jax.random.normal(jax.random.key(seed), (*shape, 3))


def value_and_gradient(model, variables, x):
    def loss(variables, x):
        return (model.apply(variables, x, method="features")[-1] ** 3).mean()

    return jax.jit(jax.value_and_grad(loss, (0, 1)))(variables, x)


@pytest.mark.parametrize(
    "fields, size",
    [
        ({}, (32, 32)),
        (dict(window_size=5, small="keep"), (30, 44)),  # 15 x 22 tokens, padded to 15 x 25
        (dict(window_size=(3, 5), image_size=(30, 40), small="shrink_axis", **swin.V2), (30, 40)),
    ],
    ids=["plain", "dense", "rectangles of version 2"],
)
def test_shifting_by_padding_is_the_same_function_as_rolling(fields, size):
    rolled, padded = make(**fields), make(**fields, shift="pad")
    variables, x = init(rolled), image(2, *size)
    found, wanted = (value_and_gradient(model, variables, x) for model in (padded, rolled))
    assert abs(wanted[0]) > 1e-3
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max() + 1e-3))


def reach(model, at):
    """The tokens (H, W) whose pixels change the last map at a token."""
    variables = init(model)

    def value(x):
        return model.apply(variables, x, method="features")[-1][0, at[0], at[1]].sum()

    gradient = np.abs(np.asarray(jax.jit(jax.grad(value))(image(1, 32, 32))))[0].max(-1)
    return gradient.reshape(16, 2, 16, 2).max((1, 3)) > 0


def box(rows, columns):
    seen = np.zeros((16, 16), bool)
    seen[rows, columns] = True
    return seen


@pytest.mark.parametrize(
    "fields, rows, columns",
    [
        (dict(shift="none"), slice(4, 8), slice(8, 12)),
        (dict(shift="none", **{"token_mixer": "mlp"}), slice(4, 8), slice(8, 12)),
        (swin.MLP, slice(4, 12), slice(4, 12)),  # four windows, shifted over (7, 8)
        (dict(SLIDING, window_size=5, depths=(1,)), slice(5, 10), slice(6, 11)),
        (dict(SLIDING, window_size=3), slice(5, 10), slice(6, 11)),  # two blocks
        (PERFORMER, slice(0, 16), slice(0, 16)),
    ],
    ids=["no shift", "no shift, mlp", "mlp", "sliding", "sliding twice", "performer"],
)
def test_a_token_is_reached_from_its_windows_and_from_nowhere_else(fields, rows, columns):
    np.testing.assert_array_equal(reach(make(**fields), (7, 8)), box(rows, columns))


def attention(**fields):
    types = dict(dtype=jnp.float32, param_dtype=jnp.float32, implementation="xla")
    plain = dict(dim=8, num_heads=2, window=(4, 4), pretrained_window=(0, 0), cosine=False, continuous_bias=False)
    return WindowAttention(**plain | dict(qkv_bias=True, **types) | fields)


def test_attention_without_positions_does_not_know_the_order_of_tokens():
    x = jax.random.normal(jax.random.key(2), (3, 16, 8))
    order = np.random.default_rng(0).permutation(16)
    for relative_position, same in ((False, True), (True, False)):
        module = attention(relative_position=relative_position)
        params = module.init(jax.random.key(0), x, None, 1)
        params = jax.tree.map(lambda leaf: leaf + jax.random.normal(jax.random.key(3), leaf.shape) / 2, params)
        assert ("relative_position_bias_table" in params["params"]) is relative_position
        found = module.apply(params, x[:, order], None, 1)
        assert np.allclose(found, module.apply(params, x, None, 1)[:, order], atol=1e-5) is same


def test_a_performer_is_attention_to_the_whole_map_with_enough_features(monkeypatch):
    module, x = attention(relative_position=False), jax.random.normal(jax.random.key(2), (2, 4, 4, 8))
    flat = x.reshape(2, 16, 8)
    params = module.init(jax.random.key(0), flat, None, 1)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(3), leaf.shape), params)
    wanted = module.apply(params, flat, None, 1).reshape(x.shape)
    monkeypatch.setattr(performer, "num_features", lambda dim: 20_000)
    found = module.apply(params, x, method=lambda attn, x: mixers.attend_performer(x, attn))
    assert jnp.abs(found - wanted).max() < 0.02 * jnp.abs(wanted).max()


def test_sliding_windows_have_the_parameters_of_windows():
    windows, sliding = (swin.param_shapes(make(**fields)) for fields in ({}, SLIDING))
    assert windows == sliding


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(token_mixer="mpl"), "token_mixer='mpl' is not one of"),
        (dict(shift="cyclic"), "shift='cyclic' is not one of"),
        (dict(token_mixer="mlp"), "cannot have shift='roll': give shift='pad' or shift='none'"),
        (dict(token_mixer="sliding"), "cannot have shift='roll': give shift='none'"),
        (dict(PERFORMER, relative_position=True), "give relative_position=False"),
        (dict(SLIDING, attention=("sequential",)), "goes with attention=.'auto',. and temporal_window=0"),
        (dict(SLIDING, temporal_window=2), "goes with attention=.'auto',. and temporal_window=0"),
        (dict(swin.MLP, cosine_attention=True), "token_mixer='mlp' has no attention"),
        (dict(swin.MLP, small="axis"), "cannot use a corner"),
        (dict(continuous_bias=True, relative_position=False), "which relative_position=False takes away"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        swin.param_shapes(make(**fields))


@pytest.mark.parametrize("fields", [swin.MLP, SLIDING, PERFORMER], ids=str)
def test_half_precision_and_scanned_stages(fields):
    model = make(**fields, depths=(4,), dtype="bfloat16", scan=True)
    shapes = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], image(2, 32, 32))
    assert shapes.shape == (2, 8) and shapes.dtype == jnp.float32


def test_padding_costs_the_windows_that_it_adds():
    rolled, padded, mlp = make().flops(), make(shift="pad").flops(), make(**swin.MLP).flops()
    one = 4 * 16 * 8 * 8 + 2 * 16 * 16 * 8  # of a window; 25 instead of 16 in the second block
    assert padded - rolled == 9 * one
    assert rolled - mlp == 32 * one - (16 + 25) * 16 * 16 * 8
    assert make(**SLIDING).flops() == rolled
