"""Weak scaling on paper: what each chip sends as a pod grows,
from programs of the real TPU compiler.

    pip install -e '.[tpu]'
    python experiments/benchmarks/weak_scaling.py

Swin-T's training step with 128 images per chip of TPU v5p, data parallel and with ZeRO-1 in
groups of the 4 chips of a host, is compiled, until its traffic is known, for slices of 8 to
4,096 chips. Ring and torus algorithms send 2 (n - 1) / n of an array for an all-reduce, (n - 1)
/ n for a reduce-scatter or an all-gather: what a chip sends has a limit that does not depend on
n. The time of the links is the roofline's. Nothing is executed. Numbers are kept, so that a
second run is quick.
"""

import pathlib
import sys

from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from swin_jax.plan import chips, command, compiled_step, tpu_compiler
from swin_jax.plan import report as plan_report

SLICES = ("v5p:2x2x2", "v5p:4x4x4", "v5p:8x8x8", "v5p:16x16x16")
PER_CHIP = 128
MODES = (
    ("ZeRO-1", "fsdp", ""),
    ("ZeRO-1, gathering bfloat16", "fsdp", "bfloat16"),
    ("data parallel", "", ""),
)


def main() -> None:
    tpu_compiler.prepare_backend()
    columns = (
        "chips",
        "collectives",
        "bytes of arrays, MiB",
        "sent by a chip, MiB",
        "optimizer state per chip, MiB",
    )
    print(f"| | {' | '.join((*columns, 'links, ms', 'compute, ms'))} |\n|{'---|' * 8}", flush=True)
    for name, opt_axis, gather in MODES:
        for text in SLICES:
            config = configs.load(
                f"{pathlib.Path(__file__).parents[1] / 'swin/swin_in1k.py'}:variant=tiny"
            )
            topology = chips.topology(text)
            config.batch_size = PER_CHIP * topology.size
            config.partition.opt_axis, config.partition.gather = opt_axis, gather
            config.mesh.fsdp = 4 if opt_axis else 1
            facts = compiled_step.plan(config, topology, command.cache_folder(), "quick")
            rows = plan_report.collective_rows(facts["collectives"])
            kinds = ", ".join(
                f"{row['kind']} {row['bytes'] / 2**20:.1f}" for row in rows if row["bytes"] > 2**16
            )
            arrays = sum(row["bytes"] for row in rows) / 2**20
            sent, state = (
                facts["roofline"]["sent_bytes"] / 2**20,
                facts["state_bytes"]["opt_state"] / 2**20,
            )
            links, compute = (1e3 * facts["roofline"][key] for key in ("links", "compute"))
            cells = (
                name,
                f"{topology.size:,}",
                kinds,
                f"{arrays:.1f}",
                f"{sent:.1f}",
                f"{state:.1f}",
                f"{links:.2f}",
                f"{compute:.1f}",
            )
            print(f"| {' | '.join(cells)} |", flush=True)
            print(
                f"{text} {name}: compiled in {facts['compile_seconds']} s",
                file=sys.stderr,
                flush=True,
            )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
