"""Finds the activation that a CLIP was trained with, and the evidence for it.

The activation leaves no trace in the weights, and a model with the wrong one still works, a few
points worse. So each answer names its source, and counts as known only if that is certain: a
config beside the weights, the code in an archive, or published weights that are recognized by
their address or checksum. The name of a file is not evidence.
"""

import dataclasses
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.pretrained import beside
from swin_jax.pretrained.clip import config as clip_config
from swin_jax.pretrained.clip import layouts, urls
from swin_jax.pretrained.clip.infer import infer
from swin_jax.pretrained.files import download
from swin_jax.pretrained.files.read import is_torchscript

# (embedding, image size, patch size, width of the image tower, width of the text tower) of
# OpenAI's nine models.
_OPENAI = {
    (1024, 224, None, 64, 512),
    (512, 224, None, 64, 512),
    (640, 288, None, 80, 640),
    (768, 384, None, 96, 768),
    (1024, 448, None, 128, 1024),
    (512, 224, 32, 768, 512),
    (512, 224, 16, 768, 512),
    (768, 224, 14, 1024, 768),
    (768, 336, 14, 1024, 768),
}
_RELEASES = "https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights/"
_METACLIP = "https://dl.fbaipublicfiles.com/MMPT/"
# Weights that open_clip 3.3 lists for towers like these: repositories of the hub, files of its
# releases, and files below `_METACLIP`. One publisher may use both activations.
QUICK_GELU = frozenset(
    """
    apple/DFN2B-CLIP-ViT-B-16 apple/DFN2B-CLIP-ViT-L-14 apple/DFN5B-CLIP-ViT-H-14
    apple/DFN5B-CLIP-ViT-H-14-378 metaclip/G14_fullcc2.5b.pt metaclip/b16_400m.pt
    metaclip/b16_fullcc2.5b.pt metaclip/b32_400m.pt metaclip/b32_fullcc2.5b.pt
    metaclip/h14_fullcc2.5b.pt metaclip/l14_400m.pt metaclip/l14_fullcc2.5b.pt
    rn101-quickgelu-yfcc15m-3e04b30e.pt rn50-quickgelu-cc12m-f000538c.pt
    rn50-quickgelu-yfcc15m-455df137.pt vit_b_32-quickgelu-laion400m_e31-d867053b.pt
    vit_b_32-quickgelu-laion400m_e32-46683a32.pt timm/resnet101_clip.openai
    timm/resnet101_clip.yfcc15m timm/resnet50_clip.cc12m timm/resnet50_clip.openai
    timm/resnet50_clip.yfcc15m timm/resnet50x16_clip.openai timm/resnet50x4_clip.openai
    timm/resnet50x64_clip.openai timm/vit_base_patch16_clip_224.metaclip_2pt5b
    timm/vit_base_patch16_clip_224.metaclip_400m timm/vit_base_patch16_clip_224.openai
    timm/vit_base_patch32_clip_224.laion400m_e31 timm/vit_base_patch32_clip_224.laion400m_e32
    timm/vit_base_patch32_clip_224.metaclip_2pt5b timm/vit_base_patch32_clip_224.metaclip_400m
    timm/vit_base_patch32_clip_224.openai timm/vit_gigantic_patch14_clip_224.metaclip_2pt5b
    timm/vit_huge_patch14_clip_224.metaclip2_worldwide
    timm/vit_huge_patch14_clip_224.metaclip_2pt5b timm/vit_large_patch14_clip_224.metaclip_2pt5b
    timm/vit_large_patch14_clip_224.metaclip_400m timm/vit_large_patch14_clip_224.openai
    timm/vit_large_patch14_clip_336.openai
    """.split()
)
GELU = frozenset(
    """
    apple/DFN2B-CLIP-ViT-L-14-39B metaclip/h14_v1.2_altogether.pt
    vit_b_16-laion400m_e31-00efa78f.pt vit_b_16-laion400m_e32-55e67d44.pt
    vit_b_16_plus_240-laion400m_e31-8fb26589.pt vit_b_16_plus_240-laion400m_e32-699c4b84.pt
    vit_b_32-laion2b_e16-af8dbd0c.pth vit_l_14-laion400m_e31-69988bb6.pt
    vit_l_14-laion400m_e32-3d133497.pt laion/CLIP-ViT-B-16-CommonPool.L-s1B-b8K
    laion/CLIP-ViT-B-16-CommonPool.L.basic-s1B-b8K laion/CLIP-ViT-B-16-CommonPool.L.clip-s1B-b8K
    laion/CLIP-ViT-B-16-CommonPool.L.image-s1B-b8K laion/CLIP-ViT-B-16-CommonPool.L.laion-s1B-b8K
    laion/CLIP-ViT-B-16-CommonPool.L.text-s1B-b8K laion/CLIP-ViT-B-16-DataComp.L-s1B-b8K
    laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K laion/CLIP-ViT-B-16-laion2B-s34B-b88K
    laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K laion/CLIP-ViT-B-32-CommonPool.M-s128M-b4K
    laion/CLIP-ViT-B-32-CommonPool.M.basic-s128M-b4K
    laion/CLIP-ViT-B-32-CommonPool.M.clip-s128M-b4K
    laion/CLIP-ViT-B-32-CommonPool.M.image-s128M-b4K
    laion/CLIP-ViT-B-32-CommonPool.M.laion-s128M-b4K
    laion/CLIP-ViT-B-32-CommonPool.M.text-s128M-b4K laion/CLIP-ViT-B-32-CommonPool.S-s13M-b4K
    laion/CLIP-ViT-B-32-CommonPool.S.basic-s13M-b4K laion/CLIP-ViT-B-32-CommonPool.S.clip-s13M-b4K
    laion/CLIP-ViT-B-32-CommonPool.S.image-s13M-b4K
    laion/CLIP-ViT-B-32-CommonPool.S.laion-s13M-b4K laion/CLIP-ViT-B-32-CommonPool.S.text-s13M-b4K
    laion/CLIP-ViT-B-32-DataComp.M-s128M-b4K laion/CLIP-ViT-B-32-DataComp.S-s13M-b4K
    laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K laion/CLIP-ViT-B-32-laion2B-s34B-b79K
    laion/CLIP-ViT-H-14-laion2B-s32B-b79K laion/CLIP-ViT-L-14-CommonPool.XL-s13B-b90K
    laion/CLIP-ViT-L-14-CommonPool.XL.clip-s13B-b90K
    laion/CLIP-ViT-L-14-CommonPool.XL.laion-s13B-b90K laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K
    laion/CLIP-ViT-L-14-laion2B-s32B-b82K laion/CLIP-ViT-bigG-14-laion2B-39B-b160k
    laion/CLIP-ViT-g-14-laion2B-s12B-b42K laion/CLIP-ViT-g-14-laion2B-s34B-b88K
    timm/vit_base_patch16_clip_224.laion400m_e31 timm/vit_base_patch16_clip_224.laion400m_e32
    timm/vit_base_patch16_plus_clip_240.laion400m_e31 timm/vit_base_patch32_clip_224.laion2b_e16
    timm/vit_gigantic_patch14_clip_224.metaclip2_worldwide
    timm/vit_gigantic_patch14_clip_378.metaclip2_worldwide
    timm/vit_huge_patch14_clip_224.metaclip_altogether
    timm/vit_huge_patch14_clip_378.metaclip2_worldwide
    timm/vit_large_patch14_clip_224.laion400m_e31 timm/vit_large_patch14_clip_224.laion400m_e32
    """.split()
)
_CODE_BYTES = 1 << 24  # the most code of an archive that is searched


@dataclasses.dataclass(frozen=True)
class Activation:
    """The activation of a CLIP and the evidence for it.

    Attributes:
        act: The argument `act` of `models.clip.make_clip`.
        source: The evidence, for messages.
        known: False if the activation is only assumed.
    """

    act: str
    source: str
    known: bool = True


def activation(
    state_dict: Mapping[str, np.ndarray], names: Iterable[str] = (), path: Path | None = None
) -> Activation:
    """The activation that a CLIP was trained with.

    Without evidence, quick_gelu is assumed for the shapes of OpenAI's nine models,
    and gelu for others.

    Args:
        state_dict: State dict in any layout of `pretrained.clip.layouts`.
        names: The name that the user gave the model, in which '-quickgelu' counts as evidence,
            and the address of the weights.
        path: Path of the file.

    Raises:
        UserError: There is evidence for both activations, or a config has a field that is not
            supported.
    """
    config = None if path is None else beside.config_beside(path)
    sizes = infer(state_dict, 1, 1, clip_config.declared_image_size(config))
    found = [_of_config(sizes, config), _of_content(state_dict, sizes, path), *map(_of_name, names)]
    found = [evidence for evidence in found if evidence is not None]
    if len({evidence.act for evidence in found}) > 1:
        says = "; ".join(f"{evidence.act}: {evidence.source}" for evidence in found)
        raise UserError(
            f"the evidence for the activation of these weights is contradictory ({says}): give act="
        )
    if found:
        return found[0]
    shape = tuple(
        sizes[key]
        for key in ("embed_dim", "image_size", "patch_size", "vision_width", "text_width")
    )
    if shape in _OPENAI:
        return Activation("quick_gelu", "it has the shape of one of OpenAI's models", known=False)
    return Activation("gelu", "it does not have the shape of any of OpenAI's models", known=False)


def _of_config(sizes: Mapping, config: beside.Config | None) -> Activation | None:
    act = clip_config.arguments_of(config, sizes).get("act")
    return None if act is None else Activation(act, f"{config.path.name} beside the file")


def _of_name(name: str) -> Activation | None:
    """The activation that a model's name or the address of published weights implies, or None."""
    for act, known in (("quick_gelu", QUICK_GELU), ("gelu", GELU)):
        if _published(name) in known:
            return Activation(act, f"these are the published weights {_published(name)}")
    if name in urls.URLS.values():
        return Activation("quick_gelu", "these are OpenAI's own weights")
    if "://" not in name and re.search(r"quick_?gelu$", name.lower()):
        return Activation("quick_gelu", "the name says quickgelu")
    return None


def _published(address: str) -> str:
    """The repository of a file on the hub; for other addresses, their key in the tables above."""
    if match := re.match(rf"{re.escape(download.HUB)}/([^/]+/[^/]+)/resolve/main/", address):
        return match[1]
    return (
        address.removeprefix("hf-hub:").removeprefix(_RELEASES).removeprefix(_METACLIP).rstrip("/")
    )


def _of_content(
    state_dict: Mapping[str, np.ndarray], sizes: Mapping, path: Path | None
) -> Activation | None:
    """The activation that the bytes of a file imply, or None: by the code in an archive, or by the
    checksum of published weights.
    """
    if path is not None and is_torchscript(path):
        code = _code(path)
        is_quick, is_exact = bool(re.search(r"QuickGELU\b|\b1\.702", code)), "torch.gelu(" in code
        if is_quick != is_exact and 'approximate="tanh"' not in code:
            return Activation(
                "quick_gelu" if is_quick else "gelu", "the code in the archive computes it"
            )
        if is_quick or is_exact:
            return None
        if layouts.is_from_archive(state_dict, sizes):
            return Activation("quick_gelu", "the file is one of OpenAI's archives")
    if path is None:
        return None
    wanted = _checksums(path.name)
    if (
        wanted
        and (digest := download.sha256(path))
        and any(digest.startswith(start) for start in wanted)
    ):
        return Activation(_act_of_file(path.name), "its checksum is that of the published file")
    return None


def _code(path: Path) -> str:
    """The code in a TorchScript archive, up to `_CODE_BYTES` bytes."""
    text, left = [], _CODE_BYTES
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if "/code/" not in entry.filename or not entry.filename.endswith(".py"):
                continue
            with archive.open(entry) as file:
                data = file.read(left)
            left -= len(data)
            text.append(data.decode("utf-8", errors="replace"))
    return "\n".join(text)


def _checksums(file: str) -> list[str]:
    """The first digits of the SHA-256 of published weights with this file name,
    as their addresses give them.
    """
    openai = [url.split("/")[-2] for url in urls.URLS.values() if url.endswith(f"/{file}")]
    release = re.search(r"-([0-9a-f]{8})\.pth?$", file) if file in QUICK_GELU | GELU else None
    return openai + ([release[1]] if release else [])


def _act_of_file(file: str) -> str:
    return "gelu" if file in GELU else "quick_gelu"
