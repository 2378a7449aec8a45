"""The progress of some work is shown on any terminal, and where there is none."""

import io
import sys

import pytest

from swin_jax.core.output import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def now(monkeypatch):
    """The time, in a list."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def walk(now, seconds, **options):
    for _ in progress.steps(range(10), "images", **options):
        now[0] += seconds


def test_without_a_terminal_a_line_every_ten_seconds_says_how_far_it_is(now, capsys):
    walk(now, 4.0, name="index")
    lines = ["index: 3 of 10 images, ETA 00:28", "index: 6 of 10 images, ETA 00:16", "index: 9 of 10 images, ETA 00:04"]
    assert capsys.readouterr().err.splitlines() == lines


def test_what_takes_no_time_or_is_hidden_says_nothing(now, capsys):
    walk(now, 0.5)
    walk(now, 40.0, show=False)
    assert capsys.readouterr().err == ""


def test_what_was_done_before_takes_no_time(now, capsys):
    with progress.Progress(100, "files", initial=90) as shown:
        now[0] += 20.0
        shown.update(5)
        shown.write("left out")
    assert capsys.readouterr().err.splitlines() == ["95 of 100 files, ETA 00:20", "left out"]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_note_stands_behind_the_number(terminal, now, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    with progress.Progress(4, "files", "scan") as shown:
        now[0] += 20.0
        shown.update(2, note="1 failing")
    assert ("2/4" if terminal else "scan: 2 of 4 files, 1 failing, ETA 00:20") in sys.stderr.getvalue()
    assert "1 failing" in sys.stderr.getvalue()


@pytest.mark.parametrize("columns, term, bar", [("100", "xterm", True), ("20", "xterm", False), ("100", "dumb", False)])
def test_a_bar_where_there_is_room(columns, term, bar, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert progress.draws_bars() == bar
    with progress.Progress(3, "files") as shown:
        shown.update(3)
    assert ("3/3" in sys.stderr.getvalue()) == bar
