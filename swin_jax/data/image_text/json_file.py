"""Pairs in one JSON file: Karpathy's splits, COCO's annotations of captions, or a list of records.

Karpathy's dataset_coco.json and dataset_flickr30k.json (Karpathy & Fei-Fei, arXiv 1412.2306) are
what retrieval is reported on: five captions an image, COCO's test split of 5,000 images and
Flickr30k's of 1,000.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from swin_jax.core import text_files
from swin_jax.core.errors import UserError, warn
from swin_jax.data.image import picture
from swin_jax.data.image_text import columns
from swin_jax.data.image_text.captions import captions_of, texts_of
from swin_jax.data.rows_of_lists import SPLIT


@dataclass(frozen=True)
class AnnotatedPairs:
    """Image files with their captions; see `json_file`.

    Attributes:
        path: Path of the file.
        root: Folder that image paths start from.
        rows: Objects with a path under `image_key` and captions under `text_key`.
        image_key: The key of the path.
        text_key: The key of the captions.
        conversion: Conversion of pixels, see `picture.py`.
    """

    path: str
    root: str
    rows: tuple[Any, ...]
    image_key: str
    text_key: str
    conversion: str
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.record(index)
        example["text"] = captions_of(example["text"])
        return {**example, "image": picture.decode(example["image_path"], self.conversion)}

    def record(self, index: int) -> dict[str, Any]:
        """The captions of an image as `text`, and its whole path as `image_path`."""
        path = columns.place_of(self.root, columns.path_of(self.rows[index], self.image_key))
        return {"text": texts_of(self.rows[index], self.text_key), "image_path": path}

    def record_name(self, index: int) -> str:
        row = self.rows[index]
        name = row.get(self.image_key) if isinstance(row, Mapping) else None
        return f"{self.path} image {name if isinstance(name, str) else index + 1}"


def json_file(
    path: str | None,
    root: str | None = None,
    split: str = "",
    image_key: str = "image",
    text_key: str = "text",
    conversion: str = "display",
) -> AnnotatedPairs:
    """Pairs of a JSON file with any number of captions per image.

    Args:
        path: The file: {"images": [{"filename", "split", "sentences": [{"raw"}]}]} (Karpathy),
            {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]} (COCO), a
            list of {"image", "caption"}, or {image: caption or captions}.
        root: Folder that image paths start from; by default the file's.
        split: The images whose 'split' is this; 'train' means 'restval' too. Without effect where
            there are none.
        image_key: The key of the path in a list of records; 'image' takes the one of
            columns.IMAGE_KEYS that occurs.
        text_key: The key of the caption or captions there; 'text' takes the one of
            columns.TEXT_KEYS.
        conversion: Conversion of pixels: 'display' turns pictures upright by their EXIF orientation
              and lays what is transparent on white, 'reference' does neither.

    Returns:
        The source. Raises UserError where there is no such file, it is damaged or of another form,
        a split is missing, or the file has several and none is named.
    """
    path = columns.check_file(path, "json")
    picture.check_conversion(conversion)
    value = _read(path)
    if isinstance(value, list):
        rows, is_made = value, False
    elif isinstance(value, Mapping) and isinstance(value.get("images"), list):
        rows, is_made = value["images"], True
    elif isinstance(value, Mapping) and value and all(os.path.splitext(name)[1] for name in value):
        rows, is_made = (
            [{"image": name, "text": captions} for name, captions in value.items()],
            False,
        )
    else:
        raise UserError(
            f'{path} has neither "images" nor a list of records; '
            "for one record per line, give data=jsonl"
        )
    keys = (key for row in rows if isinstance(row, Mapping) for key in row)
    key = columns.split_key(keys) or SPLIT
    splits = [row.get(key) if isinstance(row, Mapping) else None for row in rows]
    rows = [rows[row] for row in columns.rows_of_split(path, splits, split)]
    if is_made and "annotations" in value:
        rows = _coco(path, rows, value["annotations"])
    elif is_made:
        rows = [_karpathy(row) for row in rows]
    if not rows:
        raise UserError(f"{path} has no images")
    keys = dict.fromkeys(key for row in rows[:100] if isinstance(row, Mapping) for key in row)
    if is_made:
        image_key, text_key = "image", "text"
    image_key = columns.choose(image_key, "image_key", keys, path)
    text_key = columns.choose(text_key, "text_key", keys, path)
    root = os.path.expanduser(root or "") or os.path.dirname(path)
    found = AnnotatedPairs(path, root, tuple(rows), image_key, text_key, conversion)
    columns.check_images(found, path, root)
    return found


def _read(path: str) -> Any:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return text_files.parse_json(file.read())
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not JSON ({error}); for one record per line, give data=jsonl"
        ) from error


def _karpathy(row: Any) -> Any:
    """A row of Karpathy's files with the keys 'image' and 'text'."""
    if not isinstance(row, Mapping):
        return row
    names = [row.get("filepath", ""), row.get("filename")]
    sentences = row.get("sentences")
    if isinstance(sentences, list):
        sentences = [item.get("raw") if isinstance(item, Mapping) else item for item in sentences]
    path = os.path.join(*names) if all(isinstance(name, str) for name in names) else None
    return {"image": path, "text": sentences}


def _coco(path: str, rows: Iterable[Any], captions: Any) -> list[dict[str, Any]]:
    """Rows of COCO's annotations with the keys 'image' and 'text',
    without the images that have no caption.
    """
    found, unknown = {}, 0
    for row in rows:
        if (
            not isinstance(row, Mapping)
            or not isinstance(row.get("id"), (int, str))
            or row["id"] in found
        ):
            raise UserError(f'{path} has an image without an "id" of its own: {str(row)[:80]}')
        found[row["id"]] = {"image": row.get("file_name"), "text": []}
    for item in captions if isinstance(captions, list) else [captions]:
        number = item.get("image_id") if isinstance(item, Mapping) else None
        if not isinstance(number, (int, str)) or "caption" not in item:
            raise UserError(
                f'{path} has an annotation without "image_id" and "caption": {str(item)[:80]}'
            )
        if number in found:
            found[number]["text"].append(item["caption"])
        else:
            unknown += 1
    with_captions = [row for row in found.values() if row["text"]]
    without = len(found) - len(with_captions)
    if without or unknown:
        left_out = f"{without} without a caption, {unknown} captions of other images"
        warn(f"{path}: {len(with_captions)} images; left out: {left_out}")
    return with_captions
