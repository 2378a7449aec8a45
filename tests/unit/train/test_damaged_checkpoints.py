"""A damaged checkpoint is passed over and never lost; trouble and mistakes are not damage."""

import json
import os
import shutil

import jax
import numpy as np
import pytest
import tensorstore

from swin_jax.core.errors import UserError
from swin_jax.train import checkpoint
from swin_jax.train.checkpoints import integrity, layout
from tests.unit.train.checkpoints import META, abstract, restore, same, state

DAMAGE = {
    "gone": lambda file: file.unlink(),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "one bit": lambda file: file.write_bytes(flip(file.read_bytes())),
}


def flip(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


@pytest.mark.parametrize("part", ["params", "ema", "rest", "meta"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_checkpoint_is_passed_over(workdir, damage, part):
    folder = checkpoint.folder(workdir)
    largest = max((file for file in (folder / "2" / part).rglob("*") if file.is_file()), key=lambda f: f.stat().st_size)
    DAMAGE[damage](largest)
    left = {file.name for file in (folder / "2").rglob("*")}
    assert checkpoint.load_params(workdir)[2]["step"] == 1
    found, meta, lines = restore(workdir, state())
    assert same(found, state(1)) and meta["step"] == 1
    assert len(lines) == 1 and "step 2 is damaged" in lines[0] and "\n" not in lines[0]
    moved = workdir / "damaged_checkpoints" / "2"
    assert str(moved) in lines[0] and {file.name for file in moved.rglob("*")} == left
    assert [path.name for path in folder.iterdir()] == ["1"]
    assert restore(workdir, state())[2] == []


def test_no_damage_to_a_file_ever_gives_a_wrong_state(workdir, tmp_path):
    files = [file for file in (checkpoint.folder(workdir) / "2").rglob("*") if file.is_file()]
    assert len(files) > 20
    whole = tmp_path / "whole"
    shutil.copytree(workdir / "checkpoints", whole)
    for i, file in enumerate(sorted(files)):
        DAMAGE[list(DAMAGE)[i % len(DAMAGE)]](file)
        params, ema, meta = checkpoint.load_params(workdir)
        expected = state(meta["step"])
        assert [x.tobytes() for x in jax.tree.leaves((params, ema))] == [
            np.asarray(x).tobytes() for x in jax.tree.leaves((expected.params, expected.ema))
        ], file
        assert meta == META | {"step": meta["step"]}, file
        shutil.copy(whole / file.relative_to(workdir / "checkpoints"), file)
    assert same(restore(workdir, state())[0], state(2))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"a"', '{"config": 3}', '{"config": [1]}', "[" * 100_000,
                                  '{"class_names": 5}', '{"class_names": {"a": 1}}',
                                  '{"class_names": [[1]]}'])  # fmt: skip
def test_meta_data_of_another_form_are_damage(workdir, text):
    """Of a checkpoint without checksums, which would say so before anything is read."""
    for step in workdir.glob("checkpoints/*"):
        (step / "meta" / "metadata").write_text(text)
        (step / "checksums.json").unlink(missing_ok=True)
    assert checkpoint.class_names(workdir) == ()
    with pytest.raises(UserError) as error:
        checkpoint.load_params(workdir)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["params", "ema", "rest", "meta"])
def test_a_missing_part_is_damage(workdir, part):
    shutil.rmtree(checkpoint.folder(workdir) / "2" / part)
    assert checkpoint.load_params(workdir)[2]["step"] == 1
    assert same(restore(workdir, state())[0], state(1))


def test_arrays_far_larger_than_their_files_are_damage(workdir, capfd):
    """Of shapes that somebody wrote: 4 TB ended the process, and smaller ones filled the memory."""
    path = checkpoint.folder(workdir) / "2"
    store = {"driver": "ocdbt", "base": f"file://{path / 'params'}/"}
    store = tensorstore.KvStore.open(store).result()
    name = next(key for key in store.list().result() if key.endswith(b"kernel/.zarray"))
    described = json.loads(store.read(name).result().value)
    described |= {"shape": [10**6] * len(described["shape"])}
    store.write(name, json.dumps(described).encode()).result()
    integrity.storage.write(path / integrity.CHECKSUMS, json.dumps(integrity._checksums(path)))
    with pytest.raises(ValueError, match="its arrays would take .* bytes, and its files have"):
        checkpoint.read_numpy(path / "params")
    assert checkpoint.load_params(workdir)[2]["step"] == 1
    assert "Event loop" not in capfd.readouterr().err


def test_after_damage_the_step_can_be_saved_and_damaged_again(workdir):
    for scale in (5, 6):
        shutil.rmtree(checkpoint.folder(workdir) / "2" / "params")
        lines, manager = [], checkpoint.open(workdir)
        found, _ = checkpoint.restore(manager, abstract(state()), lines.append)
        assert same(found, state(1)) and len(lines) == 1
        checkpoint.save(manager, state(scale), 2, META, wait=True)
        manager.close()
        assert same(restore(workdir, state())[0], state(scale))


def before_checksums(path):
    """Makes a checkpoint one of the versions that had no checksums yet."""
    (path / "checksums.json").unlink()
    meta = json.loads((path / "meta/metadata").read_text())
    assert meta.pop("sealed") is True
    (path / "meta/metadata").write_text(json.dumps(meta))


def test_a_checkpoint_of_before_the_checksums_is_read(workdir):
    before_checksums(checkpoint.folder(workdir) / "2")
    found, meta, lines = restore(workdir, state())
    assert same(found, state(2)) and meta == META and lines == []
    assert checkpoint.load_params(workdir)[2] == META


@pytest.mark.parametrize(
    "content", [None, "mkdir", "mkfifo", b"", b"{", b"[1]", b"null", b"{}", b"[" * 10**5, b"\x00\xff"]
)
def test_checksums_that_are_gone_or_damaged_are_damage(workdir, content):
    path = checkpoint.folder(workdir) / "2" / "checksums.json"
    path.unlink()
    {str: lambda: getattr(os, content)(path), bytes: lambda: path.write_bytes(content)}.get(type(content), int)()
    assert same(checkpoint.load_params(workdir)[0], jax.device_get(state(1).params))
    found, _, lines = restore(workdir, state())
    assert same(found, state(1)) and "the checkpoint of step 2 is damaged" in lines[0]


def test_a_checkpoint_that_was_copied_to_a_bucket_is_whole(workdir, monkeypatch):
    path = checkpoint.folder(workdir) / "2"
    monkeypatch.setattr(integrity.storage, "is_remote", lambda name: True)
    integrity.check_whole(path)
    (path / "checksums.json").unlink()
    integrity.check_whole(path)


def test_where_all_are_damaged_it_is_an_error_and_nothing_is_lost(workdir):
    for step in (1, 2):
        (checkpoint.folder(workdir) / str(step) / "rest" / "_METADATA").write_bytes(b"{")
        (checkpoint.folder(workdir) / str(step) / "params" / "_METADATA").write_bytes(b"{")
    with pytest.raises(UserError, match="none of the checkpoints"):
        checkpoint.load_params(workdir)
    with pytest.raises(UserError, match=r"none of the checkpoints in .* \(steps \[1, 2\]\)") as caught:
        restore(workdir, state())
    moved = workdir / "damaged_checkpoints"
    assert str(moved) in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(path.name for path in moved.iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 17179869184 bytes"),
        PermissionError(13, "Permission denied"),
        OSError(5, "Input/output error"),
        TimeoutError("timed out"),
        ValueError('UNAVAILABLE: Error reading "gs://bucket/x": HTTP 503'),
        ValueError("UNKNOWN: Error reading local file \"/nfs/x\" [os_error_code='5']"),
        ValueError("FAILED_PRECONDITION: Error reading local file \"/nfs/x\" [os_error_code='107']"),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error).partition(':')[0]}",
)
@pytest.mark.parametrize("stage", ["check", "restore"])
def test_trouble_in_reading_is_no_damage(workdir, monkeypatch, stage, error):
    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        if stage == "check":
            patch.setattr(integrity, "_checksums", fail)
        else:
            patch.setattr(checkpoint.ocp.StandardCheckpointHandler, "restore", fail)
        with pytest.raises(UserError, match=r"cannot read the checkpoint .*/checkpoints/2: .*It was left in place"):
            restore(workdir, state())
        if stage == "check":
            with pytest.raises(UserError, match="cannot read the checkpoint"):
                checkpoint.load_params(workdir)
    found, _, lines = restore(workdir, state())
    assert same(found, state(2)) and lines == [] and not (workdir / "damaged_checkpoints").exists()


@pytest.mark.parametrize("file", ["params/d/*", "rest/_METADATA", "meta/metadata"])
def test_without_checksums_a_file_that_is_gone_is_damage(workdir, file):
    newest = checkpoint.folder(workdir) / "2"
    before_checksums(newest)
    max(newest.glob(file), key=lambda found: found.stat().st_size).unlink()
    found, _, lines = restore(workdir, state())
    assert same(found, state(1)) and len(lines) == 1 and (workdir / "damaged_checkpoints" / "2").exists()


def test_a_mistake_of_the_user_is_no_damage(workdir, monkeypatch):
    def fail(*_):
        raise UserError("gs:// needs a package")

    monkeypatch.setattr(checkpoint, "_read", fail)
    with pytest.raises(UserError, match="gs:// needs a package.* It was left in place"):
        restore(workdir, state())
    assert not (workdir / "damaged_checkpoints").exists()


def test_processes_agree_on_what_is_wrong(workdir, monkeypatch):
    damaged = integrity.DamagedError
    for verdict, kind, text in (
        (0, None, ""),
        (1, damaged, "process 1"),
        (2, UserError, "process 1 .*It was left in place"),
    ):
        monkeypatch.setattr(
            checkpoint.multihost_utils, "process_allgather", lambda own, verdict=verdict: np.array([own, verdict])
        )
        path = checkpoint.folder(workdir) / "2"
        if kind is None:
            assert integrity.read_together(checkpoint._checked_shapes, path) == layout.shapes_of(state(2))
        else:
            with pytest.raises(kind, match=text):
                integrity.read_together(checkpoint._checked_shapes, path)
