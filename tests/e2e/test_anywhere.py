"""An experiment loads from any folder, with what it imports from its own folder `experiments`, in workers as well."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parents[2]

OWN = """
    from experiments.common import digits
    from swin_jax.core import config

    def get_config(arg=None):
        c = config.load(f"{digits.QUICKSTART}:fake")
        c.data.source = config.spec(digits.images)
        c.data.num_workers = 1
        return c
"""
DIGITS = """
    import dataclasses

    from swin_jax.data import fake

    QUICKSTART = %r

    @dataclasses.dataclass(frozen=True)
    class Images:
        class_names: tuple[str, ...]

        def __len__(self):
            return 40

        def __getitem__(self, index):
            return all_images()[index]

        def record_name(self, index):
            return str(index)

    def all_images():
        return fake.images(image_size=8, num_examples=40, split="train", channels=1)

    def images():
        return Images(tuple(all_images().class_names))
"""


@pytest.fixture
def run(tmp_path):
    """Runs a command in an empty folder, beside an installed package `experiments`: run(*command) -> the process."""
    decoy = tmp_path / "site" / "experiments" / "common"
    empty = tmp_path / "empty"
    for folder in (
        decoy,
        empty,
        tmp_path / "mine" / "experiments" / "common",
        tmp_path / "mine" / "experiments" / "own",
    ):
        folder.mkdir(parents=True)
    for file in (decoy.parent / "__init__.py", decoy / "__init__.py", decoy / "digits.py"):
        file.write_text("raise ImportError('the wrong package experiments')\n")
    mine = tmp_path / "mine" / "experiments"
    (mine / "common" / "digits.py").write_text(textwrap.dedent(DIGITS % str(ROOT / "experiments/quickstart.py")))
    (mine / "own" / "own.py").write_text(textwrap.dedent(OWN))
    path = os.pathsep.join([str(decoy.parents[1]), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "JAX_NUM_CPU_DEVICES": "1"}

    def run(*command):
        return subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, timeout=600)

    return run


def test_python_m_with_an_absolute_path_trains_with_workers(run, tmp_path):
    config = tmp_path / "mine" / "experiments" / "own" / "own.py"
    done = run(sys.executable, "-m", "swin_jax.launch", f"--config={config}", "--workdir=run")
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "empty" / "run" / "config.json").read_text())
    assert saved["data.source.fn"] == "experiments.common.digits.images"


def test_the_command_with_a_relative_path_plans(run):
    """The compiler runs in a process of its own."""
    command = shutil.which("swin_jax", path=str(pathlib.Path(sys.executable).parent))
    done = run(command, "--config=../mine/experiments/own/own.py", "--plan=v5e:1x1", "--plan_effort=quick")
    assert done.returncode == 0, done.stderr
