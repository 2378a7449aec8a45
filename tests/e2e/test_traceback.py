"""How far it is from the command to the loss: what a reader of a traceback has to pass, and who gets to see one."""

import os
import subprocess
import sys

import pytest

from swin_jax import launch
from swin_jax.core.errors import UserError
from swin_jax.ops import losses


def test_the_loss_is_seven_frames_from_the_command(root, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("raised in the loss")

    arguments = ["--config=experiments/quickstart.py:fake", f"--workdir={tmp_path}"]
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["swin_jax", *arguments])
    monkeypatch.setattr(losses, "soft_cross_entropy", fail)
    with pytest.raises(RuntimeError, match="raised in the loss") as caught:
        launch.main()
    frames = [entry.name for entry in caught.traceback if root / "swin_jax" in entry.path.parents]
    assert frames[0] == "main" and frames[-1] == "loss"
    assert len(frames) <= 7, frames


NUMPY_FAILS = """\
import numpy as np
from swin_jax import launch
from swin_jax.ops import losses
losses.soft_cross_entropy = lambda *_: np.zeros(2) + np.zeros(3)
launch.main()
"""


def test_a_value_error_that_is_not_the_users_keeps_its_traceback(root, tmp_path):
    arguments = ["--config=experiments/quickstart.py:fake", f"--workdir={tmp_path}"]
    command = [sys.executable, "-c", NUMPY_FAILS, *arguments]
    environment = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr and ", in loss\n" in done.stderr
    assert "ValueError: operands could not be broadcast together" in done.stderr
    assert not any(line.startswith("error:") for line in done.stderr.splitlines())


@pytest.mark.parametrize(
    "error, line",
    [
        (ValueError("fields that\n do not fit"), "error: the config makes no task: fields that do not fit\n"),
        (UserError("depths and heads do not fit"), "error: depths and heads do not fit\n"),
    ],
)
def test_a_value_error_of_a_task_that_is_built_is_one_line(launch, tmp_path, monkeypatch, error, line):
    def fail(*_):
        raise error

    monkeypatch.setattr("swin_jax.tasks.classification.Classification.init", fail)
    assert launch("experiments/quickstart.py:fake", tmp_path) == (2, "", line)
    assert not (tmp_path / "checkpoints").exists()
