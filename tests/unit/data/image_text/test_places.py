"""Where the images of a list of pairs lie: lists that Windows wrote, and a wrong folder."""

import csv
import json
import re

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from swin_jax.core.errors import UserError
from swin_jax.data.image_text import lists
from swin_jax.data.image_text.json_file import json_file

FORMS = {"csv": lists.table, "jsonl": lists.jsonl, "json": json_file, "parquet": lists.table, "datasets": lists.table}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images/boat").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (3, 2), (number, 0, 0)).save(tmp_path / f"images/boat/0{number}.png")
    return tmp_path


def write(folder, form, paths):
    """A list of these images, with the same caption for each."""
    file = folder / f"pairs.{'parquet' if form == 'datasets' else form}"
    rows = [{"image": path, "caption": "a boat"} for path in paths]
    if form == "csv":
        with open(file, "w", newline="") as opened:
            csv.writer(opened).writerows([("image", "caption"), *(row.values() for row in rows)])
    elif form == "json":
        file.write_text(json.dumps(rows))
    elif form == "jsonl":
        file.write_text("\n".join(map(json.dumps, rows)))
    else:
        images = [{"bytes": None, "path": path} for path in paths] if form == "datasets" else paths
        kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}) if form == "datasets" else None
        columns = {"image": pyarrow.array(images, kind), "caption": ["a boat"] * len(paths)}
        parquet.write_table(pyarrow.table(columns), file)
    return str(file)


@pytest.mark.parametrize("form", FORMS)
def test_backslashes_of_windows_are_slashes(folder, form):
    source = FORMS[form](write(folder, form, [rf"images\boat\0{number}.png" for number in range(3)]))
    assert [source[index]["image"].getpixel((0, 0))[0] for index in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("form", FORMS)
def test_a_file_whose_name_has_a_backslash_is_read(folder, form):
    Image.new("RGB", (3, 2), (9, 0, 0)).save(folder / r"images\boat\00.png")
    source = FORMS[form](write(folder, form, [r"images\boat\00.png"]))
    assert source[0]["image"].getpixel((0, 0))[0] == 9


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet"])
def test_a_folder_without_any_of_the_images_is_refused(folder, form):
    """It cost a line for each record, and then ended within the training."""
    path = write(folder, form, [f"boat/0{number}.png" for number in range(300)])
    said = f"{path}: its first image, boat/00.png, is not in {folder}, nor are others: give "
    with pytest.raises(UserError, match=re.escape(said)):
        FORMS[form](path)
    assert len(FORMS[form](path, str(folder / "images"))) == 300


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet"])
def test_a_few_images_that_are_there_are_enough(folder, form):
    """Web pages go, so that many images of a list may be missing, the first ones too."""
    names = [f"gone/{number}.png" for number in range(290)]
    assert len(FORMS[form](write(folder, form, [*names, *["images/boat/00.png"] * 10]))) == 300
