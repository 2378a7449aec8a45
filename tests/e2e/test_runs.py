"""Guarantees of a run that need processes of their own: kills, signals, other meshes, damaged and full disks, NaN."""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.evals.accuracy import Accuracy
from tests.e2e.test_experiments import assert_equal_runs, metrics

ROOT = pathlib.Path(__file__).parents[2]
TINY = ("--config.logs.every=1", "--config.checkpoint.every=5", "--config.evals.test.every=10")


def command(workdir, *arguments, config="quickstart.py:fake"):
    run = [sys.executable, "-m", "swin_jax.launch"]
    return [*run, f"--config={ROOT / 'experiments' / config}", f"--workdir={workdir}", *TINY, *arguments]


def environment(devices=1):
    return os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


def run(workdir, *arguments, devices=1, **kwargs):
    return subprocess.run(
        command(workdir, *arguments), env=environment(devices), capture_output=True, text=True, timeout=300, **kwargs
    )


def start_and_wait(workdir, step, *arguments):
    """Starts a run and returns it once it has logged `step`."""
    process = subprocess.Popen(command(workdir, *arguments), env=environment(), stderr=subprocess.PIPE, text=True)
    wait_for_step(process, workdir, step)
    return process


def wait_for_step(process, workdir, step):
    """Returns once the run has logged `step`."""
    deadline = time.monotonic() + 200
    log = workdir / "metrics.jsonl"
    while not (
        log.exists() and any(json.loads(x)["step"] >= step for x in log.read_text().splitlines(True) if x[-1] == "\n")
    ):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def losses(workdir):
    return {line["step"]: line["train/loss"] for line in metrics(workdir) if "train/loss" in line}


STEPS = "--config.total_steps=60"


@pytest.fixture
def launch_tiny(launch):
    """`run` in this process, on its eight devices: launch_tiny(workdir, *flags) -> (exit status, stdout, stderr)."""
    return lambda workdir, *arguments: launch("experiments/quickstart.py:fake", workdir, *TINY, *arguments)


def cut(workdir, step):
    """Leaves a run as it was after a step, but for its log."""
    for later in (workdir / "checkpoints").iterdir():
        if later.name.isdigit() and int(later.name) > step:
            shutil.rmtree(later)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    done = run(workdir, STEPS)
    assert done.returncode == 0, done.stderr
    return workdir


def test_kill_at_any_moment_and_other_workers(uninterrupted, tmp_path):
    workdir = tmp_path / "killed"
    for at, workers in ((random.randint(1, 15), 2), (random.randint(20, 40), 1)):
        process = start_and_wait(workdir, at, STEPS, f"--config.data.num_workers={workers}")
        time.sleep(random.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
    done = run(workdir, STEPS)
    assert done.returncode == 0, done.stderr
    assert_equal_runs(uninterrupted, workdir, 60)


def test_sigterm_saves_and_the_same_command_goes_on(uninterrupted, tmp_path):
    process = start_and_wait(tmp_path, 12, STEPS)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143 and "SIGTERM: saved at step" in err
    assert (tmp_path / "curves.png").exists()  # drawn at step 10
    done = run(tmp_path, STEPS)
    assert done.returncode == 0 and "resuming at step" in done.stderr
    assert_equal_runs(uninterrupted, tmp_path, 60)


def test_other_meshes_go_on_with_the_same_losses(tmp_path):
    """8 devices, then 4, then 1: the next ten losses agree with those of a run that stayed on 8."""
    flags = (
        "--config.total_steps=30",
        "--config.batch_size=16",
        "--config.checkpoint.every=10",
        "--config.checkpoint.keep=9",
    )
    stays, moves = tmp_path / "stays", tmp_path / "moves"
    done = run(stays, *flags, devices=8)
    assert done.returncode == 0, done.stderr
    for devices, step, mesh in ((4, 10, ("--config.mesh.fsdp=2",)), (1, 20, ())):
        shutil.rmtree(moves, ignore_errors=True)
        shutil.copytree(stays, moves)
        cut(moves, step)
        done = run(moves, *flags, *mesh, devices=devices)
        assert done.returncode == 0, done.stderr
        assert f"resuming at step {step}" in done.stderr
        ours, theirs = losses(moves), losses(stays)
        after = range(step + 1, step + 11)
        np.testing.assert_allclose([ours[s] for s in after], [theirs[s] for s in after], rtol=1e-5)


def test_a_damaged_newest_checkpoint_is_passed_over(uninterrupted, tmp_path):
    workdir = tmp_path / "damaged"
    shutil.copytree(uninterrupted, workdir)
    for file in (workdir / "checkpoints" / "60" / "params").rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    done = run(workdir, STEPS)
    assert done.returncode == 0, done.stderr
    assert "the checkpoint of step 60 is damaged" in done.stderr and "resuming at step 55" in done.stderr
    assert_equal_runs(uninterrupted, workdir, 60)


def test_a_full_disk_leaves_the_previous_checkpoint(uninterrupted, launch_tiny, tmp_path):
    workdir = tmp_path / "full"
    shutil.copytree(uninterrupted, workdir)
    (workdir / "metrics.jsonl").write_text("")
    # No file may grow beyond 20 kB, less than a checkpoint needs: a save fails in the middle, as on a full disk.
    limited = ["bash", "-c", 'ulimit -f 20; exec "$@"', "-", *command(workdir, "--config.total_steps=70")]
    done = subprocess.run(limited, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    *_, line = done.stderr.splitlines()
    assert line.startswith("error: could not save a checkpoint") and "the checkpoint of step 60 is intact" in line
    assert "File too large" in line and "Traceback" not in done.stderr and "ERROR" not in done.stderr
    status, _, err = launch_tiny(workdir, "--config.total_steps=61")
    assert status == 0 and "resuming at step 60" in err


def test_a_loss_that_is_not_finite_stops_the_run(launch_tiny, tmp_path):
    schedule = [f"--config.task.tx.schedule.{value}" for value in ("base_lr=1e30", "warmup_steps=0")]
    status, _, err = launch_tiny(tmp_path, STEPS, *schedule, "--config.checkpoint.every=1")
    assert status == 3
    line = next(line for line in err.splitlines() if line.startswith("error:"))
    step = int(line.split("at step ")[1].split(";")[0])
    kept = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit())
    assert kept[-1] == step - 1 and f"the last good checkpoint is step {step - 1}" in line


def test_an_evaluation_that_fails_costs_no_step_and_is_made_up_for(launch_tiny, tmp_path, monkeypatch):
    def broken(state, frozen):
        raise UserError("a record cannot be read")

    flags = ("--config.total_steps=10", "--config.checkpoint.every=100")
    with monkeypatch.context() as patched:
        patched.setattr(Accuracy, "bind", lambda *_: broken)
        status, _, err = launch_tiny(tmp_path / "run", *flags)
    assert status == 1 and "a record cannot be read" in err
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["10"]
    assert not any("eval/test/top1" in line for line in metrics(tmp_path / "run"))
    status, _, err = launch_tiny(tmp_path / "run", *flags)
    assert status == 0, err
    launch_tiny(tmp_path / "whole", *flags)
    assert_equal_runs(tmp_path / "run", tmp_path / "whole", 10)


def test_a_run_that_failed_leaves_the_record_of_the_good_one(uninterrupted, launch_tiny, tmp_path):
    workdir = tmp_path / "record"
    shutil.copytree(uninterrupted, workdir)
    key = "task.tx.schedule.base_lr"
    status, _, err = launch_tiny(workdir, "--config.total_steps=62", f"--config.{key}=1e30", f"--allow_change={key}")
    assert status == 3, err
    assert (workdir / "config.json").read_bytes() == (uninterrupted / "config.json").read_bytes()


def test_a_changed_recipe_is_refused_unless_allowed(uninterrupted, launch_tiny, tmp_path):
    workdir = tmp_path / "changed"
    shutil.copytree(uninterrupted, workdir)
    longer, key = "--config.total_steps=62", "task.tx.weight_decay"
    status, _, err = launch_tiny(workdir, longer, "--config.seed=1")
    assert status == 2 and "seed: 0 -> 1" in err and "--allow_change=seed" in err
    status, out, err = launch_tiny(workdir, longer, f"--config.{key}=0.1", f"--allow_change={key}")
    assert status == 0, err
    assert f"{key}: 0.05 -> 0.1" in out and "total_steps: 60 -> 62" in out


def test_evaluation_only_changes_nothing(uninterrupted, launch_tiny, tmp_path):
    workdir = tmp_path / "eval"
    shutil.copytree(uninterrupted, workdir)
    before = (workdir / "config.json").read_bytes()
    final = [line for line in metrics(uninterrupted) if "eval/test/top1" in line][-1]["eval/test/top1"]
    log = (workdir / "metrics.jsonl").read_text()
    (workdir / "metrics.jsonl").write_text(log.replace(f'"eval/test/top1": {final}', '"eval/test/top1": 0.0123'))
    status, out, err = launch_tiny(workdir, "--config.total_steps=0", "--config.task.label_smoothing=0.2")
    assert status == 0, err
    assert f"eval/test/top1 {final:.4f}" in err and "not logged again" in err
    assert re.search(rf"eval/test/top1 +{final:.4f}", out) and "0.0123" not in out
    assert "changed since this run was started: task.label_smoothing" in out and "total_steps" not in out
    assert (workdir / "config.json").read_bytes() == before
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == sorted(
        p.name for p in (uninterrupted / "checkpoints").iterdir()
    )


def test_a_run_goes_on_whichever_way_its_blocks_are_stored(launch_tiny, tmp_path):
    """One by one, in stacks from step 2 on, and one by one again from step 4 on."""
    flags = ["--config.total_steps=6", "--config.checkpoint.every=2", "--config.checkpoint.keep=9"]
    flags += ["--config.task.model.depths=(4,)", "--config.task.model.num_heads=(1,)"]

    def train(workdir, scan):
        status, _, err = launch_tiny(workdir, *flags, f"--config.task.model.scan={scan}")
        assert status == 0, err
        return err

    plain, switched = tmp_path / "plain", tmp_path / "switched"
    train(plain, False)
    shutil.copytree(plain, switched)
    for step, scan in ((2, True), (4, False)):
        cut(switched, step)
        assert f"resuming at step {step} of 6" in train(switched, scan)
    ours, theirs = losses(switched), losses(plain)
    assert len(set(theirs.values())) == 6
    np.testing.assert_allclose([ours[step] for step in range(1, 7)], [theirs[step] for step in range(1, 7)], rtol=1e-5)
