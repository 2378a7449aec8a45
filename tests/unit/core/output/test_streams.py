"""Output that nobody reads, or that has no room, ends nothing."""

import io
import os
import subprocess
import sys
import threading

import pytest

from swin_jax.core.output.streams import failure, lasting, lasting_output


@pytest.fixture
def pipe():
    """The reading end of a pipe, and a text stream to it as Python makes standard output."""
    reader, writer = os.pipe()
    with open(writer, "w", errors="strict") as stream:
        yield reader, stream


def test_what_nobody_reads_ends_nothing(pipe):
    reader, stream = pipe
    output = lasting(stream)
    print("read", file=output, flush=True)
    assert os.read(reader, 100) == b"read\n" and failure(output) is None
    os.close(reader)
    for _ in range(2):
        print("not read", file=output, flush=True)
    assert isinstance(failure(output), BrokenPipeError)


def test_a_full_disk_ends_nothing_and_what_is_written_once_there_is_room_is_there(tmp_path):
    with open(tmp_path / "log", "w") as log, open("/dev/full", "w") as full:
        output = lasting(log)
        on_disk = os.dup(log.fileno())
        os.dup2(full.fileno(), log.fileno())
        print("no room" * 10_000, file=output, flush=True)
        os.dup2(on_disk, log.fileno())
        print("room", file=output, flush=True)
        os.close(on_disk)
    assert (tmp_path / "log").read_text() == "room\n" and failure(output).strerror == "No space left on device"


def test_a_pipe_that_another_program_made_non_blocking_loses_nothing(pipe):
    reader, stream = pipe
    os.set_blocking(stream.fileno(), False)
    found = []

    def read():
        while data := os.read(reader, 1000):
            found.append(data)

    thread = threading.Timer(0.2, read)
    thread.start()
    output = lasting(stream)
    print("x" * 300_000, file=output, flush=True)
    stream.close()
    thread.join()
    assert b"".join(found) == b"x" * 300_000 + b"\n" and failure(output) is None
    os.close(reader)


def test_streams_come_back_and_those_without_a_file_stay(monkeypatch):
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with lasting_output():
        print("a")
        print("b", file=sys.stderr)
        assert failure(sys.stdout) is None
    assert (out.getvalue(), err.getvalue()) == ("a\n", "b\n") and (sys.stdout, sys.stderr) == (out, err)


CHILD = """
import os, subprocess, sys
from swin_jax.core.output.streams import lasting_output
with lasting_output():
    file = open(sys.argv[1], "w")
    print("out", flush=True), print("err", file=sys.stderr, flush=True), os.write(2, b"err")
    assert sys.stderr.isatty() is False
    code = "import sys; sys.exit(sys.stdout is None or sys.stderr is None)"
    print(file.fileno() > 2, subprocess.run([sys.executable, "-c", code]).returncode, file=file)
"""


def test_streams_that_are_closed_write_into_no_other_file(root, tmp_path):
    program = [sys.executable, "-c", CHILD, str(tmp_path / "file")]
    done = subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", *program], cwd=root, timeout=60)
    assert done.returncode == 0 and (tmp_path / "file").read_text() == "True 0\n"


@pytest.mark.parametrize("redirection", ["| true", ">/dev/full"])
def test_the_end_of_python_meets_no_error_again(root, redirection):
    code = "import sys; from swin_jax.core.output import streams\n"
    code += "with streams.lasting_output():\n for _ in range(9): print('x' * 9999)\n"
    code += " sys.exit(3 if streams.failure(sys.stdout) else 0)"
    program = ["bash", "-c", f'set -o pipefail; "$@" {redirection}', "bash", sys.executable, "-c", code]
    done = subprocess.run(program, cwd=root, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (3, b"")
