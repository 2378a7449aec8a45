"""Sources: digits, folders, TFDS sets in array_record files, the cache, and what a user gets wrong."""

import io
import json
import os
import pickle
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data import labels, sources
from swin_jax.data.builders import write
from swin_jax.data.image.transforms import eval_transform, train_transform
from swin_jax.data.pipeline import EvalData, TrainData

LENGTH = 12


def picture(index, mode="RGB"):
    return Image.fromarray(np.random.default_rng(index).integers(0, 256, (20, 24, 3)).astype(np.uint8)).convert(mode)


def encoded(image, file_format):
    file = io.BytesIO()
    image.save(file, file_format)
    return file.getvalue()


def toy(data_dir, version="1.0.0", broken=()):
    """Writes a data set 'toy' of PNG images; the records in `broken` are cut."""
    import tensorflow_datasets as tfds

    def examples():
        for index in range(LENGTH):
            data = encoded(picture(index), "PNG")
            data = data[: len(data) // 2] if index in broken else data
            yield {"picture": data, "kind": index % 3, "note": f"note {index}"}

    features = {
        "picture": tfds.features.Image(encoding_format="png"),
        "kind": tfds.features.ClassLabel(names=["a", "b", "c"]),
        "note": tfds.features.Text(),
    }
    write.write(str(data_dir), "toy", version, features, {"train": write.Split(examples(), LENGTH)})
    return str(data_dir)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return toy(tmp_path_factory.mktemp("tfds"))


def open_toy(data_dir, name="toy", split="train", image_key="picture", label_key="kind", **kwargs):
    return sources.tfds(name, split, data_dir, image_key=image_key, label_key=label_key, **kwargs)


def test_digits_are_split_once_and_stratified():
    train, test = sources.digits("train"), sources.digits("test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.class_names == tuple("0123456789")
    train_counts, test_counts = np.bincount(train.labels), np.bincount(test.labels)
    np.testing.assert_allclose(test_counts / (train_counts + test_counts), 0.2, atol=0.01)
    example = train[0]
    assert example["image"].shape == (8, 8) and example["image"].dtype == np.uint8 and isinstance(example["label"], int)
    assert train.images.max() == 255 and train.images.min() == 0
    rows = {image.tobytes() for image in train.images}
    assert sum(image.tobytes() in rows for image in test.images) < 5  # the set itself holds hardly any duplicate
    np.testing.assert_array_equal(sources.digits("test").labels, test.labels)
    assert test.record_name(7) == "digits test record 7"
    with pytest.raises(UserError, match="validation"):
        sources.digits("validation")


def test_tfds_reads_what_was_written(data_dir):
    source = open_toy(data_dir)
    assert len(source) == LENGTH and source.class_names == ("a", "b", "c")
    for index in range(LENGTH):
        np.testing.assert_array_equal(np.asarray(source[index]["image"]), np.asarray(picture(index)))
        assert source[index]["label"] == index % 3 and isinstance(source[index]["label"], int)
    assert source.record_name(3) == "toy train record 3"
    half = open_toy(data_dir, split="train[50%:]")
    assert len(half) == LENGTH // 2
    np.testing.assert_array_equal(np.asarray(half[0]["image"]), np.asarray(picture(LENGTH // 2)))


def test_tfds_source_pickles_small_and_reads_in_threads(data_dir):
    for in_memory in (False, True):
        source = open_toy(data_dir, in_memory=in_memory)
        labels = [source[index]["label"] for index in range(LENGTH)]
        pickled = pickle.dumps(source)
        assert len(pickled) < 1000
        copy = pickle.loads(pickled)
        with ThreadPoolExecutor(4) as pool:
            examples = list(pool.map(copy.__getitem__, list(range(LENGTH)) * 10))
        assert [example["label"] for example in examples] == labels * 10


def test_cache_gives_equal_batches_and_reads_a_record_once(data_dir, monkeypatch):
    plain, cached = open_toy(data_dir), open_toy(data_dir, in_memory=True)
    batches = []
    for source in (plain, cached):
        data = TrainData(source, train_transform(16), 5, num_threads=0)
        stream = data.batches(0, range(5))
        batches.append([next(stream) for _ in range(6)])
    for first, second in zip(*batches, strict=True):
        np.testing.assert_array_equal(first["image"], second["image"])
        np.testing.assert_array_equal(first["label"], second["label"])
    monkeypatch.setattr(sources.TfdsSource, "__getitem__", lambda self, index: pytest.fail("read again"))
    assert [cached[index]["label"] for index in range(LENGTH)] == [index % 3 for index in range(LENGTH)]
    assert cached.record_name(3) == plain.record_name(3) and cached.class_names == plain.class_names


def test_cached_images_cannot_be_changed(data_dir):
    with pytest.raises(ValueError, match="read-only"):
        open_toy(data_dir, in_memory=True)[0]["image"][:] = 0


def test_truncated_record_is_replaced_and_named(tmp_path, caplog):
    source = open_toy(toy(tmp_path, broken=(4,)))
    (batch,) = [next(TrainData(source, train_transform(16), LENGTH, num_threads=0).batches(0, range(LENGTH)))]
    assert batch["bad"].sum() == 1
    assert "toy train record 4" in caplog.text
    with pytest.raises(UserError, match="toy train record 4"):
        list(EvalData(source, eval_transform(16), 4).batches(4, range(4)))


def test_newest_version_is_read_unless_one_is_named(tmp_path, data_dir):
    for version in ("1.9.0", "1.10.0"):
        toy(tmp_path, version)
    (tmp_path / "toy" / "2.0.0.incomplete").mkdir()
    assert "1.10.0" in str(open_toy(tmp_path).__reduce__())
    assert "1.9.0" in str(open_toy(tmp_path, name="toy:1.9.0").__reduce__())
    with pytest.raises(UserError, match="no version 3.0.0 .* there is 1.9.0, 1.10.0"):
        open_toy(tmp_path, name="toy:3.0.0")


def test_data_dir_comes_from_the_environment(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    assert len(open_toy(None)) == LENGTH


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"name": "imagenet2012"}, "python -m swin_jax.data.builders.imagenet2012 --data_dir"),
        ({"name": "cifar10:3.0.2"}, "tfds build cifar10:3.0.2 --data_dir=.* --file_format=array_record"),
        ({"name": "not a name"}, "'not a name'"),
        ({"split": "test"}, "no split 'test'; it has train"),
        ({"split": "train[:5"}, "train"),
        ({"image_key": "image"}, "no feature 'image'; it has kind, note, picture"),
        ({"image_key": "note"}, "'note' of toy is not an image"),
    ],
)
def test_what_tfds_cannot_open_is_a_user_error_of_one_line(data_dir, kwargs, message):
    with pytest.raises(UserError, match=message) as error:
        open_toy(data_dir, **kwargs)
    assert "\n" not in str(error.value)


SLICES = {
    "train[50%:10%]": "slice begins at {half} and ends before {tenth}$",
    "train[5:4]": "of its {all} records, the slice begins at 5 and ends before 4$",  # which TFDS takes for train[5:]
    "train[3:3]": "begins at 3 and ends before 3$",
    "train[:0%]": "begins at 0 and ends before 0$",
    "train[100%:]": "begins at {all} and ends before {all}$",
    "train[-1:-2]": "selects no records of 'train'",
    "train[:4]+train[4:2]": "selects no records of 'train': .* begins at 4 and ends before 2$",
}


@pytest.mark.parametrize("split", SLICES)
def test_a_slice_without_records_is_a_user_error_of_one_line(data_dir, split):
    message = SLICES[split].format(all=LENGTH, half=LENGTH // 2, tenth=round(LENGTH / 10))
    with pytest.raises(UserError, match=message) as error:
        open_toy(data_dir, split=split)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("split", ["train[1%:150%]", f"train[-{LENGTH + 1}:]", "train[a:b]", "train[]", "train+test"])
def test_a_slice_that_is_none_is_a_user_error_of_one_line(data_dir, split):
    with pytest.raises(UserError, match="toy: cannot open the split") as error:
        open_toy(data_dir, split=split)
    assert "\n" not in str(error.value) and repr(split) in str(error.value)


def test_slices_take_what_they_say(data_dir):
    for split, indices in (("train[2:5]", [2, 3, 4]), ("train[-2:]", [-2, -1]), ("train[:1]+train[4:5]", [0, 4])):
        source = open_toy(data_dir, split=split)
        assert [source[i]["label"] for i in range(len(source))] == [range(LENGTH)[i] % 3 for i in indices]


def test_tfrecord_directory_gets_the_conversion_command(tmp_path):
    toy(tmp_path)
    path = tmp_path / "toy" / "1.0.0" / "dataset_info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fileFormat": "tfrecord"}))
    command = f"tfds convert_format --dataset_version_dir={path.parent} --out_file_format=array_record"
    with pytest.raises(UserError, match="tfrecord") as error:
        open_toy(tmp_path)
    assert str(error.value).endswith(command) and "\n" not in str(error.value)


def test_converted_directory_is_read(tmp_path):
    """After the conversion the directory names array_record as its second format."""
    toy(tmp_path)
    path = tmp_path / "toy" / "1.0.0" / "dataset_info.json"
    info = {**json.loads(path.read_text()), "fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
    path.write_text(json.dumps(info))
    assert open_toy(tmp_path)[5]["label"] == 2


def test_image_folder_sorts_classes_and_files(tmp_path):
    for name in ("b/2.png", "b/deep/1.JPG", "a/z.bmp", "a/.hidden.png", ".git/x.png"):
        path = tmp_path / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(0).save(path, "JPEG" if path.suffix == ".JPG" else None)
    (tmp_path / "val" / "a" / "readme.txt").write_text("not an image")
    with pytest.warns(UserWarning, match=r"val: left out 1: .txt \(1\)$"):
        source = sources.image_folder(str(tmp_path), split="val")
    assert source.class_names == ("a", "b") and source.paths == ("a/z.bmp", "b/2.png", "b/deep/1.JPG")
    assert [source[index]["label"] for index in range(3)] == [0, 1, 1]
    assert source.record_name(0) == str(tmp_path / "val" / "a" / "z.bmp")
    np.testing.assert_array_equal(np.asarray(source[0]["image"]), np.asarray(picture(0)))
    with pytest.warns(UserWarning, match="left out 1"):
        flat = sources.flat_folder(str(tmp_path / "val"))
    assert flat.paths == source.paths and flat.class_names == () and flat[2]["label"] == 0


def test_a_folder_with_loops_gives_each_picture_once_and_its_own_classes(tmp_path):
    for name in ("cat/1.png", "dog/2.png", "dog/deep/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(0).save(tmp_path / name)
    for link, target in (("all", "."), ("cat/up", ".."), ("cat/friend", "../dog"), ("dog/deep/top", "../..")):
        (tmp_path / link).symlink_to(target)
    os.mkfifo(tmp_path / "dog" / "pipe.jpg")
    with pytest.warns(UserWarning, match="left out 5: links to folders that are read anyway .4., pipes"):
        source = sources.image_folder(str(tmp_path))
    assert source.class_names == ("cat", "dog")
    assert source.paths == ("cat/1.png", "dog/2.png", "dog/deep/3.png") and source.labels == (0, 1, 1)
    with pytest.warns(UserWarning, match="left out 5"):
        assert sources.flat_folder(str(tmp_path)).paths == source.paths


def test_truncated_file_is_replaced_and_named(tmp_path, caplog):
    (tmp_path / "a").mkdir()
    for index in range(4):
        picture(index).save(tmp_path / "a" / f"{index}.jpg")
    damaged = tmp_path / "a" / "2.jpg"
    damaged.write_bytes(damaged.read_bytes()[:500])
    data = TrainData(sources.image_folder(str(tmp_path)), train_transform(16), 4, num_threads=0)
    batch = next(data.batches(0, range(4)))
    assert batch["bad"].sum() == 1 and str(damaged) in caplog.text


def test_folder_errors(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        sources.image_folder(str(tmp_path / "missing"))
    with pytest.raises(UserError, match="no folder .*/test"):
        sources.image_folder(str(tmp_path), split="test")
    with pytest.raises(UserError, match="no class folders"):
        sources.image_folder(str(tmp_path))
    with pytest.raises(UserError, match="no images in"):
        sources.flat_folder(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no images"):
        sources.image_folder(str(tmp_path))


# ---- lists of images ----


def listed_folder(root, lists, places=("",)):
    """Pictures 0.png and 1.png in each of the places, and lists by name."""
    for place in places:
        (root / place).mkdir(parents=True, exist_ok=True)
        for index in range(2):
            picture(index).save(root / place / f"{index}.png")
    for name, text in lists.items():
        (root / name).write_text(text)
    return str(root)


@pytest.mark.parametrize("place", ["", "train"])
@pytest.mark.parametrize(
    "name, text",
    [
        ("train.csv", "path,label\n1.png,cat\n0.png,bird\n"),
        ("train.txt", "1.png cat\n0.png bird\n"),
        ("train_map.txt", "1.png\tcat\n0.png\tbird\n"),
        ("train.jsonl", '{"path": "1.png", "label": "cat"}\n{"path": "0.png", "label": "bird"}'),
    ],
)
def test_a_list_beside_stands_for_folders_of_classes(tmp_path, name, text, place):
    source = sources.image_folder(listed_folder(tmp_path, {name: text}, [place]), "train")
    assert source.class_names == ("bird", "cat") and [source[i]["label"] for i in range(2)] == [1, 0]
    np.testing.assert_array_equal(np.asarray(source[0]["image"]), np.asarray(picture(1)))


def test_folders_of_classes_come_before_lists_and_names_from_their_file(tmp_path):
    root = listed_folder(tmp_path, {"train.csv": "0.png,1\n1.png,0", "classes.txt": "cow\nant"}, ["", "val/cat"])
    assert sources.image_folder(root, "train").class_names == ("cow", "ant")
    (tmp_path / "val.csv").write_text("0.png,0")
    assert sources.image_folder(root, "val").class_names == ("cat",)
    (tmp_path / "train.txt").write_text("0.png 1")
    with pytest.raises(UserError, match="several lists for train: train.csv, train.txt"):
        sources.image_folder(root, "train")
    with pytest.raises(UserError, match="first image, nowhere.png, is not in"):
        listed_folder(tmp_path, {"other.csv": "nowhere.png,0"})
        sources.image_list(str(tmp_path / "other.csv"))
    with pytest.raises(UserError, match="missing.zip, or in a list"):
        sources.image_folder(root, "missing")


BATCHES = ["train/batch_0", "train/batch_1"]
ILL = [(path, "ill" if path.startswith("batch_0/0") else "healthy") for path in ("batch_0/0", "batch_0/1", "batch_1/1")]


@pytest.mark.parametrize("place", ["", "train/", "./train/"])
def test_a_list_beside_folders_of_other_kinds_has_the_labels(tmp_path, place):
    rows = "".join(f"{place}{path}.png,{label}\n" for path, label in ILL)
    root = listed_folder(tmp_path, {"train.csv": rows}, BATCHES)
    with pytest.warns(UserWarning, match=r"labels in .*train are those of .*train.csv \(healthy, ill\), not the names"):
        source = sources.image_folder(root, "train")
    assert source.class_names == ("healthy", "ill") and source.labels == (1, 0, 0)
    assert source[0]["image"].size == (24, 20)


@pytest.mark.parametrize(
    "text, says",
    [
        ("batch_0/0.png,1\nbatch_0/1.png,1\nbatch_1/0.png,0\nbatch_1/1.png,0\n", None),
        ("batch_0/0.png,1\nbatch_1/1.png,0\n", "train.csv is not read, .*: it lists 2 of 4 files"),
        ("a.png,1\nb.png,0\nbatch_0/0.png,3\n", "train.csv is not read, .*: only 1 of its 3 files are in them"),
        ("a.png\n", "a list of train is not read, .* the classes: .*train.csv"),
        ("", "a list of train is not read, .*lists no files"),
    ],
)
def test_a_list_beside_folders_of_classes_is_said_unless_it_agrees(tmp_path, text, says):
    root = listed_folder(tmp_path, {"train.csv": text}, BATCHES)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert sources.image_folder(root, "train").class_names == ("batch_0", "batch_1")
    assert len(said) == (says is not None)
    assert not says or re.search(says, str(said[0].message))


@pytest.mark.parametrize("place", ["", "train"])
def test_a_list_whose_first_image_is_missing_is_read(tmp_path, place):
    root = listed_folder(tmp_path, {"train.csv": "gone.png,cat\n0.png,cat\n1.png,dog\n"}, [place])
    source = sources.image_folder(root, "train")
    assert [os.path.isfile(source.record_name(i)) for i in range(3)] == [False, True, True]
    data = EvalData(source, eval_transform(16), 4, num_threads=0, unreadable="leave_out")
    assert next(data.batches(4, range(4)))["weight"].tolist() == [0, 1, 1, 0]


def test_several_labels_reach_the_batches_of_training_and_evaluation(tmp_path):
    root = listed_folder(tmp_path, {"train.csv": "0.png,cat;dog\n1.png,bird\n"})
    source = sources.image_folder(root, "train")
    data = EvalData(source, eval_transform(16), 2, num_threads=0, expected_classes=3)
    batch = next(data.batches(2, range(2)))
    assert data.multi_label and batch["label"].dtype == np.int8
    assert batch["label"].tolist() == [[0, 1, 1], [1, 0, 0]]
    mapped = data.with_classes((3, 0, 1), ("cat", "dog", "elk", "bird"))
    mapped = next(mapped.__class__(mapped.source, mapped.transform, 2, num_threads=0).batches(2, range(2)))
    assert mapped["label"].tolist() == [[1, 1, -1, 0], [0, 0, -1, 1]]
    trained = next(TrainData(source, train_transform(16), 2, num_threads=0).batches(0, range(2)))
    assert trained["label"].shape == (2, 3) and trained["label"].dtype == np.int8
    with pytest.raises(UserError, match="3 marks; the model has 4 classes"):
        labels.check(batch["label"], 4)
