"""Every experiment resolves to the config recorded in tests/golden/configs, whatever files and callables are called."""

import importlib.util
import json
import pathlib

import pytest

from swin_jax.core.public_names import current_names

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "configs"
spec = importlib.util.spec_from_file_location("golden_configs", GOLDEN / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)


@pytest.mark.parametrize("path", make.experiments(), ids=lambda path: path.stem)
def test_resolved_configs_are_those_recorded(path):
    recorded = make.read(GOLDEN / f"{path.stem}.txt")
    assert make.arguments(path) == list(recorded)
    for argument, lines in recorded.items():
        if "refused" in lines:
            assert make.resolved(path, argument) == lines, argument
            continue
        expected = current_names({key: json.loads(value) for key, value in lines.items()})
        found = {key: json.loads(value) for key, value in make.resolved(path, argument).items()}
        assert found == expected, argument


def test_every_golden_file_has_its_experiment():
    assert [path.stem for path in make.experiments()] == sorted(path.stem for path in GOLDEN.glob("*.txt"))
