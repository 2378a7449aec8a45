"""The relevance of channels on several devices: the same sums, and each device makes its share of the pictures."""

import jax
import numpy as np

from swin_jax.models.styleclip import rules
from swin_jax.models.styleclip.relevance import Survey
from swin_jax.models.styleclip.statistics import Draws
from swin_jax.tasks.base import load_frozen
from swin_jax.tasks.style_relevance import StyleRelevance
from swin_jax.train import sharding
from tests.editing import networks

BATCH = 8


def run(shape, task, frozen):
    """(the sums after all steps, FLOPs of a step on each device) on one mesh."""
    devices = jax.devices()[: int(np.prod(shape))]
    placement = sharding.Placement(sharding.make_mesh(*shape, devices=devices))
    partition = sharding.Partition(rules=rules.PARTITION)
    shardings = partition.shardings(jax.eval_shape(task.init, jax.random.key(0)), placement.mesh)
    with jax.set_mesh(placement.mesh):
        frozen = jax.device_put(frozen, partition.shardings(frozen, placement.mesh))
        state = jax.device_put(task.init(jax.random.key(0)), shardings)
        batch = placement.to_global({"row": np.arange(BATCH, dtype=np.int32)}, BATCH)
        step = jax.jit(task.train_step, out_shardings=(shardings, None)).lower(state, batch, frozen).compile()
        for _ in range(task.steps):
            state, _ = step(state, batch, frozen)
    return np.asarray(state.params["sums"]), step.cost_analysis()["flops"]


def test_sums_are_equal_and_pictures_are_spread():
    task = StyleRelevance(networks()["generator"], networks()["clip"], Survey(Draws(samples=20), images=2), BATCH)
    frozen = jax.device_get(load_frozen(task))
    alone, whole = run((1, 1, 1), task, frozen)
    spread, share = run((8, 1, 1), task, frozen)
    assert np.abs(alone).max() > 0.1
    # A rounding to bytes that falls the other way moves a feature a little.
    np.testing.assert_allclose(spread, alone, atol=5e-3)
    assert share < whole / 4
