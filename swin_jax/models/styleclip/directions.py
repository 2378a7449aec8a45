"""Global directions of StyleCLIP: which channels of S a text moves, and how far.

Patashnik et al., arXiv 2103.17249, section 6. Reference: orpatashnik/StyleCLIP,
global_torch/{SingleChannel,StyleCLIP,manipulate}.py. Where paper and code differ, this is the code:
a channel's row is normalized after its mean over images, directions are scaled to a largest
coefficient of 1, and multiplied by the channels' deviations. So a strength `alpha` counts
deviations of the channel that moves most.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.models.stylegan2.style_space import StyleLayer
from swin_jax.ops.normalize import unit

AUTO_BETAS = tuple(round(0.1 + 0.01 * i, 2) for i in range(20))


class NoChannel(UserError):
    """A threshold beta that no channel reaches.

    Attributes:
        largest: The largest beta that selects a channel.
        channel: Number of the channel among the relevances.
    """

    def __init__(self, beta: float, largest: float, channel: int, name: str):
        super().__init__(
            f"beta={beta:g} selects no channel: the largest that selects one is {largest:.4f}, "
            f"which takes {name}"
        )
        self.largest, self.channel = largest, channel


@dataclasses.dataclass(frozen=True)
class Direction:
    """The step in S that an edit takes at strength 1.

    Attributes:
        steps: One array (channels,) float32 for each layer, in units of the styles.
        chosen: (layer, channel, coefficient) of every channel that moves, the largest first;
            coefficients are in units of the channels' deviations.
    """

    steps: tuple[np.ndarray, ...]
    chosen: tuple[tuple[str, int, float], ...]

    def edit(self, styles: Sequence, alpha) -> tuple:
        """Styles, one (B, channels) for each layer, moved by alpha, a number or an array (B,)."""
        if np.ndim(alpha) == 1:
            alpha = alpha[:, None]
        return tuple(style + alpha * step[None] for style, step in zip(styles, self.steps))


def moves(features: jax.Array) -> jax.Array:
    """The directions in which pictures move in CLIP's space: (...,
    2, E), lowered and raised -> (..., E) of length 1, or 0 for none.
    """
    features = unit(features)
    return unit(features[..., 1, :] - features[..., 0, :])


def image_directions(features: np.ndarray) -> np.ndarray:
    """The directions in CLIP's space in which each channel moves pictures.

    Args:
        features: (channels, N, 2, E), CLIP's features of N pictures with a
            channel lowered and raised.

    Returns:
        (channels, E) float32 of length 1, the rows of the released fs3.npy;
        0 for a channel that changes no picture.
    """
    return mean_directions(np.asarray(moves(jnp.asarray(features))).sum(axis=1))


def mean_directions(total: np.ndarray) -> np.ndarray:
    """The sum over pictures of `moves`, (channels, E) -> the rows of `image_directions`."""
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return total / np.where(length > 0, length, 1)


def text_direction(target: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """The direction from a neutral text to the target: (E,) of length 1.

    Args:
        target, neutral: (E,) of length 1, means over prompts.

    Raises:
        UserError: Both texts are the same to CLIP.
    """
    difference = np.asarray(target, np.float32) - np.asarray(neutral, np.float32)
    length = float(np.linalg.norm(difference))
    if length < 1e-6:
        raise UserError(
            "the text and the neutral text are the same to CLIP, so they give no direction"
        )
    return difference / length


def make_direction(
    relevance: np.ndarray,
    deviations: Sequence[np.ndarray],
    layers: Sequence[StyleLayer],
    beta: float,
) -> Direction:
    """Selects channels and scales them.

    Args:
        relevance: (rows,), `image_directions` times `text_direction`. Rows count the
            channels of the layers that are not ToRGB, from the first on; statistics may end
            before the last layer.
        deviations: One array (channels,) for each layer.
        layers: `Generator.style_layers()`.
        beta: Channels of smaller absolute relevance stay as they are.

    Raises:
        NoChannel: None is as relevant.
        UserError: Rows that end within a layer, or more than there are channels.
    """
    size = np.abs(relevance)
    names = channel_names(layers, len(relevance))
    selected = np.where(size >= beta, relevance, 0).astype(np.float32)
    if not selected.any():
        best = int(size.argmax())
        layer, channel = names[best]
        raise NoChannel(beta, float(size[best]), best, f"channel {channel} of {layer}")
    selected = selected / size.max()
    steps, row = [], 0
    for layer, deviation in zip(layers, deviations, strict=True):
        step = np.zeros(layer.channels, np.float32)
        if not layer.is_rgb and row < len(selected):
            step = selected[row : row + layer.channels] * np.asarray(deviation, np.float32)
            row += layer.channels
        steps.append(step)
    order = [index for index in np.argsort(-np.abs(selected), kind="stable") if selected[index]]
    return Direction(
        tuple(steps), tuple((*names[index], float(selected[index])) for index in order)
    )


def channel_names(layers: Sequence[StyleLayer], rows: int) -> list[tuple[str, int]]:
    """(layer, channel) of the first `rows` channels that are in no ToRGB."""
    names, ends = [], [0]
    for layer in layers:
        if not layer.is_rgb:
            names += [(layer.name, channel) for channel in range(layer.channels)]
            ends.append(len(names))
    if rows not in ends[1:]:
        fit = ", ".join(map(str, ends[1:]))
        raise UserError(
            f"statistics of {rows} channels do not fit this generator, whose layers end at {fit}"
        )
    return names[:rows]


def choose_beta(relevance: np.ndarray, channels: int) -> float:
    """The largest of 0.10, 0.11, ..., 0.29 that selects more than so many channels,
    else 0.1 (the released GUI).
    """
    size = np.abs(relevance)
    enough = [beta for beta in AUTO_BETAS if (size >= beta).sum() > channels]
    return max(enough, default=AUTO_BETAS[0])
