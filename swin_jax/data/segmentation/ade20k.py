"""ADE20K as the scene parsing benchmark has it: 150 classes, SceneParse150.

The archive ADEChallengeData2016.zip holds images/{training,validation}/*.jpg,
annotations/{training,validation}/*.png, where 0 is everything else, and objectInfo150.txt, the
list of classes. The full ADE20K has other files, and more than 3,000 labels.
"""

import os
from collections.abc import Sequence

from swin_jax.core import text_files
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import checked
from swin_jax.data.image import picture
from swin_jax.data.segmentation import checking, palettes
from swin_jax.data.segmentation.folder import find_split, pair_files
from swin_jax.data.segmentation.source import LabeledFiles

NUM_CLASSES = 150
FOLDER, NAMES = "ADEChallengeData2016", "objectInfo150.txt"
_COLORS = ("color", "rgb", "hex")  # columns that other editions of the list have


@checked
def ade20k(
    root: str | None,
    split: str,
    conversion: str = "reference",
    limits: picture.Limits | None = None,
    check: bool = True,
) -> LabeledFiles:
    """One split of ADE20K's scene parsing benchmark.

    Args:
        root: ADEChallengeData2016, or the folder that it lies in.
        split: 'train' (20,210 images) or 'val' (2,000).
        conversion, limits, check: The same as in `label_folder`.

    Returns:
        A source of `image` and of `label` uint8 (H, W), 0 to 149 and 255 for everything else, with
        a `palette`. The names of the classes are those of objectInfo150.txt, up to the first comma.

    Raises:
        UserError: No such folder or list, a list of other classes, the full ADE20K, and what
            `label_folder` refuses.
    """
    if not root:
        raise UserError("ADE20K needs its folder: give --config.data_dir=DIR")
    root = _inner(root)
    if os.path.isdir(os.path.join(root, "images", "ADE")):
        raise UserError(
            f"{root} is the full ADE20K, whose labels are coded otherwise: "
            f"the benchmark's archive is {FOLDER}.zip"
        )
    images, labels = find_split(root, split)
    _list_of_classes(root)
    names, colors = names_and_colors(root)
    palette = colors or palettes.distinct(NUM_CLASSES)
    source = LabeledFiles(
        root, *pair_files(root, images, labels), names, palette, True, conversion, limits
    )
    if check:
        checking.check(source, os.path.join(root, labels))
    return source


def names_and_colors(root: str) -> tuple[tuple[str, ...], tuple[palettes.Color, ...]]:
    """The names of the classes and their colors: those of palette.txt in the folder, or of a column
    'Color' in the list of classes.

    Args:
        root: The same as in `ade20k`; a folder that is not there has neither.

    Returns:
        (150 names; () without a list, 150 colors; () where no file has any). Raises UserError for
        a file of other colors, and as `read_classes`.
    """
    root = _inner(root)
    beside = palettes.of_folder(root, "", NUM_CLASSES)
    if _find_list(root) is None:
        return (), beside
    names, colors = read_classes(_list_of_classes(root))
    return names, beside or colors


def read_classes(file: str) -> tuple[tuple[str, ...], tuple[palettes.Color, ...]]:
    """Reads objectInfo150.txt, a table with the columns Idx and Name between tabs.

    Args:
        file: Path of the list.

    Returns:
        (the first name of each class, its colors from a column 'Color'; () without one).
        Raises UserError for anything but 150 classes, numbered from 1.
    """
    lines = [line.split("\t") for line in text_files.read(file).splitlines() if line.strip()]
    header = [name.strip().lower() for name in lines[0]] if lines else []
    rows = lines[1:]
    if "idx" not in header or "name" not in header:
        raise UserError(f"{file} is not ADE20K's list of classes: it has no columns Idx and Name")
    number, name = header.index("idx"), header.index("name")
    numbers = [row[number].strip() for row in rows if len(row) > max(number, name)]
    if numbers != [str(place) for place in range(1, NUM_CLASSES + 1)]:
        raise UserError(
            f"{file} should list the classes 1 to {NUM_CLASSES}, each in a row; "
            f"it has {len(rows)} rows"
        )
    names = tuple(row[name].split(",")[0].strip() for row in rows)
    return _told_apart(names, [row[name] for row in rows]), _colors(file, header, rows)


def _told_apart(names: Sequence[str], whole: Sequence[str]) -> tuple[str, ...]:
    """The first names; whole entries where two classes have the same."""
    return tuple(
        " ".join(entry.split()) if names.count(name) > 1 else name
        for name, entry in zip(names, whole)
    )


def _colors(
    file: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[palettes.Color, ...]:
    column = next((header.index(name) for name in _COLORS if name in header), None)
    if column is None:
        return ()
    return palettes.parse(file, [(n, row[column]) for n, row in enumerate(rows, 2)])


def _inner(root: str) -> str:
    """ADEChallengeData2016, which is the folder or lies in it."""
    root = os.path.expanduser(root)
    inner = os.path.join(root, FOLDER)
    return inner if os.path.isdir(inner) else root


def _find_list(root: str) -> str | None:
    """The path of objectInfo150.txt in the folder, or beside it; None where there is none."""
    places = [os.path.join(root, NAMES), os.path.join(os.path.dirname(root), NAMES)]
    return next((place for place in places if os.path.isfile(place)), None)


def _list_of_classes(root: str) -> str:
    """The path of objectInfo150.txt; raises UserError where there is none."""
    found = _find_list(root)
    if found is None:
        raise UserError(f"{root} has no {NAMES}, ADE20K's list of classes: it is in {FOLDER}.zip")
    return found
