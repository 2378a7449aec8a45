"""The study of SimMIM on Fashion-MNIST, without its trainings: command lines, equal compute, statistics, tables."""

import importlib.util
import json
import re
import sys
import time

import numpy as np
import pytest

from swin_jax.core import config


@pytest.fixture
def study(root):
    spec = importlib.util.spec_from_file_location("study", root / "experiments" / "studies" / "simmim_fashion_mnist.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Finished:
    """A runner whose trainings end at once: scratch is best at the middle rate and the shorter length."""

    def __init__(self, study, out):
        self.study, self.out, self.names = study, out, []

    def start(self, *runs):
        for run in runs:
            self.names.append(run.name)
            (self.out / run.name).mkdir(exist_ok=True)
            accuracy = 0.8 + 0.01 * run.seed if run.start else 0.7 + 0.004 * run.seed
            heldout = 0.7 - abs(run.base_lr - 1e-3) - 1e-6 * run.steps
            values = {"eval/heldout/top1": heldout, "eval/test/top1": accuracy, "eval/heldout/loss": 0.2}
            lines = [{"step": 1, "eval/heldout/top1": 0.99}, {"step": run.steps, "train/loss": 1.0}]
            lines.append({"step": run.steps} | values)
            (self.out / run.name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            times = dict(began=60.0 * len(self.names), ended=60.0 * len(self.names) + 120, cpu_seconds=90.0)
            (self.out / run.name / "time.json").write_text(json.dumps(times))
        return self

    def result(self):
        pass


def test_both_sides_get_the_same_number_of_updates(study):
    assert study.SCRATCH_LENGTHS[0] == study.PRETRAIN_STEPS + study.FINETUNE_STEPS[1] > study.SCRATCH_LENGTHS[1]
    assert len(study.SCRATCH_RATES) == 3 and len(study.SCRATCH_LENGTHS) == 2 and len(study.SEEDS) == 3
    best = study.scratch(1, 0, 1e-3, 3500)
    assert study.scratch_steps(1, best) == 3500
    assert study.scratch_steps(10, best) == study.PRETRAIN_STEPS + study.FINETUNE_STEPS[10]


def test_both_sides_share_network_data_and_batch_size(study, root):
    pretrain = config.load(str(root / "experiments" / study.pretraining(0).config))
    finetune = config.load(str(root / "experiments" / study.finetuning(1, 0).config))
    encoder, model = dict(pretrain.task.model.encoder), dict(finetune.task.model)
    assert (encoder.pop("num_classes"), model.pop("num_classes")) == (0, 10) and encoder == model
    assert pretrain.batch_size == finetune.batch_size and pretrain.total_steps == study.PRETRAIN_STEPS
    assert finetune.total_steps == study.FINETUNE_STEPS[1]
    assert pretrain.data.transform.transform == finetune.data.transform
    assert pretrain.data.source.split == finetune.data.source.source.split == "train[:55000]"
    assert finetune.data.source.per_class * 10 == 600
    assert finetune.evals.heldout.run.data.source.split == "train[55000:]"


def test_command_lines(study, tmp_path):
    tuned, plain = study.finetuning(10, 2), study.scratch(10, 2, 3e-3, 500)
    command = tuned.command(tmp_path, "data")[3:]
    assert command[0] == "--config=experiments/simmim/simmim_fashion_mnist_finetune.py:labels=10"
    assert f"--config.init_from.path={tmp_path / study.pretraining(2).name}" in command
    assert "--config.seed=2" in command and not any("base_lr" in flag for flag in command)
    command = plain.command(tmp_path, "data")[3:]
    assert "--config.task.tx.schedule.base_lr=0.003" in command and "--config.total_steps=500" in command
    assert not any("init_from" in flag for flag in command)


def test_statistics(study):
    ours, theirs = [0.80, 0.81, 0.85], [0.78, 0.79, 0.80]
    found = study.compare(ours, theirs)
    np.testing.assert_allclose(found["gain"], 0.03)
    np.testing.assert_allclose(found["pooled_deviation"], np.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / 2))
    assert not found["clear"]  # 0.03 is less than twice 0.02
    assert study.compare([0.80, 0.81, 0.82], [0.78, 0.77, 0.76])["clear"]


def test_the_whole_study_without_trainings(study, tmp_path):
    runner = Finished(study, tmp_path)
    found = study.study(runner)
    assert found["chosen"] == dict(base_lr=1e-3, steps=study.SCRATCH_LENGTHS[1])
    assert found["table"][1]["simmim"] == pytest.approx([0.8, 0.81, 0.82])
    assert found["table"][1]["scratch"] == pytest.approx([0.7, 0.704, 0.708]) and found["table"][1]["clear"]
    assert found["time"]["runs"] == len(set(runner.names)) == 3 + 6 + 6 + 2 + 3
    assert len(found["grid"]) == 6 and found["pretraining_loss"] == [0.2] * 3
    text = study.markdown(found)
    assert "| 1 % | **81.00** (80.00, 81.00, 82.00) | **70.40** (70.00, 70.40, 70.80) | 10.60 |" in text
    assert re.search(r"\| 0\.001 \| \d\d\.\d\d \| \*\*69\.65\*\* \|", text)
    study.plot(found, tmp_path / "table.png")
    assert (tmp_path / "table.png").stat().st_size > 5000


TRAINING = """
import pathlib, signal, sys, time
path = pathlib.Path(sys.argv[1])
def save(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1)
    path.with_suffix(".saved").touch()
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, save)
path.with_suffix(".runs").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_starts_no_run_and_waits_until_those_at_work_have_saved(study, tmp_path, monkeypatch, error):
    monkeypatch.setattr(study.Run, "command", lambda run, out, _: [sys.executable, "-c", TRAINING, str(out / run.name)])
    runs = [study.Run(name, "", 1, 0) for name in "abcd"]
    with pytest.raises(error), study.Runner(tmp_path, "", 2) as runner:
        waiting = [runner.start(*runs[:2]), runner.start(runs[2]), runner.start(runs[3])]
        end = time.monotonic() + 60
        while len(list(tmp_path.glob("*.runs"))) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        raise error
    names = {path.name for path in tmp_path.iterdir() if path.suffix != ".log"}
    assert names == {"a.runs", "a.saved", "c.runs", "c.saved"}
    assert all(future.done() for future in waiting)


def test_overlapping_runs_count_once_by_the_clock(study, tmp_path):
    runs = [study.pretraining(seed) for seed in range(3)]
    for run, began, ended in zip(runs, (0, 60, 600), (120, 180, 660)):
        (tmp_path / run.name).mkdir()
        (tmp_path / run.name / "time.json").write_text(json.dumps(dict(began=began, ended=ended, cpu_seconds=30)))
    assert study.spent(tmp_path, set(runs)) == dict(runs=3, wall_minutes=4.0, cpu_minutes=1.5)


def test_only_the_last_step_counts(study, tmp_path):
    run = study.scratch(1, 0, 1e-3, 50)
    (tmp_path / run.name).mkdir()
    (tmp_path / run.name / "metrics.jsonl").write_text('{"step": 40, "eval/test/top1": 0.9}\n')
    assert study.results(tmp_path, run) == {}
