"""The dense backbone against the official one: every output and gradient of every case in tests/golden/swin_dense."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.swin import Swin
from swin_jax.pretrained.swin import convert

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

CASES = sorted((GOLDEN / "swin_dense").glob("*.json"))
FIELDS = {"pretrain_img_size": "image_size", "in_chans": "in_channels", "out_indices": "out_norms"}


def test_there_are_cases():
    assert len(CASES) >= 2


def make_model(case):
    fields = {FIELDS.get(key, key): value for key, value in case.config.items()}
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return Swin(**fields, small="keep", num_classes=0)


def actual_outputs(case):
    """{output name: array in the official layout} of the model that holds the case's weights."""
    model = make_model(case)
    variables = convert.from_official(case.state_dict(), model)
    image = jnp.asarray(case.input("image").transpose(0, 2, 3, 1))
    cotangents = {}
    if any(name.startswith("gradient of ") for name in case.output_names):
        cotangents = {i: case.cotangent(f"cotangent_{i}").transpose(0, 2, 3, 1) for i in model.out_norms}

    def loss(variables, image):
        maps, kept = model.apply(variables, image, mutable=["intermediates"])
        total = sum(jnp.sum(x * cotangents[i]) for i, x in zip(model.out_norms, maps, strict=True) if cotangents)
        return jnp.float32(total), (maps, kept)

    (total, (maps, kept)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables, image)
    outputs = dict(kept["intermediates"]["outputs"])
    outputs = {name: x.reshape(x.shape[0], -1, x.shape[-1]) for name, x in outputs.items() if name != "patch_embed"}
    outputs["patch_embed"] = kept["intermediates"]["outputs"]["patch_embed"].transpose(0, 3, 1, 2)
    outputs |= {f"map_{i}": x.transpose(0, 3, 1, 2) for i, x in zip(model.out_norms, maps)}
    gradients = convert.to_official(gradients, model)
    return outputs | {"loss": total} | {f"gradient of {name}": value for name, value in gradients.items()}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_output_is_the_official_one(path):
    case = golden.load(path)
    with jax.default_matmul_precision("highest"):
        outputs = actual_outputs(case)
    errors = {name: (case.error(name, outputs[name]), case.tolerance(name)) for name in case.output_names}
    assert all(error <= tolerance for error, tolerance in errors.values()), errors


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_weights_come_back_as_they_were(path):
    case = golden.load(path)
    model = make_model(case)
    state_dict = convert.to_official(convert.from_official(case.state_dict(), model), model)
    assert list(state_dict) == list(case.keys)
    for name, value in state_dict.items():
        np.testing.assert_array_equal(value, case.weight(name), err_msg=name)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_architecture_is_inferred_from_a_segmenters_file(path):
    case = golden.load(path)
    model = make_model(case)
    state_dict = {f"backbone.{name}": value for name, value in case.state_dict().items()}
    inferred = Swin(**convert.infer(state_dict | {"decode_head.conv_seg.weight": np.zeros((5, 8, 1, 1))}))
    assert inferred == model
