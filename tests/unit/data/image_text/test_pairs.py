"""Image-text pairs from TFDS, JSON lines and folders, through the training and evaluation pipelines."""

import functools
import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data import fake, pipeline, subsets
from swin_jax.data.builders import write
from swin_jax.data.image.transforms import clip_eval_transform, clip_train_transform
from swin_jax.data.image_text import lists, pairs, tokenizer

SIZE, LENGTH = 8, 12
WORDS = ("red", "green", "blue", "black")


def png(number):
    file = io.BytesIO()
    Image.new("RGB", (9, 10), (number, 2 * number, 3 * number)).save(file, "PNG")
    return file.getvalue()


def tfds_set(folder):
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(),
        "name": tfds.features.Text(),
        "keywords": tfds.features.Sequence(tfds.features.Text()),
        "captions": tfds.features.Sequence({"text": tfds.features.Text(), "id": np.int64}),
        "label": tfds.features.ClassLabel(names=WORDS),
        "number": np.int64,
    }
    examples = [
        {
            "image": png(i),
            "name": word,
            "keywords": ["color", f"{word}ish"][: 1 + i % 2],
            "captions": [{"text": f"{word} one", "id": 0}, {"text": f"{word} two", "id": 1}],
            "label": i,
            "number": i,
        }
        for i, word in enumerate(WORDS)
    ]
    write.write(str(folder), "colors", "1.0.0", features, {"train": write.Split(examples)})
    return functools.partial(pairs.tfds, "colors", "train", str(folder))


def jsonl_set(folder, lines):
    for i in range(4):
        (folder / f"{i}.png").write_bytes(png(i))
    path = folder / "pairs.jsonl"
    lines = [line if isinstance(line, (bytes, str)) else json.dumps(line) for line in lines]
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines))
    return lists.jsonl(str(path))


def train_data(source, batch_size=4, **fields):
    transform = pairs.train_transform(clip_train_transform(SIZE), context_length=LENGTH, **fields)
    return pipeline.TrainData(source, transform, batch_size, num_threads=0)


def test_tfds_texts_of_every_kind(tmp_path):
    make = tfds_set(tmp_path)
    source = make(text_key="name", extra=("keywords", "captions/text"), label_key="label")
    assert len(source) == 4 and source.class_names == WORDS
    example = pickle.loads(pickle.dumps(source))[1]
    assert example.pop("image").size == (9, 10)
    assert example == source.record(1)
    assert (
        example
        == {
            "text": ("green",),
            "keywords": ("color", "greenish"),
            "captions/text": ("green one", "green two"),
            "label": 1,
        }
        or example["label"] == 1
    )
    assert make(text_key="captions/text")[2]["text"] == ("blue one", "blue two")
    assert make(text_key="label")[3]["text"] == ("black",)
    cached = make(text_key="name", in_memory=True)
    assert cached[0]["text"] == ("red",) and isinstance(cached[0]["image"], np.ndarray)


@pytest.mark.parametrize(("key", "message"), [("caption", "no feature 'caption'"), ("number", "is not a text")])
def test_tfds_wrong_text_key(tmp_path, key, message):
    with pytest.raises(UserError, match=message):
        tfds_set(tmp_path)(text_key=key)


def test_jsonl(tmp_path):
    lines = [{"image": "0.png", "text": "é one"}, {"image": "1.png", "text": ["two", " ", "zwei"], "id": 7}, "", "  "]
    source = jsonl_set(tmp_path, lines)
    assert len(source) == 2
    assert [source[i]["text"] for i in range(2)] == [("é one",), ("two", "zwei")]
    assert source[1]["id"] == 7 and source[1]["image"].getpixel((0, 0)) == (1, 2, 3)
    assert pickle.loads(pickle.dumps(source))[1]["text"] == ("two", "zwei")


@pytest.mark.parametrize("make", [lambda p: lists.jsonl(f"{p}/none.jsonl"), lambda p: jsonl_set(p, [""])])
def test_jsonl_wrong_file(tmp_path, make):
    with pytest.raises(UserError, match="there is no file|is empty"):
        make(tmp_path)


@pytest.mark.parametrize("path", [None, ""])
@pytest.mark.parametrize(("make", "kind"), [(lists.jsonl, "FILE.jsonl"), (pairs.folder, "DIR")])
def test_no_path(make, kind, path):
    with pytest.raises(UserError, match=f"--config.pairs={kind} .*--config.validation_pairs={kind}"):
        make(path)


def test_jsonl_records_are_named_by_their_line(tmp_path):
    good = {"image": "0.png", "text": "zero"}
    source = jsonl_set(tmp_path, ["", good, "{damaged", "", "  ", good, good, ""])
    lines = [int(source.record_name(i).rsplit("pairs.jsonl line ")[1]) for i in range(len(source))]
    assert lines == [2, 3, 6, 7]
    with pytest.raises(UnreadableError, match="not JSON: .* at character 2 of the line"):
        source.record(1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"image": "0.png", "text": None}, "no caption"),
        ({"image": "0.png", "text": " "}, "the caption is empty"),
        ({"image": "0.png", "text": 5}, "'text' is neither a caption nor a list"),
        ({"image": "0.png", "text": ["a", 5]}, "caption 2 of 'text' is not text but 5"),
        ({"image": "0.png", "text": [["a"]]}, "caption 1 of 'text' is not text but .'a'."),
        ({"image": "0.png", "text": {"a": 1}}, "'text' is neither a caption nor a list"),
        ({"image": "0.png", "text": "a\0b"}, "NUL"),
        ({"image": "0.png", "text": "\ud83d"}, "half a surrogate pair"),
        ({"image": "0.png", "text": "a " * 60_000}, "a caption of 120,000 characters"),
        ({"image": "0.png", "caption": "a"}, "no key 'text'; it has 'image', 'caption': give .*source.text_key="),
        ({"file": "0.png", "text": "a"}, "no key 'image'; it has 'file', 'text': give .*source.image_key="),
        ({"image": 3, "text": "a"}, "'image' is not a path"),
        ({"image": "", "text": "a"}, "'image' is not a path"),
        ({"image": "0\0.png", "text": "a"}, "'image' is not a path"),
        (["0.png", "a"], "not a JSON object"),
        ("7", "not a JSON object"),
        ("[" * 100_000, "not JSON that can be read"),
        ('{"image": "0.png", "text": ' + "[" * 100_000, "not JSON that can be read"),
        ('{"image": "0.png", "text": "a", "id": ' + "9" * 5000 + "}", "not JSON that can be read"),
        ('{"image": "0.png", "text": "a", "text": "b"}', "the key 'text' appears twice"),
        ('{"image": "0.png", "image": "1.png", "text": "b"}', "the key 'image' appears twice"),
        (b'{"image": "0.png", "text": "caf\xe9"}', "not UTF-8, at byte 32"),
        (b"\0" * 40, "not JSON"),
    ],
)
def test_jsonl_says_what_is_wrong_with_a_line(tmp_path, line, message):
    source = jsonl_set(tmp_path, [{"image": "0.png", "text": "zero"}, line])
    with pytest.raises(UnreadableError, match=message) as error:
        source[1]
    assert "\n" not in str(error.value)
    batch = next(train_data(source, 2).batches(0, range(2)))  # replaced and counted
    assert sorted(batch["bad"].tolist()) == [0, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"picture": "0.png", "text": "a"}, "no column 'image' of images among 'picture', 'text': .*source.image_key="),
        ({"image": "0.png", "words": "a"}, "no column 'text' of captions among 'image', 'words': .*source.text_key="),
        ({"image": "0.png", "caption": "a", "title": "b"}, "captions in 'caption' or 'title': give"),
        ([{"image": "0.png", "text": "a"}], "line 1: not a JSON object; .*data=json"),
        ("{", "line 1: not JSON"),
        ("[" * 100_000, "line 1: not JSON"),
    ],
)
def test_jsonl_without_known_keys(tmp_path, line, message):
    with pytest.raises(UserError, match=message):
        jsonl_set(tmp_path, [line])


@pytest.mark.parametrize("image_key", ["image", "file_name", "filepath"])
@pytest.mark.parametrize("text_key", ["text", "caption", "captions", "title"])
def test_jsonl_finds_the_usual_keys(tmp_path, image_key, text_key):
    source = jsonl_set(tmp_path, [{image_key: "2.png", text_key: ["one", "two"], "id": 3}])
    assert source[0]["text"] == ("one", "two") and source[0]["image"].getpixel((0, 0)) == (2, 4, 6)


def test_jsonl_labels_only_where_they_are_asked_for(tmp_path):
    lines = [{"image": f"{i}.png", "text": WORDS[i], "label": label} for i, label in enumerate(("cat", 7, None))]
    source = jsonl_set(tmp_path, [*lines, {"image": "3.png", "text": "black"}])
    batch = next(train_data(source).batches(0, range(4)))
    assert "label" not in batch and not batch["bad"].any()
    labeled = lists.jsonl(str(tmp_path / "pairs.jsonl"), label_key="label")
    assert labeled[1]["label"] == 7
    for index, message in ((0, "not an integer"), (2, "not an integer"), (3, "no key 'label'.*label_key=")):
        with pytest.raises(UnreadableError, match=message):
            labeled[index]
    batch = next(train_data(labeled).batches(0, range(4)))
    assert batch["label"].tolist() == [7] * 4 and batch["bad"].sum() == 3


def test_tfds_captions_that_are_not_utf8_are_unreadable(tmp_path):
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(), "text": tfds.features.Text()}
    examples = [{"image": png(i), "text": word} for i, word in enumerate((b"caf\xe9", "café"))]
    write.write(str(tmp_path), "cafes", "1.0.0", features, {"train": write.Split(examples)})
    batch = next(train_data(pairs.tfds("cafes", "train", str(tmp_path)), 2).batches(0, range(2)))
    assert sorted(batch["bad"].tolist()) == [0, 1]
    assert [string.strip() for string in tokenizer.decode(batch["text"])] == ["café"] * 2


def test_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for i, name in enumerate(("b.png", "sub/a.png", "c.png")):
        (tmp_path / name).write_bytes(png(i))
    with pytest.raises(UserError, match="has a caption"):
        pairs.folder(str(tmp_path))
    (tmp_path / "b.txt").write_text("\ufeffa bee\n", encoding="utf-8")
    (tmp_path / "sub/a.txt").write_text("an ant")
    with pytest.warns(UserWarning, match="2 pairs; left out: 1 images without .txt .c.png."):
        source = pairs.folder(str(tmp_path))
    assert [source[i]["text"] for i in range(len(source))] == [("a bee",), ("an ant",)]


def test_blank_captions_and_broken_images_are_replaced_and_marked(tmp_path):
    lines = [
        {"image": "0.png", "text": "zero"},
        {"image": "1.png", "text": " "},
        {"image": "none.png", "text": "missing"},
        '{"image": "3.png", "text"',
        {"image": "2.png", "text": "two"},
        {"image": "3.png"},
        {"image": "3.png", "text": None},
    ]
    batch = next(train_data(jsonl_set(tmp_path, lines), 7).batches(0, range(7)))
    rows = [string.split()[0] for string in tokenizer.decode(batch["text"])]
    assert sorted(batch["bad"].tolist()) == [0] * 2 + [1] * 5
    assert sorted(rows) == ["two"] * 4 + ["zero"] * 3  # the next readable one, from the start again at the end
    assert not batch["truncated"].any()


def test_training_batch_and_its_order():
    data = train_data(fake.pairs(SIZE, 4, 16))
    batches = data.batches(0, range(4))
    first, second = next(batches), next(batches)
    assert first["image"].shape == (4, SIZE, SIZE, 3) and first["image"].dtype == np.uint8
    assert first["text"].shape == (4, LENGTH) and first["text"].dtype == np.int32
    assert set(first) == {"image", "text", "truncated", "label", "bad"}
    again = next(data.batches(1, range(2, 4)))
    for key, value in second.items():
        np.testing.assert_array_equal(again[key], value[2:], err_msg=key)
    for label, caption in zip(first["label"], tokenizer.decode(first["text"])):
        assert f"class {label}" in caption


def test_captions_are_drawn_anew_each_epoch():
    caption = pairs.KeywordCaption(("an emoji of {}", "{}"), most=2)
    batches = train_data(fake.pairs(SIZE, 4, 4), caption=caption).batches(0, range(4))
    seen = {string for _ in range(8) for string in tokenizer.decode(next(batches)["text"])}
    assert len(seen) > 8
    assert any(string.startswith("an emoji of") for string in seen) and any("noise" in string for string in seen)
    assert any("," not in string for string in seen)


def test_each_epoch_draws_one_of_several_captions_by_the_seed(tmp_path):
    source = jsonl_set(tmp_path, [{"image": "0.png", "captions": [*WORDS, "white"]}])

    def drawn(seed):
        transform = pairs.train_transform(clip_train_transform(SIZE), context_length=LENGTH)
        batches = pipeline.TrainData(source, transform, 1, seed, num_threads=0).batches(0, range(1))
        return [tokenizer.decode(next(batches)["text"])[0].strip() for _ in range(40)]

    assert set(drawn(0)) == {*WORDS, "white"} and drawn(0) == drawn(0) != drawn(1)


def test_same_batches_from_workers(real_resizing):
    threads = train_data(fake.pairs(SIZE, 4, 16))
    transform = pairs.train_transform(clip_train_transform(SIZE), context_length=LENGTH)
    workers = pipeline.TrainData(fake.pairs(SIZE, 4, 16), transform, 4, num_workers=1)
    expected, batches = next(threads.batches(0, range(4))), workers.batches(0, range(4))
    actual = next(batches)
    batches.close()
    for key, value in expected.items():
        np.testing.assert_array_equal(actual[key], value, err_msg=key)


def test_long_captions_are_cut_and_flagged_or_refused(tmp_path):
    lines = [{"image": "0.png", "text": "dog " * 20}, {"image": "1.png", "text": "dog"}]
    source = jsonl_set(tmp_path, lines)
    batch = next(train_data(source, 2).batches(0, range(2)))
    assert sorted(batch["truncated"].tolist()) == [0, 1]
    assert batch["text"][int(np.argmax(batch["truncated"])), -1] == tokenizer.END
    with pytest.raises(UserError, match="22 tokens.*more than 12"):
        next(train_data(source, 2, truncate=False).batches(0, range(2)))


def test_evaluation_batches():
    transform = pairs.eval_transform(clip_eval_transform(SIZE), context_length=LENGTH)
    batch = next(pipeline.EvalData(fake.pairs(SIZE, 4, 3), transform, 4, num_threads=0).batches(4, range(4)))
    assert batch["weight"].tolist() == [1, 1, 1, 0]
    assert [string.strip() for string in tokenizer.decode(batch["text"])][1] == "a picture of class 1"
    transform = pairs.eval_transform(clip_eval_transform(SIZE), caption=lambda example: example["name"])
    assert tokenizer.decode(transform(fake.pairs(SIZE)[2])["text"]).strip() == "class 2"


def test_select(tmp_path):
    source = pairs.select(tfds_set(tmp_path)(text_key="name"), lambda record: "e" in record["text"][0])
    assert [source[i]["text"][0] for i in range(len(source))] == ["red", "green", "blue"]
    assert isinstance(source, subsets.Selection)
    with pytest.raises(UserError, match="none of the 4 pairs"):
        pairs.select(source.source, lambda record: False)
    lines = [{"image": "0.png", "text": "red"}, {"image": "0.png", "text": 5}, {"image": "1.png", "text": "blue"}]
    with pytest.warns(UserWarning, match="1 pairs cannot be read and are left out, the first is .*line 2"):
        source = pairs.select(jsonl_set(tmp_path, lines), lambda record: "e" in record["text"][0])
    assert [source[i]["text"][0] for i in range(len(source))] == ["red", "blue"]
