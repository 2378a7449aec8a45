"""Every experiment file, on fakes: trains 3 steps, saves, and a run cut off after step 2 ends bitwise equal."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from swin_jax.core import config as configs
from swin_jax.train import checkpoint
from tests.experiments import FILES, config_path

# Of three steps the second and the last are saved.
SAVED_AT_2 = ("--config.checkpoint.every=2", "--config.checkpoint.keep=5", "--config.logs.every=1")


def arrays(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, by part and path."""
    found = {}
    for part in ("params", "ema", "rest"):
        path = checkpoint.folder(workdir) / str(step) / part
        if path.exists():
            leaves = jax.tree_util.tree_flatten_with_path(checkpoint.read_numpy(path))[0]
            found |= {part + jax.tree_util.keystr(key): leaf for key, leaf in leaves}
    return found


def metrics(workdir: pathlib.Path) -> list[dict]:
    """The log, without what depends on the clock."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


def assert_equal_runs(one: pathlib.Path, other: pathlib.Path, step: int) -> None:
    ours, theirs = arrays(one, step), arrays(other, step)
    assert ours.keys() == theirs.keys() and ours
    for key in ours:
        np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)
    assert metrics(one) == metrics(other)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_fake(path, tmp_path, launch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    keeps = "ema_decay" in configs.load(f"{path}:fake").task
    average = ("--config.task.ema_decay=0.9",) if keeps else ()
    status, out, err = launch(f"{path}:fake", whole, *SAVED_AT_2, *average)
    assert status == 0, err
    assert "Done: 3 steps" in out and (whole / "curves.png").stat().st_size > 1000
    assert all(np.isfinite(line["train/loss"]) for line in metrics(whole) if "train/loss" in line)
    if keeps:
        assert any("eval/" in key and "_ema/" in key for line in metrics(whole) for key in line)
    if path.parent.name == "stylegan2":  # always keep an average, and may give nothing but pictures of it
        assert any((whole / "pictures").glob("*_ema*"))
    # As a kill after step 2 leaves it: the log ahead of the checkpoint, in the middle of a line.
    shutil.copytree(whole, cut)
    shutil.rmtree(checkpoint.folder(cut) / "3")
    with open(cut / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "train/lo')
    status, _, err = launch(f"{path}:fake", cut, *SAVED_AT_2, *average)
    assert status == 0 and "resuming at step 2 of 3" in err
    assert_equal_runs(whole, cut, 3)


def test_an_evaluation_that_a_sigterm_skipped_is_made_up_for(tmp_path, launch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = (*SAVED_AT_2, "--config.evals.test.every=2")
    assert launch("experiments/quickstart.py:fake", whole, *arguments)[0] == 0
    shutil.copytree(whole, cut)
    shutil.rmtree(checkpoint.folder(cut) / "3")
    lines = (cut / "metrics.jsonl").read_text().splitlines(True)
    kept = [line for line in lines if not ('"step": 2' in line and "eval/" in line)]
    assert len(kept) == len(lines) - 1
    (cut / "metrics.jsonl").write_text("".join(kept))
    assert launch("experiments/quickstart.py:fake", cut, *arguments)[0] == 0
    assert_equal_runs(whole, cut, 3)


def test_an_interval_of_the_log_that_was_given_is_kept(tmp_path, launch):
    status, _, err = launch("experiments/quickstart.py:fake", tmp_path, "--config.logs.every=2")
    assert status == 0, err
    assert [line["step"] for line in metrics(tmp_path) if "train/loss" in line] == [2, 3]


# Another network, other tasks and memory tools than a file's first arguments give.
FURTHER = (
    "clip_openai:model=RN50,fake",
    "clip_swin:generation=v2,fake",
    "simmim_in1k:generation=v2,schedule=100ep,weight_decay=corrected,fake",
    "simmim_finetune:generation=v2,fake",
    "swinv2_giant:stage=in22k,fake",
    "swinv2_giant:stage=in1k,fake",
    "swinv2_window_transfer:generation=v1,fake",
)


@pytest.mark.parametrize("name", FURTHER)
def test_fake_with_other_arguments(name, tmp_path, launch):
    status, out, err = launch(config_path(name), tmp_path)
    assert status == 0, err
    assert "Done: 3 steps" in out
    assert sum("train/loss" in line for line in metrics(tmp_path)) == 3
    assert all(np.isfinite(line["train/loss"]) for line in metrics(tmp_path) if "train/loss" in line)
    assert checkpoint.folder(tmp_path).is_dir()
