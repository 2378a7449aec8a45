"""How far it is from the command to the loss: what a reader of a traceback has to pass, and who gets to see one."""

import os
import subprocess
import sys

import numpy as np
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


def test_an_error_that_is_told_while_a_task_is_built_is_one_line(launch, tmp_path, monkeypatch):
    def fail(*_):
        raise UserError("depths and heads do not fit")

    monkeypatch.setattr("swin_jax.tasks.classification.Classification.init", fail)
    line = "error: depths and heads do not fit\n"
    assert launch("experiments/quickstart.py:fake", tmp_path) == (2, "", line)
    assert not (tmp_path / "checkpoints").exists()


def test_a_value_error_of_a_users_task_that_is_built_keeps_its_traceback(launch, tmp_path, monkeypatch):
    def fail(*_):
        return np.zeros(2) + np.zeros(3)

    monkeypatch.setattr("swin_jax.tasks.classification.Classification.init", fail)
    with pytest.raises(ValueError, match="^operands could not be broadcast") as caught:
        launch("experiments/quickstart.py:fake", tmp_path)
    assert not isinstance(caught.value, UserError) and caught.traceback[-1].name == "fail"


def test_fields_of_our_models_out_of_range_are_one_line(launch, tmp_path):
    refused = launch("experiments/quickstart.py:fake", tmp_path, "--config.task.model.embed_dim=-8")
    assert refused[0] == 2 and refused[2].startswith("error: --config.task.model.embed_dim=-8: "), refused
    assert len(refused[2].splitlines()) == 1
