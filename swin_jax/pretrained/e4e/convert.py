"""Converts official state dicts of e4e to our parameters.

Official names and shapes are those of omertov/encoder4editing; those of the trunk are ArcFace's,
see `pretrained.arcface.convert`. In the released files all names of the encoder start with
`encoder.`, those of a generator start with `decoder.`, and the mean latent, `latent_avg`, lies
beside the weights. Linear weights are transposed; the mean latent becomes 'averages'. The functions
read only the fields of a model, so this module imports no model.
"""

import os
from collections.abc import Callable, Mapping

import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.core.ranges import shown
from swin_jax.pretrained import compare, networks
from swin_jax.pretrained.arcface import convert as arcface
from swin_jax.pretrained.files import choose

AVERAGE = "latent_avg"
_OWN = r"(input_layer|body|latlayer[12]|styles)\."
_LAST = "latlayer1.weight"
_NEEDED = (_LAST, "styles.0.linear.weight")
_DECODER = "decoder."
LICENSE = (
    "the released e4e encoders are under the MIT license; that of faces was trained on FFHQ (CC "
    "BY-NC-SA 4.0), and the files hold generators under NVIDIA's non-commercial license"
)


def official_shapes(model) -> dict[str, tuple[int, ...]]:
    """{official name without 'encoder.': official shape} of a `models.e4e.E4E`,
    without the mean latent.
    """
    stem, body = arcface.trunk_shapes(model.blocks)
    fine, middle, coarse = (after for _, after, _ in model.blocks[-3:])
    shapes = stem | body
    for i, convs in enumerate(model.head_convs):
        for j in range(convs):
            name, before = f"styles.{i}.convs.{2 * j}", model.w_dim if j else coarse
            shapes |= {
                f"{name}.weight": (model.w_dim, before, 3, 3),
                f"{name}.bias": (model.w_dim,),
            }
        shapes[f"styles.{i}.linear.weight"] = (model.w_dim, model.w_dim)
        shapes[f"styles.{i}.linear.bias"] = (model.w_dim,)
    for name, before in (("latlayer1", middle), ("latlayer2", fine)):
        shapes |= {f"{name}.weight": (coarse, before, 1, 1), f"{name}.bias": (coarse,)}
    return shapes


def is_e4e(state_dict: Mapping[str, np.ndarray]) -> bool:
    """True if a state dict holds a whole e4e encoder, under any prefix."""
    return bool(networks.prefixes(state_dict, _NEEDED))


def own_part(state_dict: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of the encoder in a state dict, and the names of all others; see
    `networks.own_part`.
    """
    return networks.own_part(state_dict, _NEEDED, _OWN, "e4e encoder")


def _tell_what_is_left(names: list[str]) -> None:
    decoder = [name for name in names if name.startswith(_DECODER)]
    if decoder:
        warn(
            f"ignored the generator beside the encoder ({len(decoder)} arrays); "
            "key='decoder' loads it"
        )
    if others := [name for name in names if name != AVERAGE and not name.startswith(_DECODER)]:
        warn(f"ignored weights that do not belong to an e4e encoder: {choose.listed(others)}")


def infer(state_dict: Mapping[str, np.ndarray]) -> dict:
    """The `num_ws`, `image_size`, `blocks` and `w_dim` of the E4E that a state dict belongs to.

    Raises:
        UserError: The arrays have shapes that no E4E has.
    """
    state_dict, _ = own_part(state_dict)
    blocks = arcface.infer_blocks(state_dict)
    heads = [int(name.split(".")[1]) for name in state_dict if name.startswith("styles.")]
    convs = [
        name
        for name in state_dict
        if name.startswith("styles.0.convs.") and name.endswith(".weight")
    ]
    (w_dim,) = np.shape(state_dict["styles.0.linear.bias"])
    num_ws, size = compare.count_of(heads, "heads"), 2 ** (len(blocks) + len(convs))
    return dict(num_ws=num_ws, image_size=size, blocks=blocks, w_dim=w_dim)


def from_official(state_dict: Mapping[str, np.ndarray], model) -> dict:
    """Converts a state dict to the variables of an E4E; every key must fit.

    Args:
        state_dict: {name: array} as `pretrained.files.read` gives it, with or without
            `latent_avg`.
        model: A `models.e4e.E4E`.

    Returns:
        {'params': ..., 'batch_stats': ..., 'averages': {'latent_avg': (num_ws, w_dim)}}, nested
        dicts of float32 numpy arrays, as `model.init` makes them.

    Raises:
        UserError: Keys are missing, unexpected or of the wrong shape; one line names them all.
    """
    average = mean_latent(state_dict.get(AVERAGE), model)
    state_dict, left = own_part(state_dict)
    _tell_what_is_left(left)
    shapes = official_shapes(model)
    if report := compare.compare(state_dict, shapes):
        raise UserError(f"these weights are not for this e4e encoder: {report.line()}")
    return arcface.to_variables(state_dict, shapes) | {"averages": {AVERAGE: average}}


def mean_latent(average: np.ndarray | None, model) -> np.ndarray:
    """The mean latent, repeated to float32 (num_ws, w_dim); warns and returns zeros if a file has
    none.

    Args:
        average: (w_dim,), (num_ws, w_dim), the same with a first axis of 1, or None.
        model: A `models.e4e.E4E`.
    """
    wanted = (model.num_ws, model.w_dim)
    if average is None:
        warn(
            "these weights have no latent_avg, the mean latent to which the encoder adds its "
            "output, so zeros are used; put the generator's mean into "
            "variables['averages']['latent_avg']"
        )
        return np.zeros(wanted, np.float32)
    found = np.asarray(average, np.float32)
    found = found[0] if found.ndim > 1 and len(found) == 1 else found
    if found.shape not in (wanted, wanted[1:]):
        raise UserError(
            f"{AVERAGE} has the shape {shown(np.shape(average))}, but the encoder has "
            f"{model.num_ws} latents of {model.w_dim}: the shape must be {wanted[1:]} or {wanted}"
        )
    return np.array(np.broadcast_to(found, wanted))


def load_pretrained(source: str | os.PathLike | Mapping, model, key: str | None = None) -> dict:
    """The variables of an E4E from a file or from a run; see the same function in
    `pretrained.arcface.convert`.
    """

    def convert(arrays: Mapping[str, np.ndarray]) -> dict:
        _check_sizes(infer(arrays), model)
        return from_official(arrays, model)

    return networks.read(source, key, convert, LICENSE)


def _check_sizes(found: Mapping, model) -> None:
    """Raises UserError, with both values, if a file is for a model of another size."""
    for name, value in found.items():
        ours = getattr(model, name)
        if value != ours:
            raise UserError(
                f"these weights are for an e4e encoder with {name}={shown(value)}, "
                f"not {shown(ours)}"
            )


def pretrained() -> Callable:
    """`load_pretrained` as a function of (source, model), for an experiment file."""
    return load_pretrained
