"""The sizes of StyleGAN2's networks, the shapes that follow from them,
and the sizes that arrays have.

Names and shapes are official: those of NVlabs/stylegan2-ada-pytorch. Sizes are a dict of the fields
of `models.stylegan2.Generator` or `Discriminator` that weights tell.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.models.stylegan2.style_space import channels_at, resolutions, style_layers

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
CHANNEL_BASE = (
    32768  # of config-f; taken where all widths are the greatest and weights don't tell it
)

Shapes = dict[str, tuple[int, ...]]


def convolutions(resolution: int) -> list[tuple[int, str]]:
    """(resolution, 'conv0' or 'conv1') of a generator's styled convolutions, in the order of
    the noise maps.
    """
    return [(4, "conv1")] + [
        (r, conv) for r in resolutions(resolution)[1:] for conv in ("conv0", "conv1")
    ]


def _width(resolution: int, sizes: Mapping[str, Any]) -> int:
    return channels_at(resolution, sizes["channel_base"], sizes["channel_max"])


def generator_shapes(sizes: Mapping[str, Any]) -> Shapes:
    """{official name: official shape} of a generator, noise maps and the mean latent among them."""
    w_dim, channels = sizes["w_dim"], sizes["image_channels"]
    shapes: Shapes = {"synthesis.b4.const": (_width(4, sizes), 4, 4)}
    table = style_layers(sizes["resolution"], sizes["channel_base"], sizes["channel_max"], channels)
    for layer in table:
        name, r, outside, inside = (
            f"synthesis.{layer.name}",
            layer.resolution,
            layer.features,
            layer.channels,
        )
        name = name.replace("/", ".")
        kernel = 1 if layer.is_rgb else 3
        shapes |= {f"{name}.weight": (outside, inside, kernel, kernel), f"{name}.bias": (outside,)}
        shapes |= {f"{name}.affine.weight": (inside, w_dim), f"{name}.affine.bias": (inside,)}
        if not layer.is_rgb:
            shapes |= {f"{name}.noise_strength": (), f"{name}.noise_const": (r, r)}
    return shapes | {"mapping.w_avg": (w_dim,)} | _mapping(sizes["z_dim"], w_dim, sizes)


def _mapping(z_dim: int, w_dim: int, sizes: Mapping[str, Any]) -> Shapes:
    shapes: Shapes = {}
    inside = z_dim
    if sizes["c_dim"]:
        shapes = {"mapping.embed.weight": (w_dim, sizes["c_dim"]), "mapping.embed.bias": (w_dim,)}
        inside += w_dim
    for i in range(sizes["mapping_layers"]):
        shapes |= {f"mapping.fc{i}.weight": (w_dim, inside), f"mapping.fc{i}.bias": (w_dim,)}
        inside = w_dim
    return shapes


def discriminator_shapes(sizes: Mapping[str, Any]) -> Shapes:
    """{official name: official shape} of a discriminator."""
    last, c_dim = _width(4, sizes), sizes["c_dim"]
    outputs = last if c_dim else 1
    shapes: Shapes = {}
    for r in reversed(resolutions(sizes["resolution"])[1:]):
        name, inside, outside = f"b{r}", _width(r, sizes), _width(r // 2, sizes)
        if r == sizes["resolution"]:
            shapes |= {f"{name}.fromrgb.weight": (inside, sizes["image_channels"], 1, 1)}
            shapes |= {f"{name}.fromrgb.bias": (inside,)}
        shapes |= {f"{name}.conv0.weight": (inside, inside, 3, 3), f"{name}.conv0.bias": (inside,)}
        shapes |= {
            f"{name}.conv1.weight": (outside, inside, 3, 3),
            f"{name}.conv1.bias": (outside,),
        }
        if sizes["architecture"] == "resnet":
            shapes[f"{name}.skip.weight"] = (outside, inside, 1, 1)
    shapes |= {"b4.conv.weight": (last, last + 1, 3, 3), "b4.conv.bias": (last,)}
    shapes |= {"b4.fc.weight": (last, last * 16), "b4.fc.bias": (last,)}
    shapes |= {"b4.out.weight": (outputs, last), "b4.out.bias": (outputs,)}
    return shapes | (_mapping(0, last, sizes) if c_dim else {})


def shapes_of(kind: str, sizes: Mapping[str, Any]) -> Shapes:
    """{official name: official shape} of a `GENERATOR` or a `DISCRIMINATOR`."""
    return generator_shapes(sizes) if kind == GENERATOR else discriminator_shapes(sizes)


def infer(
    kind: str, official: Mapping[str, np.ndarray], known: Mapping[str, Any]
) -> dict[str, Any]:
    """The sizes of the network that arrays are of.

    Args:
        kind: `GENERATOR` or `DISCRIMINATOR`.
        official: {official name: array}, and numbers of modules that NVIDIA's
            pickles tell (`conv_clamp`).
        known: Sizes that were asked for: `channel_base` and `channel_max` among them are kept
            if the widths fit.

    Raises:
        UserError: An architecture that is not supported here, or widths of none.
        KeyError: The official name of an array without which nothing can be told.
    """
    sizes = _infer_generator(official) if kind == GENERATOR else _infer_discriminator(official)
    widths = sizes.pop("widths")
    sizes |= dict(zip(("channel_base", "channel_max"), _channels(widths, known)))
    clamps = {
        float(value)
        for name, value in official.items()
        if name.endswith("conv_clamp") and np.size(value) == 1
    }
    if len(clamps) > 1:
        raise UserError(f"conv_clamp differs from layer to layer: {sorted(clamps)}")
    return sizes | ({"conv_clamp": clamps.pop()} if clamps else {})


def _blocks(official: Mapping[str, np.ndarray], pattern: str, lowest: int) -> list[int]:
    """The resolutions of blocks that have an array of some name; all up to the greatest are there.

    Args:
        official: {official name: array}.
        pattern: The name, with the resolution as its group.
        lowest: Number of the first such block, 0 for that of 4 pixels.
    """
    found = {int(match[1]) for name in official if (match := re.fullmatch(pattern, name))}
    top = max(found, default=4)
    for r in resolutions(top)[lowest:]:
        if r not in found:
            raise KeyError(pattern.replace(r"(\d+)", str(r)).replace("\\", ""))
    return resolutions(top)[lowest:]


def _infer_generator(official: Mapping[str, np.ndarray]) -> dict[str, Any]:
    blocks = _blocks(official, r"synthesis\.b(\d+)\.conv1\.weight", 0)
    if any(re.fullmatch(r"synthesis\.b\d+\.skip\.weight", name) for name in official):
        raise UserError(
            "a generator of the architecture 'resnet' is not supported here, only 'skip' is"
        )
    images = {
        name.split(".")[1] for name in official if re.match(r"synthesis\.b\d+\.torgb\.", name)
    }
    if images == {f"b{blocks[-1]}"}:
        raise UserError(
            "a generator of the architecture 'orig' is not supported here, only 'skip' is"
        )
    w_dim = official["synthesis.b4.conv1.affine.weight"].shape[1]
    first, c_dim = official["mapping.fc0.weight"].shape[1], 0
    if "mapping.embed.weight" in official:
        embed_dim, c_dim = official["mapping.embed.weight"].shape
        first -= embed_dim
    return dict(
        resolution=blocks[-1],
        z_dim=first,
        w_dim=w_dim,
        c_dim=c_dim,
        mapping_layers=_layers(official),
        image_channels=official["synthesis.b4.torgb.weight"].shape[0],
        widths={r: official[f"synthesis.b{r}.conv1.weight"].shape[0] for r in blocks},
    )


def _infer_discriminator(official: Mapping[str, np.ndarray]) -> dict[str, Any]:
    blocks = _blocks(official, r"b(\d+)\.conv0\.weight", 1)
    top = f"b{blocks[-1]}"
    skips = [name for name in official if re.fullmatch(r"b\d+\.skip\.weight", name)]
    if any(f"b{r}.fromrgb.weight" in official for r in (4, *blocks[:-1])):
        raise UserError(
            "a discriminator of the architecture 'skip' is not supported here, "
            "only 'resnet' and 'orig'"
        )
    sizes = {}
    if (group := official.get("b4.mbstd.group_size")) is not None:
        sizes["mbstd_group_size"] = int(group)
    if "mapping.embed.weight" in official:
        sizes["mapping_layers"] = _layers(official)
    inside = {r: official[f"b{r}.conv0.weight"].shape[0] for r in blocks}
    return sizes | dict(
        resolution=blocks[-1],
        c_dim=official["mapping.embed.weight"].shape[1] if sizes.get("mapping_layers") else 0,
        image_channels=official[f"{top}.fromrgb.weight"].shape[1],
        architecture="resnet" if skips else "orig",
        widths={4: official["b4.conv.weight"].shape[0]} | inside,
    )


def _layers(official: Mapping[str, np.ndarray]) -> int:
    found = {
        int(match[1])
        for name in official
        if (match := re.fullmatch(r"mapping\.fc(\d+)\.weight", name))
    }
    return len(found)


def _channels(widths: Mapping[int, int], known: Mapping[str, Any]) -> tuple[int, int]:
    """(channel_base, channel_max) of the channels at each resolution."""
    most = max(widths.values())
    narrow = {r: count for r, count in widths.items() if count < most}
    least = max(
        [count * r for r, count in narrow.items()] + [most * r for r in widths if r not in narrow]
    )
    above = min([(count + 1) * r for r, count in narrow.items()], default=None)
    if above is not None and least >= above:
        shown = ", ".join(f"{count} at {r}" for r, count in sorted(widths.items()))
        raise UserError(
            "the channels of these weights do not fit any StyleGAN2, "
            f"min(base / pixels, max): {shown}"
        )
    usual = dict(channel_base=CHANNEL_BASE, channel_max=most)
    asked = {name: known[name] for name in usual if known.get(name) is not None}
    for fields in (usual | asked, usual):
        if all(_width(r, fields) == count for r, count in widths.items()):
            return fields["channel_base"], fields["channel_max"]
    return least, most
