"""Video Swin against the official code, mmaction's head and torchvision: the cases in tests/golden/video_swin.

A case is one of three: the official classifier, every output and gradient; torchvision's; or the inflation of an image
Swin. `pooled/` holds pooled features that the official backbone gave in float64.
"""

import importlib.util
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.video_swin import make_video_swin
from swin_jax.pretrained.video_swin import convert

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

CASES = [golden.load(path) for path in sorted(GOLDEN.glob("video_swin/*.json"))]
INFLATIONS = [case for case in CASES if "checkpoint" in case.config]
CLASSIFIERS = [case for case in CASES if "checkpoint" not in case.config]
POOLED = json.loads((GOLDEN / "video_swin/pooled/micro.json").read_text())
FIELDS = {"in_chans": "in_channels"}


def test_there_are_cases():
    assert len(INFLATIONS) >= 1 and len(CLASSIFIERS) >= 4 and len(POOLED["cases"]) >= 7


def name(case):
    return case.name


def make_model(config):
    """The model of a case's `config`: the official classes' arguments, or torchvision's, which are flat."""
    head = config.get("cls_head", config)
    fields = dict(num_classes=head.get("num_classes", 0), dropout_rate=head.get("dropout_ratio", 0.5))
    fields |= {FIELDS.get(key, key): value for key, value in config.get("backbone", config).items()}
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return make_video_swin(**fields)


def official_outputs(kept, logits):
    """Maps between stages and after the last norm are (B, C, T, H, W) in the official code, those of blocks are not."""
    outputs = {key: value if ".blocks." in key else jnp.moveaxis(value, -1, 1) for key, value in kept.items()}
    outputs["features"] = outputs.pop("norm")
    probabilities = jax.nn.softmax(logits, axis=-1)
    return outputs | dict(logits=logits, averaged_probabilities=probabilities.mean(axis=0, keepdims=True))


def torchvision_outputs(kept, logits):
    """Channels last everywhere; the output of a stage before merging is that of its last block."""
    outputs = dict(patch_embed=kept["patch_embed"], norm=kept["norm"], logits=logits)
    stages = [key for key in kept if key.count(".") == 1]
    for s, stage in enumerate(stages):
        blocks = [key for key in kept if key.startswith(f"{stage}.blocks.")]
        outputs[f"features.{2 * s}"] = kept[blocks[-1]]
        if s < len(stages) - 1:
            outputs[f"features.{2 * s + 1}"] = kept[stage]
    return outputs


def actual_outputs(case):
    """{output name: array in the layout of the reference} of the model that holds the case's weights."""
    model = make_model(case.config)
    variables = convert.from_official(case.state_dict(), model)
    video = jnp.asarray(np.moveaxis(case.input("video"), 1, -1))
    named_outputs = official_outputs if "backbone" in case.config else torchvision_outputs

    def forward(variables, video):
        logits, kept = model.apply(variables, video, mutable=["intermediates"])
        return kept["intermediates"]["backbone"]["outputs"], logits

    if not any(name.startswith("gradient of ") or name == "loss" for name in case.output_names):
        return named_outputs(*jax.jit(forward)(variables, video))
    cotangent = jnp.asarray(case.cotangent())

    def loss(variables, video):
        kept, logits = forward(variables, video)
        return jnp.sum(logits * cotangent), (kept, logits)

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (total, kept_and_logits), (by_variables, by_video) = run(variables, video)
    gradients = convert.to_official(by_variables, model) | {"video": jnp.moveaxis(by_video, -1, 1)}
    if "backbone" not in case.config:
        gradients |= convert.to_torchvision(gradients)
    gradients = {f"gradient of {name}": value for name, value in gradients.items()}
    return named_outputs(*kept_and_logits) | gradients | {"loss": total}


@pytest.mark.parametrize("case", CLASSIFIERS, ids=name)
def test_every_output_is_the_reference_s(case):
    with jax.default_matmul_precision("highest"):
        outputs = actual_outputs(case)
    errors = {name: (case.error(name, outputs[name]), case.tolerance(name)) for name in case.output_names}
    assert all(error <= tolerance for error, tolerance in errors.values()), errors


@pytest.mark.parametrize("case", CLASSIFIERS, ids=name)
def test_the_architecture_is_inferred_from_the_weights(case):
    model = make_model(case.config)
    fields = convert.infer(case.state_dict())
    assert make_video_swin(**fields | dict(dropout_rate=model.dropout_rate)) == model


@pytest.mark.parametrize("case", INFLATIONS, ids=name)
def test_inflated_weights_are_the_official_ones(case):
    model = make_model(case.config["model"])
    checkpoint = case.state_dict()
    found = convert.to_official(convert.inflate(checkpoint, model), model)
    loaded = {name.removeprefix("loaded ") for name in case.output_names}
    for key in loaded:
        assert case.error(f"loaded {key}", found[f"backbone.{key}"]) <= 1e-6, key
    rest = {key.removeprefix("backbone.") for key in found} - loaded
    assert rest == {key for key in checkpoint if not key.startswith("head.")} - loaded
    for key in rest:
        np.testing.assert_array_equal(found[f"backbone.{key}"], checkpoint[key], err_msg=key)


def stream(k, count):
    """The pseudo-random numbers of the pooled cases, in -1..1, float64."""
    z = np.sin(12.9898 * np.arange(1, count + 1) + 78.233 * (k + 1)) * 43758.5453
    return 2 * (z - np.floor(z)) - 1


def micro_weights(model):
    """The weights of the pooled cases: a stream for each name, in the order of the names."""
    shapes = {key.removeprefix("backbone."): shape for key, shape in convert.official_shapes(model).items()}
    weights = {}
    for k, key in enumerate(sorted(shapes)):
        shape = shapes[key]
        u = stream(k, math.prod(shape)).reshape(shape)
        if key.endswith("relative_position_bias_table"):
            weights[key] = u
        elif len(shape) == 1:
            weights[key] = 1 + 0.2 * u if "norm" in key and key.endswith("weight") else 0.1 * u
        else:
            weights[key] = 2 * u / math.sqrt(math.prod(shape[1:]))
    return weights


@pytest.mark.parametrize("case", POOLED["cases"], ids=lambda case: f"{case['window']}-{case['input_tHW']}")
def test_pooled_features_are_those_of_float64(case):
    fields = {key: tuple(POOLED[key]) for key in ("depths", "num_heads")}
    model = make_video_swin(
        num_classes=0,
        embed_dim=POOLED["embed_dim"],
        patch_size=tuple(POOLED["patch"]),
        window_size=tuple(case["window"]),
        **fields,
    )
    weights = micro_weights(model)
    assert sorted(weights) == POOLED["sorted_keys"]
    size = case["input_tHW"]
    video = np.moveaxis(1.5 * stream(1000, 3 * math.prod(size)).reshape(1, 3, *size), 1, -1).astype(np.float32)
    variables = convert.from_official(weights, model)
    with jax.default_matmul_precision("highest"):
        features = jax.jit(lambda v, x: model.apply(v, x, method="encode"))(variables, video)
    channels, *grid = case["feature_shape_CtHW"]
    assert features.shape == (1, *grid, channels)
    np.testing.assert_allclose(np.asarray(features, np.float64).mean((0, 1, 2, 3)), case["pooled"], atol=1e-5)
