"""The common form of the layouts of StyleGAN2's weights:
their names for each array, and their shapes.

The official names are those of `pretrained.stylegan2.sizes`, NVIDIA's of PyTorch.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

# Outer product of (1, 3, 3, 1), all of whose sums are 1.
FILTER = np.outer((1, 3, 3, 1), (1, 3, 3, 1)).astype(np.float32) / 64


@dataclasses.dataclass(frozen=True)
class Counts:
    """The numbers from which all names of a network follow.

    Attributes:
        resolution: Height and width of its images in pixels.
        mapping_layers: Layers of the mapping network; 0 for a discriminator without one.
        conditional: True if it takes labels.
        skips: True for a discriminator with residual connections.
    """

    resolution: int
    mapping_layers: int = 0
    conditional: bool = False
    skips: bool = True


def _no_filters(kind: str, counts: Counts) -> dict[str, float]:
    return {}


@dataclasses.dataclass(frozen=True)
class Layout:
    """One way to write the weights of a generator or a discriminator.

    Attributes:
        title: Name of its author, for messages.
        marks: {kind: the name of an array that only this layout and this kind have}.
        count: (kind, names of the arrays) -> their `Counts`.
        names: (kind, `Counts`) -> {official name: name in this layout}.
        shape: (official name, official shape) -> the shape in this layout.
        to_official: (official name, array in this layout) -> the official array.
        filters: (kind, `Counts`) -> {name in this layout:
            gain} of the resampling filters that files hold.
        idle: Names in this layout that files may have and that no network needs.
        prepare: {name: array} of a file -> the same,
            with the names and shapes that all files of this layout have.
    """

    title: str
    marks: Mapping[str, str]
    count: Callable[[str, Sequence[str]], Counts]
    names: Callable[[str, Counts], dict[str, str]]
    shape: Callable[[str, tuple[int, ...]], tuple[int, ...]]
    to_official: Callable[[str, np.ndarray], np.ndarray]
    filters: Callable[[str, Counts], dict[str, float]] = _no_filters
    idle: frozenset[str] = frozenset()
    prepare: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]] = dict
