"""Pairs in a parquet file: paths or encoded images in one column, captions in another.
It needs pyarrow.
"""

import functools
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from swin_jax.core.errors import UnreadableError, UserError, extra
from swin_jax.data.image import picture
from swin_jax.data.image_text import columns
from swin_jax.data.image_text.captions import captions_of, texts_of

# What a file may hold in the columns that are read, by what it says of them; pairs take more bytes.
_FREE_VALUES, _VALUES_A_BYTE = 2**20, 1
_FREE_BYTES, _INFLATION = 2**26, 100
# Bytes of a column in a group of rows; Arrow's dictionaries end at 2 GiB.
_MOST_OF_DICTIONARY = 2**30
_OPEN_GROUPS = 2  # groups of rows whose encoded images are kept, in each process


class ParquetPairs:
    """The rows of a parquet file; paths and captions are in memory, encoded images
    are not. See `read`.
    """

    class_names: tuple[str, ...] = ()

    def __init__(
        self,
        path: str,
        root: str,
        image_key: str,
        text_key: str,
        label_key: str,
        conversion: str,
        split: str,
    ):
        """Opens the file; `read` chose and checked the columns."""
        self._arguments = (path, root, image_key, text_key, label_key, conversion, split)
        self._path, self._root, self._conversion = path, root, conversion
        self._image_key, self._text_key, self._label_key = image_key, text_key, label_key
        file = _open(path)
        # Only paths of an image that is {bytes, path} are read here.
        self._is_encoded = not _is_text(file.schema_arrow.field(image_key).type)
        wanted = [text_key, *filter(None, [label_key]), *([] if self._is_encoded else [image_key])]
        names = file.schema_arrow.names
        self._table = _read(path, list(dict.fromkeys(wanted)))
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self._rows = np.arange(self._table.num_rows)
        if (key := columns.split_key(names)) is not None:
            values = _read(path, [key]).column(key).to_pylist()
            self._rows = np.array(columns.rows_of_split(path, values, split))

    def __reduce__(self):
        return ParquetPairs, self._arguments

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.record(index)
        example["text"] = captions_of(example["text"])
        source = self._encoded(index) if self._is_encoded else example["image_path"]
        return {**example, "image": picture.decode(source, self._conversion)}

    def record(self, index: int) -> dict[str, Any]:
        """The captions of a row, and the path of its image as `image_path` where
        the file has paths.
        """
        try:
            row = {
                key: self._table.column(key)[int(self._rows[index])].as_py()
                for key in self._table.column_names
            }
        except ValueError as error:  # as UnicodeDecodeError and those of pyarrow
            raise UnreadableError(f"the row cannot be read ({error})") from error
        example = {"text": texts_of(row, self._text_key), **columns.label_of(row, self._label_key)}
        if not self._is_encoded:
            path = columns.path_of(row, self._image_key)
            example["image_path"] = columns.place_of(self._root, path)
        return example

    def image_bytes(self, index: int) -> bytes:
        """The encoded image of a row; raises UnreadableError where the file has paths instead."""
        if not self._is_encoded:
            raise UnreadableError(f"{self._image_key!r} holds a path")
        return self._encoded(index)

    def record_name(self, index: int) -> str:
        return f"{self._path} row {self._rows[index] + 1}"

    def _encoded(self, index: int) -> bytes:
        row = int(self._rows[index])
        group = int(np.searchsorted(self._ends, row, side="right"))
        first = int(self._ends[group - 1]) if group else 0
        value = _read_group(self._path, group, self._image_key)[row - first].as_py()
        # The datasets library leaves the bytes out where the files stay.
        if isinstance(value, dict):
            value = value["bytes"] or self._file(value.get("path"))
        if not value:
            raise UnreadableError(f"{self._image_key!r} holds no image")
        return value

    def _file(self, path: Any) -> bytes:
        """The bytes of an image file; b'' where none is named."""
        if not isinstance(path, str) or not path:
            return b""
        path = columns.place_of(self._root, path)
        try:
            if not os.path.isfile(path):
                raise UnreadableError(f"there is no file {path[:200]!r}")
            with open(path, "rb") as file:
                return file.read(picture.USUAL.bytes + 1)
        except OSError as error:
            raise UnreadableError(f"{path[:200]!r} cannot be read: {error.strerror}") from error


def read(
    path: str, root: str, image_key: str, text_key: str, label_key: str, conversion: str, split: str
) -> ParquetPairs:
    """Pairs of a parquet file; the arguments are those of `lists.table`.

    The column of the images holds paths, or encoded images: bytes, or {bytes, path} as the datasets
    library writes it, with a path alone where files were not embedded. Captions are texts or lists
    of texts. Raises UserError where pyarrow is missing, the file is damaged, a column is missing or
    of another kind, or columns hold more than a file of its size can: a value for each byte and a
    million, 100 bytes for each and 64 MB.
    """
    schema = _open(path).schema_arrow
    image_key = columns.choose(image_key, "image_key", schema.names, path)
    text_key = columns.choose(text_key, "text_key", schema.names, path)
    for key in filter(None, [image_key, text_key, label_key]):
        if schema.names.count(key) != 1:
            raise UserError(
                f"{path} has {schema.names.count(key)} columns {key!r}; name one that occurs once"
            )
    kind = schema.field(image_key).type
    if not _is_text(kind) and not _is_encoded(kind):
        kind = str(kind)
        raise UserError(
            f"the column {image_key!r} of {path} holds neither paths nor "
            f"encoded images but {kind[:80]}"
        )
    found = ParquetPairs(path, root, image_key, text_key, label_key, conversion, split)
    if not len(found):
        raise UserError(f"{path} has no rows")
    if _is_text(kind):
        columns.check_images(found, path, root)
    return found


def _is_encoded(kind: Any) -> bool:
    """True for the type of bytes, in a dictionary or not, or of {bytes, path},
    whose bytes may all be null.
    """
    plain = r"(large_|fixed_size_)?binary(_view)?(\[\d+\])?"
    if str(kind).startswith("struct"):
        inside = {
            kind.field(number).name: str(kind.field(number).type)
            for number in range(kind.num_fields)
        }
        return re.fullmatch(rf"{plain}|null", inside.get("bytes", "")) is not None
    return re.fullmatch(rf"{plain}|dictionary<values={plain},.*", str(kind)) is not None


def _is_text(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view") or str(kind).startswith(
        "dictionary<values=string"
    )


def _open(path: str):
    with extra("parquet", "parquet files are read with PyArrow"):
        import pyarrow.parquet as parquet
    return _call(path, parquet.ParquetFile, path)


def _read(path: str, names: list[str], group: int | None = None):
    """Columns of a file, or of one of its groups of rows, as a table.

    A value that comes again is kept once: a few bytes of the file repeat one of a megabyte for each
    row. Raises UserError for more than the file can hold.
    """
    import pyarrow

    file = _open(path)
    groups = range(file.num_row_groups) if group is None else [group]
    repeated = _check_sizes(path, file.metadata, names, groups)
    file = _call(path, type(file), path, metadata=file.metadata, read_dictionary=repeated)
    if not groups:
        return _call(path, file.read, columns=names)
    # Arrow reads dictionaries inside of lists from one group only.
    return pyarrow.concat_tables(
        _call(path, file.read_row_group, number, columns=names) for number in groups
    )


def _check_sizes(path: str, metadata: Any, names: list[str], groups: Sequence[int]) -> list[str]:
    """The parts of columns that are read as dictionaries; raises UserError as `_read`."""
    parts = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    repeated, values, unpacked, size = [], 0, 0, os.path.getsize(path)
    for number, part in enumerate(parts):
        if not any(part == name or part.startswith(f"{name}.") for name in names):
            continue
        chunks = [metadata.row_group(group).column(number) for group in groups]
        values += sum(chunk.num_values for chunk in chunks)
        sizes = [chunk.total_uncompressed_size for chunk in chunks]
        unpacked += sum(sizes)
        if (
            max(sizes, default=0) < _MOST_OF_DICTIONARY
            and metadata.schema.column(number).physical_type == "BYTE_ARRAY"
        ):
            repeated.append(part)
    if values > _FREE_VALUES + _VALUES_A_BYTE * size or unpacked > _FREE_BYTES + _INFLATION * size:
        what = f"{values:,} values of {unpacked:,} bytes under {', '.join(map(repr, names))}"
        raise UserError(
            f"{path} holds {what} in {size:,} bytes, more than pairs do: it is damaged or malicious"
        )
    return repeated


def _call(path: str, function, *args, **kwargs):
    import pyarrow

    try:
        return function(*args, **kwargs)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not a parquet file that can be read ({' '.join(str(error).split())[:200]})"
        ) from error


@functools.lru_cache(_OPEN_GROUPS)
def _read_group(path: str, group: int, key: str):
    """The encoded images of one group of rows; raises UnreadableError where they are damaged."""
    try:
        return _read(path, [key], group).column(key)
    except UserError as error:
        raise UnreadableError(str(error)) from error
