"""StyleCLIP's statistics of a generator's style space, its directions of channels, and latents,
from released files.

Each is checked against the layers of the generator that it is used with,
`Generator.style_layers()`. `identify` compares statistics with those of the released FFHQ
generator: they belong to one generator and mean nothing for another of the same size. Files and
formats: orpatashnik/StyleCLIP, global_directions/.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.models.styleclip.statistics import Statistics
from swin_jax.models.stylegan2.style_space import StyleLayer
from swin_jax.pretrained.files.objects import read_object
from swin_jax.pretrained.files.read import read_whole

# How far a layer may be off, in its own deviations: printed numbers are exact to 1e-4, and the mean
# over the channels of a layer moves by a few hundredths with 2,000 draws of w.
TOLERANCE = 0.05
# Mean and standard deviation, averaged over the channels of each layer, in the S_mean_std of FFHQ.
FFHQ = (
    *(
        (0.7469, 1.1466),
        (0.0010, 0.2171),
        (1.2832, 2.1047),
        (2.1032, 2.0499),
        (0.0017, 0.1834),
        (3.4332, 2.3638),
    ),
    *(
        (3.8702, 1.7951),
        (0.0053, 0.1537),
        (6.0348, 1.9212),
        (6.0453, 1.4150),
        (0.0012, 0.1235),
        (6.6937, 1.3816),
    ),
    *(
        (5.4040, 1.1527),
        (0.0001, 0.1245),
        (6.6694, 1.2000),
        (7.1836, 1.2153),
        (-0.0019, 0.1282),
        (8.2247, 1.2390),
    ),
    *(
        (7.0605, 1.1647),
        (0.0695, 0.2058),
        (6.6092, 1.0434),
        (5.4913, 1.1837),
        (0.0451, 0.3056),
        (6.7161, 1.1486),
    ),
    *((4.7631, 1.5692), (0.1042, 0.4083)),
)
# The same of the first channels of the first layer.
FFHQ_CHANNELS = ((-0.2411, 1.5549), (-0.2078, 0.7608), (0.1075, 0.5821))
_WS = "ws"
GENERATORS = {"stylegan2-ffhq-config-f": (FFHQ, FFHQ_CHANNELS)}


def statistics_of(styles: Sequence[np.ndarray]) -> Statistics:
    """The statistics of styles, an array (samples, channels) for each layer, such as
    `Generator.styles` gives.
    """
    arrays = [np.asarray(style, np.float64) for style in styles]
    means = tuple(array.mean(axis=0).astype(np.float32) for array in arrays)
    return Statistics(means, tuple(array.std(axis=0).astype(np.float32) for array in arrays))


def read_statistics(path: str | os.PathLike, layers: Sequence[StyleLayer]) -> Statistics:
    """Reads S_mean_std, a pickle of a list of means and a list of standard deviations, float32.

    Args:
        path: The file.
        layers: Layers of the generator.

    Raises:
        UserError: A file of another form, or of a generator with other layers:
            both numbers are named.
    """
    value = read_object(path)
    if not isinstance(value, list) or len(value) != 2:
        raise UserError(
            f"{path}: S_mean_std is [means, standard deviations], and this is {_shown(value)}"
        )
    means, deviations = (_check_layers(path, part, layers, axes=1) for part in value)
    if any(std.min() < 0 for std in deviations):
        raise UserError(
            f"{path}: holds negative standard deviations; "
            "S_mean_std is [means, standard deviations]"
        )
    return Statistics(means, deviations)


def read_styles(path: str | os.PathLike, layers: Sequence[StyleLayer]) -> tuple[np.ndarray, ...]:
    """Reads S, a pickle of names and styles: an array (samples, channels), float32, of each layer;
    raises as above.
    """
    value = read_object(path)
    if not isinstance(value, list) or len(value) != 2:
        raise UserError(f"{path}: S is [names, styles], and this is {_shown(value)}")
    styles = _check_layers(path, value[1], layers, axes=2)
    counts = sorted({len(style) for style in styles})
    if len(counts) > 1:
        raise UserError(f"{path}: has {counts[0]} samples in one layer and {counts[-1]} in another")
    return styles


def read_directions(
    path: str | os.PathLike, layers: Sequence[StyleLayer], features: int | None = None
) -> np.ndarray:
    """Reads fs3.npy: what each channel of style space does to CLIP's features of the image.

    Args:
        path: The file.
        layers: Layers of the generator; rows are the channels of those that are not ToRGB, in their
            order.
        features: Width of CLIP's features, if it is known.

    Returns:
        (rows, features) float32. There may be fewer rows than channels, those of the first layers:
        5,376 end at 128 pixels, where the published script ends, and 6,048 are all of the
        generator of 1024 pixels.

    Raises:
        UserError: Rows that end within a layer, or are more than the channels;
            another width than `features`.
    """
    rows = _array(path, read_object(path), "fs3.npy is (channels, features)", 2)
    ends = np.cumsum([layer.channels for layer in layers if not layer.is_rgb])
    if len(rows) not in ends:
        near = int(ends[np.abs(ends - len(rows)).argmin()])
        raise UserError(
            f"{path}: has {len(rows)} rows, and no layer of the generator ends there: it has "
            f"{ends[-1]} channels without those of ToRGB, and the nearest end is {near}; these "
            "directions are of another generator"
        )
    if features is not None and rows.shape[1] != features:
        raise UserError(f"{path}: is of features of width {rows.shape[1]}, the CLIP has {features}")
    return rows


def read_w(path: str | os.PathLike, w_dim: int) -> np.ndarray:
    """Reads W.npy: latents w, (samples, w_dim) float32; raises UserError for another width."""
    rows = _array(path, read_object(path), "W.npy is (samples, w_dim)", 2)
    if rows.shape[1] != w_dim:
        raise UserError(f"{path}: holds w of width {rows.shape[1]}, the generator's have {w_dim}")
    return rows


def read_latents(path: str | os.PathLike, num_ws: int, w_dim: int) -> np.ndarray:
    """Reads latents in W+: w_plus.npy, latents.pt, train_faces.pt,
    and the .npz files that edits are written to.

    Args:
        path: The file, of one array or tensor. In a .npz file of several, latents are called 'ws'.
        num_ws: Rows of a latent of the generator.
        w_dim: Width of a row.

    Returns:
        (latents, num_ws, w_dim) float32. A bare (num_ws, w_dim) is one latent; a warning says so.

    Raises:
        UserError: Latents of a generator of another size, with both numbers.
    """
    is_npz = os.fspath(path).lower().endswith(".npz")
    value, own = _member(path) if is_npz else (read_object(path), False)
    value = _array(path, value, f"latents are (n, {num_ws}, {w_dim})", None)
    if value.shape == (num_ws, w_dim):
        if not own:  # which is of one picture
            warn(f"{path}: ({num_ws}, {w_dim}) is read as one latent, not as {num_ws}")
        return value[None]
    if value.ndim != 3 or value.shape[1:] != (num_ws, w_dim):
        raise UserError(
            f"{path}: holds latents of shape {list(value.shape)}, and the generator's are (n, "
            f"{num_ws}, {w_dim})"
        )
    return value


def _member(path: str | os.PathLike) -> tuple[np.ndarray, bool]:
    """The latents in a .npz file, and whether it is one that an edit was written to."""
    arrays = read_whole(path)
    if _WS in arrays:
        return arrays[_WS], True
    if len(arrays) > 1:
        names = ", ".join(sorted(arrays))[:200]
        raise UserError(f"{path}: holds {names}; latents are one array, or the one called {_WS}")
    return next(iter(arrays.values())), False


def identify(found: Statistics, tolerance: float = TOLERANCE) -> str:
    """The name of the released generator that statistics belong to.

    Args:
        found: The statistics, of a file or of styles that a generator made from truncated w (0.7).
        tolerance: Largest difference of a layer, see `difference`.

    Raises:
        UserError: Those of none; the first layer that is off is named for the nearest.
    """
    reasons = []
    for name, (table, channels) in GENERATORS.items():
        reason = difference(found.averages(), table, tolerance)
        first = list(zip(found.means[0][: len(channels)], found.deviations[0]))
        reason = reason or difference(first, channels, 2 * tolerance, what="channel")
        if not reason:
            return name
        reasons.append(f"these statistics are not those of {name}: {reason}")
    raise UserError("; ".join(reasons))


def check_belong(
    found: Statistics,
    styles: Sequence[np.ndarray],
    layers: Sequence[StyleLayer],
    tolerance: float = 2 * TOLERANCE,
) -> None:
    """Raises UserError for statistics that are not those of the generator that made some styles.

    Args:
        found: The statistics.
        styles: (samples, channels) of each layer, from w that are truncated as those of the
            statistics were, by 0.7. A thousand samples suffice.
        layers: Layers of the generator, for the message.
        tolerance: Largest difference of a layer, see `difference`.
    """
    expected = statistics_of(styles).averages()
    reason = difference(found.averages(), expected, tolerance, [layer.name for layer in layers])
    if reason:
        raise UserError(
            f"the statistics are of another generator: {reason}; "
            "compute them for this one (each generator has statistics of its own)"
        )


def difference(
    found: Sequence[tuple[float, float]],
    expected: Sequence[tuple[float, float]],
    tolerance: float,
    names: Sequence[str] = (),
    what: str = "layer",
) -> str:
    """The first layer in which averages differ, in words; '' for none.

    Args:
        found, expected: (mean, standard deviation) of each layer.
        tolerance: Largest difference of both, as a fraction of the expected standard deviation.
        names: Names of the layers.
        what: The word for one of them.
    """
    if len(found) != len(expected):
        return f"{len(found)} {what}s in place of {len(expected)}"
    for number, (ours, theirs) in enumerate(zip(found, expected)):
        if not all(abs(one - other) <= tolerance * theirs[1] for one, other in zip(ours, theirs)):
            layer = f"{what} {number}" + (f" ({names[number]})" if names else "")
            return (
                f"{layer} has mean {ours[0]:.4f} and standard deviation {ours[1]:.4f} in place of "
                f"{theirs[0]:.4f} and {theirs[1]:.4f}"
            )
    return ""


def _check_layers(
    path: Any, value: Any, layers: Sequence[StyleLayer], axes: int
) -> tuple[np.ndarray, ...]:
    """The arrays of all layers, whose last axis is their channels."""
    if not isinstance(value, list):
        raise UserError(f"{path}: holds {_shown(value)} in place of a list of {len(layers)} layers")
    if len(value) != len(layers):
        raise UserError(
            f"{path}: has {len(value)} layers with a style, the generator has {len(layers)}"
        )
    found = []
    for layer, array in zip(layers, value):
        array = _array(path, array, f"{layer.name} is an array of {axes} axes", axes)
        if array.shape[-1] != layer.channels:
            raise UserError(
                f"{path}: {layer.name} has {array.shape[-1]} channels, "
                f"the generator's has {layer.channels}: these are of another generator"
            )
        found.append(array)
    return tuple(found)


def _array(path: Any, value: Any, expected: str, axes: int | None) -> np.ndarray:
    """A float32 array without gaps; raises UserError for anything else."""
    if (
        not isinstance(value, np.ndarray)
        or value.dtype.kind not in "fiu"
        or axes not in (None, value.ndim)
    ):
        raise UserError(f"{path}: {expected}, and this is {_shown(value)}")
    value = np.asarray(value, np.float32)
    if not value.size or not np.isfinite(value).all():
        held = "values that are not numbers" if value.size else "none"
        raise UserError(f"{path}: {expected}, and this holds {held}")
    return value


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {list(value.shape)}"
    return f"a {type(value).__name__}" + (
        f" of {len(value)}" if isinstance(value, (list, dict)) else ""
    )
