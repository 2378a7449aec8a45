"""The layout of NVlabs/stylegan2-ada-pytorch: the official one."""

import re
from collections.abc import Sequence

from swin_jax.models.stylegan2.style_space import resolutions
from swin_jax.pretrained.stylegan2.layout import Counts, Layout
from swin_jax.pretrained.stylegan2.sizes import DISCRIMINATOR, GENERATOR


def largest(pattern: str, names: Sequence[str], default: int = -1) -> int:
    """The greatest number that a pattern finds in names."""
    return max(
        (int(found[1]) for name in names if (found := re.fullmatch(pattern, name))), default=default
    )


def count(kind: str, names: Sequence[str]) -> Counts:
    """The `Counts` of a network, by the names of its arrays."""
    pattern = r"synthesis\.b(\d+)\.conv1\.weight" if kind == GENERATOR else r"b(\d+)\.conv0\.weight"
    return Counts(
        largest(pattern, names, 4),
        largest(r"mapping\.fc(\d+)\.weight", names) + 1,
        "mapping.embed.weight" in names,
        any(name.endswith(".skip.weight") for name in names),
    )


def names(kind: str, counts: Counts) -> dict[str, str]:
    """{official name: the same}, in the order of the official state dict."""
    found = _generator(counts) if kind == GENERATOR else _discriminator(counts)
    return {name: name for name in found}


def _generator(counts: Counts) -> list[str]:
    found = ["synthesis.b4.const"]
    for r in resolutions(counts.resolution):
        for conv in ("conv0", "conv1") if r > 4 else ("conv1",):
            layer = f"synthesis.b{r}.{conv}"
            found += [
                f"{layer}.{leaf}" for leaf in ("weight", "noise_strength", "bias", "noise_const")
            ]
            found += [f"{layer}.affine.weight", f"{layer}.affine.bias"]
        layer = f"synthesis.b{r}.torgb"
        found += [f"{layer}.{leaf}" for leaf in ("weight", "bias", "affine.weight", "affine.bias")]
    return [*found, "mapping.w_avg", *_mapping(counts)]


def _discriminator(counts: Counts) -> list[str]:
    layers = [f"b{counts.resolution}.fromrgb"]
    for r in reversed(resolutions(counts.resolution)[1:]):
        layers += [f"b{r}.conv0", f"b{r}.conv1"] + ([f"b{r}.skip"] if counts.skips else [])
    layers += ["b4.conv", "b4.fc", "b4.out"]
    leaves = [f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")]
    return [name for name in leaves if not name.endswith("skip.bias")] + _mapping(counts)


def _mapping(counts: Counts) -> list[str]:
    layers = ["embed"] if counts.conditional else []
    layers += [f"fc{i}" for i in range(counts.mapping_layers)]
    return [f"mapping.{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")]


def filters(kind: str, counts: Counts) -> dict[str, float]:
    """{name of a resampling filter: its gain}; NVIDIA's modules multiply at run time."""
    if kind == GENERATOR:
        blocks = [f"synthesis.b{r}" for r in resolutions(counts.resolution)]
        places = [f"{block}{layer}" for block in blocks for layer in ("", ".conv0", ".conv1")]
        return {
            f"{place}.resample_filter": 1.0 for place in places if place != "synthesis.b4.conv0"
        }
    places = ["b4.conv"]
    for r in reversed(resolutions(counts.resolution)[1:]):
        layers = ("", ".conv0", ".conv1", *((".skip",) if counts.skips else ()))
        places += [f"b{r}{layer}" for layer in layers]
    places += [f"b{counts.resolution}.fromrgb"]
    return {f"{place}.resample_filter": 1.0 for place in places}


LAYOUT = Layout(
    title="NVIDIA's (PyTorch)",
    marks={
        GENERATOR: r"synthesis\.b4\.(?:const|conv1\.affine\.weight)",
        DISCRIMINATOR: r"b4\.fc\.weight",
    },
    count=count,
    names=names,
    shape=lambda name, shape: shape,
    to_official=lambda name, value: value,
    filters=filters,
)
