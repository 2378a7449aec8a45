"""Each experiment explains itself when it is run as a script; what is not an experiment is refused with the command."""

import pathlib
import runpy
import shutil
import sys

import numpy as np
import pytest

from swin_jax import launch as launcher
from swin_jax.core import config
from swin_jax.core.errors import UserError
from swin_jax.data.image_text.tokenizer import tokenize
from swin_jax.pretrained.run_preparation import of_run
from tests.experiments import FILES, FOLDER

SCRIPTS = [
    path
    for path in sorted([*FOLDER.glob("benchmarks/*.py"), *FOLDER.glob("studies/*.py")])
    if "ArgumentParser(" in path.read_text()
]
COMMAND = "python -m swin_jax.launch --config="


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_run_as_a_script_says_how_to_launch_it(path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", [str(path)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(path), run_name="__main__")
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path} is not a script") and f"{COMMAND}{path} --workdir=" in line


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_lists_its_arguments(path):
    text = config.describe_arguments(f"{path}:help")
    assert text.splitlines()[0] in path.read_text() and "\n  fake" in text


@pytest.mark.parametrize("name", ["README.md", "nothing.py", "experiments", "swin_jax/ops/window.py"])
def test_a_config_that_is_none_is_one_line_with_the_command(name, root, capsys, monkeypatch):
    monkeypatch.chdir(root)
    assert launcher.run(["launch", f"--config={name}", "--workdir=x"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and repr(name) in line and COMMAND in line


@pytest.mark.parametrize(
    "text",
    [
        "get_config = 3",
        "def get_config():\n    return 1",
        "def get_config(arg):\n    return {}",
        "def get_config(arg:\n",
        "\0",
        "",
    ],
)
def test_a_python_file_that_is_no_experiment_is_one_line_with_the_command(text, tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(text)
    assert launcher.run(["launch", f"--config={file}", "--workdir=x"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and repr(str(file)) in line and COMMAND in line


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_benchmark_or_study_starts_without_the_folder_that_it_lies_in(path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", [str(path), "--help"])
    monkeypatch.setattr(
        "sys.path", [entry for entry in sys.path if pathlib.Path(entry or ".").resolve() != FOLDER.parent]
    )
    monkeypatch.delitem(sys.modules, "experiments", raising=False)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(path), run_name="__main__")
    assert caught.value.code == 0 and "usage: " in capsys.readouterr().out


def test_a_file_that_lies_in_a_folder_below_is_suggested(root, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises(UserError, match="did you mean 'experiments/swin/swin_in1k.py'"):
        config.module("experiments/swin_in1k.py")
    with pytest.raises(UserError, match="no experiment file 'experiments/nothing.py'; python -m"):
        config.module("experiments/nothing.py")


@pytest.fixture
def without_repository(monkeypatch):
    """Python as it is where the folder of the repository is not on its path."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "experiments"]:
        monkeypatch.delitem(sys.modules, name)
    path = [entry for entry in sys.path if pathlib.Path(entry or ".").resolve() != FOLDER.parent]
    monkeypatch.setattr("sys.path", path)


@pytest.mark.parametrize("folder, missing", [("mine", "experiments"), ("experiments", "experiments.common")])
def test_a_copy_that_does_not_find_the_plumbing_says_where_to_keep_it(folder, missing, tmp_path, without_repository):
    copy = tmp_path / folder / "mine.py"
    copy.parent.mkdir()
    shutil.copy(FOLDER / "swin" / "swin_in1k.py", copy)
    with pytest.raises(UserError, match=f"imports {missing}, which is not there: keep the file inside") as caught:
        config.load(str(copy))
    text = str(caught.value)
    assert "\n" not in text and ("PYTHONPATH" in text) == (folder == "mine")  # else it is not enough


def test_a_copy_that_imports_its_own_folder_stays_in_the_repository(tmp_path):
    (tmp_path / "mine.py").write_text("from experiments.distillation.task import Distillation\n")
    message = "imports experiments.distillation, which is not there: keep .* of the repository$"
    with pytest.raises(UserError, match=message):
        config.load(str(tmp_path / "mine.py"))


def test_a_copy_finds_the_plumbing_with_the_repository_on_the_path(tmp_path, without_repository, monkeypatch):
    shutil.copy(FOLDER / "swin" / "swin_in1k.py", tmp_path / "mine.py")
    monkeypatch.syspath_prepend(str(FOLDER.parent))
    assert config.load(str(tmp_path / "mine.py")).total_steps == 375_300


def test_another_module_that_is_missing_keeps_its_traceback(tmp_path):
    (tmp_path / "mine.py").write_text("import no_such_package\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        config.load(str(tmp_path / "mine.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("argument", ["", ":fake"])
def test_pictures_and_texts_are_prepared_alike_wherever_a_run_needs_them(path, argument):
    """In evaluations as for predictions; texts in evaluations and searches as in training."""
    resolved = config.flatten(config.load(f"{path}{argument}"))

    def below(prefix):
        return {key.removeprefix(prefix): value for key, value in resolved.items() if key.startswith(prefix)}

    predicted, trained = below("predict.transform."), below("data.transform.")
    for name in {key.split(".")[1] for key in resolved if key.startswith("evals.")}:
        transform = below(f"evals.{name}.run.data.transform.")
        if not transform:  # it looks at no data set
            continue
        # A validation of videos between epochs looks at one view, as the published code does.
        if predicted and not transform["fn"].endswith("video_eval_transform"):
            assert predicted in (transform, below(f"evals.{name}.run.data.transform.image."))
        for key in ("clean", "context_length"):
            assert transform.get(key, trained.get(key)) == trained.get(key)
    if "context_length" in trained:
        assert of_run(resolved, path, lambda example: example).clean == trained.get("clean", "openai")
        assert resolved["task.context_length"] == trained["context_length"]


@pytest.mark.parametrize("name", ["clip_openai", "clip_swin", "lit", "siglip"])
@pytest.mark.parametrize("clean", ["openai", "whitespace", "canonicalize"])
def test_evaluations_and_searches_clean_texts_as_the_training_does(name, clean):
    """Whatever is set on the command line: a caption becomes the same tokens everywhere."""
    argument = ":validation" + (",imagenet" if name == "clip_openai" else "")
    resolved = config.load(f"{FOLDER}/clip/{name}.py{argument}")
    resolved.data.transform.clean, resolved.context_length = clean, 12
    tokens, caption = [], "Bob&#39;s  CAFÉ_no. 5!! A dog, a cat, a very long caption that is cut in the end"
    image = {"image": np.zeros((40, 47, 3), np.uint8), "text": (caption,)}
    transform = resolved.data.transform
    transform.image.size = resolved.evals.validation.run.data.transform.image.size = 8
    tokens.append(config.build(transform)(dict(image), np.random.default_rng(0))["text"])
    tokens.append(config.build(resolved.evals.validation.run.data.transform)(dict(image))["text"])
    prepared = of_run(config.flatten(resolved), name, lambda example: example)
    tokens.append(prepared.tokenize_and_flag(caption)[0][0])
    for found in tokens:
        np.testing.assert_array_equal(found, tokenize(caption, 12, truncate=True, clean=clean)[0])
    if "imagenet" in argument:
        measured = resolved.evals.imagenet.run
        assert (measured.clean, measured.context_length) == (clean, 12)
