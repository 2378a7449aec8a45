"""Addresses of OpenAI's CLIP weights (MIT license): nine TorchScript archives, and open_clip's
copies of them on the hub.

The address of an archive contains its SHA-256 checksum, which `fetch` verifies.
"""

import re
from pathlib import Path

from swin_jax.core.errors import UserError
from swin_jax.pretrained.files import download

LICENSE = "MIT, OpenAI"
_BASE = "https://openaipublic.azureedge.net/clip/models"

_SHA256 = {
    "RN50": "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    "RN101": "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
    "RN50x4": "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
    "RN50x16": "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
    "RN50x64": "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
    "ViT-B/32": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    "ViT-B/16": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    "ViT-L/14": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    "ViT-L/14@336px": "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
}
URLS = {
    name: f"{_BASE}/{checksum}/{re.sub('[/@]', '-', name)}.pt" for name, checksum in _SHA256.items()
}
# Repositories that hold the same weights under the same names, in `open_clip_model.safetensors`.
HUB = {
    "RN50": "timm/resnet50_clip.openai",
    "RN101": "timm/resnet101_clip.openai",
    "RN50x4": "timm/resnet50x4_clip.openai",
    "RN50x16": "timm/resnet50x16_clip.openai",
    "RN50x64": "timm/resnet50x64_clip.openai",
    "ViT-B/32": "timm/vit_base_patch32_clip_224.openai",
    "ViT-B/16": "timm/vit_base_patch16_clip_224.openai",
    "ViT-L/14": "timm/vit_large_patch14_clip_224.openai",
    "ViT-L/14@336px": "timm/vit_large_patch14_clip_336.openai",
}
# The same weights as transformers writes them; `fetch` takes OpenAI's files instead.
TRANSFORMERS = {
    "openai/clip-vit-base-patch32": "ViT-B/32",
    "openai/clip-vit-base-patch16": "ViT-B/16",
    "openai/clip-vit-large-patch14": "ViT-L/14",
    "openai/clip-vit-large-patch14-336": "ViT-L/14@336px",
}


def fetch(name: str) -> Path:
    """The path of OpenAI's weights; downloads them into the cache of `pretrained.files.download`
    if they are not there.

    Args:
        name: A key of `URLS`, or a repository of `HUB`.

    Raises:
        UserError: The name is unknown, the download fails, or the checksum is wrong.
    """
    if name in HUB.values():
        return download.fetch(
            f"{download.HUB}/{name}/resolve/main/open_clip_model.safetensors", license=LICENSE
        )
    if name not in URLS:
        raise UserError(
            f"there are no official weights of {name}; OpenAI published {', '.join(URLS)}"
        )
    path = download.fetch(URLS[name], license=LICENSE)
    wanted = URLS[name].split("/")[-2]
    if download.sha256(path) != wanted:
        raise UserError(
            f"{path} is not OpenAI's file: its SHA-256 is not {wanted}; "
            "delete it to download it again"
        )
    return path
