"""Writes docs/pretrained_table.md, all names that `swin_jax.load` takes: parameters, GFLOPs, input,
published accuracy, license.

    python experiments/benchmarks/pretrained_table.py

Parameters and GFLOPs are counted in the trace of each model, which allocates nothing. GFLOPs are
multiply-accumulates of one row, as the papers count them. Accuracies are the publishers'; each
table says whose.
"""

import argparse
import dataclasses
import functools
import pathlib
import textwrap
from collections.abc import Callable

import jax

from swin_jax.plan import flops
from swin_jax.pretrained.arcface import loader as arcface
from swin_jax.pretrained.clip import loader as clip
from swin_jax.pretrained.clip import urls as clip_urls
from swin_jax.pretrained.e4e import loader as e4e
from swin_jax.pretrained.family import Family
from swin_jax.pretrained.segmentation import loader as segmentation
from swin_jax.pretrained.segmentation import urls as segmentation_urls
from swin_jax.pretrained.styleclip import loader as styleclip
from swin_jax.pretrained.stylegan2 import loader as stylegan2
from swin_jax.pretrained.swin import loader as swin
from swin_jax.pretrained.swin import urls as swin_urls
from swin_jax.pretrained.video_swin import loader as video_swin
from swin_jax.pretrained.video_swin import urls as video_urls

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "pretrained_table.md"
OFFICIAL, BY_PATH, BY_HAND, NONE = "official", "by path", "by hand", "never released"

# README of microsoft/Swin-Transformer: top-1 / top-5 on ImageNet-1K, one crop.
SWIN = {
    "swin_tiny_patch4_window7_224": "81.2 / 95.5",
    "swin_tiny_c24_patch4_window8_256": "81.6 / 95.7",
    "swin_small_patch4_window7_224": "83.2 / 96.2",
    "swin_base_patch4_window7_224": "83.5 / 96.5",
    "swin_base_patch4_window12_384": "84.5 / 97.0",
    "swin_tiny_patch4_window7_224_22kto1k": "80.9 / 96.0",
    "swin_small_patch4_window7_224_22kto1k": "83.2 / 97.0",
    "swin_base_patch4_window7_224_22kto1k": "85.2 / 97.5",
    "swin_base_patch4_window12_384_22kto1k": "86.4 / 98.0",
    "swin_large_patch4_window7_224_22kto1k": "86.3 / 97.9",
    "swin_large_patch4_window12_384_22kto1k": "87.3 / 98.2",
    "swinv2_tiny_patch4_window8_256": "81.8 / 95.9",
    "swinv2_small_patch4_window8_256": "83.7 / 96.6",
    "swinv2_base_patch4_window8_256": "84.2 / 96.9",
    "swinv2_tiny_patch4_window16_256": "82.8 / 96.2",
    "swinv2_small_patch4_window16_256": "84.1 / 96.8",
    "swinv2_base_patch4_window16_256": "84.6 / 97.0",
    "swinv2_base_patch4_window12to16_192to256_22kto1k_ft": "86.2 / 97.9",
    "swinv2_base_patch4_window12to24_192to384_22kto1k_ft": "87.1 / 98.2",
    "swinv2_large_patch4_window12to16_192to256_22kto1k_ft": "86.9 / 98.0",
    "swinv2_large_patch4_window12to24_192to384_22kto1k_ft": "87.6 / 98.3",
    "swin_mlp_tiny_c24_patch4_window8_256": "79.4 / 94.6",
    "swin_mlp_tiny_c12_patch4_window8_256": "79.6 / 94.7",
    "swin_mlp_tiny_c6_patch4_window8_256": "79.7 / 94.9",
    "swin_mlp_base_patch4_window7_224": "81.3 / 95.3",
}
# README of microsoft/SimMIM, then arXiv 2206.04664: top-1 on ImageNet-1K after fine-tuning.
SIMMIM = {
    "simmim_finetune__swin_base__img192_window6__100ep": "82.8",
    "simmim_finetune__swin_base__img224_window7__100ep": "83.5",
    "simmim_finetune__swin_base__img224_window7__800ep": "84.0",
    "simmim_finetune__swin_large__img224_window14__800ep": "85.4",
}
UPDATES = ("125k", "250k", "500k")
SCALING = {
    "small": {
        "1kper10": (82.69, 83.11, 83.17),
        "1kper20": (83.05, 83.56, 83.75),
        "1kper50": (83.04, 83.67, 83.96),
        "1k": (82.92, 83.66, 84.08),
    },
    "base": {
        "1kper10": (83.33, 83.60, 83.41),
        "1kper20": (83.86, 84.37, 84.61),
        "1kper50": (84.04, 84.57, 84.95),
        "1k": (84.13, 84.65, 85.04),
        "22k": (84.11, 84.57, 85.11),
    },
    "large": {
        "1kper10": (83.69, 83.66, 83.50),
        "1kper20": (84.38, 84.71, 84.59),
        "1kper50": (84.78, 85.38, 85.80),
        "1k": (84.98, 85.45, 85.91),
        "22k": (84.61, 85.39, 85.81),
    },
    "huge": {
        "1kper20": (84.35, 84.16, 83.44),
        "1kper50": (85.09, 85.64, 85.69),
        "1k": (85.23, 85.90, 86.34),
        "22k": (85.14, 85.86, 86.27),
    },
    "giant": {
        "1kper50": (85.44, 85.76, 85.51),
        "1k": (85.57, 86.12, 86.46),
        "22k": (85.39, 85.96, 86.53),
    },
}
SIMMIM |= {
    f"simmim_finetune_swinv2_{variant}_{part}_{updates}": f"{accuracy:.2f}"
    for variant, parts in SCALING.items()
    for part, accuracies in parts.items()
    for updates, accuracy in zip(UPDATES, accuracies, strict=True)
}
# arXiv 2103.00020, table 11: zero-shot top-1 on ImageNet-1K.
CLIP = {
    "RN50": "59.6",
    "RN101": "62.2",
    "RN50x4": "65.8",
    "RN50x16": "70.5",
    "RN50x64": "73.6",
    "ViT-B/32": "63.2",
    "ViT-B/16": "68.6",
    "ViT-L/14": "75.3",
    "ViT-L/14@336px": "76.2",
}
# README of Video-Swin-Transformer, mmaction2 (large) and torchvision (swin3d_*, another test).
VIDEO = {
    "swin_tiny_patch244_window877_kinetics400_1k": "78.8 / 93.6",
    "swin_small_patch244_window877_kinetics400_1k": "80.6 / 94.5",
    "swin_base_patch244_window877_kinetics400_1k": "80.6 / 94.6",
    "swin_base_patch244_window877_kinetics400_22k": "82.7 / 95.5",
    "swin_base_patch244_window877_kinetics600_22k": "84.0 / 96.5",
    "swin_base_patch244_window1677_sthv2": "69.6 / 92.7",
    "swin_large_patch244_window877_kinetics400_22k": "83.46 / 95.91",
    "swin_large_patch244_window877_kinetics700_22k": "75.92 / 92.72",
    "swin_large_384_patch244_window81212_kinetics400_22k": "84.6 / 96.5",
    "swin_large_384_patch244_window81212_kinetics600_22k": "85.9 / 97.1",
    "swin3d_t": "77.715 / 93.519",
    "swin3d_s": "79.521 / 94.158",
    "swin3d_b": "79.427 / 94.386",
    "swin3d_b_1k": "79.427 / 94.386",
    "swin3d_b_22k": "81.643 / 95.574",
}
# README of Swin-Transformer-Semantic-Segmentation, and of microsoft/Swin-Transformer for those at
# 640 pixels: mean IoU on the validation set of ADE20K, one scale / six scales and mirrored.
SEGMENTATION = {
    "upernet_swin_tiny_patch4_window7_512x512": "44.51 / 45.81",
    "upernet_swin_small_patch4_window7_512x512": "47.64 / 49.47",
    "upernet_swin_base_patch4_window7_512x512": "48.13 / 49.72",
    "upernet_swin_base_patch4_window12_640x640_22k": "50.04 / 51.66",
    "upernet_swin_large_patch4_window12_640x640_22k": "52.05 / 53.53",
    "moby_upernet_swin_tiny_patch4_window7_512x512": "44.06 / 45.58",
}
NVIDIA = "NVIDIA Source Code License, non-commercial"
OF_FILE = "that of the file"

INTRO = """\
# All pretrained names

<!-- Written by experiments/benchmarks/pretrained_table.py; change it there. -->

Every name that `swin_jax.load` takes, as listed by `swin_jax.list_models()`. [Pretrained
weights](pretrained.md) explains how they are loaded.

- *Parameters* (in millions) and *GFLOPs* come from the code, by tracing each model without
  allocating it. GFLOPs are billions of multiply-accumulates for one row of the input, which is
  how the papers count them. They include the MLP of Swin V2's position bias, which the papers
  leave out.
- *Published* is an accuracy in percent from the publisher, not measured here. The text above each
  table says on what.
- *Weights*: `official` are downloaded by `weights="official"`; `by path` and `by hand` are files
  that you fetch yourself and give as `weights=FILE`; `never released` means that the name makes a
  model with random weights only.
"""


def swin_origin(name: str) -> tuple[str, str]:
    """The origin of a Swin's weights, and their license;
    the functions below give the same for other families.
    """
    if name not in swin_urls.WEIGHTS:
        return NONE, ""
    how = BY_HAND if swin_urls.WEIGHTS[name].page else OFFICIAL
    return how, swin_urls.LICENSE


def clip_origin(name: str) -> tuple[str, str]:
    return (OFFICIAL, clip_urls.LICENSE) if name in clip_urls.URLS else (BY_PATH, OF_FILE)


def video_origin(name: str) -> tuple[str, str]:
    url = (video_urls.URLS | video_urls.TORCHVISION_URLS).get(name)
    return (OFFICIAL, video_urls.license(url)) if url else (NONE, "")


def segmentation_origin(name: str) -> tuple[str, str]:
    if name not in segmentation_urls.URLS:
        return NONE, ""
    return OFFICIAL, segmentation_urls.license(name)


def file_origin(license: str) -> Callable[[str], tuple[str, str]]:
    """The origin of weights which are never downloaded."""
    return lambda name: (BY_PATH, license)


@dataclasses.dataclass(frozen=True)
class Section:
    """One table of the page.

    Attributes:
        title: Heading.
        text: Text above the table.
        family: The family of the names.
        origin: A name -> how its weights are had, and their license.
        prefix: Beginning of the names that belong to this table, among those of the family.
        accuracy: {name: published accuracy}.
    """

    title: str
    text: str
    family: Family
    origin: Callable[[str], tuple[str, str]]
    prefix: tuple[str, ...] = ("",)
    accuracy: dict[str, str] = dataclasses.field(default_factory=dict)


SECTIONS = (
    Section(
        "Swin, Swin V2 and Swin-MLP",
        "Published: top-1 / top-5 on ImageNet-1K, one crop (README of microsoft/Swin-Transformer). "
        "Names that end in `_22k` have 21,841 classes; nothing is published on those.",
        swin.FAMILY,
        swin_origin,
        ("swin_", "swinv2_"),
        SWIN,
    ),
    Section(
        "SimMIM",
        "Published: top-1 on ImageNet-1K after fine-tuning (README of microsoft/SimMIM, and arXiv "
        "2206.04664 for version 2). `simmim_pretrain...` are encoders without a head.",
        swin.FAMILY,
        swin_origin,
        ("simmim_",),
        SIMMIM,
    ),
    Section(
        "CLIP",
        "Published: zero-shot top-1 on ImageNet-1K (arXiv 2103.00020, table 11). GFLOPs are those "
        "of one image and one text. The names below ViT-L/14@336px are configurations of "
        "open_clip, for files of your own.",
        clip.FAMILY,
        clip_origin,
        accuracy=CLIP,
    ),
    Section(
        "Video Swin",
        "Published: top-1 / top-5 on the data set in the name, 4 x 3 views, or 1 x 3 for `sthv2` "
        "(README of Video-Swin-Transformer; arXiv 2106.13230 at 384 pixels; mmaction2 for `large` "
        "at 224). Those of `swin3d_*` are torchvision's, on Kinetics-400 with 12 clips and one "
        "crop.",
        video_swin.FAMILY,
        video_origin,
        accuracy=VIDEO,
    ),
    Section(
        "UPerNet",
        "Published: mean IoU on the validation set of ADE20K, at one scale / at six scales and "
        "mirrored (README of Swin-Transformer-Semantic-Segmentation). GFLOPs are those of one "
        "training crop with the auxiliary head; the published 945, 1038, 1188, 1841 and 3230 are "
        "those of pictures of 512 x 2048, or 640 x 2560, without it. The window of the two at 640 "
        "pixels was never published and is assumed.",
        segmentation.FAMILY,
        segmentation_origin,
        accuracy=SEGMENTATION,
    ),
    Section(
        "StyleGAN2 generators",
        "GFLOPs are those of one image from its latent.",
        stylegan2.FAMILY,
        file_origin(NVIDIA),
    ),
    Section(
        "StyleGAN2 discriminators",
        "They are in the same files as the generators.",
        stylegan2.DISCRIMINATOR_FAMILY,
        file_origin(NVIDIA),
    ),
    Section("ArcFace", "It embeds who a face is.", arcface.FAMILY, file_origin("not stated")),
    Section(
        "e4e",
        "Encoders that find the latent of a picture.",
        e4e.FAMILY,
        file_origin(f"MIT; the generator in the file: {NVIDIA}"),
    ),
    Section(
        "StyleCLIP's latent mapper",
        "One file for each text; the sizes are those of the published ones.",
        styleclip.FAMILY,
        file_origin(f"MIT; the generator in the file: {NVIDIA}"),
    ),
)


@dataclasses.dataclass(frozen=True)
class Facts:
    """The facts that the code gives of an architecture.

    Attributes:
        parameters: Number of parameters.
        macs: Multiply-accumulates of one row.
        inputs: {name: shape of one row}.
    """

    parameters: int
    macs: int
    inputs: dict[str, tuple[int, ...]]


def facts(family: Family, name: str) -> Facts:
    """The facts that the code gives of a name.

    Args:
        family: The family of the name.
        name: A name that `family.find` knows.
    """
    fields = family.preset(family.find(name))
    fields.pop("drop_path_rate", None)  # nothing that is counted depends on it
    if "scan" in family.fields:
        fields["scan"] = True  # equal blocks are traced once
    return _trace(family, tuple(sorted(fields.items())))


@functools.cache
def _trace(family: Family, fields: tuple[tuple, ...]) -> Facts:
    model = family.make(**dict(fields))
    inputs = family.inputs(model, None)
    key = jax.eval_shape(lambda: jax.random.key(0))
    traced, variables = jax.make_jaxpr(model.init, return_shape=True)(key, *inputs.values())
    return Facts(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(variables["params"])),
        macs=flops.count_jaxpr(traced) // 2,
        inputs={name: value.shape[1:] for name, value in inputs.items()},
    )


def names(section: Section) -> list[str]:
    """The names of a table, in the order of its family."""
    return [name for name in section.family.names() if name.startswith(section.prefix)]


def row(section: Section, name: str) -> str:
    """One line of a table."""
    counted = facts(section.family, name)
    shapes = [f"{key} {' x '.join(map(str, shape))}" for key, shape in counted.inputs.items()]
    cells = [
        f"`{name}`",
        f"{counted.parameters / 1e6:,.1f}",
        _gflops(counted.macs),
        ", ".join(shapes),
        section.accuracy.get(name, ""),
        *section.origin(name),
    ]
    return f"| {' | '.join(cells)} |"


def _gflops(macs: int) -> str:
    giga = macs / 1e9
    return f"{giga:,.1f}" if giga >= 0.1 else f"{giga:.3f}"


def page() -> str:
    """The whole page, Markdown."""
    columns = ("name", "parameters", "GFLOPs", "input", "published", "weights", "license")
    head = f"| {' | '.join(columns)} |\n|---|--:|--:|---|---|---|---|"
    parts = [INTRO]
    for section in SECTIONS:
        rows = "\n".join(row(section, name) for name in names(section))
        text = textwrap.fill(section.text, 98)
        parts.append(f"## {section.title}\n\n{text}\n\n{head}\n{rows}\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
