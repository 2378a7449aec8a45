"""StyleGAN2: the official weights <-> our variables.

Official names and shapes are those of NVlabs/stylegan2-ada-pytorch; `layout` and its like bring
other layouts to them. Names are ours but for `weight`, which is `kernel`. Kernels go from
(out, in, h, w) to (h, w, in, out), dense weights from (out, in) to (in, out), and the numbers stay
as they are. The first dense layer of a discriminator reads height, width and channels instead of
channels, height and width. Noise maps are in 'noise', the mean latent is in 'averages'. Only the
fields of a model are looked at.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.core.params import flatten, unflatten
from swin_jax.pretrained import compare
from swin_jax.pretrained.files import choose
from swin_jax.pretrained.stylegan2 import nvlabs, rosinality, tensorflow
from swin_jax.pretrained.stylegan2.layout import FILTER, Layout
from swin_jax.pretrained.stylegan2.sizes import DISCRIMINATOR, GENERATOR, infer, shapes_of

LAYOUTS = (nvlabs.LAYOUT, rosinality.LAYOUT, tensorflow.LAYOUT)
_FC = "b4.fc.weight"
_NUMBERS = ("conv_clamp", "group_size")  # of modules, from NVIDIA's pickles
# Sizes in which a model may differ from its weights.
FREE = ("conv_clamp", "mbstd_group_size")
# Ends of official names of what need not be there: older files of rosinality's have neither.
_OPTIONAL = (".noise_const", ".w_avg")
_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class Network:
    """One network of a file, as it was found.

    Attributes:
        kind: `sizes.GENERATOR` or `sizes.DISCRIMINATOR`.
        layout: Layout in which it is written.
        sizes: The fields of the model that it is of, see `sizes.infer`.
        arrays: {official name: official array}.
    """

    kind: str
    layout: Layout
    sizes: dict[str, Any]
    arrays: dict[str, np.ndarray]


def is_generator(state_dict: Mapping[str, np.ndarray]) -> bool:
    """True if a state dict of any layout holds a generator."""
    return bool(_places(state_dict, GENERATOR))


def is_discriminator(state_dict: Mapping[str, np.ndarray]) -> bool:
    """True if a state dict of any layout holds a discriminator and no generator."""
    return not _places(state_dict, GENERATOR) and bool(_places(state_dict, DISCRIMINATOR))


def read_network(
    state_dict: Mapping[str, np.ndarray], kind: str, known: Mapping[str, Any] | None = None
) -> Network:
    """The network of some kind in a state dict of any layout; every array must fit.

    Args:
        state_dict: {name: array} as `pretrained.files.read` gives it.
        kind: `sizes.GENERATOR` or `sizes.DISCRIMINATOR`.
        known: Sizes that were asked for, see `sizes.infer`.

    Raises:
        UserError: No such network, or several; arrays that are missing, unexpected or of another
            shape; another architecture; a resampling filter other than (1, 3, 3, 1).
    """
    layout, arrays = _part(state_dict, kind)
    try:
        counts = layout.count(kind, list(arrays))
        if counts.resolution < 8:
            raise UserError(
                f"these weights of a {kind} hold no block of 8 pixels: most of them are missing"
            )
        names = layout.names(kind, counts)
        theirs = {theirs: ours for ours, theirs in names.items()}
        official = {
            theirs[name]: layout.to_official(theirs[name], arrays[name])
            for name in arrays
            if name in theirs
        }
        numbers = {name: value for name, value in arrays.items() if name.split(".")[-1] in _NUMBERS}
        sizes = infer(kind, {**_unknown(arrays, theirs), **official}, known or {})
        expected = {
            names[name]: layout.shape(name, shape) for name, shape in shapes_of(kind, sizes).items()
        }
    except KeyError as error:
        name = names.get(error.args[0], error.args[0])
        raise UserError(
            f"these weights of a {kind} have no {name}, without which its sizes are unknown"
        ) from None
    except (IndexError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise compare.no_model_of("these weights", error) from error
    filters = _check_filters(arrays, layout.filters(kind, counts))
    for ending in _OPTIONAL:
        group = {theirs for ours, theirs in names.items() if ours.endswith(ending)}
        if not group & arrays.keys():
            expected = {name: shape for name, shape in expected.items() if name not in group}
    found = {
        name: value for name, value in arrays.items() if name not in numbers and name not in filters
    }
    _check(found, expected, layout.idle, kind)
    return Network(
        kind,
        layout,
        sizes,
        {name: np.asarray(value, np.float32) for name, value in official.items()},
    )


def _unknown(arrays: Mapping[str, np.ndarray], theirs: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The arrays that a layout has no official name for, by which other architectures are told."""
    return {name: value for name, value in arrays.items() if name not in theirs}


def from_official(state_dict: Mapping[str, np.ndarray], model) -> dict[str, Any]:
    """Converts a state dict of any layout to the variables of a model; every array must fit.

    Args:
        state_dict: {name: array} as `pretrained.files.read` gives it, of any dtype.
        model: A `models.stylegan2.Generator` or `Discriminator`.

    Returns:
        {'params': ..., 'noise': ..., 'averages': ...} of a generator, {'params': ...} of a
        discriminator: nested dicts of float32 numpy arrays. 'noise' and 'averages' are missing
        where the file holds none.

    Raises:
        UserError: As `read_network`; sizes that are not the model's, with both numbers.
    """
    network = read_network(state_dict, kind_of(model), fields_of(model))
    check_model(network, model)
    return to_variables(network.arrays)


def fields_of(model) -> dict[str, Any]:
    """The arguments that make a model."""
    return {
        name: getattr(model, name)
        for name in type(model).__dataclass_fields__
        if name not in ("parent", "name")
    }


def check_model(network: Network, model) -> None:
    """Raises UserError, with both numbers, for sizes of a network that are not the model's."""
    fields = fields_of(model)
    wrong = [
        f"{name} is {value} in the weights and {fields[name]} in the model"
        for name, value in network.sizes.items()
        if name not in FREE and fields[name] != value
    ]
    if wrong:
        raise UserError(
            f"these weights are of another {network.kind} than the model: {', '.join(wrong)}"
        )


def kind_of(model) -> str:
    """`sizes.GENERATOR` or `sizes.DISCRIMINATOR`."""
    return GENERATOR if "z_dim" in type(model).__dataclass_fields__ else DISCRIMINATOR


def to_variables(official: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """{official name: official array} -> variables, see `from_official`; nothing is checked."""
    flat: dict[str, dict[str, np.ndarray]] = {"params": {}}
    for name, value in official.items():
        collection, path = _path(name)
        flat.setdefault(collection, {})[path] = np.asarray(_to_ours(name, value), order="C")
    return {collection: unflatten(leaves) for collection, leaves in flat.items()}


def to_official(variables: Mapping[str, Any], filters: bool = True) -> dict[str, np.ndarray]:
    """Converts variables to the official state dict; the inverse of `from_official`.

    Args:
        variables: Variables of a `models.stylegan2.Generator` or `Discriminator`; 'noise' and
            'averages' may be missing.
        filters: True to add the resampling filters, which `load_state_dict` wants when it is
            strict.

    Returns:
        {official name: float32 numpy array}, in the official order.

    Raises:
        UserError: Variables of neither.
    """
    network = _network_of(variables)
    found = dict(network.arrays)
    if filters:
        gains = nvlabs.LAYOUT.filters(network.kind, nvlabs.count(network.kind, list(found)))
        found |= {name: FILTER * np.float32(gain) for name, gain in gains.items()}
    return found


def to_rosinality(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts variables to rosinality's state dict, resampling filters included.

    Args:
        variables: The same as in `to_official`.

    Returns:
        {rosinality's name: float32 numpy array}; the mean latent of a generator, which has its
        place beside the state dict, is under `latent_avg`.

    Raises:
        UserError: Variables of neither, or of a network that rosinality's code cannot hold.
    """
    network, layout = _network_of(variables), rosinality.LAYOUT
    if reason := _unlike_rosinality(network):
        raise UserError(
            f"rosinality's code has no {network.kind} {reason}; write NVIDIA's state dict instead"
        )
    counts = nvlabs.count(network.kind, list(network.arrays))
    names = layout.names(network.kind, counts)
    found = {
        theirs: network.arrays[name].reshape(layout.shape(name, network.arrays[name].shape))
        for name, theirs in names.items()
        if name in network.arrays
    }
    gains = layout.filters(network.kind, counts)
    return found | {name: FILTER * np.float32(gain) for name, gain in gains.items()}


def _unlike_rosinality(network: Network) -> str:
    sizes = network.sizes
    if sizes["c_dim"]:
        return f"with labels (c_dim={sizes['c_dim']})"
    if sizes.get("z_dim") != sizes.get("w_dim"):
        return f"whose z and w differ in width ({sizes['z_dim']} and {sizes['w_dim']})"
    if sizes["image_channels"] != 3:
        return f"of {sizes['image_channels']} image channels"
    return "without shortcuts (architecture='orig')" if sizes.get("architecture") == "orig" else ""


def _network_of(variables: Mapping[str, Any]) -> Network:
    """The checked official network of some variables."""
    flat = {
        collection: flatten(tree)
        for collection, tree in variables.items()
        if collection in _COLLECTIONS
    }
    official = {}
    for leaves in flat.values():
        for path, leaf in leaves.items():
            name = re.sub(r"\.kernel$", ".weight", path.replace("/", "."))
            official[name] = np.asarray(_to_theirs(name, np.asarray(leaf, np.float32)), order="C")
    kind = GENERATOR if _places(official, GENERATOR) else DISCRIMINATOR
    network = read_network(official, kind)
    order = nvlabs.names(kind, nvlabs.count(kind, list(official)))
    return dataclasses.replace(
        network, arrays={name: official[name] for name in order if name in official}
    )


_COLLECTIONS = ("params", "noise", "averages")


def _path(name: str) -> tuple[str, str]:
    """The collection and the path of an official name."""
    path = re.sub(r"\.weight$", ".kernel", name).replace(".", "/")
    if name.endswith(".noise_const"):
        return "noise", path
    return ("averages" if name == "mapping.w_avg" else "params"), path


def _to_ours(name: str, value: np.ndarray) -> np.ndarray:
    if name == _FC:  # columns in the order of C, H, W
        return value.reshape(len(value), -1, 4, 4).transpose(2, 3, 1, 0).reshape(-1, len(value))
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if value.ndim == 3:
        return value.transpose(1, 2, 0)
    return value.T if name.endswith(".weight") else value


def _to_theirs(name: str, value: np.ndarray) -> np.ndarray:
    if name == _FC and value.ndim == 2:
        return (
            value.reshape(4, 4, -1, value.shape[1])
            .transpose(3, 2, 0, 1)
            .reshape(value.shape[1], -1)
        )
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    if value.ndim == 3:
        return value.transpose(2, 0, 1)
    return value.T if name.endswith(".weight") else value


def _places(state_dict: Mapping[str, np.ndarray], kind: str) -> dict[str, Layout]:
    """{what stands before the names of a network: its layout},
    for each of some kind in a state dict.
    """
    found = {}
    for layout in LAYOUTS:
        for name in layout.prepare(dict.fromkeys(state_dict)):
            if match := re.fullmatch(rf"((?:.*[./])?){layout.marks[kind]}", name):
                found[match[1]] = layout
    return found


def _part(state_dict: Mapping[str, np.ndarray], kind: str) -> tuple[Layout, dict[str, np.ndarray]]:
    """The layout and the own arrays of the network of some kind; warns of what is left out."""
    places = _places(state_dict, kind)
    if not places:
        other = DISCRIMINATOR if kind == GENERATOR else GENERATOR
        if not _places(state_dict, other):
            raise UserError(f"these weights hold no {kind} of StyleGAN2")
        if kind == DISCRIMINATOR:
            keys = "key='d' of rosinality's, 'D' of NVIDIA's"
        else:
            keys = "no key, or key='g_ema'"
        raise UserError(
            f"these weights are of a {other}, not of a {kind}; "
            f"take the {kind}'s in the file by {keys}"
        )
    shown = {prefix.rstrip("./"): prefix for prefix in places}
    name = choose.preferred(shown) if len(shown) > 1 else next(iter(shown))
    if name is None:
        raise choose.several(list(shown))
    prefix = shown[name]
    arrays = places[prefix].prepare(state_dict)
    own = {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}
    left = [key for key in arrays if not key.startswith(prefix) and key != rosinality.MEAN_LATENT]
    if prefix and rosinality.MEAN_LATENT in arrays:
        own.setdefault(rosinality.MEAN_LATENT, arrays[rosinality.MEAN_LATENT])
    if left:
        warn(f"ignored weights that do not belong to a {kind}: {len(left)} others, {left[0]} first")
    return places[prefix], own


def _check_filters(arrays: Mapping[str, np.ndarray], gains: Mapping[str, float]) -> set[str]:
    """The names of the resampling filters that are there; raises UserError for another filter."""
    there = gains.keys() & arrays.keys()
    for name in sorted(there):
        if not np.array_equal(arrays[name], FILTER * np.float32(gains[name])):
            raise UserError(
                f"{name} is not a filter of (1, 3, 3, 1), the only one that is supported here"
            )
    return there


def _check(
    found: Mapping[str, np.ndarray], expected: Mapping[str, tuple], allowed: Any, kind: str
) -> None:
    """Raises a UserError of one line that names arrays that are missing,
    unexpected or of another shape.
    """
    report = compare.compare(found, expected, allowed)
    if not report:
        return
    shapes = [
        f"{name} is {list(shape)} and not {list(wanted)}"
        for name, shape, wanted in report.misshaped
    ]
    parts = [
        f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{' ...' if len(names) > _SHOWN else ''})"
        for what, names in (
            ("missing", report.missing),
            ("unexpected", report.unexpected),
            ("mis-shaped", shapes),
        )
        if names
    ]
    raise UserError(f"these weights are not those of a {kind} of StyleGAN2: {', '.join(parts)}")
