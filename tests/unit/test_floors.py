"""What the suite finds by patterns never silently becomes less: tests, experiments, published rows, parity cases.

A pattern that is no longer right collects nothing and passes. The numbers are at least those of commit 9c335b1; raise
them when much is added.
"""

import pathlib

import pytest

from swin_jax.core import config
from tests.experiments import FILES, WITH_PODS

ROOT = pathlib.Path(__file__).parents[2]
FLOORS = {
    "unit": 7600,
    "e2e": 230,
    "e2e/test_experiments.py": 40,  # each experiment is run
    "e2e/test_plan.py": 53,  # and planned
    "devices": 104,
    "parity": 129,
}


@pytest.mark.parametrize("place", FLOORS)
def test_tests_collected(place, request):
    options = request.config.option
    if options.file_or_dir or options.keyword:
        pytest.skip("only a part of the suite was asked for")
    place_path = ROOT / "tests" / place
    found = [item for item in request.session.items if place_path in (item.path, *item.path.parents)]
    assert len(found) >= FLOORS[place]


def test_experiments_and_their_published_rows():
    rows = [row for path in WITH_PODS for row in config.module(str(path)).PODS]
    assert len(FILES) >= 24 and len(rows) >= 76


def test_parity_cases():
    cases = {path.stem for path in (ROOT / "tests" / "golden").glob("*/*.json")}
    assert len(cases) >= 40
