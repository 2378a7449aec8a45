"""Reads videos of TFDS data sets, such as ucf101,
that store each video as a sequence of encoded pictures.

The feature class tfds.features.Video cannot even be made without TensorFlow
(tensorflow-datasets 4.9.10), and with it the whole data set cannot be opened. So records are
read here from their array_record files directly; splits, shard names and class names come from
the data set's own description.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.core.labels import read_names
from swin_jax.data import tfds as tfds_directory
from swin_jax.data.image import picture
from swin_jax.data.tfds_description import read_features


class EncodedFrames:
    """A video as a sequence of encoded pictures of one size; only those asked for are decoded."""

    def __init__(self, frames: Sequence[bytes]):
        self._frames = frames

    def __len__(self) -> int:
        if not len(self._frames):
            raise UnreadableError("the video has no frames")
        return len(self._frames)

    def get(
        self,
        indices: Sequence[int] | np.ndarray,
        fit: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Decodes frames to uint8 (n, H, W, 3), or what `fit` makes of each;
        UnreadableError for a damaged one.
        """
        frames = []
        for index in indices:
            try:
                frame = np.asarray(picture.decode(bytes(self._frames[index])).convert("RGB"))
            except UnreadableError as error:
                raise UnreadableError(f"frame {index} is damaged ({error})") from error
            frames.append(frame if fit is None else fit(frame))
            if frames[-1].shape != frames[0].shape:
                raise UnreadableError(
                    f"the size of frames changes from {frames[0].shape[:2]} "
                    f"to {frames[-1].shape[:2]}"
                )
        return np.stack(frames)


class TfdsVideoSource:
    """One split of a TFDS data set of videos; pickles as its arguments and opens itself again."""

    def __init__(
        self, directory: str, split: str, video_key: str = "video", label_key: str = "label"
    ):
        """Opens the data set that lies in `directory` (which ends in its version);
        see `tfds_video`.
        """
        self._arguments = (directory, split, video_key, label_key)
        self._records, self.class_names, name = _open(directory, split, video_key, label_key)
        self._name = f"{name} {split}"
        self._video_key, self._label_key = video_key, label_key

    def __reduce__(self):
        return TfdsVideoSource, self._arguments

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            feature = tf_example_pb2.Example.FromString(self._records[index]).features.feature
            frames = feature[self._video_key].bytes_list.value
            label = int(feature[self._label_key].int64_list.value[0])
        except Exception as error:  # array_record and protobuf have no common class
            raise UnreadableError(
                f"the record is damaged ({' '.join(str(error).split())})"
            ) from error
        return {"video": EncodedFrames(frames), "label": label}

    def record_name(self, index: int) -> str:
        return f"{self._name} record {index}"


def tfds_video(
    name: str,
    split: str,
    data_dir: str | None = None,
    video_key: str = "video",
    label_key: str = "label",
) -> TfdsVideoSource:
    """A TFDS data set of videos that was prepared in the array_record format; needs no TensorFlow.

    Args:
        name: 'ucf101', 'ucf101/ucf101_1_256', 'ucf101/ucf101_1_256:2.0.0';
            without a version the newest.
        split: Split in TFDS's notation, for example 'train' or 'train[:90%]'.
        data_dir: Folder of data sets; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        video_key: The feature that holds the frames, a Video or a Sequence of Image.
        label_key: The feature that holds the integer label.

    Returns:
        A source of `video` (EncodedFrames) and `label`. Raises UserError, saying what to do, where
        the set, split or feature is missing or the files are TFRecord.
    """
    return TfdsVideoSource(tfds_directory.find(name, data_dir), split, video_key, label_key)


def _open(directory: str, split: str, video_key: str, label_key: str):
    """(records of a split as serialized examples, class names, the set's name)."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    features = _features(directory)
    try:
        info = tfds.core.dataset_info.read_proto_from_builder_dir(directory)
    except Exception as error:  # whatever protobuf makes of files that TFDS did not write
        reason = " ".join(str(error).split())
        raise UserError(
            f"{directory} is not a data set that TFDS can open: {reason[:300]}"
        ) from error
    formats = {info.file_format, *info.alternative_file_formats}
    if "array_record" not in formats:
        raise UserError(
            f"{directory} holds {' and '.join(sorted(formats))} files: "
            "prepare it with --file_format=array_record (this step needs tensorflow)"
        )
    for key in (video_key, label_key):
        if key not in features:
            raise UserError(
                f"{info.name} has no feature {key!r}; it has {', '.join(sorted(features))}"
            )
    if not _holds_pictures(features[video_key]):
        raise UserError(f"the feature {video_key!r} of {info.name} is not a video")
    template = tfds.core.ShardedFileTemplate(
        data_dir=Path(directory), dataset_name=info.name, filetype_suffix="array_record"
    )
    with tfds_directory.split_errors(info.name, split):
        splits = tfds.core.SplitDict.from_proto(info.splits, template)
        try:
            tfds_directory.check_slices(split, splits)
            instructions = splits[split].file_instructions
        except UserError:
            raise
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{info.name} has no split {split!r}; it has {', '.join(splits)[:300]}"
            ) from error
        tfds_directory.check_shards(instructions)
        records = ArrayRecordDataSource(instructions)
    names = Path(directory) / f"{label_key}.labels.txt"
    return records, read_names(str(names)) if names.is_file() else (), info.name


def _features(directory: str) -> dict[str, Any]:
    """The features of the data set as JSON, by name."""
    content = read_features(directory)
    for key in ("featuresDict", "features"):
        content = content.get(key, {})
        if not isinstance(content, dict):
            raise UserError(
                f"{directory}/features.json is damaged, prepare the data set again: "
                f"{key!r} is not an object"
            )
    return {name: feature for name, feature in content.items() if isinstance(feature, dict)}


def _holds_pictures(feature: dict[str, Any]) -> bool:
    sequence = feature.get("sequence")
    inner = sequence.get("feature") if isinstance(sequence, dict) else None
    return "video" in feature or (isinstance(inner, dict) and "image" in inner)
