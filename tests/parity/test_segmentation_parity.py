"""UPerNet against the official code: every output, loss, gradient and running statistic of the cases in
tests/golden/segmentation."""

import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.segmentation import make_upernet
from swin_jax.ops import label_maps
from swin_jax.ops.label_maps import WHOLE, Method
from swin_jax.ops.resampling import resize_bilinear
from swin_jax.ops.segmentation import pixel_loss
from swin_jax.pretrained.segmentation import convert

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

CASES = {path.stem: golden.load(path) for path in sorted(GOLDEN.glob("segmentation/*.json"))}
INFERRED = [name for name, case in CASES.items() if "slide_logits" in case.output_names]
TRAINED = [name for name, case in CASES.items() if "loss_decode" in case.output_names]
# Fields of the official backbone and its heads -> ours.
BACKBONE = {"pretrain_img_size": "image_size", "in_chans": "in_channels"}
DECODE = {"channels": "channels", "pool_scales": "pool_scales", "num_classes": "num_classes"}
DECODE |= {"dropout_ratio": "dropout_rate"}
# What is the same in every case, or follows from the rest.
FIXED = {"type", "qk_scale", "drop_rate", "attn_drop_rate", "out_indices", "use_checkpoint", "frozen_stages"}


def make_model(config):
    backbone = {BACKBONE.get(key, key): value for key, value in config["backbone"].items() if key not in FIXED}
    head = {ours: config["decode_head"][theirs] for theirs, ours in DECODE.items()}
    auxiliary, stages = config.get("auxiliary_head"), len(config["backbone"]["depths"])
    if auxiliary:
        assert (auxiliary["num_convs"], auxiliary["concat_input"], auxiliary["in_index"]) == (1, False, stages - 2)
    fields = backbone | head | dict(auxiliary_channels=auxiliary["channels"] if auxiliary else 0)
    return make_upernet(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})


def losses_of(config, found, labels):
    """{name: loss, its weight included}: a mean over all pixels, to which those without a label add nothing."""
    heads = {"loss_decode": ("decode_head", "logits"), "loss_aux": ("auxiliary_head", "auxiliary")}
    return {
        name: pixel_loss(found[logits], labels)[0] * config[head]["loss_decode"]["loss_weight"]
        for name, (head, logits) in heads.items()
    }


def channels_first(x):
    return np.asarray(x).transpose(0, 3, 1, 2) if np.ndim(x) == 4 else np.asarray(x)


def actual_outputs(case):
    """{output name: array in the official layout}."""
    model, train = make_model(case.config), any(name.startswith("updated ") for name in case.output_names)
    variables = convert.from_official(case.state_dict(), model)
    image, labels = jnp.asarray(case.input("image").transpose(0, 2, 3, 1)), jnp.asarray(case.input("labels"), jnp.int32)

    def loss(params, image):
        known = {"params": params, "batch_stats": variables["batch_stats"]}
        found, kept = model.apply(
            known, image, train=train, auxiliary=True, mutable=["intermediates", *(["batch_stats"] * train)]
        )
        losses = losses_of(case.config, found, labels)
        return sum(losses.values()), (found, kept, losses)

    grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, (found, kept, losses)), (gradients, of_image) = grad(variables["params"], image)
    inside = kept["intermediates"]["outputs"]
    outputs = {name: channels_first(x) for name, x in inside.items()} | losses
    outputs |= {"logits": channels_first(found["logits"]), "aux_logits": channels_first(found["auxiliary"])}
    outputs["fused"] = outputs["decode_head.fpn_bottleneck"]
    outputs |= {f"gradient of {name}": x for name, x in convert.to_official({"params": gradients}, model).items()}
    outputs["gradient of image"] = channels_first(of_image)
    resized = resize_bilinear(found["logits"], labels.shape[1:3])
    outputs["acc_decode"] = 100 * (resized.argmax(-1) == labels).mean()
    outputs["resized_logits"] = channels_first(resized)
    if "probabilities" in case.output_names:
        size = case.full_shape("probabilities")[2:]
        probabilities = jax.nn.softmax(resize_bilinear(resized, size))
        outputs |= {"probabilities": channels_first(probabilities), "prediction": probabilities[0].argmax(-1)}
    if train:
        state = convert.to_official({"params": variables["params"], "batch_stats": kept["batch_stats"]}, model)
        outputs |= {f"updated {name}": value for name, value in state.items()}
    return outputs


def test_there_are_cases():
    assert len(TRAINED) >= 2 and INFERRED


@pytest.mark.parametrize("name", TRAINED)
def test_every_output_is_the_official_one(name):
    case = CASES[name]
    outputs = actual_outputs(case)
    errors = {name: (case.error(name, outputs[name]), case.tolerance(name)) for name in case.output_names}
    assert all(error <= tolerance for error, tolerance in errors.values()), errors
    if "prediction" in case.output_names:
        np.testing.assert_array_equal(outputs["prediction"], case.expected("prediction"))


@pytest.mark.parametrize("name", TRAINED)
def test_weights_and_architecture_come_back_as_they_were(name):
    case = CASES[name]
    model = make_model(case.config)
    state_dict = convert.to_official(convert.from_official(case.state_dict(), model), model)
    assert list(state_dict) == list(case.keys)
    for key, value in state_dict.items():
        np.testing.assert_array_equal(value, case.weight(key), err_msg=key)
    told = convert.infer(state_dict, dict(image_size=model.backbone.image_size))
    rates = dict(dropout_rate=model.dropout_rate, drop_path_rate=model.backbone.drop_path_rate)
    assert make_upernet(**told | rates) == model


@functools.cache
def predict_of(name):
    """The network of a case, (1, h, w, 3) -> (1, h / 4, w / 4, K)."""
    model = make_model(CASES[name].config)
    variables = convert.from_official(CASES[name].state_dict(), model)
    apply = jax.jit(lambda image: model.apply(variables, image)["logits"])
    return lambda image: apply(image)


def seen(case, name):
    """An input as the network takes it, (H, W, 3)."""
    return case.input(name)[0].transpose(1, 2, 0)


def check(case, name, found):
    found = np.asarray(found).transpose(2, 0, 1)[None] if np.ndim(found) == 3 else found
    assert case.error(name, found) <= case.tolerance(name), (name, case.error(name, found))


@pytest.mark.parametrize("name", INFERRED)
def test_windows_slide_as_in_the_official_code(name):
    case, config = CASES[name], CASES[name].config["slide"]
    method = Method(mode="slide", crop=tuple(config["crop_size"]), stride=tuple(config["stride"]))
    image = seen(case, "image")
    view = label_maps.view(predict_of(name), image, method)
    check(case, "slide_logits", view.rows(image.shape[:2], 0, image.shape[0]))
    check(case, "slide_probabilities", label_maps.probabilities([view], case.full_shape("slide_probabilities")[2:]))


@pytest.mark.parametrize("name", INFERRED)
def test_scales_and_mirrored_pictures_are_averaged_as_in_the_official_code(name):
    case, predict = CASES[name], predict_of(name)
    size = case.full_shape("aug_prediction")
    # Mirrored inputs are given as they are, so that nothing is left to mirror but the result.
    views = []
    for given in (given for given in case.input_names if given.startswith("image_")):
        mirrored = given.endswith("_flipped")
        image = seen(case, given)[:, ::-1] if mirrored else seen(case, given)
        views.append(label_maps.view(predict, image, WHOLE, mirrored))
    assert len(views) == len(case.config["aug"]["ratios"]) * (1 + case.config["aug"]["flip"])
    check(case, "aug_probabilities", label_maps.probabilities(views, size))
    np.testing.assert_array_equal(label_maps.labels(views, size), case.expected("aug_prediction"))
