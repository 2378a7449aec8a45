"""Latent optimization: the loss of the released code in closed form, and rows that do not know of each other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.optim import adamw, schedules
from swin_jax.plan import flops
from swin_jax.tasks import editing
from swin_jax.tasks.latent_optimization import L2_LAMBDAS, LatentOptimization, _penalty
from tests.editing import networks

STEPS = 3
TEXTS = np.zeros((4, 6), np.int32)
TEXTS[:, 0] = 49406
TEXTS[:, 1] = (320, 400, 500, 600)
TEXTS[:, 2] = 49407


def make(count=4, texts=None, **fields):
    tx = adamw(schedules.ramps(0.1, STEPS, rampup=0.4), no_decay=(), weight_decay=0.0, clip_norm=0.0)
    texts = TEXTS[:count] if texts is None else texts
    return LatentOptimization(**networks() | dict(tx=tx, text_ids=texts, batch_size=count) | fields)


def latents(count=4):
    return np.random.default_rng(0).standard_normal((count, 4, 8)).astype(np.float32)


def start_up(task, ws):
    records = [{"latent": row} for row in ws]
    task = dataclasses.replace(task, latents=records)
    return task, task.load_frozen()


def run(task, ws, steps=STEPS):
    task, frozen = start_up(task, ws)
    step, states, lines = jax.jit(task.train_step), [task.init(jax.random.key(0))], []
    for _ in range(steps):
        state, metrics = step(states[-1], {}, frozen)
        states.append(state)
        lines.append(jax.device_get(metrics))
    return states, lines, frozen


def test_the_distance_is_the_sum_of_squares_over_a_latent():
    ones = {"ws": jnp.ones((2, 18, 512))}
    np.testing.assert_array_equal(_penalty(ones, "sum"), [9216, 9216])
    np.testing.assert_array_equal(_penalty(ones, "norm"), [96, 96])
    styles = {"b4_conv1": jnp.ones((1, 512)), "b8_conv0": 2 * jnp.ones((1, 256))}
    assert _penalty(styles, "sum") == 512 + 4 * 256


def test_the_norm_has_a_gradient_where_a_run_begins():
    gradient = jax.grad(lambda x: _penalty({"ws": x}, "norm").sum())
    np.testing.assert_array_equal(gradient(jnp.zeros((1, 2, 2))), jnp.zeros((1, 2, 2)))
    np.testing.assert_allclose(gradient(jnp.ones((1, 2, 2))), jnp.full((1, 2, 2), 0.5))


def test_the_loss_is_that_of_the_released_code():
    task, frozen = start_up(make(2, id_lambda=0.3, l2_lambda=0.01), latents(2))
    step = {"ws": jnp.asarray(np.random.default_rng(1).standard_normal((2, 4, 8)) * 0.3, jnp.float32)}
    terms, image = jax.jit(task.terms)(step, frozen)
    ws = latents(2)
    generator, clip = task.generator, task.clip
    synthesize = jax.jit(lambda ws: generator.model.apply(generator.variables, ws, method="synthesize"))
    before, after = synthesize(ws), synthesize(ws + step["ws"])
    np.testing.assert_allclose(image, after, atol=1e-5)
    shown = np.asarray(after).repeat(2, axis=1).repeat(2, axis=2)  # 8 pixels as 16
    logits, _ = jax.jit(clip.model.apply)(clip.variables, shown, task.text_ids)
    embed = jax.jit(lambda image: editing.embed_faces(task, {"arcface": task.arcface.variables}, image))
    features = [embed(before), embed(after)]
    identity = 1 - (features[0] * features[1]).sum(axis=1)
    expected = {"clip": 1 - np.diagonal(logits) / 100, "l2": (step["ws"] ** 2).sum((1, 2)), "identity": identity}
    expected["loss"] = expected["clip"] + 0.01 * expected["l2"] + 0.3 * expected["identity"]
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("space, id_lambda", [("w+", 0.1), ("s", 0.0)])
def test_four_rows_with_four_texts_are_four_runs_of_one(space, id_lambda):
    states, lines, _ = run(make(space=space, id_lambda=id_lambda), latents())
    alone = make(1, space=space, id_lambda=id_lambda).optimizer(editing.load_networks(make(id_lambda=id_lambda)))
    for row in range(4):
        _, step = alone(latents()[row : row + 1], TEXTS[row : row + 1], STEPS)
        for name, leaf in step.items():
            np.testing.assert_allclose(states[-1].params[name][row], leaf[0], atol=1e-4, err_msg=name)
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert jax.tree.all(jax.tree.map(lambda x: (x == 0).all(), states[1].params))  # the first rate is 0
    assert jax.tree.all(jax.tree.map(lambda x: (x != 0).mean() > 0.9, states[2].params))


def test_adam_moves_by_the_rate_with_moments_of_the_first_step_too():
    task = make(1, l2_lambda=0.5)
    states, _, frozen = run(task, latents(1))
    gradients = jax.jit(jax.grad(lambda step: task.terms(step, frozen)[0]["loss"].sum()))
    m = v = np.zeros((1, 4, 8))
    for t, (before, after) in enumerate(zip(states, states[1:]), 1):
        gradient = np.asarray(gradients(before.params)["ws"], float)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        rate = float(schedules.ramps(0.1, STEPS, rampup=0.4)(t - 1))
        change = rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(after.params["ws"], before.params["ws"] - change, atol=2e-5)


def test_only_styles_that_make_no_color_move_and_the_penalty_counts_them_all():
    task, frozen = start_up(make(1, space="s"), latents(1))
    step = jax.tree.map(jnp.ones_like, task.init(jax.random.key(0)).params)
    assert list(step) == ["b4_conv1", "b8_conv0", "b8_conv1"]
    after = task.edit(frozen["start"], step)
    moved = [float((one - other).max()) for one, other in zip(after, frozen["start"])]
    np.testing.assert_allclose(moved, [1, 0, 1, 1, 0], atol=1e-6)
    terms, _ = jax.jit(task.terms)(step, frozen)
    np.testing.assert_allclose(terms["loss"] - terms["clip"], L2_LAMBDAS["s"] * terms["l2"], rtol=1e-3)
    assert terms["l2"][0] == sum(leaf.size for leaf in step.values())


def test_a_free_run_starts_from_the_mean_latent_and_minds_clip_alone():
    task = make(2, mode="free", id_lambda=0.1)
    frozen = task.load_frozen()
    mean = task.generator.variables["averages"]["mapping"]["w_avg"]
    np.testing.assert_array_equal(frozen["start"], np.broadcast_to(mean, (2, 4, 8)))
    terms = jax.eval_shape(task.terms, {"ws": jnp.ones((2, 4, 8))}, frozen)[0]
    assert set(terms) == {"loss", "clip"} and "faces" not in frozen


def test_z_is_mapped_and_truncated():
    z = np.random.default_rng(3).standard_normal((1, 8)).astype(np.float32)
    task, frozen = start_up(make(1), z)
    generator = task.generator
    expected = generator.model.apply(generator.variables, z, truncation=0.7, method="map")
    np.testing.assert_allclose(frozen["start"], expected, atol=1e-6)
    with pytest.raises(UserError, match="1 latents for batch_size=2"):
        start_up(make(2), z)


def test_rematerialized_pictures_have_the_same_gradient():
    task, frozen = start_up(make(1), latents(1))
    remat = dataclasses.replace(
        task, generator=dataclasses.replace(task.generator, model=task.generator.model.clone(remat="full"))
    )
    step = {"ws": jnp.full((1, 4, 8), 0.1)}
    gradients = [jax.grad(lambda p, t=t: t.terms(p, frozen)[0]["loss"].sum()) for t in (task, remat)]
    one, other = (jax.jit(gradient)(step) for gradient in gradients)
    np.testing.assert_allclose(one["ws"], other["ws"], atol=1e-6)
    assert np.abs(one["ws"]).max() > 1e-4
    assert flops.count(gradients[1], step) > 1.1 * flops.count(gradients[0], step)


@pytest.mark.parametrize("fields", [dict(), dict(space="s", id_lambda=0.2), dict(mode="free")])
def test_what_a_step_reads_is_laid_out_before_anything_is_read(fields):
    task, frozen = start_up(make(2, **fields), latents(2))
    shapes = jax.tree.map(lambda x: (x.shape, np.dtype(x.dtype)), task.frozen_shapes())
    assert shapes == jax.tree.map(lambda x: (x.shape, np.dtype(x.dtype)), frozen)
    assert ("arcface" in frozen) == bool(fields.get("id_lambda"))
    assert "text" not in frozen["clip"]["params"]


def test_the_notebook_runs_the_very_same_steps():
    states, _, frozen = run(make(2), latents(2))
    seen = []
    edit = make(1).optimizer(editing.load_networks(make(2)))
    start, step = edit(latents(2), TEXTS[:2], STEPS, lambda steps: (seen.append(i) or i for i in steps))
    np.testing.assert_array_equal(start, frozen["start"])
    np.testing.assert_allclose(step["ws"], states[-1].params["ws"], atol=1e-6)
    assert seen == [*range(STEPS)]


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(space="w"), "space='w' must be one of w\\+, s"),
        (dict(mode="keep"), "mode='keep'"),
        (dict(penalty="mean"), "penalty='mean' must be one of sum, norm"),
        (dict(preprocess="raw"), "preprocess='raw'"),
        (dict(id_lambda=0.1, arcface=None), "id_lambda=0.1 needs a network that knows faces"),
        (dict(texts=TEXTS[:3]), "3 texts for batch_size=4"),
    ],
)
def test_what_does_not_fit_is_one_line(fields, message):
    with pytest.raises(UserError, match=message):
        make(**fields)
