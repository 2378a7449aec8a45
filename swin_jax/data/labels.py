"""Sources with other labels than their records have: renumbered, or one mark for each class.

A label is a number, a vector of marks, or a number for each pixel.
"""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UserError

UNKNOWN = -1  # the mark of a class of which it is not known whether a record has it


@dataclasses.dataclass(frozen=True)
class Relabeled:
    """The records of a source with renumbered classes.

    Attributes:
        source: The data set that is read.
        index: The new number of each class of `source`.
        class_names: Names of the classes in the order of the new numbers. In vectors of marks,
            classes that `source` lacks are UNKNOWN.
    """

    source: Any
    index: tuple[int, ...]
    class_names: tuple[str, ...]

    @property
    def multi_label(self) -> bool:
        """True if a record has a mark for each class."""
        return has_several(self.source)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.source[index]
        return {**example, "label": self._map(example["label"], index)}

    def record_name(self, index: int) -> str:
        return self.source.record_name(index)

    def _map(self, label: Any, record: int) -> Any:
        if np.ndim(label) == 1:
            marks = np.full(len(self.class_names), UNKNOWN, np.int8)
            marks[list(self.index)] = label
            return marks
        if np.ndim(label) == 2:
            return self._map_pixels(label, record)
        if not 0 <= label < len(self.index):
            raise UserError(
                f"{self.record_name(record)} has the label {label}, "
                f"but its data set has only {len(self.index)} classes"
            )
        return self.index[label]

    def _map_pixels(self, label: np.ndarray, record: int) -> np.ndarray:
        table = np.full(IGNORED + 1, IGNORED, np.uint8)
        table[: len(self.index)] = self.index
        wrong = label[(label >= len(self.index)) & (label != IGNORED)]
        if wrong.size:
            raise UserError(
                f"{self.record_name(record)} has the label {wrong.max()}, "
                f"but its data set has only {len(self.index)} classes"
            )
        return table[label]


@dataclasses.dataclass(frozen=True)
class Marked:
    """The records of a source, each with a mark for every class as its label.

    Attributes:
        source: The data set that is read; its labels are not used.
        marks: int8 (N, K): 1 if the record has the class, 0 if it does not, else UNKNOWN.
    """

    source: Any
    marks: np.ndarray
    multi_label: ClassVar[bool] = True

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K names."""
        return self.source.class_names

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.source[index], "label": self.marks[index]}

    def record_name(self, index: int) -> str:
        return self.source.record_name(index)


@dataclasses.dataclass(frozen=True)
class OneMark:
    """The records of a single-label source, with a mark for every class instead of a number.

    Attributes:
        source: The data set that is read.
        classes: K, the number of classes.
    """

    source: Any
    classes: int
    multi_label: ClassVar[bool] = True

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K names, or ()."""
        return self.source.class_names

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.source[index]
        check(np.array([example["label"]]), self.classes)
        return {**example, "label": (np.arange(self.classes) == example["label"]).astype(np.int8)}

    def record_name(self, index: int) -> str:
        return self.source.record_name(index)


def marked(source: Any, classes: int) -> Any:
    """A source whose records have a mark for each class; the given one if they have marks already
    or K is not known.

    Args:
        source: The data set that is read.
        classes: K, the number of classes, for a source without class names; 0 if not known.
    """
    classes = len(source.class_names) or classes
    return OneMark(source, classes) if classes and not has_several(source) else source


def has_several(source: Any) -> bool:
    """True if the records of a source have marks, int8 (K,), instead of a number as label."""
    return bool(getattr(source, "multi_label", False))


def check(label: np.ndarray, classes: int) -> None:
    """Checks a batch of labels.

    Args:
        label: (B,) int, (B, K) marks, or (B, H, W) of pixels, of which IGNORED ones have no class.
        classes: K, the number of classes; 0 skips the check.

    Raises:
        UserError: A number is not a class, or the number of marks is not K.
    """
    if not classes or label.ndim == 0:
        return
    if label.ndim == 3:
        # IGNORED + 1 wraps to 0 in bytes: one fast pass; a mask takes 15 ms per batch of 16.
        if label.dtype == np.uint8:
            label = (label + np.uint8(1)).max(initial=1).astype(int) - 1
        else:
            label = label[label != IGNORED]
    if label.ndim == 2:
        if label.shape[1] != classes:
            raise UserError(f"records have {label.shape[1]} marks; the model has {classes} classes")
    elif label.size and not (0 <= label.min() and label.max() < classes):
        wrong = label.max() if label.min() >= 0 else label.min()
        raise UserError(
            f"a record has the label {wrong}; the model has {classes} classes, 0 to {classes - 1}"
        )
