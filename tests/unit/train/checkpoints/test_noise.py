"""What is kept from stderr when a save fails, and what is not."""

import logging
import sys

import pytest

from swin_jax.train.checkpoints import noise


@pytest.fixture
def hooks(monkeypatch):
    """Fresh hooks; what they were told reaches the list."""
    told = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: told.append(error))
    monkeypatch.setattr(sys, "unraisablehook", lambda found: told.append(found.exc_value))
    before = list(logging.getLogger("absl").filters)
    noise.hush.cache_clear()
    noise.hush()
    yield told
    noise.hush.cache_clear()
    logging.getLogger("absl").filters[:] = before


@pytest.mark.parametrize(
    "error, passes",
    [(RuntimeError("Event loop is closed"), False), (RuntimeError("other"), True), (OSError(28, "full"), True)],
)
def test_only_the_echoes_of_a_closed_loop_are_left_out(hooks, error, passes):
    sys.excepthook(type(error), error, None)
    sys.unraisablehook(type("Found", (), {"exc_value": error}))
    assert hooks == 2 * passes * [error]


@pytest.mark.parametrize(
    "path, level, passes",
    [
        ("/x/orbax/checkpoint/_src/futures/future.py", logging.ERROR, False),
        ("/x/orbax/checkpoint/manager.py", logging.WARNING, True),
        ("/x/mine.py", logging.ERROR, True),
    ],
)
def test_only_errors_of_orbax_are_left_out(hooks, path, level, passes):
    record = logging.LogRecord("absl", level, path, 1, "raised an exception: %s", ("x",), None)
    assert bool(logging.getLogger("absl").filter(record)) is passes
