"""A generator and a discriminator against each other:
StyleGAN2's losses, lazy regularizers and averages.

Karras et al., arXiv 1912.04958 (appendix B) and 2006.06676 (adaptive augmentation). The reference
is training/loss.py and training_loop.py of NVlabs/stylegan2-ada-pytorch: the generator is updated
first, and a regularizer has an update of its own, on the steps that it is due.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import (
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Rate,
    Seed,
    checked,
)
from swin_jax.ops.losses import gradient_penalty
from swin_jax.tasks.adaptive_augmentation import AdaptiveAugmentation
from swin_jax.tasks.base import (
    Batch,
    Metrics,
    TrainState,
    apply_gradients,
    running_average,
    step_key,
)
from swin_jax.tasks.freezing import hold_statistics

_LARGEST = 1e5  # what an infinite entry of a gradient becomes


@checked
@dataclasses.dataclass(frozen=True)
class GAN:
    """Trains `generator` and `discriminator` with the non-saturating loss.

    Attributes:
        generator: A `models.stylegan2.Generator`.
        discriminator: A `models.stylegan2.Discriminator`.
        generator_tx, discriminator_tx: Optimizers of the two networks.
        seed: Seed of latents, noise, mixing and augmentation.
        r1_gamma: Weight of the gradient penalty on real images; 0 for none.
        r1_every: Discriminator steps from one penalty to the next, which counts as many times.
        path_weight: Weight of the path length penalty; 0 for none.
        path_every: Generator steps from one penalty to the next, which counts as many times.
        path_decay: Decay of the running mean of path lengths.
        path_shrink: A penalty takes one row of so many.
        noise: 'random', or 'none' for a generator without noise, whose strengths stay at 0.
        mixing: Probability that a second latent takes over from a random row of W+ on.
        w_decay: Decay of the running mean of w.
        ema_images: Half-life, in images, of the generator's average.
        ema_ramp: Largest half-life as a share of the images seen so far; 0 for no limit.
        augmentation: Augmentation of real and generated images alike, or None.
    """

    predicts: ClassVar[str] = "samples"

    generator: nn.Module
    discriminator: nn.Module
    generator_tx: optax.GradientTransformation
    discriminator_tx: optax.GradientTransformation
    seed: Seed = 0
    r1_gamma: NonNegativeFloat = 10.0
    r1_every: PositiveInt = 16
    path_weight: NonNegativeFloat = 2.0
    path_every: PositiveInt = 4
    path_decay: PositiveFloat = 0.01
    path_shrink: PositiveInt = 2
    noise: str = "random"
    mixing: Fraction = 0.9
    w_decay: Rate = 0.995
    ema_images: PositiveInt = 10_000
    ema_ramp: NonNegativeFloat = 0.0
    augmentation: AdaptiveAugmentation | None = None

    def __post_init__(self):
        if self.noise not in ("random", "none"):
            raise UserError(f"noise={self.noise!r} must be random or none")
        for name in ("resolution", "c_dim", "image_channels"):
            values = getattr(self.generator, name), getattr(self.discriminator, name)
            if values[0] != values[1]:
                raise UserError(
                    f"{name} is {values[0]} in the generator and {values[1]} in the discriminator"
                )

    def init(self, key: jax.Array) -> TrainState:
        """Both networks from their own initializers; the generator's average
        starts at its parameters.
        """
        keys = jax.random.split(key)
        g, d = self.generator, self.discriminator
        label = jnp.zeros((1, g.c_dim)) if g.c_dim else None
        variables = g.init(keys[0], jnp.zeros((1, g.z_dim)), label)
        image = jnp.zeros((1, g.resolution, g.resolution, g.image_channels))
        params = {
            "generator": variables.pop("params"),
            "discriminator": d.init(keys[1], image, label)["params"],
        }
        opt_state = {
            "generator": self.generator_tx.init(params["generator"]),
            "discriminator": self.discriminator_tx.init(params["discriminator"]),
        }
        zero = jnp.zeros(())
        mutable = {
            "generator": variables,
            "path_mean": zero,
            "penalties": {"r1": zero, "path_length": zero},
            "augmentation": {"probability": zero, "signs": zero},
        }
        ema = {"generator": jax.tree.map(jnp.copy, params["generator"])}
        return TrainState(jnp.zeros((), jnp.int32), params, opt_state, mutable, ema)

    def train_step(
        self, state: TrainState, batch: Batch, frozen: Any
    ) -> tuple[TrainState, Metrics]:
        """One update of each network, and of its regularizer if due, on `image` uint8 (B, H, W,
        C) and `label` (B,).
        """
        batch_size = batch["image"].shape[0]
        # Parameters change several times within a step,
        # so that a copy gathered for it is of no use.
        state = TrainState(state.step, state.master, state.opt_state, state.mutable, state.ema)
        state, metrics = self.update_generator(state, batch)
        if self.path_weight:
            due = state.step % self.path_every == 0
            state = jax.lax.cond(
                due, lambda s: self.regularize_generator(s, batch), lambda s: s, state
            )
        state, more = self.update_discriminator(state, batch)
        if self.r1_gamma:
            due = state.step % self.r1_every == 0
            state = jax.lax.cond(
                due, lambda s: self.regularize_discriminator(s, batch), lambda s: s, state
            )
        mutable = state.mutable
        if self.augmentation:
            mutable = mutable | {
                "augmentation": self.augmentation.adapt(
                    mutable["augmentation"], state.step, batch_size
                )
            }
        metrics = metrics | more | mutable["penalties"]
        if self.augmentation:
            metrics["augmentation"] = mutable["augmentation"]["probability"]
        metrics["loss"] = metrics["loss_generator"] + metrics["loss_discriminator"]
        ema = self.average(state, batch_size)
        return state.replace(step=state.step + 1, mutable=mutable, ema=ema), metrics

    # ---- the generator ----

    def update_generator(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """The generator's step of the adversarial loss."""
        key = step_key(self.seed, state.step, "generator")
        count = batch["image"].shape[0]

        def loss(params):
            images, w_avg = self.generate(params, state, batch, count, key)
            logits = self.judge(
                state.params["discriminator"], images, state, batch, jax.random.fold_in(key, 1)
            )
            return jax.nn.softplus(-logits).mean(), w_avg

        (value, w_avg), grads = jax.value_and_grad(loss, has_aux=True)(state.params["generator"])
        state, metrics = self.apply(state, "generator", grads)
        return self.with_w_avg(state, w_avg), {"loss_generator": value, **metrics}

    def regularize_generator(self, state: TrainState, batch: Batch) -> TrainState:
        """The generator's step of the path length penalty (section 3.2)."""
        key = step_key(self.seed, state.step, "path")
        count = max(batch["image"].shape[0] // self.path_shrink, 1)

        def loss(params):
            ws, w_avg = self.latents(params, state, batch, count, key)
            side = self.generator.resolution
            shape = (count, side, side, self.generator.image_channels)
            direction = jax.random.normal(jax.random.fold_in(key, 2), shape) / side

            def project(ws):
                return (self.synthesize(params, state, ws, key) * direction).sum()

            gradient = jax.grad(project)(ws)
            lengths = jnp.sqrt((gradient**2).sum(axis=2).mean(axis=1))
            # Its own share in the mean has a gradient too, as in the reference.
            mean = state.mutable["path_mean"] + self.path_decay * (
                lengths.mean() - state.mutable["path_mean"]
            )
            penalty = ((lengths - mean) ** 2).mean() * self.path_weight * self.path_every
            return penalty, (mean, lengths.mean(), w_avg)

        (_, (mean, length, w_avg)), grads = jax.value_and_grad(loss, has_aux=True)(
            state.params["generator"]
        )
        state, _ = self.apply(state, "generator", grads)
        penalties = state.mutable["penalties"] | {"path_length": length}
        mutable = state.mutable | {"path_mean": mean, "penalties": penalties}
        return self.with_w_avg(state.replace(mutable=mutable), w_avg)

    def latents(self, params, state, batch, count, key) -> tuple[jax.Array, jax.Array]:
        """W+ of `count` new latents, mixed, and the running mean of w after them."""
        variables, labels = self.variables(params, state), self.labels(batch, count)
        keys = jax.random.split(key, 4)
        z = jax.random.normal(keys[0], (count, self.generator.z_dim))
        ws = self.generator.apply(variables, z, labels, method="map")
        before = variables["averages"]["mapping"]["w_avg"]
        mean = jax.lax.stop_gradient(ws[:, 0].mean(axis=0))
        w_avg = before + (1 - self.w_decay) * (mean - before)
        if self.mixing:
            # One cut for the whole batch, as in the reference.
            cut = jax.random.randint(keys[1], (), 1, self.generator.num_ws)
            cut = jnp.where(jax.random.uniform(keys[2]) < self.mixing, cut, self.generator.num_ws)
            other = jax.random.normal(keys[3], z.shape)
            others = self.generator.apply(variables, other, labels, method="map")
            ws = jnp.where(jnp.arange(self.generator.num_ws)[None, :, None] < cut, ws, others)
        return ws, w_avg

    def synthesize(self, params, state, ws, key) -> jax.Array:
        """Images of W+, with fresh noise where it is random."""
        given = dict(rngs={"noise": jax.random.fold_in(key, 3)}, noise=self.noise)
        return self.generator.apply(self.variables(params, state), ws, method="synthesize", **given)

    def generate(self, params, state, batch, count, key) -> tuple[jax.Array, jax.Array]:
        """`count` images, and the running mean of w after them."""
        ws, w_avg = self.latents(params, state, batch, count, key)
        return self.synthesize(params, state, ws, key), w_avg

    def variables(self, params, state) -> dict:
        """Variables of the generator."""
        return {"params": params, **state.mutable["generator"]}

    def labels(self, batch: Batch, count: int) -> jax.Array | None:
        """Label vectors (count, c_dim) of a batch's first rows, None where there are none."""
        if not self.generator.c_dim:
            return None
        return jax.nn.one_hot(batch["label"][:count], self.generator.c_dim)

    # ---- the discriminator ----

    def update_discriminator(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """The discriminator's step of the adversarial loss."""
        key = step_key(self.seed, state.step, "discriminator")
        count = batch["image"].shape[0]
        images, w_avg = self.generate(state.params["generator"], state, batch, count, key)
        real = _floats(batch["image"])

        def loss(params):
            fake_logits = self.judge(params, images, state, batch, jax.random.fold_in(key, 1))
            real_logits = self.judge(params, real, state, batch, jax.random.fold_in(key, 2))
            value = jax.nn.softplus(fake_logits).mean() + jax.nn.softplus(-real_logits).mean()
            signs = {
                "sign_real": jnp.sign(real_logits).mean(),
                "sign_fake": jnp.sign(fake_logits).mean(),
            }
            return value, signs

        (value, signs), grads = jax.value_and_grad(loss, has_aux=True)(
            state.params["discriminator"]
        )
        state, metrics = self.apply(state, "discriminator", grads)
        augmentation = state.mutable["augmentation"]
        augmentation = augmentation | {"signs": augmentation["signs"] + signs["sign_real"]}
        state = self.with_w_avg(
            state.replace(mutable=state.mutable | {"augmentation": augmentation}), w_avg
        )
        metrics = {f"{name}_discriminator": metric for name, metric in metrics.items()}
        return state, {"loss_discriminator": value, **signs, **metrics}

    def regularize_discriminator(self, state: TrainState, batch: Batch) -> TrainState:
        """The discriminator's step of the R1 penalty (arXiv 1801.04406):
        gamma/2 |gradient of D at real images|^2.
        """
        key = step_key(self.seed, state.step, "r1")
        real = _floats(batch["image"])

        def loss(params):
            penalty = gradient_penalty(
                lambda images: self.judge(params, images, state, batch, key), real
            )
            return penalty * (self.r1_gamma / 2 * self.r1_every), penalty

        (_, penalty), grads = jax.value_and_grad(loss, has_aux=True)(state.params["discriminator"])
        state, _ = self.apply(state, "discriminator", grads)
        penalties = state.mutable["penalties"] | {"r1": penalty}
        return state.replace(mutable=state.mutable | {"penalties": penalties})

    def judge(self, params, images, state, batch, key) -> jax.Array:
        """Logits (B, 1) of images, augmented if they are to be."""
        if self.augmentation:
            probability = state.mutable["augmentation"]["probability"]
            images = self.augmentation.augment(images, probability, key)
        labels = self.labels(batch, images.shape[0])
        return self.discriminator.apply({"params": params}, images, labels)

    # ---- both ----

    def apply(self, state: TrainState, name: str, grads: Any) -> tuple[TrainState, Metrics]:
        """The update of one network; entries of the gradient that are not finite do no harm."""
        grads = jax.tree.map(
            lambda g: jnp.nan_to_num(g, nan=0.0, posinf=_LARGEST, neginf=-_LARGEST), grads
        )
        tx = self.generator_tx if name == "generator" else self.discriminator_tx
        own = TrainState(state.step, state.params[name], state.opt_state[name], {})
        own, metrics = apply_gradients(own, grads, {}, tx, {})
        params = {**state.params, name: own.params}
        opt_state = {**state.opt_state, name: own.opt_state}
        return state.replace(params=params, opt_state=opt_state), metrics

    def with_w_avg(self, state: TrainState, w_avg: jax.Array) -> TrainState:
        """The state with a new running mean of w; that of a frozen mapping network stays."""
        mutable = state.mutable["generator"]
        own = TrainState(state.step, state.params["generator"], None, mutable)
        moved = hold_statistics(
            own, mutable | {"averages": {"mapping": {"w_avg": w_avg}}}, self.generator_tx
        )
        return state.replace(mutable=state.mutable | {"generator": moved})

    def average(self, state: TrainState, batch_size: int) -> Any:
        """The generator's average after a step."""
        images = jnp.float32(self.ema_images)
        if self.ema_ramp:
            images = jnp.minimum(images, state.step * (batch_size * self.ema_ramp))
        decay = 0.5 ** (batch_size / jnp.maximum(images, 1e-8))
        before, now = state.ema["generator"], state.params["generator"]
        return {"generator": running_average(now, before, 1 - decay)}

    def predict(self, state: TrainState, batch: Batch, frozen: Any) -> dict[str, jax.Array]:
        """`image` (B, H, W, C) float32, nominally in -1..1, of `latent` and `label`,
        with the fixed noise.
        """
        labels = self.labels(batch, batch["latent"].shape[0])
        variables = self.variables(state.params["generator"], state)
        return {"image": self.generator.apply(variables, batch["latent"], labels)}

    def describe(self) -> dict[str, Any]:
        """Parameters of both networks, and multiply-accumulates of the generator for one image."""
        shapes = jax.eval_shape(self.init, jax.random.key(0)).params
        counts = {
            f"parameters_{name}": sum(leaf.size for leaf in jax.tree.leaves(tree))
            for name, tree in shapes.items()
        }
        return {
            "parameters": sum(counts.values()),
            **counts,
            "gflops_per_image": self.generator.flops() / 1e9,
        }

    def train_flops(self) -> float:
        """Operations of one update of both networks for each image, penalties at the share of steps
        on which they are due. Of one network's forward pass, its own update takes three times as
        many and a gradient of its input one time.
        """
        generator, discriminator = 2 * self.generator.flops(), 2 * self.discriminator.flops()
        total = (3 + 1) * generator + (2 + 3 + 3) * discriminator
        # Gradients of gradients: that of R1 has no second pass, because the discriminator is linear
        # in its pixels but for the signs of its activations.
        if self.r1_gamma:
            total += 4 * discriminator / self.r1_every
        if self.path_weight:
            total += 6 * generator / self.path_shrink / self.path_every
        return total

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """`image`, and `label` of conditional networks."""
        side = self.generator.resolution
        pixels = (batch_size, side, side, self.generator.image_channels)
        shapes = {"image": jax.ShapeDtypeStruct(pixels, jnp.uint8)}
        if self.generator.c_dim:
            shapes["label"] = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
        return shapes


def _floats(image: jax.Array) -> jax.Array:
    """Bytes as numbers in -1..1."""
    return image.astype(jnp.float32) / 127.5 - 1
