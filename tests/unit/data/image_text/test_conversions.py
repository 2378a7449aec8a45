"""Transparent and turned pictures in pairs: as a viewer shows a person's own, or as CLIP read them."""

import io
import json
import tarfile

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from swin_jax.core.errors import UserError
from swin_jax.data.image_text import json_file, lists, pairs, tar_shards

NAMES = ("clear.png", "turned.jpg")


def encoded():
    """A picture that is wholly transparent over red, and one of 4 x 2 pixels that a camera held upright."""
    clear, turned, exif = io.BytesIO(), io.BytesIO(), Image.Exif()
    Image.new("RGBA", (4, 2), (255, 0, 0, 0)).save(clear, "PNG")
    exif[0x0112] = 6
    Image.new("RGB", (4, 2)).save(turned, "JPEG", exif=exif)
    return dict(zip(NAMES, (clear.getvalue(), turned.getvalue())))


def write(folder, form):
    """A function that reads the two pictures as pairs."""
    files, path = encoded(), str(folder / f"x.{form}")
    rows = [{"image": name, "text": "a"} for name in NAMES]
    if form == "tar":
        with tarfile.open(path, "w") as tar:
            for name, data in [*files.items(), ("clear.txt", b"a"), ("turned.txt", b"a")]:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return lambda **options: tar_shards.tar_shards(path, **options)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    if form == "folder":
        for name in NAMES:
            (folder / name).with_suffix(".txt").write_text("a")
        return lambda **options: pairs.folder(str(folder), **options)
    if form == "parquet":
        parquet.write_table(pyarrow.table({"image": list(files.values()), "text": ["a", "a"]}), path)
    elif form == "csv":
        (folder / "x.csv").write_text("image,text\nclear.png,a\nturned.jpg,a\n")
    else:
        lines = map(json.dumps, rows if form == "jsonl" else [rows])
        (folder / f"x.{form}").write_text("\n".join(lines))
    make = {"jsonl": lists.jsonl, "json": json_file.json_file}.get(form, lists.table)
    return lambda **options: make(path, **options)


@pytest.mark.parametrize("form", ["tar", "folder", "jsonl", "csv", "parquet", "json"])
def test_both_conversions_in_every_form(tmp_path, form):
    read = write(tmp_path, form)
    for conversion, color, size in (("display", (255, 255, 255), (2, 4)), ("reference", (255, 0, 0), (4, 2))):
        clear, turned = (read(conversion=conversion)[index]["image"] for index in range(2))
        assert (np.asarray(clear) == color).all() and turned.size == size
    usual = "reference" if form == "tar" else "display"
    assert read()[1]["image"].size == read(conversion=usual)[1]["image"].size
    with pytest.raises(UserError, match="conversion='dispaly' must be .*did you mean 'display'"):
        read(conversion="dispaly")
