"""The contrastive task: forms, micro-batches, locked towers, the clipped scale, statistics of the ResNet."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax import optim
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.models.clip import CLIP, TextTransformer, make_clip
from swin_jax.models.swin import Swin, rules
from swin_jax.optim import schedules
from swin_jax.tasks.base import PREDICTIONS
from swin_jax.tasks.contrastive import Contrastive

B, SIZE, LENGTH, VOCABULARY = 12, 16, 6, 40
TINY = dict(embed_dim=8, image_size=SIZE, context_length=LENGTH, vocab_size=VOCABULARY, text_width=16, text_heads=2,
            text_layers=1, vision_width=16, vision_heads=2)  # fmt: skip
VIT = make_clip(vision_layers=1, patch_size=8, **TINY)
SWIN = CLIP(
    Swin(num_classes=8, image_size=SIZE, patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4),
    TextTransformer(embed_dim=8, context_length=LENGTH, vocab_size=VOCABULARY, width=16, layers=1, num_heads=2),
)


def task(model=VIT, **fields):
    tx = fields.pop("tx", optim.adamw(schedules.constant(1e-3), no_decay=rules.NO_DECAY, clip_norm=0.0))
    return Contrastive(model, tx, SIZE, LENGTH, **fields)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    text = rng.integers(1, VOCABULARY - 1, (B, LENGTH))
    text[:, -1] = VOCABULARY - 1
    image = rng.integers(0, 256, (B, SIZE, SIZE, 3), dtype=np.uint8)
    return {"image": jnp.asarray(image), "text": jnp.asarray(text, jnp.int32), "label": jnp.arange(B) // 2}


def one_step(task, state=None):
    state = state or jax.jit(task.init)(jax.random.key(0))
    return jax.jit(task.train_step)(state, batch(), {})


@functools.cache
def first_state(model):
    return jax.jit(task(model).init)(jax.random.key(0))


def gradient(task):
    """Of the first step."""
    state = first_state(task.model)
    run = task._gradient if task.accumulate == 1 else task._cached_gradient
    grads, _, metrics = jax.jit(run)(state, batch(), jax.random.key(1))
    return flatten(grads), metrics


def assert_close(ours, theirs, tolerance):
    assert ours.keys() == theirs.keys()
    largest = max(float(jnp.abs(x).max()) for x in theirs.values())
    for name in theirs:
        assert float(jnp.abs(ours[name] - theirs[name]).max()) <= tolerance * largest, name


@pytest.mark.parametrize("fields", [{}, dict(positives=True), dict(form="ring", chunk=4), dict(sigmoid=True)])
def test_micro_batches_give_the_gradient_of_the_whole_batch(fields):
    model = dataclasses.replace(VIT, logit_bias=-10.0) if "sigmoid" in fields else VIT
    whole, metrics = gradient(task(model, **fields))
    parts, metrics_of_parts = gradient(task(model, accumulate=3, **fields))
    assert_close(parts, whole, 1e-5)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, metrics_of_parts[name], rtol=1e-5)
    assert float(jnp.abs(whole["logit_scale"])) > 0


@pytest.mark.parametrize("sigmoid", [False, True])
def test_without_a_mesh_the_ring_is_the_matrix(sigmoid):
    model = dataclasses.replace(VIT, logit_bias=-10.0) if sigmoid else VIT
    ring, _ = gradient(task(model, form="ring", chunk=4, sigmoid=sigmoid))
    matrix, _ = gradient(task(model, sigmoid=sigmoid))
    assert_close(ring, matrix, 1e-5)


def test_a_swin_is_an_image_tower_and_learns_a_batch_by_heart():
    learner = task(SWIN, tx=optim.adamw(schedules.constant(3e-3), no_decay=rules.NO_DECAY, weight_decay=0.0))
    state, step = jax.jit(learner.init)(jax.random.key(0)), jax.jit(learner.train_step)
    losses = []
    for _ in range(60):
        state, metrics = step(state, batch(), {})
        losses.append(float(metrics["loss"]))
    assert losses[0] > 2 and losses[-1] < 0.3
    assert float(metrics["image_to_text"]) == float(metrics["text_to_image"]) == 1


def test_positives_share_the_target():
    twice = batch() | {"label": jnp.zeros(B, jnp.int32)}
    everything = jax.jit(task(positives=True)._gradient)
    state = first_state(VIT)
    _, _, metrics = everything(state, twice, jax.random.key(1))
    assert float(metrics["image_to_text"]) == 1  # every text is right
    _, _, metrics = everything(state, batch() | {"label": jnp.arange(B)}, jax.random.key(1))
    np.testing.assert_allclose(metrics["loss"], gradient(task())[1]["loss"], rtol=1e-6)


@pytest.mark.parametrize("scale", [-1.0, 9.0])
def test_a_frozen_scale_is_not_clipped(scale):
    tx = optim.adamw(schedules.constant(1e-2), no_decay=rules.NO_DECAY, freeze="^logit_scale$")
    frozen = task(tx=tx)
    state = jax.jit(frozen.init)(jax.random.key(0))
    state = state.replace(params={**state.params, "logit_scale": jnp.asarray(scale)})
    after, metrics = one_step(frozen, state)
    assert float(after.params["logit_scale"]) == scale and np.isfinite(metrics["loss"])


@pytest.mark.parametrize("locked, freeze", [(("visual",), ""), ((), r"^visual\."), (("visual",), r"^visual\.")])
def test_a_locked_tower_stays_and_the_other_learns(locked, freeze):
    tx = optim.adamw(schedules.constant(1e-2), no_decay=rules.NO_DECAY, weight_decay=0.1, freeze=freeze)
    model = make_clip(vision_layers=(1, 1, 1, 1), **(TINY | dict(image_size=32)))
    locked = dataclasses.replace(task(model, locked=locked, tx=tx, ema_decay=0.9), image_size=32)
    state = jax.jit(locked.init)(jax.random.key(0))
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (B, 32, 32, 3)), jnp.uint8)
    after, _ = jax.jit(locked.train_step)(state, batch() | {"image": images}, {})
    before = flatten((state.params, state.mutable, state.ema))
    moved = {
        n
        for n, x in flatten((after.params, after.mutable, after.ema)).items()
        if np.asarray(x).tobytes() != np.asarray(before[n]).tobytes()
    }
    assert moved and all("visual" not in name for name in moved)
    assert any("batch_stats" in name for name in before)


def test_the_scale_ends_at_its_limit_and_never_beyond():
    for start, end in ((5.0, np.float32(np.log(100))), (-1.0, 0.0)):
        model = dataclasses.replace(VIT, init_logit_scale=start)
        after, metrics = one_step(task(model, ema_decay=0.5))
        assert float(metrics["logit_scale"]) == pytest.approx(np.exp(start), rel=1e-6)
        assert float(after.params["logit_scale"]) == end
        assert float(after.ema["logit_scale"]) == pytest.approx((start + end) / 2)  # of what was clipped


def test_statistics_of_the_resnet_move_in_training_and_are_used_in_prediction():
    model = make_clip(vision_layers=(1, 1, 1, 1), **(TINY | dict(image_size=32)))
    learner = dataclasses.replace(task(model), image_size=32)
    images = {"image": jnp.asarray(np.random.default_rng(0).integers(0, 256, (B, 32, 32, 3)), jnp.uint8)}
    state = jax.jit(learner.init)(jax.random.key(0))
    after, _ = jax.jit(learner.train_step)(state, batch() | images, {})
    mean = flatten(after.mutable)
    assert any(float(jnp.abs(x).max()) > 0 for name, x in mean.items() if name.endswith("mean"))
    predict = jax.jit(learner.predict)
    one = predict(after.replace(mutable=state.mutable), images, {})["image_features"]
    other = predict(after, images, {})["image_features"]
    assert float(jnp.abs(one - other).max()) > 1e-3
    parts = dataclasses.replace(learner, accumulate=3)
    again, _ = jax.jit(parts.train_step)(state, batch() | images, {})
    assert flatten(again.mutable).keys() == mean.keys()


def test_prediction_takes_what_is_there():
    state = first_state(VIT)
    data = batch()
    both = task().predict(state, data, {})
    assert set(both) == set(PREDICTIONS[task().predicts])
    assert set(both) == {"image_features", "text_features", "logit_scale"}
    assert set(task().predict(state, {"text": data["text"]}, {})) == {"text_features", "logit_scale"}
    np.testing.assert_allclose(jnp.linalg.norm(both["image_features"], axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(form="rows"), "form='rows'"),
        (dict(form="local", sigmoid=True), "form='local'"),
        (dict(locked=("image",)), "locked="),
        (dict(max_scale=0.0), "max_scale=0.0"),
        (dict(max_scale=float("nan")), "max_scale=nan"),
        (dict(chunk=0), "chunk=0"),
        (dict(accumulate=0), "accumulate=0"),
        (dict(sigmoid=True), "logit_bias"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        task(**fields)
