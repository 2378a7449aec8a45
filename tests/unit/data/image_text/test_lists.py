"""Tables of pairs, .csv and .tsv: columns by name, quoting as Python's csv, damage."""

import csv
import functools
import json
import pickle
import warnings

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from swin_jax.core import text_files
from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data.image_text import lists
from swin_jax.data.image_text.by_image import by_image
from swin_jax.data.image_text.json_file import json_file


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub dir").mkdir()
    for number, name in enumerate(("a.png", "b.png", "sub dir/c, d.png")):
        Image.new("RGB", (3, 2), (number, 0, 0)).save(tmp_path / name)
    return tmp_path


def write(folder, text, name="pairs.csv"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(folder / name)


def read(source):
    return [(source[i]["image"].getpixel((0, 0))[0], source[i]["text"]) for i in range(len(source))]


TWO = [(0, ("one",)), (1, ("two, three",))]
TABLES = {
    "comma": ("pairs.csv", 'image,text\na.png,one\nb.png,"two, three"\n'),
    "tab": ("pairs.tsv", "image\ttext\na.png\tone\nb.png\ttwo, three\n"),
    "open_clip": ("pairs.csv", "filepath\ttitle\na.png\tone\nb.png\ttwo, three\n"),
    "open_clip with a comma in the header": (
        "pairs.csv",
        "filepath\ttitle\tx, y\na.png\tone\t1\nb.png\ttwo, three\t2\n",
    ),
    "a .tsv of commas": ("pairs.tsv", 'image,text\na.png,one\nb.png,"two, three"'),
    "other columns and order": ("x.CSV", 'id,caption,size,file_name\n7,one,3,a.png\n8,"two, three",3,b.png'),
    "mark, Windows lines": ("pairs.csv", '\ufeffimage,text\r\na.png,one\r\nb.png,"two, three"\r\n'),
    "blank lines": ("pairs.csv", '\ufeffimage,text\n\na.png,one\n\n\nb.png,"two, three"\n\n'),
    "semicolons": ("pairs.csv", "image;text\na.png;one\nb.png;two, three\n"),
    "Flickr30k's results.csv": (
        "results.csv",
        "image_name| comment_number| comment\na.png| 0|one\nb.png| 1|two, three\n",
    ),
    "spaces in the header": ("pairs.csv", ' image , text\na.png,one\nb.png,"two, three"'),
}


@pytest.mark.parametrize(("name", "text"), TABLES.values(), ids=TABLES)
def test_columns_by_name(folder, name, text):
    source = lists.table(write(folder, text, name))
    assert read(source) == TWO and read(pickle.loads(pickle.dumps(source))) == TWO


def test_equal_to_the_csv_module(folder):
    rows = [["a.png", "plain"], ["sub dir/c, d.png", 'quotes "in" it, and a comma'], ["b.png", "two\nlines, ä"]]
    rows += [["a.png", '"'], ["a.png", " spaces "], ["b.png", "a\r\nb"], ["b.png", "tab\there"]]
    for name, dialect in (("x.csv", "excel"), ("x.tsv", "excel-tab"), ("y.csv", "unix")):
        with open(folder / name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, dialect).writerows([["image", "text"], *rows])
        with pytest.warns(UserWarning, match="2 of 7 rows have line breaks in a field, the first is line 4"):
            source = lists.table(str(folder / name))
        assert [source.record(i)["text"] for i in range(len(source))] == [(text,) for _, text in rows]
        assert [source[i]["image"].getpixel((0, 0))[0] for i in range(4)] == [0, 2, 1, 0]


def test_named_columns_and_separator(folder):
    path = write(folder, "x|what|image|n\na.png|one|wrong|5\nb.png|two, three|wrong|-6\n", "pairs.txt")
    source = lists.table(path, image_key="x", text_key="what", separator="|")
    assert read(source) == TWO
    with pytest.raises(UserError, match="neither .csv, .tsv nor .parquet: give --config.data.source.separator="):
        lists.table(path)
    path = write(folder, "image,text,n\na.png,one,5\na.png,one,5.0\na.png,one," + "9" * 5000 + "\na.png,one,\n")
    source = lists.table(path, label_key="n", root=str(folder))
    assert source[0]["label"] == 5
    for index in (1, 2, 3):
        with pytest.raises(UnreadableError, match="'n' is not an integer"):
            source[index]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\nimage,text\na.png,one\n", "begins with an empty line"),
        ("image,text\n", "has no rows of 2 fields"),
        ("a.png,one\nb.png,two\n", "no column 'image' of images among 'a.png', 'one': give .*source.image_key="),
        ("image,words\na.png,one\n", "no column 'text' of captions among 'image', 'words'"),
        ("image,image,text\na,a.png,one\n", "has 2 columns 'image'"),
        ("image,caption,title\na.png,one,two\n", "captions in 'caption' or 'title'"),
        ("path,file,text\na.png,one,two\n", "images in 'path' or 'file'"),
        ('image,text\na.png,"one\nb.png,two\n', r"from line 2 on \(its last field does not end\)"),
        ('image,text\na.png,one\nb.png,"two', r"from line 3 on \(its last field does not end\)"),
        ('image,text\na.png,"one\n' + "b.png,two\n" * 200 + 'c.png,"x"\n', r"from line 2 on \(one row of 20. lines"),
        ('image,text\na.png,"' + "x" * (text_files.MAX_FIELD + 1) + '"\n', r"from line 2 on \(field larger than"),
        ("image,text\ra.png,one\rb.png,two\r", "line"),
        ("image,text\na.png,one,two\n", "no rows of 2 fields, as its first line has, only 1 others"),
        ("image,text\na.png,one\n".encode("utf-16"), "is not UTF-8, at byte 1"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(folder, text, message):
    with pytest.raises(UserError, match=message) as error:
        lists.table(write(folder, text))
    assert "\n" not in str(error.value)


def test_rows_that_cannot_be_read(folder):
    rows = [
        b"a.png,one",
        b"b.png,two, three",
        b"b.png",
        b"a.png,caf\xe9",
        b"a.png,",
        b"a.png,x\0y",
        b",one",
        b"a\0,one",
    ]
    path = write(folder, b"image,text\n" + b"\n".join(rows))
    with pytest.warns(UserWarning, match="2 of 8 rows have not 2 fields and are unreadable, the first is line 3"):
        source = lists.table(path)
    assert source[0]["text"] == ("one",) and len(source) == 8
    for index, message in enumerate(
        ("3 fields, the first line 2", "1 fields", "not UTF-8", "caption is empty", "NUL", "not a path", "not a path"),
        1,
    ):
        with pytest.raises(UnreadableError, match=message):
            source[index]
    assert [source.record_name(i).rpartition(" ")[2] for i in range(8)] == [str(line) for line in range(2, 10)]


def test_rows_are_named_by_their_first_line(folder):
    path = write(folder, "\nimage,text\n".lstrip() + '\na.png,"one\n\nline"\n\nb.png,two\n')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = lists.table(path)
    assert [source.record_name(i).rpartition(" ")[2] for i in range(2)] == ["3", "7"]


@pytest.mark.parametrize("make", [lists.table, lists.jsonl])
def test_no_file(tmp_path, make):
    with pytest.raises(UserError, match="there is no file"):
        make(str(tmp_path / "none.csv"))
    with pytest.raises(UserError, match="there is no file"):
        make(str(tmp_path))
    with pytest.raises(UserError, match="--config.validation_pairs=FILE"):
        make(None)


def test_a_caption_too_long_for_a_record_costs_no_other_row(folder):
    """Python's csv stops at a field of 131,072 characters."""
    source = lists.table(write(folder, "image,text\na.png,one\na.png," + "x" * 200_000 + '\nb.png,"two, three"\n'))
    assert len(source) == 3
    with pytest.raises(UnreadableError, match="a caption of 200,000 characters, more than 100,000"):
        source[1]
    assert [source[i]["text"] for i in (0, 2)] == [("one",), ("two, three",)]


@pytest.mark.parametrize(
    ("field", "texts"),
    [
        ('["one", "it\'s two", "[x]"]', ("one", "it's two", "[x]")),  # as json.dumps writes it
        ("['one', \"it's two\", '[x]']", ("one", "it's two", "[x]")),  # as str writes it
        ("['one']", ("one",)),
        ("[a dog] on a [cat]", ("[a dog] on a [cat]",)),
        ("[a dog]", ("[a dog]",)),
        ("[1, 2]", ("[1, 2]",)),
        ("('one', 'two')", ("one", "two")),  # a tuple
        ("['one' \"it's two\"]", ("one", "it's two")),  # as NumPy prints an array
        ("['one'\n 'two' 'three']", ("one", "two", "three")),
        ("[\"it's 'one' 'two'\", \"x\"]", ("it's 'one' 'two'", "x")),
        ("('one')", ("('one')",)),
        ("(a dog) on a (cat)", ("(a dog) on a (cat)",)),
        ("['one' 'two', 'three']", ("['one' 'two', 'three']",)),
        ("[" * 5000 + "]" * 5000, ("[" * 5000 + "]" * 5000,)),
        ("[__import__('os').getcwd()]", ("[__import__('os').getcwd()]",)),
    ],
)
def test_a_list_within_a_field_is_several_captions(folder, field, texts):
    with open(folder / "x.csv", "w", newline="") as file:
        csv.writer(file).writerows([["image", "caption"], ["a.png", field]])
    assert lists.table(str(folder / "x.csv"))[0]["text"] == texts


def test_a_list_of_captions_with_something_else_is_unreadable(folder):
    with pytest.raises(UnreadableError, match="caption 2 of 'caption' is not text but 2"):
        lists.table(write(folder, "image,caption\na.png,\"['one', 2]\"\n"))[0]


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet"])
def test_a_list_within_a_text_is_several_captions_in_every_form(folder, form):
    text = "['one' 'two']"
    if form == "csv":
        source = lists.table(write(folder, f"image,caption\na.png,{text}\n"))
    elif form == "jsonl":
        source = lists.jsonl(write(folder, json.dumps({"image": "a.png", "caption": text}), "x.jsonl"))
    elif form == "json":
        source = json_file(write(folder, json.dumps([{"image": "a.png", "caption": text}]), "x.json"))
    else:
        parquet.write_table(pyarrow.table({"image": ["a.png"], "caption": [text]}), folder / "x.parquet")
        source = lists.table(str(folder / "x.parquet"))
    assert read(source) == [(0, ("one", "two"))]


@pytest.mark.parametrize("form", ["csv", "jsonl", "json", "parquet"])
def test_columns_in_capitals_are_known(folder, form):
    columns = {"Image": ["a.png", "b.png"], "Caption": ["one", "two, three"], "Split": ["train", "test"]}
    rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
    if form == "csv":
        path = write(folder, 'Image,Caption,Split\na.png,one,train\nb.png,"two, three",test\n')
    elif form == "jsonl":
        path = write(folder, "\n".join(map(json.dumps, rows)), "x.jsonl")
    elif form == "json":
        path = write(folder, json.dumps(rows), "x.json")
    else:
        path = str(folder / "x.parquet")
        parquet.write_table(pyarrow.table(columns), path)
    make = {"jsonl": lists.jsonl, "json": json_file}.get(form, lists.table)
    with pytest.raises(UserError, match="several splits"):
        make(path)
    assert read(make(path, split="test")) == TWO[1:]


def test_an_empty_list_is_no_caption(folder):
    with pytest.raises(UnreadableError, match="no caption"):
        lists.table(write(folder, "image,caption\na.png,[]\n"))[0]


def rows_of_splits(form, folder):
    """A list of pairs whose rows are of the splits train, restval, test, train."""
    rows = [(f"{name}.png", f"text {number}") for number, name in enumerate("abab")]
    splits = ("train", "restval", "test", "train")
    if form == "jsonl":
        text = "\n\n".join(f'{{"image": "{a}", "text": "{b}", "split": "{c}"}}' for (a, b), c in zip(rows, splits))
        return functools.partial(lists.jsonl, write(folder, text, "x.jsonl"))
    if form == "csv":
        text = "image,text,split\n" + "".join(f'{a},"{b}",{c}\n' for (a, b), c in zip(rows, splits))
        return functools.partial(lists.table, write(folder, text))
    import pyarrow
    import pyarrow.parquet

    values = dict(zip(("image", "text"), map(list, zip(*rows)))) | {"split": list(splits)}
    pyarrow.parquet.write_table(pyarrow.table(values), folder / "x.parquet", row_group_size=2)
    return functools.partial(lists.table, str(folder / "x.parquet"))


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_rows_of_other_splits_are_not_read(folder, form):
    read_rows = rows_of_splits(form, folder)
    for split, numbers in (("train", (0, 1, 3)), ("restval", (1,)), ("test", (2,))):
        source = pickle.loads(pickle.dumps(read_rows(split=split)))
        assert read(source) == [("ab".index("abab"[n]), (f"text {n}",)) for n in numbers] and len(source) == len(
            numbers
        )
        assert [source.record_name(i).split()[-1] for i in range(len(source))] == [
            str({"csv": n + 2, "jsonl": 2 * n + 1, "parquet": n + 1}[form]) for n in numbers
        ]
    with pytest.raises(UserError, match=r"several splits; it has train \(2\), restval \(1\).*source.split="):
        read_rows()
    with pytest.raises(UserError, match="no split 'tset'; did you mean 'test'"):
        read_rows(split="tset")


def test_one_split_or_none_is_read_without_its_name(folder):
    for text in ("image,text,split\na.png,one,test\nb.png,two,test\n", "image,text\na.png,one\nb.png,two\n"):
        assert len(lists.table(write(folder, text))) == 2


@pytest.mark.parametrize("place", range(3))
def test_an_image_is_found_though_one_of_its_rows_has_no_caption(folder, place):
    texts = ["one", "two"]
    texts.insert(place, " ")
    images = by_image(lists.table(write(folder, "image,text\n" + "".join(f"a.png,{text}\n" for text in texts))))
    assert len(images) == 1 and images[0]["image"].size == (3, 2)
    assert [text for text in images[0]["text"] if text.strip()] == ["one", "two"]


def test_a_split_of_several_lines_is_told_in_one(folder):
    with pytest.warns(UserWarning, match="line breaks"), pytest.raises(UserError) as error:
        lists.table(write(folder, 'image,text,split\na.png,one,"tr\nain"\nb.png,two,test\n'))
    assert r"tr\nain (1)" in str(error.value) and "\n" not in str(error.value)
