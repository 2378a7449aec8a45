"""StyleGAN2 against rosinality's, NVIDIA's and StyleCLIP's code: every output of the cases in tests/golden/stylegan2.

Layers that resample are computed merged with their filter and plainly; both are held to the cases.
"""

import functools
import importlib.util
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.stylegan2 import Discriminator, Generator
from swin_jax.ops.losses import gradient_penalty
from swin_jax.ops.stylegan2 import upfirdn
from swin_jax.pretrained.stylegan2 import convert

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

CASES = sorted(GOLDEN.glob("stylegan2/*.json"))
GENERATORS = [path for path in CASES if "generator" in path.stem]
DISCRIMINATORS = [path for path in CASES if "discriminator" in path.stem]
RESAMPLING = ("merged", "plain")


def make_generator(config, resampling):
    if "size" in config:  # rosinality's and StyleCLIP's
        dims = dict(z_dim=config["style_dim"], w_dim=config["style_dim"], mapping_layers=config["n_mlp"])
        width = dict(channel_base=16384 * config["channel_multiplier"])
        return Generator(config["size"], **dims, **width, resampling=resampling)
    synthesis = config["synthesis"]
    return Generator(
        config["img_resolution"],
        z_dim=config["z_dim"],
        w_dim=config["w_dim"],
        c_dim=config["c_dim"],
        mapping_layers=config["mapping"]["num_layers"],
        channel_base=synthesis["channel_base"],
        channel_max=synthesis["channel_max"],
        resampling=resampling,
    )


def make_discriminator(config, resampling):
    if "size" in config:
        return Discriminator(config["size"], channel_base=16384 * config["channel_multiplier"], resampling=resampling)
    fields = {name: config[name] for name in ("c_dim", "channel_base", "channel_max", "mbstd_group_size")}
    return Discriminator(config["img_resolution"], **fields, architecture=config["architecture"], resampling=resampling)


def rosinality_name(layer):
    """The name of a layer of ours: 'b4/conv1' is 'conv1', 'b8/conv0' is 'convs.0', 'b8/torgb' is 'to_rgbs.0'."""
    block, kind = layer.split("/")
    number = int(math.log2(int(block[1:]))) - 3
    if number < 0:
        return {"const": "input", "conv1": "conv1", "torgb": "to_rgb1"}[kind]
    return f"to_rgbs.{number}" if kind == "torgb" else f"convs.{2 * number + int(kind[-1])}"


def maps(outputs):
    return {name: value.transpose(0, 3, 1, 2) if value.ndim == 4 else value for name, value in outputs.items()}


def load_generator(case, resampling):
    model = make_generator(case.config, resampling)
    variables = convert.from_official(case.state_dict(), model)
    variables.setdefault("averages", {"mapping": {"w_avg": np.zeros(model.w_dim, np.float32)}})
    return model, variables


@functools.partial(jax.jit, static_argnames=("model", "method", "truncation", "truncation_cutoff"))
def apply(model, variables, inputs, method="__call__", **truncation):
    return model.apply(variables, inputs, method=method, **truncation)


@functools.partial(jax.jit, static_argnames=("model", "mode"))
def synthesize(model, variables, ws, mode="const", maps=None):
    """The image and every output, with a mode of noise or with maps of it."""
    noise = mode if maps is None else maps
    image, kept = model.apply(variables, ws, noise=noise, method="synthesize", mutable=["intermediates"])
    return image, kept["intermediates"]["synthesis"]["outputs"]


def official_outputs(case, model, variables):
    """Of a case in NVIDIA's format."""
    z = jnp.asarray(case.input("z"))
    ws = apply(model, variables, z, "map")
    styles = apply(model, variables, ws, "styles")
    names = [f"synthesis.{layer.name.replace('/', '.')}" for layer in model.style_layers()]
    found = {f"{name}.affine": style for name, style in zip(names, styles)} | {"w": ws[:, 0]}
    found["image"], outputs = synthesize(model, variables, ws)
    image = 0.0
    for layer in model.style_layers():  # this case has what a ToRGB gives, not the sum up to it
        name = f"synthesis.{layer.name.replace('/', '.')}"
        if layer.is_rgb:
            below, image = image, outputs[layer.name]
            found[name] = image - enlarge(below) if layer.resolution > 4 else image
        else:
            found[name] = outputs[layer.name]
    found["w_truncated"] = apply(model, variables, z, "map", truncation=0.7, truncation_cutoff=4)
    found["image_truncated"] = synthesize(model, variables, found["w_truncated"])[0]
    found["image_without_noise"] = synthesize(model, variables, ws, "none")[0]
    return maps(found)


@jax.jit
def enlarge(image):
    return upfirdn(image, up=2, padding=(2, 1))


def rosinality_outputs(case, model, variables):
    inputs = {name: jnp.asarray(case.input(name)) for name in case.input_names}
    ws = apply(model, variables, inputs["z"], "map")
    image, outputs = synthesize(model, variables, ws)
    found = {"w": ws[:, 0], "image": image}
    found |= {rosinality_name(name): value for name, value in outputs.items()}
    if "noise_0" in inputs:
        noise = [inputs[f"noise_{i}"].transpose(0, 2, 3, 1) for i in range(model.num_ws - 1)]
        found["image_given_noise"] = synthesize(model, variables, ws, maps=noise)[0]
    if "latent_average" in inputs:
        averages = {"mapping": {"w_avg": inputs["latent_average"][0]}}
        found["image_truncated"] = apply(model, {**variables, "averages": averages}, inputs["z"], truncation=0.6)
    if "z_other" in inputs:
        others = apply(model, variables, inputs["z_other"], "map")
        rows = jnp.arange(model.num_ws)[None, :, None]
        found["image_mixed"] = synthesize(model, variables, jnp.where(rows < 3, ws, others))[0]
        found["image_from_w_plus"] = synthesize(model, variables, ws + 0.3 * rows * others)[0]
    if any(name.startswith("gradient") for name in case.output_names):
        cotangent = jnp.asarray(case.cotangent()).transpose(0, 2, 3, 1)

        @jax.jit
        @jax.value_and_grad
        def loss(params):
            return (model.apply({**variables, "params": params}, inputs["z"]) * cotangent).sum()

        found["loss"], gradients = loss(variables["params"])
        gradients = convert.to_rosinality({**variables, "params": jax.device_get(gradients)})
        return maps(found) | {f"gradient of {name}": value for name, value in gradients.items()}
    return maps(found)


def style_space_outputs(case, model, variables):
    ws = apply(model, variables, jnp.asarray(case.input("z")), "map")
    styles = apply(model, variables, ws, "styles")
    edited = tuple(style + case.input(f"edit_{i}") for i, style in enumerate(styles))
    found = {f"style_{i}": style for i, style in enumerate(styles)}
    found["image"] = apply(model, variables, styles, "synthesize_styles")
    found["image_from_styles"] = apply(model, variables, edited, "synthesize_styles")
    return maps(found)


@pytest.mark.parametrize("resampling", RESAMPLING)
@pytest.mark.parametrize("path", GENERATORS, ids=lambda path: path.stem)
def test_every_output_of_a_generator_is_the_official_one(path, resampling):
    case = golden.load(path)
    outputs = official_outputs
    if "size" in case.config:
        outputs = style_space_outputs if "edit_0" in case.input_names else rosinality_outputs
    with jax.default_matmul_precision("highest"):
        found = outputs(case, *load_generator(case, resampling))
    check(case, found)


@pytest.mark.parametrize("resampling", RESAMPLING)
@pytest.mark.parametrize("path", DISCRIMINATORS, ids=lambda path: path.stem)
def test_every_output_of_a_discriminator_is_the_official_one(path, resampling):
    case = golden.load(path)
    model = make_discriminator(case.config, resampling)
    variables = convert.from_official(case.state_dict(), model)
    image = jnp.asarray(case.input("image")).transpose(0, 2, 3, 1)
    with jax.default_matmul_precision("highest"):
        logits, kept = jax.jit(lambda v, x: model.apply(v, x, mutable=["intermediates"]))(variables, image)
        found = maps(blocks_of(kept["intermediates"], model.resolution, "size" in case.config)) | {"logits": logits}
        if "r1" in case.output_names:
            found |= gradients_of(case, model, variables, image)
    check(case, found)


def blocks_of(kept, resolution, rosinality):
    """The maps after each block, by the names of a format."""
    if not rosinality:
        return kept["outputs"]
    found = {"convs.0": kept[f"b{resolution}"]["pixels"], "final_conv": kept["b4"]["maps"]}
    for name, value in kept["outputs"].items():
        found[f"convs.{1 + int(math.log2(resolution // int(name[1:])))}"] = value
    return found


def gradients_of(case, model, variables, image):
    def logits(params, image):
        return model.apply({"params": params}, image)

    def penalty(params):
        return gradient_penalty(lambda image: logits(params, image), image)

    def loss(params):
        return (logits(params, image) * case.cotangent()).sum()

    @jax.jit
    def run(params):
        of_image = jax.grad(lambda image: logits(params, image).sum())(image)
        return of_image, jax.value_and_grad(penalty)(params), jax.value_and_grad(loss)(params)

    of_image, (r1, second), (total, first) = run(variables["params"])
    found = {"gradient of image": of_image.transpose(0, 3, 1, 2), "r1": r1, "loss": total}
    for prefix, gradients in (("gradient of r1 by ", second), ("gradient of ", first)):
        official = convert.to_rosinality({"params": jax.device_get(gradients)})
        found |= {prefix + name: value for name, value in official.items()}
    return found


def check(case, found):
    missing = set(case.output_names) - found.keys()
    assert not missing, missing
    errors = {name: (case.error(name, found[name]), case.tolerance(name)) for name in case.output_names}
    assert all(error <= tolerance for error, tolerance in errors.values()), errors


def test_there_are_cases_of_each_format():
    assert len(GENERATORS) >= 4 and len(DISCRIMINATORS) >= 3
