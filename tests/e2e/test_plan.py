"""What a plan compiles is what the launcher would run, and the plans themselves where the TPU compiler is installed."""

import pathlib

import pytest

from swin_jax import config as configs

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
EXPERIMENTS = [path for path in sorted(FOLDER.glob("*.py")) if "def get_config(" in path.read_text()]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_a_task_knows_the_shapes_of_its_batches(path):
    config = configs.load(f"{path}:fake")
    promised = configs.build(config.task).batch_shapes(config.batch_size)
    batches = configs.build(config.data).batches(0, range(config.batch_size))
    found = {key: (array.shape, array.dtype) for key, array in next(batches).items()}
    batches.close()
    assert {key: found[key] for key in promised} == {key: (x.shape, x.dtype) for key, x in promised.items()}
    assert not found.keys() - promised.keys() - {"bad", "truncated", "label", "weight"}
