"""Memory of one Swin V2 stage at high resolution,
from the real TPU compiler on a machine without a TPU.

    pip install -e .[tpu]
    python experiments/benchmarks/stage_memory.py --variant=base --image_size=1536 --window=32

The first stage at 1536 x 1536 pixels with windows of 32 x 32 is where memory runs out (Swin V2,
arXiv 2111.09883, section 3.5): 144 windows of 1,024 tokens. Forward and backward of the stage
on one image are compiled for one chip of TPU v5e, and the compiler tells what it would
allocate. Nothing is executed.
"""

import argparse
import time

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from swin_jax.core.errors import UserError
from swin_jax.models import swin
from swin_jax.plan import chips, tpu_compiler

ROWS = {
    "plain": dict(attention="xla"),
    "rematerialized blocks": dict(attention="xla", remat="full"),
    "one window at a time": dict(attention="sequential"),
    "both": dict(attention="sequential", remat="full"),
}


def first_stage(variant: str, image_size: int, window: int, dtype: str, **fields) -> swin.Swin:
    """The first stage of a variant as a model of its own."""
    arguments = swin.VARIANTS[variant]
    arguments = arguments | {key: arguments[key][:1] for key in ("depths", "num_heads")}
    return swin.Swin(
        **arguments,
        **swin.V2,
        image_size=image_size,
        window_size=window,
        num_classes=0,
        dtype=dtype,
        **fields,
    )


def compiled(model: swin.Swin, device):
    """The gradient of the stage's mean square with respect to parameters and image,
    compiled for a device.
    """

    def place(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=SingleDeviceSharding(device))

    image = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32)
    variables = jax.tree.map(place, swin.param_shapes(model))

    def loss(v, x):
        return (model.apply(v, x).astype(jnp.float32) ** 2).mean()

    return jax.jit(jax.value_and_grad(loss)).lower(variables, place(image)).compile()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="base", choices=sorted(swin.VARIANTS))
    parser.add_argument("--image_size", type=int, default=1536)
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--dtype", default="bfloat16")
    flags = parser.parse_args()
    tpu_compiler.prepare_backend()
    (chip,) = tpu_compiler.devices(chips.topology("v5e:1x1"))
    print(
        f"first stage of Swin V2 {flags.variant}, {flags.image_size} px, "
        f"window {flags.window}, {flags.dtype}"
    )
    print(
        "| | temporary memory, MiB | less than plain | compiled in, s |\n| --- | --- | --- | --- |",
        flush=True,
    )
    plain = None
    for name, fields in ROWS.items():
        start = time.monotonic()
        model = first_stage(flags.variant, flags.image_size, flags.window, flags.dtype, **fields)
        temporary = compiled(model, chip).memory_analysis().temp_size_in_bytes / 2**20
        plain = plain or temporary
        seconds = time.monotonic() - start
        print(
            f"| {name} | {temporary:,.0f} | {plain / temporary:.1f} x | {seconds:.0f} |", flush=True
        )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
