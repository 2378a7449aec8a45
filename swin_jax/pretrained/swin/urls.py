"""Addresses of the official weights of Swin, Swin V2, Swin-MLP and SimMIM.

Files of microsoft/Swin-Transformer and of the SimMIM papers (all MIT license, Microsoft), and the
same weights as timm keeps them on the Hugging Face hub.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swin_jax.core.errors import UserError, nearest
from swin_jax.core.storage import cache_folder
from swin_jax.pretrained.files import download
from swin_jax.pretrained.files.download import HUB

RELEASES = "https://github.com/SwinTransformer/storage/releases/download"
LICENSE = "MIT, Microsoft"


@dataclass(frozen=True)
class Weights:
    """One published file.

    Attributes:
        url: The official file.
        hub: The repository on the Hugging Face hub with the same weights in timm's layout, or None.
        page: The page that links a file which no program can fetch (Google Drive); its `url` is
            then a mere file name.
    """

    url: str
    hub: str | None = None
    page: str | None = None

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    @property
    def hub_url(self) -> str:
        return f"{HUB}/{self.hub}/resolve/main/model.safetensors"


def _swin_v1() -> dict[str, Weights]:
    """The files that README.md and MODELHUB.md of microsoft/Swin-Transformer list."""
    table = {}
    trained_on_1k = [("tiny", 7, 224), ("small", 7, 224), ("base", 7, 224), ("base", 12, 384)]
    trained_on_22k = [*trained_on_1k, ("large", 7, 224), ("large", 12, 384)]
    for variant, window, size in trained_on_22k:
        name = f"swin_{variant}_patch4_window{window}_{size}"
        if (variant, window, size) in trained_on_1k:
            table[name] = Weights(f"{RELEASES}/v1.0.0/{name}.pth", f"timm/{name}.ms_in1k")
        late = variant in ("tiny", "small")  # added a year later, under a longer file name
        tag, ending = ("v1.0.8", "_finetune") if late else ("v1.0.0", "")
        table[name + "_22k"] = Weights(f"{RELEASES}/{tag}/{name}_22k.pth", f"timm/{name}.ms_in22k")
        table[name + "_22kto1k"] = Weights(
            f"{RELEASES}/{tag}/{name}_22kto1k{ending}.pth", f"timm/{name}.ms_in22k_ft_in1k"
        )
    name = "swin_tiny_c24_patch4_window8_256"
    return table | {name: Weights(f"{RELEASES}/v1.0.5/{name}.pth")}


def _swin_v2() -> dict[str, Weights]:
    table = {}
    for variant in ("tiny", "small", "base"):
        for window in (8, 16):
            name = f"swinv2_{variant}_patch4_window{window}_256"
            table[name] = Weights(
                f"{RELEASES}/v2.0.0/{name}.pth", f"timm/swinv2_{variant}_window{window}_256.ms_in1k"
            )
    for variant in ("base", "large"):
        name, hub = f"swinv2_{variant}_patch4_window12", f"timm/swinv2_{variant}_window12"
        table[f"{name}_192_22k"] = Weights(
            f"{RELEASES}/v2.0.0/{name}_192_22k.pth", f"{hub}_192.ms_in22k"
        )
        for end in ("to16_192to256", "to24_192to384"):
            file = f"{name}{end}_22kto1k_ft"
            table[file] = Weights(f"{RELEASES}/v2.0.0/{file}.pth", f"{hub}{end}.ms_in22k_ft_in1k")
    return table


def _swin_mlp() -> dict[str, Weights]:
    sizes = ("tiny_c24_patch4_window8_256", "tiny_c12_patch4_window8_256")
    sizes += ("tiny_c6_patch4_window8_256", "base_patch4_window7_224")
    names = [f"swin_mlp_{size}" for size in sizes]
    return {name: Weights(f"{RELEASES}/v1.0.5/{name}.pth") for name in names}


def _simmim_v1() -> dict[str, Weights]:
    """The files that README.md of microsoft/SimMIM links to, by the names of their configs."""
    names = [
        "simmim_pretrain__swin_base__img192_window6__100ep",
        "simmim_finetune__swin_base__img192_window6__100ep",
        "simmim_finetune__swin_base__img224_window7__100ep",
        "simmim_pretrain__swin_base__img192_window6__800ep",
        "simmim_finetune__swin_base__img224_window7__800ep",
        "simmim_pretrain__swin_large__img192_window12__800ep",
        "simmim_finetune__swin_large__img224_window14__800ep",
    ]
    return {
        name: Weights(f"{name}.pth", page="https://github.com/microsoft/SimMIM") for name in names
    }


# Which parts of ImageNet-1K, or ImageNet-22K,
# each encoder of the data-scaling study (arXiv 2206.04664) saw.
_SCALING_DATA = {
    "small": ("1kper10", "1kper20", "1kper50", "1k"),
    "base": ("1kper10", "1kper20", "1kper50", "1k", "22k"),
    "large": ("1kper10", "1kper20", "1kper50", "1k", "22k"),
    "huge": ("1kper20", "1kper50", "1k", "22k"),
    "giant": ("1kper50", "1k", "22k"),
}


def _simmim_v2() -> dict[str, Weights]:
    """Swin V2 encoders of the data-scaling study, and the classifiers fine-tuned from them,
    by iterations.
    """
    table = {}
    for variant, parts in _SCALING_DATA.items():
        for part in parts:
            for iterations in ("125k", "250k", "500k"):
                file = f"swinv2_{variant}_{part}_{iterations}"
                folder = f"{HUB}/zdaxie/SimMIM/resolve/main/simmim_swinv2"
                table[f"simmim_pretrain_{file}"] = Weights(f"{folder}_pretrain_models/{file}.pth")
                table[f"simmim_finetune_{file}"] = Weights(
                    f"{folder}_finetune_models/finetune_{file}.pth"
                )
    return table


WEIGHTS: Mapping[str, Weights] = _swin_v1() | _swin_v2() | _swin_mlp() | _simmim_v1() | _simmim_v2()


def canonical_name(name: str) -> str | None:
    """The name in `WEIGHTS` of a name, an official file name, a timm name or a
    hub repository, or None.
    """
    for known, weights in WEIGHTS.items():
        hub = weights.hub or ""
        if name in {
            known,
            weights.file,
            weights.file.removesuffix(".pth"),
            hub,
            hub.removeprefix("timm/"),
        } - {""}:
            return known
    return None


def fetch(name_or_url: str, offline: bool | None = None, license: str = LICENSE) -> Path:
    """The path of a file of weights, downloaded into the cache unless it is there,
    see `download.fetch`.

    Args:
        name_or_url: A name in `WEIGHTS`, an official file name, a hub repository such as
            'timm/swin_tiny_patch4_window7_224.ms_in1k', or any URL.
        offline: True never to download; None asks the environment variable SWIN_JAX_OFFLINE.
        license: License to record beside the file.

    Raises:
        UserError: An unknown name, no network, a broken download, a cached file that has changed,
            or one that must be downloaded by hand.
    """
    url, path = locate(name_or_url)
    if "://" not in url and not path.exists():
        page = WEIGHTS[canonical_name(name_or_url)].page
        raise UserError(
            f"{name_or_url} is on Google Drive only, where programs cannot fetch it: "
            f"download it by hand from the link on {page} and put it at {path}"
        )
    return download.fetch(url, path, name_or_url, offline, license)


def locate(name_or_url: str) -> tuple[str, Path]:
    """(URL, path in the cache) of a file, whether or not it is there;
    `fetch` explains the argument.

    Of a file that must be downloaded by hand the URL is a mere file name.
    """
    if "://" in name_or_url:
        return name_or_url, download.cached_path(name_or_url)
    name = canonical_name(name_or_url)
    if name is None:
        close = nearest(name_or_url, WEIGHTS)
        raise UserError(
            f"no official weights are called {name_or_url!r}; the nearest name is {close!r}"
        )
    weights = WEIGHTS[name]
    if weights.hub and name_or_url.removeprefix("timm/") == weights.hub.removeprefix("timm/"):
        return weights.hub_url, cache_folder() / f"{weights.hub.removeprefix('timm/')}.safetensors"
    return weights.url, cache_folder() / weights.file
