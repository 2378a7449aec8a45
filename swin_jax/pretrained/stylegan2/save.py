"""Files of StyleGAN2's weights that the PyTorch code of others reads:
tensors only, never a pickle of their classes.
"""

import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from swin_jax.core.errors import UserError
from swin_jax.pretrained.files import torch_zip
from swin_jax.pretrained.files.safetensors import write_safetensors
from swin_jax.pretrained.stylegan2 import convert, rosinality

_TORCH = (".pt", ".pth")


def save_rosinality(
    path: str | os.PathLike,
    generator: Mapping[str, Any],
    discriminator: Mapping[str, Any] | None = None,
) -> None:
    """Writes a checkpoint of rosinality/stylegan2-pytorch: {'g_ema', 'latent_avg', 'd'}, as
    StyleCLIP and e4e read it.

    Args:
        path: The file, .pt or .pth.
        generator: Variables of a `Generator`; without 'averages' there is no `latent_avg`.
        discriminator: Variables of a `Discriminator`, or None.

    Raises:
        UserError: Variables of another network, or of one that rosinality's code cannot hold;
            another kind of file.
    """
    _check_suffix(path, _TORCH)
    weights = convert.to_rosinality(generator)
    if "input.input" not in weights:
        raise UserError("these variables are of a discriminator; give those of a generator first")
    checkpoint = {"g_ema": weights}
    if rosinality.MEAN_LATENT in weights:
        checkpoint[rosinality.MEAN_LATENT] = weights.pop(rosinality.MEAN_LATENT)
    if discriminator is not None:
        checkpoint["d"] = convert.to_rosinality(discriminator)
    torch_zip.write(path, checkpoint)


def save_nvlabs_state_dict(path: str | os.PathLike, variables: Mapping[str, Any]) -> None:
    """Writes the state dict of a network of NVlabs/stylegan2-ada-pytorch,
    for its `load_state_dict`.

    Args:
        path: The file, .pt, .pth or .safetensors.
        variables: Variables of a `Generator` or a `Discriminator`.

    Raises:
        UserError: Variables of neither, or another kind of file.
    """
    _check_suffix(path, (*_TORCH, ".safetensors"))
    weights = convert.to_official(variables)
    if PurePath(path).suffix == ".safetensors":
        write_safetensors(path, weights)
    else:
        torch_zip.write(path, weights)


def _check_suffix(path: str | os.PathLike, known: tuple[str, ...]) -> None:
    if PurePath(path).suffix not in known:
        raise UserError(f"{path}: files of {', '.join(known)} are written")
