"""What happens to a workdir while a run is at work in it, and what a run finds there."""

import shutil

import pytest

from experiments import quickstart
from swin_jax.core import storage
from swin_jax.train import loop

CONFIG = "experiments/quickstart.py:fake"
FLAGS = ("--config.logs.every=1", "--config.checkpoint.every=2", "--config.total_steps=4")


def delete(workdir):
    shutil.rmtree(workdir)


def steal(workdir):
    storage.write(workdir / "owner.json", '{"run": "theirs", "host": "thief", "pid": 7}')


@pytest.mark.parametrize("happen, told", [(delete, "was deleted or moved"), (steal, "taken over by another run (host")])
def test_a_run_that_lost_its_workdir_writes_nothing_more(launch, tmp_path, monkeypatch, happen, told):
    next_batch, calls = loop.Loop.next_batch, []

    def happening(self, batches):
        calls.append(0)
        if len(calls) == 2:
            happen(self.workdir)
        return next_batch(self, batches)

    monkeypatch.setattr(loop.Loop, "next_batch", happening)
    status, _, err = launch(CONFIG, tmp_path / "run", *FLAGS)
    assert status == 1 and "Traceback" not in err
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert f"--workdir={tmp_path / 'run'} {told}" in line or told in line
    assert len(calls) == 2 and not (tmp_path / "run/checkpoints/2").exists()
    assert (tmp_path / "run").exists() is (happen is steal)


@pytest.mark.parametrize("content", [b'{"task.seed": ', b"[1]", b"\x00\xff"])
def test_a_damaged_config_is_one_line(launch, tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    status, _, err = launch(CONFIG, tmp_path, *FLAGS)
    assert status == 2 and err.startswith(f"error: {tmp_path}/config.json is damaged: ") and err.count("\n") == 1


def test_a_dangling_link_is_one_line(launch, tmp_path):
    (tmp_path / "checkpoints").symlink_to("/nowhere")
    status, _, err = launch(CONFIG, tmp_path, *FLAGS)
    assert status == 2 and err.count("\n") == 1
    assert err.startswith(f"error: {tmp_path}/checkpoints cannot be used: it is a link to /nowhere")


def test_a_run_keeps_its_folder_where_a_link_is_set_anew_or_the_current_folder_changes(tmp_path, monkeypatch):
    """As `runs/latest`, which names another run later on."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "latest").symlink_to("a")
    made = []
    monkeypatch.setattr(loop, "Loop", lambda config, folder, owner, profile: made.append((folder, owner)) or owner)
    monkeypatch.setattr(loop.Ownership, "execute", print, raising=False)
    monkeypatch.setattr(loop.Ownership, "data", None, raising=False)
    loop.prepare(quickstart.get_config("fake"), "latest")
    ((folder, owner),) = made
    (tmp_path / "latest").unlink()
    (tmp_path / "latest").symlink_to("b")
    monkeypatch.chdir("/")
    owner.confirm()
    assert folder == tmp_path / "a" and (tmp_path / "a/owner.json").exists() and not any((tmp_path / "b").iterdir())
    owner.release()
    assert not any((tmp_path / "a").iterdir())
