"""Images and labels of their pixels from TFDS data sets in array_record files."""

from typing import Any

import numpy as np

from swin_jax.core import labels as label_names
from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.core.ranges import checked
from swin_jax.data import tfds as tfds_directory
from swin_jax.data.image import picture
from swin_jax.data.segmentation import label_files
from swin_jax.data.segmentation.folder import check_names
from swin_jax.data.sources import CachedSource


class TfdsMaps:
    """One split of a TFDS data set whose images have a label for each pixel; pickles as its
    arguments and opens itself again.
    """

    def __init__(
        self,
        directory: str,
        split: str,
        image_key: str,
        label_key: str,
        class_names: tuple[str, ...] = (),
        reduce_zero_label: bool = False,
    ):
        """Opens the data set that lies in `directory`, which ends in its version; see `tfds`."""
        self._arguments = directory, split, image_key, label_key, class_names, reduce_zero_label
        self._records, features, name = tfds_directory.open_records(
            directory, split, image_key, (label_key,), encoded=(label_key,)
        )
        self._name, self._image_key, self._label_key = f"{name} {split}", image_key, label_key
        self._reduce_zero_label = reduce_zero_label
        self.class_names = class_names or _class_names(features[label_key], reduce_zero_label)
        if not self.class_names:
            raise UserError(
                f"the feature {label_key!r} of {name} has no class names: give class_names=FILE"
            )
        check_names(name, self.class_names)

    def __reduce__(self):
        return TfdsMaps, self._arguments

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._records[index]
        image = picture.decode(record[self._image_key])
        try:
            label = _label(record[self._label_key])
            label_files.check_size(label, (image.height, image.width))
            label_files.check_values(label, len(self.class_names), self._reduce_zero_label)
        except UnreadableError as error:
            raise UnreadableError(f"its label: {error}") from error
        label = label_files.reduce_zero(label) if self._reduce_zero_label else label
        return {"image": image, "label": label}

    def record_name(self, index: int) -> str:
        return f"{self._name} record {index}"

    def image_size(self, index: int) -> tuple[int, int]:
        """(H, W) of an image in pixels, by its head.

        Raises UnreadableError where that cannot be read.
        """
        return picture.open_image(self._records[index][self._image_key]).size[::-1]


@checked
def tfds(
    name: str,
    split: str,
    data_dir: str | None = None,
    image_key: str = "image",
    label_key: str = "segmentation_mask",
    class_names: str = "",
    reduce_zero_label: bool = False,
    in_memory: bool = False,
) -> TfdsMaps | CachedSource:
    """A TFDS data set that was prepared in the array_record format; needs no TensorFlow.

    Args:
        name, split, data_dir: The same as in `sources.tfds`.
        image_key: The feature that holds the encoded image.
        label_key: The feature that holds the labels, an image of one channel or an array.
        class_names: A file with the names of the classes in the order of their numbers; '' takes
            those of the feature.
        reduce_zero_label: True if labels count classes from 1, with 0 for everything else.
        in_memory: The same as in `sources.tfds`.

    Returns:
        A source of `image` and of `label` uint8 (H, W), 255 where a pixel belongs to no class. A
        record whose labels do not fit is unreadable. Raises UserError as `sources.tfds`, and for
        labels without class names.
    """
    names = label_names.read_names(class_names) if class_names else ()
    directory = tfds_directory.find(name, data_dir)
    source = TfdsMaps(directory, split, image_key, label_key, names, reduce_zero_label)
    return CachedSource(source) if in_memory else source


def _class_names(feature: Any, reduce_zero_label: bool) -> tuple[str, ...]:
    """The names that a LabeledImage has, of which 0 is none if it stands for everything else."""
    names = tuple(getattr(feature, "names", None) or ())
    return names[1:] if reduce_zero_label else names


def _label(value: bytes | np.ndarray) -> np.ndarray:
    """uint8 (H, W) of an encoded image or of an array (H, W) or (H, W, 1)."""
    if isinstance(value, bytes):
        return label_files.decode(value)[0]
    label = np.squeeze(value, axis=-1) if value.ndim == 3 and value.shape[-1] == 1 else value
    if label.ndim != 2:
        raise label_files.UnfitError(f"it has the shape {label.shape}, not one number a pixel")
    return label_files.from_numbers(label)
