"""Workdirs with two checkpoints."""

import pathlib
import shutil

import pytest

from tests.unit.train.checkpoints import save, state


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A workdir with steps 1 and 2; copy it before changing it."""
    workdir = tmp_path_factory.mktemp("two")
    save(workdir, state(1), state(2))
    return workdir


@pytest.fixture
def workdir(two, tmp_path):
    return pathlib.Path(shutil.copytree(two, tmp_path / "run"))
