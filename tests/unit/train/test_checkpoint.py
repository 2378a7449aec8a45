"""Checkpoints: every bit comes back, on any mesh; whole or absent; a damaged one is passed over and never lost."""

import re
import resource
import shutil
import time

import jax
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.train import checkpoint
from swin_jax.train.checkpoints import integrity
from swin_jax.train.sharding import Partition, make_mesh
from tests.unit.train.checkpoints import META, abstract, restore, same, save, state

# ---- there and back ----


@pytest.mark.parametrize(
    "name", [".DS_Store", "._kernel", "d/.nfs0000a1", "desktop.ini", "d/desktop.ini", "@eaDir/manifest.ocdbt@Syno",
             "../@eaDir/params@SynoEAStream", "../../@eaDir/2", "../desktop.ini", "../../desktop.ini",
             "manifest (conflicted copy).ocdbt", "../meta/metadata.sync-conflict-20261130-101010-ABCDEFG"]
)  # fmt: skip
def test_files_that_others_leave_are_no_damage(workdir, name):
    """As Finder, Windows, file servers and programs that synchronize folders do."""
    file = checkpoint.folder(workdir) / "2/params" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"theirs")
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
    check_whole, folder = integrity.check_whole, checkpoint.folder(workdir)

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
    checkpoint.save(manager, item, 1, META | {"step": 1})
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
