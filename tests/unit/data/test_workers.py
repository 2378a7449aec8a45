"""Loader processes of a program that is killed, or that is sent the signals of a terminal with its whole group."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[3]
READER = """
import os, signal, sys
from swin_jax.core.errors import UserError
from swin_jax.data import fake, pipeline
import multiprocessing

def same(example, rng):
    return example

if __name__ == "__main__":
    source = fake.images(image_size=64, num_examples=64, split="train")
    data = pipeline.TrainData(source, same, batch_size=8, num_workers=2, prefetch=4)
    seen = []
    signal.signal(signal.SIGINT, lambda *_: seen.append("int"))
    signal.signal(signal.SIGTERM, lambda *_: seen.append("term"))
    signal.signal(signal.SIGHUP, lambda *_: seen.append("hup"))
    signal.signal(signal.SIGUSR1, lambda *_: seen.append("usr"))
    batches = data.batches(0, range(8))
    for _ in range(4):
        next(batches)  # so that both read
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        os.killpg(0, number)
    for _ in range(12):
        next(batches)
    assert sorted(seen) == ["hup", "int", "term", "usr"], seen
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    if sys.argv[1].isdigit():
        os.kill(multiprocessing.active_children()[0].pid, int(sys.argv[1]))
        try:
            while True:
                next(batches)
        except UserError as error:
            sys.exit(f"error: {error}")
    if sys.argv[1] == "close":
        batches.close()
    else:
        sys.stdin.readline()
"""


def shared_memory():
    return {path.name for path in pathlib.Path("/dev/shm").iterdir()}


def gone(pid):
    try:
        return "\nState:\tZ" in pathlib.Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def read(tmp_path, how):
    """A program that has read some batches; its loader processes."""
    script = tmp_path / "reader.py"
    script.write_text(READER)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    reader = subprocess.Popen(
        [sys.executable, script, how], cwd=tmp_path, env=environment, start_new_session=True, **pipes
    )
    pids = [int(pid) for pid in reader.stdout.readline().split()]
    return reader, pids


def test_loader_processes_end_with_a_program_that_is_killed_and_leave_no_shared_memory(tmp_path):
    before = shared_memory()
    reader, pids = read(tmp_path, "wait")
    assert len(pids) == 2, reader.communicate("\n")[1]
    made = shared_memory() - before
    assert made
    reader.send_signal(signal.SIGKILL)
    reader.communicate()
    deadline = time.monotonic() + 20
    while not all(map(gone, pids)) or made & shared_memory():
        assert time.monotonic() < deadline, (list(map(gone, pids)), made & shared_memory())
        time.sleep(0.1)


def test_signals_of_a_terminal_reach_the_program_alone(tmp_path):
    reader, pids = read(tmp_path, "close")
    _, err = reader.communicate(timeout=60)
    assert reader.returncode == 0 and err == ""
    assert len(pids) == 2 and all(map(gone, pids))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
def test_a_loader_process_that_is_killed_is_one_line(tmp_path, number):
    """As by a system without memory, or by one whose /dev/shm is full."""
    reader, _ = read(tmp_path, str(int(number)))
    _, err = reader.communicate(timeout=60)
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert f"a loader process was killed by {number.name}" in line and "num_workers" in line and "/dev/shm" in line
    assert reader.returncode == 1 and "Traceback" not in err and "leaked" not in err


@pytest.mark.parametrize("before", [None, "error", "ignore::DeprecationWarning"])
def test_what_is_left_in_shared_memory_is_removed_without_a_word(before):
    code = "from swin_jax.data import workers; from multiprocessing.shared_memory import SharedMemory; import os; "
    code += "workers.start_tracker(); left = SharedMemory(create=True, size=8); print(left._name, "
    code += "os.environ.get('PYTHONWARNINGS'))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} | ({} if before is None else {"PYTHONWARNINGS": before})
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    name, told = done.stdout.split()
    assert done.stderr == "" and told == str(before)
    assert not (pathlib.Path("/dev/shm") / name.lstrip("/")).exists()
