"""Embeddings that say what two records have in common: the loss against plain loops, and that it is learned."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax import optim
from swin_jax.core.errors import UserError
from swin_jax.ops.normalize import unit
from swin_jax.optim import schedules
from swin_jax.tasks.embedding import SharedChoices

CHOICES = (3, 2)  # classes of each choice


class Net(nn.Module):
    """A layer, a batch norm and a layer."""

    @nn.compact
    def __call__(self, image, train=False):
        x = nn.Dense(8)(image.reshape(image.shape[0], -1))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return unit(nn.Dense(5)(nn.tanh(x)))


def task(**options):
    tx = optim.adamw(schedules.constant(2e-2), no_decay=(), weight_decay=0.0)
    return SharedChoices(Net(), tx, 2, sum(CHOICES), **options)


def marks(classes):
    """int8 (B, 5) of rows of classes; -1 is not known."""
    found = []
    for row in classes:
        parts = [np.full(n, -1) if c < 0 else np.arange(n) == c for c, n in zip(row, CHOICES)]
        found.append(np.concatenate(parts))
    return jnp.asarray(np.array(found), jnp.int8)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    classes = np.stack([rng.integers(0, n, 12) for n in CHOICES], 1)
    image = rng.integers(0, 256, (12, 2, 2, 3))
    image[:, 0, :, 0] = 80 * classes
    return {"image": jnp.asarray(image, jnp.uint8), "label": marks(classes)}


def test_the_loss_is_that_of_plain_loops(batch):
    classes = [(0, 1), (2, 1), (-1, 0), (0, -1), (-1, -1), (2, 1), (1, 0), (0, 0), (1, 1), (-1, 1), (2, 0), (0, 1)]
    item, batch = task(), batch | {"label": marks(classes)}
    state = item.init(jax.random.key(0))
    value, (_, mutable) = item.loss(state.params, state.mutable, batch, jax.random.key(1))
    image = (batch["image"] / 255 - 0.5) / 0.5
    variables = {"params": state.params, **state.mutable}
    found, _ = item.model.apply(variables, image, train=True, mutable=["batch_stats"])
    errors = []
    for i, one in enumerate(classes):
        for j, other in enumerate(classes):
            both = [(a, b) for a, b in zip(one, other) if a >= 0 and b >= 0]
            if i != j and both:
                share = np.mean([a == b for a, b in both])
                errors.append((float(found[i] @ found[j]) - share) ** 2)
    assert value == pytest.approx(np.mean(errors), rel=1e-5)
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), state.mutable, mutable)
    assert min(jax.tree.leaves(moved)) > 0


def test_records_of_which_nothing_is_known_give_no_loss(batch):
    item = task()
    state = item.init(jax.random.key(0))
    batch |= {"label": marks([(-1, -1)] * 12)}
    after, metrics = item.train_step(state, batch, {})
    assert metrics["loss"] == 0
    np.testing.assert_array_equal(after.params["Dense_0"]["kernel"], state.params["Dense_0"]["kernel"])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_learns_what_records_have_in_common(batch, accumulate):
    item = task(accumulate=accumulate, ema_decay=0.5)
    state = jax.jit(item.init)(jax.random.key(0))
    step, values = jax.jit(item.train_step), []
    for _ in range(60):
        state, metrics = step(state, batch, {})
        values.append(float(metrics["loss"]))
    assert values[-1] < 0.2 * values[0] and int(state.step) == 60
    found = item.predict(state, batch, {})["embedding"]
    np.testing.assert_allclose(jnp.linalg.norm(found, axis=-1), 1, rtol=1e-5)
    same = (batch["label"][:, None] == batch["label"][None]).all(-1)
    cosine = found @ found.T
    assert cosine[same].mean() > cosine[~same].mean() + 0.4


def test_batches_have_the_shapes_that_are_promised(batch):
    shapes = task().batch_shapes(12)
    assert {key: (x.shape, x.dtype) for key, x in shapes.items()} == {
        key: (batch[key].shape, batch[key].dtype) for key in batch
    }
    with pytest.raises(UserError):
        task(mean=(0.5,))
