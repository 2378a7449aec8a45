"""Contrastive pretraining of an image and a text tower over the whole global batch:
CLIP, SigLIP, LiT.

CLIP (arXiv 2103.00020), SigLIP (arXiv 2303.15343), locked-image tuning (arXiv 2111.07991). The
reference is mlfoundations/open_clip; unlike there, no form of the loss and no number of
micro-batches changes value or gradient.
"""

import dataclasses
import functools
import math
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from swin_jax.core.constants import CLIP_MEAN, CLIP_STD
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import (
    FiniteFloat,
    PositiveFloat,
    PositiveInt,
    Range,
    Rate,
    Seed,
    check_statistics,
    checked,
)
from swin_jax.core.sizes import Size, per_axis
from swin_jax.models import clip
from swin_jax.ops import augmentation, contrastive
from swin_jax.tasks.base import Batch, Metrics, TrainState, apply_gradients, step_key

FORMS = ("global", "local", "ring")
TOWERS = ("visual", "text")


@checked
@dataclasses.dataclass(frozen=True)
class Contrastive:
    """Trains a two-tower `model` so that the features of a pair are near each other.

    BatchNorm statistics of ResNets are of the global batch, over all devices;
    with `accumulate`, of each micro-batch.

    Attributes:
        model: A `models.clip.CLIP`.
        tx: The optimizer.
        image_size: (H, W) of the batch's `image`, or one int for both.
        context_length: L of the batch's `text`.
        channels: Number of image channels.
        seed: Seed of dropout, drop path and patch dropout.
        mean, std: Mean and standard deviation of the pixels in 0..1, one number per channel.
        sigmoid: SigLIP's loss instead of the softmax; the model has a `logit_bias` then.
        form: 'global' (one matrix of logits; the compiler inserts the gather), 'local' (each
            device its rows) or 'ring' (the matrix never exists), equal in value and gradient.
            'local' is for the softmax.
        chunk: Texts that the ring looks at together.
        positives: True if pairs with the same `label` are positives of each other.
        locked: Towers ('visual', 'text') that stay as they are: no gradient, no decay, no dropout,
            no new statistics. With a `freeze` for them in `tx` they need no moments either.
        max_scale: The logits' factor is clipped to 1 .. max_scale after every update.
        accumulate: Micro-batches per update. Their features are computed first and the loss is of
            the whole batch (Gao et al., arXiv 2101.06983), so that the gradient is that of one
            large batch; costs a second forward.
        ema_decay: 0 for no average.
    """

    predicts: ClassVar[str] = "features"

    model: nn.Module
    tx: optax.GradientTransformation
    image_size: Size
    context_length: PositiveInt = 77
    channels: PositiveInt = 3
    seed: Seed = 0
    mean: tuple[FiniteFloat, ...] = CLIP_MEAN
    std: tuple[PositiveFloat, ...] = CLIP_STD
    sigmoid: bool = False
    form: str = "global"
    chunk: PositiveInt = 512
    positives: bool = False
    locked: tuple[str, ...] = ()
    max_scale: Annotated[float, Range(low=1)] = 100.0
    accumulate: PositiveInt = 1
    ema_decay: Rate = 0.0

    def __post_init__(self):
        if self.form not in FORMS or (self.sigmoid and self.form == "local"):
            raise UserError(
                f"form={self.form!r} is not one of {FORMS}, or 'local' with the sigmoid loss"
            )
        if any(tower not in TOWERS for tower in self.locked):
            raise UserError(f"locked={self.locked} has entries other than {TOWERS}")
        check_statistics(self.mean, self.std, self.channels)
        if self.sigmoid and self.model.logit_bias is None:
            raise UserError(
                "sigmoid=True needs a model with a logit_bias: give the model logit_bias=-10.0"
            )

    def init(self, key: jax.Array) -> TrainState:
        """Parameters and statistics from the model's own initializers;
        the average starts at the parameters.
        """
        size = per_axis(self.image_size, 2)
        text = jnp.zeros((1, self.context_length), jnp.int32)
        mutable = dict(self.model.init(key, jnp.zeros((1, *size, self.channels)), text))
        params = mutable.pop("params")
        ema = jax.tree.map(jnp.copy, params) if self.ema_decay else None
        return TrainState(jnp.zeros((), jnp.int32), params, self.tx.init(params), mutable, ema)

    def train_step(
        self, state: TrainState, batch: Batch, frozen: Any
    ) -> tuple[TrainState, Metrics]:
        """One update on `image` uint8 (B, H, W, C), `text` int32 (B, L) and, with `positives`,
        `label` int (B,).

        Metrics are the loss, `logit_scale` (the factor itself), and the fractions of images and of
        texts whose best partner in the batch is theirs.
        """
        key = step_key(self.seed, state.step, "train")
        gradient = self._gradient if self.accumulate == 1 else self._cached_gradient
        grads, mutable, metrics = gradient(state, batch, key)
        return apply_gradients(
            state,
            grads,
            mutable,
            self.tx,
            metrics,
            ema_decay=self.ema_decay,
            project=functools.partial(self._project, state),
        )

    def _gradient(self, state, batch, key):
        def loss(params):
            features, mutable = self._encode(params, state.mutable, batch, key)
            value, metrics = self._loss(_heads(params), *features, batch)
            return value, (metrics, mutable)

        (value, (metrics, mutable)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        return grads, mutable, {"loss": value, **metrics}

    def _cached_gradient(self, state, batch, key):
        # Rows are dealt out in turn, so that every micro-batch is spread over the mesh
        # as the batch is.
        def deal(x):
            return jnp.moveaxis(x.reshape(-1, self.accumulate, *x.shape[1:]), 1, 0)

        def collect(x):
            return jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])

        micro = jax.tree.map(deal, {name: batch[name] for name in ("image", "text")})
        keys = jax.random.split(key, self.accumulate)

        def forward(mutable, inputs):
            features, mutable = self._encode(state.params, mutable, *inputs)
            return mutable, features

        mutable, features = jax.lax.scan(forward, state.mutable, (micro, keys))

        def head(heads, image, text):
            return self._loss(heads, image, text, batch)

        head = jax.value_and_grad(head, argnums=(0, 1, 2), has_aux=True)
        (value, metrics), (of_heads, *of_features) = head(
            _heads(state.params), *map(collect, features)
        )

        def backward(total, inputs):
            rows, key, cotangents = inputs

            def encode(params):
                return self._encode(params, state.mutable, rows, key)[0]

            (grads,) = jax.vjp(encode, state.params)[1](cotangents)
            return jax.tree.map(lambda t, g: t + g.astype(t.dtype), total, grads), None

        zeros = jax.tree.map(
            lambda p: jnp.zeros(p.shape, jnp.promote_types(p.dtype, jnp.float32)), state.params
        )
        total, _ = jax.lax.scan(backward, zeros, (micro, keys, tuple(map(deal, of_features))))
        grads = jax.tree.map(lambda t, p: t.astype(p.dtype), total, state.master)
        return {**grads, **of_heads}, mutable, {"loss": value, **metrics}

    def _encode(self, params, mutable, batch, key):
        """((image features, text features), mutable): (B, E) float32 of length 1, in training."""
        params = {
            name: jax.lax.stop_gradient(p) if name in self.locked else p
            for name, p in params.items()
        }
        train = {tower: tower not in self.locked for tower in TOWERS}
        image = augmentation.normalize(batch["image"], self.mean, self.std)

        def encode(model, image, text):
            return (
                model.encode_image(image, train=train["visual"], normalize=True),
                model.encode_text(text, train=train["text"], normalize=True),
            )

        rngs = dict(zip(("dropout", "patch_dropout"), jax.random.split(key)))
        variables = {"params": params, **mutable}
        features, updated = self.model.apply(
            variables, image, batch["text"], method=encode, rngs=rngs, mutable=list(mutable)
        )
        return features, {**mutable, **updated}

    def _loss(self, heads, image, text, batch) -> tuple[jax.Array, Metrics]:
        """The loss of all pairs, in the form that was asked for, and its metrics."""
        scale = jnp.exp(heads["logit_scale"].astype(jnp.float32))
        ids = batch["label"] if self.positives else jnp.arange(len(image))
        mesh = jax.sharding.get_abstract_mesh()
        # The axes that batches are split over: all but the one that splits matrices.
        axes = tuple(name for name in mesh.axis_names if name != "tensor") if mesh.size > 1 else ()
        form = self.form if axes or self.form == "ring" else "global"
        arguments = [image, text, scale, *((heads["logit_bias"],) if self.sigmoid else ()), ids]
        if form == "global":
            value, metrics = (
                contrastive.sigmoid_loss if self.sigmoid else contrastive.softmax_loss
            )(*arguments)
        else:
            if form == "local":
                per_device = functools.partial(contrastive.local_softmax_loss, axes=axes)
            else:
                ring = (
                    contrastive.ring_sigmoid_loss if self.sigmoid else contrastive.ring_softmax_loss
                )
                per_device = functools.partial(ring, axes=axes, chunk=self.chunk)
            specs = tuple(PartitionSpec(axes) if x.ndim else PartitionSpec() for x in arguments)
            if axes:
                per_device = jax.shard_map(per_device, in_specs=specs, out_specs=PartitionSpec())
            value, metrics = per_device(*arguments)
        return value, {"logit_scale": scale, **jax.lax.stop_gradient(metrics)}

    def _project(self, state, params):
        clipped = jnp.clip(params["logit_scale"], 0.0, math.log(self.max_scale))
        # Which the optimizer may have decayed.
        locked = {tower: state.master[tower] for tower in self.locked}
        return {**params, **locked, "logit_scale": clipped}

    def predict(self, state: TrainState, batch: Batch, frozen: Any) -> dict[str, jax.Array]:
        """Features of what is there: `image_features` and `text_features` (B,
        E) float32 of length 1, `logit_scale`.
        """
        normalize = functools.partial(augmentation.normalize, mean=self.mean, std=self.std)
        return clip.encode(self.model, {"params": state.params, **state.mutable}, batch, normalize)

    def train_flops(self) -> float:
        """Operations of one update for each pair: three forward passes of a tower, of a locked one
        a single one. Products of features with each other are left out. 0 if a tower does not count
        its own.
        """
        towers = {name: getattr(self.model, name) for name in TOWERS}
        if not all(hasattr(tower, "flops") for tower in towers.values()):
            return 0.0
        passes = {name: 1 if name in self.locked else 3 for name in TOWERS}
        return sum(2.0 * passes[name] * tower.flops() for name, tower in towers.items())

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of `image` and `text`, and `label` if pairs of
        one label are positives.
        """
        size = per_axis(self.image_size, 2)
        found = {
            "image": jax.ShapeDtypeStruct((batch_size, *size, self.channels), jnp.uint8),
            "text": jax.ShapeDtypeStruct((batch_size, self.context_length), jnp.int32),
        }
        return found | (
            {"label": jax.ShapeDtypeStruct((batch_size,), jnp.int32)} if self.positives else {}
        )


def _heads(params) -> dict[str, jax.Array]:
    """The parameters that belong to no tower: `logit_scale`, and `logit_bias` if there is one."""
    return {name: value for name, value in params.items() if name not in TOWERS}
