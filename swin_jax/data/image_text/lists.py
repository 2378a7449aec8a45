"""Pairs in lists of lines: JSON lines, and tables whose first line names the columns (csv, tsv).

Where each row begins is found once; a row is read when it is asked for, so that any number of them
costs 8 bytes each.
"""

import csv
import dataclasses
import functools
import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from swin_jax.core import text_files
from swin_jax.core.errors import UnreadableError, UserError, warn
from swin_jax.data.image import picture
from swin_jax.data.image_text import columns, parquet
from swin_jax.data.image_text.captions import captions_of, parse_json, texts_of

Example = dict[str, Any]

_PROBED = 100  # rows whose keys say what the columns are
_MAX_LINES = 100  # of one row of a table; more are a quotation mark that is not closed
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}


@dataclass(frozen=True)
class _Rows:
    """The places of a file's rows.

    Attributes:
        starts: int64 (N + 1,): where each row begins, in bytes, and where the last one ends.
        between: int64 (M,): for each line that begins no row, the number of rows before it.
        chosen: int64 (K,): the numbers of the rows that are read; None for all.
    """

    starts: np.ndarray
    between: np.ndarray
    chosen: np.ndarray | None = None


class LinePairs:
    """Image files that the rows of a text file name; pickles with its index of rows.
    See `jsonl` and `table`.
    """

    class_names: tuple[str, ...] = ()

    def __init__(
        self,
        path: str,
        root: str,
        parse: Callable[[bytes], Any],
        rows: _Rows,
        image_key: str,
        text_key: str,
        label_key: str,
        conversion: str,
    ):
        """`parse(bytes of a row)` gives the mapping that it stands for."""
        self._path, self._root, self._parse, self._rows = path, root, parse, rows
        self._image_key, self._text_key, self._label_key = image_key, text_key, label_key
        self._conversion = conversion

    def __len__(self) -> int:
        return len(self._rows.starts) - 1 if self._rows.chosen is None else len(self._rows.chosen)

    def __getitem__(self, index: int) -> Example:
        example = self.record(index)
        del example[self._image_key]
        image = picture.decode(example["image_path"], self._conversion)
        return {**example, "text": captions_of(example["text"]), "image": image}

    def record(self, index: int) -> Example:
        """The row's values, its captions as `text` and the whole path as `image_path`.

        Raises UnreadableError where the row is damaged.
        """
        row = self._parse(self._read(index))
        path = columns.place_of(self._root, columns.path_of(row, self._image_key))
        texts = texts_of(row, self._text_key)
        rest = {key: value for key, value in row.items() if key not in (self._text_key, "label")}
        return {**rest, "text": texts, "image_path": path, **columns.label_of(row, self._label_key)}

    def record_name(self, index: int) -> str:
        row = self._row(index)
        line = row + 1 + int(np.searchsorted(self._rows.between, row, side="right"))
        return f"{self._path} line {line}"

    def _row(self, index: int) -> int:
        return index if self._rows.chosen is None else int(self._rows.chosen[index])

    def _read(self, index: int) -> bytes:
        row = self._row(index)
        start, end = (int(at) for at in self._rows.starts[row : row + 2])
        with open(self._path, "rb") as file:
            file.seek(start)
            return file.read(end - start)


def jsonl(
    path: str | None,
    root: str | None = None,
    image_key: str = "image",
    text_key: str = "text",
    label_key: str = "",
    conversion: str = "display",
    split: str = "",
) -> LinePairs:
    """Pairs of a JSON-lines file: {"image": "a/b.jpg", "text":
    "a caption"}, or several captions in a list.

    Args:
        path: The file. Its lines are found once, which reads it through; blank ones don't count.
        root: Folder that image paths start from; by default the file's.
        image_key: The key of the path; 'image' takes the one of columns.IMAGE_KEYS where the lines
            have no such key.
        text_key: The key of the caption or captions; 'text' takes the one of columns.TEXT_KEYS
            likewise.
        label_key: The key of an integer that becomes `label`; '' for none, also where the lines
            have a 'label'.
        conversion: Conversion of pixels: 'display' turns pictures upright by their EXIF orientation
              and lays what is transparent on white, 'reference' does neither.
        split: The lines whose 'split' is this; 'train' means 'restval' too.
            Without effect where there are none.

    Returns:
        The source; other keys of a line stay in the example. Lines that name an image again are
        records of their own in training; an evaluation joins them. Raises UserError where there
        is no file, it has no lines, no key is known, a split is missing, or there are several
        and none is named.
    """
    path = columns.check_file(path, "jsonl")
    picture.check_conversion(conversion)
    starts, between, end = [], [], 0
    with open(path, "rb") as file:
        for line in file:
            if line.strip():
                starts.append(end)
            else:
                between.append(len(starts))
            end += len(line)
    if not starts:
        raise UserError(f'{path} is empty; it holds one {{"image": path, "text": caption}} a line')
    rows = _Rows(np.array([*starts, end], np.int64), np.array(between, np.int64))
    root = os.path.expanduser(root or "") or os.path.dirname(path)
    probe = LinePairs(path, root, parse_json, rows, image_key, text_key, label_key, conversion)
    keys = _keys(probe)
    if (key := columns.split_key(keys)) is not None:
        rows = _of_split(
            path, rows, [_split_of(probe, index, key) for index in range(len(probe))], split
        )
    image_key = columns.choose(image_key, "image_key", keys, path)
    text_key = columns.choose(text_key, "text_key", keys, path)
    found = LinePairs(path, root, parse_json, rows, image_key, text_key, label_key, conversion)
    columns.check_images(found, path, root)
    return found


def _of_split(path: str, rows: _Rows, values: list[Any], split: str) -> _Rows:
    """The rows of a split, which `values` tell."""
    chosen = columns.rows_of_split(path, values, split)
    if len(chosen) == len(values):
        return rows
    return dataclasses.replace(rows, chosen=np.array(chosen, np.int64))


def _split_of(source: LinePairs, index: int, key: str) -> Any:
    """The entry of a line under the key of splits;
    None where it cannot be read, which is said when it is.
    """
    try:
        row = parse_json(source._read(index))
    except UnreadableError:
        return None
    return row.get(key) if isinstance(row, dict) else None


def _keys(source: LinePairs) -> tuple[str, ...]:
    """The keys of the first lines."""
    keys, error = {}, None
    for index in range(min(len(source), _PROBED)):
        try:
            row = parse_json(source._read(index))
        except UnreadableError as found:
            error = error or f"{source.record_name(index)}: {found}"
            continue
        if isinstance(row, dict):
            keys.update(row)
        else:
            error = error or f"{source.record_name(index)}: not a JSON object"
    if not keys:
        advice = "data=json reads a file that is one list, data=table a .csv"
        raise UserError(f"{error}; a jsonl file holds one object per line ({advice})")
    return tuple(keys)


def table(
    path: str | None,
    root: str | None = None,
    image_key: str = "image",
    text_key: str = "text",
    label_key: str = "",
    separator: str = "",
    conversion: str = "display",
    split: str = "",
) -> LinePairs | parquet.ParquetPairs:
    """Pairs of a table with named columns: .csv, .tsv or .parquet.

    Several captions of an image may stand in one field, in the notation of a list: "['one',
    'two']". Names of columns are found in capitals too.
    Text is UTF-8, quoted as Python's csv module reads it, and its first line names the columns. A
    row with another number of fields is unreadable; a warning counts such rows.

    Args:
        path: The file.
        root: Folder that image paths start from; by default the file's.
        image_key: The column of the paths; 'image' takes the one of columns.IMAGE_KEYS where there
            is no such column.
        text_key: The column of the captions; 'text' takes the one of columns.TEXT_KEYS likewise.
        label_key: A column of integers that becomes `label`; '' for none.
        separator: Separator of the fields; '' goes by the suffix, a comma or a tab, and takes the
            other one where only that gives known columns, as open_clip writes its .csv with tabs,
            or a semicolon or a '|', as in Flickr30k's results.csv.
        conversion, split: The same as in `jsonl`.

    Returns:
        The source. Rows that name an image again are records of their own in training; an
        evaluation joins them. Raises UserError where the file is missing or damaged, a column is
        not known, or the split.
    """
    path = columns.check_file(path, "csv")
    picture.check_conversion(conversion)
    suffix = os.path.splitext(path)[1].lower()
    root = os.path.expanduser(root or "") or os.path.dirname(path)
    if suffix in (".parquet", ".pq"):
        return parquet.read(path, root, image_key, text_key, label_key, conversion, split)
    separator = separator or _SEPARATORS.get(suffix, "")
    if len(separator) != 1:
        wrong = f"{path} is neither .csv, .tsv nor .parquet"
        raise UserError(
            f"{wrong}: give --config.data.source.separator=, one character, or data=jsonl"
        )
    header, separator = _header(path, separator, (image_key, text_key))
    image_key = columns.choose(image_key, "image_key", header, path)
    text_key = columns.choose(text_key, "text_key", header, path)
    for key in filter(None, (image_key, text_key, label_key)):
        if header.count(key) != 1:
            raise UserError(
                f"{path} has {header.count(key)} columns {key!r}; name one that occurs once"
            )
    parse = functools.partial(_parse_row, header=header, separator=separator)
    rows = _find_rows(path, header, separator, split)
    found = LinePairs(path, root, parse, rows, image_key, text_key, label_key, conversion)
    columns.check_images(found, path, root)
    return found


def _header(path: str, separator: str, keys: tuple[str, str]) -> tuple[tuple[str, ...], str]:
    """The names of the columns, and the separator between them."""
    with open(path, "rb") as file:
        line = file.readline(2**20)
    if not line.strip():
        raise UserError(
            f"{path} is empty or begins with an empty line; its first line names the columns"
        )
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8, at byte {error.start + 1}; save it as UTF-8"
        ) from error
    signs = dict.fromkeys((separator, *_SEPARATORS.values(), ";", "|"))
    try:
        found = {sign: next(text_files.csv_reader([text], sign)) for sign in signs}
    except csv.Error as error:
        raise UserError(f"the names of the columns in {path} cannot be read ({error})") from error
    found = {sign: tuple(name.strip() for name in names) for sign, names in found.items()}
    wanted = [
        {key, *known} if key == known[0] else {key} for key, known in zip(keys, columns.KNOWN)
    ]
    for sign, header in found.items():
        if all(not names.isdisjoint({*header, *map(str.lower, header)}) for names in wanted):
            return header, sign
    return found[separator], separator


def _find_rows(path: str, header: tuple[str, ...], separator: str, split: str) -> _Rows:
    """Reads a table through; refuses one whose quotation marks do not close,
    and counts rows of another length.
    """
    starts, between, ragged, long, splits = [], [], [], [], []
    end = line = 0
    key = columns.split_key(header)
    column = None if key is None else header.index(key)
    with open(path, "rb") as file:
        lines = _Lines(file)
        reader = text_files.csv_reader(lines, separator)
        try:
            for fields in reader:
                spanned = reader.line_num - line
                if spanned > _MAX_LINES:
                    raise csv.Error(f"one row of {spanned} lines")
                if lines.is_over and _is_open(file, end, separator):
                    raise csv.Error("its last field does not end")
                if fields and line:
                    starts.append(end)
                    if column is not None:
                        splits.append(sys.intern(fields[column]) if column < len(fields) else None)
                    spanned -= 1
                    ragged += [line + 1] * (len(fields) != len(header))
                    long += [line + 1] * (spanned > 0)
                between += [len(starts)] * spanned
                end, line = lines.end, reader.line_num
        except csv.Error as error:
            advice = "check whether a quotation mark is not closed, or the separator is another"
            raise UserError(
                f"{path} cannot be read from line {line + 1} on ({error}); {advice}"
            ) from error
    if len(ragged) == len(starts):
        others = f", only {len(ragged)} others" if ragged else ""
        raise UserError(
            f"{path} has no rows of {len(header)} fields, as its first line has{others}"
        )
    for found, what in (
        (ragged, f"not {len(header)} fields and are unreadable"),
        (long, "line breaks in a field"),
    ):
        if found:
            warn(
                f"{path}: {len(found)} of {len(starts)} rows have {what}, "
                f"the first is line {found[0]}"
            )
    rows = _Rows(np.array([*starts, end], np.int64), np.array(between, np.int64))
    return rows if column is None else _of_split(path, rows, splits, split)


class _Lines:
    """The lines of a binary file as text; `end` is where the last one that was
    read ends, in bytes.
    """

    def __init__(self, file: BinaryIO):
        self._file, self.end, self.is_over = file, 0, False

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.end += len(line)
            # A row that is not UTF-8 is unreadable when it is read.
            yield line.decode("utf-8", "surrogateescape")
        self.is_over = True


def _is_open(file: BinaryIO, start: int, separator: str) -> bool:
    """True if what begins at `start` ends inside of a quoted field,
    which the reader of csv passes over.
    """
    file.seek(start)
    text = io.StringIO(file.read().decode("utf-8", "surrogateescape"), newline="")
    try:
        for _ in text_files.csv_reader(text, separator, strict=True):
            pass
    except csv.Error as error:
        return "end of data" in str(error)
    return False


def _parse_row(data: bytes, header: tuple[str, ...], separator: str) -> dict[str, Any]:
    """A row of a table by its columns."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UnreadableError(f"the row is not UTF-8, at byte {error.start + 1}") from error
    try:
        fields = next(text_files.csv_reader(io.StringIO(text, newline=""), separator), [])
    except csv.Error as error:
        raise UnreadableError(f"the row cannot be read ({error})") from error
    if len(fields) != len(header):
        raise UnreadableError(f"the row has {len(fields)} fields, the first line {len(header)}")
    return dict(zip(header, fields))
