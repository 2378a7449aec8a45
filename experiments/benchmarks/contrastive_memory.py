"""Memory of the contrastive loss at pod batch sizes,
from the real TPU compiler on a machine without a TPU.

    pip install -e .[tpu]
    python experiments/benchmarks/contrastive_memory.py --width=512

The loss of B pairs and its gradient with respect to both features and the scale are compiled for
chips of TPU v5e, and the compiler tells the most memory that each chip would hold at a time,
arguments and results included. Nothing is executed; each cell takes one to three minutes.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from swin_jax.core.errors import UserError
from swin_jax.ops import contrastive
from swin_jax.plan import chips, tpu_compiler
from swin_jax.train import sharding

AXES = ("data", "fsdp")
FORMS = {
    "global": contrastive.softmax_loss,
    "local": functools.partial(contrastive.local_softmax_loss, axes=AXES),
    "ring": functools.partial(contrastive.ring_softmax_loss, axes=AXES),
}


def peak_bytes(form: str, mesh, batch: int, width: int) -> int:
    """The most that a chip holds at a time for one form of the loss and its gradient.

    Args:
        form: One of `FORMS`.
        mesh: Mesh of chips.
        batch: Pairs in the global batch.
        width: Width of the features.
    """
    specs = (P(AXES), P(AXES), P(), P(AXES))
    shapes = [((batch, width), jnp.float32)] * 2 + [((), jnp.float32), ((batch,), jnp.int32)]
    arguments = [
        jax.ShapeDtypeStruct(*s, sharding=NamedSharding(mesh, spec))
        for s, spec in zip(shapes, specs)
    ]
    loss = FORMS[form]
    if form != "global":
        loss = jax.shard_map(loss, mesh=mesh, in_specs=specs, out_specs=P())
    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
    return gradient.lower(*arguments).compile().memory_analysis().peak_memory_in_bytes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=512, help="width of the features")
    flags = parser.parse_args()
    tpu_compiler.prepare_backend()
    print(
        "| pairs | chips | MiB: " + " | ".join(FORMS) + " |\n|---|---|" + "---|" * len(FORMS),
        flush=True,
    )
    for name in ("v5e:1x1", "v5e:2x4"):
        mesh = sharding.make_mesh(devices=tpu_compiler.devices(chips.topology(name)))
        for batch in (8_192, 32_768, 65_536):
            cells = []
            for form in FORMS:
                try:
                    cells.append(f"{peak_bytes(form, mesh, batch, flags.width) / 2**20:,.0f}")
                except jax.errors.JaxRuntimeError as error:
                    if "RESOURCE_EXHAUSTED" not in str(error):
                        raise
                    cells.append("does not fit")
            print(f"| {batch:,} | {mesh.size} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
