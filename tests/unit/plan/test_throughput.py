"""Rates of training, prediction and data; batches that do not fit; runs without their experiment; what is refused."""

import json

import jax
import pytest

from swin_jax import launch
from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from swin_jax.plan import throughput


def tiny():
    config = configs.load("experiments/quickstart.py:fake")
    config.batch_size = 8
    config.task.model.update(embed_dim=4, depths=(1,), num_heads=(1,))
    return config


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(throughput, "SECONDS", 1e-4)
    monkeypatch.setattr(throughput, "REPEATS", 3)


def test_rates_are_printed_and_written(quick, tmp_path, capsys):
    assert throughput.prepare(tiny(), str(tmp_path))() == 0
    out = capsys.readouterr().out
    (found,) = json.loads((tmp_path / "throughput.json").read_text())["measured"]
    for what in ("training", "prediction", "data"):
        rate = found[what]
        assert 0 < rate["slowest"] <= rate["median"] <= rate["fastest"]
        assert f"{what:<10}  images {rate['median']:,.1f}/s" in out
    assert [path.name for path in tmp_path.iterdir()] == ["throughput.json"]


def test_a_rate_counts_examples_and_leaves_the_first_calls_out(monkeypatch):
    monkeypatch.setattr(throughput, "SECONDS", 0.5)
    now, calls = [0.0], []
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])

    def call():
        calls.append(1)
        now[0] += 10.0 if len(calls) == 1 else 0.25

    rate = throughput._rate(call, lambda out: None, size=8)
    assert rate == throughput.Rate(32.0, 32.0, 32.0)
    assert len(calls) == 1 + 1 + 2 + throughput.REPEATS * 2


def test_a_batch_too_large_is_a_line_and_the_next_is_measured(quick, monkeypatch, capsys):
    def steps(run, size):
        if size > 8:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3 GiB")
        rate = dict(median=1.0, slowest=1.0, fastest=1.0)
        return {"training": rate, "prediction": rate, "compile_seconds": dict(training=0.0, prediction=0.0)}

    monkeypatch.setattr(throughput, "_steps", steps)
    assert throughput.prepare(tiny(), None, "16,8,16")() == 0
    out = capsys.readouterr().out
    assert out.count("does not fit into memory: RESOURCE_EXHAUSTED") == 1 and out.count("training  ") == 1
    assert throughput.prepare(tiny(), None, "16")() == 1


def saved_run(folder):
    """A workdir with nothing but the config.json of a small run."""
    (folder / "config.json").write_text(json.dumps(configs.flatten(tiny())))
    return f"--workdir={folder}"


@pytest.mark.parametrize(
    ("flags", "sizes"), [([], [8]), (["--config.batch_size=16"], [16]), (["--throughput_batch_sizes=24,16"], [24, 16])]
)
@pytest.mark.parametrize("switch", ["--throughput", "--throughput=true"])
def test_a_run_is_measured_without_its_experiment(switch, flags, sizes, quick, monkeypatch, tmp_path, capsys):
    steps, rows = [], []
    monkeypatch.setattr(throughput, "_steps", lambda run, size: steps.append(size) or {})
    monkeypatch.setattr(
        throughput, "_rate", lambda call, *_: rows.append(len(call()["label"])) or throughput.Rate(1.0, 1.0, 1.0)
    )
    assert launch.run(["launch", saved_run(tmp_path), switch, *flags]) == 1  # no rate of training
    assert steps == rows == sizes and "data        images" in capsys.readouterr().out
    measured = json.loads((tmp_path / "throughput.json").read_text())["measured"]
    assert [found["batch_size"] for found in measured] == sizes


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--throughput", "--config.seed=1"], "--config.seed changes nothing that was saved"),
        (["--predict=x", "--config.batch_size=4"], "--config.batch_size changes nothing that was saved"),
        (["--throughput=false"], "give one --config=FILE.py"),
    ],
)
def test_of_a_run_no_key_is_changed_without_effect(flags, message, tmp_path, capsys):
    assert launch.run(["launch", saved_run(tmp_path), *flags]) == launch.SETUP
    assert message in capsys.readouterr().err


def test_a_workdir_without_a_run_is_one_line(tmp_path, capsys):
    assert launch.run(["launch", f"--workdir={tmp_path}", "--throughput"]) == launch.SETUP
    err = capsys.readouterr().err
    assert "config.json does not exist: give the workdir of a trained run, or --config=" in err and err.count("\n") == 1


def test_without_data_the_steps_are_measured(quick, monkeypatch, capsys):
    config = tiny()
    config.data.source = configs.spec(_missing)
    monkeypatch.setattr(throughput, "_steps", lambda run, size: {})
    throughput.prepare(config, None)()
    assert "data        not measured: no folder" in capsys.readouterr().out


def _missing():
    raise UserError("no folder")


@pytest.mark.parametrize("text", ["0", "-4", "4.5", "many", "4,,x", ",", "9" * 10])
def test_batch_sizes_that_are_none(text):
    with pytest.raises(UserError, match="--throughput_batch_sizes=.*64,128,256"):
        throughput.prepare(tiny(), None, text)


def test_micro_batches_must_divide_it():
    config = tiny()
    config.task.accumulate = 2
    with pytest.raises(UserError, match="batch_size / accumulate is 12"):
        throughput.prepare(config, None, "16,24")


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--throughput", "--predict=images"], "--predict and --throughput are two commands"),
        (["--throughput_batch_sizes=4"], "is for --throughput"),
        (["--throughput", "--throughput_batch_sizes=x"], "is not a batch size"),
        (["--througput"], "did you mean --throughput"),
    ],
)
def test_the_launcher_refuses(flags, message, tmp_path, capsys):
    argv = ["launch", "--config=experiments/quickstart.py:fake", f"--workdir={tmp_path / 'run'}", *flags]
    assert launch.run(argv) == launch.SETUP
    assert message in capsys.readouterr().err
