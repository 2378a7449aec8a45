"""The folder of a run: its name, and what is refused."""

import errno
import os

import pytest

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.train.workdir import check_entries, make_workdir, writing_to

# ---- names ----


@pytest.mark.parametrize("name", ["a*b", "a?", "a[1]", "a#1", "a\\b"])
def test_a_name_that_a_bucket_s_libraries_take_for_a_pattern_is_refused(monkeypatch, name):
    monkeypatch.setattr(storage, "_check_installed", lambda: None)
    with pytest.raises(UserError, match="cannot be used: . in the name of a bucket") as caught:
        make_workdir(storage.path(f"gs://bucket/{name}/run"))
    assert "\n" not in str(caught.value)


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"run.udce9' cannot be used: its name is not UTF-8"):
        make_workdir(tmp_path / "run\udce9")
    assert not list(tmp_path.iterdir())


def test_a_backslash_is_refused_and_all_else_is_a_folder(tmp_path):
    with pytest.raises(UserError, match="in the name of a workdir"):
        make_workdir(tmp_path / "a\\b")
    for name in ("a[b]", "a*", "a?", "{a}", "a b", "a%", "a#", "ü", "-a", "~a"):
        make_workdir(tmp_path / name)
        assert (tmp_path / name).is_dir()


@pytest.mark.parametrize("trained", [True, False])
def test_a_workdir_that_may_only_be_read_says_how_its_weights_are_used(tmp_path, monkeypatch, trained):
    monkeypatch.setattr(os, "access", lambda *_: False)
    if trained:
        (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError) as caught:
        make_workdir(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"--workdir={tmp_path} cannot be used: not writable")
    assert message.endswith(f"--config.init_from.path={tmp_path}" if trained else "not writable")


# ---- what lies in it ----


def link_to_nothing(path):
    path.symlink_to("nowhere")


def link_to_itself(path):
    path.symlink_to(path)


def folder(path):
    path.mkdir()


def file(path):
    path.write_text("x")


def fifo(path):
    os.mkfifo(path)


def link_to_a_folder(path):
    path.symlink_to(path.parent)


def link_to_a_file(path):
    file(path.parent / "other")
    path.symlink_to("other")


@pytest.mark.parametrize("make", [link_to_nothing, link_to_itself, folder, fifo, link_to_a_folder])
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
def test_a_file_of_a_run_that_is_none_is_refused(tmp_path, name, make):
    make(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} cannot be used: it is .*; remove it") as caught:
        check_entries(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [link_to_nothing, link_to_itself, file, fifo, link_to_a_file])
@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "tables"])
def test_a_folder_of_a_run_that_is_none_is_refused(tmp_path, name, make):
    make(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} cannot be used: it is "):
        check_entries(tmp_path)


def test_links_to_the_right_kind_are_used(tmp_path):
    check_entries(tmp_path)
    link_to_a_file(tmp_path / "metrics.jsonl"), link_to_a_folder(tmp_path / "checkpoints")
    check_entries(tmp_path)


def test_a_file_in_the_place_of_any_other_folder_is_one_line(tmp_path):
    (tmp_path / "statistics").write_text("x")
    for make in (lambda path: path.mkdir(), lambda path: (path / "deeper").mkdir()):
        with pytest.raises(UserError, match="statistics.* cannot be used: a file or a link") as caught:
            with writing_to(tmp_path):
                make(tmp_path / "statistics")
        assert "\n" not in str(caught.value)


def test_a_workdir_inside_the_checkpoints_of_a_run_is_refused_and_its_own_is_named(tmp_path, monkeypatch):
    run = tmp_path / "run"
    (run / "checkpoints/2").mkdir(parents=True)
    make_workdir(run / "checkpoints/3")  # a folder called checkpoints may hold workdirs
    for name in ("config.json", "header.json"):
        (run / name).write_text("{}")
    (tmp_path / "link").symlink_to(run / "checkpoints")
    monkeypatch.chdir(run / "checkpoints/2")
    for place in (run / "checkpoints", run / "checkpoints/2", run / "checkpoints/2/new", tmp_path / "link/2", "."):
        with pytest.raises(UserError, match=f"inside the checkpoints of a run, whose workdir is {run};"):
            make_workdir(storage.path(place))
    assert not list((run / "checkpoints/2").iterdir())
    make_workdir(run), make_workdir(run / "inner")


@pytest.mark.parametrize("make", [link_to_nothing, link_to_itself, file, fifo])
def test_a_workdir_that_is_no_folder_is_refused(tmp_path, make):
    make(tmp_path / "run")
    for path in (tmp_path / "run", tmp_path / "run/deeper"):
        with pytest.raises(UserError, match="cannot be used: ") as caught:
            make_workdir(path)
        assert "\n" not in str(caught.value)


FULL = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO]
GONE = [errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN]  # as NFS and FUSE tell it


@pytest.mark.parametrize("number", FULL + GONE)
def test_a_disk_that_is_full_or_gone_is_one_line_and_other_errors_pass(tmp_path, number):
    with (
        pytest.raises(UserError, match="cannot be written: .*; the same command resumes") as caught,
        writing_to(tmp_path),
    ):
        raise OSError(number, os.strerror(number), "x")
    assert os.strerror(number) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError), writing_to(tmp_path):
        open(tmp_path / "none")


def test_a_file_of_another_user_is_one_line(tmp_path):
    with pytest.raises(UserError, match="^/data/x cannot be used: Permission denied$"), writing_to(tmp_path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/data/x")
    with pytest.raises(PermissionError), writing_to(tmp_path):
        raise PermissionError("of a program, about no file")
