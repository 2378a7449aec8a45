"""Requests to stop a run, wherever it is: in an evaluation, between two of them, while it starts up."""

import contextlib
import functools
import os
import signal
import threading
import time

import jax
import pytest

from swin_jax import launch as launcher
from swin_jax.core.errors import UserError
from swin_jax.data.pipeline import EvalData, TrainData
from swin_jax.train import loop
from tests.conftest import ROOT
from tests.e2e.test_experiments import assert_equal_runs, metrics

FLAGS = (
    "--config.logs.every=1",
    "--config.checkpoint.every=4",
    "--config.total_steps=6",
    "--config.evals.test.every=3",
    "--config.evals.test.run.data.batch_size=8",
    "--config.task.ema_decay=0.9",
)
CONFIG = "experiments/quickstart.py:fake"


@pytest.fixture
def ask(monkeypatch):
    """ask(number, evaluation, batch): a block in which a batch of an evaluation, both from 1 on, brings a signal."""

    @contextlib.contextmanager
    def asking(number, evaluation, batch=2):
        batches, begun = EvalData.batches, []

        def bringing(self, *arguments):
            begun.append(True)
            for index, item in enumerate(batches(self, *arguments), 1):
                if (len(begun), index) == (evaluation, batch):
                    os.kill(os.getpid(), number)
                yield item

        with monkeypatch.context() as patched:
            patched.setattr(EvalData, "batches", bringing)
            yield

    return asking


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole")
    config = f"--config={ROOT / 'experiments/quickstart.py:fake'}"
    assert launcher.run(["launch", config, f"--workdir={workdir}", *FLAGS]) == 0
    return workdir


@pytest.mark.parametrize(
    "number, status, evaluation, step",
    [
        (signal.SIGTERM, 143, 2, 3),  # of the average, at a step that is not saved; the raw weights are evaluated
        (signal.SIGINT, 130, 3, 6),  # at the last step
    ],
)
def test_an_evaluation_ends_when_the_run_is_to_stop_and_is_made_up_for(
    whole, launch, ask, tmp_path, number, status, evaluation, step
):
    with ask(number, evaluation):
        found, _, err = launch(CONFIG, tmp_path, *FLAGS)
    name = {143: "SIGTERM", 130: "Ctrl-C"}[status]
    assert found == status and f"{name}: saved at step {step}" in err
    assert max(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == step
    assert not any(line["step"] == step and "eval/test_ema/top1" in line for line in metrics(tmp_path))
    assert not (tmp_path / "owner.json").exists()
    found, _, err = launch(CONFIG, tmp_path, *FLAGS)
    assert found == 0, err
    assert_equal_runs(whole, tmp_path, 6)


@pytest.fixture
def third_batch(monkeypatch):
    """third_batch(data, happen): a block in which `happen` is called where data is to give its third batch."""

    @contextlib.contextmanager
    def happening(data, happen):
        batches = data.batches

        def until_then(self, *arguments):
            for index, item in enumerate(batches(self, *arguments), 1):
                if index == 3:
                    happen()
                yield item

        with monkeypatch.context() as patched:
            patched.setattr(data, "batches", until_then)
            yield

    return happening


def stall(number):
    """Storage that takes a minute; meanwhile the machine is to be given back."""
    threading.Timer(0.2, os.kill, [os.getpid(), number]).start()
    time.sleep(60)
    raise AssertionError("the request was seen too late")


def overflow():
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.")


def vanish():
    raise UserError("100 records in a row are unreadable")


def test_what_is_trained_is_saved_where_no_batch_comes(whole, launch, third_batch, tmp_path):
    """Data that are slow or gone cost no step, in training or in an evaluation."""
    trials = [
        (TrainData, functools.partial(stall, signal.SIGUSR1), 138, "SIGUSR1: saved at step 2"),
        (EvalData, overflow, 1, "error: evaluation test does not fit into the memory of the devices"),
        (EvalData, functools.partial(stall, signal.SIGTERM), 143, "SIGTERM: saved at step 3"),
        (TrainData, vanish, 1, "error: 100 records in a row"),
    ]
    for (data, happen, status, told), step in zip(trials, (2, 3, 3, 5)):
        with third_batch(data, happen):
            found, _, err = launch(CONFIG, tmp_path, *FLAGS)
        assert found == status and told in err
        assert max(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == step
    assert launch(CONFIG, tmp_path, *FLAGS)[0] == 0
    assert_equal_runs(whole, tmp_path, 6)


def test_evaluating_only_ends_too(whole, launch, ask):
    before = (whole / "metrics.jsonl").read_bytes()
    with ask(signal.SIGTERM, 1):
        status, _, err = launch(CONFIG, whole, *FLAGS, "--config.total_steps=0")
    assert status == 143 and "the same command" in err
    assert (whole / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("place", ["the experiment's file", "own", "first_state"])
def test_a_sigterm_during_start_up_says_so(launch, tmp_path, monkeypatch, place):
    def terminated(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)

    config, before = CONFIG, signal.getsignal(signal.SIGTERM)
    if place.startswith("the"):
        config = tmp_path / "mine.py"
        config.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    else:
        monkeypatch.setattr(loop, place, terminated)
    status, _, err = launch(config, tmp_path / "run", *FLAGS)
    assert status == 143 and err.splitlines()[-1].startswith("SIGTERM: stopped during start-up, before anything")
    assert signal.getsignal(signal.SIGTERM) is before and not (tmp_path / "run/owner.json").exists()


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR2, 140)])
def test_a_signal_to_another_action_says_so(launch, tmp_path, monkeypatch, number, status):
    monkeypatch.setattr(launcher, "_prepare", lambda *_: lambda: os.kill(os.getpid(), number))
    found, _, err = launch(CONFIG, tmp_path, "--predict=pictures")
    assert (found, err) == (status, f"{number.name}: stopped; rerun the same command\n")
