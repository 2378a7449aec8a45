"""Each experiment explains itself when it is run as a script; what is no experiment is refused with the command."""

import runpy

import pytest

from swin_jax import launch as launcher
from swin_jax.core import config
from swin_jax.core.errors import UserError
from tests.experiments import FILES

COMMAND = "python -m swin_jax.launch --config="


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_run_as_a_script_says_how_to_launch_it(path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", [str(path)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(path), run_name="__main__")
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path} is no script") and f"{COMMAND}{path} --workdir=" in line


@pytest.mark.parametrize("name", ["README.md", "pyproject.toml", "nothing.py", "experiments", "swin_jax/ops/window.py"])
def test_a_config_that_is_none_is_one_line_with_the_command(name, root, capsys, monkeypatch):
    monkeypatch.chdir(root)
    assert launcher.run(["launch", f"--config={name}", "--workdir=x"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and repr(name) in line and COMMAND in line


def test_a_file_that_lies_in_a_folder_below_is_suggested(root, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises(UserError, match="did you mean 'experiments/swin/swin_in1k.py'"):
        config.module("experiments/swin_in1k.py")
