"""e4e against its description in PyTorch (tests/golden/e4e): every output and gradient."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.e4e import E4E
from swin_jax.pretrained.e4e import convert

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

CASES = sorted(GOLDEN.glob("e4e/*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_output_and_gradient_is_the_recorded_one(path):
    case = golden.load(path)
    state_dict = case.state_dict()
    fields = {name: value for name, value in case.config.items() if name != "blocks"}
    model = E4E(**fields, blocks=tuple(map(tuple, case.config["blocks"])))
    assert E4E(**convert.infer(state_dict)) == model
    variables = convert.from_official(state_dict, model)
    image = jnp.asarray(case.input("image").transpose(0, 2, 3, 1))

    @jax.jit
    def run(params, image):
        def loss(params, image):
            found, kept = model.apply({**variables, "params": params}, image, mutable=["intermediates"])
            return (found * jnp.asarray(case.cotangent())).sum(), (found, kept["intermediates"]["outputs"])

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, image)

    (loss, (latents, kept)), (gradients, of_image) = run(variables["params"], image)
    outputs = {name: x.transpose(0, 3, 1, 2) if x.ndim == 4 else x for name, x in kept.items()}
    outputs |= dict(latents=latents, loss=loss) | {"gradient of image": of_image.transpose(0, 3, 1, 2)}
    for name in convert.official_shapes(model):
        if f"gradient of encoder.{name}" in case.output_names:
            outputs[f"gradient of encoder.{name}"] = gradient_of(gradients, name, len(case.keys[f"encoder.{name}"]))
    errors = {name: (case.error(name, outputs[name]), case.tolerance(name)) for name in case.output_names}
    assert all(error <= tolerance for error, tolerance in errors.values()), errors


def gradient_of(gradients, name, axes):
    """The gradient of one weight in PyTorch's layout."""
    _, path = convert.arcface.path_of(name, axes)
    for part in path.split("/"):
        gradients = gradients[part]
    return np.transpose(gradients, {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}[axes])
