"""Edits by a latent mapper: one network for one text, applied to any latent.

editor = LatentMapperEditor(Given(*swin_jax.load(weights="ffhq.pkl")), mapper="purple_hair.pt")
edited = editor.load().edit(ws, strength=1.0)
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.inference.editing.edits import Axis, Edited
from swin_jax.models.styleclip import StyleSpaceMapper
from swin_jax.models.styleclip.mapper import STEP, make_mapper
from swin_jax.pretrained.styleclip import mappers
from swin_jax.tasks.base import FrozenModel
from swin_jax.train import checkpoint

_AXIS = Axis("strength", (0.0, 0.5, 1.0, 1.5, 2.0))


@dataclasses.dataclass(frozen=True)
class LatentMapperEditor:
    """An `edits.Editor` that applies a mapper.

    Attributes:
        generator: Frozen `models.stylegan2.Generator`.
        model: The mapper that the run trains, for weights of a run.
        text: The text that the mapper was trained for, in words.
        mapper: A released file of a mapper, whose class and levels follow from it, or the workdir
            of a run; '' takes the workdir that `load` is given.
    """

    generator: FrozenModel
    model: nn.Module | None = None
    text: str = "edited"
    mapper: str = ""

    def check(self) -> None:
        """Raises UserError, naming the flag, for a file that is missing; reads none."""
        self.generator.check("generator")
        path = storage.path(self.mapper)
        if self.mapper and not checkpoint.exists(path) and not path.is_file():
            raise UserError(
                f"--config.mapper={self.mapper} is neither a file of a mapper nor "
                "a workdir with checkpoints"
            )

    def load(self, workdir: str = "") -> "LoadedMapper":
        """Reads all weights: the mapper's from `mapper` or else the newest
        checkpoint of the workdir.

        Raises:
            UserError: No mapper in the workdir, one of another class than `model`,
                or of another generator.
        """
        self.check()
        generator = self.generator.model
        latent = {"latent": jax.ShapeDtypeStruct((1, generator.z_dim), jnp.float32)}
        variables = self.generator.load(latent, "generator")
        if self.mapper and storage.path(self.mapper).is_file():
            arrays = mappers.read(self.mapper)
            model = make_mapper(**mappers.infer(arrays))
            found = mappers.from_official(arrays, model)
        else:
            model, found = self._of_run(self.mapper or workdir)
        _check_fit(model, found, generator, self.mapper or workdir)
        return LoadedMapper(
            generator, jax.device_put(variables), model, jax.device_put(found), self.text
        )

    def _of_run(self, workdir: str) -> tuple[nn.Module, dict]:
        if self.model is None or not workdir or not checkpoint.exists(storage.path(workdir)):
            raise UserError(
                f"{workdir or 'no workdir'}: holds no mapper; "
                "train one first, or give --config.mapper=FILE"
            )
        params, average, _ = checkpoint.load_params(storage.path(workdir))
        return self.model, {"params": params if average is None else average}


def _check_fit(model: nn.Module, variables: dict, generator: Any, source: str) -> None:
    """Raises UserError for a mapper of other latents than a generator's,
    or of another class than its weights.
    """
    wanted = jax.eval_shape(model.init, jax.random.key(0), _latent_of(model, generator))
    wanted = {path: leaf.shape for path, leaf in flatten(wanted).items()}
    found = {path: leaf.shape for path, leaf in flatten(variables).items()}
    if wanted.keys() != found.keys():
        only = sorted(wanted.keys() ^ found.keys())
        raise UserError(
            f"{source}: holds a mapper of other levels than {type(model).__name__} here: "
            f"{', '.join(only[:4])}"
        )
    for path in wanted:
        if wanted[path] != found[path]:
            raise UserError(
                f"{source}: {path} is {found[path]}, and latents of the "
                f"generator need {wanted[path]}"
            )


def _latent_of(model: nn.Module, generator: Any) -> Any:
    """The shape of one latent of a generator, as a mapper takes it."""
    if not isinstance(model, StyleSpaceMapper):
        return jax.ShapeDtypeStruct((1, generator.num_ws, generator.w_dim), jnp.float32)
    return tuple(
        jax.ShapeDtypeStruct((1, layer.channels), jnp.float32) for layer in generator.style_layers()
    )


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedMapper:
    """An `edits.LoadedEditor`.

    Attributes:
        generator: The generator.
        variables: Variables of the generator.
        model: The mapper.
        mapper_variables: Variables of the mapper.
        text: The text that the mapper was trained for.
    """

    generator: Any
    variables: dict
    model: nn.Module
    mapper_variables: dict
    text: str

    method = "latent mapper"
    axes = (_AXIS,)

    def edit(self, ws: np.ndarray, strength: float = 1.0) -> Edited:
        """Edits W+ (B, num_ws, w_dim): the mapper's output, times 0.1 and `strength`, is added."""
        ws = np.asarray(ws, np.float32)
        after, styles = self._map(self.variables, self.mapper_variables, ws, strength)
        styles = tuple(map(np.asarray, styles))
        return Edited(styles, None if after is None else np.asarray(after), ((),) * len(ws))

    def direction(self, ws: np.ndarray) -> np.ndarray:
        """The step that the mapper adds to latents, (B, ...):
        all of S or W+ in one row each, to compare directions.
        """
        _, steps = self._steps(self.variables, self.mapper_variables, np.asarray(ws, np.float32))
        return np.concatenate(
            [np.asarray(leaf).reshape(len(ws), -1) for leaf in jax.tree.leaves(steps)], axis=1
        )

    @functools.cached_property
    def _steps(self) -> Callable:
        def steps(variables, mapper_variables, ws):
            if isinstance(self.model, StyleSpaceMapper):
                ws = self.generator.apply(variables, ws, method="styles")
            return ws, jax.tree.map(
                lambda step: STEP * step, self.model.apply(mapper_variables, ws)
            )

        return jax.jit(steps)

    @functools.cached_property
    def _map(self) -> Callable:
        def edit(variables, mapper_variables, ws, strength):
            before, steps = self._steps(variables, mapper_variables, ws)
            after = jax.tree.map(lambda x, step: x + strength * step, before, steps)
            if isinstance(after, tuple):
                return None, after
            return after, self.generator.apply(variables, after, method="styles")

        return jax.jit(edit)
