"""Addresses of StyleGAN2's published weights, and their licenses. None is downloaded."""

from pathlib import Path

from swin_jax.core.errors import UserError

LICENSE = "the NVIDIA Source Code License, for non-commercial use only"
FFHQ = "CC BY-NC-SA 4.0"
_TENSORFLOW = "https://github.com/NVlabs/stylegan2"
_ADA = "https://github.com/NVlabs/stylegan2-ada-pytorch"
# Where the names of files in NVIDIA's folders are others than ours.
_FILES = {
    "stylegan2-ffhq-512-config-f": "ffhq-res512-mirror-stylegan2-noaug",
    "stylegan2-ffhq-256-config-e": "ffhq-res256-mirror-paper256-noaug",
}


def license(words: str) -> str:
    """The line for the log, for weights that are called so."""
    pictures = (
        f"; FFHQ, whose pictures they were trained on, is {FFHQ}" if "ffhq" in words.lower() else ""
    )
    return (
        "weights that NVIDIA published, and those converted from them, "
        f"are under {LICENSE}{pictures}"
    )


def fetch(name: str) -> Path:
    """Raises UserError, which says where the file comes from;
    nothing is downloaded, for its license.
    """
    model = name.removesuffix("-discriminator")
    if "-ada-" in model:
        file, page = f"{model.removeprefix('stylegan2-ada-')}.pkl", _ADA
    elif model in _FILES:
        file, page = f"{_FILES[model]}.pkl", _ADA
    else:
        file, page = f"{model}.pkl", _TENSORFLOW
    raise UserError(
        f"the weights of {name} are not downloaded, for their license ({license(name)}): "
        f"get {file} from the page of {page}, or a .pt that rosinality's code made of "
        "it, and load(weights=FILE)"
    )
