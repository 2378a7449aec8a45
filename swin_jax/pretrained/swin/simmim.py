"""SimMIM: official state dicts <-> our parameters.

Official names and shapes are those of `SimMIM` of models/simmim.py in microsoft/Swin-Transformer:
the encoder's under `encoder.`, its mask token too, and `decoder.0`, a 1x1 convolution. Only the
fields of a model are looked at.
"""

import functools
import math
from collections.abc import Callable, Mapping

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.ops import window_geometry
from swin_jax.pretrained import beside, compare, recognize
from swin_jax.pretrained.swin import convert as swin
from swin_jax.pretrained.swin import finetune, windows
from swin_jax.pretrained.swin import infer as swin_infer
from swin_jax.pretrained.swin.layouts import simmim_names

_TOKEN, _DECODER = "encoder.mask_token", "decoder.0."


def official_shapes(model) -> dict[str, tuple[int, ...]]:
    """{official name: official shape} of a SimMIM's parameters, in the official order.

    Args:
        model: A `models.simmim.SimMIM`.
    """
    encoder = model.encoder
    axes = window_geometry.num_axes(encoder)
    pixels = encoder.in_channels * math.prod(window_geometry.total_stride(encoder, axes))
    shapes = {_TOKEN: (1, 1, encoder.embed_dim)}
    shapes |= {f"encoder.{name}": shape for name, shape in swin.official_shapes(encoder).items()}
    shapes[_DECODER + "weight"] = (
        pixels,
        encoder.embed_dim * 2 ** (len(encoder.depths) - 1),
        *(1,) * axes,
    )
    return shapes | {_DECODER + "bias": (pixels,)}


def from_official(state_dict: Mapping[str, np.ndarray], model) -> dict:
    """Converts a pretrained SimMIM, decoder and mask token included; every key must fit.

    Args:
        state_dict: {name: array} as `pretrained.files.read` gives it, in official names, where the
            MLP of the continuous bias may be called `rpe_mlp` as in the published files, or in
            those of transformers. Buffers may be there and are dropped.
        model: A `models.simmim.SimMIM`.

    Returns:
        {'params': {'encoder', 'mask_token', 'decoder'}}, nested dicts of float32 numpy arrays.

    Raises:
        UserError: Lists every missing, unexpected and mis-shaped key.
    """
    found = compare.drop_buffers(simmim_names(state_dict))
    if other := recognize.recognize(found, window_geometry.num_axes(model.encoder)):
        raise UserError(other)
    if _TOKEN not in found and "layers.0.blocks.0.norm1.weight" in found:
        raise UserError(
            f"not a pretrained SimMIM but a Swin without decoder and {_TOKEN}: fill a Swin with it"
        )
    inside = {name.removeprefix("encoder."): value for name, value in found.items()}
    swin.check_sizes(inside, model.encoder)
    compare.check(found, official_shapes(model), _describe(model))
    own = (_TOKEN, _DECODER + "weight", _DECODER + "bias")
    encoder = {
        name.removeprefix("encoder."): value for name, value in found.items() if name not in own
    }
    token, kernel, bias = (np.asarray(found[name], np.float32) for name in own)
    kernel = np.ascontiguousarray(np.moveaxis(kernel, (1, 0), (-2, -1)))
    params = swin.from_official(encoder, model.encoder)["params"]
    return {
        "params": {
            "encoder": params,
            "mask_token": token,
            "decoder": {"kernel": kernel, "bias": bias},
        }
    }


def load_pretrained(source, model, resize: str | None = None, key: str | None = None) -> dict:
    """Reads a pretrained SimMIM.

    Args:
        source: A file of `pretrained.files.read`, or {'params': ...} of a SimMIM.
        model: The `models.simmim.SimMIM` to fill.
        resize: The method that resizes position tables of another window or image size, see
            `finetune.remap`.
        key: The weights to take from a file that holds several, see `pretrained.files.read`.

    Returns:
        {'params': nested dict of float32 numpy arrays}.

    Raises:
        UserError: An unreadable file, weights that do not fit,
            and no choice of resizing where one is needed.
    """
    whole: Mapping = {}
    if not isinstance(source, Mapping):
        whole = simmim_names(beside.read(beside.locate(source), key))
        found = compare.drop_buffers(whole)
    elif "encoder" in source["params"]:
        found = _names_of(source["params"])
    else:
        found = swin.to_state_dict(source)
    encoder = {
        name.removeprefix("encoder."): value
        for name, value in found.items()
        if name.startswith("encoder.")
    }
    if _TOKEN in found and not recognize.recognize(found, window_geometry.num_axes(model.encoder)):
        del encoder["mask_token"]
        inside = encoder | {
            n.removeprefix("encoder."): v for n, v in whole.items() if n.startswith("encoder.")
        }
        stages = len(model.encoder.depths)
        tables = windows.read_tables(inside, stages, finetune.fields_of(source, whole))
        resized = finetune.resize_tables(encoder, model.encoder, resize, tables)
        found = found | {f"encoder.{name}": value for name, value in resized.items()}
    return from_official(found, model)


def pretrained(resize: str | None = None) -> Callable:
    """`load_pretrained` for an experiment file."""
    return functools.partial(load_pretrained, resize=resize)


def to_official(variables: Mapping, model, buffers: bool = False) -> dict[str, np.ndarray]:
    """Converts the variables of a SimMIM to an official state dict; the inverse of `from_official`.

    Args:
        variables: {'params': nested dict of arrays}; gradients convert the same way.
        model: The `models.simmim.SimMIM` that they belong to.
        buffers: True to add the encoder's buffers.

    Returns:
        {official name: float32 numpy array in PyTorch's layout}, in the official order.

    Raises:
        UserError: The variables are not this model's.
    """
    params = variables["params"]
    missing = {"encoder", "mask_token", "decoder"} - params.keys()
    if missing:
        raise UserError(
            f"these variables are not of {_describe(model)}: {', '.join(sorted(missing))} missing"
        )
    state_dict = _with_decoder(
        params, swin.to_official({"params": params["encoder"]}, model.encoder, buffers)
    )
    compare.check(state_dict, official_shapes(model), _describe(model))
    return state_dict


def infer(
    state_dict: Mapping[str, np.ndarray],
    window_size: int | None = None,
    image_size: int | None = None,
) -> dict:
    """The arguments of the encoder, a `models.swin.Swin`, of a pretrained SimMIM;
    `pretrained.swin.convert.infer` explains them.

    Raises:
        UserError: No mask token or decoder: not a pretrained SimMIM.
    """
    names = simmim_names(state_dict)
    if _TOKEN not in names or _DECODER + "weight" not in names:
        raise UserError(f"not a pretrained SimMIM: it has no {_TOKEN} or no {_DECODER}weight")
    return swin_infer.infer(state_dict, window_size, image_size)


def _names_of(params: Mapping) -> dict[str, np.ndarray]:
    """The parameters of any SimMIM in official names."""
    return _with_decoder(params, swin.to_state_dict({"params": params["encoder"]}))


def _with_decoder(params: Mapping, encoder: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An official state dict, from the encoder's and our mask token and decoder."""
    kernel = np.asarray(params["decoder"]["kernel"], np.float32)
    state_dict = {_TOKEN: np.asarray(params["mask_token"], np.float32)}
    state_dict |= {f"encoder.{name}": value for name, value in encoder.items()}
    state_dict[_DECODER + "weight"] = np.ascontiguousarray(np.moveaxis(kernel, (-2, -1), (1, 0)))
    return state_dict | {_DECODER + "bias": np.asarray(params["decoder"]["bias"], np.float32)}


def _describe(model) -> str:
    encoder = model.encoder
    return (
        f"SimMIM(embed_dim={encoder.embed_dim}, depths={tuple(encoder.depths)}, "
        f"window_size={encoder.window_size}, image_size={encoder.image_size})"
    )
