"""A generator against a discriminator: the same losses on every mesh, penalties and groups of images included."""

import jax
import numpy as np
import pytest

from swin_jax.models.stylegan2 import Discriminator, Generator, rules
from swin_jax.optim import lazy_adam
from swin_jax.optim.schedules import constant
from swin_jax.tasks.gan import GAN
from swin_jax.train import sharding

MESHES = [(1, 1, 1), (8, 1, 1), (2, 2, 2)]
BATCH, STEPS = 8, 8


def task():
    width = dict(resolution=8, channel_base=128, channel_max=16)
    networks = Generator(**width, z_dim=16, w_dim=16, mapping_layers=2), Discriminator(**width, mbstd_group_size=4)
    rates = dict(schedule=constant(2e-3), regularize_every=2)
    return GAN(*networks, lazy_adam(**rates), lazy_adam(**rates), r1_every=2, path_every=2)


def losses(shape, state):
    """The metrics of eight updates on one mesh."""
    devices = jax.devices()[: int(np.prod(shape))]
    placement, of = sharding.Placement(sharding.make_mesh(*shape, devices=devices)), task()
    partition = sharding.Partition(rules=rules.PARTITION, min_size=64)
    shardings = partition.shardings(jax.eval_shape(of.init, jax.random.key(0)), placement.mesh)
    step = jax.jit(of.train_step, donate_argnums=0, out_shardings=(shardings, None))
    rng, found = np.random.default_rng(0), []
    with jax.set_mesh(placement.mesh):
        state = jax.device_put(state, shardings)
        for _ in range(STEPS):
            batch = {"image": rng.integers(0, 256, (BATCH, 8, 8, 3), np.uint8)}
            state, metrics = step(state, placement.to_global(batch, BATCH), {})
            found.append({name: float(value) for name, value in metrics.items()})
    return found


@pytest.fixture(scope="module")
def state():
    return jax.device_get(jax.jit(task().init)(jax.random.key(0)))


@pytest.fixture(scope="module")
def alone(state):
    return losses(MESHES[0], state)


@pytest.mark.parametrize("shape", MESHES[1:])
def test_losses_are_equal(state, alone, shape):
    found = losses(shape, state)
    for name in ("loss_generator", "loss_discriminator", "r1", "path_length"):
        values = [metrics[name] for metrics in alone]
        assert len(set(values)) >= STEPS // 2
        np.testing.assert_allclose([metrics[name] for metrics in found], values, rtol=1e-5, err_msg=name)
