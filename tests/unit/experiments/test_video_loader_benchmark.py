"""The benchmark of the loader of videos: its smallest size, and what it says where PyTorch is missing."""

import itertools
import json
import sys

import numpy as np
import pytest
from experiments.benchmarks import loader, video_loader


@pytest.fixture
def short(monkeypatch):
    """Files of 70 frames, few of which make an epoch."""
    monkeypatch.setattr(video_loader, "FILES", {"short": (300, 12)})
    write = video_loader.write_video
    monkeypatch.setattr(video_loader, "write_video", lambda path, count, gop: write(path, 70, gop))
    monkeypatch.setattr(video_loader, "RECORDS", 8)


def test_the_smallest_run_prints_and_writes_its_numbers(short, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    written, chart = tmp_path / "videos.json", tmp_path / "videos.png"
    results = video_loader.main(["--batch=1", "--turns=1", f"--json={written}", f"--chart={chart}"])
    assert [list(rows) for rows in results.values()] == [[video_loader.OURS]] * 2
    out = capsys.readouterr().out
    assert "are left out" in out and out.count("| swin_jax |") == 2 and chart.stat().st_size > 0
    assert json.loads(written.read_text())["results"] == results


def test_batches_are_clips_without_end(short, tmp_path):
    video_loader.write_files(tmp_path, 1)
    for recipe in video_loader.RECIPES:
        found = list(itertools.islice(video_loader.ours(tmp_path, recipe, 1), 2))
        assert all(batch.shape == (1, 32, 224, 224, 3) and batch.dtype == np.uint8 for batch in found)


def test_ratios_are_to_the_given_reference():
    found = loader.summary({"a": [1.0, 2.0], "b": [3.0, 4.0]}, reference="b")
    assert found["a"]["ratio"] == 2.5 and found["b"]["ratio"] == 1
    table = loader.table({"training": found}, "clip", "b")
    assert "| training | a | 1500.00 | 0.667 | 2.50 |" in table and "clips/s | times b |" in table


def test_flags_are_checked():
    with pytest.raises(SystemExit):
        video_loader.parse_flags(["--batch=0"])
