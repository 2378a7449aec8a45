"""SimMIM of Swin V2 with every memory tool on: the same losses on every mesh."""

import jax
import numpy as np
import pytest

from swin_jax import optim
from swin_jax.models.simmim import SimMIM
from swin_jax.models.swin import V2, Swin, rules
from swin_jax.optim import schedules
from swin_jax.tasks.masked_image import MaskedImageModeling
from swin_jax.train import sharding

MESHES = [(1, 1, 1), (8, 1, 1), (2, 2, 2)]
BATCH = 8


def task():
    tools = dict(scan=True, remat="full", attention=("sequential", "xla"))
    encoder = Swin(num_classes=0, image_size=32, embed_dim=16, depths=(1, 4), num_heads=(2, 4), window_size=4,
                   drop_path_rate=0.1, **V2, **tools)  # fmt: skip
    return MaskedImageModeling(SimMIM(encoder), optim.adamw(schedules.constant(1e-2), no_decay=rules.NO_DECAY), 32)


def losses(shape, state):
    """Of three updates on one mesh, whole masks on some rows and nearly none on others."""
    devices = jax.devices()[: int(np.prod(shape))]
    placement, of = sharding.Placement(sharding.make_mesh(*shape, devices=devices)), task()
    partition = sharding.Partition(rules=rules.PARTITION, min_size=64)
    shardings = partition.shardings(jax.eval_shape(of.init, jax.random.key(0)), placement.mesh)
    step = jax.jit(of.train_step, donate_argnums=0, out_shardings=(shardings, None))
    rng, found = np.random.default_rng(0), []
    with jax.set_mesh(placement.mesh):
        state = jax.device_put(state, shardings)
        for _ in range(3):
            mask = (rng.random((BATCH, 4, 4)) < np.linspace(0.1, 0.9, BATCH)[:, None, None]).astype(np.uint8)
            batch = {"image": rng.integers(0, 256, (BATCH, 32, 32, 3), np.uint8), "mask": mask}
            state, metrics = step(state, placement.to_global(batch, BATCH), {})
            found.append(float(metrics["loss"]))
    return found


@pytest.fixture(scope="module")
def state():
    return jax.device_get(jax.jit(task().init)(jax.random.key(0)))


@pytest.fixture(scope="module")
def alone(state):
    return losses(MESHES[0], state)


@pytest.mark.parametrize("shape", MESHES[1:])
def test_losses_are_equal(state, alone, shape):
    assert len(set(alone)) == 3
    np.testing.assert_allclose(losses(shape, state), alone, rtol=1e-5)
