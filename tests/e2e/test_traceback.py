"""How far it is from the command to the loss: what a reader of a traceback has to pass."""

import sys

import pytest

from swin_jax import launch
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
