"""Swin and Swin V2 against the official code, and Swin-MLP against one written down in PyTorch: every output and
gradient of the cases in tests/golden/swin_v{1,2} and swin_mlp.
"""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from swin_jax.models.swin import MLP, V2, Swin
from swin_jax.pretrained.swin import convert

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

CASES = sorted([*GOLDEN.glob("swin_v[12]/*.json"), *GOLDEN.glob("swin_mlp/*.json")])
FIELDS = {"img_size": "image_size", "in_chans": "in_channels"}


def test_there_are_cases():
    assert len(CASES) >= 10


def make_model(case):
    fields = {FIELDS.get(key, key): value for key, value in case.config.items()}
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    version = V2 if "pretrained_window_sizes" in fields else {}
    version = MLP if case.path.parent.name == "swin_mlp" else version
    if not any(fields.get("pretrained_window_sizes", ())):
        fields.pop("pretrained_window_sizes", None)
    return Swin(**fields, **version)


def actual_outputs(case):
    """{output name: array in the official layout} of the model that holds the case's weights."""
    model = make_model(case)
    variables = convert.from_official(case.state_dict(), model)
    image = jnp.asarray(case.input("image").transpose(0, 2, 3, 1))

    def forward(variables, image):
        logits, kept = model.apply(variables, image, mutable=["intermediates"])
        return logits, kept["intermediates"]["outputs"]

    if not any(name.startswith("gradient of ") for name in case.output_names):
        return named_outputs(*jax.jit(forward)(variables, image))
    cotangent = jnp.asarray(case.cotangent())

    def loss(variables, image):
        logits, kept = forward(variables, image)
        return jnp.sum(logits * cotangent), (logits, kept)

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (total, (logits, kept)), (by_variables, by_image) = run(variables, image)
    gradients = convert.to_official(by_variables, model) | {"image": by_image.transpose(0, 3, 1, 2)}
    gradients = {f"gradient of {name}": value for name, value in gradients.items()}
    return named_outputs(logits, kept) | gradients | {"loss": total}


def named_outputs(logits, kept):
    outputs = {name: value.reshape(value.shape[0], -1, value.shape[-1]) for name, value in kept.items()}
    return outputs | {"logits": logits}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_output_is_the_official_one(path):
    case = golden.load(path)
    with jax.default_matmul_precision("highest"):
        outputs = actual_outputs(case)
    errors = {name: (case.error(name, outputs[name]), case.tolerance(name)) for name in case.output_names}
    assert all(error <= tolerance for error, tolerance in errors.values()), errors


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_architecture_is_inferred_from_the_weights(path):
    case = golden.load(path)
    model = make_model(case)
    inferred = Swin(**convert.infer(case.state_dict() | convert.official_buffers(model)))
    assert inferred == model
