"""Runs whose readers are gone: they save all the same, and the same command resumes."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT

FLAGS = (
    "--config.total_steps=100000",
    "--config.logs.every=1",
    "--config.checkpoint.every=0",
    "--config.evals.test.every=0",
)
# The program gets the terminal as its own, as a shell of a connection does.
LAUNCH = """
import fcntl, runpy, sys, termios
if sys.stderr.isatty():
    fcntl.ioctl(2, termios.TIOCSCTTY, 0)
runpy.run_module("swin_jax.launch", run_name="__main__", alter_sys=True)
"""


def read_until(reader, text):
    found = b""
    while text not in found:
        found += os.read(reader, 1000)


@pytest.mark.parametrize("reader, number, status", [("tee", signal.SIGINT, 130), ("terminal", signal.SIGHUP, 129)])
def test_a_run_whose_reader_ends_first_saves(tmp_path, reader, number, status):
    """As `2>&1 | tee log` at Ctrl-C, where `tee` ends first; as a terminal that is closed, or a lost connection."""
    reading, writing = pty.openpty() if reader == "terminal" else os.pipe()
    config = f"--config={ROOT / 'experiments/quickstart.py:fake'}"
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT), "TERM": "dumb"}
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, config, f"--workdir={tmp_path}", *FLAGS, "--config.data.num_workers=0"],
        env=environment,
        stdout=writing,
        stderr=writing,
        start_new_session=True,
    )
    os.close(writing)
    read_until(reading, b"step 2/")
    os.close(reading)  # of a terminal, this sends SIGHUP
    if reader == "tee":
        process.send_signal(number)
    assert process.wait(timeout=120) == status
    (saved,) = (tmp_path / "checkpoints").iterdir()
    assert int(saved.name) >= 2 and (saved / "checksums.json").exists()
