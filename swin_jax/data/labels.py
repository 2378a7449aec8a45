"""A source whose labels are those of another set: numbers, one mark for each class,
or one number for each pixel.
"""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UserError

UNKNOWN = -1  # the mark of a class that a record says nothing of


@dataclasses.dataclass(frozen=True)
class Relabeled:
    """The records of a source with labels of other numbers.

    Attributes:
        source: The data set that is read.
        index: The new number of each class of `source`.
        class_names: Names of the classes in the order of the new numbers. Where a record has
            several marks, it has UNKNOWN for a class that `source` lacks.
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
                f"and its set {len(self.index)} classes"
            )
        return self.index[label]

    def _map_pixels(self, label: np.ndarray, record: int) -> np.ndarray:
        table = np.full(IGNORED + 1, IGNORED, np.uint8)
        table[: len(self.index)] = self.index
        wrong = label[(label >= len(self.index)) & (label != IGNORED)]
        if wrong.size:
            raise UserError(
                f"{self.record_name(record)} has the label {wrong.max()}, "
                f"and its set {len(self.index)} classes"
            )
        return table[label]


@dataclasses.dataclass(frozen=True)
class Marked:
    """The records of a source, each with a mark for every class as its label.

    Attributes:
        source: The data set that is read; its labels are not used.
        marks: int8 (N, K): 1 where the class is there, 0 where not, UNKNOWN where nothing is known.
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
    """The records of a source of one label each, with a mark for every class instead of its number.

    Attributes:
        source: The data set that is read.
        classes: K.
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
    """A source whose records have a mark for each class;
    as it is where they have, or where K is not known.

    Args:
        source: The data set that is read.
        classes: K, for a source without class names; 0 if not known.
    """
    classes = len(source.class_names) or classes
    return OneMark(source, classes) if classes and not has_several(source) else source


def has_several(source: Any) -> bool:
    """True if the records of a source have a mark for each class, int8 (K,),
    instead of one number.
    """
    return bool(getattr(source, "multi_label", False))


def check(label: np.ndarray, classes: int) -> None:
    """Checks a batch of labels.

    Args:
        label: (B,) int, (B, K) marks, or (B, H, W) of pixels, where IGNORED is no class.
        classes: K; 0 does not check.

    Raises:
        UserError: A number that is not a class, or another number of marks.
    """
    if not classes or label.ndim == 0:
        return
    if label.ndim == 3:
        # In bytes, IGNORED + 1 is 0: one quick pass, where a mask takes 15 ms for a batch of 16.
        if label.dtype == np.uint8:
            label = (label + np.uint8(1)).max(initial=1).astype(int) - 1
        else:
            label = label[label != IGNORED]
    if label.ndim == 2:
        if label.shape[1] != classes:
            raise UserError(f"records have {label.shape[1]} marks, the model {classes} classes")
    elif label.size and not (0 <= label.min() and label.max() < classes):
        wrong = label.max() if label.min() >= 0 else label.min()
        raise UserError(
            f"a record has the label {wrong}; the model has {classes} classes, 0 to {classes - 1}"
        )
