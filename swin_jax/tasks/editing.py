"""The common part of edits by texts:
a generator's pictures, judged by CLIP and by a network of faces.

Patashnik et al., arXiv 2103.17249; the reference is orpatashnik/StyleCLIP. The functions take a
task with the fields `generator`, `clip` and `arcface`, each a `FrozenModel` (the last one may be
None), `text_ids`, `id_lambda`, `preprocess` and `crop_face`, and what a step reads: `frozen`, with
their variables under these names and `text_features`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.core.sizes import per_axis
from swin_jax.models.styleclip import clip_loss, identity_loss
from swin_jax.models.styleclip.losses import PREPROCESS
from swin_jax.ops.resampling import area, face_view, resample
from swin_jax.tasks.base import FrozenModel


@dataclasses.dataclass(frozen=True)
class Given:
    """A frozen model whose variables are at hand, such as `swin_jax.load` gives them;
    a `FrozenModel`.

    Attributes:
        model: A linen module.
        variables: Variables of the model.
        path: Source of the variables, for messages.
    """

    model: nn.Module
    variables: Any
    path: str = ""

    def shapes(self, batch: dict[str, jax.ShapeDtypeStruct]) -> Any:
        """Abstract variables."""
        return jax.eval_shape(lambda: self.variables)

    def load(self, batch: dict[str, jax.ShapeDtypeStruct], key: str) -> Any:
        """The variables, on the host."""
        return jax.device_get(self.variables)

    def check(self, key: str) -> None:
        """Nothing is missing."""


def check(task: Any) -> None:
    """Raises UserError for fields that are not among the known words, or do not fit each other."""
    if task.preprocess not in PREPROCESS:
        raise UserError(f"preprocess={task.preprocess!r} must be one of {', '.join(PREPROCESS)}")
    if task.id_lambda and task.arcface is None:
        raise UserError(
            f"id_lambda={task.id_lambda:g} needs a network that knows faces: "
            "give arcface=, or id_lambda=0"
        )
    if task.generator.model.c_dim:
        raise UserError("edits are of generators without labels; this one is conditional")


def networks(task: Any) -> dict[str, FrozenModel]:
    """The frozen models that a task reads; that of faces only where its loss counts."""
    found = {"generator": task.generator, "clip": task.clip}
    return found | ({"arcface": task.arcface} if task.id_lambda else {})


def check_networks(task: Any) -> None:
    """Raises UserError, naming the flag, for a network without weights."""
    for name, item in networks(task).items():
        item.check(f"task.{name}")


def network_shapes(task: Any) -> dict[str, Any]:
    """Abstract variables of the networks; reads no file."""
    return {name: item.shapes(_inputs(task, name)) for name, item in networks(task).items()}


def load_networks(task: Any) -> dict[str, Any]:
    """The variables of the networks as numpy arrays;
    raises UserError for weights that are missing or do not fit.
    """
    return {
        name: item.load(_inputs(task, name), f"task.{name}")
        for name, item in networks(task).items()
    }


def _inputs(task: Any, name: str) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of one example of what a network takes."""
    model = networks(task)[name].model
    if name == "generator":
        return {"latent": jax.ShapeDtypeStruct((1, model.z_dim), jnp.float32)}
    size = model.visual.image_size if name == "clip" else model.image_size
    found = {"image": jax.ShapeDtypeStruct((1, *per_axis(size, 2), 3), jnp.float32)}
    return found | {"text": jax.ShapeDtypeStruct((1, task.text_ids.shape[-1]), jnp.int32)}


def read_by_steps(variables: dict[str, Any]) -> dict[str, Any]:
    """The variables of networks without CLIP's text tower, whose features are computed once."""
    clip = variables["clip"]
    params = {name: tree for name, tree in clip["params"].items() if name != "text"}
    return {**variables, "clip": {**clip, "params": params}}


def encode_texts(task: Any, variables: dict[str, Any], text_ids: jax.Array) -> jax.Array:
    """Token ids (T, L) -> features (T, E) of length 1,
    by the networks' variables with all of CLIP's.
    """
    return task.clip.model.apply(variables["clip"], text_ids, method="encode_text", normalize=True)


def to_ws(task: Any, frozen: dict[str, Any], latents: jax.Array) -> jax.Array:
    """z (B, z_dim), mapped and truncated by `task.truncation`, or W+ (B, num_ws,
    w_dim) as it is -> W+.
    """
    if latents.ndim == 3:
        return latents
    arguments = dict(truncation=task.truncation, method="map")
    return task.generator.model.apply(frozen["generator"], latents, **arguments)


def to_styles(task: Any, frozen: dict[str, Any], ws: jax.Array) -> tuple[jax.Array, ...]:
    """W+ -> S."""
    return task.generator.model.apply(frozen["generator"], ws, method="styles")


def synthesize(task: Any, frozen: dict[str, Any], latents: Any) -> jax.Array:
    """Pictures (B, H, W, 3), with the generator's fixed noise, of W+,
    or of S if it is a tuple of styles.
    """
    method = "synthesize_styles" if isinstance(latents, tuple) else "synthesize"
    return task.generator.model.apply(frozen["generator"], latents, method=method)


def clip_distances(task: Any, frozen: dict[str, Any], image: jax.Array) -> jax.Array:
    """The distance of each picture from its text, (B,):
    from text i for picture i, or from the only one.
    """
    found = clip_loss(
        image, frozen["text_features"], task.clip.model, frozen["clip"], task.preprocess
    )
    return found[:, 0] if found.shape[1] == 1 else jnp.diagonal(found)


def embed_faces(task: Any, frozen: dict[str, Any], image: jax.Array) -> jax.Array:
    """Features (B, E) of length 1 of the faces in pictures;
    of the whole pictures unless `task.crop_face`.
    """
    model = task.arcface.model
    if task.crop_face:
        seen = face_view(image, model.image_size)
    else:
        seen = resample(image, *(area(side, model.image_size) for side in image.shape[1:3]))
    return model.apply(frozen["arcface"], seen)


def identity_distances(
    task: Any, frozen: dict[str, Any], image: jax.Array, faces: jax.Array
) -> jax.Array:
    """1 - the cosine between the face in each picture and the face before, `faces` (B, E): (B,)."""
    found = embed_faces(task, frozen, image)
    return jax.vmap(lambda one, other: identity_loss(one[None], other[None]))(found, faces)


def root(squares: jax.Array) -> jax.Array:
    """The root of sums of squares, whose gradient at 0, where edits begin, is 0."""
    moved = squares > 0
    return jnp.where(moved, jnp.sqrt(jnp.where(moved, squares, 1.0)), 0.0)
