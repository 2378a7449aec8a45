"""Parquet files of pairs: paths, encoded images, lists of captions, damage, no pyarrow."""

import io
import pickle
import sys

import numpy as np
import pyarrow  # comes with tensorflow-datasets
import pytest
from PIL import Image
from pyarrow import parquet

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data.image_text import lists


def png(number):
    file = io.BytesIO()
    Image.new("RGB", (3, 2), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(folder, rows=2, **columns):
    parquet.write_table(pyarrow.table(columns), folder / "x.parquet", row_group_size=rows)
    return str(folder / "x.parquet")


def read(source):
    return [(source[i]["image"].getpixel((0, 0))[0], source[i]["text"]) for i in range(len(source))]


FIVE = [(i, (f"caption {i}",)) for i in range(5)]


@pytest.mark.parametrize("form", ["paths", "bytes", "datasets", "datasets, not embedded", "a dictionary"])
def test_images_in_every_form(tmp_path, form):
    images = [png(i) for i in range(5)]
    for i, data in enumerate(images):
        (tmp_path / f"{i}.png").write_bytes(data)
    column = {
        "paths": [f"{i}.png" for i in range(5)],
        "bytes": images,
        "datasets": [{"bytes": data, "path": "elsewhere.png"} for data in images],
        "datasets, not embedded": [{"bytes": None, "path": f"{i}.png"} for i in range(5)],
        "a dictionary": pyarrow.array(images).dictionary_encode(),
    }
    path = write(tmp_path, image=column[form], caption=[f"caption {i}" for i in range(5)], n=range(5))
    source = lists.table(path, label_key="n")
    assert read(source) == FIVE and read(pickle.loads(pickle.dumps(source))) == FIVE
    assert source.record(3)["text"] == ("caption 3",) and source[3]["label"] == 3
    assert ("image_path" in source.record(3)) is (form == "paths") and source.record_name(3) == f"{path} row 4"


def test_several_captions_and_rows_that_cannot_be_read(tmp_path):
    captions = [["one", "two"], [], None, ["four"]]
    source = lists.table(write(tmp_path, image=[png(0), png(1), png(2), None], captions=captions))
    assert source[0]["text"] == ("one", "two")
    for index, message in ((1, "no caption"), (2, "no caption"), (3, "holds no image")):
        with pytest.raises(UnreadableError, match=message):
            source[index]


def test_rows_without_a_file_or_bytes_are_unreadable(tmp_path):
    (tmp_path / "0.png").write_bytes(png(0))
    images = [{"bytes": None, "path": path} for path in ("0.png", "none.png", "a\0b", "", None)] + [None]
    source = lists.table(write(tmp_path, image=images, text=["a"] * 6))
    assert source.image_bytes(0) == png(0)
    for index, message in ((1, "no file .*none.png"), (2, "no file .*a.*b"), (3, "holds no image")):
        with pytest.raises(UnreadableError, match=message):
            source[index]
    for index in (4, 5):
        with pytest.raises(UnreadableError, match="holds no image"):
            source.image_bytes(index)


@pytest.mark.parametrize(
    "images", [[[png(0)]], [{"data": png(0)}], [{"bytes": "text", "path": "a"}], [[{"bytes": png(0), "path": "a"}]]]
)
def test_columns_of_other_kinds_are_refused(tmp_path, images):
    with pytest.raises(UserError, match="holds neither paths nor encoded images but (list|struct)"):
        lists.table(write(tmp_path, image=images, text=["a"]))


def test_captions_that_are_not_utf8_are_unreadable(tmp_path):
    text = pyarrow.Array.from_buffers(
        pyarrow.string(), 2, [None, pyarrow.py_buffer(np.array([0, 4, 5], np.int32)), pyarrow.py_buffer(b"caf\xe9a")]
    )
    source = lists.table(write(tmp_path, image=[png(0), png(1)], text=text))
    assert source[1]["text"] == ("a",)
    with pytest.raises(UnreadableError, match="cannot be read"):
        source[0]


def test_a_damaged_group_of_rows_is_unreadable(tmp_path):
    path = write(tmp_path, text=["a", "b", "c", "d"], image=[png(0), png(0), b"x" * 99, png(1)])
    data = bytearray((tmp_path / "x.parquet").read_bytes())
    place = data.index(b"xxx")
    data[place - 60 : place + 60] = bytes(120)
    source = lists.table(path)
    (tmp_path / "x.parquet").write_bytes(data)
    assert source[0]["text"] == ("a",)
    with pytest.raises(UnreadableError, match="not a parquet file that can be read"):
        source[2]


def test_what_is_wrong_is_one_line(tmp_path, monkeypatch):
    path = write(tmp_path, image=[1, 2], text=["a", "b"])
    with pytest.raises(UserError, match="neither paths nor encoded images but int64"):
        lists.table(path)
    with pytest.raises(UserError, match="no column 'image' of images among 'x'"):
        lists.table(write(tmp_path, x=["a"]))
    with pytest.raises(UserError, match="has no rows"):
        lists.table(
            write(tmp_path, image=pyarrow.array([], pyarrow.string()), text=pyarrow.array([], pyarrow.string()))
        )
    data = (tmp_path / "x.parquet").read_bytes()
    for torn in (b"", data[:20], data[:-9], b"PAR1" + bytes(40) + b"PAR1"):
        (tmp_path / "x.parquet").write_bytes(torn)
        with pytest.raises(UserError, match="not a parquet file that can be read [^\n]*$"):
            lists.table(path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[parquet\]'"):
        lists.table(path)


def _same(count, value):
    """An array of one value many times, which takes no memory."""
    return pyarrow.DictionaryArray.from_arrays(np.zeros(count, np.int8), pyarrow.array([value]))


def _list_of(count):
    return pyarrow.ListArray.from_arrays([0, count], pyarrow.array(["x"]).take(np.zeros(count, np.int8)))


FLOODS = {  # files of less than 200 kB
    "rows": lambda: dict(image=_same(5_000_000, "x.jpg"), text=_same(5_000_000, "x")),
    "captions": lambda: dict(image=["x.jpg"], text=_list_of(5_000_000)),
    "zeros": lambda: dict(image=["x.jpg"] * 100, text=[str(i).zfill(10**6) for i in range(100)]),
}


@pytest.mark.parametrize("name", FLOODS)
def test_more_values_than_a_file_can_hold_are_refused(tmp_path, name):
    path = str(tmp_path / "x.parquet")
    parquet.write_table(pyarrow.table(FLOODS[name]()), path, compression="zstd", use_dictionary=name != "zeros")
    before = pyarrow.total_allocated_bytes()
    with pytest.raises(UserError, match="x.parquet holds .* in [0-9,]* bytes"):
        lists.table(path)
    assert pyarrow.total_allocated_bytes() - before < 2**20


@pytest.mark.parametrize("form", ["captions", "lists of captions", "images", "images of datasets"])
def test_one_value_of_many_rows_is_kept_once(tmp_path, form):
    """As a dictionary, which is how the file has it: 10 MB, not 5 GB."""
    text, images, count = _same(500, "x" * 10**7), _same(500, b"y" * 10**7), np.arange(501)
    columns = {
        "captions": dict(image=["x.jpg"] * 500, text=text),
        "lists of captions": dict(image=["x.jpg"] * 500, text=pyarrow.ListArray.from_arrays(count, text)),
        "images": dict(image=images, text=["x"] * 500),
        "images of datasets": dict(image=pyarrow.StructArray.from_arrays([images], ["bytes"]), text=["x"] * 500),
    }
    path = str(tmp_path / "x.parquet")
    (tmp_path / "x.jpg").touch()
    parquet.write_table(pyarrow.table(columns[form]), path, store_schema=False)
    before = pyarrow.total_allocated_bytes()
    source = lists.table(path)
    if "images" in form:
        assert len(source.image_bytes(499)) == 10**7
    else:
        assert source.record(499)["text"] == ("x" * 10**7,)
    assert pyarrow.total_allocated_bytes() - before < 2**26
