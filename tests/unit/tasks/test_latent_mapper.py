"""The latent mapper's losses in closed form, in W+ and in S, and its training with Ranger."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models.styleclip import LevelsMapper, StyleSpaceMapper
from swin_jax.models.stylegan2 import Generator
from swin_jax.optim import ranger
from swin_jax.tasks import editing
from swin_jax.tasks.latent_mapper import LatentMapper, _penalty
from tests.editing import GENERATOR, networks

TEXT = np.array([[49406, 320, 49407, 0, 0, 0]], np.int32)
CHANNELS = tuple(layer.channels for layer in Generator(**GENERATOR).style_layers())


def make(model=None, **fields):
    model = model or LevelsMapper()
    return LatentMapper(**networks() | dict(model=model, tx=ranger(0.5), text_ids=TEXT, id_lambda=0.0) | fields)


def latents(count=2):
    return np.random.default_rng(0).standard_normal((count, 4, GENERATOR["w_dim"])).astype(np.float32)


def test_the_penalty_is_the_mean_of_squares_in_w_plus_and_the_sum_of_means_in_s():
    ones = jnp.full((2, 18, 512), 10.0)  # a step of 1
    np.testing.assert_allclose(_penalty(ones, "mean"), [1, 1], rtol=1e-6)
    np.testing.assert_allclose(_penalty(ones, "norm"), [960, 960], rtol=1e-6)
    styles = (jnp.full((3, 512), 10.0), jnp.zeros((3, 512)), jnp.full((3, 32), 20.0))
    np.testing.assert_allclose(_penalty(styles, "mean"), [5, 5, 5], rtol=1e-6)
    assert jnp.isfinite(jax.grad(lambda x: _penalty(x, "norm").sum())(jnp.zeros((1, 2, 2)))).all()


def test_the_loss_is_that_of_the_released_code():
    task = make(id_lambda=0.1, l2_lambda=2.0, clip_lambda=1.5)
    frozen, params = task.load_frozen(), task.init(jax.random.key(0)).params
    ws = latents()

    @jax.jit
    def both(params):
        step = 0.1 * task.model.apply({"params": params}, ws)
        before, after = (editing.synthesize(task, frozen, x) for x in (ws, ws + step))
        features = [editing.embed_faces(task, frozen, image) for image in (before, after)]
        return step, editing.clip_distances(task, frozen, after), (features[0] * features[1]).sum(axis=1)

    step, clip, cosine = both(params)
    terms, made = jax.jit(task.terms)(params, ws, frozen)
    expected = 1.5 * clip.mean() + 2.0 * (step**2).mean() + 0.1 * (1 - cosine.mean())
    np.testing.assert_allclose(terms["loss"].mean(), expected, rtol=1e-5)
    assert float(np.abs(made["before"] - made["image"]).max()) > 1e-3
    np.testing.assert_allclose(made["step"] * 0.1, step.reshape(2, -1), atol=1e-6)


def test_ranger_lowers_the_loss_and_nothing_but_the_mapper_is_trained():
    task = make(LevelsMapper(fine=False), l2_lambda=0.0, clip_lambda=1e4)
    frozen, state = task.load_frozen(), task.init(jax.random.key(0))
    assert set(state.params) == {"course_mapping"}  # four rows: the coarse ones
    step, losses = jax.jit(task.train_step), []
    for _ in range(20):
        state, metrics = step(state, {"latent": latents()}, frozen)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.1 and set(metrics) >= {"loss", "clip", "l2", "grad_norm", "learning_rate"}
    assert int(state.step) == 20


def test_z_is_mapped_and_truncated_on_its_way_into_the_batch():
    task = make()
    frozen, z = task.load_frozen(), np.ones((2, GENERATOR["z_dim"]), np.float32)
    generator = task.generator
    expected = generator.model.apply(generator.variables, z, truncation=0.7, method="map")
    np.testing.assert_allclose(task.latents({"latent": z}, frozen), expected, atol=1e-6)
    np.testing.assert_array_equal(task.latents({"latent": latents()}, frozen), latents())


@pytest.mark.parametrize("with_rgb", [False, True])
def test_in_s_the_styles_may_be_given_or_follow_from_w_plus(with_rgb):
    task = make(StyleSpaceMapper(CHANNELS, with_rgb))
    frozen, state = task.load_frozen(), task.init(jax.random.key(0))
    styles = task.latents({"latent": latents()}, frozen)
    given = task.latents({"styles": np.concatenate(styles, axis=1)}, frozen)
    assert [style.shape for style in given] == [(2, channels) for channels in CHANNELS]
    assert all(map(np.array_equal, styles, given))
    assert len(state.params) == (5 if with_rgb else 3)
    if not with_rgb:
        _, metrics = jax.jit(task.train_step)(state, {"styles": np.concatenate(styles, axis=1)}, frozen)
        assert np.isfinite(float(metrics["loss"])) and float(metrics["l2"]) > 0


def test_what_a_step_reads_is_laid_out_before_anything_is_read():
    task = make(id_lambda=0.1)
    kinds = [
        jax.tree.map(lambda x: (x.shape, np.dtype(x.dtype)), tree)
        for tree in (task.frozen_shapes(), task.load_frozen())
    ]
    assert kinds[0] == kinds[1] and set(kinds[0]) == {"generator", "clip", "arcface", "text_features"}


def test_the_shapes_of_batches_are_those_of_what_is_given():
    styles = StyleSpaceMapper(CHANNELS)
    found = [make(given=given).batch_shapes(3)["latent"].shape for given in ("w+", "z")]
    assert found == [(3, 4, 8), (3, 8)]
    assert make(styles, given="s").batch_shapes(3)["styles"].shape == (3, sum(CHANNELS))


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(given="s"), "given='s' must be one of w\\+, z, s, the last one for a mapper of S"),
        (dict(penalty="sum"), "penalty='sum' must be one of mean, norm"),
        (dict(text_ids=np.zeros((2, 6), np.int32)), "trained for one text, not for 2"),
        (dict(arcface=None, id_lambda=0.1), "needs a network that knows faces"),
    ],
)
def test_what_does_not_fit_is_one_line(fields, message):
    with pytest.raises(UserError, match=message):
        make(**fields)
