"""The task of a generator against a discriminator, on networks whose gradients are known."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models.stylegan2 import Discriminator, Generator
from swin_jax.ops.losses import gradient_penalty
from swin_jax.optim import lazy_adam
from swin_jax.optim.schedules import constant
from swin_jax.tasks.adaptive_augmentation import AdaptiveAugmentation
from swin_jax.tasks.base import GatheredState
from swin_jax.tasks.gan import GAN

SIDE, ROWS, BATCH, RATE = 8, 5, 4, 0.25
SGD = optax.sgd(RATE)  # one for all: tasks with the same fields are equal and compiled once


class Painter(nn.Module):
    """An image is the sum of the rows of W+ times one number; w is z."""

    resolution: int = SIDE
    z_dim: int = SIDE**2
    c_dim: int = 0
    image_channels: int = 1
    num_ws: int = ROWS

    def setup(self):
        self.strength = self.param("strength", nn.initializers.constant(0.5), ())
        self.averages = self.variable("averages", "mapping", lambda: {"w_avg": jnp.zeros(self.z_dim)})

    def map(self, z, c=None):
        return jnp.broadcast_to(z[:, None], (len(z), ROWS, self.z_dim))

    def synthesize(self, ws, noise="const"):
        return self.strength * ws.sum(axis=1).reshape(-1, SIDE, SIDE, 1)

    def __call__(self, z, c=None):
        return self.synthesize(self.map(z, c))


class Critic(nn.Module):
    """A logit is linear in the pixels."""

    resolution: int = SIDE
    c_dim: int = 0
    image_channels: int = 1

    @nn.compact
    def __call__(self, image, c=None):
        kernel = self.param("kernel", nn.initializers.normal(0.1), (SIDE**2, 1))
        return image.reshape(len(image), -1) @ kernel


def toy(**fields):
    plain = dict(r1_gamma=0.0, path_weight=0.0, mixing=0.0)
    return GAN(Painter(), Critic(), SGD, SGD, **plain | fields)


def batch(seed=0, size=BATCH, channels=1):
    rng = np.random.default_rng(seed)
    return {"image": rng.integers(0, 256, (size, SIDE, SIDE, channels), np.uint8)}


def at(step, task=None):
    state = (task or toy()).init(jax.random.key(0))
    return state.replace(step=jnp.int32(step))


def kernel_of(state):
    return np.asarray(state.params["discriminator"]["kernel"], np.float64)


@functools.cache
def compiled(task):
    return jax.jit(task.train_step)


def step(task, state, **fields):
    return compiled(task)(state, batch(**fields), {})


@pytest.mark.parametrize("noise", ["random", "none"])
def test_every_step_draws_with_the_noise_that_was_asked_for(noise):
    drawn = []

    class Noisy(Painter):
        def synthesize(self, ws, noise="const"):
            drawn.append(noise)
            return Painter.synthesize(self, ws)

    task = dataclasses.replace(toy(path_weight=1.0, r1_gamma=1.0, noise=noise), generator=Noisy())
    jax.eval_shape(task.train_step, at(0), batch(), {})
    assert set(drawn) == {noise}
    with pytest.raises(UserError, match="noise='const' must be random or none"):
        toy(noise="const")


# ---- losses ----


def test_each_network_takes_a_step_of_its_non_saturating_loss():
    task = toy()
    before = at(3)
    state, metrics = step(task, before)
    kernel, strength = kernel_of(before)[:, 0], 0.5
    # The latents that each network saw: w is z, and the running mean of w takes in both batches.
    keys = [jax.random.fold_in(task_key(task, name), 3) for name in ("generator", "discriminator")]
    z1, z2 = (np.asarray(task.latents(*latent_arguments(task, before, key))[0][:, 0], np.float64) for key in keys)

    logits = strength * ROWS * z1 @ kernel
    np.testing.assert_allclose(metrics["loss_generator"], np.logaddexp(0, -logits).mean(), rtol=1e-5)
    slope = (-1 / (1 + np.exp(logits)) * (ROWS * z1 @ kernel)).mean()
    trained = strength - RATE * slope
    np.testing.assert_allclose(state.params["generator"]["strength"], trained, rtol=1e-5)

    real = batch()["image"].reshape(BATCH, -1) / 127.5 - 1
    fake = trained * ROWS * z2  # of the generator as it has just become
    value = np.logaddexp(0, fake @ kernel).mean() + np.logaddexp(0, -real @ kernel).mean()
    np.testing.assert_allclose(metrics["loss_discriminator"], value, rtol=1e-5)
    gradient = (fake.T / (1 + np.exp(-fake @ kernel)) - real.T / (1 + np.exp(real @ kernel))).mean(axis=1)
    np.testing.assert_allclose(kernel_of(state)[:, 0], kernel - RATE * gradient, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["sign_real"], np.sign(real @ kernel).mean(), atol=1e-6)
    assert metrics["loss"] == metrics["loss_generator"] + metrics["loss_discriminator"] and int(state.step) == 4

    mean = 0.005 * z1.mean(axis=0)
    mean = mean + 0.005 * (z2.mean(axis=0) - mean)
    w_avg = state.mutable["generator"]["averages"]["mapping"]["w_avg"]
    np.testing.assert_allclose(w_avg, mean, rtol=1e-4, atol=1e-7)


def task_key(task, name):
    import zlib

    return jax.random.fold_in(jax.random.key(task.seed), zlib.crc32(name.encode()))


def latent_arguments(task, state, key):
    return state.params["generator"], state, batch(), BATCH, key


@pytest.mark.parametrize("every", [1, 3])
def test_r1_shrinks_a_linear_critic_on_every_kth_step_times_k(every):
    plain, task = toy(), toy(r1_gamma=0.1, r1_every=every)
    for number in range(every + 1):
        without, _ = step(plain, at(number))
        state, metrics = step(task, at(number))
        # The penalty of <kernel, x> is gamma / 2 |kernel|^2.
        factor = 1 - RATE * 0.1 * every if number % every == 0 else 1.0
        np.testing.assert_allclose(kernel_of(state), factor * kernel_of(without), rtol=1e-5)
        seen = (kernel_of(without) ** 2).sum() if number % every == 0 else 0.0
        np.testing.assert_allclose(metrics["r1"], seen, rtol=1e-5)


def test_the_gradient_penalty_is_of_each_image_by_itself():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2, 1)), jnp.float32)
    found = gradient_penalty(lambda x: (x**2).sum(axis=(1, 2, 3))[:, None], images)
    np.testing.assert_allclose(found, (4 * images**2).sum() / 3, rtol=1e-6)


@pytest.mark.parametrize("every", [1, 2])
def test_the_path_length_penalty_steps_every_kth_time_towards_the_mean(every):
    plain, task = toy(), toy(path_weight=0.5, path_every=every)
    mean = 0.3
    for number in range(every + 1):
        before = at(number)
        before = before.replace(mutable=before.mutable | {"path_mean": jnp.float32(mean)})
        without, _ = step(plain, before, size=2)
        state, metrics = step(task, before, size=2)
        strength, trained = (float(s.params["generator"]["strength"]) for s in (without, state))
        if number % every:
            assert trained == strength and float(state.mutable["path_mean"]) == np.float32(mean)
            continue
        # One row of the two: |d <image, y> / dw| is strength |y| in each row of W+, and y has a length of about 1.
        length = float(metrics["path_length"])
        assert 0.7 < length / strength < 1.3
        moved = mean + 0.01 * (length - mean)
        np.testing.assert_allclose(state.mutable["path_mean"], moved, rtol=1e-5)
        # The mean in the penalty is the one just moved, and its gradient counts: 0.99 twice.
        slope = 2 * 0.99**2 * (length - mean) * length / strength
        np.testing.assert_allclose(trained, strength - RATE * 0.5 * every * slope, rtol=1e-4)


def test_path_lengths_are_a_root_mean_square_over_rows_of_w():
    """Rows that do not touch the image halve nothing silently: |y| sqrt(used / all)."""

    class Half(Painter):
        def synthesize(self, ws, noise="const"):
            return super().synthesize(ws[:, :1], noise)

    task = toy(path_weight=1.0, path_shrink=1)
    whole, half = task, dataclasses.replace(task, generator=Half())
    lengths = [
        float(jax.jit(t.regularize_generator)(at(0, t), batch()).mutable["penalties"]["path_length"])
        for t in (whole, half)
    ]
    np.testing.assert_allclose(lengths[1], lengths[0] / np.sqrt(ROWS), rtol=1e-5)


# ---- latents and averages ----


def test_a_second_latent_takes_over_from_one_row_on_for_the_whole_batch():
    task = toy(mixing=0.8)
    state = at(0)
    draw = jax.jit(lambda key: task.latents(*latent_arguments(task, state, key)))
    cuts = []
    for number in range(200):
        ws, w_avg = draw(jax.random.key(number))
        np.testing.assert_allclose(w_avg, 0.005 * ws[:, 0].mean(axis=0), rtol=1e-4, atol=1e-8)
        new = np.asarray((ws != ws[:, :1]).all(axis=-1))  # (B, rows)
        assert (new == new[:1]).all() and (np.diff(new[0].astype(int)) >= 0).all()
        assert len({row.tobytes() for row in np.asarray(ws[0])}) <= 2
        cuts.append(ROWS - new[0].sum())
    shares = np.bincount(cuts, minlength=ROWS + 1) / 200
    assert shares[0] == 0
    np.testing.assert_allclose(shares[1:ROWS], 0.2, atol=0.1)
    np.testing.assert_allclose(shares[ROWS], 0.2, atol=0.1)


@pytest.mark.parametrize("ramp", [0.0, 0.5])
def test_the_average_has_a_half_life_in_images(ramp):
    task = toy(ema_images=6, ema_ramp=ramp)
    state = at(0)
    expected = 0.5
    for number in range(4):
        state, _ = step(task, state, seed=number)
        images = min(6, number * BATCH * ramp) if ramp else 6
        share = 0.5 ** (BATCH / images) if images else 0.0
        expected = share * expected + (1 - share) * float(state.params["generator"]["strength"])
        np.testing.assert_allclose(state.ema["generator"]["strength"], expected, rtol=1e-5)
    assert state.ema["generator"]["strength"] != state.params["generator"]["strength"]


def test_gradients_that_are_not_finite_do_no_harm():
    task = toy()
    bad = {"strength": jnp.float32(jnp.nan)}, {"strength": jnp.float32(-jnp.inf)}
    for grads, change in zip(bad, (0.0, RATE * 1e5)):
        state, _ = task.apply(at(0), "generator", grads)
        assert float(state.params["generator"]["strength"]) == 0.5 + change


@pytest.mark.parametrize("every", [0, 4, 16])
def test_lazy_adam_takes_the_share_of_its_constants(every):
    share = every / (every + 1) if every else 1.0
    tx = lazy_adam(constant(0.01), b1=0.5, b2=0.9, regularize_every=every)
    value = np.float64(2.0)
    params = {"x": jnp.float32(value)}
    state, m, v = tx.init(params), 0.0, 0.0
    b1, b2 = 0.5**share, 0.9**share
    for number, gradient in enumerate([1.0, -3.0, 0.5], 1):
        updates, state = tx.update({"x": jnp.float32(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
        root = np.sqrt(v / (1 - b2**number)) + 1e-8
        value -= 0.01 * share * m / (1 - b1**number) / root
        np.testing.assert_allclose(params["x"], value, rtol=1e-6)


def test_a_schedule_of_lazy_adam_counts_steps_of_the_loss():
    tx = lazy_adam(lambda step, scale=1.0: (1 + step) * scale, regularize_every=4)
    params = {"x": jnp.float32(0.0)}
    state, rates = tx.init(params), []
    for _ in range(6):  # the loss and its regularizer, then the loss four times
        updates, state = tx.update({"x": jnp.float32(1.0)}, state, params)
        rates.append(-float(updates["x"]) / 0.8)
    np.testing.assert_allclose(rates, [1, 1, 2, 3, 4, 5], rtol=1e-5)


def test_a_rate_that_is_a_number_is_refused_with_the_schedule_of_it():
    with pytest.raises(UserError, match=r"schedule=0.01: it must be a function .*schedules.constant\(0.01\)"):
        lazy_adam(0.01)


# ---- adaptive augmentation ----


def darken(images, probability, key):
    return images * (1 - probability)


def test_augmentation_is_of_real_and_generated_images_and_in_the_penalties():
    augmentation = AdaptiveAugmentation(darken, every=100)
    task = toy(augmentation=augmentation, r1_gamma=1.0, r1_every=1)
    before = at(0)
    black = before.replace(mutable=before.mutable | {"augmentation": {"probability": 1.0, "signs": 0.0}})
    state, metrics = step(task, black)
    np.testing.assert_allclose(metrics["loss_discriminator"], 2 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(metrics["loss_generator"], np.log(2), rtol=1e-6)
    assert metrics["r1"] == 0 and metrics["augmentation"] == 1
    np.testing.assert_array_equal(kernel_of(state), kernel_of(before))


def test_the_probability_follows_the_signs_of_real_images():
    settings = AdaptiveAugmentation(darken, target=0.6, every=4, images=160)
    for sign, start, end in [(0.8, 0.2, 0.3), (0.4, 0.2, 0.1), (-1.0, 0.05, 0.0), (1.0, 0.98, 1.08)]:
        kept = {"probability": jnp.float32(start), "signs": jnp.float32(0)}
        for number in range(4):
            kept = kept | {"signs": kept["signs"] + sign}
            kept = settings.adapt(kept, jnp.int32(number), BATCH)
            assert number == 3 or kept["probability"] == np.float32(start)
        np.testing.assert_allclose(kept["probability"], end, atol=1e-6)
        assert kept["signs"] == 0


def test_steps_keep_the_signs_until_they_are_used():
    task = toy(augmentation=AdaptiveAugmentation(darken, every=3, images=1200))
    state, signs = at(0), 0.0
    for number in range(2):
        state, metrics = step(task, state, seed=number)
        signs += float(metrics["sign_real"])
        np.testing.assert_allclose(state.mutable["augmentation"]["signs"], signs, atol=1e-6)
    state, metrics = step(task, state, seed=2)
    change = 0.01 * np.sign((signs + float(metrics["sign_real"])) / 3 - 0.6)
    np.testing.assert_allclose(state.mutable["augmentation"]["probability"], max(change, 0), atol=1e-7)


# ---- the rest ----


def test_a_gathered_copy_of_the_parameters_is_not_what_is_updated():
    task, state = toy(), at(0)
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.params)
    gathered = GatheredState(**fields | {"params": rounded, "master": state.params})
    (expected, _), (found, _) = (step(task, given) for given in (state, gathered))
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("field, value", [("resolution", 16), ("c_dim", 2), ("image_channels", 3)])
def test_networks_that_do_not_fit_each_other_are_refused(field, value):
    with pytest.raises(UserError, match=f"{field} is .* in the generator and {value} in the discriminator"):
        GAN(Painter(), Critic(**{field: value}), optax.sgd(1.0), optax.sgd(1.0))


def test_conditional_networks_train_and_heed_their_labels():
    width = dict(resolution=8, c_dim=3, channel_base=64, channel_max=8)
    generator = Generator(**width, z_dim=6, w_dim=6, mapping_layers=1)
    networks = generator, Discriminator(**width, mapping_layers=1)
    task = GAN(*networks, lazy_adam(constant(0.01)), lazy_adam(constant(0.01)), r1_gamma=0.0, path_weight=0.0)
    assert task.batch_shapes(4)["label"].shape == (4,)
    state = jax.jit(task.init)(jax.random.key(0))
    labels = np.array([0, 1, 2, 1], np.int32)
    given = batch(channels=3) | {"label": labels}
    after, metrics = jax.jit(task.train_step)(state, given, {})
    assert np.isfinite([float(value) for value in metrics.values()]).all()
    for network in ("generator", "discriminator"):
        embed = [s.params[network]["mapping"]["embed"]["kernel"] for s in (state, after)]
        assert (embed[0] != embed[1]).any(axis=1).all()
    latent = jnp.ones((4, 6))
    images = task.predict(after, {"latent": latent, "label": labels}, {})["image"]
    np.testing.assert_allclose(images[1], images[3], atol=1e-6)
    assert all(np.abs(images[i] - images[0]).max() > 1e-3 for i in (1, 2))
