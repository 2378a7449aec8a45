"""Runs of 2 and 4 processes through the launcher, on this machine's CPU: data, losses, checkpoints, deaths, notices."""

import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import grain
import numpy as np
import pytest

from swin_jax.core import command_line
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.train import checkpoint, logs, multihost

ROOT = pathlib.Path(__file__).parents[2]
STEPS, BATCH = 24, 8
NUM_EXAMPLES = 4000  # more than is trained on, so that no record is read twice
QUICK = "--heartbeat_timeout=20"  # the tests wait for that long
ORDER = grain.MapDataset.range(NUM_EXAMPLES).seed(0).shuffle()
BAD = [ORDER[5], ORDER[6 * BATCH + 1]]  # rows of both halves


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


class Job:
    """The processes of one run, in the order of their numbers."""

    running: list[subprocess.Popen] = []

    def __init__(self, workdir, processes, devices, *flags, command=None, **variables):
        self.workdir, self.started = workdir, workdir.with_suffix(".started")
        workdir.parent.mkdir(parents=True, exist_ok=True)
        command = command or [
            *("python", "-m", "swin_jax.launch", f"--workdir={workdir}", *flags),
            f"--config={ROOT / 'tests/devices/process_experiment.py'}",
        ]
        shared = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "PYTHONPATH": str(ROOT),
            "RECORDS": str(workdir.with_suffix(".records")),
            "STARTED": str(self.started),
            "NUM_EXAMPLES": str(NUM_EXAMPLES),
            "BAD_RECORDS": ",".join(map(str, BAD)),
        }
        if processes > 1:
            shared["JAX_COORDINATOR_ADDRESS"] = free_address()
            shared["JAX_NUM_PROCESSES"] = str(processes)
            # Only process 0 finds its programs there, and the others would keep it waiting.
            shared["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        self.errors = [workdir.with_suffix(f".{number}.err") for number in range(processes)]
        self.processes: list[subprocess.Popen] = []
        for number, path in enumerate(self.errors):
            own = {"JAX_PROCESS_ID": str(number)} | {k: v[number] for k, v in variables.items() if isinstance(v, list)}
            own |= {k: v for k, v in variables.items() if isinstance(v, str)}
            with path.open("w") as err:
                self.processes.append(
                    subprocess.Popen([sys.executable, *command[1:]], env=shared | own, cwd=ROOT, stdout=err, stderr=err)
                )

        Job.running += self.processes

    def wait(self, timeout=900):
        """The exit statuses."""
        deadline = time.monotonic() + timeout
        try:
            return [process.wait(max(deadline - time.monotonic(), 0.1)) for process in self.processes]
        except subprocess.TimeoutExpired:
            for process in self.processes:
                process.kill()
            raise AssertionError("\n".join(self.texts())) from None

    def finish(self):
        """Waits for all of them to end well."""
        assert set(self.wait()) == {0}, "\n".join(self.texts())
        return self

    def wait_for_step(self, step):
        self.wait_until(lambda: any(line["step"] >= step for line in logs.read_metrics(self.workdir)))

    def wait_for_checkpoint(self):
        """Until one is whole: it is written while training goes on."""
        folder = self.workdir / "checkpoints"
        self.wait_until(lambda: folder.exists() and any(path.name.isdigit() for path in folder.iterdir()))

    def wait_for_text(self, text):
        self.wait_until(lambda: text in self.texts()[0])

    def wait_until(self, there):
        deadline = time.monotonic() + 900
        while not there():
            assert all(process.poll() is None for process in self.processes), "\n".join(self.texts())
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def texts(self):
        return [path.read_text() for path in self.errors]


def metrics(workdir):
    """{(step, name): value} of what does not depend on the clock."""
    lines = logs.read_metrics(workdir)
    return {(x["step"], name): value for x in lines for name, value in x.items() if not name.startswith("time/")}


def assert_close(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key in theirs:
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-5, err_msg=str(key))


def cut(workdir, copy, step):
    """A copy of a run as it was after a step."""
    shutil.copytree(workdir, copy)
    for later in (copy / "checkpoints").iterdir():
        if int(later.name) > step:
            shutil.rmtree(later)
    return copy


def assert_starts_from(job, saved):
    """Every device's part of every array that a run began with is bit for bit what the checkpoint `saved` holds."""
    whole = {
        name: array
        for part in ("params", "rest")
        for name, array in flatten({part: checkpoint.read_numpy(saved / part)}).items()
    }
    seen = set()
    for number in range(len(job.processes)):
        for key, array in np.load(f"{job.started}_{number}.npz").items():
            name, ranges, _ = key.split("|")
            index = tuple(slice(*map(int, part.split(":"))) for part in ranges.split(",") if part)
            np.testing.assert_array_equal(array, np.asarray(whole[name])[index], err_msg=key, strict=True)
            seen.add((name, ranges))
    assert {name for name, _ in seen} == whole.keys()
    return seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    yield tmp_path_factory.mktemp("processes")
    for process in Job.running:  # those of a test that failed
        process.kill()


@pytest.fixture(scope="module")
def one(folder):
    """One process, four devices."""
    return Job(folder / "one", 1, 4).finish()


@pytest.fixture(scope="module")
def two(folder):
    """Two processes, four devices, parameters whole on each."""
    return Job(folder / "two", 2, 2).finish()


@pytest.fixture(scope="module")
def four(folder):
    """Four processes, four devices, parameters in two parts."""
    return Job(folder / "four", 4, 1, "--config.mesh.fsdp=2").finish()


@pytest.fixture(scope="module")
def killed(folder):
    """The first of two processes killed while they trained, and the seconds until the other was gone."""
    job = Job(folder / "killed", 2, 2, QUICK, SECONDS_PER_RECORD="0.05")
    job.wait_for_step(6)
    job.wait_for_checkpoint()
    job.processes[0].send_signal(signal.SIGKILL)
    began = time.monotonic()
    return job, job.wait(), time.monotonic() - began


def test_each_process_reads_its_own_rows(two):
    for number in range(2):
        read = set(map(int, pathlib.Path(f"{two.workdir.with_suffix('.records')}_{number}").read_text().split()))
        rows = range(BATCH // 2 * number, BATCH // 2 * (number + 1))
        own = [ORDER[step * BATCH + row] for step in range(STEPS + 20) for row in rows]  # it reads ahead
        assert read >= set(own[: STEPS * len(rows)])
        assert read <= set(own) | {bad + 1 for bad in BAD if bad in own}


def test_two_and_four_processes_train_and_evaluate_as_one(one, two, four):
    expected = metrics(one.workdir)
    assert expected[STEPS, "data/bad_records"] == 2 and (STEPS, "eval/test/top1") in expected
    assert_close(metrics(two.workdir), expected)
    assert_close(metrics(four.workdir), expected)


@pytest.mark.parametrize(
    "before, processes, devices, mesh",
    [
        ("four", 2, 2, ("--config.mesh.fsdp=4",)),
        ("two", 1, 2, ("--config.mesh.fsdp=2",)),
        ("one", 2, 1, ("--config.mesh.tensor=2",)),  # both read all rows
    ],
)
def test_other_processes_and_meshes_go_on_from_the_same_bits(request, folder, one, before, processes, devices, mesh):
    before, step = request.getfixturevalue(before), 8
    workdir = cut(before.workdir, folder / f"from_{before.workdir.name}", step)
    job = Job(workdir, processes, devices, *mesh).finish()
    parts = assert_starts_from(job, before.workdir / "checkpoints" / str(step))
    assert any(name.endswith("kernel") and not ranges.startswith("0:") for name, ranges in parts)  # some are divided
    assert f"resuming at step {step}" in job.texts()[0]
    assert_close(metrics(workdir), metrics(one.workdir))


def test_when_one_of_four_is_killed_the_others_name_it(folder):
    job = Job(folder / "killed_four", 4, 1, QUICK, SECONDS_PER_RECORD="0.05")
    job.wait_for_step(6)
    job.processes[2].send_signal(signal.SIGKILL)
    began = time.monotonic()
    statuses = job.wait()
    assert statuses == [1, 1, -signal.SIGKILL, 1] and time.monotonic() - began < 120
    for number in (0, 1, 3):
        *_, line, command = job.texts()[number].splitlines()
        assert line.startswith("error: process 2 of 4 (") and f"pid {job.processes[2].pid}) died" in line
        assert command.split()[:3] == ["python", "-m", "swin_jax.launch"]
    assert command_line.define_flags()["heartbeat_timeout"].value <= 60  # three times as long is too long


def test_the_command_that_the_survivor_names_goes_on(killed, two, folder):
    job, statuses, seconds = killed
    assert statuses == [-signal.SIGKILL, 1] and seconds < 120
    *_, line, command = job.texts()[1].splitlines()
    assert line.startswith("error: process 0 of 2 (") and f"pid {job.processes[0].pid}) died" in line

    again = Job(job.workdir, 2, 2, command=shlex.split(command), SECONDS_PER_RECORD="0.2")
    again.wait_for_step(13)
    again.processes[1].send_signal(signal.SIGTERM)  # a notice to one of them stops both
    assert again.wait() == [143, 143], again.texts()
    assert "resuming at step" in again.texts()[0]
    saved = max(int(path.name) for path in (job.workdir / "checkpoints").iterdir())
    assert f"SIGTERM: saved at step {saved};" in again.texts()[0] and 13 <= saved < STEPS

    # A notice before the first step of a run that resumes stops it after that step.
    early = Job(job.workdir, 2, 2, command=shlex.split(command), SECONDS_PER_RECORD="0.05")
    early.wait_for_text(f"resuming at step {saved}")
    early.processes[0].send_signal(signal.SIGTERM)
    assert early.wait() == [143, 143], early.texts()
    assert f"SIGTERM: saved at step {saved + 1};" in early.texts()[0]

    last = Job(job.workdir, 2, 2, command=shlex.split(command)).finish()
    assert f"resuming at step {saved + 1}" in last.texts()[0]
    assert metrics(job.workdir) == metrics(two.workdir)  # bit for bit as if nothing had happened
    ours, theirs = (checkpoint.load_params(run)[0] for run in (job.workdir, two.workdir))
    for name, array in flatten(ours).items():
        np.testing.assert_array_equal(array, flatten(theirs)[name], err_msg=name)


def test_an_error_in_one_process_is_told_by_all(folder):
    torn = ",".join(str(ORDER[i]) for i in range(100))
    job = Job(folder / "failed", 2, 1, QUICK, "--config.max_bad_records=3", BAD_RECORDS=["", torn])
    assert job.wait() == [1, 1]
    reason = "records could not be read and were replaced, more than max_bad_records=3"
    assert reason in job.texts()[1] and "process 0" not in job.texts()[1]
    *_, line, command = job.texts()[0].splitlines()
    assert line.startswith("error: process 1 of 2 (") and reason in line and "swin_jax.launch" in command


def test_a_mistake_that_all_make_is_each_one_s_own(folder):
    job = Job(folder / "mistake", 2, 1, "--config.batch_size=7")
    assert job.wait() == [2, 2]
    for text in job.texts():
        assert "batch_size is 7, which is not a multiple of the 2 batch shards" in text and "failed" not in text


def test_a_workdir_on_each_host_s_own_disk(folder):
    program = (
        "import os, runpy, sys; sys.argv = ['launch', f'--workdir={os.environ[\"OWN\"]}', "
        f"'--config={ROOT / 'tests/devices/process_experiment.py'}']; "
        "runpy.run_module('swin_jax.launch', run_name='__main__')"
    )
    own = [str(folder / "disk_0" / "run"), str(folder / "disk_1" / "run")]
    job = Job(folder / "disks", 2, 1, command=["python", "-c", program], OWN=own)
    assert job.wait() == [2, 2], job.texts()
    for text, place in zip(job.texts(), own):
        assert f"error: --workdir={place} is not one place for all hosts: process 1 does not see" in text
        assert list(pathlib.Path(place).iterdir()) == []


def test_what_one_process_meets_in_a_checkpoint_all_act_upon(two, folder):
    program = f"""if True:
        import os, runpy, sys
        from swin_jax.train import checkpoint
        read = checkpoint._read

        def fail(path, layout):
            if path.name == "{STEPS}" and os.environ["FAIL"]:
                raise ValueError(os.environ["FAIL"])
            return read(path, layout)

        checkpoint._read = fail
        sys.argv = ["launch", "--workdir={folder / "unread"}", "--config={ROOT}/tests/devices/process_experiment.py"]
        runpy.run_module("swin_jax.launch", run_name="__main__")
    """
    workdir = cut(two.workdir, folder / "unread", STEPS)
    job = Job(workdir, 2, 2, command=["python", "-c", program], FAIL=["", "RESOURCE_EXHAUSTED: out of memory"])
    assert job.wait() == [1, 1], job.texts()
    for text in job.texts():
        assert f"error: cannot read the checkpoint {workdir / 'checkpoints' / str(STEPS)}: " in text
    assert (workdir / "checkpoints" / str(STEPS)).exists() and not (workdir / "damaged_checkpoints").exists()

    job = Job(workdir, 2, 2, command=["python", "-c", program], FAIL=["", "DATA_LOSS: checksum"]).finish()
    assert "process 1 found a file that is not what was saved" in job.texts()[0] and "DATA_LOSS" in job.texts()[1]
    assert f"resuming at step {STEPS - 4}" in job.texts()[0]
    assert [path.name for path in (workdir / "damaged_checkpoints").iterdir()] == [str(STEPS)]
    assert metrics(workdir) == metrics(two.workdir)


def test_a_number_of_processes_that_is_none(monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(UserError, match="no cluster of processes: .*'two'; set JAX_COORDINATOR_ADDRESS"):
        multihost.start([])


def test_a_process_that_nobody_joins_says_so():
    program = "from swin_jax.train import multihost; multihost.start([], arrival=3)"
    cluster = {"JAX_COORDINATOR_ADDRESS": free_address(), "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
    environment = os.environ | cluster | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: not all processes came within 3 s; start the same command")


@pytest.mark.parametrize("process, number, status", [(0, signal.SIGTERM, 143), (1, signal.SIGINT, 130)])
def test_a_signal_is_heard_while_the_others_are_waited_for(tmp_path, process, number, status):
    program = (
        "import sys\n"
        "from swin_jax import launch\n"
        "from swin_jax.train import multihost\n"
        "join = multihost.jax.distributed.initialize\n"
        "def told(**options):\n"
        "    print('joins', flush=True)\n"
        "    join(**options)\n"
        "multihost.jax.distributed.initialize = told\n"
        "launch.main()\n"
    )
    cluster = {"JAX_COORDINATOR_ADDRESS": free_address(), "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(process)}
    command = [
        sys.executable,
        "-c",
        program,
        f"--config={ROOT}/experiments/quickstart.py:fake",
        f"--workdir={tmp_path}",
    ]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    alone = subprocess.Popen(command, env=os.environ | cluster | {"PYTHONPATH": str(ROOT)}, **pipes)
    assert alone.stdout.readline() == "joins\n"
    time.sleep(1)
    alone.send_signal(number)
    try:
        _, err = alone.communicate(timeout=30)
    finally:
        alone.kill()
    assert alone.returncode == status and err.count("\n") == 1 and "rerun the same command" in err, err


def test_training_goes_on_while_a_checkpoint_is_written(launch, tmp_path, monkeypatch):
    """The end of the save of step 3 is held up until step 5 is logged, which a waiting run never does."""
    trained, in_time = threading.Event(), []
    monkeypatch.setattr(checkpoint, "write_checksums", lambda _: in_time.append(trained.wait(90)))
    write = logs.Logs.write

    def watched(self, step, values):
        write(self, step, values)
        if step >= 5:
            trained.set()

    monkeypatch.setattr(logs.Logs, "write", watched)
    flags = ("--config.total_steps=6", "--config.checkpoint.every=3", "--config.logs.every=1")
    status, _, err = launch("experiments/quickstart.py:fake", tmp_path / "run", *flags)
    assert status == 0, err
    assert in_time == [True, True] and sorted(p.name for p in (tmp_path / "run/checkpoints").iterdir()) == ["3", "6"]
