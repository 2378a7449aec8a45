"""Who died, from the beats that a process has seen; the rest of `processes` is tested with real ones."""

import threading
import time
import types

import jax
import pytest
from jax._src import distributed

from swin_jax.train import multihost

PERIOD = 0.2


class Ended(Exception):
    """Instead of the end of this process."""


def watch(silent_since: dict[int, float]):
    """Process 0 of 4, which goes on reading the others' beats; those named are silent since so many periods ago."""
    found = object.__new__(multihost.Watch)
    found._id, found._count, found._period, found._status, found._hosts = 0, 4, PERIOD, 0, {}
    now = found._began = found._looked = time.monotonic()
    found._beats = {p: ("7", now - PERIOD * silent_since.get(p, 0)) for p in range(4)}

    def end(what):
        raise Ended(what)

    def look():
        while time.monotonic() < now + 20 * PERIOD:
            looked = time.monotonic()
            found._beats |= {p: ("8", looked) for p in range(4) if p not in silent_since}
            found._looked = looked
            time.sleep(PERIOD / 10)

    found._end = end
    threading.Thread(target=look, daemon=True).start()
    return found


@pytest.mark.parametrize(
    "silent_since, named",
    [
        ({2: 12}, "process 2 of 4 (host not known) died"),
        (
            {2: 0},
            "process 2 of 4 (host not known) died",
        ),  # killed a moment ago: this process was aborted before JAX knew
        ({2: 12, 3: 8}, "process 2 of 4 (host not known) died"),  # 3 ended because of 2
        ({2: 12, 3: 11.5}, "process 2 of 4 (host not known), process 3 of 4 (host not known) died"),  # one host
        ({}, "process 0 of 4 (host not known), this one, was aborted"),
    ],
)
def test_the_last_words_name_who_died_first(silent_since, named):
    with pytest.raises(Ended, match="^" + named.replace("(", r"\(").replace(")", r"\)")):
        watch(silent_since).last_words()


def test_a_process_ends_though_nobody_reads_why(monkeypatch):
    def nobody_reads(*_):
        raise BrokenPipeError

    def end(status):
        raise Ended(status)

    monkeypatch.setattr(multihost.os, "write", nobody_reads)
    monkeypatch.setattr(multihost.os, "_exit", end)
    found = object.__new__(multihost.Watch)
    found._id, found._command, found._over = 0, "python -m swin_jax.launch", False
    with pytest.raises(Ended, match="1"):
        found._end("process 2 died")


@pytest.mark.parametrize("silent_since, named", [({2: 2.5}, 2), ({0: 0.5, 3: 0.9}, 0)])
def test_where_process_0_is_gone_too_the_one_that_fell_silent_before_is_named(monkeypatch, silent_since, named):
    monkeypatch.setattr(multihost, "_answers", lambda _: False)
    found = object.__new__(multihost.Watch)
    found._id, found._count, found._period, found._status, found._hosts, found._address = 1, 4, PERIOD, 0, {}, ""
    found._began = found._looked = time.monotonic()  # nothing can be read any more
    found._beats = {p: ("7", found._looked - PERIOD * silent_since.get(p, 0)) for p in range(4)}

    def end(what):
        raise Ended(what)

    found._end = end
    with pytest.raises(Ended, match=f"^process {named} of 4 "):
        found.last_words()


class Store:
    """JAX's key-value store, of which every call takes a while; its barriers hold or fail."""

    def __init__(self, holds):
        self.holds, self.values = holds, {}

    def key_value_set(self, key, value, **_):
        time.sleep(0.01)
        self.values[key] = value

    def key_value_dir_get(self, folder):
        time.sleep(0.01)
        return [(key, value) for key, value in self.values.items() if key.startswith(folder)]

    def wait_at_barrier(self, *_):
        if not self.holds:
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: barrier timed out")


@pytest.fixture
def store(monkeypatch):
    found = Store(holds=True)
    state = types.SimpleNamespace(process_id=0, num_processes=2, client=found, coordinator_address="")
    monkeypatch.setattr(distributed, "global_state", state)
    return found


@pytest.mark.parametrize("failed", [False, True])
def test_no_thread_is_in_the_store_while_python_shuts_down(store, failed):
    watch = multihost.Watch([], timeout=0.1)
    assert watch._thread.is_alive()
    if failed:
        watch.fail(ValueError("no such class"), 1)
    else:
        watch.leave()
    assert not watch._thread.is_alive()


def test_the_watch_goes_on_where_the_others_do_not_come(store):
    store.holds = False
    watch = multihost.Watch([], timeout=0.1)
    watch.leave()
    assert watch._thread.is_alive()
    store.holds = True
    watch.leave()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(multihost, "WAITING", 0.1)


def test_a_process_that_waits_says_for_whom(store, quick, capsys):
    watch = multihost.Watch([], timeout=0.6)
    store.values["swin_jax/host/1"] = "other-host, pid 7"
    with watch.meeting("at the start"):
        time.sleep(0.25)
        store.values["swin_jax/met/1"] = "1"
        time.sleep(0.15)
        capsys.readouterr()
        time.sleep(0.3)  # all are there: what it does now is its own work
    assert capsys.readouterr().err == ""
    with watch.meeting("to save step 400"):
        time.sleep(0.35)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert set(lines) == {"waiting to save step 400 for process 1 of 2 (other-host, pid 7) (0 s)"}
    watch.leave()


def test_without_other_processes_nobody_is_waited_for(monkeypatch, capsys, quick):
    monkeypatch.setattr(multihost, "_watches", [])
    with multihost.meeting("at the start"):
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "address, answers, whom",
    [
        ("host:12", False, "for process 0, at host:12, to start"),
        ("host:12", True, "for the other processes to start"),
        ("", False, "for the other processes to start"),
    ],
)
def test_a_process_that_starts_says_for_whom_it_waits(address, answers, whom, monkeypatch, capsys, quick):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", address)
    monkeypatch.setattr(multihost, "_answers", lambda _: answers)
    assert multihost._hearing(lambda: time.sleep(0.25) or "all", multihost._name_absent) == "all"
    assert capsys.readouterr().err.splitlines() == [f"waiting {whom} (0 s)"] * 2


def test_what_is_waited_for_may_fail(quick, capsys):
    def fail():
        time.sleep(0.15)
        raise TimeoutError("too late")

    with pytest.raises(TimeoutError, match="too late"):
        multihost._hearing(fail, lambda: "for process 0")
    assert capsys.readouterr().err == "waiting for process 0 (0 s)\n"
