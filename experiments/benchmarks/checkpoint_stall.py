"""The cost of a checkpoint for a training run:
saves that training waits for against saves in the background.

    python experiments/benchmarks/checkpoint_stall.py

Trains a Swin of 30 M parameters (with AdamW's two moments a checkpoint holds 360 MB), in four wide
blocks so that it compiles soon, on made-up pictures of 32 x 32 pixels. A save in the background
holds training up while the state is copied off the devices, and while the save before it is still
being written. Writing shares the machine with training, which on a CPU slows the steps beside it,
so that the seconds lost are told from the whole time, not from the call.
"""

import argparse
import pathlib
import tempfile
import threading
import time
from collections.abc import Iterator

import jax

from swin_jax.core import config as configs
from swin_jax.core.config import spec
from swin_jax.data import fake
from swin_jax.train import checkpoint
from swin_jax.train.setup import build_run, jitted_step
from swin_jax.train.state import first_state


def recipe(embed_dim: int = 160, batch_size: int = 8):
    """quickstart's config with a Swin of four blocks, on made-up pictures of 32 x 32 pixels."""
    c = configs.load(f"{pathlib.Path(__file__).parents[1] / 'quickstart.py'}:fake")
    c.update(image_size=32, batch_size=batch_size)
    heads = embed_dim // 32
    c.task.model.update(embed_dim=embed_dim, window_size=4, depths=(1,) * 4)
    c.task.model.num_heads = tuple(max(heads * 2**i, 1) for i in range(4))
    c.data.source = spec(fake.images, image_size=32, channels=1)
    return c


def timed(step, batches: Iterator, state, steps: int, every: int, save) -> tuple:
    """Trains and calls `save(state, step)` after every `every` steps,
    the last ones left out so that some follow each.

    Returns:
        (the state, seconds in all, seconds in the calls of `save`).
    """
    began, held = time.perf_counter(), 0.0
    for number in range(1, steps + 1):
        state, _ = step(state, next(batches), None)
        if number % every == 0 and number < steps:
            jax.block_until_ready(state)  # so that the call is not charged with the step
            called = time.perf_counter()
            save(state, number)
            held += time.perf_counter() - called
    jax.block_until_ready(state)
    return state, time.perf_counter() - began, held


class Finished:
    """The times at which checkpoints of a workdir were whole."""

    def __init__(self, workdir: pathlib.Path):
        self.times: dict[int, float] = {}
        self._folder, self._over = checkpoint.folder(workdir), threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.005):
            for path in self._folder.glob("[0-9]*"):
                if path.name.isdigit():
                    self.times.setdefault(int(path.name), time.perf_counter())

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def measure(config, workdir: pathlib.Path, saves: int, every: int) -> dict[str, dict[str, float]]:
    """Seconds by kind of saving: 'none', 'waiting', 'background'.

    Returns:
        {kind: {"step": of a step without saves, "lost": of training per save, "call": until `save`
        returns, "whole": from the call until the checkpoint is whole, "overlap": share of that time
        in which training went on}}.
    """
    run = build_run(config)
    rows = run.placement.rows(config.batch_size)
    batches = (
        run.placement.to_global(batch, config.batch_size)
        for batch in configs.build(config.data).batches(0, rows)
    )
    step, steps = jitted_step(run), (saves + 1) * every
    state, _ = first_state(config, run, checkpoint.open(workdir / "none"), write=False)
    with jax.set_mesh(run.placement.mesh):
        state, *_ = timed(step, batches, state, 2, 3, None)  # compiles
        state, plain, _ = timed(step, batches, state, steps, steps + 1, None)
        found = {"none": dict(step=plain / steps, lost=0.0)}
        for kind in ("waiting", "background"):
            manager, called = checkpoint.open(workdir / kind, keep=saves), {}
            finished = Finished(workdir / kind)

            def save(state, number, manager=manager, called=called, wait=kind == "waiting"):
                called[number] = time.perf_counter()
                checkpoint.save(manager, state, number, {}, wait=wait)

            state, seconds, held = timed(step, batches, state, steps, every, save)
            checkpoint.finish(manager)
            finished.close()
            whole = [
                finished.times.get(n, time.perf_counter()) - began for n, began in called.items()
            ]
            call, mean = held / saves, sum(whole) / saves
            found[kind] = dict(
                step=plain / steps,
                lost=(seconds - plain) / saves,
                call=call,
                whole=mean,
                overlap=max(1 - call / mean, 0.0),
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--embed_dim", type=int, default=160, help="width of the model, a multiple of 32"
    )
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--saves", type=int, default=4, help="checkpoints of each kind")
    parser.add_argument("--every", type=int, default=20, help="steps between two checkpoints")
    parser.add_argument("--workdir", help="folder of the checkpoints; a temporary one by default")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=flags.workdir) as workdir:
        found = measure(
            recipe(flags.embed_dim, flags.batch_size),
            pathlib.Path(workdir),
            flags.saves,
            flags.every,
        )
    print(f"a step takes {found['none']['step']:.2f} s, a save every {flags.every} steps\n")
    print(
        "| save | training lost per save, s | call returns after, s | whole after, "
        "s | overlaps training |"
    )
    print("|---|---|---|---|---|")
    for kind in ("waiting", "background"):
        row = found[kind]
        print(
            f"| {kind} | {row['lost']:.2f} | {row['call']:.2f} | "
            f"{row['whole']:.2f} | {row['overlap']:.0%} |"
        )


if __name__ == "__main__":
    main()
