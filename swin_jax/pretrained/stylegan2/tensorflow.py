"""The layout of NVlabs/stylegan2 and stylegan2-ada (TensorFlow), which is read only.

Kernels are (h, w, in, out), dense weights (in, out); those of upsampling convolutions are
mirrored, as TensorFlow's transposed convolution wants them, and the biases of styles lack the 1
that is added when they are used.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from swin_jax.models.stylegan2.style_space import resolutions
from swin_jax.pretrained.stylegan2.layout import Counts, Layout
from swin_jax.pretrained.stylegan2.nvlabs import largest
from swin_jax.pretrained.stylegan2.sizes import DISCRIMINATOR, GENERATOR, convolutions

_STYLED = {
    "weight": "weight",
    "bias": "bias",
    "affine.weight": "mod_weight",
    "affine.bias": "mod_bias",
}


def count(kind: str, names: Sequence[str]) -> Counts:
    """The `Counts` of a network, by the names of its arrays."""
    if kind == GENERATOR:
        blocks, layers, label = (
            r"synthesis/(\d+)x\1/Conv1/weight",
            r"mapping/Dense(\d+)/weight",
            "mapping/LabelEmbed",
        )
    else:
        blocks, layers, label = r"(\d+)x\1/Conv0/weight", r"Mapping(\d+)/weight", "LabelEmbed"
    return Counts(
        largest(blocks, names, 4),
        largest(layers, names) + 1,
        f"{label}/weight" in names,
        any(name.endswith("/Skip/weight") for name in names),
    )


def names(kind: str, counts: Counts) -> dict[str, str]:
    """{official name: TensorFlow's}."""
    return _generator(counts) if kind == GENERATOR else _discriminator(counts)


def _generator(counts: Counts) -> dict[str, str]:
    found = {"synthesis.b4.const": "synthesis/4x4/Const/const", "mapping.w_avg": "dlatent_avg"}
    for number, (r, conv) in enumerate(convolutions(counts.resolution)):
        if r == 4:
            theirs = "Conv"
        elif conv == "conv0":
            theirs = "Conv0_up"
        else:
            theirs = "Conv1"
        leaves = _STYLED | {"noise_strength": "noise_strength"}
        for leaf, their in leaves.items():
            found[f"synthesis.b{r}.{conv}.{leaf}"] = f"synthesis/{r}x{r}/{theirs}/{their}"
        found[f"synthesis.b{r}.{conv}.noise_const"] = f"synthesis/noise{number}"
    for r in resolutions(counts.resolution):
        if counts.skips:
            found[f"synthesis.b{r}.skip.weight"] = f"synthesis/{r}x{r}/Skip/weight"
        for leaf, their in _STYLED.items():
            found[f"synthesis.b{r}.torgb.{leaf}"] = f"synthesis/{r}x{r}/ToRGB/{their}"
    return found | _mapping("mapping/Dense", "mapping/LabelEmbed", counts)


def _discriminator(counts: Counts) -> dict[str, str]:
    top, found = counts.resolution, {}
    layers = {f"b{top}.fromrgb": f"{top}x{top}/FromRGB"}
    for r in resolutions(top)[1:]:
        layers |= {f"b{r}.conv0": f"{r}x{r}/Conv0", f"b{r}.conv1": f"{r}x{r}/Conv1_down"}
        if counts.skips:
            found[f"b{r}.skip.weight"] = f"{r}x{r}/Skip/weight"
    layers |= {"b4.conv": "4x4/Conv", "b4.fc": "4x4/Dense0", "b4.out": "Output"}
    for ours, theirs in layers.items():
        found |= {f"{ours}.{leaf}": f"{theirs}/{leaf}" for leaf in ("weight", "bias")}
    return found | _mapping("Mapping", "LabelEmbed", counts)


def _mapping(layer: str, label: str, counts: Counts) -> dict[str, str]:
    layers = {"mapping.embed": label} if counts.conditional else {}
    layers |= {f"mapping.fc{i}": f"{layer}{i}" for i in range(counts.mapping_layers)}
    return {
        f"{ours}.{leaf}": f"{theirs}/{leaf}"
        for ours, theirs in layers.items()
        for leaf in ("weight", "bias")
    }


def shape(name: str, official: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an array in this layout."""
    if name.endswith((".const", ".noise_const")):
        return (1,) * (4 - len(official)) + tuple(official)
    if len(official) == 4:
        outside, inside, height, width = official
        return height, width, inside, outside
    return tuple(official[::-1]) if len(official) == 2 else tuple(official)


def to_official(name: str, value: np.ndarray) -> np.ndarray:
    """An array of this layout in the official one;
    of another shape than expected it is left as it is.
    """
    if name.endswith(".noise_const"):
        return value.reshape(value.shape[2:]) if value.shape[:2] == (1, 1) else value
    if name.endswith(".const"):
        return value.reshape(value.shape[1:]) if value.shape[:1] == (1,) else value
    if name.endswith(".affine.bias"):
        return value + np.float32(1)
    if value.ndim == 4:
        is_up = name.startswith("synthesis.") and name.endswith(".conv0.weight")
        return (value[::-1, ::-1] if is_up else value).transpose(3, 2, 0, 1)
    return value.T if value.ndim == 2 else value


def prepare(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays with the names that a network's own components have,
    'G_synthesis' is 'synthesis'.
    """
    return {
        re.sub(r"(^|/)G_(synthesis|mapping)/", r"\1\2/", name): value
        for name, value in arrays.items()
    }


LAYOUT = Layout(
    title="NVIDIA's (TensorFlow)",
    marks={GENERATOR: r"synthesis/4x4/Const/const", DISCRIMINATOR: r"4x4/Dense0/weight"},
    count=count,
    names=names,
    shape=shape,
    to_official=to_official,
    idle=frozenset({"lod", "synthesis/lod"}),
    prepare=prepare,
)
