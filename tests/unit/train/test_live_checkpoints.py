"""Checkpoints that another program moves, copies, links or replaces: what is read beside a run, and what goes on."""

import os
import shutil

import jax
import pytest

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.train import checkpoint
from tests.unit.train.checkpoints import META, abstract, restore, same, state


def goes_on(folder, step, new):
    """What a run that keeps one checkpoint does to a folder of them: saves a new one, then removes the old ones."""
    shutil.copytree(folder / str(step), folder / f"{new}.tmp")
    (folder / f"{new}.tmp").rename(folder / str(new))
    shutil.rmtree(folder / str(step))


@pytest.mark.parametrize(
    "error", [Exception("Encountered error while reading array index"), ValueError("structure"), FileNotFoundError("x")]
)
@pytest.mark.parametrize("stage", ["_checked_shapes", "_read", "_load_params"])
def test_whoever_reads_takes_the_newer_one_whatever_the_reading_of_a_vanishing_one_raises(
    workdir, monkeypatch, caplog, stage, error
):
    folder, read = checkpoint.folder(workdir), getattr(checkpoint, stage)
    shutil.rmtree(folder / "1")

    def meanwhile(path, *arguments):
        if path.name == "2":
            goes_on(folder, 2, 3)
            raise error
        return read(path, *arguments)

    monkeypatch.setattr(checkpoint, stage, meanwhile)
    if stage == "_load_params":
        assert checkpoint.load_params(workdir)[2]["step"] == 2
    else:
        said, manager = [], checkpoint.open(workdir, write=False)
        found, _ = checkpoint.restore(manager, abstract(state()), said.append, write=False)
        manager.close()
        assert same(found, state(2)) and said == []
    assert not caplog.text and not (workdir / "damaged_checkpoints").exists()


def test_class_names_are_those_of_the_newer_one(workdir, monkeypatch):
    folder, handler = checkpoint.folder(workdir), checkpoint.ocp.JsonCheckpointHandler
    restored = handler.restore
    shutil.rmtree(folder / "1")

    def meanwhile(self, path):
        if path.parent.name == "2":
            goes_on(folder, 2, 3)
        return restored(self, path)

    monkeypatch.setattr(handler, "restore", meanwhile)
    assert checkpoint.class_names(workdir) == ("cat", "Bär")


def test_a_checkpoint_that_vanishes_while_they_are_listed_hides_no_newer_one(workdir, monkeypatch):
    folder, is_whole = checkpoint.folder(workdir), checkpoint.ocp.utils.is_checkpoint_finalized
    shutil.rmtree(folder / "1")

    def meanwhile(path):
        if path.name == "2":
            goes_on(folder, 2, 3)
        return is_whole(path)

    monkeypatch.setattr(checkpoint.ocp.utils, "is_checkpoint_finalized", meanwhile)
    assert checkpoint.load_params(workdir)[2]["step"] == 2


@pytest.mark.parametrize("number", [5, 10**24])
def test_a_copy_under_a_higher_number_is_refused_before_updates_that_could_not_be_saved(workdir, number):
    shutil.copytree(workdir / "checkpoints/2", workdir / f"checkpoints/{number}")
    with pytest.raises(UserError, match=f"checkpoints/{number} holds step 2, .*move it away") as caught:
        restore(workdir, state())
    assert "\n" not in str(caught.value) and (workdir / f"checkpoints/{number}").is_dir()
    manager = checkpoint.open(workdir, write=False)
    assert same(checkpoint.restore(manager, abstract(state()), print, write=False)[0], state(2))
    manager.close()


def test_a_step_that_is_not_saved_because_of_a_later_one_is_told(workdir):
    manager = checkpoint.open(workdir)
    with pytest.raises(UserError, match="step 1 is not saved: .* step 2"):
        checkpoint.save(manager, state(1), 1, META | {"step": 1}, wait=True)
    manager.close()


def test_checkpoints_on_another_disk_are_moved_aside_where_they_are_damaged(workdir, monkeypatch):
    shutil.move(workdir / "checkpoints", workdir.parent / "elsewhere")
    (workdir / "checkpoints").symlink_to(workdir.parent / "elsewhere")
    file = workdir / "checkpoints/2/params/_METADATA"
    file.write_text("{}")
    rename = os.rename

    def of_one_disk(source, target, **options):
        if "damaged_checkpoints" in str(target):
            raise OSError(18, "Invalid cross-device link", str(source))
        rename(source, target, **options)

    monkeypatch.setattr(os, "rename", of_one_disk)
    found, _, (said,) = restore(workdir, state())
    assert same(found, state(1)) and "it is moved to" in said
    assert (workdir / "damaged_checkpoints/2/params/_METADATA").read_text() == "{}"
    assert not (workdir / "checkpoints/2").exists()


def test_of_an_old_checkpoint_that_is_a_link_the_link_is_removed(workdir):
    shutil.move(workdir / "checkpoints/1", workdir.parent / "one")
    (workdir / "checkpoints/1").symlink_to(workdir.parent / "one")
    manager = checkpoint.open(workdir, keep=1)
    checkpoint.save(manager, state(3), 3, META | {"step": 3}, wait=True)
    manager.close()
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["3"]
    assert (workdir.parent / "one/checksums.json").is_file()
    storage.LiteralPath(workdir / "none").rmtree(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        storage.LiteralPath(workdir / "none").rmtree()
    assert jax.device_get(checkpoint.load_params(workdir)[2])["step"] == 3
