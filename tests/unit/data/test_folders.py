"""The files of folders with links, loops and what is not a file."""

import os

import pytest

from swin_jax.core import workdirs
from swin_jax.core.errors import UserError
from swin_jax.data import folders, sources
from swin_jax.data.video import sources as video_sources

SUFFIXES = (".jpg", ".png")


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def test_files_come_before_those_of_subfolders_and_hidden_ones_are_passed_over(tmp_path):
    make(tmp_path, "b.JPG", "a/c.jpg", "a/b/z.png", "a-b/x.jpg", "c.png", ".hidden.jpg", ".git/x.jpg")
    found = folders.files_under(str(tmp_path), SUFFIXES)
    assert found.paths == ("b.JPG", "c.png", "a/c.jpg", "a/b/z.png", "a-b/x.jpg")
    assert found.left_out == {}


@pytest.mark.parametrize("target", [".", "..", "../..", "a", "a/b", "/"])
@pytest.mark.parametrize("place", ["loop", "a/loop", "a/b/0"])
def test_a_link_back_gives_no_file_twice(tmp_path, place, target):
    root = tmp_path / "around" / "set"
    make(root, "1.jpg", "a/2.jpg", "a/b/3.jpg")
    make(tmp_path, "around/4.jpg")
    link = root / place
    where = target if target.startswith(("/", "..")) else os.path.relpath(root / target, link.parent)
    if target.startswith(".."):
        where = os.path.relpath(root / target, link.parent)
    link.symlink_to(where)
    found = folders.files_under(str(root), SUFFIXES)
    assert found.paths == ("1.jpg", "a/2.jpg", "a/b/3.jpg")
    assert found.left_out == {folders.LINKS: 1}
    # From a folder that is itself reached by a link.
    (tmp_path / "alias").symlink_to(root)
    assert folders.files_under(str(tmp_path / "alias"), SUFFIXES) == found


def test_links_to_other_folders_are_followed_each_once(tmp_path):
    root = tmp_path / "set"
    make(root, "1.jpg", ".store/x/5.jpg")
    make(tmp_path, "pool/2.jpg", "pool/deep/3.jpg", "other/4.png")
    (root / "a").symlink_to(tmp_path / "pool" / "deep")
    (root / "b").symlink_to(tmp_path / "pool")
    (root / "c").symlink_to(tmp_path / "pool")
    (root / "d").symlink_to(root / ".store" / "x")
    (tmp_path / "pool" / "back").symlink_to(root)
    (tmp_path / "pool" / "on").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "round").symlink_to(tmp_path / "pool")
    found = folders.files_under(str(root), SUFFIXES)
    assert found.paths == ("1.jpg", "a/3.jpg", "b/2.jpg", "b/on/4.png", "d/5.jpg")
    assert found.left_out == {folders.LINKS: 3}


def test_links_to_files_give_each_once_and_those_that_lead_nowhere_are_named(tmp_path):
    root = tmp_path / "set"
    make(root, "1.jpg", "a/2.jpg", "note.txt")
    make(tmp_path, "pool/9", "pool/8.jpg")
    for link, target in {
        "0.jpg": "1.jpg", "a/again.jpg": "../1.jpg", "nine.jpg": "../pool/9", "nine2.jpg": "../pool/9",
        "away.jpg": "missing", "self.jpg": "self.jpg", "of_text.jpg": "note.txt", "8.jpg": "../pool/8.jpg",
    }.items():  # fmt: skip
        (root / link).symlink_to(target)
    found = folders.files_under(str(root), SUFFIXES)
    expected = ("1.jpg", "8.jpg", "away.jpg", "nine.jpg", "of_text.jpg", "self.jpg", "a/2.jpg")
    assert found.paths == expected
    assert found.left_out == {folders.COPIES: 3, ".txt": 1}


def test_what_is_no_file_is_left_out_and_told(tmp_path):
    make(tmp_path, "1.jpg", "2.heic", "3.HEIC", "4.txt", "LICENSE")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    found = folders.files_under(str(tmp_path), SUFFIXES)
    assert found.paths == ("1.jpg",)
    text = folders.describe(found.left_out)
    assert text == "left out 6: .heic (2), pipes, sockets or devices (2), .txt (1), no suffix (1)"
    assert folders.describe({}) == ""
    many = folders.describe({f".s{i}": 1 for i in range(30)} | {".a\nb": 50})
    assert many.startswith("left out 80: .a\\nb (50)") and many.endswith("others (23)")


def test_class_folders_are_no_links_to_each_other_or_around(tmp_path):
    root = tmp_path / "set"
    make(root, "cat/1.jpg", "dog/2.jpg", ".git/3.jpg", "readme.txt", ".store/cow/4.jpg")
    make(tmp_path, "pool/5.jpg")
    for link, target in {
        "self": ".", "up": "..", "kitty": "cat", "cow": ".store/cow", "far": "../pool", "far2": "../pool",
        "round": "round", "nowhere": "missing",
    }.items():  # fmt: skip
        (root / link).symlink_to(target)
    (root / "cat" / "more").symlink_to("../dog")
    names, left_out = folders.class_folders(str(root))
    assert names == ("cat", "cow", "dog", "far")
    assert left_out == {folders.LINKS: 4, folders.NOWHERE: 2}
    found = folders.files_under(str(root / "cat"), SUFFIXES, root=str(root))
    assert found.paths == ("1.jpg",) and found.left_out == {folders.LINKS: 1}


def test_a_class_behind_a_link_that_leads_nowhere_is_told(tmp_path):
    """A disk that is not mounted: a class less, without a word."""
    make(tmp_path, "cat/1.jpg", "dog/2.jpg", "cat/deep/3.jpg")
    (tmp_path / "cow").symlink_to("/not/mounted/cow")
    (tmp_path / "cat" / "deep" / "more").symlink_to("/not/mounted")
    (tmp_path / ".#notes").symlink_to("somebody@somewhere")  # an editor's lock
    make(tmp_path, "cat/1.mp4", "dog/2.mp4")
    for source in (sources.image_folder, video_sources.video_folder):
        with pytest.warns(UserWarning, match=r"links that lead nowhere \(1\)"):
            assert source(str(tmp_path)).class_names == ("cat", "dog")


def test_files_beside_the_folders_of_classes_are_told(tmp_path):
    make(tmp_path, "cat/1.jpg", "dog/2.jpg", "3.jpg", "4.PNG", "classes.txt", ".5.jpg")
    (tmp_path / "6.jpg").symlink_to("cat/1.jpg")
    with pytest.warns(UserWarning, match=rf"left out 3: {folders.BESIDE} \(3\)$"):
        assert len(sources.image_folder(str(tmp_path))) == 2
    make(tmp_path, "cat/1.mp4", "dog/2.mp4", "3.mp4")
    with pytest.warns(UserWarning, match=rf"{folders.BESIDE} \(1\)"):
        assert len(video_sources.video_folder(str(tmp_path))) == 2
    names, left_out = folders.class_folders(str(tmp_path))
    assert names == ("cat", "dog") and not left_out


def test_a_folder_that_cannot_be_opened_is_refused(tmp_path):
    make(tmp_path, "file")
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(UserError, match="cannot be opened"):
            folders.files_under(str(path), SUFFIXES)
        with pytest.raises(UserError, match="cannot be opened"):
            folders.class_folders(str(path))


def test_a_link_around_classes_is_no_class(tmp_path):
    make(tmp_path, "pool/cat/1.jpg", "pool/dog/2.jpg", "set/own/3.jpg")
    for link, target in {"all": "../pool", "cat": "../pool/cat", "dog": "../pool/dog", "root": ".."}.items():
        (tmp_path / "set" / link).symlink_to(target)
    names, left_out = folders.class_folders(str(tmp_path / "set"))
    assert names == ("cat", "dog", "own") and left_out == {folders.LINKS: 2}


def test_a_file_is_of_one_class(tmp_path):
    root = tmp_path / "set"
    make(root, "cat/1.jpg", "dog/2.jpg", "dog/deep/3.jpg", "5.jpg", ".store/6.jpg")
    make(tmp_path, "pool/4.jpg")
    for link, target in {
        "dog/1.jpg": "../cat/1.jpg", "cat/three.jpg": "../dog/deep/3.jpg", "cat/4.jpg": "../../pool/4.jpg",
        "dog/four.jpg": "../../pool/4.jpg", "dog/5.jpg": "../5.jpg", "dog/6.jpg": "../.store/6.jpg",
    }.items():  # fmt: skip
        (root / link).symlink_to(target)
    paths, labels, left_out = folders.files_of_classes(str(root), ("cat", "dog"), SUFFIXES, "images")
    assert paths == ["cat/1.jpg", "cat/4.jpg", "dog/2.jpg", "dog/5.jpg", "dog/6.jpg", "dog/deep/3.jpg"]
    assert labels == [0, 0, 1, 1, 1, 1] and left_out == {folders.COPIES: 3}


def test_folders_that_look_the_same_are_no_two_classes(tmp_path):
    make(tmp_path, "caf\xe9/1.jpg", "cafe\u0301/1.jpg", "b/1.jpg")
    with pytest.raises(UserError, match="has two classes 'caf\xe9', whose letters are composed in two ways: join them"):
        folders.class_folders(str(tmp_path))


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val"),
        ("test", "train", "valid"),
        ("train", "validation"),
        ("Training", "Testing"),
        ("Train", "Val", "TEST"),
        ("train_set", "test_set"),
        ("trainset", "testset"),
        ("seg_train", "seg_test"),
        ("Training Data", "Validation Data"),
        ("images-train", "images-dev"),
    ],
)
def test_splits_are_no_classes(tmp_path, names):
    make(tmp_path, *(f"{name}/cat/1.jpg" for name in names))
    with pytest.raises(UserError, match="holds splits, not classes: .*read each of them separately"):
        folders.class_folders(str(tmp_path))
    make(tmp_path, "truck/1.jpg")
    assert len(folders.class_folders(str(tmp_path))[0]) == len(names) + 1


@pytest.mark.parametrize(
    "names",
    [
        ("train", "truck"),
        ("strain", "contest"),
        ("test-1", "test-2"),
        ("trainer", "tester"),
        ("cat_train", "dog_train"),
        ("bullet train", "steam train"),
        ("train test", "test train"),
    ],
)
def test_classes_may_have_names_that_sound_like_splits(tmp_path, names):
    make(tmp_path, *(f"{name}/1.jpg" for name in names))
    assert folders.class_folders(str(tmp_path))[0] == tuple(sorted(names))


@pytest.mark.parametrize(
    "made", ["@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found"]
)
def test_what_systems_put_into_folders_is_neither_a_class_nor_a_picture(tmp_path, made):
    # Synology keeps thumbnails of cat/1.jpg in cat/@eaDir/1.jpg/.
    make(tmp_path, "cat/1.jpg", f"cat/{made}/1.jpg/SYNOPHOTO_THUMB_XL.jpg", "dog/2.jpg", f"{made}/3.jpg")
    found = folders.files_under(str(tmp_path), SUFFIXES)
    assert found.paths == ("cat/1.jpg", "dog/2.jpg")
    assert found.left_out == {folders.SYSTEM: 2}
    assert folders.class_folders(str(tmp_path)) == (("cat", "dog"), {folders.SYSTEM: 1})
    with pytest.warns(UserWarning, match="left out 2: folders that a system made"):
        source = sources.image_folder(str(tmp_path))
    assert (source.paths, source.class_names) == (("cat/1.jpg", "dog/2.jpg"), ("cat", "dog"))


def test_a_workdir_beside_the_data_is_no_data(tmp_path):
    make(tmp_path, "cat/1.jpg", "dog/1.jpg", "old/config.json", "old/header.json", "old/curves.png", "cat/run/2.jpg")
    (tmp_path / "new").mkdir()
    with workdirs.current(tmp_path / "new"):  # nothing is written there yet
        assert folders.class_folders(str(tmp_path)) == (("cat", "dog"), {folders.RUNS: 2})
    with workdirs.current(tmp_path / "cat/run"):
        found = folders.files_under(str(tmp_path), SUFFIXES)
    assert found.paths == ("cat/1.jpg", "dog/1.jpg") and found.left_out[folders.RUNS] == 2
    assert folders.class_folders(str(tmp_path))[0] == ("cat", "dog", "new")


@pytest.mark.parametrize("names", [["config.json", "header.json"], []])
def test_a_workdir_that_is_the_folder_of_data_is_refused(tmp_path, names):
    make(tmp_path, "cat/1.jpg", "checkpoints/1/a", *names)
    with workdirs.current("" if names else tmp_path):
        with pytest.raises(UserError, match="is the workdir of a run, whose folders .* give --workdir another folder"):
            folders.class_folders(str(tmp_path))
