"""Edits by optimization: the latent of each picture moves until CLIP sees the text in it,
and not far.

Patashnik et al., arXiv 2103.17249, section 4. The reference is optimization/run_optimization.py of
orpatashnik/StyleCLIP. What is trained is the step from each latent, which starts at zero, so that
the latents themselves are read and never changed. Rows of a batch do not know of each other: Adam
works entry by entry, and the loss of a step is the sum over the rows.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import FiniteFloat, NonNegativeFloat, PositiveInt, checked
from swin_jax.tasks import editing
from swin_jax.tasks.base import Batch, FrozenModel, Metrics, TrainState, apply_gradients

SPACES = ("w+", "s")
MODES = ("edit", "free")
PENALTIES = ("sum", "norm")
# The released default is for W+. In S as many deviations cost seven times more: squared deviations
# sum up to 16,200 over the channels without ToRGB in the statistics of FFHQ, and to 2,280 over the
# entries of its demo latents in W+.
L2_LAMBDAS = {"w+": 0.008, "s": 0.0011}


@checked
@dataclasses.dataclass(frozen=True)
class LatentOptimization:
    """Moves latents of `generator` toward texts.

    Attributes:
        generator, clip: Frozen models: a `models.stylegan2.Generator` and a `models.clip.CLIP`.
        tx: The optimizer: Adam at 0.1, see `optim.schedules.ramps`.
        text_ids: int32 (1, L) for one text, or (batch_size, L) for a text of each row.
        batch_size: Number of latents.
        latents: Starting points: records with `latent`, z (z_dim,) or W+ (num_ws, w_dim), of which
            the first ones are taken. None where they are given to `optimizer`.
        arcface: Frozen `models.arcface.IRSE`; not read where `id_lambda` is 0.
        space: 'w+' or 's'. In S the styles of ToRGB layers stay as they are.
        mode: 'edit', or 'free', which starts from the mean latent and has no loss but CLIP's.
        truncation: Truncation of z.
        l2_lambda: Weight of the distance from the start;
            None takes that of the space in `L2_LAMBDAS`.
        id_lambda: Weight of the identity loss.
        penalty: 'sum' of squares over a latent, as the released code has it, or its 'norm',
            as the paper writes.
        preprocess: 'compat' or 'clip', see `models.styleclip.clip_view`.
        crop_face: True to cut out the face of a picture that is aligned as FFHQ's; False shows all
            of it to `arcface`.
    """

    predicts: ClassVar[str] = "edits"

    generator: FrozenModel
    clip: FrozenModel
    tx: optax.GradientTransformation
    text_ids: Any
    batch_size: PositiveInt = 1
    latents: Sequence | None = None
    arcface: FrozenModel | None = None
    space: str = "w+"
    mode: str = "edit"
    truncation: FiniteFloat = 0.7
    l2_lambda: NonNegativeFloat | None = None
    id_lambda: NonNegativeFloat = 0.0
    penalty: str = "sum"
    preprocess: str = "compat"
    crop_face: bool = True

    def __post_init__(self):
        words = {"space": SPACES, "mode": MODES, "penalty": PENALTIES}
        for name, known in words.items():
            if getattr(self, name) not in known:
                raise UserError(f"{name}={getattr(self, name)!r} must be one of {', '.join(known)}")
        if self.text_ids.shape[0] not in (1, self.batch_size):
            raise UserError(
                f"there are {self.text_ids.shape[0]} texts for batch_size={self.batch_size} latents"
            )
        editing.check(self)

    def init(self, key: jax.Array) -> TrainState:
        """A step of zeros for each latent."""
        model = self.generator.model
        if self.space == "w+":
            params = {"ws": jnp.zeros((self.batch_size, model.num_ws, model.w_dim))}
        else:
            layers = [layer for layer in model.style_layers() if not layer.is_rgb]
            params = {_key(layer): jnp.zeros((self.batch_size, layer.channels)) for layer in layers}
        return TrainState(jnp.zeros((), jnp.int32), params, self.tx.init(params), {})

    def train_step(
        self, state: TrainState, batch: Batch, frozen: Any
    ) -> tuple[TrainState, Metrics]:
        """One update of all rows; the batch is not read,
        as everything that moves them is in `frozen`.
        """

        def loss(params):
            terms, _ = self.terms(params, frozen)
            return terms["loss"].sum(), terms

        (_, terms), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        metrics = {name: term.mean() for name, term in terms.items()}
        return apply_gradients(state, grads, {}, self.tx, metrics)

    def terms(self, params: Any, frozen: Any) -> tuple[dict[str, jax.Array], jax.Array]:
        """The loss of each row and its terms `clip`, `l2` and `identity`, (B,) each;
        and the pictures.
        """
        image = editing.synthesize(self, frozen, self.edit(frozen["start"], params))
        terms = {"clip": editing.clip_distances(self, frozen, image)}
        loss = terms["clip"]
        if self.mode == "edit":
            terms["l2"] = _penalty(params, self.penalty)
            loss = loss + terms["l2"] * (
                L2_LAMBDAS[self.space] if self.l2_lambda is None else self.l2_lambda
            )
            if self.id_lambda:
                terms["identity"] = editing.identity_distances(self, frozen, image, frozen["faces"])
                loss = loss + terms["identity"] * self.id_lambda
        return {"loss": loss, **terms}, image

    def edit(self, start: Any, step: Any, strength: float | jax.Array = 1.0) -> Any:
        """Latents after a step: W+ (B, num_ws, w_dim), or S as a tuple of (B, channels).

        Args:
            start: Latents as in `frozen`.
            step: A tree like the parameters.
            strength: Factor of the step.
        """
        if self.space == "w+":
            return start + strength * step["ws"]
        layers = self.generator.model.style_layers()
        return tuple(
            style + strength * step.get(_key(layer), 0.0) for layer, style in zip(layers, start)
        )

    def predict(self, state: TrainState, batch: Batch, frozen: Any) -> dict[str, jax.Array]:
        """Pictures `before` and `image` (B, H, W, 3), and the terms of each row,
        with CLIP's before the edit.
        """
        terms, image = self.terms(state.params, frozen)
        before = editing.synthesize(self, frozen, frozen["start"])
        return {
            "before": before,
            "image": image,
            "clip_before": editing.clip_distances(self, frozen, before),
            **terms,
        }

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """`row`, the number of each latent."""
        return {"row": jax.ShapeDtypeStruct((batch_size,), jnp.int32)}

    # ---- what steps only read ----

    def check_frozen(self) -> None:
        """Raises UserError, naming the flag, for a network without weights."""
        editing.check_networks(self)

    def frozen_shapes(self) -> dict[str, Any]:
        """Abstract arrays: the networks, `text_features`, `start`,
        and `faces` of the pictures there.
        """
        shapes, model = editing.network_shapes(self), self.generator.model
        latents = jax.ShapeDtypeStruct((self.batch_size, model.num_ws, model.w_dim), jnp.float32)
        return editing.read_by_steps(shapes) | jax.eval_shape(
            self.derive, shapes, latents, jnp.asarray(self.text_ids)
        )

    def load_networks(self) -> dict[str, Any]:
        """The variables of the networks, for `optimizer`;
        raises UserError for weights that do not fit.
        """
        return editing.load_networks(self)

    def load_frozen(self) -> dict[str, Any]:
        """The same as `frozen_shapes` as arrays."""
        variables = self.load_networks()
        derived = jax.jit(self.derive)(variables, self.first_latents(), self.text_ids)
        return editing.read_by_steps(variables) | jax.device_get(derived)

    def first_latents(self) -> jax.Array:
        """The first records of `latents`, z or W+; raises UserError where there are too few."""
        if self.mode == "free":
            return jnp.zeros((self.batch_size, self.generator.model.z_dim))  # not looked at
        if self.latents is None or len(self.latents) < self.batch_size:
            count = 0 if self.latents is None else len(self.latents)
            raise UserError(f"there are {count} latents for batch_size={self.batch_size}")
        return jnp.stack(
            [jnp.asarray(self.latents[i]["latent"], jnp.float32) for i in range(self.batch_size)]
        )

    def derive(self, variables: Any, latents: jax.Array, text_ids: jax.Array) -> dict[str, Any]:
        """The arrays that follow from the networks' variables,
        all of CLIP's among them, for latents (z or W+) and texts.
        """
        model = self.generator.model
        if self.mode == "free":
            mean = variables["generator"]["averages"]["mapping"]["w_avg"]
            ws = jnp.broadcast_to(mean, (latents.shape[0], model.num_ws, model.w_dim))
        else:
            ws = editing.to_ws(self, variables, latents)
        found = {"text_features": editing.encode_texts(self, variables, text_ids), "start": ws}
        if self.space == "s":
            found["start"] = editing.to_styles(self, variables, ws)
        if self.mode == "edit" and self.id_lambda:

            def faces(ws):  # one at a time, as pictures of 1024 pixels are large
                return editing.embed_faces(
                    self, variables, editing.synthesize(self, variables, ws[None])
                )[0]

            found["faces"] = jax.lax.map(faces, ws)
        return found

    # ---- without the loop ----

    def optimizer(self, variables: Any) -> Callable:
        """A function that edits latents, compiled once for each number of them.

        Args:
            variables: Variables of the networks, as `load_networks` gives them.

        Returns:
            run(latents, text_ids, steps, progress) -> (start, step) for `edit`. Latents are z
            (B, z_dim) or W+ (B, num_ws, w_dim), `text_ids` (1 or B, L), and `progress` goes around
            the numbers of the steps.
        """
        step, derive = jax.jit(self.train_step, donate_argnums=0), jax.jit(self.derive)
        variables = jax.device_put(variables)
        read = editing.read_by_steps(variables)

        @checked
        def run(
            latents: Any,
            text_ids: Any,
            steps: PositiveInt,
            progress: Callable[[Iterable], Iterable] = iter,
        ):
            task = dataclasses.replace(self, batch_size=len(latents), text_ids=text_ids)
            frozen = read | derive(variables, jnp.asarray(latents, jnp.float32), text_ids)
            state = task.init(jax.random.key(0))
            for _ in progress(range(steps)):
                state, _ = step(state, {}, frozen)
            return frozen["start"], state.params

        return run


def _key(layer: Any) -> str:
    """The name of a layer's step among the parameters."""
    return layer.name.replace("/", "_")


def _penalty(step: Any, kind: str) -> jax.Array:
    """The sum of squares over each row of a step, or its root."""
    total = sum((leaf**2).sum(axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(step))
    return total if kind == "sum" else editing.root(total)
