"""A folder of classes splits by the names of its files, the same share of each class, wherever it lies."""

import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data.image.own_images import Count, SmallCopies, count, own_images
from swin_jax.data.sources import image_folder


def fill(folder, numbers, size=(6, 5)):
    """A folder with so many images of each class."""
    for name, number in numbers.items():
        (folder / name).mkdir(parents=True)
        for i in range(number):
            Image.new("RGB", size, (i, 0, 0)).save(folder / name / f"{i}.png")
    return str(folder)


def names(source):
    return sorted("/".join(source.record_name(i).split("/")[-2:]) for i in range(len(source)))


def parts(root, **options):
    return tuple(names(own_images(root, split, **options)) for split in ("train", "val"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("own") / "mine", {"cat": 10, "dog": 20, "eel": 3})


def test_the_parts_are_disjoint_complete_and_the_same_share_of_each_class(folder):
    train, val = parts(folder)
    assert sorted(train + val) == names(image_folder(folder)) and not {*train} & {*val}
    assert [sum(name.startswith(kind) for name in val) for kind in ("cat", "dog", "eel")] == [2, 4, 1]
    for split in ("train", "val"):
        source = own_images(folder, split)
        assert source.class_names == ("cat", "dog", "eel")
        for i in range(len(source)):
            kind = source.record_name(i).split("/")[-2]
            assert source.class_names[source[i]["label"]] == kind
    found = count(folder)
    assert (found.classes, found.train, found.val) == (3, len(train), len(val)) == (3, 26, 7)


def test_names_and_the_seed_decide(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    assert parts(str(tmp_path / "copy")) == parts(folder)
    assert parts(folder, seed=1) != parts(folder) == parts(folder, seed=0)
    Image.new("RGB", (4, 4)).save(tmp_path / "copy" / "dog" / "new.png")
    before, after = ({*parts(root)[1]} for root in (folder, str(tmp_path / "copy")))
    assert len(before - after) <= 1


@pytest.mark.parametrize("share, held", [(0.01, 1), (0.5, 2), (0.9, 2)])
def test_a_small_class_keeps_an_image_in_each_part(share, held, tmp_path):
    root = fill(tmp_path / "mine", {"a": 3, "b": 3})
    assert [len(part) for part in parts(root, share=share)] == [6 - 2 * held, 2 * held]


@pytest.mark.parametrize("val", ["val", "validation", "valid", "dev", "eval", "test"])
def test_a_folder_that_is_split_is_taken_as_it_is(val, tmp_path):
    fill(tmp_path / "train", {"a": 3, "b": 4})
    fill(tmp_path / val, {"a": 1, "b": 2})
    assert [len(part) for part in parts(str(tmp_path))] == [7, 3]
    shutil.rmtree(tmp_path / val)
    assert [len(part) for part in parts(str(tmp_path))] == [5, 2]  # then a part of train is held back


def test_val_goes_before_test(tmp_path):
    for split, number in {"train": 4, "test": 1, "val": 2}.items():
        fill(tmp_path / split, {"a": number, "b": number})
    with pytest.warns(UserWarning, match="read train and val, and not the images in test$"):
        assert [len(part) for part in parts(str(tmp_path))] == [8, 4]


def flat(root, split, numbers):
    """A split of images without folders, and the list of their classes beside it."""
    (root / split).mkdir(parents=True)
    rows = [(f"{kind}_{i}.png", kind) for kind, number in numbers.items() for i in range(number)]
    for name, _ in rows:
        Image.new("RGB", (4, 4)).save(root / split / name)
    (root / f"{split}.csv").write_text("".join(f"{name},{kind}\n" for name, kind in [("path", "label"), *rows]))


def test_a_list_beside_a_folder_without_classes_makes_a_split(tmp_path):
    numbers = {"cat": 1, "dog": 2}
    flat(tmp_path, "val", numbers)
    fill(tmp_path / "train", {"cat": 3, "dog": 4})
    assert [len(part) for part in parts(str(tmp_path))] == [7, 3]
    assert parts(str(tmp_path))[1] == names(image_folder(str(tmp_path), "val"))
    flat(tmp_path / "lists", "train", {"cat": 10, "dog": 5})
    assert count(str(tmp_path / "lists")) == Count(2, 12, 3)
    flat(tmp_path / "lists", "val", numbers)
    assert count(str(tmp_path / "lists")) == Count(2, 15, 3)
    (tmp_path / "lists" / "train").rename(tmp_path / "lists" / "cow")
    (tmp_path / "lists" / "train.csv").unlink()
    with pytest.warns(UserWarning, match="there is no train, so that val is not read as a split"):
        assert count(str(tmp_path / "lists")).classes == 2  # the folders


def test_a_test_set_without_labels_is_said_and_not_read(tmp_path):
    fill(tmp_path / "train", {"a": 5, "b": 5})
    flat(tmp_path, "test", {"x": 3})
    (tmp_path / "test.csv").write_text("id\nx_0.png\nx_1.png\n")
    with pytest.warns(UserWarning) as said:
        assert count(str(tmp_path)) == Count(2, 8, 2)
    said = [str(one.message) for one in said]
    assert any(line.startswith("the images of test are not read: ") for line in said)
    assert any(line.endswith("read train, and not the images in test") for line in said)


def test_parts_without_labels_lead_to_folders_of_classes_or_lists(tmp_path):
    for split in ("train", "val"):
        flat(tmp_path, split, {"a": 2})
        (tmp_path / f"{split}.csv").unlink()
    with pytest.raises(UserError, match="not classes: train, val; .* class folders, train/CLASS, or a list beside it$"):
        count(str(tmp_path))


def test_a_class_may_be_called_train(tmp_path):
    root = fill(tmp_path / "mine", {"bus": 5, "train": 5})
    assert own_images(root, "train").class_names == ("bus", "train")


def test_a_train_that_may_be_a_class_or_a_part_is_refused(tmp_path):
    for name in ("bus", "car", "train"):
        fill(tmp_path / name, {"monday": 3, "tuesday": 3})
    for read in (count, lambda root: own_images(root, "val")):
        with pytest.raises(UserError, match="beside train: bus, car. If train is a class .*data_dir=.*/train$"):
            read(str(tmp_path))
    assert own_images(str(tmp_path / "train"), "train").class_names == ("monday", "tuesday")
    fill(tmp_path / "val", {"monday": 1, "tuesday": 1})
    with pytest.warns(UserWarning, match="read train and val, and not the images in bus, car$"):
        assert count(str(tmp_path)) == Count(2, 6, 2)


def test_folders_beside_train_that_hold_other_things_are_passed_over(tmp_path):
    fill(tmp_path / "train", {"a": 3, "b": 3})
    for name in ("test1/1.png", "notes/a.txt", ".cache/a.png", "@eaDir/a.png", "unseen_test/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match="read train, and not the images in test1, unseen_test$"):
        assert count(str(tmp_path)) == Count(2, 4, 2)
    (tmp_path / "train").rename(tmp_path / "images")
    (tmp_path / "train.csv").write_text("".join(f"images/{k}/{i}.png,{k}\n" for k in "ab" for i in range(3)))
    assert count(str(tmp_path)) == Count(2, 4, 2)


@pytest.mark.parametrize(
    "numbers, message",
    [
        ({"a": 5}, "has one class, 'a': put the images of each class"),
        ({"a": 5, "b": 1}, "class 'b' in .* has 1 image: each needs at least two"),
        ({}, "there is no folder"),
    ],
)
def test_what_cannot_be_split_is_one_line(numbers, message, tmp_path):
    root = fill(tmp_path / "mine", numbers)
    for split in ("train", "val"):
        with pytest.raises(UserError, match=message) as caught:
            own_images(root, split)
        if numbers:
            with pytest.raises(UserError, match=message):
                count(root)
        assert "\n" not in str(caught.value)


def test_no_folder_and_no_such_split_are_errors():
    with pytest.raises(UserError, match="give --config.data_dir=DIR"):
        own_images("", "train")
    with pytest.raises(UserError, match="is 'train' or 'val', not 'test'"):
        own_images("x", "test")
    assert count("") == count("nowhere") == Count(2, 1, 1)


def test_several_labels_need_a_val(tmp_path):
    fill(tmp_path / "train", {"x": 2})
    shutil.move(tmp_path / "train" / "x", tmp_path / "x")
    shutil.rmtree(tmp_path / "train")
    (tmp_path / "train.csv").write_text("path,label\nx/0.png,a;b\nx/1.png,b\n")
    with pytest.raises(UserError, match="cannot be split automatically, .* give .*val too"):
        own_images(str(tmp_path), "train")


class Reads:
    """Two images, and how often each was read."""

    class_names = ("a", "b")

    def __init__(self):
        self.count = [0, 0]

    def __len__(self):
        return 2

    def __getitem__(self, index):
        self.count[index] += 1
        return {"image": Image.new("L", ((40, 20), (8, 30))[index], 9), "label": index}

    def record_name(self, index):
        return f"image {index}"


def test_copies_are_small_and_read_once():
    source = Reads()
    copies = SmallCopies(source, 10)
    for _ in range(3):
        assert [copies[i]["image"].size for i in range(2)] == [(20, 10), (8, 30)]
    assert source.count == [1, 1] and np.asarray(copies[0]["image"]).mean() == 9
    assert copies[1]["label"] == 1 and copies.record_name(1) == "image 1" and len(copies) == 2
    copies[0]["image"] = None  # of the caller's own record
    assert copies[0]["image"].size == (20, 10)


def test_copies_beyond_the_limit_are_read_again():
    source = Reads()
    copies = SmallCopies(source, 10, limit=700)
    for _ in range(3):
        copies[0], copies[1]
    assert source.count == [1, 3]


def test_copies_travel_to_processes_without_their_pixels(folder):
    copies = own_images(folder, "train", side=4)
    copies[0]
    again = pickle.loads(pickle.dumps(copies))
    assert not again._examples and again[0]["image"].size == copies[0]["image"].size == (5, 4)
