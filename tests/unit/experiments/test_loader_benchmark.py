"""The benchmark of the loader: its smallest size, and what it says where PyTorch is missing."""

import functools
import json
import sys

import numpy as np
import pytest
from experiments.benchmarks import loader


@pytest.fixture
def no_peers(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


def test_the_smallest_run_prints_and_writes_its_numbers(no_peers, tmp_path, capsys):
    written, chart = tmp_path / "loader.json", tmp_path / "loader.png"
    size = "--images=2 --batch=1 --turns=1".split()
    results = loader.main([*size, f"--json={written}", f"--chart={chart}"])
    assert list(results) == list(loader.RECIPES)
    assert all(list(rows) == [loader.OURS, loader.FAST] for rows in results.values())
    out = capsys.readouterr().out
    assert "timm and torchvision are left out" in out and "pip install -e '.[peers]'" in out
    assert out.count("| swin_jax, fast |") == 3 and chart.stat().st_size > 0
    assert json.loads(written.read_text())["results"] == results


def test_files_are_photographs_of_the_size_of_imagenets(tmp_path):
    assert 90_000 < loader.write_files(tmp_path, 4) < 130_000
    assert len(list(tmp_path.rglob("*.jpg"))) == 4


def test_ratios_compare_turn_by_turn():
    ticks = iter([0, 4, 4, 5, 5, 6, 6, 16])  # timm 4 s and 10 s, ours 1 s and 1 s; turns begin with another one
    makers = {name: lambda: (batch for batch in range(9)) for name in (loader.TIMM, loader.OURS)}
    found = loader.measure(makers, 2, 2, lambda: next(ticks))
    assert found[loader.OURS]["ratio"] == pytest.approx(np.median([4, 10]))
    assert found[loader.OURS]["per_s"] == 2 and found[loader.TIMM]["ratio"] == 1
    assert "| training | swin_jax | 500.00 | 2 | 7.00 |" in loader.table({"training": found})


def test_with_workers_one_loader_lives_at_a_time():
    alive = []

    def batches(name):
        alive.append(name)
        assert len(alive) == 1
        try:
            yield from range(99)
        finally:
            alive.remove(name)

    makers = {name: functools.partial(batches, name) for name in (loader.OURS, loader.TIMM)}
    found = loader.measure_workers(makers, 4, 3, 2)
    assert list(found) == list(makers) and all(row["ratio"] > 0 for row in found.values())


@pytest.mark.parametrize("flags", ["--images=1", "--batch=0", "--turns=0", "--workers=-1", "--images=2 --batch=3"])
def test_flags_are_checked(flags):
    with pytest.raises(SystemExit) as end:
        loader.parse_flags(flags.split())
    assert end.value.code == 2
