"""The blocks of commands on the pages that need nothing, or only the quickstart's run, do what they say."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from swin_jax import launch
from tests import pages
from tests.unit.test_docs_commands import LAUNCHER

# Needs that the fixture below provides; its run is the quickstart's with two steps.
RUN, PICTURES = "the run of the quickstart", "a folder of pictures my_digits"
BLOCKS = [block for block in pages.blocks() if set(block.needs.split(", ")) - {""} <= {RUN, PICTURES}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the experiments, a run of the quickstart, and pictures of digits."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "experiments").symlink_to(pages.ROOT / "experiments")
    config, workdir = pages.ROOT / "experiments" / "quickstart.py", folder / "runs" / "quickstart"
    short = ("--config.total_steps=2", "--config.checkpoint.every=2")
    assert launch.run(["launch", f"--config={config}", f"--workdir={workdir}", *short]) == 0
    (folder / "my_digits").mkdir()
    for i, image in enumerate(load_digits().images[:3]):
        Image.fromarray(np.uint8(image * 15)).save(folder / "my_digits" / f"{i}.png")
    return folder


def test_blocks_that_are_run_are_those_of_the_launcher():
    """Another command says what it needs, if only that it takes long or installs something."""
    assert len(BLOCKS) >= 4
    for block in BLOCKS:
        lines = [line for line in block.text.replace("\\\n", " ").splitlines() if not re.match(r"#|\w+=", line)]
        assert len(lines) == len(block.commands), block.text
        assert all(words[:3] == LAUNCHER for words in block.commands), block.text


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.page)
def test_commands_run(block, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    shutil.rmtree("runs/try", ignore_errors=True)
    for words in block.commands:
        assert launch.run(words[2:]) == 0, (words, capsys.readouterr().err)
        shown = capsys.readouterr().out
        for word in words:
            if word.startswith("--export="):
                assert (folder / word.partition("=")[2]).stat().st_size > 1000
            if word.startswith("--predict="):
                assert (folder / "runs" / "quickstart" / "predictions.png").exists()
        assert shown
