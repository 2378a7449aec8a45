"""Composes scenes of emoji on photographs, with the class of each pixel and the mask and box of
each object.

    pip install -e '.[emoji]'
    python -m swin_jax.data.builders.emoji_scenes [--data_dir DIR] [--source FOLDER]
        [--num_train 4000] [--num_val 400] [--num_shift 400]

Six tarballs (9 MB) are fetched from the npm registry into DIR/downloads/emoji, which the emoji
builders share, checked and kept; --source reads them instead from a folder that `npm pack` filled.
The backgrounds are the two photographs that come with scikit-learn. Writing the default 4,800
scenes takes a minute and 180 MB.

DIR/emoji_scenes/1.0.0 then contains

    classes.txt                           13 names: background and 12 emoji
    images/{train,val,shift}/NNNNNN.png   scenes of 128 x 128 pixels
    labels/{train,val,shift}/NNNNNN.png   the class of each pixel, 0 to 12
    annotations/{train,val,shift}.json    objects in COCO's format: boxes, areas, masks as RLE
    LICENSES.md

train and val show drawings of the same five vendors on different halves of the photographs; shift
has val's halves with drawings of openmoji, a vendor with a style of its own. A scene depends only
on its split and number (see `data.emoji.scenes`), so a smaller set has the first scenes of a larger
one.

The drawings' licenses differ by vendor; they are printed and written beside the data. openmoji is
CC-BY-SA: images derived from it, such as the shift split, must be shared alike.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from swin_jax.core.errors import UserError
from swin_jax.data.builders import emoji, npm, write
from swin_jax.data.builders import svg as svg_files
from swin_jax.data.builders.unicode_emoji import Concept
from swin_jax.data.detection import rle
from swin_jax.data.emoji import scenes

PHOTOS = ("china.jpg", "flower.jpg")
# Older names that noto_v1 and emojione use for their icons.
_OTHER_NAMES = {"frog": "frog face", "pizza": "slice of pizza"}
_PHOTO_LICENSES = """* china.jpg: CC-BY-2.0. https://www.flickr.com/photos/danielbuechele/6061409035
* flower.jpg: CC-BY-2.0. https://www.flickr.com/photos/vultilion/6056698931
"""


def build(
    data_dir: str,
    source: str | None = None,
    counts: Mapping[str, int] | None = None,
    overwrite: bool = False,
    vendors: Mapping[str, emoji.Vendor] = emoji.VENDORS,
) -> Path:
    """Writes the data set.

    Args:
        data_dir: Folder of data sets.
        source: Folder of the tarballs; None fetches them into data_dir/downloads/emoji.
        counts: Number of scenes by split; None for those of `scenes.SPLITS`.
        overwrite: True to replace an existing data set.
        vendors: {name: vendor}, at least those of the splits.

    Returns:
        The path of the data set. Raises UserError if a tarball is missing, damaged, cannot be
        fetched or lacks an emoji, if a split would be empty, or if resvg-py is not installed.
    """
    root = Path(data_dir).expanduser()
    target = root / scenes.NAME / scenes.VERSION
    write.refuse_existing(target, overwrite)
    svg_files.check_renderer("emoji")
    splits = _splits(counts or {})
    used = {name: vendors[name] for split in splits.values() for name in split.vendors}
    sprites = _sprites(used, Path(source).expanduser() if source else None, root)
    photos = load_photos()
    licenses = license_text(used)
    with write.whole_folder(target, overwrite) as staging:
        for name, split in splits.items():
            drawn = {
                label: [sprites[vendor][label] for vendor in split.vendors]
                for label in range(1, len(scenes.CLASSES))
            }
            _write_split(staging, name, split, drawn, _halves(photos, split.right))
        (staging / "classes.txt").write_text("\n".join(scenes.CLASSES) + "\n")
        (staging / "LICENSES.md").write_text(licenses)
    print(licenses)
    return target


def load_photos() -> list[np.ndarray]:
    """Loads the photographs that come with scikit-learn, uint8 (427, 640, 3)."""
    from sklearn.datasets import load_sample_image

    return [load_sample_image(name) for name in PHOTOS]


def load_sprites(tarball: Path, name: str) -> dict[int, np.ndarray]:
    """Renders a vendor's drawings of all classes.

    Args:
        tarball: The vendor's package.
        name: The vendor's name, for the error.

    Returns:
        {label: uint8 (h, w, 4) with a longer side of about `scenes.SPRITE_SIDE`}. Raises UserError
        if one is missing.
    """
    names = [(code, name) for name, code in scenes.CODES.items()]
    names += [(scenes.CODES[name], other) for name, other in _OTHER_NAMES.items()]
    concepts = tuple(Concept(code, name, "", "", ()) for code, name in names)
    drawings = emoji.Drawings(tarball, concepts)
    missing = [name for name, code in scenes.CODES.items() if code not in drawings.codes]
    if missing:
        raise UserError(
            f"{tarball} ({name}) has no drawing of: {', '.join(missing)}; fetch the package again"
        )
    return {
        label: scenes.crop_sprite(np.asarray(drawings.draw(code, scenes.SPRITE_SIDE)))
        for label, code in enumerate(scenes.CODES.values(), 1)
    }


def license_text(vendors: Mapping[str, emoji.Vendor]) -> str:
    """The text of LICENSES.md."""
    drawings = emoji.license_lines(vendors)
    return (
        "# Licenses\n\nScenes composed of drawings by these vendors, scaled, turned and mirrored, "
        "on parts of two photographs. The split `shift` is derived from openmoji and stands under "
        f"CC-BY-SA-4.0.\n\n{drawings}{_PHOTO_LICENSES}"
    )


def coco_categories() -> list[dict[str, Any]]:
    """The classes of objects in COCO's format, with the labels as ids."""
    return [{"id": label, "name": name} for label, name in enumerate(scenes.CLASSES) if label]


def _splits(counts: Mapping[str, int]) -> dict[str, scenes.Split]:
    empty = [name for name, count in counts.items() if count < 1]
    if empty:
        raise UserError(f"--num_{empty[0]} must be positive, not {counts[empty[0]]}")
    return {
        name: dataclasses.replace(split, count=counts.get(name, split.count))
        for name, split in scenes.SPLITS.items()
    }


def _sprites(
    vendors: Mapping[str, emoji.Vendor], source: Path | None, root: Path
) -> dict[str, dict[int, np.ndarray]]:
    """The drawings of each vendor by label."""
    packages = [vendor.package for vendor in vendors.values()]
    folder = source or root / "downloads" / "emoji"
    if source is None:
        npm.fetch(packages, folder)
    tarballs = npm.find(packages, folder)
    return {
        name: load_sprites(tarballs[vendor.package.name], name) for name, vendor in vendors.items()
    }


def _halves(photos: list[np.ndarray], right: bool) -> list[np.ndarray]:
    middles = [photo.shape[1] // 2 for photo in photos]
    return [
        photo[:, middle:] if right else photo[:, :middle] for photo, middle in zip(photos, middles)
    ]


def _write_split(
    folder: Path,
    name: str,
    split: scenes.Split,
    sprites: Mapping[int, list[np.ndarray]],
    photos: list[np.ndarray],
) -> None:
    """Writes the pictures, labels and annotations of a split."""
    from PIL import Image

    for part in ("images", "labels"):
        (folder / part / name).mkdir(parents=True)
    images, annotations = [], []
    for index in tqdm.trange(split.count, desc=name, unit=" scenes", mininterval=1.0):
        scene = scenes.compose(sprites, photos, np.random.default_rng((split.seed, index)))
        file = f"{index:06d}.png"
        Image.fromarray(scene.image).save(folder / "images" / name / file)
        Image.fromarray(scene.label).save(folder / "labels" / name / file)
        size = {"width": scenes.SIDE, "height": scenes.SIDE}
        images.append({"id": index, "file_name": file, **size})
        for found in scene.objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": found.label,
                    "bbox": list(found.box),
                    "area": int(found.mask.sum()),
                    "segmentation": rle.encode(found.mask),
                    "iscrowd": 0,
                }
            )
    (folder / "annotations").mkdir(exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": coco_categories()}
    (folder / "annotations" / f"{name}.json").write_text(json.dumps(content))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source", help="folder of the tarballs (default: fetch them from the npm registry)"
    )
    for name, split in scenes.SPLITS.items():
        parser.add_argument(
            f"--num_{name}",
            type=int,
            default=split.count,
            help=f"scenes of the split {name} (default: %(default)s)",
        )
    write.run(
        lambda flags: build(
            flags.data_dir,
            flags.source,
            {name: getattr(flags, f"num_{name}") for name in scenes.SPLITS},
            flags.overwrite,
        ),
        parser,
    )


if __name__ == "__main__":
    main()
