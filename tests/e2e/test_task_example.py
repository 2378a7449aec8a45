"""The task and the experiment in docs/architecture.md, as a reader copies them: trained, resumed and predicted with."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from swin_jax.train import checkpoint
from tests.e2e.test_experiments import SAVED_AT_2, assert_equal_runs
from tests.experiments import config_path
from tests.unit.experiments.test_lengths import code_lines


def code_in_docs(root) -> dict[str, str]:
    """The Python files that the page shows, by the path it gives them."""
    text = (root / "docs" / "architecture.md").read_text()
    return dict(re.findall(r"`(experiments/\S+\.py)`:\n\n```python\n(.*?)```", text, re.DOTALL))


@pytest.fixture
def experiment(root, tmp_path):
    """The experiment in a folder of its own, with the plumbing that it imports."""
    for name, source in code_in_docs(root).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    shutil.copytree(root / "experiments" / "common", tmp_path / "experiments" / "common")
    return tmp_path / "experiments" / "distillation" / "imagenet.py"


def test_the_example_is_short(root):
    sources = code_in_docs(root).values()
    assert len(sources) == 2 and sum(len(code_lines(source)) for source in sources) <= 60


def test_it_learns_from_a_trained_teacher_resumes_and_predicts(experiment, tmp_path, launch):
    teacher, whole, cut = (tmp_path / name for name in ("teacher", "whole", "cut"))
    status, _, err = launch(config_path("swin_in1k:fake"), teacher)
    assert status == 0, err
    flags = (*SAVED_AT_2, f"--config.task.teacher.path={teacher}")
    status, out, err = launch(f"{experiment}:fake", whole, *flags)
    assert status == 0 and "Done: 3 steps" in out, err
    assert json.loads((whole / "header.json").read_text())["frozen"]["sources"] == {"teacher": str(teacher)}
    assert not any("teacher" in path for path in checkpoint.load_params(whole)[0])

    shutil.copytree(whole, cut)
    shutil.rmtree(checkpoint.folder(cut) / "3")
    status, _, err = launch(f"{experiment}:fake", cut, *flags)
    assert status == 0 and "step 2 of 3" in err
    assert_equal_runs(whole, cut, 3)

    (tmp_path / "images").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    status, _, err = launch(f"{experiment}:fake", whole, *flags, f"--predict={tmp_path / 'images'}")
    assert status == 0 and len((whole / "predictions.csv").read_text().splitlines()) == 3, err

    for action in (f"--predict={tmp_path / 'images'}", f"--export={tmp_path / 'student'}"):
        status, _, err = launch(f"{experiment}:fake", whole, "--config.task.teacher.path=nowhere", action)
        assert status == 2 and "task.teacher.path=nowhere is neither a workdir" in err

    status, _, err = launch(f"{experiment}:fake", whole, *SAVED_AT_2, "--config.epochs=2")
    assert status == 1 and f"teacher from {teacher}" in err and "given are teacher from random numbers" in err


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "give --config.task.teacher.path=FILE_OR_WORKDIR"),
        (["--config.task.teacher.path=nowhere"], "task.teacher.path=nowhere is neither a workdir"),
    ],
)
def test_a_missing_teacher_is_one_line_at_setup(experiment, tmp_path, launch, flags, message):
    status, _, err = launch(experiment, tmp_path / "run", "--config.batch_size=8", *flags)
    assert status == 2 and message in err and len(err.strip().splitlines()) == 1
