"""The same training on every mesh, and what the compiled program moves between devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax import optim
from swin_jax.core.errors import UserError
from swin_jax.data import fake
from swin_jax.models.swin import Swin, rules
from swin_jax.ops import batch_sharding
from swin_jax.optim import schedules
from swin_jax.tasks.classification import Classification
from swin_jax.train import setup, sharding

# (data, fsdp, tensor), the axis that optimizer state is split over as well, and the type that a step gathers.
MODES = {
    "one device": ((1, 1, 1), ""),
    "data": ((8, 1, 1), ""),
    "zero-1": ((8, 1, 1), "data"),
    "fsdp": ((1, 8, 1), ""),
    "data x fsdp": ((2, 4, 1), ""),
    "zero-1 x fsdp": ((2, 4, 1), "data"),
    "data x tensor": ((4, 1, 2), ""),
    "data x fsdp x tensor": ((2, 2, 2), ""),
    "zero-1 x fsdp x tensor": ((2, 2, 2), "data"),
    "zero-1 in groups": ((2, 4, 1), "fsdp"),
    "zero-1 in groups x tensor": ((2, 2, 2), "fsdp"),
    "gathered": ((8, 1, 1), "data", "float32"),
    "gathered x fsdp x tensor": ((2, 2, 2), "data", "float32"),
    "gathered in groups": ((2, 4, 1), "fsdp", "float32"),
}
BATCH, STEPS = 16, 4


@pytest.fixture(scope="module", autouse=True)
def small_counts():
    """Tensors of this tiny model are worth splitting."""
    before, sharding._OPT_MIN_SIZE = sharding._OPT_MIN_SIZE, 64
    yield
    sharding._OPT_MIN_SIZE = before


def task(**fields):
    fields = dict(depths=(2, 1), num_heads=(2, 4), window_size=4, drop_path_rate=0.2) | fields
    model = Swin(num_classes=10, image_size=32, embed_dim=16, **fields)
    tx = optim.adamw(schedule=schedules.constant(1e-3), no_decay=rules.NO_DECAY)
    return Classification(model, tx, 32, 10, mix_group=8, ema_decay=0.9)


def batches():
    source = fake.images(32, num_examples=BATCH * STEPS)
    for step in range(STEPS):
        rows = [source[step * BATCH + i] for i in range(BATCH)]
        yield {"image": np.stack([r["image"] for r in rows]), "label": np.array([r["label"] for r in rows], np.int32)}


def place(shape):
    count = int(np.prod(shape))
    return sharding.Placement(sharding.make_mesh(*shape, devices=jax.devices()[:count]))


def prepare(shape, opt_axis="", gather="", **fields):
    """Everything of a step, laid out, and the step."""
    placement, t = place(shape), task(**fields)
    partition = sharding.Partition(rules=rules.PARTITION, opt_axis=opt_axis, gather=gather, min_size=64)
    shapes = jax.eval_shape(t.init, jax.random.key(0))
    shardings = partition.shardings(shapes, placement.mesh)
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    run = setup.Run(placement, partition, t, abstract, {})
    return run, setup.jitted_step(run)


@pytest.fixture(scope="module")
def first_state():
    return jax.device_get(jax.jit(task().init)(jax.random.key(0)))


@pytest.fixture(scope="module")
def runs(first_state):
    """{mode: (losses, final parameters)}."""
    found = {}
    for mode, layout in MODES.items():
        run, step = prepare(*layout)
        with jax.set_mesh(run.placement.mesh):
            state, losses = jax.device_put(first_state, sharding.tree_shardings(run.abstract)), []
            for batch in batches():
                state, metrics = step(state, run.placement.to_global(batch, BATCH), {})
                losses.append(float(metrics["loss"]))
        found[mode] = losses, jax.device_get(state.params)
    return found


@pytest.mark.parametrize("mode", list(MODES)[1:])
def test_losses_are_equal(runs, mode):
    np.testing.assert_allclose(runs[mode][0], runs["one device"][0], rtol=1e-5)


def test_training_changes_the_loss(runs):
    assert len(set(runs["one device"][0])) == STEPS


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1)])
def test_zero_1_leaves_each_device_its_share_of_the_moments(shape):
    held = {}
    for mode in (("",), ("data",), ("data", "bfloat16")):
        state = prepare(shape, *mode)[0].abstract
        sizes = jax.tree.map(lambda x: int(np.prod(x.sharding.shard_shape(x.shape))), state)
        held[mode] = [sum(jax.tree.leaves(part)) for part in (sizes.params, sizes.opt_state, sizes.ema)]
    whole, zero_1, gathered = held.values()
    assert zero_1[0] == whole[0]
    # What is too small or odd stays whole.
    assert all(split < 1.5 * one / shape[0] for split, one in zip(zero_1[1:], whole[1:]))
    assert all(split < 1.5 * one / shape[0] for split, one in zip(gathered, whole))


def test_tensors_are_split_as_the_rules_say():
    shardings = sharding.tree_shardings(prepare((2, 2, 2))[0].abstract)
    block = shardings.params["layers_0"]["blocks_0"]
    assert block["attn"]["qkv"]["kernel"].spec == jax.P("fsdp", None, "tensor", None)
    assert block["mlp"]["fc1"]["kernel"].spec == jax.P("fsdp", "tensor")
    flat = {jax.tree_util.keystr(p): s.spec for p, s in jax.tree_util.tree_flatten_with_path(shardings.opt_state)[0]}
    moments = [spec for path, spec in flat.items() if "fc2" in path and "kernel" in path]
    assert len(moments) == 6 and all(spec == jax.P("tensor", "fsdp") for spec in moments)


MOVES_WHOLE = "all-gather|all-to-all|collective-permute"
COUNT = 64  # so that any activation is larger than any parameter


def largest_moved(shape, kinds, **fields):
    """Elements of the largest array that the compiled step moves by some collectives, and of the largest parameter."""
    run, step = prepare(shape, **fields)
    rows = jax.NamedSharding(run.placement.mesh, batch_sharding.BATCH)
    batch = {"image": jax.ShapeDtypeStruct((COUNT, 32, 32, 3), jnp.uint8, sharding=rows),
             "label": jax.ShapeDtypeStruct((COUNT,), jnp.int32, sharding=rows)}  # fmt: skip
    with jax.set_mesh(run.placement.mesh):
        text = re.sub(r"/\*.*?\*/", "", step.lower(run.abstract, batch, {}).compile().as_text())
    sizes = [
        int(np.prod([int(n) for n in dims.split(",") if n]))
        for shape, _ in re.findall(rf"= ([^=]*?) ({kinds})(?:-start)?\(", text)
        for dims in re.findall(r"f32\[([\d,]*)\]", shape)
    ]
    assert sizes, "something is moved in any case"
    return max(sizes), max(leaf.size for leaf in jax.tree.leaves(run.abstract.params))


def test_no_gather_of_the_qkv_activation():
    """On (2, 2, 2) heads stay where they are: every all-gather in the compiled step is of parameters."""
    moved, parameter = largest_moved((2, 2, 2), MOVES_WHOLE)
    smallest_qkv = COUNT // 4 * 16 * 3 * 32 // 2  # of one device, last stage: rows x tokens x 3 x channels / tensor
    assert moved <= parameter < smallest_qkv


def test_a_loop_over_blocks_gathers_parameters_and_moves_no_examples():
    fields = dict(depths=(2, 6), scan=True, remat="full", drop_path_rate=0.0)
    moved, parameter = largest_moved((2, 4, 1), f"{MOVES_WHOLE}|all-reduce", **fields)
    smallest = COUNT // 8 * 16 * 32 * 3  # of one device, last stage: rows x tokens x channels, three of them
    assert moved <= parameter, (moved, parameter)
    assert parameter / 3 < smallest  # three units are stacked


@pytest.mark.parametrize("attention", ["xla", "sequential"])
def test_gradients_of_position_biases_are_added_up_as_tables(attention):
    fields = dict(window_size=8, num_heads=(8, 8), attention=attention, scan=True, remat="full", depths=(4, 2))
    moved, parameter = largest_moved((8, 1, 1), "all-reduce", **fields)
    assert moved <= parameter < 8 * 64 * 64  # heads x tokens of a window x tokens


def test_a_copy_in_bfloat16_is_gathered_and_float32_is_updated(runs, first_state):
    run, step = prepare((8, 1, 1), "data", "bfloat16")
    with jax.set_mesh(run.placement.mesh):
        state, metrics = jax.device_put(first_state, sharding.tree_shardings(run.abstract)), {}
        for batch in batches():
            state, metrics = step(state, run.placement.to_global(batch, BATCH), {})
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    assert {leaf.sharding for leaf in jax.tree.leaves(state)} == {
        leaf.sharding for leaf in jax.tree.leaves(run.abstract)
    }
    exact = runs["one device"][0][-1]
    assert 0 < abs(float(metrics["loss"]) - exact) < 1e-2 * exact


@pytest.mark.parametrize(
    "fields, expected",
    [
        (dict(gather="bf16", opt_axis="data"), "gather='bf16' is not one of '', 'float32', 'bfloat16'"),
        (dict(gather="bfloat16"), "needs an opt_axis"),
    ],
)
def test_a_gather_that_cannot_be_is_refused(fields, expected):
    with pytest.raises(UserError, match=expected):
        sharding.Partition(**fields)
