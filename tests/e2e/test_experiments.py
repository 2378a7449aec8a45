"""Every experiment file, on fakes: trains 3 steps, saves, and a run cut off after step 2 ends bitwise equal."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from swin_jax import checkpoint

EXPERIMENTS = sorted((pathlib.Path(__file__).parents[2] / "experiments").glob("*.py"))
EVERY_STEP = ("--config.checkpoint.every=1", "--config.checkpoint.keep=5", "--config.logs.every=1")


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


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_fake(path, tmp_path, launch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    status, out, err = launch(f"{path}:fake", whole, *EVERY_STEP, "--config.task.ema_decay=0.9")
    assert status == 0, err
    assert "Done: 3 steps" in out and (whole / "curves.png").stat().st_size > 1000
    assert all(np.isfinite(line["train/loss"]) for line in metrics(whole) if "train/loss" in line)
    assert any("eval/" in key and "_ema/" in key for line in metrics(whole) for key in line)
    # As a kill after step 2 leaves it: the log ahead of the checkpoint, in the middle of a line.
    shutil.copytree(whole, cut)
    shutil.rmtree(checkpoint.folder(cut) / "3")
    with open(cut / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "train/lo')
    status, _, err = launch(f"{path}:fake", cut, *EVERY_STEP, "--config.task.ema_decay=0.9")
    assert status == 0 and "goes on from step 2 of 3" in err
    assert_equal_runs(whole, cut, 3)


def test_an_evaluation_that_a_sigterm_skipped_is_made_up_for(tmp_path, launch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = (*EVERY_STEP, "--config.evals.test.every=2")
    assert launch("experiments/quickstart.py:fake", whole, *arguments)[0] == 0
    shutil.copytree(whole, cut)
    shutil.rmtree(checkpoint.folder(cut) / "3")
    lines = (cut / "metrics.jsonl").read_text().splitlines(True)
    kept = [line for line in lines if not ('"step": 2' in line and "eval/" in line)]
    assert len(kept) == len(lines) - 1
    (cut / "metrics.jsonl").write_text("".join(kept))
    assert launch("experiments/quickstart.py:fake", cut, *arguments)[0] == 0
    assert_equal_runs(whole, cut, 3)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_config_without_fakes_builds(path):
    """The real config resolves: steps and rates follow epochs and batch size."""
    from swin_jax import config

    resolved = config.flatten(config.load(str(path)))
    assert resolved["total_steps"] > 100 and resolved["task.fn"] == "swin_jax.tasks.classification.Classification"
    if "epochs" in resolved:
        other = config.load(str(path))
        other.batch_size = 2 * other.batch_size
        assert other.total_steps == other.epochs * (other.num_train // other.batch_size)
        rate = other.task.tx.schedule.base_lr
        np.testing.assert_allclose(rate, 2 * resolved["task.tx.schedule.base_lr"])


PUBLISHED = {  # arguments -> peak rate, total steps, warm-up steps, weight decay, drop path, crop in evaluation
    "swin_in1k.py": (1e-3, 375_300, 25_020, 0.05, 0.2, True),
    "swin_in1k.py:variant=small": (1e-3, 375_300, 25_020, 0.05, 0.3, True),
    "swin_in1k.py:variant=base": (1e-3, 375_300, 25_020, 0.05, 0.5, True),
    "swin_in22k.py:variant=base": (1e-3, 311_940, 17_330, 0.05, 0.2, True),
    "swin_in22k.py:variant=tiny": (1e-3, 311_940, 17_330, 0.05, 0.1, True),
    "swin_in1k_finetune.py:variant=large,size=384": (4e-5, 37_530, 6_255, 1e-8, 0.2, False),
    "swin_in1k_finetune.py:variant=base,size=384,start=1k": (4e-5, 37_530, 6_255, 1e-8, 0.5, False),
    "swin_in1k_finetune.py:variant=tiny": (4e-5, 37_530, 6_255, 1e-8, 0.1, True),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipe(name, root):
    from swin_jax import config

    c = config.load(str(root / "experiments" / name))
    schedule = c.task.tx.schedule
    found = (schedule.base_lr, c.total_steps, schedule.warmup_steps, c.task.tx.weight_decay)
    rate, *rest = PUBLISHED[name]
    np.testing.assert_allclose(found[0], rate)
    assert (*found[1:], c.task.model.drop_path_rate, c.predict.transform.crop) == tuple(rest)
    assert c.task.tx.clip_norm == 5.0 and c.task.mixup == 0.8 and c.task.cutmix == 1.0 and c.task.mix_group == 128
    assert not schedule.warmup_prefix and schedule.delay == 1 and c.task.label_smoothing == 0.1
