"""Several processes, one run: they start together, know of each other,
and when one of them dies the others say who.

JAX ends all processes of a job soon after it missed one of them: its runtime aborts, with a stack
trace that names nobody's host, and at once if the missed one was process 0, which holds the
connection of all. So each process leaves a beat in the key-value store that JAX keeps for them,
remembers how old the others' beats were when it last looked, and prints the cause from the abort
handler. The beats only find the name; that a process is dead is JAX's verdict.
"""

import atexit
import concurrent.futures
import contextlib
import ctypes
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from swin_jax.core.errors import UserError
from swin_jax.core.output.streams import write_past
from swin_jax.core.output.text import say, shown

HEARTBEAT_TIMEOUT = 60  # seconds without a sign of life that make JAX give a process up
_BEATS = 12  # within that time
_DECISION = 600  # seconds that the others wait for process 0 to decide
_STALE = 3  # beats: a process that left none for longer is the one that JAX means
WAITING = 10.0  # seconds between two lines of a process that waits

_watches: list["Watch"] = []  # the one of this process, once it has come together with the others


def detected() -> bool:
    """True if the environment names other processes of this job (what `jax.distributed.initialize`
    reads).
    """
    if os.environ.get("JAX_COORDINATOR_ADDRESS"):
        return True
    return (
        int(os.environ.get("SLURM_NTASKS", 1)) > 1
        and "SLURM_PROCID" in os.environ
        or (len(os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")) > 1)
    )


def start(
    arguments: Sequence[str], timeout: int = HEARTBEAT_TIMEOUT, arrival: int = 300
) -> "Watch":
    """Joins this process to the others of the job and begins to watch over them.

    Call it before any other use of JAX.

    What the environment does not say in JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID, JAX asks of the cluster (TPU pods, Slurm, ...).

    Args:
        arguments: Arguments of the launcher, to name the command to resume.
        timeout: Seconds without a sign of life after which a process counts as dead.
        arrival: Seconds that the processes wait for each other; then JAX ends those that came.

    Raises:
        UserError: There is no cluster, or the numbers do not describe one.
    """
    watch = None
    try:
        given = {
            name: os.environ.get(f"JAX_{name.upper()}") for name in ("num_processes", "process_id")
        }
        numbers = {name: int(value) for name, value in given.items() if value}
        _on_abort(lambda: watch.last_words() if watch else _alone(arrival))
        options = dict(heartbeat_timeout_seconds=timeout, initialization_timeout=arrival)
        _hearing(lambda: jax.distributed.initialize(**numbers, **options), _name_absent)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"no cluster of processes: {' '.join(str(error).split())}; set "
            "JAX_COORDINATOR_ADDRESS=host:port of process 0, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error
    watch = Watch(arguments, timeout)
    _watches.append(watch)
    return watch


def joined() -> bool:
    """True if this process has come together with the others of a job."""
    return bool(_watches)


def meeting(what: str) -> contextlib.AbstractContextManager[None]:
    """A block in which all processes wait for each other, entered by all in the same order.

    A process that waits there for others says for which, every `WAITING` seconds.

    Args:
        what: Purpose of the meeting, 'to save step 400'.
    """
    return _watches[-1].meeting(what) if _watches else contextlib.nullcontext()


def _name_absent() -> str:
    """The processes that one waits for when it starts, as far as it can tell."""
    address = os.environ.get("JAX_COORDINATOR_ADDRESS", "")
    if address and not _answers(address):
        return f"for process 0, at {address}, to start"
    return "for the other processes to start"


def _hearing(wait: Callable[[], Any], whom: Callable[[], str]) -> Any:
    """Calls a function that does not return to Python for minutes.

    Signals that come meanwhile are heard, and a line says every `WAITING` seconds what is waited
    for.

    Args:
        wait: The function.
        whom: A function that gives the end of that line, 'for process 0'.

    Returns:
        What `wait()` returns.
    """
    found = concurrent.futures.Future()

    def run():
        try:
            found.set_result(wait())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, name="waits", daemon=True).start()
    began = time.monotonic()
    while not concurrent.futures.wait([found], WAITING).done:
        say(f"waiting {whom()} ({time.monotonic() - began:.0f} s)")
    return found.result()


def from_first(key: str, decide: Callable[[], str]) -> str:
    """The text that process 0 decides on, on every process.

    No device is asked: collectives give up after half a minute, and a decision may take longer.

    Args:
        key: Names the question; each is asked once in a job.
        decide: A function that is called on process 0 only.
    """
    if jax.process_count() == 1:
        return decide()
    from jax._src.distributed import global_state

    name = f"swin_jax/first/{key}"
    if jax.process_index() == 0:
        text = decide()
        global_state.client.key_value_set(name, f"={text}")
        return text
    text = _hearing(
        lambda: global_state.client.blocking_key_value_get(name, 1000 * _DECISION),
        lambda: f"for process 0 to find the {key}",
    )
    return text.removeprefix("=")


class Watch:
    """Watches the other processes, from a thread; ends this one, saying why,
    when the run cannot continue.
    """

    def __init__(self, arguments: Sequence[str], timeout: float):
        # There is no public way to the key-value store.
        from jax._src.distributed import global_state

        self._client, self._address = global_state.client, global_state.coordinator_address
        self._id, self._count, self._period = (
            global_state.process_id,
            global_state.num_processes,
            timeout / _BEATS,
        )
        self._command = shlex.join(["python", "-m", "swin_jax.launch", *arguments])
        self._timeout = timeout
        self._hosts: dict[int, str] = {}
        self._beats: dict[
            int, tuple[str, float]
        ] = {}  # the latest of each process, and when it was new here
        self._looked = self._began = time.monotonic()
        self._over = False
        self._status = 0  # not 0 once this process has failed itself
        self._client.key_value_set(
            f"swin_jax/host/{self._id}", f"{socket.gethostname()}, pid {os.getpid()}"
        )
        self._meetings = 0  # that this process has come to
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        beat = 0
        while not self._left.is_set():
            try:
                self._client.key_value_set(
                    f"swin_jax/beat/{self._id}", str(beat), allow_overwrite=True
                )
                self._look()
                told = {} if self._status else self._read("failed")
            except jax.errors.JaxRuntimeError:
                # the connection is lost, or was closed at the end of the run: JAX decides which
                told = {}
            for process, reason in told.items():
                self._left.wait(2 * self._period)  # the same error may be on its way here
                if not self._status and not self._left.is_set():
                    self._end(f"{self._name(process)} failed: {reason}")
            beat += 1
            self._left.wait(self._period)

    def _look(self) -> None:
        if len(self._hosts) < self._count:
            self._hosts = self._read("host")
        now = time.monotonic()
        for process, beat in self._read("beat").items():
            if self._beats.get(process, ("", 0.0))[0] != beat:
                self._beats[process] = beat, now
        self._looked = now

    def _read(self, kind: str) -> dict[int, str]:
        found = self._client.key_value_dir_get(f"swin_jax/{kind}/")
        return {int(key.rpartition("/")[2]): value for key, value in found}

    def _name(self, process: int) -> str:
        return f"process {process} of {self._count} ({self._hosts.get(process, 'host not known')})"

    @contextlib.contextmanager
    def meeting(self, what: str) -> Iterator[None]:
        """See the function `meeting`."""
        self._meetings += 1
        over, number = threading.Event(), self._meetings
        self._client.key_value_set(f"swin_jax/met/{self._id}", str(number), allow_overwrite=True)
        thread = threading.Thread(target=self._wait_for, args=(what, number, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _wait_for(self, what: str, number: int, over: threading.Event) -> None:
        """Says who has not come to a meeting, until it is over."""
        began = time.monotonic()
        while not over.wait(WAITING):
            try:
                met = self._read("met")
            except jax.errors.JaxRuntimeError:
                return  # the connection is lost
            absent = [p for p in range(self._count) if int(met.get(p, 0)) < number]
            if absent:
                names, seconds = ", ".join(map(self._name, absent)), time.monotonic() - began
                say(f"waiting {what} for {names} ({seconds:.0f} s)")

    def fail(self, error: BaseException, status: int) -> None:
        """Ends this process with a status because of an error, and tells the others;
        returns if all of them failed.

        Where a collective broke off, the reason is most likely another process,
        so that JAX's verdict is awaited.
        """
        if _broke_off(error):
            say(f"process {self._id} was cut off; waiting for the others' signs of life")
            time.sleep(1.5 * self._timeout)  # the abort handler ends this process before
        self._status = status
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        try:
            self._client.key_value_set(f"swin_jax/failed/{self._id}", reason[:300])
            # Time for the others to read it: the store may be in this process.
            self._client.wait_at_barrier("swin_jax/all_failed", int(1000 * (5 * self._period + 2)))
        except jax.errors.JaxRuntimeError:
            self._exit(status)
        self._close()

    def leave(self) -> None:
        """Waits for the others at the end, so that the watch lasts until all have come so far."""
        try:
            with self.meeting("at the end"):
                self._client.wait_at_barrier("swin_jax/end", 300_000)
        except jax.errors.JaxRuntimeError:
            return  # JAX's own shutdown waits too, and says so
        self._close()

    def _close(self) -> None:
        """Ends the thread: in a call of the store while Python shuts down,
        it would abort the process.
        """
        self._left.set()
        self._thread.join()

    def last_words(self) -> None:
        """Says which process died; called when JAX has decided that one did."""
        if self._status:
            self._exit(self._status)  # the others left because of this one
        # Where a library gave up before JAX did, a dead process may not have missed enough beats
        # yet. Process 0 stays two beats longer: the others read the beats from it.
        stale = _STALE + 2 * (self._id == 0)
        patience = time.monotonic() + (stale + 2) * self._period
        while time.monotonic() < patience:
            if missed := self._missed(stale):
                self._end(", ".join(map(self._name, missed)) + " died or cannot be reached")
            if self._id != 0 and not _answers(self._address):
                missed = self._missed(_STALE - 1) or [0]  # it may have ended because of another
                self._end(", ".join(map(self._name, missed)) + " died or cannot be reached")
            time.sleep(self._period / 4)
        self._end(f"{self._name(self._id)}, this one, was aborted; the reason is above")

    def _missed(self, stale: int) -> list[int]:
        """The processes that left no beat for `stale` periods;
        of several that fell silent one after the other, the first.
        """
        seen = {
            process: self._beats.get(process, ("", self._began))[1]
            for process in range(self._count)
        }
        missed = {
            p: last
            for p, last in seen.items()
            if p != self._id and self._looked - last > stale * self._period
        }
        return [p for p, last in missed.items() if last - min(missed.values()) < 1.5 * self._period]

    def _exit(self, status: int) -> None:
        """Ends the process, but not through JAX's shutdown, which waits for the others."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def _end(self, what: str) -> None:
        # The aborted thread may hold the lock of sys.stderr.
        text = (
            f"\nerror: {shown(what)}; process {self._id} ends, too. Started again on all hosts, "
            f"this command resumes from the newest checkpoint:\n  {self._command}\n"
        )
        if not self._over:
            self._over = True
            write_past(text)
            os._exit(1)


def _alone(arrival: int) -> None:
    write_past(
        f"\nerror: not all processes came within {arrival} s; start the same command on every "
        "host, with the JAX_COORDINATOR_ADDRESS where process 0 can be reached\n"
    )
    os._exit(1)


def _broke_off(error: BaseException | None) -> bool:
    """True if an error came out of the runtime, other than for lack of memory."""
    while error is not None:
        if isinstance(error, jax.errors.JaxRuntimeError):
            return "RESOURCE_EXHAUSTED" not in str(error)
        error = error.__cause__ or error.__context__
    return False


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def _on_abort(act) -> None:
    """Calls `act()` when a C library aborts this process, whichever thread it does that from."""
    if os.name != "posix":
        return
    # Python's own signal handlers run in the main thread only, after the aborting
    # one returned: too late.
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: act())
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))

    def undo():
        libc.signal(signal.SIGABRT, None)

    undo.handler = handler  # kept alive as long as it may be called
    atexit.register(undo)
