"""At which place a run stops that is asked to. The signals are sent to whole runs in e2e/test_stops.py as well."""

import os
import signal

import jax
import pytest
from jax.experimental import multihost_utils

from swin_jax.core.termination import WARNINGS, terminable
from swin_jax.train.preemption import Interrupted, Preemption

SIGNALS = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *WARNINGS


class Runtime:
    """What JAX's runtime does with a notice: the sync point is one after the last place that was reported."""

    def __init__(self, notice_after):
        self.last, self.notice_after, self.point = 0, notice_after, None
        self.notice(0)

    def notice(self, reports):
        if reports == self.notice_after:
            self.point = self.last + 1

    def reached(self, place):
        assert place == self.last + 1, "places are counted without holes, whatever the step is"
        self.last = place
        return place == self.point


@pytest.mark.parametrize("places_before_notice", [0, 1, 3])
def test_a_notice_stops_all_at_the_next_place_and_from_then_on(monkeypatch, places_before_notice):
    runtime = Runtime(places_before_notice)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", runtime.reached)
    preemption, stopped = Preemption(), []
    for place in range(1, 8):
        stopped += [place] if preemption.reached() else []
        runtime.notice(place)
    assert stopped == list(range(places_before_notice + 1, 8))


@pytest.mark.parametrize(
    "number, name, status",
    [
        *((signal.SIGTERM, "SIGTERM", 143), (signal.SIGINT, "Ctrl-C", 130), (signal.SIGHUP, "SIGHUP", 129)),
        *((signal.SIGUSR1, "SIGUSR1", 138), (signal.SIGUSR2, "SIGUSR2", 140), (signal.SIGXCPU, "SIGXCPU", 152)),
    ],
)
def test_a_signal_asks_to_stop_and_the_handlers_come_back(number, name, status):
    before = [signal.getsignal(each) for each in SIGNALS]
    with Preemption() as preemption:
        assert not preemption.reached()
        preemption.pause()
        os.kill(os.getpid(), number)
        assert preemption.reached() and (preemption.name, preemption.status) == (name, status)
        with pytest.raises(Interrupted):
            preemption.pause()
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_wait_for_data_ends_at_once():
    with Preemption() as preemption:
        with preemption.at_once():
            pass
        os.kill(os.getpid(), signal.SIGTERM)  # is noted only, outside of such a block
        for _ in range(2):
            with pytest.raises(Interrupted), preemption.at_once():
                raise AssertionError("the block began")
    with Preemption() as preemption, pytest.raises(Interrupted), preemption.at_once():
        os.kill(os.getpid(), signal.SIGTERM)


def test_several_processes_stop_at_one_place_even_where_one_waits_for_data(monkeypatch):
    heard, before = [], signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    try:
        with Preemption() as preemption, preemption.at_once():
            os.kill(os.getpid(), signal.SIGINT)
        assert heard == [True]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_ctrl_c_ends_at_once(capfd):
    with Preemption() as preemption:
        os.kill(os.getpid(), signal.SIGINT)
        assert preemption.reached() and "press it again to end at once" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_asks_to_stop_where_nobody_reads_that_it_does(monkeypatch):
    """Of `2>&1 | tee log`, Ctrl-C ends `tee` first."""

    def nobody_reads(*_):
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", nobody_reads)
    with Preemption() as preemption:
        os.kill(os.getpid(), signal.SIGINT)
        assert preemption.reached()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_is_ignored_stays_so(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Preemption() as preemption:
            os.kill(os.getpid(), number)
            assert not preemption.reached()
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", WARNINGS)
def test_a_warning_goes_to_whoever_has_a_handler_for_it(number):
    """Programs that start runs on a cluster have some; that of the launcher is taken over."""
    heard = []
    before = signal.signal(number, lambda *_: heard.append(True))
    try:
        with terminable(), Preemption() as preemption:
            os.kill(os.getpid(), number)
            assert heard == [True] and not preemption.reached()
        signal.signal(number, signal.SIG_DFL)
        with terminable(), Preemption() as preemption:
            os.kill(os.getpid(), number)
            assert preemption.reached() and heard == [True]
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_of_several_processes_it_becomes_the_signal_that_the_runtime_knows(number, monkeypatch):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    try:
        with Preemption():
            os.kill(os.getpid(), number)
        assert heard == [True]
    finally:
        signal.signal(signal.SIGTERM, before)
