"""The protocol of editors, whichever their method, their edits, and the pictures of those."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from swin_jax.evals.samples import to_bytes

NO_CHANNEL = "no channel"
Chosen = tuple[tuple[str, int, float], ...]
Synthesize = Callable[[Sequence[np.ndarray]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Edited:
    """Edited latents of B pictures.

    Attributes:
        styles: One array (B, channels) float32 for each layer of S, after the edit.
        ws: W+ (B, num_ws, w_dim) float32 after the edit, or None where the edit is in S.
        chosen: Rows (layer, channel, weight) of the channels that moved, for each picture; () where
            the method does not choose any.
        note: '', or why nothing changed: `NO_CHANNEL`.
    """

    styles: tuple[np.ndarray, ...]
    ws: np.ndarray | None
    chosen: tuple[Chosen, ...]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Axis:
    """A quantity that a sheet or a video runs over.

    Attributes:
        name: 'alpha' for example, an argument of `LoadedEditor.edit`.
        values: Values in the order in which they are shown.
    """

    name: str
    values: tuple[float, ...]


class LoadedEditor(Protocol):
    """An editor with its weights.

    Attributes:
        generator: A `models.stylegan2.Generator`.
        variables: Variables of the generator.
        method: Name of the method in messages.
        text: The text that the pictures are edited to.
        axes: One or two quantities for sheets, the first one for the video.
    """

    generator: Any
    variables: dict
    method: str
    text: str
    axes: tuple[Axis, ...]

    def edit(self, ws: np.ndarray, **settings: float) -> Edited:
        """Edits W+ (B, num_ws, w_dim); `settings` are values of `axes`,
        those left out are the editor's own.
        """


class Editor(Protocol):
    """A method with its settings, the value under `edit` of an experiment."""

    def check(self) -> None:
        """Raises UserError, naming the flag, for a file that is missing; reads none."""

    def load(self, workdir: str) -> LoadedEditor:
        """Reads all weights; what a method computes once, it keeps in the workdir."""


def synthesizer(generator: Any, variables: dict) -> Synthesize:
    """Compiles a generator for the pictures of edits.

    Args:
        generator: A `models.stylegan2.Generator`.
        variables: Variables of the generator, with the fixed noise that the pictures get.

    Returns:
        A function of S, `Edited.styles` for example: pictures uint8 (B, H, W, 3).
    """

    @jax.jit
    def synthesize(variables, styles):
        return to_bytes(generator.apply(variables, styles, method="synthesize_styles"))

    return lambda styles: np.asarray(synthesize(variables, tuple(styles)))
