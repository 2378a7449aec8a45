"""Scanned stages: the same function, gradients and update as blocks one by one, whatever the storage."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from swin_jax import optim
from swin_jax.core import stacking
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten, unflatten
from swin_jax.models import swin
from swin_jax.models.swin import rules
from swin_jax.optim import schedules
from swin_jax.tasks.base import TrainState
from swin_jax.tasks.classification import Classification
from swin_jax.train import checkpoint, sharding

SMALL = dict(num_classes=3, image_size=32, embed_dim=8, depths=(1, 4), num_heads=(1, 2), window_size=2)
NORMS = dict(main_norm_every=3, depths=(2, 12))
DECAY = rules.layer_decay(0.7, (1, 4))


def model(scan, **fields):
    return swin.Swin(**SMALL | dict(drop_path_rate=0.3) | fields, scan=scan)


def task(scan, **kwargs):
    schedule = schedules.warmup_cosine(1e-2, 10, warmup_steps=2, warmup_lr=1e-4, min_lr=1e-5)
    tx = optim.adamw(schedule, no_decay=rules.NO_DECAY, layer_scale=DECAY, **kwargs)
    fields = swin.V2 | dict(pretrained_window_sizes=(2, 3))
    return Classification(model(scan, **fields), tx, 32, 3, mixup=0.0, cutmix=0.0, erase_probability=0.0)


def batch():
    rng = np.random.default_rng(0)
    return {"image": rng.integers(0, 256, (4, 32, 32, 3), np.uint8), "label": np.array([0, 1, 2, 0], np.int32)}


def drawn_params(of):
    """Parameters of a model that depend on names only, with noise so that no branch is silent."""
    params = flatten(stacking.unstack(swin.param_shapes(of)["params"]))
    rng = np.random.default_rng(0)
    for path in sorted(params):
        middle = np.float32(1 if path.endswith("scale") else 0)
        params[path] = middle + 0.1 * rng.normal(size=params[path].shape).astype(np.float32)
    return jax.device_put(stacking.stack_as(unflatten(params), of))


def first_state(of):
    """The state that a task starts from, but for its parameters."""
    params = drawn_params(of.model)
    return TrainState(jnp.zeros((), jnp.int32), params, jax.jit(of.tx.init)(params), {})


@pytest.fixture(scope="module")
def steps():
    """{scan: state after two updates, the first one's metrics}."""
    out = {}
    for scan in (False, True):
        of = task(scan, clip_norm=1.0)
        step = jax.jit(lambda s, b, of=of: of.train_step(s, b, {}))
        state, metrics = step(first_state(of), batch())
        out[scan] = step(state, batch())[0], metrics
    return out


def assert_close(one, other):
    one, other = (flatten(stacking.unstack(tree)) for tree in (one, other))
    assert one.keys() == other.keys()
    for path in one:
        np.testing.assert_allclose(one[path], other[path], rtol=2e-4, atol=2e-6, err_msg=path)


def test_loss_and_gradient_norm_are_the_same(steps):
    for key in ("loss", "grad_norm"):
        np.testing.assert_allclose(steps[False][1][key], steps[True][1][key], rtol=1e-5)


def test_updates_with_drop_path_and_layer_decay_are_the_same(steps):
    assert_close(steps[False][0].params, steps[True][0].params)


def test_the_optimizer_keeps_the_same_moments(steps):
    for moment in ("mu", "nu"):
        assert_close(*(optax.tree_utils.tree_get(steps[scan][0].opt_state, moment) for scan in (False, True)))


@pytest.mark.parametrize("fields", [dict(main_norm_every=2), swin.V2 | dict(remat="full")])
def test_gradients_are_the_same(fields):
    plain, scanned = model(False, **fields), model(True, **fields)
    params = drawn_params(plain)
    x = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))

    def gradient(of, params):
        kwargs = dict(train=True, rngs={"dropout": jax.random.key(2)})
        return jax.jit(jax.value_and_grad(lambda p: (of.apply({"params": p}, x, **kwargs) ** 2).sum()))(params)

    loss, grads = gradient(plain, params)
    scanned_loss, scanned_grads = gradient(scanned, stacking.stack_as(params, scanned))
    np.testing.assert_allclose(loss, scanned_loss, rtol=1e-5)
    scale = max(float(np.abs(g).max()) for g in jax.tree.leaves(grads))
    grads, scanned_grads = flatten(grads), flatten(stacking.unstack(scanned_grads))
    assert grads.keys() == scanned_grads.keys()
    for path, grad in grads.items():
        np.testing.assert_allclose(grad, scanned_grads[path], rtol=1e-4, atol=1e-5 * scale, err_msg=path)


def test_intermediates_and_attention_of_a_scanned_stage_are_those_of_its_blocks():
    plain, scanned = model(False), model(True)
    x = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))
    kept = {}
    for of in (plain, scanned):
        run = jax.jit(lambda p, of=of: of.apply({"params": p}, x, mutable=["intermediates", "attention"])[1])
        kept[of.scan] = run(drawn_params(of))
    one, other = (kept[scan]["intermediates"]["outputs"] for scan in (False, True))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-5)
    stacked = kept[True]["attention"]["layers_1"]["units_2"]["blocks_1"]["attn"]["weights"][0]
    np.testing.assert_allclose(
        stacked[1], kept[False]["attention"]["layers_1"]["blocks_3"]["attn"]["weights"][0], atol=1e-5
    )


def test_unstack_undoes_stack():
    scanned = model(True, **NORMS)
    params = drawn_params(scanned)
    assert params["layers_1"]["units_6"]["blocks_2"]["enorm"]["scale"].shape == (2, 16)
    single = stacking.unstack(params)
    assert flatten(single).keys() == flatten(swin.param_shapes(model(False, **NORMS))["params"]).keys()
    again = stacking.stack(single, params)
    assert jax.tree.structure(again) == jax.tree.structure(params)
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(params)))
    np.testing.assert_array_equal(
        single["layers_1"]["blocks_7"]["norm1"]["scale"], params["layers_1"]["units_6"]["blocks_1"]["norm1"]["scale"][1]
    )


@pytest.mark.parametrize(
    "depth, every, unit", [(18, 0, 2), (42, 6, 6), (4, 6, 2), (2, 0, 0), (7, 0, 0), (20, 6, 0), (4, 3, 0)]
)
def test_unit_size(depth, every, unit):
    assert stacking.unit_size(depth, every) == unit


@pytest.mark.parametrize("depth, every", [(4, 0), (4, 3), (6, 3), (8, 5), (12, 6), (4, 6), (5, 2)])
def test_scanned_and_plain_models_have_the_same_parameters(depth, every):
    plain, scanned = (
        flatten(stacking.unstack(swin.param_shapes(model(scan, depths=(1, depth), main_norm_every=every))["params"]))
        for scan in (False, True)
    )
    assert {path: leaf.shape for path, leaf in plain.items()} == {path: leaf.shape for path, leaf in scanned.items()}


def test_names_of_the_elements_of_a_stacked_leaf():
    path = "opt_state/0/mu/encoder/layers_2/units_6/blocks_5/mlp/fc1/kernel"
    names = stacking.official_names(path, np.zeros((3, 2, 2)))
    assert names[2] == "opt_state.0.mu.encoder.layers.2.blocks.17.mlp.fc1.weight"
    assert stacking.official_names("norm/scale", np.zeros(3)) == ["norm.weight"]


def test_a_frozen_block_inside_a_stacked_leaf_stays():
    of = task(True, freeze=r"^layers\.1\.blocks\.[01]\.|^patch_embed\.")
    state = first_state(of)
    after, metrics = jax.jit(lambda s, b: of.train_step(s, b, {}))(state, batch())
    before, after = (flatten(stacking.unstack(tree)) for tree in (state.params, after.params))
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert not [path for path in moved if path.startswith(("layers_1/blocks_0", "layers_1/blocks_1", "patch_embed"))]
    assert {path for path in before if path.startswith(("layers_1/blocks_2", "layers_1/blocks_3", "head"))} <= moved


def test_no_rule_shards_the_axis_of_units():
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    shapes = swin.param_shapes(model(True))["params"]
    placed = flatten(sharding.Partition(rules.PARTITION, min_size=1).shardings(shapes, mesh))
    stacked = {path: place.spec for path, place in placed.items() if stacking.is_stacked(path)}
    assert stacked and all(spec[0] is None for spec in stacked.values())
    kernel = next(spec for path, spec in stacked.items() if path.endswith("attn/qkv/kernel"))
    assert kernel == PartitionSpec(None, "fsdp", None, "tensor", None)


@pytest.mark.parametrize("saved", [False, True])
def test_a_checkpoint_is_restored_whichever_way_blocks_are_stored(tmp_path, saved):
    mesh = sharding.make_mesh()
    state = first_state(task(saved))
    manager = checkpoint.open(tmp_path, keep=1)
    checkpoint.save(manager, state, 0, {})
    checkpoint.finish(manager)
    shapes = jax.eval_shape(task(not saved).init, jax.random.key(0))
    places = sharding.Partition(rules.PARTITION).shardings(shapes, mesh)
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, places)
    restored, _ = checkpoint.restore(checkpoint.open(tmp_path, keep=1), abstract, print)
    assert jax.tree.structure(restored) == jax.tree.structure(abstract)
    for one, other in zip((state.params, state.opt_state[1][0].mu), (restored.params, restored.opt_state[1][0].mu)):
        one, other = (flatten(stacking.unstack(tree)) for tree in (one, other))
        assert one.keys() == other.keys() and all((one[path] == other[path]).all() for path in one)


def test_a_checkpoint_of_another_depth_is_still_refused(tmp_path):
    state = first_state(task(False))
    manager = checkpoint.open(tmp_path, keep=1)
    checkpoint.save(manager, state, 0, {})
    checkpoint.finish(manager)
    other = Classification(
        model(True, **swin.V2, depths=(1, 6)), optim.adamw(schedules.constant(1e-3), no_decay=rules.NO_DECAY), 32, 3
    )
    shapes = jax.eval_shape(other.init, jax.random.key(0))
    places = sharding.Partition().shardings(shapes, sharding.make_mesh())
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, places)
    with pytest.raises(UserError, match="of another model or optimizer"):
        checkpoint.restore(checkpoint.open(tmp_path, keep=1), abstract, print)


def test_a_deep_stage_is_a_program_of_the_size_of_one_unit():
    def operations(depth, scan):
        of = model(scan, **swin.V2, depths=(1, depth))
        loss = lambda v, x: of.apply(v, x, train=True, rngs={"dropout": jax.random.key(0)}).sum()  # noqa: E731
        image = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
        return jax.jit(jax.grad(loss)).lower(swin.param_shapes(of), image).as_text().count(" = ")

    assert operations(42, True) < 1.05 * operations(4, True) < operations(4, False)
