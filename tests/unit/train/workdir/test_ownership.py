"""One run owns a workdir: who is refused, who waits, and how a dead owner is told from a living one."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.train.workdir import ownership
from swin_jax.train.workdir.ownership import FILE, Pace, own
from tests.e2e import bucket

QUICK = Pace(beat=0.05, patience=0.4, poll=0.02, settle=0.05)


@pytest.fixture(params=["folder", "bucket"])
def folder(request, tmp_path, monkeypatch):
    """A workdir, on disk and in a bucket."""
    if request.param == "folder":
        return tmp_path
    for name in ("get_kvstore_for_gcs", "is_hierarchical_namespace_enabled"):
        monkeypatch.setattr(bucket.gcs_utils, name, None)
    storage._check_installed.cache_clear()
    storage.epath.backend.fsspec_backend._get_filesystem.cache_clear()
    bucket.install(tmp_path / "bucket")
    request.addfinalizer(storage.epath.backend.fsspec_backend._get_filesystem.cache_clear)
    return storage.path("gs://bucket/run")


def mark(**changes):
    """The mark of this process with changes; None takes a key away."""
    found = {"run": "theirs", "host": "away", **ownership._process(os.getpid()), "beat": 3} | changes
    return {key: value for key, value in found.items() if value is not None}


def leave(folder, **changes):
    storage.write(folder / FILE, json.dumps(mark(**changes)))


def dead_pid():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_an_owner_renews_its_beat_and_takes_its_file_away(folder):
    with own(folder, QUICK) as owner:
        first = json.loads(storage.read_text(folder / FILE))
        assert first["pid"] == os.getpid() and first["host"] == socket.gethostname()
        deadline = time.monotonic() + 5
        while json.loads(storage.read_text(folder / FILE))["beat"] < 2:
            assert time.monotonic() < deadline
        owner.check(), owner.confirm()
    assert not (folder / FILE).exists()
    owner.release()


def test_a_beat_that_is_on_its_way_leaves_no_file_behind(folder, monkeypatch):
    write, begun, done = storage.write, threading.Event(), threading.Event()

    def slow(*arguments):
        begun.set()
        time.sleep(0.3)
        write(*arguments)
        done.set()

    owner = own(folder, Pace(beat=0.05, settle=0))
    monkeypatch.setattr(ownership.storage, "write", slow)
    assert begun.wait(10)
    owner.release()
    assert done.wait(10)
    assert not (folder / FILE).exists()


def test_a_second_run_on_the_same_machine_is_refused_at_once(folder):
    with own(folder, Pace(patience=60)):
        began = time.monotonic()
        with pytest.raises(UserError, match=f"in use by another run .*pid {os.getpid()}") as caught:
            own(folder, Pace(patience=60))
        assert time.monotonic() - began < 5 and "\n" not in str(caught.value)


def test_a_copy_of_the_workdir_of_a_run_that_goes_on_has_no_owner(tmp_path, capfd):
    (tmp_path / "whole").mkdir()
    with own(tmp_path / "whole", Pace()) as first:
        shutil.copytree(tmp_path / "whole", tmp_path / "copy")
        with own(tmp_path / "copy", QUICK) as second:
            first.confirm(), second.confirm()
        with pytest.raises(UserError, match="in use by another run"):
            own(tmp_path / "whole", QUICK)
        (tmp_path / "whole").rename(tmp_path / "moved")
        with pytest.raises(UserError, match="in use by another run"):
            own(tmp_path / "moved", QUICK)
    assert "waiting" in capfd.readouterr().err


@pytest.mark.parametrize("changes", [dict(pid="dead"), dict(started="1"), dict(pid=2**70), dict(pid="zombie")])
def test_a_dead_process_of_the_same_machine_is_passed_at_once(folder, changes, capfd):
    zombie = subprocess.Popen([sys.executable, "-c", ""])  # ended, and nobody has asked how
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    pids = {"dead": dead_pid, "zombie": lambda: zombie.pid}
    if changes.get("pid") in pids:
        changes = {"pid": pids[changes["pid"]]()}
    leave(folder, **changes)
    with own(folder, Pace(patience=60, settle=0)) as owner:
        owner.confirm()
    zombie.wait()
    assert "waiting" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "changes", [dict(machine="another boot", pid=1), dict(machine=""), dict(machine=None, pid=None), dict(pid="7")]
)
def test_a_run_elsewhere_is_passed_after_some_silence_and_said_so(folder, changes, capfd):
    leave(folder, **changes)
    began = time.monotonic()
    with own(folder, QUICK) as owner:
        assert QUICK.patience <= time.monotonic() - began < 10
        owner.confirm()
    assert "waiting 0 s for a sign of life" in capfd.readouterr().err


@pytest.mark.parametrize("skew", [-1e6, 1e6])
def test_a_run_elsewhere_that_beats_is_refused_whatever_its_clock_says(folder, skew):
    leave(folder, machine="elsewhere", time=time.time() + skew)
    later = threading.Timer(0.15, leave, [folder], dict(machine="elsewhere", beat=4, time=time.time() + skew))
    later.start()
    with pytest.raises(UserError, match="in use by another run .host away"):
        own(folder, QUICK)
    later.join()


def test_a_run_elsewhere_that_ends_gives_its_workdir_at_once(folder):
    leave(folder, machine="elsewhere")
    later = threading.Timer(0.1, (folder / FILE).unlink)
    later.start()
    began = time.monotonic()
    own(folder, Pace(patience=60, poll=0.02, settle=0)).release()
    assert time.monotonic() - began < 10
    later.join()


@pytest.mark.parametrize("text", ["", '{"run": "x', "[1]", "[" * 10**5, "\x00\xff", "null"])
def test_a_mark_that_cannot_be_read_is_waited_for(folder, text):
    storage.write(folder / FILE, text)
    own(folder, QUICK).release()
    assert not (folder / FILE).exists()


def test_a_mark_that_is_a_folder_is_one_line(tmp_path):
    (tmp_path / FILE).mkdir()
    with pytest.raises(UserError, match="cannot be used: Is a directory; remove it"):
        own(tmp_path, QUICK)


def test_a_lock_that_someone_else_holds_is_not_waited_for_without_end(tmp_path):
    """As of `flock runs/x python -m swin_jax.launch --workdir=runs/x`."""
    import fcntl

    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    later = threading.Timer(5, fcntl.flock, [handle, fcntl.LOCK_UN])
    later.start()
    began = time.monotonic()
    with own(tmp_path, Pace(settle=0.05, lock=0.2)) as owner:
        owner.confirm()
        assert time.monotonic() - began < 4
        with pytest.raises(UserError, match="in use by another run"):
            own(tmp_path, Pace(settle=0.05, lock=0.2))
    later.cancel()
    os.close(handle)


def test_a_full_disk_is_told_as_one(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", str(tmp_path / "owner.json"))

    monkeypatch.setattr(ownership.storage, "write", full)
    with pytest.raises(UserError, match="owner.json cannot be written: No space left on device; the same command"):
        ownership.own(tmp_path)


def test_a_run_that_lost_its_workdir_stops(folder):
    owner = own(folder, Pace(beat=0.05, settle=0))
    leave(folder, host="thief")
    with pytest.raises(UserError, match="was taken over by another run .host thief"):
        owner.confirm()
    time.sleep(0.2)
    with pytest.raises(UserError, match="was taken over"):
        owner.check()
    owner.release()
    assert json.loads(storage.read_text(folder / FILE))["host"] == "thief"


def test_the_beat_finds_the_thief_too(folder):
    owner = own(folder, Pace(beat=0.02, settle=0))
    leave(folder, host="thief")
    deadline = time.monotonic() + 5
    with pytest.raises(UserError, match="thief"):
        while time.monotonic() < deadline:
            owner.check()
            time.sleep(0.01)
    assert json.loads(storage.read_text(folder / FILE))["host"] == "thief"


def test_a_workdir_that_is_deleted_is_told(tmp_path):
    owner = own(tmp_path / ".", QUICK)
    (tmp_path / FILE).unlink()
    owner.confirm()  # the file alone is written again
    tmp_path.rename(tmp_path.with_name("moved"))
    with pytest.raises(UserError, match="was deleted or moved"):
        owner.confirm()
    owner.release()
    assert not tmp_path.exists()


def test_of_many_that_come_at_once_one_wins(tmp_path):
    """In processes: within one, all are alive in the same way."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from swin_jax.core.errors import UserError\n"
        "from swin_jax.train.workdir.ownership import own\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    owner = own(Path(sys.argv[1]))\n"
        "except UserError as error:\n"
        "    print('refused', error)\n"
        "else:\n"
        "    print('owns', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    owner.release()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    root = pathlib.Path(__file__).parents[4]
    runs = [subprocess.Popen(command, cwd=root, **pipes) for _ in range(3)]
    assert [run.stdout.readline() for run in runs] == ["ready\n"] * 3
    for run in runs:
        run.stdin.write("\n")
        run.stdin.flush()
    words = sorted(run.stdout.readline().split()[0] for run in runs)
    for run in runs:
        run.communicate("\n")
    assert words == ["owns", "refused", "refused"]


@pytest.mark.parametrize("folder", ["bucket"], indirect=True)
def test_claims_that_cross_in_a_bucket_leave_one_owner(monkeypatch, folder):
    written = ownership.Ownership._write

    def crossed(self):
        written(self)
        leave(folder, host="thief")

    monkeypatch.setattr(ownership.Ownership, "_write", crossed)
    with pytest.raises(UserError, match="in use by another run .host thief"):
        own(folder, QUICK)


def test_what_a_mark_says_is_shown_in_one_line_without_characters_of_control(folder):
    leave(folder, host="a\x1b[31m\nb", pid="7\n")
    with own(folder, QUICK):
        pass
    assert ownership._name({"host": "a\x1b[31m\nb", "pid": "7\n"}) == r"host a\x1b[31m\nb, pid 7\n"
