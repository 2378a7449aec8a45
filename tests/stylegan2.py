"""Small StyleGAN2 networks: their fields, and state dicts in each layout with numbers of a seed."""

import re
import zlib

import numpy as np

from swin_jax.pretrained.stylegan2.sizes import DISCRIMINATOR, GENERATOR, discriminator_shapes, generator_shapes

GENERATORS = {
    "usual": dict(resolution=16, z_dim=6, w_dim=6, c_dim=0, mapping_layers=2, channel_base=64, channel_max=8),
    "conditional": dict(resolution=8, z_dim=5, w_dim=6, c_dim=3, mapping_layers=1, channel_base=64, channel_max=8),
    "gray": dict(resolution=8, z_dim=6, w_dim=6, c_dim=0, mapping_layers=3, channel_base=32, channel_max=8),
}
GENERATORS = {name: fields | {"image_channels": 1 if name == "gray" else 3} for name, fields in GENERATORS.items()}
DISCRIMINATORS = {
    "usual": dict(resolution=16, c_dim=0, channel_base=64, channel_max=8, architecture="resnet"),
    "conditional": dict(resolution=8, c_dim=3, mapping_layers=2, channel_base=64, channel_max=8, architecture="resnet"),
    "orig": dict(resolution=8, c_dim=0, channel_base=64, channel_max=8, architecture="orig"),
}
DISCRIMINATORS = {name: fields | {"image_channels": 3} for name, fields in DISCRIMINATORS.items()}
FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64


def numbers(shapes):
    """{name: normal float32 array}, each by the checksum of its name."""
    return {
        name: np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, dtype=np.float32)
        for name, shape in shapes.items()
    }


def official(kind, name="usual", **changes):
    """The official state dict of a small network."""
    if kind == GENERATOR:
        return numbers(generator_shapes(GENERATORS[name] | changes))
    return numbers(discriminator_shapes(DISCRIMINATORS[name] | changes))


def rosinality(kind):
    """The state dict of the usual networks as rosinality's code has it, with filters; written out by hand."""
    if kind == DISCRIMINATOR:
        shapes = {"convs.0.0.weight": (4, 3, 1, 1), "convs.0.1.bias": (4,)}
        for number, inside, outside in ((1, 4, 8), (2, 8, 8)):
            block = f"convs.{number}"
            shapes |= {f"{block}.conv1.0.weight": (inside, inside, 3, 3), f"{block}.conv1.1.bias": (inside,)}
            shapes |= {f"{block}.conv2.1.weight": (outside, inside, 3, 3), f"{block}.conv2.2.bias": (outside,)}
            shapes[f"{block}.skip.1.weight"] = (outside, inside, 1, 1)
        shapes |= {"final_conv.0.weight": (8, 9, 3, 3), "final_conv.1.bias": (8,)}
        shapes |= {"final_linear.0.weight": (8, 128), "final_linear.0.bias": (8,)}
        shapes |= {"final_linear.1.weight": (1, 8), "final_linear.1.bias": (1,)}
        blurs = [f"convs.{number}.{place}.kernel" for number in (1, 2) for place in ("conv2.0", "skip.0")]
        return numbers(shapes) | dict.fromkeys(blurs, FILTER)
    shapes = {f"style.{i}.{leaf}": shape for i in (1, 2) for leaf, shape in (("weight", (6, 6)), ("bias", (6,)))}
    shapes["input.input"] = (1, 8, 4, 4)
    convolutions = {"conv1": (8, 8), "convs.0": (8, 8), "convs.1": (8, 8), "convs.2": (8, 4), "convs.3": (4, 4)}
    for layer, (inside, outside) in convolutions.items():
        shapes |= {f"{layer}.conv.weight": (1, outside, inside, 3, 3), f"{layer}.conv.modulation.weight": (inside, 6)}
        shapes |= {f"{layer}.conv.modulation.bias": (inside,), f"{layer}.noise.weight": (1,)}
        shapes[f"{layer}.activate.bias"] = (outside,)
    for layer, inside in {"to_rgb1": 8, "to_rgbs.0": 8, "to_rgbs.1": 4}.items():
        shapes |= {f"{layer}.conv.weight": (1, 3, inside, 1, 1), f"{layer}.conv.modulation.weight": (inside, 6)}
        shapes |= {f"{layer}.conv.modulation.bias": (inside,), f"{layer}.bias": (1, 3, 1, 1)}
    shapes |= {f"noises.noise_{i}": (1, 1, side, side) for i, side in enumerate((4, 8, 8, 16, 16))}
    kernels = ["convs.0.conv.blur", "convs.2.conv.blur", "to_rgbs.0.upsample", "to_rgbs.1.upsample"]
    return numbers(shapes) | {f"{name}.kernel": FILTER * 4 for name in kernels}


def tensorflow(kind, state_dict):
    """An official state dict as TensorFlow's variables: {name: array} without the names of components."""
    found = {}
    for name, value in state_dict.items():
        block, _, rest = re.sub(r"^synthesis\.", "", name).partition(".")
        is_up = kind == GENERATOR and rest == "conv0.weight"
        if name.startswith("mapping."):
            layer = {"w_avg": "dlatent_avg", "embed": "LabelEmbed"}.get(rest.split(".")[0])
            number = re.search(r"fc(\d+)", rest)
            if kind == GENERATOR:
                layer = layer or f"Dense{number[1]}"
                layer = layer if layer == "dlatent_avg" else f"mapping/{layer}"
            else:
                layer = layer or f"Mapping{number[1]}"
            found[layer if rest == "w_avg" else f"{layer}/{rest.split('.')[1]}"] = value.T
            continue
        side = int(block[1:])
        step = side.bit_length() - 1
        if rest.endswith("noise_const"):
            found[f"synthesis/noise{2 * step - 5 + (rest[:5] == 'conv1') if side > 4 else 0}"] = value[None, None]
            continue
        layers = {"conv0": "Conv0_up", "conv1": "Conv1" if side > 4 else "Conv", "torgb": "ToRGB", "const": "Const"}
        if kind == DISCRIMINATOR:
            layers = {"conv0": "Conv0", "conv1": "Conv1_down", "skip": "Skip", "fromrgb": "FromRGB"}
            layers |= {"conv": "Conv", "fc": "Dense0", "out": "Output"}
        layer, _, leaf = rest.partition(".")
        leaf = {"affine.weight": "mod_weight", "affine.bias": "mod_bias", "": "const"}.get(leaf, leaf)
        path = "Output" if layer == "out" else f"{side}x{side}/{layers[layer]}"
        path = f"synthesis/{path}/{leaf}" if kind == GENERATOR else f"{path}/{leaf}"
        if value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)
            value = value[::-1, ::-1] if is_up else value
        elif value.ndim == 3:
            value = value[None]
        elif leaf == "mod_bias":
            value = value - np.float32(1)
        found[path] = np.array(value.T if value.ndim == 2 else value)
    return found
