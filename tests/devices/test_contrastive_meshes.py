"""CLIP's towers and every form of its loss: the same losses on every mesh, with micro-batches and without."""

import jax
import numpy as np
import pytest

from swin_jax import optim
from swin_jax.models.clip import make_clip, rules
from swin_jax.optim import schedules
from swin_jax.tasks.contrastive import Contrastive
from swin_jax.train import sharding

MESHES = [(1, 1, 1), (8, 1, 1), (2, 2, 2)]
BATCH, LENGTH, VOCABULARY = 16, 6, 64
TOWERS = {
    "vit": dict(vision_layers=1, patch_size=8, image_size=16),
    "resnet": dict(vision_layers=(1, 1, 1, 1), patch_size=None, image_size=32),
}


def task(tower, **fields):
    model = make_clip(embed_dim=16, context_length=LENGTH, vocab_size=VOCABULARY, text_width=16, text_heads=2,
                      text_layers=1, vision_width=16, vision_heads=2, **TOWERS[tower],
                      logit_bias=-10.0 if fields.get("sigmoid") else None)  # fmt: skip
    tx = optim.sgd(schedules.constant(1e-3), no_decay=rules.NO_DECAY, momentum=0.0)  # others: test_meshes.py
    return Contrastive(model, tx, TOWERS[tower]["image_size"], LENGTH, chunk=2, **fields)


def losses(of, shape, state):
    """Of three updates on one mesh."""
    devices = jax.devices()[: int(np.prod(shape))]
    placement = sharding.Placement(sharding.make_mesh(*shape, devices=devices))
    partition = sharding.Partition(rules=rules.PARTITION, min_size=64)
    shardings = partition.shardings(jax.eval_shape(of.init, jax.random.key(0)), placement.mesh)
    step = jax.jit(of.train_step, donate_argnums=0, out_shardings=(shardings, None))
    rng, found = np.random.default_rng(0), []
    with jax.set_mesh(placement.mesh):
        state = jax.device_put(state, shardings)
        for _ in range(3):
            text = rng.integers(1, VOCABULARY - 1, (BATCH, LENGTH)).astype(np.int32)
            text[:, -1] = VOCABULARY - 1
            size = of.image_size
            batch = {"image": rng.integers(0, 256, (BATCH, size, size, 3), np.uint8), "text": text,
                     "label": np.arange(BATCH, dtype=np.int32) // 2}  # fmt: skip
            state, metrics = step(state, placement.to_global(batch, BATCH), {})
            found.append([float(metrics[name]) for name in ("loss", "grad_norm")])
    return np.array(found)


CASES = [
    ("vit", dict(form="global", positives=True)),
    ("vit", dict(form="local")),
    ("vit", dict(form="ring", accumulate=2)),
    ("vit", dict(form="ring", sigmoid=True)),
    ("resnet", dict(form="ring")),
]


@pytest.mark.parametrize("tower, fields", CASES, ids=str)
def test_losses_and_gradient_norms_are_equal(tower, fields):
    of = task(tower, **fields)
    state = jax.device_get(jax.jit(of.init)(jax.random.key(0)))
    plain = task(tower, **fields | dict(form="global", accumulate=1))
    alone = losses(plain, MESHES[0], state)
    assert len(np.unique(alone[:, 0])) == 3
    # Batch norm sums 2 x 2 pixels of the whole batch, device by device.
    tolerance = 1e-5 if tower == "vit" else 1e-4
    for shape in MESHES:
        np.testing.assert_allclose(losses(of, shape, state), alone, rtol=tolerance)
