"""Speeds of a run, pauses left out; the peaks of devices."""

import pytest

from swin_jax.train import logs
from swin_jax.train.clock import Clock, peak_flops


@pytest.fixture
def now(monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(logs.time, "perf_counter", lambda: seconds[0])
    return seconds


def test_clock(now):
    clock = Clock(images_per_step=32, flops_per_step=1e12, peak_flops=1e13)
    now[0] = 50.0  # compiling
    clock.start(1)
    with clock.waiting():
        now[0] += 1.0
    now[0] += 4.0
    with clock.paused():
        now[0] += 100.0
    expected = {"time/step_seconds": 0.5, "time/images_per_second": 64.0, "time/data_wait": 0.2, "time/mfu": 0.2}
    assert clock.read(11) == pytest.approx(expected)
    now[0] += 1.0
    assert clock.read(12)["time/data_wait"] == 0.0
    assert clock.read(12) == {}


def test_clock_leaves_out_an_mfu_that_it_cannot_know(now):
    clock = Clock(images_per_step=32, flops_per_step=1e12)
    now[0] += 1.0
    speed = clock.read(1)
    assert "time/mfu" not in speed and all(name.startswith("time/") for name in speed)


@pytest.mark.parametrize(
    "kind, flops",
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("Tesla V100-SXM2-16GB", 125e12),
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v5", 459e12),
        ("TPU v6 lite", 918e12),
        ("cpu", 0.0),
    ],
)
def test_peak_flops(kind, flops):
    assert peak_flops(kind) == flops
