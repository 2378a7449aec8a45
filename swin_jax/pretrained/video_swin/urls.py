"""Addresses of the published weights of Video Swin, under the names of `models.video_swin.PRESETS`.

Microsoft's files (release v1.0.4 of SwinTransformer/storage), the Swin-L that mmaction2 trained (no
other was ever published), and torchvision's copies of the first four. The last parts of mmaction2's
and torchvision's file names begin the SHA-256 of the files, which `fetch` compares.
"""

import re
from pathlib import Path

from swin_jax.core.errors import UserError, nearest
from swin_jax.pretrained.files import download
from swin_jax.pretrained.swin.urls import RELEASES

_RELEASE = f"{RELEASES}/v1.0.4"
_TORCHVISION = "https://download.pytorch.org/models"
_MMACTION = "https://download.openmmlab.com/mmaction/v1.0/recognition/swin"

URLS = {
    f"swin_{name}": f"{_RELEASE}/swin_{name}.pth"
    for name in (
        "tiny_patch244_window877_kinetics400_1k",
        "small_patch244_window877_kinetics400_1k",
        "base_patch244_window877_kinetics400_1k",
        "base_patch244_window877_kinetics400_22k",
        "base_patch244_window877_kinetics600_22k",
        "base_patch244_window1677_kinetics400_22k",
        "base_patch244_window1677_sthv2",
    )
}


def _mmaction(name: str, digest: str) -> str:
    return f"{_MMACTION}/{name}/{name}_20220930-{digest}.pth"


URLS["swin_large_patch244_window877_kinetics400_22k"] = _mmaction(
    "swin-large-p244-w877_in22k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb", "78ad8b11"
)
URLS["swin_large_patch244_window877_kinetics700_22k"] = _mmaction(
    "swin-large-p244-w877_in22k-pre_16xb8-amp-32x2x1-30e_kinetics700-rgb", "f8d74db7"
)

TORCHVISION_URLS = {
    "swin3d_t": f"{_TORCHVISION}/swin3d_t-7615ae03.pth",
    "swin3d_s": f"{_TORCHVISION}/swin3d_s-da41c237.pth",
    "swin3d_b": f"{_TORCHVISION}/swin3d_b_1k-24f7c7c6.pth",
    "swin3d_b_1k": f"{_TORCHVISION}/swin3d_b_1k-24f7c7c6.pth",
    "swin3d_b_22k": f"{_TORCHVISION}/swin3d_b_22k-7c6ae6fa.pth",
}
_LICENSES = {
    _RELEASE: "Apache-2.0, Microsoft",
    _TORCHVISION: "BSD-3-Clause, PyTorch",
    _MMACTION: "Apache-2.0, OpenMMLab",
}


def fetch(name: str) -> Path:
    """The path of published weights, downloaded into the cache of `pretrained.files.download`
    unless they are there.

    Args:
        name: A key of `URLS` or `TORCHVISION_URLS`, or the name of one of Microsoft's files.

    Raises:
        UserError: An unknown name, no network, a broken download, a file with another checksum.
    """
    known = URLS | TORCHVISION_URLS
    url = known.get(name.removesuffix(".pth"))
    if url is None:
        raise UserError(
            f"there are no published weights of {name}; "
            f"the nearest name is {nearest(name, known)!r}"
        )
    path = download.fetch(url, license=license(url))
    digest = re.search(r"-([0-9a-f]{8})\.pth$", url)
    if digest and not download.sha256(path).startswith(digest[1]):
        raise UserError(
            f"{path} is not the published file: its SHA-256 does not begin "
            f"with {digest[1]}; delete it"
        )
    return path


def license(url: str) -> str:
    """The terms of a file, by the publisher in its URL."""
    return next(terms for base, terms in _LICENSES.items() if url.startswith(base))
