"""Latents of photographs: by the encoder e4e, or by an optimization for each picture.

The optimization is the projector of StyleGAN2 (Karras et al., arXiv 1912.04958, appendix D); the
reference is projector.py of NVlabs/stylegan2-ada-pytorch. Its distance is a value, see
`inference.editing.distances`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.errors import UserError, did_you_mean, warn
from swin_jax.core.ranges import (
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Rate,
    Seed,
    checked,
)
from swin_jax.inference.editing.batches import filled, progress
from swin_jax.inference.editing.distances import Distance
from swin_jax.ops.normalize import inverse_deviation
from swin_jax.optim.optimizers import scale_by_adam
from swin_jax.optim.schedules import ramps
from swin_jax.tasks.base import FrozenModel

SPACES = ("w", "w+")
_DRAWS = 123  # seed of the z whose mean the reference starts at
_SAMPLES = 10_000  # latents whose mean is meant
_SMALLEST = 8  # side of the last noise map of the pyramid
_CHUNK = 10  # steps between two looks at the progress


@checked
@dataclasses.dataclass(frozen=True)
class E4EInversion:
    """Finds latents in W+ with an encoder, in one call.

    Attributes:
        encoder: A `models.e4e.E4E` and its file.
        batch_size: Pictures at a time.
    """

    encoder: FrozenModel
    batch_size: PositiveInt = 8

    def check(self) -> None:
        """Raises UserError, naming the flag, if the encoder's file is missing."""
        self.encoder.check("invert.encoder")

    def load(self, generator: Any, variables: dict) -> "LoadedEncoder":
        """Reads the encoder; the generator's mean latent takes the place of one
        that its file lacks.

        Raises:
            UserError: Weights that do not fit; an encoder for another generator, with both numbers.
        """
        model = self.encoder.model
        ours, theirs = (model.num_ws, model.w_dim), (generator.num_ws, generator.w_dim)
        if ours != theirs:
            raise UserError(
                f"the encoder e4e finds {ours[0]} latents of {ours[1]} for a picture, and the "
                f"generator takes {theirs[0]} of {theirs[1]}: take the encoder of this generator, "
                f"with num_ws={theirs[0]} and w_dim={theirs[1]}"
            )
        size = model.image_size
        image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        found = self.encoder.load({"image": image}, "invert.encoder")
        if not np.any(found["averages"]["latent_avg"]):
            mean, _ = mean_latent(generator, variables, _SAMPLES)
            average = np.broadcast_to(mean, ours)
            found = {**found, "averages": {"latent_avg": average}}
            warn(
                f"the encoder has no mean latent; the mean of {_SAMPLES} latents of "
                "the generator is used instead"
            )
        return LoadedEncoder(model, found, size, self.batch_size)


class LoadedEncoder:
    """An encoder with its weights; see `sources.LoadedInverter`."""

    def __init__(self, model: Any, variables: Any, image_size: int, batch_size: int):
        self.image_size = image_size
        self._variables, self._batch_size = jax.device_put(variables), batch_size
        self._encode = jax.jit(lambda variables, images: model.apply(variables, _to_floats(images)))

    def invert(self, images: np.ndarray) -> np.ndarray:
        """Pictures (N, size, size, 3) uint8 -> W+ (N, num_ws, w_dim) float32."""
        _check_pictures(images, self.image_size)
        found = []
        for start in progress(range(0, len(images), self._batch_size), "inversion"):
            batch, count = filled(images, start, self._batch_size)
            found.append(np.asarray(self._encode(self._variables, batch))[:count])
        return np.concatenate(found)


@checked
@dataclasses.dataclass(frozen=True)
class OptimizationInversion:
    """Finds latents by Adam, from the mean of W, so that the generator's picture comes near
    to the given one.

    All pictures of a batch see the same random numbers,
    so that each gets what it would get by itself.

    Attributes:
        distance: `PerceptualDistance` or `FeatureDistance`.
        space: 'w', one latent for all rows, or 'w+', one for each row.
        num_steps: Updates for each picture.
        learning_rate: Learning rate of Adam between the ramps.
        rampup, rampdown: Shares of the steps in which the rate rises to and falls from it.
        b1, b2: Decay rates of Adam's moments.
        latent_noise: Deviation of the noise that latents get, as a share of that of W.
        noise_until: Share of the steps after which they get none.
        optimize_noise: True to look for noise maps as well, from random ones, and keep them free of
            patterns. Edits are drawn with the fixed maps of the generator: False looks for latents
            that belong to those.
        noise_penalty: Weight of the penalty on patterns in noise maps.
        mean_samples: Latents whose mean is the start.
        batch_size: Pictures at a time.
        seed: Seed of noise maps and of the noise of latents.
    """

    distance: Distance
    space: str = "w"
    num_steps: PositiveInt = 1000
    learning_rate: PositiveFloat = 0.1
    rampup: Fraction = 0.05
    rampdown: Fraction = 0.25
    b1: Rate = 0.9
    b2: Rate = 0.999
    latent_noise: NonNegativeFloat = 0.05
    noise_until: Fraction = 0.75
    optimize_noise: bool = True
    noise_penalty: NonNegativeFloat = 1e5
    mean_samples: PositiveInt = _SAMPLES
    batch_size: PositiveInt = 4
    seed: Seed = 0

    def __post_init__(self):
        if self.space not in SPACES:
            hint = did_you_mean(str(self.space), SPACES)
            raise UserError(f"space={self.space!r} must be 'w' or 'w+'{hint}")

    def check(self) -> None:
        """Raises UserError, naming the flag, if a file of the distance is missing."""
        self.distance.check()

    def load(self, generator: Any, variables: dict) -> "Projector":
        """Reads the distance's network and finds the mean of W.

        Raises:
            UserError: A conditional generator, or one of gray pictures; weights that do not fit.
        """
        if generator.c_dim:
            raise UserError("inversion is for generators without labels; this one is conditional")
        if generator.image_channels != 3:
            raise UserError(
                "inversion needs pictures in color; this generator has "
                f"{generator.image_channels} channels"
            )
        return Projector(self, generator, variables)


@dataclasses.dataclass(frozen=True)
class Projection:
    """The result of inverting N pictures.

    Attributes:
        ws: W+ (N, num_ws, w_dim) float32.
        noises: A map (N, h, w, 1) for each convolution,
            or () where those of the generator were kept.
        distances: Distances of the last pictures from the given ones, (N,).
    """

    ws: np.ndarray
    noises: tuple[np.ndarray, ...]
    distances: np.ndarray


class Projector:
    """An `OptimizationInversion` with its weights; see `sources.LoadedInverter`.

    Attributes:
        settings: The inversion.
        image_size: Side of the generator's pictures.
        mean: Mean latent, from which the search starts, (w_dim,).
        deviation: Root of the mean squared length of what latents differ from it by.
    """

    def __init__(self, settings: OptimizationInversion, generator: Any, variables: dict):
        self.settings, self.image_size = settings, generator.resolution
        self._generator, self._distance = generator, settings.distance
        self._frozen = jax.device_put(
            {"generator": variables, "distance": settings.distance.load()}
        )
        self.mean, self.deviation = mean_latent(generator, variables, settings.mean_samples)
        self._adam = scale_by_adam(settings.b1, settings.b2, 1e-8)
        self._rate = ramps(
            settings.learning_rate, settings.num_steps, settings.rampup, settings.rampdown
        )
        self._describe = jax.jit(
            lambda frozen, x: self._distance.describe(frozen["distance"], _to_floats(x))
        )
        self._update = jax.jit(self._update_once, donate_argnums=3)

    def invert(self, images: np.ndarray) -> np.ndarray:
        """Pictures (N, size, size, 3) uint8 -> W+ (N, num_ws, w_dim) float32."""
        return self.project(images).ws

    def project(self, images: np.ndarray) -> Projection:
        """Looks for the latents, and noise maps, of pictures (N, size, size, 3) uint8."""
        _check_pictures(images, self.image_size)
        size, steps = self.settings.batch_size, self.settings.num_steps
        starts, chunks = range(0, len(images), size), range(0, steps, _CHUNK)
        found, state, target = [], None, None
        name = f"inversion by {self._distance.name}"
        for start, step in progress(list(itertools.product(starts, chunks)), name):
            batch, count = filled(images, start, size)
            if step == 0:
                target, state = self._describe(self._frozen, batch), self._start(len(batch))
            stop = min(step + _CHUNK, steps)
            # One call a step: on CPUs XLA runs the convolutions of a compiled
            # loop several times slower.
            for number in range(step, stop):
                state = self._update(self._frozen, target, number, state)
            jax.block_until_ready(state)
            if stop == steps:
                found.append(
                    [
                        np.asarray(x)[:count]
                        for x in (self._rows(state[0]), state[2], *state[0]["noises"])
                    ]
                )
        ws, distances, *noises = (np.concatenate(parts) for parts in zip(*found))
        return Projection(ws, tuple(noises), distances)

    def _start(self, count: int) -> tuple:
        """(parameters, Adam's state, distances) before the first step."""
        rows = 1 if self.settings.space == "w" else self._generator.num_ws
        noises = []
        if self.settings.optimize_noise:
            key = jax.random.fold_in(jax.random.key(self.settings.seed), 0)
            sides = [
                layer.resolution for layer in self._generator.style_layers() if not layer.is_rgb
            ]
            for i, side in enumerate(sides):
                drawn = jax.random.normal(jax.random.fold_in(key, i), (1, side, side, 1))
                noises.append(jnp.repeat(drawn, count, axis=0))
        latents = jnp.broadcast_to(self.mean, (count, rows, self._generator.w_dim))
        params = {"latents": jnp.array(latents), "noises": tuple(noises)}
        return params, self._adam.init(params), jnp.zeros(count)

    def _rows(self, params: dict) -> jax.Array:
        """The latents in W+."""
        latents = params["latents"]
        return jnp.broadcast_to(latents, (len(latents), self._generator.num_ws, latents.shape[-1]))

    def _update_once(self, frozen: dict, target: Any, step: jax.Array, state: tuple) -> tuple:
        params, moments, _ = state
        loss = functools.partial(self._loss, frozen, target, step)
        gradients, distances = jax.grad(loss, has_aux=True)(params)
        direction, moments = self._adam.update(gradients, moments)
        rate = self._rate(step)
        params = jax.tree.map(lambda x, change: x - rate * change, params, direction)
        return {**params, "noises": tuple(map(standardize, params["noises"]))}, moments, distances

    def _loss(
        self, frozen: dict, target: Any, step: jax.Array, params: dict
    ) -> tuple[jax.Array, jax.Array]:
        """The sum over pictures, which leaves each its own gradient, and the distances (B,)."""
        settings, rows = self.settings, self._rows(params)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(settings.seed), 1), step)
        shape = (1, *params["latents"].shape[1:])
        scale = (
            latent_noise(step, settings.num_steps, settings.noise_until)
            * settings.latent_noise
            * self.deviation
        )
        rows = rows + scale * jax.random.normal(key, shape)
        noise = params["noises"] or "const"
        image = self._generator.apply(frozen["generator"], rows, noise=noise, method="synthesize")
        described = self._distance.describe(frozen["distance"], image)
        distances = self._distance.compare(frozen["distance"], target, described)
        penalty = noise_patterns(params["noises"]).sum() if params["noises"] else 0.0
        return distances.sum() + settings.noise_penalty * penalty, distances


def mean_latent(generator: Any, variables: dict, samples: int) -> tuple[np.ndarray, float]:
    """The mean of mapped latents w, (w_dim,), and the root of the mean squared length of
    their differences from it.
    """
    z = np.random.RandomState(_DRAWS).randn(samples, generator.z_dim).astype(np.float32)
    w = np.asarray(
        jax.jit(lambda z: generator.apply(variables, z, method="map")[:, 0])(z), np.float64
    )
    mean = w.mean(axis=0)
    return mean.astype(np.float32), float(np.sqrt(np.square(w - mean).sum() / samples))


def latent_noise(step: jax.Array, num_steps: int, until: float) -> jax.Array:
    """The share of noise that latents get at a step: from 1 it falls to 0, as a parabola."""
    done = jnp.asarray(step, jnp.float32) / num_steps
    return jnp.square(jnp.maximum(0.0, 1.0 - done / max(until, 1e-9)))


def noise_patterns(noises: Sequence[jax.Array]) -> jax.Array:
    """The distance of noise maps (B, h, w, 1) from white noise: (B,).

    It is the sum, over all maps and their halvings down to 8 pixels, of the squared correlation of
    a map with itself, shifted by one place.
    """
    total = jnp.zeros(len(noises[0]))
    for noise in noises:
        while True:
            for axis in (1, 2):
                shifted = jnp.roll(noise, 1, axis)
                total += jnp.square((noise * shifted).mean(axis=(1, 2, 3)))
            if noise.shape[1] <= _SMALLEST:
                break
            count, height, width, _ = noise.shape
            noise = noise.reshape(count, height // 2, 2, width // 2, 2, 1).mean(axis=(2, 4))
    return total


def standardize(noise: jax.Array) -> jax.Array:
    """Noise maps (B, h, w, 1) with mean 0 and mean square 1, each by itself."""
    noise = noise - noise.mean(axis=(1, 2, 3), keepdims=True)
    return noise * inverse_deviation(jnp.square(noise).mean(axis=(1, 2, 3), keepdims=True))


def _to_floats(images: jax.Array) -> jax.Array:
    """Bytes as -1..1."""
    return images.astype(jnp.float32) / 127.5 - 1


def _check_pictures(images: np.ndarray, size: int) -> None:
    """Raises UserError for anything but bytes (N, size, size, 3)."""
    if (
        images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[1:] != (size, size, 3)
        or not len(images)
    ):
        raise UserError(
            f"pictures are {images.dtype} of shape {images.shape}; aligned faces are uint8 (N, "
            f"{size}, {size}, 3): cut them out with "
            "swin_jax.data.image.alignment.align(picture, landmarks, size)"
        )
