"""Addresses of the published weights of UPerNet over Swins, under the names of
`models.segmentation.PRESETS`: the files of Swin-Transformer-Semantic-Segmentation and of MoBY.
"""

from pathlib import Path

from swin_jax.core.errors import UserError, nearest
from swin_jax.pretrained.files import download
from swin_jax.pretrained.swin.urls import RELEASES

LICENSES = {"upernet": "Apache-2.0, Microsoft", "moby": "MIT, Microsoft"}
_TAGS = {"upernet": "v1.0.1", "moby": "v1.0.3"}

URLS = {
    name: f"{RELEASES}/{_TAGS[name.partition('_')[0]]}/{name}.pth"
    for name in (
        "upernet_swin_tiny_patch4_window7_512x512",
        "upernet_swin_small_patch4_window7_512x512",
        "upernet_swin_base_patch4_window7_512x512",
        "moby_upernet_swin_tiny_patch4_window7_512x512",
    )
}


def fetch(name: str) -> Path:
    """The path of published weights, downloaded into the cache of `pretrained.files.download`
    unless they are there.

    Args:
        name: A key of `URLS`.

    Raises:
        UserError: Weights that were never published, no network, a broken download.
    """
    if name not in URLS:
        raise UserError(
            f"weights of {name} were never published, only their accuracy; the nearest that were "
            f"are {nearest(name, URLS)!r}"
        )
    return download.fetch(URLS[name], license=license(name))


def license(name: str) -> str:
    """The terms of published weights."""
    return LICENSES[name.partition("_")[0]]
