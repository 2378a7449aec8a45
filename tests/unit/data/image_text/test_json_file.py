"""One JSON file of all pairs: Karpathy's splits, COCO's captions, lists of records, damage."""

import json
import pickle

import pytest
from PIL import Image

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data.image_text.json_file import json_file


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "val").mkdir()
    for number in range(4):
        Image.new("RGB", (3, 2), (number, 0, 0)).save(tmp_path / f"val/{number}.png")
    return tmp_path


def write(folder, value):
    text = value if isinstance(value, (str, bytes)) else json.dumps(value)
    (folder / "x.json").write_bytes(text.encode() if isinstance(text, str) else text)
    return str(folder / "x.json")


def read(source):
    return [(source[i]["image"].getpixel((0, 0))[0], source[i]["text"]) for i in range(len(source))]


def captions(number):
    return tuple(f"{word} {number}" for word in ("a", "b", "c", "d", "e"))


def karpathy(splits, filepath="val"):
    return {
        "images": [
            {
                "filepath": filepath,
                "filename": f"{number}.png",
                "imgid": number,
                "split": split,
                "sentences": [{"raw": text, "tokens": text.split(), "imgid": number} for text in captions(number)],
            }
            for number, split in enumerate(splits)
        ],
        "dataset": "coco",
    }


def test_splits_of_karpathy(folder):
    path = write(folder, karpathy(["train", "restval", "test", "val"]))
    for split, numbers in (("train", (0, 1)), ("test", (2,)), ("val", (3,)), ("restval", (1,))):
        expected = [(number, captions(number)) for number in numbers]
        assert read(json_file(path, split=split)) == expected
    assert read(pickle.loads(pickle.dumps(json_file(path, split="test")))) == [(2, captions(2))]
    with pytest.raises(UserError, match=r"several splits; it has train \(1\), restval \(1\).*source.split="):
        json_file(path)
    with pytest.raises(UserError, match="no split 'tset'; did you mean 'test'"):
        json_file(path, split="tset")
    path = write(folder, karpathy(["test"] * 2, filepath=""))  # flickr30k has no folders
    assert read(json_file(path, root=str(folder / "val"))) == [(0, captions(0)), (1, captions(1))]


def test_captions_of_coco(folder):
    images = [{"id": 10 * number, "file_name": f"val/{number}.png"} for number in (2, 0, 1)]
    items = [{"image_id": 10 * number, "id": i, "caption": f"{i}"} for i, number in enumerate((0, 2, 0, 7, 2, 0))]
    with pytest.warns(UserWarning, match="2 images; left out: 1 without a caption, 1 captions of other images"):
        source = json_file(write(folder, {"images": images, "annotations": items}), split="val")
    assert read(source) == [(2, ("1", "4")), (0, ("0", "2", "5"))]


def test_lists_of_records(folder):
    rows = [{"image": f"val/{number}.png", "caption": list(captions(number))} for number in range(3)]
    assert read(json_file(write(folder, rows))) == [(number, captions(number)) for number in range(3)]
    rows = [{"file": f"{n}.png", "words": "a", "split": "test" if n else "val"} for n in range(3)]
    source = json_file(write(folder, rows), f"{folder}/val", "test", "file", "words")
    assert read(source) == [(1, ("a",)), (2, ("a",))]


def test_captions_by_image(folder):
    path = write(folder, {"val/1.png": ["one", "two"], "val/0.png": "three"})
    assert read(json_file(path)) == [(1, ("one", "two")), (0, ("three",))]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[" + "9" * 5000 + "]", "is not JSON"),
        (b"\xff\xfe[\0]\0", "is not JSON"),
        ('{"image": "a", "text": "b"}\n{"image": "a", "text": "b"}', "is not JSON .*data=jsonl"),
        ('[{"image": "a", "text": "b", "text": "c"}]', "the key 'text' appears twice"),
        ("7", "neither"),
        ({"image": "a", "text": "b"}, "neither .*data=jsonl"),
        ({"images": {}}, "neither"),
        ([], "has no images"),
        ({"images": []}, "has no images"),
        ([{"image": "a"}], "no column 'text'"),
        (["a"], "no column 'image'"),
        ({"images": [{"file_name": "a"}], "annotations": []}, 'an image without an "id"'),
        ({"images": [{"id": 1}, {"id": 1}], "annotations": []}, 'an image without an "id" of its own'),
        ({"images": [{"id": []}], "annotations": []}, 'an image without an "id"'),
        ({"images": [{"id": 1}], "annotations": [{"image_id": {}, "caption": ""}]}, "an annotation without"),
        ({"images": [{"id": 1}], "annotations": 5}, "an annotation without"),
        ({"images": [{"id": 1}], "annotations": []}, "has no images"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*left out")
def test_a_file_that_cannot_be_read_is_one_line(folder, value, message):
    with pytest.raises(UserError, match=message) as error:
        json_file(write(folder, value))
    assert "\n" not in str(error.value)


def test_rows_that_cannot_be_read(folder):
    value = karpathy(["test"] * 8)
    good, *wrong = value["images"]
    wrong[0]["sentences"] = []
    wrong[1]["sentences"] = [{"tokens": ["a"]}]
    wrong[2]["sentences"] = "a text"
    wrong[3]["filename"] = None
    wrong[4]["sentences"] = [{"raw": 5}]
    wrong[5]["sentences"] = None
    wrong[6]["filepath"] = ["val"]
    source = json_file(write(folder, value))
    assert source[0]["text"] == captions(0)
    messages = ("no caption", "no caption", "", "not a path", "not text but 5", "no caption", "not a path")
    for index, message in enumerate(messages, 1):
        if message:
            with pytest.raises(UnreadableError, match=message):
                source[index]
