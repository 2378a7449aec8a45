"""UPerNet on every mesh: a step's loss, gradients and batch statistics are equal."""

import jax
import numpy as np
import pytest

from swin_jax import optim
from swin_jax.core.params import flatten
from swin_jax.models.segmentation import make_upernet, rules
from swin_jax.optim import schedules
from swin_jax.tasks.segmentation import Segmentation
from swin_jax.train import sharding

MESHES = [(1, 1, 1), (8, 1, 1), (2, 2, 2)]
BATCH = 8
RATE = 1e5  # so that the update is the gradient, and parameters are small beside it


def task():
    model = make_upernet(
        num_classes=3, channels=8, auxiliary_channels=8, pool_scales=(1, 2), image_size=32, embed_dim=8,
        depths=(1, 2), num_heads=(2, 4), window_size=4, drop_path_rate=0.1, remat="full", scan=True,
    )  # fmt: skip
    # Adam would divide what rounding makes of gradients that are 0.
    return Segmentation(model, optim.sgd(schedules.constant(RATE), no_decay=(), momentum=0.0), 32, 3)


def step(shape, state):
    """The state and the metrics after an update on one mesh."""
    devices = jax.devices()[: int(np.prod(shape))]
    placement, of = sharding.Placement(sharding.make_mesh(*shape, devices=devices)), task()
    partition = sharding.Partition(rules=rules.PARTITION, min_size=64)
    shardings = partition.shardings(jax.eval_shape(of.init, jax.random.key(0)), placement.mesh)
    rng = np.random.default_rng(0)
    # Every picture is of another color, so that statistics of a part of the batch are others.
    image = rng.integers(0, 64, (BATCH, 32, 32, 3)) + 24 * np.arange(BATCH)[:, None, None, None]
    label = rng.integers(0, 4, (BATCH, 32, 32))
    batch = {"image": image.astype(np.uint8), "label": np.where(label == 3, 255, label).astype(np.uint8)}
    with jax.set_mesh(placement.mesh):
        state = jax.device_put(state, shardings)
        update = jax.jit(of.train_step, out_shardings=(shardings, None))
        state, metrics = update(state, placement.to_global(batch, BATCH), {})
        assert not shape[2] > 1 or len({str(x.sharding.spec) for x in jax.tree.leaves(state.params)}) > 2
        return jax.device_get((state, metrics))


@pytest.fixture(scope="module")
def start():
    return jax.device_get(jax.jit(task().init)(jax.random.key(0)))


@pytest.fixture(scope="module")
def alone(start):
    return step(MESHES[0], start)


@pytest.mark.parametrize("shape", MESHES[1:])
def test_a_step_is_equal(start, alone, shape):
    (expected, expected_metrics), (state, metrics) = alone, step(shape, start)
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    statistics, before = flatten(state.mutable), flatten(start.mutable)
    assert len(statistics) == 2 * 7 and all("batch_stats" in path for path in statistics)
    for path, value in flatten(expected.mutable).items():
        np.testing.assert_allclose(statistics[path], value, rtol=1e-5, atol=1e-5, err_msg=path)
        assert (np.abs(value - before[path]) > 1e-4).any(), path
    params, first = flatten(state.params), flatten(start.params)
    for path, value in flatten(expected.params).items():
        # Of what cancels out, such as the gradient of the keys' bias, only rounding is left.
        size = np.abs(value - first[path]).max() + 0.1
        assert np.abs(params[path] - value).max() <= 1e-5 * size, path
