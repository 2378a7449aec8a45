"""The clock of a run: steps per second, waiting for data, MFU, pauses that do not count."""

import contextlib
import time

# Peak dense bfloat16 FLOP/s per device (V100: float16), by a part of `jax.Device.device_kind`; the
# first match counts. From the vendors' data sheets.
_PEAK_FLOPS = (
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("A100", 312e12),
    ("V100", 125e12),
    ("TPU v4", 275e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),
    ("TPU v6", 918e12),
)


def peak_flops(device_kind: str) -> float:
    """Peak dense bfloat16 FLOP/s of one device, by `jax.Device.device_kind`;
    0 where it is not known.
    """
    return next((flops for part, flops in _PEAK_FLOPS if part in device_kind), 0.0)


class Clock:
    """Measures throughput between readings.

    Args:
        images_per_step: The global batch size.
        flops_per_step: Floating-point operations of one update, over all devices; 0 if unknown.
        peak_flops: Peak FLOP/s of all devices together; 0 if unknown.
    """

    def __init__(self, images_per_step: int, flops_per_step: float = 0.0, peak_flops: float = 0.0):
        self._images_per_step = images_per_step
        self._flops_per_step = flops_per_step
        self._peak_flops = peak_flops
        self.start(0)

    def start(self, step: int) -> None:
        """Begins a new interval after `step` updates; call it after the first, which compiles."""
        self._step = step
        self._began = time.perf_counter()
        self._waited = self._outside = 0.0

    @contextlib.contextmanager
    def waiting(self):
        """Around the fetching of a batch: counts toward `time/data_wait`."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    @contextlib.contextmanager
    def paused(self):
        """Around evaluations and checkpoints: is left out of the interval."""
        began = time.perf_counter()
        yield
        self._outside += time.perf_counter() - began

    def read(self, step: int) -> dict[str, float]:
        """The speed since the last reading or start, and begins a new interval.

        Args:
            step: Updates done; no more than at the last reading gives {}.

        Returns:
            `time/step_seconds`, `time/images_per_second`, `time/data_wait` (share of the time,
            0..1), and where FLOPs and peak are known `time/mfu` (model FLOP utilization, 0..1).
        """
        steps = step - self._step
        seconds = max(time.perf_counter() - self._began - self._outside, 1e-9)
        waited = self._waited
        self.start(step)
        if steps <= 0:
            return {}
        speed = {
            "time/step_seconds": seconds / steps,
            "time/images_per_second": steps * self._images_per_step / seconds,
            "time/data_wait": min(waited / seconds, 1.0),
        }
        if self._flops_per_step and self._peak_flops:
            speed["time/mfu"] = steps * self._flops_per_step / seconds / self._peak_flops
        return speed
