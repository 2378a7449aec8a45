"""Edits by latent optimization: each latent is moved toward the text by itself,
a few hundred steps long.

    generator = Given(*swin_jax.load(weights="ffhq.pkl"))
    clip = Given(*swin_jax.load("ViT-B/32", weights="official"))
    adam = adamw(ramps(0.1, 300), no_decay=(), weight_decay=0.0, clip_norm=0.0)
    task = LatentOptimization(generator, clip, adam, tokenize("a person with purple hair"))
    edited_ws = optimize(task, ws)

The steps are those of the task `tasks.latent_optimization.LatentOptimization`,
which also trains in the loop.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.inference.editing.batches import progress
from swin_jax.inference.editing.edits import Axis, Edited

METHOD = "latent optimization"
_AXIS = Axis("strength", (0.0, 0.25, 0.5, 0.75, 1.0, 1.25))
_REMEMBERED = 256  # latents


@checked
def optimize(task: Any, latents: np.ndarray, steps: PositiveInt = 300, show: bool = True) -> Any:
    """Moves latents toward the text of a task, or each toward its own.

    Args:
        task: A `tasks.latent_optimization.LatentOptimization`, with one text or as many as latents.
        latents: W+ (B, num_ws, w_dim), or z (B, z_dim).
        steps: Updates; the schedule of the task's optimizer should end there.
        show: True shows progress on standard error.

    Returns:
        W+ (B, num_ws, w_dim), or S as a tuple of (B, channels) for a task in S.

    Raises:
        UserError: Weights that are missing or do not fit; another number of texts.
    """
    bar = functools.partial(progress, name=METHOD, show=show)
    start, step = task.optimizer(task.load_networks())(latents, task.text_ids, steps, bar)
    return jax.device_get(task.edit(start, step))


@checked
@dataclasses.dataclass(frozen=True)
class LatentOptimizationEditor:
    """An `edits.Editor` that optimizes.

    Attributes:
        task: A `tasks.latent_optimization.LatentOptimization` with one text.
        text: The task's text, in words.
        steps: Updates of an edit; the schedule of the task's optimizer should end there.
        progress: Show the updates of each batch on standard error.
    """

    task: Any
    text: str
    steps: PositiveInt = 300
    progress: bool = False

    def check(self) -> None:
        """Raises UserError, naming the flag, for a file that is missing; reads none."""
        if len(self.task.text_ids) != 1:
            raise UserError(
                "latents are edited to one text here, not to "
                f"{len(self.task.text_ids)}: give one text"
            )
        self.task.check_frozen()

    def load(self, workdir: str = "") -> "LoadedOptimization":
        """Reads all weights; nothing of the workdir."""
        self.check()
        variables = jax.device_put(self.task.load_networks())
        return LoadedOptimization(self, variables["generator"], self.task.optimizer(variables))


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedOptimization:
    """An `edits.LoadedEditor`, which remembers the steps of the last latents.

    Attributes:
        editor: The settings.
        variables: Variables of the generator.
        run: `LatentOptimization.optimizer` of the networks.
    """

    editor: LatentOptimizationEditor
    variables: dict
    run: Callable

    method = METHOD
    axes = (_AXIS,)

    @property
    def generator(self) -> Any:
        """The generator."""
        return self.editor.task.generator.model

    @property
    def text(self) -> str:
        """The text that the pictures are edited to."""
        return self.editor.text

    def edit(self, ws: np.ndarray, strength: float = 1.0) -> Edited:
        """Edits W+ (B, num_ws, w_dim); the steps from the latents are multiplied by `strength`."""
        start, step = self.steps(np.asarray(ws, np.float32))
        after = self.editor.task.edit(start, step, strength)
        nothing_chosen = ((),) * len(ws)
        if isinstance(after, tuple):
            return Edited(tuple(map(np.asarray, after)), None, nothing_chosen)
        styles = self._styles(self.variables, after)
        return Edited(tuple(map(np.asarray, styles)), np.asarray(after), nothing_chosen)

    def steps(self, ws: np.ndarray) -> tuple[Any, Any]:
        """The start of the latents in the task's space,
        and their steps; computed unless all are remembered.
        """
        keys = [row.tobytes() for row in ws]
        if not all(key in self._rows for key in keys):
            show = functools.partial(progress, name=METHOD, show=self.editor.progress)
            found = jax.device_get(self.run(ws, self.editor.task.text_ids, self.editor.steps, show))
            for row, key in enumerate(keys):
                self._rows[key] = jax.tree.map(lambda leaf: leaf[row], found)  # noqa: B023
        rows = [self._rows[key] for key in keys]
        while len(self._rows) > max(_REMEMBERED, len(keys)):
            self._rows.pop(next(iter(self._rows)))
        return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)

    @functools.cached_property
    def _rows(self) -> dict[bytes, Any]:
        return {}

    @functools.cached_property
    def _styles(self) -> Callable:
        return jax.jit(functools.partial(self.generator.apply, method="styles"))
