"""Builders that are stopped, or killed at any moment: a data set is there whole or not at all."""

import argparse
import os
import pathlib
import shutil
import signal
import sys

import pytest

from swin_jax.core.errors import UserError
from swin_jax.data.builders import write


@pytest.fixture
def builder(tmp_path, monkeypatch):
    """builder(count, at=None, act=None): runs the command of a builder of `count` texts; at one of them it acts."""
    import tensorflow_datasets as tfds

    features = {"text": tfds.features.Text()}
    monkeypatch.setattr(sys, "argv", ["build", f"--data_dir={tmp_path}", "--overwrite"])

    def examples(count, at, act):
        for number in range(count):
            if number == at:
                act()
            yield {"text": f"{count} {number}"}

    def run(count, at=None, act=None):
        def build(flags):
            splits = {"train": write.Split(examples(count, at, act))}
            license = {"LICENSES.md": b"free"}
            return write.write(flags.data_dir, "toy", "1.0.0", features, splits, flags.overwrite, files=license)

        write.run(build, argparse.ArgumentParser())

    return run


def texts(data_dir):
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(data_dir / "toy/1.0.0").as_data_source("train")
    return [source[index]["text"].decode() for index in range(len(source))]


def whole(count):
    return [f"{count} {number}" for number in range(count)]


@pytest.mark.parametrize(
    "number, status, line",
    [
        (signal.SIGINT, 130, "interrupted; run the command again"),
        (signal.SIGTERM, 143, "SIGTERM: stopped; run the command again"),
        (signal.SIGHUP, 129, "SIGHUP: stopped; run the command again"),
    ],
)
def test_a_builder_that_is_stopped_says_so_and_leaves_what_was_there(
    builder, tmp_path, capsys, monkeypatch, number, status, line
):
    builder(4)
    capsys.readouterr()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as end:
            builder(3, 2, lambda: os.kill(os.getpid(), number))
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == status and capsys.readouterr().err.splitlines()[-1] == line
    assert texts(tmp_path) == whole(4)
    builder(3)
    assert texts(tmp_path) == whole(3)
    assert sorted(path.name for path in (tmp_path / "toy").iterdir()) == ["1.0.0"]
    assert (tmp_path / "toy/1.0.0/LICENSES.md").read_bytes() == b"free"


class Killed(BaseException):
    pass


def test_a_builder_that_is_killed_leaves_a_whole_data_set(builder, tmp_path, monkeypatch):
    """At each of the moves and removals of files, and in the middle of a removal."""
    rename, remove = pathlib.Path.rename, shutil.rmtree
    left = [0]

    def count():
        left[0] -= 1
        if not left[0]:
            raise Killed

    def renaming(self, target):
        count()
        return rename(self, target)

    def removing(folder, ignore_errors=False):
        count()
        for path in pathlib.Path(folder).glob("*"):
            path.unlink()
            count()
        remove(folder, ignore_errors)

    builder(4)
    have, found, moment = 4, [], 0
    while not found or found[-1] != "done":
        moment += 1
        left[0] = moment
        with monkeypatch.context() as patched:
            patched.setattr(pathlib.Path, "rename", renaming)
            patched.setattr(shutil, "rmtree", removing)
            try:
                builder(7 - have)
                found.append("done")
            except Killed:
                found.append("killed")
        target = tmp_path / "toy/1.0.0"
        if target.exists():
            assert texts(tmp_path) in (whole(3), whole(4)) and (target / "LICENSES.md").exists()
        else:
            found[-1] = "none"
            write.refuse_existing(target, overwrite=True)
            assert texts(tmp_path) == whole(have)
        have = len(texts(tmp_path))
    assert found.count("none") == 1 and found.count("killed") > 8
    assert sorted(path.name for path in (tmp_path / "toy").iterdir()) == ["1.0.0"]


@pytest.mark.parametrize("kind", [PermissionError, NotADirectoryError])
def test_a_folder_that_cannot_be_used_is_one_line(builder, capsys, kind):
    def refuse():
        raise kind(1, "Not permitted", "/data/toy\x1b[31m")

    with pytest.raises(SystemExit) as end:
        builder(3, 1, refuse)
    line = "error: /data/toy\\x1b[31m cannot be used: Not permitted; give another folder"
    assert end.value.code == 1 and capsys.readouterr().err.splitlines()[-1] == line


def test_a_second_builder_is_refused_while_the_first_is_at_work(builder, tmp_path, capsys):
    builder(2)

    def second():
        with pytest.raises(SystemExit) as end:
            builder(5)
        assert end.value.code == 1
        with pytest.raises(UserError, match="another builder is at work"):
            write.refuse_existing(tmp_path / "toy/1.0.0", overwrite=True)

    builder(3, 2, second)
    line = f"error: another builder is at work in {tmp_path / 'toy'}: run the command again when it has ended"
    assert line in capsys.readouterr().err and texts(tmp_path) == whole(3)
    builder(4)
