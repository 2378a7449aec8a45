"""The segmentation task: its parts of the loss, statistics, padding, random keys, and the batches that it refuses."""

import dataclasses
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax import optim
from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UserError
from swin_jax.ops.segmentation import pixel_loss
from swin_jax.optim import schedules
from swin_jax.tasks import base
from swin_jax.tasks.segmentation import Segmentation


class Net(nn.Module):
    """Two heads over a convolution, with the call of an UPerNet: maps of half and of a quarter of the size."""

    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, image, *, train=False, auxiliary=False):
        x = nn.Conv(8, (2, 2), (2, 2), use_bias=False)(image)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Dropout(self.dropout_rate, broadcast_dims=(1, 2))(x, deterministic=not train)
        found = {"logits": nn.Dense(3, name="decode")(x)}
        if auxiliary or self.is_initializing():
            found["auxiliary"] = nn.Dense(3, name="auxiliary")(x[:, ::2, ::2])
        return found


NET = Net()


def task(model=NET, rate=1e-3, **options):
    tx = optim.adamw(schedules.constant(rate), no_decay=(), weight_decay=0.0)
    return Segmentation(model, tx, 8, 3, **options)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (4, 8, 8)).astype(np.uint8)
    image = 60 * label[..., None] + rng.integers(0, 60, (4, 8, 8, 3))
    label[:, :2] = IGNORED
    return {"image": jnp.asarray(image, jnp.uint8), "label": jnp.asarray(label)}


@pytest.fixture(scope="module")
def state():
    return task().init(jax.random.key(0))


def test_the_loss_is_that_of_both_heads_and_moves_the_statistics(batch, state):
    item = task()
    value, (metrics, mutable) = item.loss(state.params, state.mutable, batch, jax.random.key(1))
    image = (batch["image"] / 255 - jnp.array(item.mean)[None, None, None]) / jnp.array(item.std)[None, None, None]
    variables = {"params": state.params, **state.mutable}
    found, updated = item.model.apply(variables, image, train=True, auxiliary=True, mutable=["batch_stats"])
    decode, accuracy = pixel_loss(found["logits"], batch["label"])
    auxiliary, _ = pixel_loss(found["auxiliary"], batch["label"])
    np.testing.assert_allclose(value, decode + 0.4 * auxiliary, rtol=1e-5)
    expected = {"decode_loss": decode, "auxiliary_loss": 0.4 * auxiliary, "pixel_accuracy": accuracy}
    assert metrics.keys() == expected.keys()
    for name, part in expected.items():
        np.testing.assert_allclose(metrics[name], part, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), mutable, dict(updated))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), mutable, state.mutable)
    assert all(jax.tree.leaves(moved))


def test_the_divisor_and_the_auxiliary_head_are_switches(batch, state):
    key = jax.random.key(1)
    whole, (parts, _) = task().loss(state.params, state.mutable, batch, key)
    corrected, _ = task(count_ignored=False).loss(state.params, state.mutable, batch, key)
    np.testing.assert_allclose(corrected, whole * 8 / 6, rtol=1e-6)  # a quarter of the pixels is ignored
    alone, (metrics, _) = task(auxiliary_weight=0.0).loss(state.params, state.mutable, batch, key)
    np.testing.assert_allclose(alone, parts["decode_loss"], rtol=1e-6)
    assert "auxiliary_loss" not in metrics


def test_padding_is_the_mean_color_to_the_network(batch, state):
    """Whatever bytes lie there: the published pipeline pads after it normalizes."""
    size = jnp.array([[8, 8], [5, 8], [8, 3], [4, 4]], jnp.int32)
    other = batch["image"].at[1, 5:].set(255).at[2, :, 3:].set(7).at[3, 4:].set(9).at[3, :, 4:].set(9)
    first, second = (
        task().loss(state.params, state.mutable, batch | {"image": image, "size": size}, jax.random.key(1))[0]
        for image in (batch["image"], other)
    )
    assert first == second
    assert first != task().loss(state.params, state.mutable, batch, jax.random.key(1))[0]


def test_a_step_drops_by_a_key_of_seed_and_step_and_learns(batch):
    item = task(Net(dropout_rate=0.5), rate=3e-2)
    state, step = item.init(jax.random.key(0)), jax.jit(item.train_step)
    again, metrics = step(state, batch | {"weight": jnp.ones(4), "bad": jnp.zeros(4)}, {})
    assert step(state, batch, {})[1]["loss"] == metrics["loss"]
    assert step(state.replace(step=state.step + 1), batch, {})[1]["loss"] != metrics["loss"]
    assert {"loss", "grad_norm", "learning_rate", "decode_loss"} <= metrics.keys() and again.step == 1
    for _ in range(60):
        state, _ = step(state, batch, {})
    found = item.predict(state, batch, {})
    assert set(found) == set(base.PREDICTIONS[item.predicts])
    assert found["maps"].shape == (4, 4, 4, 3) and found["labels"].dtype == jnp.uint8
    known = batch["label"] != IGNORED
    assert ((found["labels"] == batch["label"]) & known).sum() > 0.5 * known.sum()


def test_batches_without_statistics_of_their_own_are_refused():
    for item, size, advised in ((task(), 1, 2), (task(accumulate=4, micro_batch_statistics=True), 4, 8)):
        with pytest.raises(
            UserError, match=f"^a training batch of one image: .*--config.batch_size={advised} or more$"
        ):
            base.check_batch(item, size, item.accumulate)
    item = task(accumulate=2)
    with pytest.raises(
        UserError, match=r"micro-batches of 4 images, not the batch of 8; .*micro_batch_statistics=True"
    ):
        base.check_batch(item, 8, item.accumulate)
    base.check_batch(task(), 2, 1)
    headless = types.SimpleNamespace(auxiliary_channels=0)
    with pytest.raises(UserError, match="no auxiliary head.*give --config.task.auxiliary_weight=0"):
        base.check_batch(task(headless), 8, 1)
    base.check_batch(task(headless, auxiliary_weight=0.0), 8, 1)
    allowed = dataclasses.replace(item, micro_batch_statistics=True)
    base.check_batch(allowed, 8, 2)
    assert (
        "statistics of each of 2 micro-batches" in base.describe(allowed, allowed.init(jax.random.key(0)))["notes"][0]
    )
    assert "notes" not in base.describe(task(), task().init(jax.random.key(0)))


def test_more_classes_than_a_byte_tells_apart_are_refused():
    with pytest.raises(UserError, match="^num_classes=256: labels of one byte tell 255 classes apart$"):
        dataclasses.replace(task(), num_classes=256)


def test_one_class_is_refused_with_what_to_write_for_a_mask():
    with pytest.raises(UserError, match="always right: let the background be a class too, .* reduce_zero_label$"):
        dataclasses.replace(task(), num_classes=1)
