"""Files of images and of their labels as a source."""

import dataclasses
import os
from typing import Any

from PIL import Image

from swin_jax.core.errors import UnreadableError
from swin_jax.data.image import picture
from swin_jax.data.segmentation import label_files

Color = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class LabeledFiles:
    """Image files, each with a file that labels its pixels.

    Attributes:
        root: Folder of all files.
        images: Paths relative to root, one for a record.
        labels: Paths of their labels, relative to root.
        class_names: Class names in label order.
        palette: A color for each class, RGB; () where none are given.
        reduce_zero_label: True if files count classes from 1, with 0 for everything else.
        conversion: 'reference' or 'display', see data/image/picture.py.
        limits: Limits on a picture; None for `picture.Limits()`.
    """

    root: str
    images: tuple[str, ...]
    labels: tuple[str, ...]
    class_names: tuple[str, ...]
    palette: tuple[Color, ...] = ()
    reduce_zero_label: bool = False
    conversion: str = "display"
    limits: picture.Limits | None = None

    def __post_init__(self):
        picture.check_conversion(self.conversion)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = picture.decode(self.record_name(index), self.conversion, self.limits)
        path = self.label_path(index)
        try:
            label, _ = label_files.decode(path, self.limits, self.conversion)
            label_files.check_size(label, (image.height, image.width))
            label_files.check_values(label, len(self.class_names), self.reduce_zero_label)
        except UnreadableError as error:
            raise UnreadableError(f"its label {path}: {error}") from error
        label = label_files.reduce_zero(label) if self.reduce_zero_label else label
        return {"image": image, "label": label}

    def record_name(self, index: int) -> str:
        """The path of an image."""
        return os.path.join(self.root, self.images[index])

    def label_path(self, index: int) -> str:
        """The path of the labels of an image."""
        return os.path.join(self.root, self.labels[index])

    def image_size(self, index: int) -> tuple[int, int]:
        """(H, W) of an image in pixels, by the head of its file.

        Raises UnreadableError where that cannot be read.
        """
        return picture.displayed_size(self.open_image(index), self.conversion)

    def open_image(self, index: int) -> Image.Image:
        """An image of which only the head is read; raises UnreadableError as `image_size`."""
        return picture.open_image(self.record_name(index), self.limits or picture.USUAL)
