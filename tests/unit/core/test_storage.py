"""Files that are written whole or not at all, and the local folder behind what is appended to (buckets: e2e)."""

import os
import pathlib
import time

import pytest
from matplotlib.figure import Figure

from swin_jax.core import storage
from swin_jax.core.errors import UserError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    storage.write(tmp_path / "file", "old, höher")
    assert (tmp_path / "file").read_bytes() == "old, höher".encode()
    with pytest.raises(ZeroDivisionError), storage.writing(tmp_path / "file") as file:
        file.write(b"half")
        file.flush()
        assert (tmp_path / "file").read_text(encoding="utf-8") == "old, höher"
        raise ZeroDivisionError
    assert storage.read_text(tmp_path / "file") == "old, höher" and storage.size(tmp_path / "file") == 11
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name, start", [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a", b"\x89PNG")])
def test_a_figure_is_of_the_kind_that_its_name_says(tmp_path, name, start):
    storage.write_figure(tmp_path / name, Figure(figsize=(2, 2)), dpi=20)
    assert (tmp_path / name).read_bytes().startswith(start)


def test_moving_replaces_a_folder(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / name).touch()
    storage.move(tmp_path / "new", tmp_path / "old")
    assert [path.relative_to(tmp_path).as_posix() for path in storage.files(tmp_path)] == ["old/deep/new"]


def test_a_local_folder_is_appended_to_where_it_is(tmp_path):
    spool = storage.Spool(tmp_path / "run", seconds=0)
    assert spool.folder == tmp_path / "run" and not spool.folder.exists()
    spool.tick(), spool.sync(), spool.close()
    assert list(tmp_path.iterdir()) == []


def test_paths_of_buckets_stay_addresses(monkeypatch):
    monkeypatch.setattr(storage, "_check_installed", lambda: None)
    path = storage.path("gs://bucket/run") / "file"
    assert str(path) == str(storage.path(path)) == str(storage.absolute(path)) == "gs://bucket/run/file"
    assert storage.is_remote(path) and not storage.is_remote("run") and not storage.is_remote("/gs/run")
    assert storage.absolute("run") == pathlib.Path.cwd() / "run"


@pytest.mark.parametrize("name", ["lr[3]", "a*", "a?", "[!a]", "a{b,c}", "]"])
def test_a_literal_path_is_no_pattern(tmp_path, name):
    for folder in (name, "lr3", "ab", "b"):
        (tmp_path / folder / "in").mkdir(parents=True)
        for file in ("x_1", "x_2", "y", ".x_3"):
            (tmp_path / folder / "in" / file).touch()
    found = storage.LiteralPath(tmp_path) / name
    wanted = [f"{tmp_path}/{name}/in/x_{number}" for number in (1, 2)]
    assert [str(path) for path in (found / "in").glob("x_*")] == wanted
    assert [str(path) for path in found.glob("i?/x_*")] == wanted
    assert list((found / "none").glob("*")) == []
    assert isinstance(storage.epath.Path(found) / "in", storage.LiteralPath)


def test_the_home_folder_is_not_a_folder_of_that_name():
    home = pathlib.Path.home()
    assert storage.path("~/runs") == home / "runs" and storage.absolute("~") == home
    assert storage.path("~x/runs") == pathlib.Path("~x/runs") and storage.path("a/~") == pathlib.Path("a/~")


@pytest.mark.parametrize(
    "data", [b"", b'{"a": 1', b"\x89PNG\x00\xff", b"[1]", b"null", b"3", b"[" * 10**5, b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_an_object_that_is_none_is_one_line(tmp_path, data):
    path = tmp_path / "config.json"
    path.write_bytes(data)
    with pytest.raises(UserError, match="config.json is damaged: .*Restore it") as caught:
        storage.read_object(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_an_object_that_is_a_folder_or_nothing_is_one_line(tmp_path):
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(UserError, match=f"cannot be read: {reason}"):
            storage.read_object(path)
    storage.write(tmp_path / "one", '{"ä": [1]}')
    assert storage.read_object(tmp_path / "one") == {"ä": [1]}


def test_two_that_write_one_file_do_not_meet(tmp_path):
    """As two containers whose processes have one number, in a folder that they share."""
    with storage.writing(tmp_path / "file") as one:
        one.write(b"first")
        storage.write(tmp_path / "file", "second")
        assert storage.read_text(tmp_path / "file") == "second"
    assert storage.read_text(tmp_path / "file") == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["a" * 255, "ü" * 127])
def test_the_longest_name_is_written(tmp_path, name):
    storage.write(tmp_path / name, "x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_in_the_place_of_a_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be written: it is a folder"):
        storage.write(tmp_path, "x")
    assert list(tmp_path.iterdir()) == []


def test_a_file_put_in_place_of_another_of_its_time_is_a_changed_one(tmp_path):
    """As rsync -t, cp -p and archives do it."""
    path = tmp_path / "a.bmp"
    path.write_bytes(b"old")
    before = path.stat()
    time.sleep(0.05)  # the clock of file systems ticks every few ms
    (tmp_path / "new").write_bytes(b"new")
    os.utime(tmp_path / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "new").rename(path)
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert storage.changed(after) > storage.changed(before)
