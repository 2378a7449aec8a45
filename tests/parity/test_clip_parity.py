"""CLIP against openai/CLIP: every output and gradient of the cases in tests/golden/clip, ViT and ResNet."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.clip import make_clip
from swin_jax.pretrained.clip import convert

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

# Cases of the whole model; those of the tokenizer, the preprocessing and the zero-shot weights have other inputs.
CASES = [path for path in sorted(GOLDEN.glob("clip/*.json")) if golden.load(path).input_names == ["image", "tokens"]]


def test_there_are_cases_of_both_towers():
    assert {isinstance(golden.load(path).config["vision_layers"], list) for path in CASES} == {True, False}


def make_model(case):
    c = case.config
    resnet = isinstance(c["vision_layers"], list)
    return make_clip(
        embed_dim=c["embed_dim"],
        image_size=c["image_resolution"],
        vision_layers=tuple(c["vision_layers"]) if resnet else c["vision_layers"],
        vision_width=c["vision_width"],
        patch_size=c["vision_patch_size"],
        context_length=c["context_length"],
        vocab_size=c["vocab_size"],
        text_width=c["transformer_width"],
        text_heads=c["transformer_heads"],
        text_layers=c["transformer_layers"],
    )


def reference_layout(name, value):
    """An output in the reference's layout: maps (B, C, H, W), tokens between blocks (N, B, C)."""
    if value.ndim == 4:
        return value.transpose(0, 3, 1, 2)
    return value.transpose(1, 0, 2) if ".resblocks." in f".{name}" else value


def actual_outputs(case):
    """{output name: array in the official layout} of the model that holds the case's weights."""
    model = make_model(case)
    variables = convert.from_official(case.state_dict(), model)
    image = jnp.asarray(case.input("image").transpose(0, 2, 3, 1))
    tokens = jnp.asarray(case.input("tokens"))
    cotangent = jnp.asarray(case.cotangent())

    def loss(params):
        bound = {**variables, "params": params}
        (logits, _), kept = model.apply(bound, image, tokens, mutable=["intermediates"])
        encoded = (
            model.apply(bound, image, method="encode_image"),
            model.apply(bound, tokens, method="encode_text"),
        )
        return jnp.sum(logits * cotangent), (logits, encoded, kept["intermediates"])

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (total, (logits, (images, texts), kept)), gradients = run(variables["params"])
    outputs = {f"visual.{name}": value for name, value in kept["visual"]["outputs"].items()} | kept["text"]["outputs"]
    outputs = {name: reference_layout(name, value) for name, value in outputs.items()}
    outputs |= {"image_features": images, "text_features": texts, "logits_per_image": logits, "loss": total}
    gradients = convert.to_official({"params": gradients}, model)
    return outputs | {f"gradient of {name}": value for name, value in gradients.items()}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_output_and_gradient_is_the_official_one(path):
    case = golden.load(path)
    with jax.default_matmul_precision("highest"):
        outputs = actual_outputs(case)
    errors = {name: (case.error(name, outputs[name]), case.tolerance(name)) for name in case.output_names}
    assert all(error <= tolerance for error, tolerance in errors.values()), errors


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_architecture_is_inferred_and_the_weights_come_back(path):
    case = golden.load(path)
    state_dict, model = case.state_dict(), make_model(case)
    heads = {"vision_heads": model.visual.num_heads, "text_heads": model.text.num_heads}
    assert make_clip(**convert.infer(state_dict, **heads)) == model
    back = convert.to_official(convert.from_official(state_dict, model), model)
    assert back.keys() == state_dict.keys()
    for name, value in state_dict.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)
