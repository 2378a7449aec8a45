"""Edits by a network: a mapper learns the step that takes any latent to a text.

Patashnik et al., arXiv 2103.17249, section 5. The reference is mapper/training/coach.py of
orpatashnik/StyleCLIP. The released code takes the mean square of the step in W+, and in S the sum
over the layers of their mean squares; the paper writes the length of the mapper's output.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import FiniteFloat, NonNegativeFloat, checked
from swin_jax.models.styleclip import StyleSpaceMapper
from swin_jax.models.styleclip.mapper import STEP
from swin_jax.tasks import editing
from swin_jax.tasks.base import Batch, FrozenModel, Metrics, TrainState, gradient_step, step_key

PENALTIES = ("mean", "norm")
GIVEN = ("w+", "z", "s")


@checked
@dataclasses.dataclass(frozen=True)
class LatentMapper:
    """Trains a mapper, `model`, for one text.

    Attributes:
        model: A `LevelsMapper`, `SingleMapper` or `StyleSpaceMapper` of `models.styleclip`;
            the last one maps S.
        generator, clip: Frozen models: a `models.stylegan2.Generator` and a `models.clip.CLIP`.
        tx: The optimizer: `optim.ranger`.
        text_ids: int32 (1, L).
        arcface: Frozen `models.arcface.IRSE`; not read where `id_lambda` is 0.
        given: Content of batches: 'w+', 'z', or 's' for a mapper of S.
        truncation: Truncation of latents z.
        clip_lambda, l2_lambda, id_lambda: Weights of the losses. The paper has 0.8 and 0.1 for the
            last two, and 2 and 0 for a text that makes somebody else of a person.
        penalty: 'mean' of squares of the step, or 'norm' of the mapper's output.
        preprocess, crop_face: The same as in `LatentOptimization`.
    """

    predicts: ClassVar[str] = "edits"

    model: nn.Module
    generator: FrozenModel
    clip: FrozenModel
    tx: optax.GradientTransformation
    text_ids: Any
    arcface: FrozenModel | None = None
    given: str = "w+"
    truncation: FiniteFloat = 0.7
    clip_lambda: NonNegativeFloat = 1.0
    l2_lambda: NonNegativeFloat = 0.8
    id_lambda: NonNegativeFloat = 0.1
    penalty: str = "mean"
    preprocess: str = "compat"
    crop_face: bool = True

    def __post_init__(self):
        if self.penalty not in PENALTIES:
            raise UserError(f"penalty={self.penalty!r} must be one of {', '.join(PENALTIES)}")
        if self.given not in GIVEN or (self.given == "s" and not self.in_styles):
            raise UserError(
                f"given={self.given!r} must be one of {', '.join(GIVEN)}, "
                "the last one for a mapper of S"
            )
        if self.text_ids.shape[0] != 1:
            raise UserError(f"a mapper is trained for one text, not for {self.text_ids.shape[0]}")
        editing.check(self)

    @property
    def in_styles(self) -> bool:
        """True if the mapper maps S."""
        return isinstance(self.model, StyleSpaceMapper)

    def init(self, key: jax.Array) -> TrainState:
        """The mapper from its own initializers."""
        params = self.model.init(key, self.edit_nothing())["params"]
        return TrainState(jnp.zeros((), jnp.int32), params, self.tx.init(params), {})

    def edit_nothing(self) -> Any:
        """One latent of zeros, as the mapper takes it."""
        model = self.generator.model
        if self.in_styles:
            return tuple(jnp.zeros((1, layer.channels)) for layer in model.style_layers())
        return jnp.zeros((1, model.num_ws, model.w_dim))

    def train_step(
        self, state: TrainState, batch: Batch, frozen: Any
    ) -> tuple[TrainState, Metrics]:
        """One update on `latent`, z (B, z_dim) or W+ (B, num_ws, w_dim);
        in S also on `styles` (B, channels of all).
        """

        def loss(params, mutable, batch, key):
            terms = self.terms(params, self.latents(batch, frozen), frozen)[0]
            metrics = {name: term.mean() for name, term in terms.items()}
            return metrics.pop("loss"), (metrics, mutable)

        return gradient_step(state, batch, loss, self.tx, step_key(0, state.step, "mapper"))

    def latents(self, batch: Batch, frozen: Any) -> Any:
        """The input of the mapper: W+, or S as a tuple of (B, channels)."""
        layers = self.generator.model.style_layers()
        if self.in_styles and "styles" in batch:
            ends = [sum(layer.channels for layer in layers[: i + 1]) for i in range(len(layers))]
            return tuple(jnp.split(batch["styles"], ends[:-1], axis=1))
        ws = editing.to_ws(self, frozen, batch["latent"])
        return editing.to_styles(self, frozen, ws) if self.in_styles else ws

    def terms(
        self, params: Any, latents: Any, frozen: Any
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """The loss of each row and its terms `clip`, `l2` and `identity`, (B,) each.

        Returns:
            (these, {`before`, `image`: the pictures; `step`:
            the mapper's output, a row of numbers each}).
        """
        steps = self.model.apply({"params": params}, latents)
        before = jax.lax.stop_gradient(editing.synthesize(self, frozen, latents))
        image = editing.synthesize(
            self, frozen, jax.tree.map(lambda x, step: x + STEP * step, latents, steps)
        )
        terms = {
            "clip": editing.clip_distances(self, frozen, image),
            "l2": _penalty(steps, self.penalty),
        }
        loss = self.clip_lambda * terms["clip"] + self.l2_lambda * terms["l2"]
        if self.id_lambda:
            faces = editing.embed_faces(self, frozen, before)
            terms["identity"] = editing.identity_distances(self, frozen, image, faces)
            loss = loss + self.id_lambda * terms["identity"]
        rows = [step.reshape(step.shape[0], -1) for step in jax.tree.leaves(steps)]
        return {"loss": loss, **terms}, {
            "before": before,
            "image": image,
            "step": jnp.concatenate(rows, axis=1),
        }

    def predict(self, state: TrainState, batch: Batch, frozen: Any) -> dict[str, jax.Array]:
        """Pictures `before` and `image` (B, H, W, 3), `step` (B, ...), and the terms,
        with CLIP's before the edit.
        """
        terms, made = self.terms(state.params, self.latents(batch, frozen), frozen)
        return {
            **made,
            "clip_before": editing.clip_distances(self, frozen, made["before"]),
            **terms,
        }

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """`latent` in W+ or z, or `styles`, as `given` says."""
        model = self.generator.model
        total = sum(layer.channels for layer in model.style_layers())
        shape = {"w+": (model.num_ws, model.w_dim), "z": (model.z_dim,), "s": (total,)}[self.given]
        name = "styles" if self.given == "s" else "latent"
        return {name: jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32)}

    # ---- what steps only read ----

    def check_frozen(self) -> None:
        """Raises UserError, naming the flag, for a network without weights."""
        editing.check_networks(self)

    def frozen_shapes(self) -> dict[str, Any]:
        """Abstract arrays: the networks and `text_features`."""
        shapes = editing.network_shapes(self)
        return editing.read_by_steps(shapes) | jax.eval_shape(
            self.derive, shapes, jnp.asarray(self.text_ids)
        )

    def load_frozen(self) -> dict[str, Any]:
        """The same as arrays."""
        variables = editing.load_networks(self)
        derived = jax.jit(self.derive)(variables, self.text_ids)
        return editing.read_by_steps(variables) | jax.device_get(derived)

    def derive(self, variables: Any, text_ids: jax.Array) -> dict[str, Any]:
        """The arrays that follow from the networks' variables for the text."""
        return {"text_features": editing.encode_texts(self, variables, text_ids)}


def _penalty(steps: Any, kind: str) -> jax.Array:
    """The penalty of the mapper's output, (B,): W+ or a tuple of styles."""
    leaves = jax.tree.leaves(steps)
    axes = [tuple(range(1, leaf.ndim)) for leaf in leaves]
    if kind == "mean":
        return sum(((STEP * leaf) ** 2).mean(axis=axis) for leaf, axis in zip(leaves, axes))
    return editing.root(sum((leaf**2).sum(axis=axis) for leaf, axis in zip(leaves, axes)))
