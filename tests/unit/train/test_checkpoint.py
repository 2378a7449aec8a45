"""Checkpoints: every bit comes back, on any mesh; whole or absent; a damaged one is passed over and never lost."""

import json
import os
import pathlib
import re
import resource
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax import optim
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.models.swin import rules
from swin_jax.optim import schedules
from swin_jax.tasks.base import TrainState
from swin_jax.train import checkpoint, checkpoint_integrity
from swin_jax.train.sharding import Partition, make_mesh

META = {"step": 2, "class_names": ["cat", "Bär"], "config": {"seed": 0, "task.tx.b1": 0.9, "data_dir": None}}


def state(scale=1.0, ema=True, freeze="", width=8, mutable=True):
    """A state with namedtuples, empty tuples, masked nodes, bfloat16, integers and odd values, every leaf its own."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(8, width)).astype(np.float32) * scale
    kernel[0, :4] = [np.inf, -0.0, 1e-42, np.float32(scale)]
    params = {
        "backbone": {"blocks_0": {"kernel": kernel, "bias": rng.normal(size=width).astype(np.float32)}},
        "head": {"kernel": jnp.asarray(rng.normal(size=(width, 3)), jnp.bfloat16), "bias": np.zeros(3, np.float32)},
    }
    tx = optim.adamw(schedules.constant(1e-3), no_decay=rules.NO_DECAY, freeze=freeze)
    opt_state = jax.tree.map(lambda x: x + jnp.asarray(rng.integers(1, 9), x.dtype), tx.init(params))
    extra = {"mean": jnp.arange(4.0), "seen": jnp.int32(7)} if mutable else {}
    average = jax.tree.map(lambda x: x * 0.5, params) if ema else None
    return jax.tree.map(jnp.asarray, TrainState(jnp.int32(scale), params, opt_state, extra, average))


def abstract(like, shardings=None):
    shardings = shardings or jax.tree.map(lambda x: x.sharding, like)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), like, shardings)


def same(a, b):
    """Whether two trees have one structure and the same bits."""
    a, b = (jax.tree_util.tree_flatten(tree) for tree in (a, b))
    bits = [[np.asarray(x).tobytes() for x in leaves] for leaves, _ in (a, b)]
    return a[1] == b[1] and bits[0] == bits[1] and [x.dtype for x in a[0]] == [x.dtype for x in b[0]]


def save(workdir, *states, keep=2):
    """Saves states as steps 1, 2, ..."""
    manager = checkpoint.open(workdir, keep)
    for step, item in enumerate(states, 1):
        checkpoint.save(manager, item, step, META | {"step": step})
    checkpoint.finish(manager)
    manager.close()


def restore(workdir, like):
    """(state, meta, warnings) of a fresh manager."""
    lines = []
    manager = checkpoint.open(workdir)
    try:
        found = checkpoint.restore(manager, abstract(like), lines.append)
    finally:
        manager.close()
    return (*(found or (None, None)), lines)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A workdir with steps 1 and 2; copy it before changing it."""
    workdir = tmp_path_factory.mktemp("two")
    save(workdir, state(1), state(2))
    return workdir


@pytest.fixture
def workdir(two, tmp_path):
    return pathlib.Path(shutil.copytree(two, tmp_path / "run"))


# ---- there and back ----


@pytest.mark.parametrize("name", [".DS_Store", "._kernel", "d/.nfs0000a1"])
def test_hidden_files_that_others_leave_are_no_damage(workdir, name):
    (checkpoint.folder(workdir) / "2/params" / name).write_bytes(b"theirs")
    found, _, lines = restore(workdir, state())
    assert same(found, state(2)) and lines == []
    assert checkpoint.load_params(workdir)[2]["step"] == 2


@pytest.mark.parametrize("name", ["²", "३", "3 (copy)", "9.tmp"])
def test_folders_of_other_names_are_no_steps(workdir, name):
    (checkpoint.folder(workdir) / name).mkdir()
    assert checkpoint.exists(workdir) and checkpoint.class_names(workdir) == ("cat", "Bär")
    assert checkpoint.load_params(workdir)[2]["step"] == 2


def test_who_reads_beside_a_run_finds_what_it_saves_meanwhile(workdir, two, monkeypatch, caplog):
    """Of a run that keeps one checkpoint: what is being read is gone, and a newer one there."""
    check_whole, folder = checkpoint_integrity.check_whole, checkpoint.folder(workdir)

    def meanwhile(path, *arguments):
        if path.name == "2" and not (folder / "30").exists():
            shutil.copytree(two / "checkpoints/2", folder / "30")
            for step in ("1", "2"):
                shutil.rmtree(folder / step)
        check_whole(path, *arguments)

    monkeypatch.setattr(checkpoint, "check_whole", meanwhile)
    assert same(checkpoint.load_params(workdir)[0], jax.device_get(state(2).params))
    assert not caplog.text
    shutil.rmtree(workdir)
    shutil.copytree(two, workdir)
    lines, manager = [], checkpoint.open(workdir, write=False)
    found, _ = checkpoint.restore(manager, abstract(state()), lines.append, write=False)
    manager.close()
    assert same(found, state(2)) and lines == []


@pytest.mark.parametrize("options", [{}, {"ema": False}, {"freeze": "backbone"}, {"mutable": False}])
def test_every_bit_comes_back_in_the_same_structure(tmp_path, options):
    save(tmp_path, state(1, **options), state(2, **options))
    found, meta, lines = restore(tmp_path, state(3, **options))
    assert same(found, state(2, **options)) and not same(found, state(1, **options))
    assert meta == META and lines == []


@pytest.mark.parametrize("name", ["a[b]c", "[!a]", "a*", "a?c", "{a,b}", "a b", "a%41#", "ü", "-a", "~"])
def test_a_name_of_a_workdir_is_no_pattern(tmp_path, name):
    save(tmp_path / "abc", state(5))
    save(tmp_path / name, state(1), state(2))
    found, _, lines = restore(tmp_path / name, state())
    assert same(found, state(2)) and lines == []
    assert same(restore(tmp_path / "abc", state())[0], state(5))
    assert same(checkpoint.load_params(tmp_path / name)[0], jax.device_get(state(2).params))


def test_an_empty_workdir_has_nothing_to_restore(tmp_path):
    assert restore(tmp_path, state()) == (None, None, [])


def test_a_save_in_the_background_keeps_the_values_of_its_moment(tmp_path):
    manager, item = checkpoint.open(tmp_path), state(1)
    checkpoint.save(manager, item, 1, META)
    jax.jit(lambda s: jax.tree.map(lambda x: x * 0, s), donate_argnums=0)(item)
    checkpoint.finish(manager)
    manager.close()
    assert same(restore(tmp_path, state())[0], state(1))


def test_a_state_saved_on_one_mesh_is_restored_on_another(tmp_path):
    rules = Partition(rules=((r"blocks_0/kernel$", ("fsdp", "tensor")),), min_size=8)
    placed = jax.device_put(state(1), rules.shardings(state(1), make_mesh(2, 2, 2)))
    kernel = placed.params["backbone"]["blocks_0"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (4, 4)
    save(tmp_path, placed)
    for sizes in ((2, 2, 2), (1, 8, 1), (8, 1, 1)):
        shardings = rules.shardings(state(1), make_mesh(*sizes))
        manager = checkpoint.open(tmp_path)
        found, _ = checkpoint.restore(manager, abstract(state(1), shardings), print)
        manager.close()
        assert same(found, state(1))
        assert [x.sharding for x in jax.tree.leaves(found)] == jax.tree.leaves(shardings)


@pytest.mark.parametrize("keep", [1, 2])
def test_the_newest_are_kept(tmp_path, keep):
    save(tmp_path, *(state(i, ema=False, mutable=False) for i in (1, 2, 3)), keep=keep)
    kept = sorted(int(path.name) for path in checkpoint.folder(tmp_path).iterdir())
    assert kept == [1, 2, 3][-keep:]
    manager = checkpoint.open(tmp_path)
    assert checkpoint.latest(manager) == 3
    manager.close()


def test_debris_of_a_save_that_was_cut_off_is_not_seen_and_removed(workdir):
    folder = checkpoint.folder(workdir)
    debris = folder / "3.orbax-checkpoint-tmp"
    shutil.copytree(folder / "2", debris)
    assert checkpoint.load_params(workdir)[2]["step"] == 2
    found, meta, lines = restore(workdir, state())
    assert same(found, state(2)) and meta == META and lines == []
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]


# ---- damage ----

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
    monkeypatch.setattr(checkpoint_integrity.storage, "is_remote", lambda name: True)
    checkpoint_integrity.check_whole(path)
    (path / "checksums.json").unlink()
    checkpoint_integrity.check_whole(path)


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
            patch.setattr(checkpoint_integrity, "_checksums", fail)
        else:
            patch.setattr(checkpoint.ocp.StandardCheckpointHandler, "restore", fail)
        with pytest.raises(UserError, match=r"cannot read the checkpoint .*/checkpoints/2: .*It stays where it is"):
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
    with pytest.raises(UserError, match="gs:// needs a package.* It stays where it is"):
        restore(workdir, state())
    assert not (workdir / "damaged_checkpoints").exists()


def test_processes_agree_on_what_is_wrong(workdir, monkeypatch):
    damaged = checkpoint_integrity.DamagedError
    for verdict, kind, text in ((0, None, ""), (1, damaged, "process 1"), (2, UserError, "process 1 .*It stays")):
        monkeypatch.setattr(
            checkpoint.multihost_utils, "process_allgather", lambda own, verdict=verdict: np.array([own, verdict])
        )
        path = checkpoint.folder(workdir) / "2"
        if kind is None:
            assert checkpoint_integrity.read_together(checkpoint._checked_shapes, path) == checkpoint._shapes(state(2))
        else:
            with pytest.raises(kind, match=text):
                checkpoint_integrity.read_together(checkpoint._checked_shapes, path)


# ---- another model ----


@pytest.mark.parametrize(
    "options, keys",
    [
        ({"width": 4}, ["params/backbone/blocks_0/kernel: saved (8, 8), wanted (8, 4)", "rest/opt_state"]),
        ({"freeze": "backbone"}, ["rest/opt_state"]),
        ({"ema": False}, ["ema/head/bias: saved (3,), wanted None"]),
        ({"mutable": False}, ["rest/mutable/mean: saved (4,), wanted None"]),
    ],
)
def test_another_model_or_optimizer_is_an_error_that_lists_the_keys_and_touches_nothing(workdir, options, keys):
    before = {file: file.read_bytes() for file in workdir.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match="of another model or optimizer") as caught:
        restore(workdir, state(**options))
    for key in keys:
        assert key in str(caught.value)
    if "width" in options:
        wrong = {key for key, leaf in flatten(state()).items() if 8 in leaf.shape and key[:6] == "params"}
        assert wrong == set(re.findall(r"(params/\S+):", str(caught.value)))
    assert {file: file.read_bytes() for file in workdir.rglob("*") if file.is_file()} == before


def test_a_state_with_an_average_does_not_start_from_one_without(tmp_path):
    save(tmp_path, state(1, ema=False))
    with pytest.raises(UserError, match=r"ema/head/bias: saved None, wanted \(3,\)"):
        restore(tmp_path, state(1))


# ---- the model alone ----


def test_load_params_gives_numpy_trees_and_meta(two):
    params, ema, meta = checkpoint.load_params(two)
    assert same(params, jax.tree.map(np.asarray, state(2).params)) and same(ema, jax.tree.map(np.asarray, state(2).ema))
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves((params, ema)))
    assert meta == META


def test_load_params_needs_no_devices_of_the_mesh_that_saved(tmp_path):
    rules = Partition(min_size=8)
    placed = jax.device_put(state(1, ema=False), rules.shardings(state(1, ema=False), make_mesh(1, 8, 1)))
    save(tmp_path, placed)
    params, ema, _ = checkpoint.load_params(tmp_path)
    assert ema is None and same(params, jax.tree.map(np.asarray, state(1).params))


def test_load_params_without_a_checkpoint_is_an_error_and_makes_no_folder(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in"):
        checkpoint.load_params(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


# ---- a full disk ----


# Orbax leaves an event loop closed with callbacks outstanding after a save that failed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("wait", [True, False])
def test_a_full_disk_is_an_error_that_names_the_intact_step(tmp_path, wait):
    big = state(1, ema=False).replace(mutable={"noise": jax.random.normal(jax.random.key(0), (2**17,))})
    save(tmp_path, big)
    manager = checkpoint.open(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, limits[1]))  # no file may grow beyond 128 kB
    try:
        with pytest.raises(UserError, match="could not save .*; the checkpoint of step 1 is intact") as caught:
            checkpoint.save(manager, big, 2, META, wait=wait)
            checkpoint.finish(manager)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        manager.close()
    assert "\n" not in str(caught.value)
    # TensorStore may still be writing what the save had begun; whoever opens the folder removes it.
    deadline = time.monotonic() + 20
    while True:
        assert same(restore(tmp_path, big)[0], big)
        if [path.name for path in checkpoint.folder(tmp_path).iterdir()] == ["1"]:
            break
        assert time.monotonic() < deadline


def test_a_first_save_that_fails_says_that_there_is_none(tmp_path, monkeypatch):
    manager = checkpoint.open(tmp_path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manager, "save", full)
    with pytest.raises(UserError, match="No space left on device; no checkpoint was written before"):
        checkpoint.save(manager, state(), 1, META)
    manager.close()
