"""Finds and opens TFDS data sets on disk without TensorFlow."""

import contextlib
import dataclasses
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data.tfds_description import read_features

OWN_BUILDERS = ("avatars", "emoji", "emoji_actions", "fashion_mnist", "imagenet2012", "imagenet22k")
BUILDERS_WITHOUT_SOURCE = ("avatars", "emoji", "emoji_actions")
_NAME = r"(?P<name>\w+)(?:/(?P<config>[\w.-]+))?(?::(?P<version>\d+\.\d+\.\d+))?"


def default_data_dir() -> str:
    """The folder of data sets: $TFDS_DATA_DIR, or else ~/tensorflow_datasets."""
    return os.path.expanduser(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def find(name: str, data_dir: str | None = None) -> str:
    """Finds the directory of a prepared data set.

    Args:
        name: 'set' or 'set/config', either of them followed by ':1.2.3' or not;
            the newest version unless one is named.
        data_dir: Folder of data sets; by default default_data_dir().

    Returns:
        The path that ends in the version. Raises UserError, saying how to prepare the data set,
        if it is missing.
    """
    match = re.fullmatch(_NAME, name)
    if not match:
        raise UserError(f"data set {name!r}: write 'set', 'set/config' or 'set:1.2.3'")
    data_dir = Path(data_dir).expanduser() if data_dir else Path(default_data_dir())
    parent = data_dir / match["name"] / (match["config"] or "")
    versions = sorted(_versions(parent))
    if match["version"] and match["version"] not in (found for _, found in versions) and versions:
        raise UserError(
            f"no version {match['version']} in {parent}; "
            f"there is {', '.join(v for _, v in versions)}"
        )
    if not versions:
        raise UserError(
            f"no data set {name} in {data_dir}: {_how_to_prepare(match['name'], name, data_dir)}"
        )
    return str(parent / (match["version"] or versions[-1][1]))


def open_split(
    directory: str, split: str, image_key: str, label_key: str
) -> tuple[Sequence[dict[str, Any]], tuple[str, ...], str]:
    """Opens one split of images and labels.

    Args:
        directory: Folder of the data set, ending in its version.
        split: Split in TFDS's notation.
        image_key: Name of an image feature.
        label_key: Name of an integer feature.

    Returns:
        (records with the image as encoded bytes, class names in label order or (), name of the data
        set). Raises UserError if the split or a feature is missing or the files are TFRecord.
    """
    records, features, name = open_records(directory, split, image_key, (label_key,))
    return records, tuple(getattr(features[label_key], "names", None) or ()), name


def open_records(
    directory: str, split: str, image_key: str, keys: Sequence[str], encoded: Sequence[str] = ()
) -> tuple[Sequence[dict[str, Any]], Mapping[str, Any], str]:
    """Opens one split with any features.

    Args:
        directory: Folder of the data set, ending in its version.
        split: Split in TFDS's notation.
        image_key: Name of an image feature.
        keys: Other required features; 'captions/text' is `text` inside `captions`.
        encoded: Image features among `keys` that stay encoded too.

    Returns:
        (records with the image as encoded bytes, TFDS features by name, name of the data set).
        Raises the same errors as open_split.
    """
    import tensorflow_datasets as tfds

    builder = open_builder(directory)
    name = builder.info.name
    formats = {file_format.value for file_format in builder.info.available_file_formats()}
    if "array_record" not in formats:
        raise UserError(
            f"{directory} holds {' and '.join(sorted(formats))} files; convert them once (this "
            f"step needs tensorflow): tfds convert_format --dataset_version_dir={directory} "
            "--out_file_format=array_record"
        )
    base = re.match(r"\w+", split)
    if not base or base[0] not in builder.info.splits:
        raise UserError(
            f"{name} has no split {split!r}; it has {', '.join(builder.info.splits)[:300]}"
        )
    features = builder.info.features
    for key in (image_key, *keys):
        if key.split("/")[0] not in features:
            raise UserError(f"{name} has no feature {key!r}; it has {', '.join(sorted(features))}")
    if not isinstance(features[image_key], tfds.features.Image):
        raise UserError(f"the feature {image_key!r} of {name} is not an image")
    skipped = [key for key in encoded if isinstance(features[key], tfds.features.Image)]
    decoders = dict.fromkeys([image_key, *skipped], tfds.decode.SkipDecoding())
    with split_errors(name, split):
        check_slices(split, builder.info.splits)
        records = builder.as_data_source(split, decoders=decoders, file_format="array_record")
        check_shards(records.dataset_info.splits[split].file_instructions)
    return _Records(records), features, name


@contextlib.contextmanager
def split_errors(name: str, split: str):
    """Context manager that turns TFDS's errors about a split's files into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # TFDS and array_record have no common class
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{name}: cannot open the split {split!r}: {reason}") from error


def check_slices(split: str, known: Mapping[str, Any]) -> None:
    """Checks that every slice of a split has records.

    TFDS itself would read the wrong records if a slice ended before it began.

    Args:
        split: Split in TFDS's notation, 'train[:10%]+test' for example.
        known: TFDS's description of each split, by name.

    Raises:
        UserError: A slice is empty.
        ValueError: The notation is wrong, or a split or records do not exist.
    """
    import tensorflow_datasets as tfds

    for part in tfds.core.ReadInstruction.from_spec(split).to_absolute(known):
        total = known[part.splitname].num_examples
        begin, end = part.from_ or 0, total if part.to is None else part.to
        if end <= begin:
            raise UserError(
                f"the split {split!r} selects no records of {part.splitname!r}: of its {total} "
                f"records, the slice begins at {begin} and ends before {end}"
            )


def check_shards(instructions: Sequence[Any]) -> None:
    """Checks the files of a split before they are read, as reading a pipe would block.

    Args:
        instructions: TFDS's file instructions, which have the number of records of each file.

    Raises:
        UserError: A file is missing, is not a regular file, or has fewer bytes than records.
    """
    if not instructions:
        raise UserError("the split has no records")
    for shard in instructions:
        try:
            status = os.stat(shard.filename)
        except OSError as error:
            raise UserError(
                f"cannot read {shard.filename}: {error.strerror}; prepare the data set again"
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"cannot read {shard.filename}: it is a folder, a pipe or a device")
        if shard.examples_in_shard > max(status.st_size, 1):
            raise UserError(
                f"{shard.filename} should have {shard.examples_in_shard} records but has only "
                f"{status.st_size} bytes; prepare the data set again"
            )


def open_builder(directory: str):
    """Opens a prepared data set with TFDS's builder, which runs only TFDS's own code.

    Args:
        directory: Folder of the data set, ending in its version.

    Returns:
        A tfds.core.DatasetBuilder. Raises UserError if the description is damaged or
        names features that are not TFDS's own.
    """
    import tensorflow_datasets as tfds

    read_features(directory)
    try:
        return tfds.builder_from_directory(directory)
    except Exception as error:  # TFDS raises various errors for files that it did not write
        reason = " ".join(str(error).split())
        raise UserError(
            f"{directory} is not a data set that TFDS can open: {reason[:300]}"
        ) from error


@dataclasses.dataclass(frozen=True)
class _Records:
    """The records of a split; a damaged one raises UnreadableError."""

    records: Sequence[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            return self.records[index]
        except Exception as error:  # array_record and protobuf have no common class
            raise UnreadableError(
                f"the record is damaged ({' '.join(str(error).split())})"
            ) from error


def _versions(parent: Path) -> list[tuple[tuple[int, ...], str]]:
    """The prepared versions in a data set's directory, as ((1, 2, 3), '1.2.3')."""
    found = [path.parent.name for path in parent.glob("*/dataset_info.json")]
    return [
        (tuple(map(int, name.split("."))), name)
        for name in found
        if re.fullmatch(r"\d+\.\d+\.\d+", name)
    ]


def _how_to_prepare(base: str, name: str, data_dir: Path) -> str:
    if base in OWN_BUILDERS:
        source = "" if base in BUILDERS_WITHOUT_SOURCE else " --source FOLDER"
        return (
            f"run python -m swin_jax.data.builders.{base} --data_dir "
            f"{data_dir}{source} (see its --help)"
        )
    return (
        f"run tfds build {name} --data_dir={data_dir} "
        "--file_format=array_record (may need tensorflow)"
    )
