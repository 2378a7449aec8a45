"""The time that the training loop itself takes on the host at each step.

    python experiments/benchmarks/loop_overhead.py

Runs the loop of a real run, with logs, curves, metrics, checks of losses and requests to stop, but
its step is done at once and its batches lie ready, so that nothing else is left to measure. The
loop must be done before an accelerator is: the table gives the share of a step that takes
`--step_ms`, by default that of Swin-T at 4,500 images/s with a batch of 128.
"""

import argparse
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core import config as configs
from swin_jax.train import loop


class Ready:
    """Data whose batches are one batch again and again."""

    def __init__(self, data, batch: dict[str, np.ndarray]):
        self.data, self.batch = data, batch

    def __getattr__(self, name: str):
        return getattr(self.data, name)

    def batches(self, first: int, rows):
        """The batch, for ever."""
        while True:
            yield dict(self.batch)


def made_up_batch(batch_size: int, image_size: int) -> dict[str, np.ndarray]:
    """`image` uint8 (B, H, W, 3) and `label` int32 (B,)."""
    images = np.zeros((batch_size, image_size, image_size, 3), np.uint8)
    return {"image": images, "label": np.zeros(batch_size, np.int32)}


def seconds_per_step(batch_size: int, image_size: int, steps: int, workdir: str) -> float:
    """The mean time of a step in which nothing is computed, lines in the log included."""
    config = configs.load(f"{pathlib.Path(__file__).parents[1] / 'quickstart.py'}:fake")
    config.update(total_steps=steps, batch_size=batch_size)
    config.evals, config.checkpoint.every = {}, 0
    run = loop.prepare(config, workdir).__self__
    run.data = Ready(run.data, made_up_batch(batch_size, image_size))
    metrics = {name: jnp.zeros(()) for name in ("loss", "grad_norm", "learning_rate")}
    times = []

    def step(state, batch, frozen):
        times.append(time.perf_counter())
        return state, metrics

    run.train_step = step
    run.execute()
    return (times[-1] - times[0]) / (len(times) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--step_ms", type=float, default=1e3 * 128 / 4500)
    flags = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.device_count()} x {jax.default_backend()}")
    print("| batch | microseconds per step | share of a step |\n|---|---|---|")
    for images, size in ((8, 8), (flags.batch_size, flags.image_size)):
        with tempfile.TemporaryDirectory() as folder:
            seconds = seconds_per_step(images, size, flags.steps, f"{folder}/run")
        share = seconds / (flags.step_ms / 1e3)
        print(f"| {images} x {size} x {size} | {1e6 * seconds:.0f} | {share:.2%} |", flush=True)


if __name__ == "__main__":
    main()
