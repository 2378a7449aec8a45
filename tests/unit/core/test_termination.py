"""A SIGTERM or SIGHUP becomes an exception within the block, and only there."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from importlib.machinery import ExtensionFileLoader

import pytest

from swin_jax.core import termination
from swin_jax.core.termination import Terminated, terminable
from swin_jax.train.preemption import Preemption


@pytest.mark.parametrize("number", termination.SIGNALS)
@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_signal_is_an_exception_unless_it_is_ignored(before, number):
    previous = signal.signal(number, before)
    try:
        if before is signal.SIG_IGN:
            with terminable():
                os.kill(os.getpid(), number)
        else:
            with pytest.raises(Terminated) as found, terminable():
                os.kill(os.getpid(), number)
            assert found.value.signal is number
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, previous)


@pytest.mark.parametrize("start", [termination.check, Preemption().__enter__])
def test_a_sigterm_that_a_library_swallows_is_heeded_later(start):
    with pytest.raises(Terminated), terminable():
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
        start()
    termination.check()


class Extension(ExtensionFileLoader):
    def create_module(self, spec):
        os.kill(os.getpid(), signal.SIGTERM)
        return "loaded"


def test_a_sigterm_waits_until_an_extension_is_loaded():
    with pytest.raises(Terminated), terminable():
        assert Extension("some", "some.so").create_module(None) == "loaded"
        time.sleep(10)
    time.sleep(2 * termination._AGAIN)


def test_what_waits_for_an_extension_ends_with_the_block():
    with terminable():
        assert Extension("some", "some.so").create_module(None) == "loaded"
    time.sleep(2 * termination._AGAIN)


CHILD = """
import sys, time
from swin_jax.core import termination
termination.end_with_parent()
print("runs", flush=True)
time.sleep(60)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def test_a_process_ends_with_the_one_that_started_it_and_was_killed():
    root = pathlib.Path(__file__).parents[3]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], cwd=root, stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "runs\n"
    parent.kill()
    parent.wait()
    began = time.monotonic()
    assert parent.stdout.read() == ""  # once the child has closed it, too
    assert time.monotonic() - began < 20


# It needs longer for its save than subprocess.run gives it after Ctrl-C.
TRAINING = """
import pathlib, signal, sys, time
def save(number, frame):
    signal.signal(signal.SIGINT, signal.SIG_IGN), signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1)
    pathlib.Path("saved").touch()
    sys.exit(128 + number)
signal.signal(signal.SIGINT, save), signal.signal(signal.SIGTERM, save)
pathlib.Path("runs").touch()
time.sleep(60)
"""
STUDY = """
import sys
from swin_jax.core import termination
with termination.resumable():
    termination.run_saving([sys.executable, "-c", sys.argv[1]])
    print("the next one")
"""


@pytest.mark.parametrize("number, whole", [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGTERM, False)])
def test_a_training_saves_before_the_study_around_it_ends(tmp_path, number, whole):
    """After Ctrl-C in a terminal, which reaches both, and after a signal to the study alone."""
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[3])}
    settings = dict(cwd=tmp_path, env=environment, start_new_session=True, text=True)
    command = [sys.executable, "-c", STUDY, TRAINING]
    study = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings)
    end = time.monotonic() + 60
    while not (tmp_path / "runs").exists() and time.monotonic() < end:
        time.sleep(0.05)
    (os.killpg if whole else os.kill)(study.pid, number)
    said = f"{number.name}: stopped; run the same command to resume\n"
    assert study.communicate(timeout=60) == ("", said) and study.returncode == 128 + number
    assert (tmp_path / "saved").exists()
