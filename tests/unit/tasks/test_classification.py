"""The classification task on a tiny problem: what it holds, what its loss is, that it learns, and what stays frozen."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax import optim
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.models.swin import Swin, rules
from swin_jax.ops import augmentation, losses
from swin_jax.optim import schedules
from swin_jax.tasks import base
from swin_jax.tasks.classification import Classification

SHAPE, CLASSES = (4, 4, 1), 3
PLAIN = dict(label_smoothing=0.0, erase_probability=0.0, mixup=0.0, cutmix=0.0)


class Net(nn.Module):
    """Two layers; the first is the backbone."""

    @nn.compact
    def __call__(self, image, train=False):
        assert image.dtype == jnp.float32
        x = nn.Dense(8, name="backbone")(image.reshape(image.shape[0], -1))
        return nn.Dense(CLASSES, name="head")(nn.tanh(x))


def task(tx=None, model=None, **options):
    tx = tx or optim.adamw(schedules.constant(2e-2), no_decay=rules.NO_DECAY, weight_decay=0.05)
    return Classification(model or Net(), tx, SHAPE[0], CLASSES, SHAPE[2], mean=(0.4,), std=(0.3,), **options)


@pytest.fixture(scope="module")
def batch():
    """One pattern per class, with noise."""
    rng = np.random.default_rng(0)
    label = np.arange(16, dtype=np.int32) % CLASSES
    image = rng.integers(40, 200, (CLASSES, *SHAPE))[label] + rng.integers(-30, 30, (16, *SHAPE))
    return {"image": jnp.asarray(image, jnp.uint8), "label": jnp.asarray(label)}


def start(item):
    return jax.jit(item.init)(jax.random.key(0))


def train(item, batch, steps=10):
    """(first state, last state, losses)."""
    first = state = start(item)
    step, values = jax.jit(item.train_step), []
    for _ in range(steps):
        state, metrics = step(state, batch, {})
        values.append(float(metrics["loss"]))
    return first, state, values


def logits(item, state, batch):
    return item.model.apply({"params": state.params}, (batch["image"].astype(jnp.float32) / 255 - 0.4) / 0.3)


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


# ---- state ----


def test_the_first_state_has_an_average_only_where_one_is_kept():
    plain, averaged = start(task()), start(task(ema_decay=0.9))
    assert plain.step == 0 and plain.step.dtype == jnp.int32 and plain.ema is None and plain.mutable == {}
    assert equal(averaged.params, averaged.ema) and equal(plain.params, averaged.params)
    assert set(plain.params) == {"backbone", "head"}


def test_the_average_lags_behind_and_does_not_change_what_is_learned(batch):
    _, plain, _ = train(task(**PLAIN), batch, 3)
    first, averaged, _ = train(task(**PLAIN, ema_decay=0.9), batch, 3)
    assert equal(plain.params, averaged.params)
    for old, average, new in zip(*map(jax.tree.leaves, (first.params, averaged.ema, averaged.params))):
        assert np.linalg.norm(average - old) < 0.5 * np.linalg.norm(new - old)
        assert np.linalg.norm(average - old) > 0


# ---- loss ----


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_mixing_the_loss_is_cross_entropy_with_smoothed_labels(batch, smoothing):
    item = task(**{**PLAIN, "label_smoothing": smoothing})
    state = start(item)
    loss, (metrics, mutable) = item.loss(state.params, {}, batch, jax.random.key(5))
    log_p = jax.nn.log_softmax(logits(item, state, batch))
    own = log_p[jnp.arange(16), batch["label"]]
    np.testing.assert_allclose(loss, -((1 - smoothing) * own + smoothing * log_p.mean(-1)).mean(), rtol=1e-6)
    assert metrics == {} and mutable == {}
    assert loss == item.loss(state.params, {}, batch, jax.random.key(6))[0]


@pytest.mark.parametrize(
    "options", [{"mixup": 0.8}, {"cutmix": 1.0}, {"erase_probability": 1.0}, {"mixup": 0.8, "cutmix": 1.0}]
)
def test_each_part_of_the_regularization_can_be_on_alone_and_is_random(batch, options):
    item, off = task(**{**PLAIN, **options}, mix_group=2), task(**PLAIN)
    params = start(off).params
    loss = jax.jit(lambda key: item.loss(params, {}, batch, key)[0])
    values = {float(loss(jax.random.key(i))) for i in range(3)}
    assert len(values) == 3 and float(off.loss(params, {}, batch, jax.random.key(0))[0]) not in values
    assert all(math.isfinite(value) for value in values)


def test_mixing_comes_after_erasing_and_normalizing_and_mixes_smoothed_targets(batch):
    item = task(erase_probability=1.0, mix_group=4)
    state, key = start(item), jax.random.key(3)
    erase_key, mix_key, _ = jax.random.split(key, 3)
    image = augmentation.random_erase(erase_key, (batch["image"].astype(jnp.float32) / 255 - 0.4) / 0.3, 1.0)
    target = losses.smooth_one_hot(batch["label"], CLASSES, 0.1)
    image, target = augmentation.mix(mix_key, image, target, 0.8, 1.0, 1.0, 0.5, 4)
    expected = losses.soft_cross_entropy(item.model.apply({"params": state.params}, image), target).mean()
    np.testing.assert_allclose(item.loss(state.params, {}, batch, key)[0], expected, rtol=1e-6)


def test_a_step_is_a_function_of_seed_and_step(batch):
    options = {**PLAIN, "mixup": 0.8}
    first, other = (jax.jit(task(**options, seed=seed).train_step) for seed in (0, 1))
    state = start(task())
    loss = lambda step, state: float(step(state, batch, {})[1]["loss"])  # noqa: E731
    assert loss(first, state) == loss(first, state) != loss(other, state)
    assert loss(first, state) != loss(first, state.replace(step=state.step + 1))


# ---- learning ----


def test_the_loss_falls_and_predictions_become_right(batch):
    item = task(**PLAIN)
    first, last, values = train(item, batch, 25)
    assert values[-1] < 0.3 * values[0] and last.step == 25
    found = jax.jit(item.predict)(last, batch, {})
    assert set(found) == set(base.PREDICTIONS[item.predicts])
    found = found["logits"]
    assert (found.argmax(-1) == batch["label"]).mean() > 0.9
    np.testing.assert_allclose(found, logits(item, last, batch), atol=1e-5)
    assert set(item.train_step(first, batch, {})[1]) == {"loss", "grad_norm", "learning_rate"}


def test_accumulation_is_the_same_training_where_nothing_is_random(batch):
    _, once, a = train(task(**PLAIN), batch, 5)
    item = task(**PLAIN, accumulate=4)
    _, spread, b = train(item, batch, 5)
    assert "length=4" in str(jax.make_jaxpr(item.train_step)(spread, batch, {}))
    np.testing.assert_allclose(a, b, rtol=1e-5)
    assert spread.step == 5
    for x, y in zip(jax.tree.leaves(once.params), jax.tree.leaves(spread.params)):
        np.testing.assert_allclose(x, y, atol=2e-5)


def test_a_linear_probe_leaves_the_backbone_as_it_was(batch):
    item = task(
        optim.adamw(schedules.constant(2e-2), no_decay=rules.NO_DECAY, weight_decay=0.5, freeze=r"^(?!head\.)"), **PLAIN
    )
    first, last, values = train(item, batch, 20)
    assert equal(first.params["backbone"], last.params["backbone"])
    assert not np.array_equal(first.params["head"]["kernel"], last.params["head"]["kernel"])
    assert values[-1] < 0.7 * values[0]
    moments = [path for path in flatten(last.opt_state) if "backbone" in path]
    assert moments == []


# ---- with the model that it is made for ----


def swin(**options):
    shape = dict(image_size=4, patch_size=2, in_channels=1, embed_dim=4, depths=(2,), num_heads=(2,), window_size=2)
    return Swin(num_classes=CLASSES, **shape, **options)


def test_describe_counts_without_computing():
    gflops = swin().flops() / 1e9
    counted = dict(parameters=575, gflops_per_image=gflops, train_gflops=6 * gflops, example="image")
    for item, expected in (
        (task(model=swin()), counted),
        (task(), {"parameters": 17 * 8 + 9 * CLASSES}),
    ):
        assert base.describe(item, jax.eval_shape(item.init, jax.random.key(0))) == expected


def test_drop_path_is_drawn_per_step_in_training_and_never_in_prediction(batch):
    item = task(model=swin(drop_path_rate=0.5), **PLAIN)
    state = start(item)
    # The initial branches are so small that dropping them would not show.
    state = state.replace(params=jax.tree.map(lambda x: x + 0.3, state.params))
    loss = jax.jit(lambda key: item.loss(state.params, {}, batch, key)[0])
    assert len({float(loss(jax.random.key(i))) for i in range(4)}) == 4
    still = dataclasses.replace(item, model=swin(drop_path_rate=0.0))
    found, expected = (jax.jit(each.predict)(state, batch, {})["logits"] for each in (item, still))
    np.testing.assert_allclose(found, expected, atol=1e-6)


# ---- weights of classes, several labels ----


def test_weights_of_classes_reach_the_loss(batch):
    state, weights = start(task(**PLAIN)), (0.5, 2.0, 3.0)
    rows = jax.nn.log_softmax(logits(task(), state, batch))[jnp.arange(16), batch["label"]]
    own = np.array(weights)[batch["label"]]
    loss, _ = task(**PLAIN, class_weights=weights).loss(state.params, {}, batch, jax.random.key(0))
    np.testing.assert_allclose(loss, -(own * rows).sum() / own.sum(), rtol=1e-5)
    item = task(**PLAIN | dict(mixup=0.8, mix_probability=0.0), class_weights=weights)  # mixes, although nothing here
    np.testing.assert_allclose(
        item.loss(state.params, {}, batch, jax.random.key(0))[0], -(own * rows).sum() / 16, rtol=1e-5
    )


@pytest.mark.parametrize(
    "weights",
    [
        *((1.0,), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0), (1.0, math.inf, 1.0), (1.0, math.nan, 1)),
        *((1.0, "x", 1.0), (1.0, None, 1.0), (1.0, 1e39, 1.0), (1.0, 1e-60, 1.0), 2.0, "123", None, {"a": 1.0}),
        *(np.ones(4), np.ones((3, 1))),
    ],
)
def test_weights_that_are_not_one_positive_number_per_class_are_refused(weights):
    with pytest.raises(
        UserError, match="^class_weights=.*(a tuple of numbers, at least 1.*|each of 3 classes)$"
    ) as error:
        task(class_weights=weights)
    assert "\n" not in str(error.value)


def test_weights_may_be_an_array():
    for weights in (np.array([1, 2.5, 3]), jnp.array([1, 2.5, 3]), [1, 2.5, 3]):
        assert task(class_weights=weights).class_weights == (1.0, 2.5, 3.0)
    assert task(class_weights=[]).class_weights == ()


def marks(batch):
    """Each image has its class and the next; nothing is known of the last one's third class."""
    found = np.eye(3, dtype=np.int8)[batch["label"]] | np.eye(3, dtype=np.int8)[(batch["label"] + 1) % 3]
    found[-1, 2] = -1
    return jnp.asarray(found)


def test_several_labels_are_binary_problems_each(batch):
    state, several = start(task(**PLAIN)), {**batch, "label": marks(batch)}
    item = task(**PLAIN, multi_label=True, class_weights=(1.0, 2.0, 3.0))
    found, (_, mutable) = item.loss(state.params, {}, several, jax.random.key(0))
    x, y = np.asarray(logits(task(), state, batch), np.float64), np.asarray(several["label"])
    each = (np.log1p(np.exp(x)) - x * y) * [1, 2, 3]
    np.testing.assert_allclose(found, each[y >= 0].sum() / 47, rtol=1e-5)
    assert mutable == {} and item.batch_shapes(2)["label"] == jax.ShapeDtypeStruct((2, 3), jnp.int8)
    smooth = dataclasses.replace(item, label_smoothing=0.1).loss(state.params, {}, several, jax.random.key(0))[0]
    each = (np.log1p(np.exp(x)) - x * (0.9 * y + 0.05)) * [1, 2, 3]
    np.testing.assert_allclose(smooth, each[y >= 0].sum() / 47, rtol=1e-5)
    values = item.probabilities(jnp.array([0.0, 2.0, -2.0]))
    np.testing.assert_allclose(values, 1 / (1 + np.exp([0.0, -2.0, 2.0])), rtol=1e-6)
    assert equal(base.probabilities(item, jnp.ones(3)), item.probabilities(jnp.ones(3)))


def test_mixing_keeps_what_is_not_known_of_either_image(batch):
    several = {**batch, "label": marks(batch)}
    item, state = task(**PLAIN | dict(mixup=0.8), multi_label=True), start(task(**PLAIN))
    loss = lambda label: item.loss(state.params, {}, {**several, "label": label}, jax.random.key(3))[0]  # noqa: E731
    other = several["label"].at[-2, 2].set(0), several["label"].at[-2, 2].set(1)  # the neighbor's is lost too
    assert loss(other[0]) == loss(other[1])
    assert loss(other[0].at[-1, 2].set(0)) != loss(other[1].at[-1, 2].set(0))


def test_a_numbered_label_is_one_mark(batch):
    item, state = task(**PLAIN, multi_label=True), start(task(**PLAIN))
    by_number = item.loss(state.params, {}, batch, jax.random.key(0))[0]
    one = {**batch, "label": jnp.asarray(np.eye(3, dtype=np.int8)[batch["label"]])}
    assert by_number == item.loss(state.params, {}, one, jax.random.key(0))[0]


def test_one_class_is_refused_unless_it_may_be_absent():
    item = task()
    with pytest.raises(UserError, match="with one class is always right: .* --config.task.multi_label=True$"):
        dataclasses.replace(item, num_classes=1)
    assert dataclasses.replace(item, num_classes=1, multi_label=True).num_classes == 1
