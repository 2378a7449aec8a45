"""What a run sends to W&B, which may be missing or fail."""

import functools
import sys
import types

import numpy as np
import pytest

from experiments import quickstart
from swin_jax.core.errors import UserError
from swin_jax.train import logs, setup


def test_wandb_that_is_missing_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[wandb\]'"):
        logs.Logs(tmp_path, 100, wandb_project="p")


def test_wandb_that_is_missing_is_told_before_the_run_begins(tmp_path, monkeypatch):
    """The line came after the model was made, with the status of a failure within the work."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = quickstart.get_config("fake")
    setup.check_start(config, tmp_path)
    config.logs.wandb = "p"
    with pytest.raises(UserError, match=r"pip install -e '.\[wandb\]'"):
        setup.check_start(config, tmp_path)


def test_wandb_continues_the_same_run(tmp_path, monkeypatch):
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append((step, values)), finish=lambda: calls.append("finish")
    )
    wandb = types.SimpleNamespace(init=lambda **kwargs: calls.append(kwargs) or run)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for restored_step in (None, 1):
        with logs.Logs(tmp_path, 100, restored_step, wandb_project="p", config={"seed": 1}) as log:
            log.write(2, {"a": np.float32(0.5), "b": float("nan")})
    first, second = calls[:3], calls[3:]
    assert first[1:] == second[1:] == [(2, {"a": 0.5}), "finish"]
    assert first[0] == second[0]
    assert first[0]["project"] == "p" and first[0]["resume"] == "allow" and first[0]["config"] == {"seed": 1}


class Failing:
    """A run of W&B that the network has left."""

    def log(self, values, step):
        raise RuntimeError(f"Connection refused\nat step {step}")

    finish = functools.partialmethod(log, None, 0)


def test_a_service_that_fails_ends_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **kwargs: Failing()))
    with logs.Logs(tmp_path, 100, wandb_project="p") as log:
        for step in (1, 2):
            log.write(step, {"a": 0.5})
    assert [line["step"] for line in logs.read_metrics(tmp_path)] == [1, 2]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "W&B lacks a part of the log (RuntimeError: Connection refused); it goes on"


def test_a_service_that_does_not_start_is_one_line(tmp_path, monkeypatch):
    def init(**kwargs):
        raise RuntimeError("api_key not configured (no-tty)\ncall wandb login")

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    with pytest.raises(UserError, match="cannot be started .*api_key not configured.*WANDB_MODE=offline") as caught:
        logs.Logs(tmp_path, 100, wandb_project="p")
    assert "\n" not in str(caught.value)
