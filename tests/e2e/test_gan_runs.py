"""A GAN's run that is killed goes on bit by bit: two networks, R1, path lengths, augmentation and the average."""

import os
import signal
import subprocess
import sys
import time

from tests.e2e.test_experiments import assert_equal_runs
from tests.e2e.test_runs import ROOT, environment, wait_for_step

STEPS = 80
FLAGS = (
    f"--config.images={8 * STEPS}",
    "--config.logs.every=4",
    "--config.checkpoint.every=10",
    "--config.evals.grid.every=40",
    "--config.evals.quality.every=80",
)


def start(workdir):
    experiment = ROOT / "experiments" / "stylegan2" / "stylegan2_ffhq.py"
    command = [sys.executable, "-m", "swin_jax.launch", f"--config={experiment}:ada,fake", f"--workdir={workdir}"]
    return subprocess.Popen([*command, *FLAGS], env=environment(), stderr=subprocess.PIPE, text=True)


def test_a_killed_run_ends_as_one_that_was_not(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(whole)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    process = start(killed)
    wait_for_step(process, killed, 8)
    while not any(path.name.isdigit() for path in (killed / "checkpoints").iterdir()):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL and not os.path.exists(killed / "checkpoints" / str(STEPS))
    process = start(killed)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0 and "resuming at step" in err, err
    assert_equal_runs(whole, killed, STEPS)
