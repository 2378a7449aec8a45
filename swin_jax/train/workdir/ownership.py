"""One run at a time owns a workdir: process 0 holds `owner.json` for all hosts and renews its beat.

A run that ends removes the file; a run that is killed leaves it. The next run sees at once that the
process is gone if it ran on the same machine; otherwise it waits for as long as a living one would
need to show a beat. Whether the beat changes is judged by the clock of the run that waits, because
the clocks of two hosts may differ. A program that only reads a workdir needs no ownership.
"""

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from etils import epath

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.core.output.text import quoted, say
from swin_jax.train import multihost
from swin_jax.train.workdir.folder import writing_to

FILE = "owner.json"


@dataclasses.dataclass(frozen=True)
class Pace:
    """The intervals at which runs claim a workdir and keep it, in seconds.

    Attributes:
        beat: Time between two signs of life.
        patience: Time without a change of the beat after which an owner on another machine counts
            as dead.
        poll: Time between two looks of a run that waits.
        settle: Time that a claim must stand where claims of two runs may cross, in a bucket for
            example.
        lock: Time to wait for the lock of the folder, which a run holds for a moment only but
            another program may keep. A run that ends waits as long for a beat that is being
            written.
    """

    beat: float = 10.0
    patience: float = 60.0
    poll: float = 1.0
    settle: float = 1.0
    lock: float = 10.0


class Ownership:
    """A workdir that this run owns; a context manager that gives it back. See `own`."""

    def __init__(self, folder: epath.Path, pace: Pace):
        self._folder, self._pace = folder, pace
        self._mark = {
            "run": uuid.uuid4().hex,
            "host": socket.gethostname(),
            **_process(os.getpid()),
            "beat": 0,
        }
        self._holds = False
        self._lost = ""
        self._over = threading.Event()
        self._beats = threading.Lock()  # is held while a beat is looked for and written

    def acquire(self) -> str:
        """Takes the workdir, once it is known whether a previous owner, if any, is alive or dead.

        Returns:
            '' if the workdir belongs to this run now, or why it does not.
        """
        self._mark["folder"] = _identity(self._folder)
        if refusal := self._claim():
            return refusal
        self._holds = True
        threading.Thread(target=self._run, name="owner", daemon=True).start()
        return ""

    def check(self) -> None:
        """Raises UserError if the last beat found that the workdir belongs to another
        run, or is gone.
        """
        if self._lost:
            raise UserError(self._lost)

    def confirm(self) -> None:
        """Looks now, and raises as `check`; call it before anything is overwritten."""
        if self._holds:
            self._look()
        self.check()

    def release(self) -> None:
        """Gives the workdir back; a second call does nothing."""
        self._over.set()
        if self._holds:
            self._holds = False
            # A beat that is on its way would bring the file back. One that hangs is not waited for.
            if self._beats.acquire(timeout=self._pace.lock):
                self._beats.release()
            # The run is over, and a file that stays behind only makes the next one wait.
            with contextlib.suppress(Exception):
                if (_read(self._folder) or {}).get("run") == self._mark["run"]:
                    (self._folder / FILE).unlink()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.release()

    def _claim(self) -> str:
        """Writes this run's mark where there is none or a dead one; gives the reason where it
        cannot, or ''.
        """
        seen, since, told = None, time.monotonic(), False
        while True:
            with _alone(self._folder, self._pace.lock) as alone:
                found = _read(self._folder)
                if found != seen:
                    if told and found is not None:
                        return self._refusal(found)
                    seen, since = found, time.monotonic()
                alive = None if found is None else _is_alive(found, self._mark)
                silent = time.monotonic() - since >= self._pace.patience
                if found is None or alive is False or (alive is None and silent):
                    self._write()
                    break
            if alive:
                return self._refusal(found)
            if not told:
                told = True
                say(
                    f"{self._folder} was last used by {_name(found)}; "
                    f"waiting {self._pace.patience:.0f} s for a sign of life"
                )
            time.sleep(self._pace.poll)
        if not alone:
            time.sleep(self._pace.settle)
            found = _read(self._folder) or {}
            if found.get("run") != self._mark["run"]:
                return self._refusal(found)
        return ""

    def _refusal(self, found: dict[str, Any]) -> str:
        return (
            f"--workdir={self._folder} is in use by another run ({_name(found)}); "
            "stop that one first, or give another --workdir"
        )

    def _run(self) -> None:
        while not self._over.wait(self._pace.beat):
            try:
                with self._beats:
                    self._look()
                    if self._holds and not self._lost:
                        self._mark["beat"] += 1
                        self._write()
            except Exception:
                # A full disk or a network that fails for a while is told where the run saves.
                continue
            if self._over.is_set() or self._lost:
                return

    def _look(self) -> None:
        """Notes if another run has taken the workdir, or someone has deleted it."""
        if not storage.is_remote(self._folder) and not self._folder.is_dir():
            self._lost = (
                f"--workdir={self._folder} was deleted or moved while the run "
                "was going on; it cannot save"
            )
            return
        try:
            found = _read(self._folder)
        except Exception:  # a network that fails for a while, by whatever the store raises
            return
        if found is not None and found.get("run") != self._mark["run"]:
            self._lost = (
                f"--workdir={self._folder} was taken over by another run ({_name(found)}), "
                "because this one gave no sign of life for a while; nothing more is written"
            )

    def _write(self) -> None:
        storage.write(self._folder / FILE, json.dumps(self._mark) + "\n")


def own(folder: epath.Path, pace: Pace = Pace()) -> Ownership:  # noqa: B008 (frozen)
    """Makes this run the owner of a workdir; call it on all of its processes.

    Args:
        folder: The workdir, a bucket's too.
        pace: Intervals.

    Raises:
        UserError: On all processes, if another run that lives owns it.
    """
    owner = Ownership(folder, pace)
    try:
        with writing_to(folder):
            refusal = multihost.from_first("owner", owner.acquire)
    except OSError as error:
        path = folder / FILE
        raise UserError(
            f"{path} cannot be used: {storage.reason(error)}; remove it if no run is at work"
        ) from error
    if refusal:
        raise UserError(refusal)
    return owner


def _read(folder: epath.Path) -> dict[str, Any] | None:
    """The mark of a workdir's owner; None without a file, its text alone if it is not a mark."""
    try:
        text = storage.read_text(folder / FILE)
    except FileNotFoundError:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"text": text}


def _name(found: dict[str, Any]) -> str:
    if "host" not in found:
        return "an unknown process"
    return f"host {quoted(found.get('host'))}, pid {quoted(found.get('pid'))}"


@contextlib.contextmanager
def _alone(folder: epath.Path, patience: float) -> Iterator[bool]:
    """Keeps other processes out of the same block;
    gives False where the file system or another program prevents it.
    """
    if storage.is_remote(folder):
        yield False
        return
    import fcntl

    handle, end, locked = os.open(folder, os.O_RDONLY), time.monotonic() + patience, False
    try:
        while not locked and time.monotonic() < end:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
            except BlockingIOError:
                time.sleep(min(0.05, patience))
            except OSError:  # NFS has no lock of a folder
                break
        yield locked
    finally:
        os.close(handle)


def _process(pid: int) -> dict[str, Any]:
    """The facts that tell a process from all others,
    those of other machines and containers included.
    """
    return {"machine": _machine(), "pid": pid, "started": _started(pid)}


def _machine() -> str:
    """The boot of this machine and the container in it, within which a pid means one process;
    '' if not known.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _identity(folder: epath.Path) -> str:
    """The text that tells a folder of this machine from its copies,
    wherever it is moved; '' for one in a bucket.
    """
    if storage.is_remote(folder):
        return ""
    found = os.stat(folder)
    return f"{found.st_dev} {found.st_ino}"


def _started(pid: int) -> str:
    """The time when a process started, in ticks since the boot;
    'dead' if there is none, '' if that cannot be told.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return "dead"
    except OSError:
        pass  # of another user
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # a name may hold blanks and brackets
    except OSError:
        return ""
    return "dead" if fields[0] in (b"Z", b"X") else fields[19].decode()


def _is_alive(found: dict[str, Any], own: dict[str, Any]) -> bool | None:
    """True if the owner of a mark lives; None if only its beats can tell."""
    pid = found.get("pid")
    if not own["machine"] or found.get("machine") != own["machine"] or type(pid) is not int:
        return None
    started = _started(pid)
    if not started:
        return None
    if started == found.get("started") and found.get("folder", own["folder"]) != own["folder"]:
        return None  # a copy, with the mark of the run at work in the folder it was copied from
    return started == found.get("started")
