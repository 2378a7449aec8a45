"""The numbers of the 1,000 ImageNet classes among the 21,841 classes of the 22K checkpoints.

The official list is `data/map22kto1k.txt` of microsoft/Swin-Transformer. It can be given by path,
or derived from lists of synsets; either way it is compared with the official file's checksum.
"""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np

from swin_jax.core import text_files
from swin_jax.core.errors import UserError

# sha256 of the 1000 numbers joined by newlines, as the official file has them.
OFFICIAL_SHA256 = "4fff66d6f337db6dd0b41d1b6c863e617f9400d37892df630eecfcfa50131aab"

# "Teddy bear" is not among the 22K synsets; the official list has "teddy, chemise", an
# undergarment, in its place.
TEDDY_BEAR, CHEMISE = "n04399382", "n03013580"


def read_map(path) -> np.ndarray:
    """Reads a map file: line k is the 22K row of 1K class k. The order is kept;
    the official one is not ascending.

    Returns:
        (1000,) int64.

    Raises:
        UserError: Not 1000 different whole numbers from 0 to 21840.
    """
    try:
        lines = text_files.read(path).split()
    except UserError as error:
        raise UserError(f"{path}: cannot be read as a map of classes ({error})") from error
    if not all(line.isdecimal() for line in lines):
        raise UserError(f"{path}: a map of classes holds whole numbers only, one per line")
    return _validate(np.array(lines, np.int64), path)


def _validate(rows: np.ndarray, source) -> np.ndarray:
    if len(rows) != 1000 or len(set(rows.tolist())) != 1000 or rows.max() > 21840:
        raise UserError(
            f"{source}: a map of classes has 1000 different numbers up to 21840, "
            f"this has {len(rows)}"
        )
    return rows


def checksum(rows: np.ndarray) -> str:
    """The sha256 of a map, to compare with `OFFICIAL_SHA256`."""
    return hashlib.sha256("\n".join(map(str, rows.tolist())).encode()).hexdigest()


def derive_map(synsets_22k=None, synsets_1k=None) -> np.ndarray:
    """Derives the official map from two lists of synsets.

    Args:
        synsets_22k: Path of a list of 22K synsets, one per line, in the order of the full ImageNet
            release (timm's `imagenet21k_goog_synsets.txt`). None: the one of an installed timm,
            which is not imported.
        synsets_1k: Path of the 1000 synsets in the order of the classes (timm's
            `imagenet_synsets.txt`), or None.

    Returns:
        (1000,) int64, equal to the official file.

    Raises:
        UserError: timm is not installed, or the lists lead to another map.
    """
    folder = None if synsets_22k and synsets_1k else _timm_lists()
    lists = [
        synsets_22k or folder / "imagenet21k_goog_synsets.txt",
        synsets_1k or folder / "imagenet_synsets.txt",
    ]
    try:
        all_synsets, classes = (Path(path).read_text(encoding="utf-8").split() for path in lists)
    except OSError as error:
        raise UserError(
            f"{error.filename}: no such list of synsets; give a map file by path instead"
        ) from error
    row = {synset: i for i, synset in enumerate(all_synsets)}
    if TEDDY_BEAR not in row and CHEMISE in row:
        row[TEDDY_BEAR] = row[CHEMISE]
    lacking = [synset for synset in classes if synset not in row]
    if lacking:
        raise UserError(
            f"{lists[0]}: {len(lacking)} of the classes in {lists[1]} are not in it, "
            f"{lacking[0]} for one"
        )
    rows = _validate(np.array([row[synset] for synset in classes], np.int64), lists[0])
    if checksum(rows) != OFFICIAL_SHA256:
        raise UserError(
            f"{lists[0]} and {lists[1]} do not lead to the official map; "
            "use imagenet21k_goog_synsets.txt"
        )
    return rows


def find_map(path=None) -> np.ndarray:
    """The map from a file, or without one derived from an installed timm."""
    return derive_map() if path is None else read_map(path)


def _timm_lists() -> Path:
    """The folder of the lists in an installed timm."""
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the 22K to 1K map comes from timm's lists: "
            "pip install timm, or give map22kto1k.txt by path"
        )
    return Path(spec.submodule_search_locations[0]) / "data" / "_info"
