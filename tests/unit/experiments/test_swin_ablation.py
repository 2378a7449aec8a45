"""The study of Swin's ablations, without its trainings: rows, what is kept and resumed, tables."""

import importlib.util
import json
import sys

import pytest

from swin_jax.core import config
from swin_jax.core.errors import UserError
from swin_jax.models import swin

WINDOWS = dict(token_mixer="attention", shift="roll", relative_position=True, ape=False)
ABSOLUTE = dict(relative_position=False, ape=True)
FIELDS = {
    "shifted": WINDOWS,
    "padded": WINDOWS | dict(shift="pad"),
    "unshifted": WINDOWS | dict(shift="none"),
    "no_positions": WINDOWS | dict(relative_position=False),
    "absolute": WINDOWS | ABSOLUTE,
    "both": WINDOWS | dict(ape=True),
    "sliding": WINDOWS | dict(token_mixer="sliding", shift="none"),
    "performer": ABSOLUTE | dict(token_mixer="performer", shift="none"),
    "mlp": WINDOWS | dict(token_mixer="mlp", shift="pad"),
}


@pytest.fixture
def study(root):
    path = root / "experiments" / "studies" / "swin_ablation.py"
    spec = importlib.util.spec_from_file_location("swin_ablation_study", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def launcher(study, monkeypatch):
    """Stands for the launcher: writes the log of a run that takes no time, and notes its flags."""
    calls = []

    def run(command, **_):
        flags = dict(word.removeprefix("--").split("=", 1) for word in command if word.startswith("--"))
        calls.append(flags)
        row, seed = flags["config"].rpartition("row=")[2], int(flags["config.seed"])
        (study.pathlib.Path(flags["workdir"])).mkdir(parents=True)
        value = 0.8 + 0.01 * seed - 0.1 * (row == "unshifted")
        lines = [{"step": 7, "train/loss": 1.0}, {"step": 7, "eval/test/top1": value}]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (study.pathlib.Path(flags["workdir"]) / "metrics.jsonl").write_text(text)
        return int(row == "mlp")

    monkeypatch.setattr(study.termination, "run_saving", run)
    monkeypatch.setattr(study, "measure", lambda *_: calls.append(_) or dict(milliseconds=2.0, mebibytes=3.0))
    return calls


def test_rows_differ_from_the_first_in_what_they_are_named_for(study):
    assert list(study.ROWS) == list(FIELDS) and set(study.COSTS) < set(FIELDS)
    first = config.load(f"{study.CONFIG}:row=shifted")
    assert first.total_steps == 60_000 // first.batch_size
    assert (first.image_size, first.task.model.patch_size, first.task.model.window_size) == (28, 2, 7)
    plain = config.flatten(first)
    for row, fields in FIELDS.items():
        found = config.flatten(config.load(f"{study.CONFIG}:row={row}"))
        changed = {key.removeprefix("task.model.") for key, value in found.items() if plain[key] != value}
        assert changed == {name for name, value in fields.items() if WINDOWS[name] != value}
        assert {name: found[f"task.model.{name}"] for name in fields} == fields


def test_each_result_is_kept_and_the_study_resumes_with_the_row_that_is_missing(study, launcher, tmp_path):
    text = study.study(("shifted", "unshifted"), (0, 1), 0, tmp_path, "data")
    assert len(launcher) == 4 + 2 * len(study.PIXELS)
    (tmp_path / "unshifted_seed1.json").unlink()
    (tmp_path / "unshifted_seed1" / "metrics.jsonl").unlink()
    (tmp_path / "unshifted_seed1").rmdir()
    (tmp_path / "cost" / "shifted_56.json").unlink()
    del launcher[:]
    assert study.study(("shifted", "unshifted"), (0, 1), 0, tmp_path, "data") == text
    cost, training = launcher
    assert cost[:2] == ("shifted", 56)
    assert training["config"] == f"{study.CONFIG}:row=unshifted" and training["config.seed"] == "1"
    assert "config.total_steps" not in training
    with pytest.raises(UserError, match="is of a run of 7 updates, not of 9: give another --out"):
        study.train(study.Training("shifted", 0, steps=9), tmp_path, "data")


def test_a_training_that_fails_leaves_no_result(study, launcher, tmp_path):
    with pytest.raises(UserError, match="the training of mlp_seed2 ended with status 1; see .*mlp_seed2.log"):
        study.train(study.Training("mlp", 2), tmp_path, "data")
    assert not list(tmp_path.glob("*.json"))


def test_tables(study):
    table = study.accuracy_table({"shifted": [0.80, 0.82], "sliding": [0.83, 0.83]}).splitlines()
    assert table[2] == "| shifted windows, map rolled | 80.00 / 82.00 | **81.00** | 1.41 |  |  |"
    assert table[3] == "| a window around each token | 83.00 / 83.00 | **83.00** | 0.00 | +2.00 | 2.00 |"
    costs = {("shifted", 28): dict(milliseconds=2.0, mebibytes=30.0)}
    costs["padded", 28] = dict(milliseconds=3.0, mebibytes=33.0)
    table = study.cost_table(costs).splitlines()
    assert table[0] == "| | 28 px, ms | 28 px, MiB |"
    assert table[3] == "| shifted windows, map padded | 3.0 (1.50 x) | 33.0 (1.10 x) |"


def test_sliding_windows_take_more_memory_than_shifted_ones(study):
    shifted, sliding = (study.measure(row, 28, batch=1, seconds=0.0) for row in ("shifted", "sliding"))
    assert sliding["mebibytes"] > 1.2 * shifted["mebibytes"] > 1
    assert sliding["gigaflops"] == shifted["gigaflops"] and min(sliding["milliseconds"], shifted["milliseconds"]) > 0
    model = config.build(config.load(f"{study.CONFIG}:row=shifted").task.model)
    assert isinstance(model, swin.Swin) and model.flops() == 1e9 * shifted["gigaflops"]
