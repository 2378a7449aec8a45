"""The layout of rosinality/stylegan2-pytorch, which StyleCLIP and e4e share.

Layers are counted instead of named by their resolution; kernels of styled convolutions, the
constant and noise maps have axes of length 1 in front.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.models.stylegan2.style_space import resolutions
from swin_jax.pretrained.stylegan2.layout import Counts, Layout
from swin_jax.pretrained.stylegan2.nvlabs import largest
from swin_jax.pretrained.stylegan2.sizes import DISCRIMINATOR, GENERATOR, convolutions

MEAN_LATENT = "latent_avg"  # beside the state dict, in the checkpoint

_STYLED = {
    "weight": "conv.weight",
    "affine.weight": "conv.modulation.weight",
    "affine.bias": "conv.modulation.bias",
    "noise_strength": "noise.weight",
    "bias": "activate.bias",
}


def count(kind: str, names: Sequence[str]) -> Counts:
    """The `Counts` of a network, by the names of its arrays."""
    if kind == GENERATOR:
        blocks = (largest(r"convs\.(\d+)\.conv\.weight", names) + 1) // 2
        return Counts(4 * 2**blocks, largest(r"style\.(\d+)\.weight", names, 0))
    return Counts(4 * 2 ** largest(r"convs\.(\d+)\.conv1\.0\.weight", names, 0))


def names(kind: str, counts: Counts) -> dict[str, str]:
    """{official name: rosinality's}."""
    return _generator(counts) if kind == GENERATOR else _discriminator(counts)


def _generator(counts: Counts) -> dict[str, str]:
    found = {}
    for i in range(counts.mapping_layers):
        found |= {f"mapping.fc{i}.{leaf}": f"style.{i + 1}.{leaf}" for leaf in ("weight", "bias")}
    found["synthesis.b4.const"] = "input.input"
    for number, (r, conv) in enumerate(convolutions(counts.resolution)):
        theirs = f"convs.{number - 1}" if number else "conv1"
        found |= {
            f"synthesis.b{r}.{conv}.{leaf}": f"{theirs}.{their}" for leaf, their in _STYLED.items()
        }
        found[f"synthesis.b{r}.{conv}.noise_const"] = f"noises.noise_{number}"
    for number, r in enumerate(resolutions(counts.resolution)):
        ours, theirs = f"synthesis.b{r}.torgb", f"to_rgbs.{number - 1}" if number else "to_rgb1"
        found |= {
            f"{ours}.{leaf}": f"{theirs}.{_STYLED[leaf]}"
            for leaf in ("weight", "affine.weight", "affine.bias")
        }
        found[f"{ours}.bias"] = f"{theirs}.bias"
    return found | {"mapping.w_avg": MEAN_LATENT}


def _discriminator(counts: Counts) -> dict[str, str]:
    top = f"b{counts.resolution}.fromrgb"
    found = {f"{top}.weight": "convs.0.0.weight", f"{top}.bias": "convs.0.1.bias"}
    for number, r in enumerate(reversed(resolutions(counts.resolution)[1:]), 1):
        ours, theirs = f"b{r}", f"convs.{number}"
        found |= {
            f"{ours}.conv0.weight": f"{theirs}.conv1.0.weight",
            f"{ours}.conv0.bias": f"{theirs}.conv1.1.bias",
        }
        found |= {
            f"{ours}.conv1.weight": f"{theirs}.conv2.1.weight",
            f"{ours}.conv1.bias": f"{theirs}.conv2.2.bias",
        }
        found[f"{ours}.skip.weight"] = f"{theirs}.skip.1.weight"
    found |= {"b4.conv.weight": "final_conv.0.weight", "b4.conv.bias": "final_conv.1.bias"}
    for ours, theirs in (("b4.fc", "final_linear.0"), ("b4.out", "final_linear.1")):
        found |= {f"{ours}.{leaf}": f"{theirs}.{leaf}" for leaf in ("weight", "bias")}
    return found


def _leading(name: str) -> int:
    """Axes of length 1 in front of an array, by its official name."""
    if name.endswith(".noise_const"):
        return 2
    styled = (
        name.startswith("synthesis.")
        and name.endswith((".const", ".weight"))
        and ".affine." not in name
    )
    return 1 if styled or name.endswith(".noise_strength") else 0


def shape(name: str, official: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an array in this layout."""
    if name.endswith(".torgb.bias"):
        return (1, *official, 1, 1)
    return (1,) * _leading(name) + tuple(official)


def to_official(name: str, value: np.ndarray) -> np.ndarray:
    """An array of this layout in the official one;
    of another shape than expected it is left as it is.
    """
    if name.endswith(".torgb.bias"):
        return value.reshape(-1) if value.shape == (1, value.size, 1, 1) else value
    count = _leading(name)
    return value.reshape(value.shape[count:]) if value.shape[:count] == (1,) * count else value


def filters(kind: str, counts: Counts) -> dict[str, float]:
    """{name of a resampling filter: its gain}: 4 where it stands for an upsampling."""
    blocks = range(len(resolutions(counts.resolution)[1:]))
    if kind == GENERATOR:
        found = {f"convs.{2 * number}.conv.blur.kernel": 4.0 for number in blocks}
        return found | {f"to_rgbs.{number}.upsample.kernel": 4.0 for number in blocks}
    return {
        f"convs.{number + 1}.{place}.kernel": 1.0
        for number in blocks
        for place in ("conv2.0", "skip.0")
    }


def prepare(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays with the mean latent as one row: e4e repeats it for all layers.

    Raises:
        UserError: Rows that differ.
    """
    found = dict(arrays)
    rows = found.get(MEAN_LATENT)
    if rows is None or np.ndim(rows) != 2:
        return found
    if np.any(rows != rows[:1]):
        gap = float(np.abs(rows - rows[:1]).max())
        raise UserError(
            f"{MEAN_LATENT} has {len(rows)} rows that differ by up to {gap:.3g}; "
            "a mean of w is one row"
        )
    return found | {MEAN_LATENT: rows[0]}


LAYOUT = Layout(
    title="rosinality's",
    marks={
        GENERATOR: r"(?:input\.input|conv1\.conv\.modulation\.weight)",
        DISCRIMINATOR: r"final_linear\.0\.weight",
    },
    count=count,
    names=names,
    shape=shape,
    to_official=to_official,
    filters=filters,
    idle=frozenset({MEAN_LATENT}),
    prepare=prepare,
)
