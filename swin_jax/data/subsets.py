"""Subsets of a source: records given by their indices, or equally many of each class."""

import dataclasses
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.core.ranges import PositiveInt, Seed, checked
from swin_jax.data import unreadable
from swin_jax.data.labels import has_several


@dataclasses.dataclass(frozen=True)
class Selection:
    """The records of a source at given indices."""

    source: Any
    indices: tuple[int, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    @property
    def multi_label(self) -> bool:
        return has_several(self.source)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[self.indices[index]]

    def record_name(self, index: int) -> str:
        return self.source.record_name(self.indices[index])


@checked
def subset(source: Any, per_class: PositiveInt, seed: Seed = 0) -> Selection:
    """Draws the same number of records of every class at random.

    Reads every record once for its label. Unreadable records are not drawn; a warning counts them.

    Args:
        source: The data set to draw from.
        per_class: Number of records of each class.
        seed: Seed of the draw. With the same seed, a larger subset contains a smaller one.

    Returns:
        A source of per_class records of each class, in the order of `source`. Raises UserError if
        a class has fewer, or if records have several labels or a label for each pixel.
    """
    if has_several(source):
        raise UserError(
            "records with several labels cannot be counted by class; choose them by index"
        )
    labels = np.array([_label(source, index) for index in range(len(source))])
    if missing := int((labels == -1).sum()):
        warn(f"{missing} of {len(source)} records cannot be read and are not drawn")
    rng, chosen = np.random.default_rng(seed), []
    for label, name in enumerate(source.class_names):
        found = rng.permutation(np.flatnonzero(labels == label))
        if per_class > len(found):
            raise UserError(
                f"{per_class} records of each class were requested; "
                f"the class {name!r} has {len(found)}"
            )
        chosen.append(found[:per_class])
    return Selection(source, tuple(int(index) for index in np.sort(np.concatenate(chosen))))


def _label(source: Any, index: int) -> int:
    """The label of a record; -1 where it cannot be read."""
    try:
        label = source[index]["label"]
    except unreadable.CAUSES:
        return -1
    if np.ndim(label):
        raise UserError(
            "records with a label for each pixel cannot be counted by class; choose them by index"
        )
    return label
