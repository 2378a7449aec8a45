"""The relevance of StyleCLIP's channels by the training loop:
nothing is trained, and what is summed up is the state.

A step makes the pictures of some channels from the first layer on, spread over the mesh; the loop
gives progress, checkpoints and exact resumption. On one device
`inference.editing.relevance`, which begins at the changed layer, needs fewer FLOPs. Both
measure what `models.styleclip.relevance` says.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.core.sizes import per_axis
from swin_jax.models.styleclip.directions import moves
from swin_jax.models.styleclip.relevance import Survey, picture_view
from swin_jax.models.styleclip.statistics import style_statistics
from swin_jax.tasks.base import Batch, FrozenModel, Metrics, TrainState
from swin_jax.tasks.editing import read_by_steps

NETWORKS = ("generator", "clip")


@checked
@dataclasses.dataclass(frozen=True)
class StyleRelevance:
    """Sums how pictures move in CLIP's space, over pictures, for each channel that is in no ToRGB.

    Attributes:
        generator, clip: Frozen models, called with `latent`, and with `image` and `text`.
        survey: Latents, pictures and how far channels move; its `batch_size` is not read.
        batch_size: Channels of a step, of one picture; each makes two.
    """

    predicts: ClassVar[str] = "relevance"

    generator: FrozenModel
    clip: FrozenModel
    survey: Survey = Survey()
    batch_size: PositiveInt = 16

    def __post_init__(self):
        if self.generator.model.c_dim:
            raise UserError("relevance is of generators without labels; this one is conditional")

    @property
    def channels(self) -> int:
        """Channels in no ToRGB, the rows of fs3.npy."""
        return sum(
            layer.channels for layer in self.generator.model.style_layers() if not layer.is_rgb
        )

    @property
    def steps(self) -> int:
        """Steps that are needed; further ones change nothing."""
        return self.survey.images * self.turns

    def init(self, key: jax.Array) -> TrainState:
        """Sums of zeros."""
        width = jax.eval_shape(
            self.encode, self.network_shapes()["clip"], self.image_shape()
        ).shape[-1]
        return TrainState(
            jnp.zeros((), jnp.int32), {"sums": jnp.zeros((self.channels, width))}, (), {}
        )

    def train_step(
        self, state: TrainState, batch: Batch, frozen: Any
    ) -> tuple[TrainState, Metrics]:
        """Adds the moves of the next channels; `loss` is the mean distance of a lowered
        and a raised picture.
        """
        rows, features = self.rows(state.step, batch), self.features(state.step, batch, frozen)
        counts = (rows < self.channels) & (state.step < self.steps)
        found = jnp.where(counts[:, None], moves(features), 0.0)
        sums = state.params["sums"].at[jnp.minimum(rows, self.channels - 1)].add(found)
        distance = jnp.sqrt(jnp.square(features[:, 1] - features[:, 0]).sum(axis=-1)).mean()
        return state.replace(step=state.step + 1, params={"sums": sums}), {"loss": distance}

    @property
    def turns(self) -> int:
        """Steps for one picture."""
        return -(-self.channels // self.batch_size)

    def rows(self, step: jax.Array, batch: Batch) -> jax.Array:
        """Numbers of the channels of a step, (B,); the last ones of a picture may
        be beyond all channels.
        """
        return step % self.turns * self.batch_size + batch["row"]

    def features(self, step: jax.Array, batch: Batch, frozen: Any) -> jax.Array:
        """CLIP's features (B, 2, E) of the picture of a step with each
        channel lowered and raised.
        """
        image = jnp.minimum(step // self.turns, self.survey.images - 1)
        styles = self.changed(frozen, image, self.rows(step, batch))
        pictures = self.generator.model.apply(
            frozen["generator"], styles, method="synthesize_styles"
        )
        shown = picture_view(
            pictures, self.clip.model.visual.image_size, self.survey.mean, self.survey.std
        )
        found = self.encode(frozen["clip"], shown)
        return found.reshape(-1, 2, found.shape[-1])

    def changed(self, frozen: Any, image: jax.Array, rows: jax.Array) -> tuple[jax.Array, ...]:
        """S (2 rows, channels) of one picture, with the channel of each row lowered and raised."""
        found, first = [], 0
        for index, layer in enumerate(self.generator.model.style_layers()):
            style = frozen["styles"][index][image]
            if layer.is_rgb:
                found.append(jnp.broadcast_to(style, (2 * len(rows), layer.channels)))
                continue
            moments = frozen["means"][index], frozen["deviations"][index]
            moved = self.survey.change.apply(style, *moments, rows - first)
            found.append(moved.reshape(-1, layer.channels))
            first += layer.channels
        return tuple(found)

    def encode(self, variables: Any, image: jax.Array) -> jax.Array:
        """CLIP's features (B, E) of pictures that were prepared for it."""
        return self.clip.model.apply(variables, image, method="encode_image", normalize=True)

    def predict(self, state: TrainState, batch: Batch, frozen: Any) -> dict[str, jax.Array]:
        """`moves` (B, E) of length 1, in CLIP's space, of the channels of a step."""
        return {"moves": moves(self.features(state.step, batch, frozen))}

    def batch_shapes(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """`row`, the number of each channel in a batch."""
        return {"row": jax.ShapeDtypeStruct((batch_size,), jnp.int32)}

    # ---- what steps only read ----

    def check_frozen(self) -> None:
        """Raises UserError, naming the flag, for a network without weights."""
        for name in NETWORKS:
            getattr(self, name).check(f"task.{name}")

    def image_shape(self) -> jax.ShapeDtypeStruct:
        """The shape and dtype of a picture as CLIP takes it."""
        return jax.ShapeDtypeStruct(
            (1, *per_axis(self.clip.model.visual.image_size, 2), 3), jnp.float32
        )

    def inputs(self, name: str) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of one example of what a network takes."""
        if name == "generator":
            return {"latent": jax.ShapeDtypeStruct((1, self.generator.model.z_dim), jnp.float32)}
        length = self.clip.model.text.context_length
        return {"image": self.image_shape(), "text": jax.ShapeDtypeStruct((1, length), jnp.int32)}

    def network_shapes(self) -> dict[str, Any]:
        """Abstract variables of the networks; reads no file."""
        return {name: getattr(self, name).shapes(self.inputs(name)) for name in NETWORKS}

    def load_networks(self) -> dict[str, Any]:
        """Variables of the networks; raises UserError for weights that are missing
        or do not fit.
        """
        return {
            name: getattr(self, name).load(self.inputs(name), f"task.{name}") for name in NETWORKS
        }

    def frozen_shapes(self) -> dict[str, Any]:
        """Abstract arrays: the networks, styles of the pictures,
        means and deviations of all channels.
        """
        widths = [layer.channels for layer in self.generator.model.style_layers()]

        def arrays(*batch):
            return tuple(jax.ShapeDtypeStruct((*batch, width), jnp.float32) for width in widths)

        moments = {"means": arrays(), "deviations": arrays()}
        return (
            read_by_steps(self.network_shapes()) | {"styles": arrays(self.survey.images)} | moments
        )

    def load_frozen(self) -> dict[str, Any]:
        """The same as `frozen_shapes` as arrays."""
        found = self.load_networks()
        model, draws, variables = (
            self.generator.model,
            self.survey.draws,
            jax.device_put(found["generator"]),
        )
        styles = draws.styles(model, variables, self.survey.images)
        moments = style_statistics(model, variables, draws)
        return read_by_steps(found) | {
            "styles": styles,
            "means": moments.means,
            "deviations": moments.deviations,
        }

    def describe(self) -> dict[str, Any]:
        """Numbers that are summed up."""
        sums = jax.eval_shape(self.init, jax.random.key(0)).params["sums"]
        return {"parameters": sums.size}
