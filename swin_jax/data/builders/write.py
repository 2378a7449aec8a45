"""Writes data sets atomically: folders of any files, and TFDS data sets as array_record shards,
streamed and without TensorFlow.

`tfds.core.GeneratorBasedBuilder` is not used: beyond 1 GB of examples it sorts them through
temporary files that only TensorFlow can write (tensorflow-datasets 4.9.10). The written files can
be read by `tfds.builder_from_directory`. Records keep the order in which they are given; training
shuffles globally when it reads.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tqdm

from swin_jax.core import storage
from swin_jax.core.errors import UserError, plain_warnings
from swin_jax.core.output.streams import lasting_output
from swin_jax.core.output.text import say
from swin_jax.core.termination import Terminated, terminable
from swin_jax.data.tfds import default_data_dir

SHARD_BYTES = 512 << 20
# Errors of a folder that belongs to another user, or of a file in the place of a folder.
_UNUSABLE = (PermissionError, NotADirectoryError, FileExistsError)


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples of one split.

    Attributes:
        examples: Dicts of feature values: encoded images as bytes, labels as numbers or names,
            texts.
        expected: Number of records in the complete set, for the progress bar and a warning; None
            if unknown.
    """

    examples: Iterable[dict[str, Any]]
    expected: int | None = None


def write(
    data_dir: str,
    name: str,
    version: str,
    features: Mapping[str, Any],
    splits: Mapping[str, Split],
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    files: Mapping[str, bytes] | None = None,
    **info: str,
) -> Path:
    """Writes data_dir/name/version, which appears, or replaces the old one, only when complete.

    Args:
        data_dir: Folder of data sets.
        name: Name of the data set.
        version: Version of the data set, such as '1.0.0'.
        features: TFDS features by name.
        splits: {name: split}.
        overwrite: True to replace an existing data set.
        shard_bytes: Approximate size of a shard.
        files: Contents of additional files, by name.
        **info: Description, homepage, citation, license.

    Returns:
        The path of the data set. Raises UserError if it exists already or a split has no examples.
    """
    target = Path(data_dir).expanduser() / name / version
    with whole_folder(target, overwrite) as staging:
        _write_all(staging, name, version, features, splits, shard_bytes, info)
        for file, content in (files or {}).items():
            (staging / file).write_bytes(content)
    return target


@contextlib.contextmanager
def whole_folder(target: Path, overwrite: bool = False) -> Iterator[Path]:
    """Context manager that yields an empty folder, which replaces `target` when the block ends.

    The old folder stays until then, and after an error; other builders are locked out.

    Args:
        target: The data set's folder, DIR/name/version.
        overwrite: True to replace an existing data set.

    Raises:
        UserError: The data set exists already, or another builder is working on it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target):
        _refuse_existing(target, overwrite)
        staging = target.with_name(f"{target.name}.incomplete")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        yield staging
        _replace(target, staging)


def _write_all(
    staging: Path,
    name: str,
    version: str,
    features: Mapping[str, Any],
    splits: Mapping[str, Split],
    shard_bytes: int,
    info: Mapping[str, str],
) -> None:
    """Writes the shards and the metadata of all splits."""
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(features)
    template = tfds.core.ShardedFileTemplate(
        data_dir=staging, dataset_name=name, filetype_suffix="array_record"
    )
    infos = []
    for split_name, split in splits.items():
        template = template.replace(split=split_name)
        lengths, num_bytes = _write_split(template, features, split, shard_bytes)
        infos.append(
            tfds.core.SplitInfo(
                name=split_name,
                shard_lengths=lengths,
                num_bytes=num_bytes,
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=staging,
        features=features,
        split_infos=infos,
        version=version,
        check_data=False,
        **info,
    )


def _replace(target: Path, staging: Path) -> None:
    """Replaces a data set by a complete one, so that no partial data set is ever in its place."""
    before = _before(target)
    if target.exists():
        _remove(before)
        target.rename(before)
    staging.rename(target)
    _remove(before)


def _before(target: Path) -> Path:
    """The temporary path of a data set that is being replaced."""
    return target.with_name(f"{target.name}.before")


def _remove(before: Path) -> None:
    removed = before.with_name(f"{before.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    if before.exists():
        before.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def refuse_existing(target: Path, overwrite: bool) -> None:
    """Raises UserError if a data set exists and may not be replaced, or another builder is working
    on it; call it before building.
    """
    if target.parent.is_dir():
        with _alone(target):
            _refuse_existing(target, overwrite)


def _refuse_existing(target: Path, overwrite: bool) -> None:
    before = _before(target)
    if before.exists() and not target.exists():  # a builder was killed between two renames
        before.rename(target)
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists already; use --overwrite to replace it")


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Context manager that locks a data set's folder, so that two builders do not write into each
    other's files; raises UserError if another builder has locked it.
    """
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot lock folders
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another builder is at work in {target.parent}: run the command again when "
                    "it has ended, or give another --data_dir"
                ) from error
        yield
    finally:
        os.close(handle)


def run(build: Callable[[argparse.Namespace], Path], parser: argparse.ArgumentParser) -> None:
    """Runs a builder from the command line.

    Args:
        build: A function that makes the data set from the parsed flags and returns its path.
        parser: A parser with the builder's own flags; --data_dir and --overwrite are added.

    A user error, a full disk or an unusable folder ends the process with one line and status 1,
    Ctrl-C with status 130, SIGTERM with 143 and SIGHUP with 129.
    """
    parser.add_argument(
        "--data_dir",
        default=default_data_dir(),
        help="folder of the data sets (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing data set")
    arguments = parser.parse_args()
    with lasting_output(), plain_warnings():
        try:
            with terminable():
                path = build(arguments)
        except (UserError, OSError) as error:
            say(f"error: {_message(error, arguments.data_dir)}")
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            say("interrupted; run the command again")
            raise SystemExit(130) from None
        except Terminated as error:
            say(f"{error.signal.name}: stopped; run the command again")
            raise SystemExit(128 + error.signal) from None
        print(f"wrote {path}")


def _message(error: UserError | OSError, data_dir: str) -> str:
    """The message of an error that the user can fix; raises any other error again."""
    if isinstance(error, UserError):
        return str(error)
    if storage.is_unwritable(error):
        return _unwritten(error.filename or data_dir, storage.reason(error))
    if error.filename and isinstance(error, _UNUSABLE):
        return f"{error.filename} cannot be used: {storage.reason(error)}; give another folder"
    raise error


def _write_split(template, features, split: Split, shard_bytes: int) -> tuple[list[int], int]:
    """Writes the shards of one split; returns the number of examples in each, and total bytes."""
    serialized = (features.serialize_example(example) for example in split.examples)
    lengths, num_bytes = [], 0
    with tqdm.tqdm(
        serialized, desc=template.split, total=split.expected, unit=" examples", mininterval=1.0
    ) as progress:
        stream = iter(progress)
        while (record := next(stream, None)) is not None:
            length, size = _write_shard(
                template.data_dir / f"{template.split}.shard-{len(lengths)}",
                record,
                stream,
                shard_bytes,
            )
            lengths.append(length)
            num_bytes += size
            progress.set_postfix_str(f"{num_bytes / 1e9:.2f} GB")
    if not lengths:
        raise UserError(f"the split {template.split!r} has no examples")
    if split.expected is not None and sum(lengths) != split.expected:
        say(
            f"warning: {template.split} has {sum(lengths)} examples, "
            f"the full set has {split.expected}"
        )
    for shard in range(len(lengths)):
        path = template.sharded_filepath(shard_index=shard, num_shards=len(lengths))
        (template.data_dir / f"{template.split}.shard-{shard}").rename(path)
    return lengths, num_bytes


def _write_shard(path, record: bytes, stream, shard_bytes: int) -> tuple[int, int]:
    """Writes `record` and the next ones of the stream until the shard is full;
    returns the numbers of examples and bytes.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    length = size = 0
    while record is not None:
        with _telling(path):
            writer.write(record)
        length += 1
        size += len(record)
        record = next(stream, None) if size < shard_bytes else None
    with _telling(path):
        writer.close()
    return length, size


@contextlib.contextmanager
def _telling(path) -> Iterator[None]:
    """Context manager that turns ArrayRecord's RuntimeError about failed writing into UserError."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(_unwritten(path, str(error).split(";")[0])) from error


def _unwritten(path, reason: str) -> str:
    return f"{path} cannot be written ({reason}): make room, then run the command again"
