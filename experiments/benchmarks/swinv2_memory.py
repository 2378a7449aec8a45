"""The memory of Swin V2 at high resolution, from the real TPU compiler on a machine without a TPU.

    pip install -e '.[tpu]'
    python experiments/benchmarks/swinv2_memory.py                  # half an hour on two cores
    python experiments/benchmarks/swinv2_memory.py --variant=base

Training steps with AdamW on 64 chips of TPU v5p, one example per chip: images of 1536 x 1536
pixels with windows of 32 x 32, the setting in which Swin V2 (arXiv 2111.09883, section 3.5) ran
out of 40 GB, and the clips of 8 frames of 320 x 320 of its Kinetics-400. The tools are added one
after the other; blocks are stored as stacked units throughout. Nothing is executed. Numbers are
kept, so that a second run is quick.
"""

import argparse
import pathlib
import sys

from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from swin_jax.models.swin import presets as swin_presets
from swin_jax.plan import chips, command, compiled_step, tpu_compiler

A100 = 40e9  # bytes
ROWS = (
    ("plain", {"dtype": "float32", "remat": "none", "attention": ("xla",)}, ""),
    ("+ bfloat16", {"dtype": "bfloat16"}, ""),
    ("+ recomputed blocks", {"remat": "full"}, ""),
    ("+ ZeRO-1", {}, "data"),
    (
        "+ one window at a time in two stages",
        {"attention": ("sequential", "sequential", "xla", "xla")},
        "data",
    ),
)
PAIRS = "+ parameters split over pairs of chips"
FOLDER = pathlib.Path(__file__).parents[1]
CHIPS = "v5p:4x4x4"
CLIPS = "Swin V2 giant, 8 x 320 px"


def images(variant: str):
    """The step on images of 1536 x 1536 pixels."""
    config = configs.load(f"{FOLDER / 'swin/swinv2_giant.py'}:stage=in1k")
    config.update(image_size=1536)
    config.task.model.update(**swin_presets.VARIANTS[variant], window_size=32)
    config.task.model.main_norm_every = 6 if variant == "giant" else 0
    return config


def clips(variant: str):
    """The step on clips of 8 frames of 320 x 320 pixels."""
    config = configs.load(f"{FOLDER / 'video_swin/video_swin_k400.py'}:variant=large,images=22k")
    config.update(frames=8, size=320, accumulate=1)
    config.task.model.update(
        **swin_presets.VARIANTS[variant], **swin_presets.V2, window_size=(8, 20, 20), scan=True
    )
    config.task.model.main_norm_every = 6 if variant == "giant" else 0
    return config


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--variant",
        choices=("base", "large", "giant"),
        help="variant, for images; all of them, and clips, by default",
    )
    flags = parser.parse_args()
    cases = [(f"Swin V2 {v}, 1536 px", images(v)) for v in (flags.variant,) if v]
    if not cases:
        cases = [(f"Swin V2 {v}, 1536 px", images(v)) for v in ("base", "large", "giant")]
        cases.append((CLIPS, clips("giant")))
    topology = chips.topology(CHIPS)
    tpu_compiler.prepare_backend()
    print(
        "| | | GiB per chip | of these state | on 40 GB | on 95 GiB |\n|---|---|---|---|---|---|",
        flush=True,
    )
    for name, config in cases:
        config.batch_size = topology.size
        for row, fields, opt_axis in (*ROWS, (PAIRS, {}, "data")) if name == CLIPS else ROWS:
            config.task.model.update(fields)
            config.partition.opt_axis = opt_axis
            config.mesh.fsdp = 2 if row == PAIRS else 1
            facts = compiled_step.plan(config, topology, command.cache_folder(), "quick")
            print(line(name, row, facts), flush=True)
            print(
                f"{name} {row}: compiled in {facts['compile_seconds']} s",
                file=sys.stderr,
                flush=True,
            )


def line(name: str, row: str, facts) -> str:
    """A line of the table."""
    memory = facts["memory"]
    state = sum(facts["state_bytes"].values())
    needed = memory["peak"] or float("inf")
    fits = ["fits" if needed <= size else "-" for size in (A100, memory["hbm"])]
    return f"| {name} | {row} | {needed / 2**30:,.1f} | {state / 2**30:,.1f} | {' | '.join(fits)} |"


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
