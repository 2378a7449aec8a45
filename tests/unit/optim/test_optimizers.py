"""Schedules and optimizers, against plain re-statements of PyTorch's and timm's rules in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from swin_jax import optim
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten, map_named, unflatten
from swin_jax.models import swin
from swin_jax.models.simmim import SimMIM
from swin_jax.models.swin import rules
from swin_jax.optim import optimizers, schedules
from swin_jax.pretrained.swin import convert as official

tree_get = optax.tree_utils.tree_get
TINY = dict(image_size=32, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4)


def swin_params(seed=0):
    """The parameters of a tiny Swin with one block and one merge, in our layout, and a few of version 2."""
    rng = np.random.default_rng(seed)
    shapes = {
        "absolute_pos_embed": (1, 16, 8),
        "head/bias": (3,),
        "head/kernel": (16, 3),
        "layers_0/blocks_0/attn/cpb_mlp/layers_0/kernel": (2, 5),
        "layers_0/blocks_0/attn/logit_scale": (2, 1, 1),
        "layers_0/blocks_0/attn/proj/bias": (8,),
        "layers_0/blocks_0/attn/proj/kernel": (2, 4, 8),
        "layers_0/blocks_0/attn/q_bias": (2, 4),
        "layers_0/blocks_0/attn/qkv/bias": (3, 2, 4),
        "layers_0/blocks_0/attn/qkv/kernel": (8, 3, 2, 4),
        "layers_0/blocks_0/attn/relative_position_bias_table": (9, 2),
        "layers_0/blocks_0/mlp/fc1/bias": (16,),
        "layers_0/blocks_0/mlp/fc1/kernel": (8, 16),
        "layers_0/blocks_0/norm1/bias": (8,),
        "layers_0/blocks_0/norm1/scale": (8,),
        "layers_0/downsample/norm/scale": (32,),
        "layers_0/downsample/reduction/kernel": (32, 16),
        "norm/scale": (16,),
        "patch_embed/norm/scale": (8,),
        "patch_embed/proj/bias": (8,),
        "patch_embed/proj/kernel": (4, 4, 3, 8),
    }
    return unflatten({name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()})


DECAYED = {
    "head/kernel",
    "layers_0/blocks_0/attn/proj/kernel",
    "layers_0/blocks_0/attn/qkv/kernel",
    "layers_0/blocks_0/mlp/fc1/kernel",
    "layers_0/downsample/reduction/kernel",
    "patch_embed/proj/kernel",
}


def gradients(steps=5):
    """A few steps' gradients whose norms lie on either side of 5."""
    scales = (0.1, 0.5, 0.01, 1.0, 0.3)[:steps]
    return [jax.tree.map(lambda x, s=scale: x * s, swin_params(7 + i)) for i, scale in enumerate(scales)]


def run(tx, params, grads):
    """Yields (params, opt_state) after each update."""
    opt_state = tx.init(params)
    update = jax.jit(tx.update)
    for grad in grads:
        updates, opt_state = update(grad, opt_state, params)
        params = optax.apply_updates(params, updates)
        yield params, opt_state


def to_float64(tree):
    return {name: np.asarray(leaf, np.float64) for name, leaf in flatten(tree).items()}


def clipped(grad, clip_norm):
    """torch.nn.utils.clip_grad_norm_."""
    norm = np.sqrt(sum((g**2).sum() for g in grad.values()))
    factor = min(1.0, clip_norm / (norm + 1e-6)) if clip_norm else 1.0
    return {name: g * factor for name, g in grad.items()}, norm


# ---- schedules ----


@pytest.mark.parametrize("prefix, golden", [(True, (1.0e-3, 5.604e-4)), (False, (9.8918e-4, 5.050e-4))])
def test_cosine_golden_values(prefix, golden):
    """Base 1e-3, min 1e-5, 300 epochs, 20 of warm-up, at epochs 20 and 150: computed with the official schedulers."""
    schedule = schedules.warmup_cosine(1e-3, 300, 20, 5e-7, 1e-5, warmup_prefix=prefix, delay=0)
    np.testing.assert_allclose(schedule(np.array([20, 150])), golden, rtol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda **kw: schedules.warmup_cosine(1e-3, 100, min_lr=1e-5, warmup_prefix=True, **kw),
        lambda **kw: schedules.warmup_cosine(1e-3, 100, min_lr=1e-5, warmup_prefix=False, **kw),
        lambda **kw: schedules.warmup_linear(1e-3, 100, min_lr=1e-5, **kw),
        lambda **kw: schedules.warmup_multistep(1e-3, (50, 80), 0.1, **kw),
    ],
)
def test_every_schedule_rises_linearly_then_never_rises(make):
    values = np.asarray(make(warmup_steps=10, warmup_lr=1e-4, delay=0)(np.arange(130)))
    np.testing.assert_allclose(values[:10], 1e-4 + (1e-3 - 1e-4) * np.arange(10) / 10, rtol=1e-6)
    assert (np.diff(values[10:]) <= 0).all()
    np.testing.assert_allclose(values[100:], 1e-5, rtol=1e-4)

    without = make(warmup_steps=0, delay=0)
    np.testing.assert_allclose(without(0), 1e-3, rtol=1e-6)

    late = make(warmup_steps=10, warmup_lr=1e-4, delay=1)
    np.testing.assert_array_equal(late(np.arange(130)), values[[0, *range(129)]])


def test_schedules_default_to_the_official_delay():
    schedule = schedules.warmup_cosine(1e-3, 100, 10)
    np.testing.assert_allclose(schedule(np.arange(4)), [0, 0, 1e-4, 2e-4], rtol=1e-6)


def test_the_prefix_form_joins_smoothly_and_the_old_form_drops():
    new, old = (schedules.warmup_cosine(1e-3, 100, 20, warmup_prefix=prefix, delay=0) for prefix in (True, False))
    assert new(20) == np.float32(1e-3)
    assert old(20) < 0.92e-3
    assert old(19) == new(19)


def test_milestones_and_line():
    steps = schedules.warmup_multistep(1.0, (3, 5), 0.5, delay=0)
    np.testing.assert_allclose(steps(np.arange(7)), [1, 1, 1, 0.5, 0.5, 0.25, 0.25])
    line = schedules.warmup_linear(1.0, 4, min_lr=0.2, delay=0)
    np.testing.assert_allclose(line(np.arange(6)), [1, 0.8, 0.6, 0.4, 0.2, 0.2], rtol=1e-6)
    assert schedules.constant(0.5)(3) == 0.5
    once = schedules.warmup_multistep(1.0, 3, 0.5, delay=0)
    np.testing.assert_allclose(once(np.arange(5)), [1, 1, 1, 0.5, 0.5])


@pytest.mark.parametrize("warmup", [0, 10])
def test_no_steps_at_all_is_finite(warmup):
    for schedule in (schedules.warmup_cosine(1e-3, 0, warmup), schedules.warmup_linear(1e-3, 0, warmup)):
        assert np.isfinite(jax.jit(schedule)(jnp.int32(0)))


def test_scale_keeps_the_warmup_and_final_rates():
    schedule = schedules.warmup_cosine(1e-3, 100, 10, warmup_lr=1e-6, min_lr=1e-6, delay=0)
    np.testing.assert_allclose(schedule(np.array([0, 10, 100]), scale=0.1), [1e-6, 1e-4, 1e-6], rtol=1e-5)


# ---- optimizers ----


@pytest.mark.parametrize("clip_norm", [0.0, 5.0])
def test_adamw_is_that_of_pytorch(clip_norm):
    schedule = schedules.warmup_cosine(1e-2, 10, 2, warmup_lr=1e-3)
    tx = optim.adamw(schedule, no_decay=rules.NO_DECAY, weight_decay=0.05, clip_norm=clip_norm)
    p = to_float64(swin_params())
    m, v = ({name: np.zeros_like(x) for name, x in p.items()} for _ in range(2))
    norms = []
    for t, ((params, opt_state), grad) in enumerate(zip(run(tx, swin_params(), gradients()), gradients())):
        lr = float(schedule(t))
        grad, norm = clipped(to_float64(grad), clip_norm)
        norms.append(norm)
        before = {name: x.copy() for name, x in p.items()}
        for name, g in grad.items():
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g**2
            p[name] *= 1 - lr * 0.05 * (name in DECAYED)
            denominator = np.sqrt(v[name]) / np.sqrt(1 - 0.999 ** (t + 1)) + 1e-8
            p[name] -= lr / (1 - 0.9 ** (t + 1)) * m[name] / denominator
        for name, x in to_float64(params).items():
            np.testing.assert_allclose(x, p[name], rtol=1e-5, atol=3e-7, err_msg=f"{name} after update {t}")
            assert not np.array_equal(x, before[name])
        np.testing.assert_allclose(tree_get(opt_state, "grad_norm"), norm, rtol=1e-6)
        np.testing.assert_allclose(tree_get(opt_state, "learning_rate"), lr, rtol=1e-6)
    assert min(norms) < 5 < max(norms)


def test_adam_corrects_the_bias_exactly():
    """Whatever the gradients' size, the first update is their sign."""
    tx = optimizers.scale_by_adam(0.9, 0.999, 0.0)
    grad = {"a": jnp.array([1e-8, -3.0, 7e4], jnp.float32)}
    updates, _ = tx.update(grad, tx.init(grad))
    np.testing.assert_allclose(updates["a"], [1, -1, 1], rtol=5e-7)


def test_adam_keeps_float32_moments_of_half_precision_parameters():
    tx = optim.adamw(schedules.constant(0.1), no_decay=rules.NO_DECAY)
    params = {"head": {"kernel": jnp.ones((2, 2), jnp.bfloat16)}}
    opt_state = tx.init(params)
    _, after = tx.update(params, opt_state, params)
    for state in (opt_state, after):
        assert tree_get(state, "mu")["head"]["kernel"].dtype == jnp.float32
        assert tree_get(state, "nu")["head"]["kernel"].dtype == jnp.float32


@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_is_that_of_pytorch(momentum, nesterov):
    tx = optim.sgd(schedules.constant(0.1), rules.NO_DECAY, momentum, nesterov, weight_decay=0.01, clip_norm=5.0)
    p = to_float64(swin_params())
    buffer = {name: np.zeros_like(x) for name, x in p.items()}
    for (params, _), grad in zip(run(tx, swin_params(), gradients()), gradients()):
        for name, g in clipped(to_float64(grad), 5.0)[0].items():
            g = g + 0.01 * p[name] * (name in DECAYED)
            buffer[name] = momentum * buffer[name] + g
            p[name] -= 0.1 * (g + momentum * buffer[name] if nesterov else buffer[name])
        for name, x in to_float64(params).items():
            np.testing.assert_allclose(x, p[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_exactly_the_official_parameters_are_decayed():
    params = swin_params()
    tx = optim.adamw(schedules.constant(1.0), no_decay=rules.NO_DECAY, weight_decay=0.5)
    (after, _) = next(run(tx, params, [jax.tree.map(jnp.zeros_like, params)]))
    after, before = flatten(after), flatten(params)
    moved = {name for name in before if not np.array_equal(after[name], before[name])}
    assert moved == DECAYED
    for name in DECAYED:
        np.testing.assert_allclose(after[name], before[name] * 0.5, rtol=1e-6)


def test_no_decay_is_a_choice():
    params = swin_params()
    tx = optim.adamw(schedules.constant(1.0), weight_decay=0.5, no_decay=("^layers", "^patch", "norm"))
    (after, _) = next(run(tx, params, [jax.tree.map(jnp.zeros_like, params)]))
    after, before = flatten(after), flatten(params)
    moved = {name for name in before if not np.array_equal(after[name], before[name])}
    assert moved == {"absolute_pos_embed", "head/bias", "head/kernel"}


@pytest.mark.parametrize("choices", [{}, swin.V2], ids=["v1", "v2"])
def test_simmim_decays_tables_bias_mlps_and_temperatures_and_the_corrected_form_does_not(choices):
    """Peer: the rule of `optimizer.py` on the official shapes, by whole names and by keywords that never match."""
    encoder = swin.Swin(**choices, **TINY, main_norm_every=2, ape=True, num_classes=0)
    shapes = {f"encoder.{name}": shape for name, shape in official.official_shapes(encoder).items()}
    shapes |= {"encoder.mask_token": (1, 1, 8), "decoder.weight": (192, 16, 1, 1), "decoder.bias": (192,)}
    exempt = {"encoder.mask_token", "encoder.absolute_pos_embed"}
    published = {name for name, shape in shapes.items() if len(shape) > 1} - exempt
    keywords = ("relative_position_bias_table", "cpb_mlp", "logit_scale")
    corrected = {name for name in published if not any(keyword in name for keyword in keywords)}
    assert len(published - corrected) == (3 if choices else 1) * sum(TINY["depths"])

    params = jax.eval_shape(SimMIM(encoder).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 8, 8)))
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params["params"])
    for no_decay, expected in ((rules.SIMMIM_NO_DECAY, published), (rules.NO_DECAY, corrected)):
        tx = optim.adamw(schedules.constant(1.0), weight_decay=0.5, no_decay=no_decay)
        updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
        moved = set()
        map_named(lambda name, u: moved.add(name) if np.any(u) else None, updates)  # noqa: B023
        assert {name.replace("decoder.0.", "decoder.") for name in moved} == expected


# ---- freezing ----


@pytest.mark.parametrize("make", [optim.adamw, optim.sgd])
def test_frozen_parameters_have_no_update_no_moments_and_no_part_in_the_norm(make):
    params, grads = swin_params(), gradients()
    tx = make(schedules.constant(0.1), no_decay=rules.NO_DECAY, clip_norm=1.0, freeze=r"^(?!head\.)")  # a linear probe
    probe = make(schedules.constant(0.1), no_decay=rules.NO_DECAY, clip_norm=1.0)
    head = [{"head": grad["head"]} for grad in grads]
    both = zip(run(tx, params, grads), run(probe, {"head": params["head"]}, head))
    for (after, opt_state), (alone, alone_state) in both:
        for name, x in flatten(after).items():
            expected = flatten(alone).get(name, flatten(params)[name])
            np.testing.assert_array_equal(x, expected, err_msg=name)
        assert tree_get(opt_state, "grad_norm") == tree_get(alone_state, "grad_norm")
        assert tree_get(opt_state, "learning_rate") == np.float32(0.1)
        assert sum(x.size for x in jax.tree.leaves(opt_state)) == sum(x.size for x in jax.tree.leaves(alone_state))


@pytest.mark.parametrize("freeze, what", [("heads", "no parameter"), (".", "every parameter")])
def test_a_freeze_that_matches_nothing_or_all_names_some_parameters(freeze, what):
    tx = optim.adamw(schedules.constant(0.1), no_decay=rules.NO_DECAY, freeze=freeze)
    with pytest.raises(UserError, match=f"freeze='{freeze}' matches {what}.*absolute_pos_embed"):
        jax.eval_shape(tx.init, swin_params())


# ---- layer-wise learning rates ----


@pytest.mark.parametrize("decay, smallest", [(0.9, 0.0718), (0.8, 0.00378), (0.75, 0.000753), (0.7, 0.000134)])
def test_layer_decay_golden_values(decay, smallest):
    """Swin-B: 26 ids."""
    scale = rules.layer_decay(decay, (2, 2, 18, 2))
    np.testing.assert_allclose(scale("patch_embed.proj.weight"), smallest, rtol=2e-3)
    ids = {
        "layers.0.blocks.0.norm1.weight": 1,
        "layers.0.downsample.reduction.weight": 2,
        "layers.1.blocks.1.attn.qkv.bias": 4,
        "layers.1.downsample.norm.weight": 4,
        "layers.2.blocks.17.mlp.fc1.weight": 22,
        "layers.2.downsample.norm.bias": 22,
        "layers.3.blocks.1.norm2.bias": 24,
        "norm.weight": 25,
        "head.bias": 25,
        "absolute_pos_embed": 25,
    }
    for name, layer in ids.items():
        np.testing.assert_allclose(scale(name), decay ** (25 - layer), err_msg=name)


def test_every_parameter_of_version_2_has_the_layer_of_its_block():
    model = swin.Swin(**swin.V2, **TINY, main_norm_every=2, ape=True, out_norms=())
    depth, seen = sum(TINY["depths"]), set()
    for name in official.official_shapes(model):
        if name.startswith("patch_embed."):
            layer = 0
        elif name.startswith("layers."):
            stage, part, block = name.split(".")[1:4]
            last = sum(TINY["depths"][: int(stage) + 1])
            layer = last if part == "downsample" else last - TINY["depths"][int(stage)] + int(block) + 1
        else:
            layer = depth + 1
        np.testing.assert_allclose(rules.layer_decay(0.5, TINY["depths"])(name), 0.5 ** (depth + 1 - layer))
        seen.add((layer, name.split(".")[4] if ".blocks." in name else name))
    assert {(2, "enorm"), (4, "enorm")} < seen and not {(1, "enorm"), (3, "enorm")} & seen


def test_layer_scale_multiplies_each_update_and_not_the_logged_rate():
    params, grads = swin_params(), gradients(1)
    scale = rules.layer_decay(0.5, (1,))
    plain, scaled = (
        optim.adamw(schedules.constant(0.1), no_decay=rules.NO_DECAY, layer_scale=choice) for choice in (None, scale)
    )
    updates, _ = jax.jit(plain.update)(grads[0], plain.init(params), params)
    expected = map_named(lambda name, u: np.asarray(u) * np.float32(scale(name)), updates)
    updates, opt_state = jax.jit(scaled.update)(grads[0], scaled.init(params), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, expected)
    assert tree_get(opt_state, "learning_rate") == np.float32(0.1)
