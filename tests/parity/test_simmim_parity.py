"""SimMIM against the official implementation: every output and gradient of every case in tests/golden/simmim."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from swin_jax.models.simmim import SimMIM
from swin_jax.models.swin import V2, Swin
from swin_jax.ops import masked_image
from swin_jax.pretrained.swin import simmim as convert

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

CASES = sorted((GOLDEN / "simmim").glob("*.json"))
FIELDS = {"img_size": "image_size", "in_chans": "in_channels"}


def test_there_are_cases():
    assert len(CASES) >= 2


def make_model(case):
    fields = {FIELDS.get(key, key): value for key, value in case.config["encoder"].items()}
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return SimMIM(Swin(**fields | (V2 if any("logit_scale" in key for key in case.keys) else {})))


def actual_outputs(case):
    """{output name: array in the official layout} of the model that holds the case's weights."""
    model = make_model(case)
    variables = jax.tree.map(jnp.asarray, convert.from_official(case.state_dict(), model))
    image, mask = jnp.asarray(case.input("image").transpose(0, 2, 3, 1)), jnp.asarray(case.input("mask"))
    window = case.config["norm_target"]  # None or the side in pixels
    target = masked_image.normalize_locally(image, window) if window else image

    def loss(variables):
        predicted, kept = model.apply(variables, image, mask, mutable=["intermediates"])
        pixels = masked_image.upsample(mask, image.shape[1:-1])
        value = masked_image.masked_mean(*masked_image.masked_error(predicted, target, pixels))
        return value, (predicted, kept["intermediates"]["encoder"]["outputs"])

    (value, (predicted, kept)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables)
    outputs = {f"encoder.{name}": x.reshape(x.shape[0], -1, x.shape[-1]) for name, x in kept.items()}
    outputs |= {"encoder": kept["norm"].transpose(0, 3, 1, 2), "decoder": predicted.transpose(0, 3, 1, 2)}
    outputs["loss"] = value
    return outputs | {f"gradient of {name}": x for name, x in convert.to_official(gradients, model).items()}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_output_is_the_official_one(path):
    case = golden.load(path)
    with jax.default_matmul_precision("highest"):
        outputs = actual_outputs(case)
    errors = {name: (case.error(name, outputs[name]), case.tolerance(name)) for name in case.output_names}
    assert all(error <= tolerance for error, tolerance in errors.values()), errors


def test_the_cases_cover_both_targets():
    assert {golden.load(path).config["norm_target"] for path in CASES} == {None, 47}
