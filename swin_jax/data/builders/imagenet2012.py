"""Prepares ImageNet-1K (ILSVRC 2012): 1,281,167 training and 50,000 validation
images of 1,000 classes.

    python -m swin_jax.data.builders.imagenet2012 --data_dir DIR --source FOLDER

FOLDER contains the official files from https://image-net.org (an account is needed):
    ILSVRC2012_img_train.tar (138 GB), or a folder train/ of synsets (nXXXXXXXX/ or nXXXXXXXX.tar)
    ILSVRC2012_img_val.tar (6.3 GB), or a folder val/, sorted into synsets or flat
    ILSVRC2012_devkit_t12.tar.gz (2.5 MB), or unpacked: needed for the labels unless val/ is sorted
        into synsets
The result takes as much space as the two tars, as JPEG bytes are stored unchanged. Building it
takes about an hour on a local disk.

License: the ImageNet terms of access (non-commercial research and education only, no
redistribution). Labels number the synsets in sorted order, as is usual. Paper: Russakovsky et al.,
ILSVRC (arXiv 1409.0575).
"""

import argparse
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swin_jax.core.errors import UserError
from swin_jax.data.builders import synsets, write

VERSION = "1.0.0"
NUM_CLASSES = 1000
NUM_EXAMPLES = {"train": 1281167, "validation": 50000}
LICENSE = (
    "ImageNet terms of access (https://image-net.org/download): "
    "non-commercial research and education only"
)
_DEVKIT = "ILSVRC2012_devkit_t12"
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"


def build(data_dir: str, source: str, overwrite: bool = False) -> Path:
    """Writes the data set.

    Args:
        data_dir: Folder of data sets.
        source: Folder of the official files (see the module's docstring).
        overwrite: True to replace an existing data set.

    Returns:
        The path of the data set. Raises UserError if files are missing or contradict each other.
    """
    import tensorflow_datasets as tfds

    root = Path(source).expanduser()
    write.refuse_existing(Path(data_dir).expanduser() / "imagenet2012" / VERSION, overwrite)
    train = synsets.open_synsets(
        _find(root, "the training images", "ILSVRC2012_img_train.tar", "train")
    )
    validation = _validation(root, set(train))
    whole = len(train) == NUM_CLASSES
    expected = NUM_EXAMPLES if whole else {}
    if not whole:
        print(f"warning: {len(train)} synsets, the full set has {NUM_CLASSES}")
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=list(train)),
        "file_name": tfds.features.Text(),
    }
    splits = {
        "train": write.Split(labeled(train), expected.get("train")),
        "validation": write.Split(validation, expected.get("validation")),
    }
    description = "ImageNet-1K (ILSVRC 2012), images as distributed, labels in sorted synset order."
    return write.write(
        data_dir,
        "imagenet2012",
        VERSION,
        features,
        splits,
        overwrite,
        description=description,
        license=LICENSE,
    )


def labeled(files: dict[str, synsets.Files]) -> Iterator[dict[str, Any]]:
    """Yields one example for each file of each synset."""
    for synset, read in files.items():
        for name, data in read():
            yield {"image": data, "label": synset, "file_name": name}


def _validation(root: Path, known: set[str]) -> Iterator[dict[str, Any]]:
    """Yields examples of the validation split; reads the labels first, then image by image."""
    path = _find(root, "the validation images", "ILSVRC2012_img_val.tar", "val", "validation")
    if path.is_dir() and any(entry.is_dir() for entry in path.iterdir()):
        files = synsets.open_synsets(path)
        if unknown := set(files) - known:
            raise UserError(f"{path} holds synsets without training images, such as {min(unknown)}")
        return labeled(files)
    truth = _ground_truth(root)
    if unknown := set(truth) - known:
        raise UserError(
            f"{root} has no training images of {len(unknown)} validation synsets, "
            f"such as {min(unknown)}"
        )
    return _numbered(path, truth)


def _numbered(path: Path, truth: list[str]) -> Iterator[dict[str, Any]]:
    """Yields examples of ILSVRC2012_val_00000001.JPEG, ..., labeled by the number in the name."""
    for name, data in synsets.read_files(path):
        number = Path(name).stem.rpartition("_")[2]
        if not number.isdigit() or not 1 <= int(number) <= len(truth):
            raise UserError(f"{path}: {name} is not one of the {len(truth)} validation images")
        yield {"image": data, "label": truth[int(number) - 1], "file_name": name}


def _ground_truth(root: Path) -> list[str]:
    """The synset of each validation image, ordered by the images' numbers."""
    import scipy.io

    numbers = [int(line) for line in _devkit_file(root, _TRUTH).decode().split()]
    table = scipy.io.loadmat(io.BytesIO(_devkit_file(root, "meta.mat")), squeeze_me=True)["synsets"]
    synset = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in table}
    return [synset[number] for number in numbers]


def _devkit_file(root: Path, name: str) -> bytes:
    """Reads a file of the development kit, which may be unpacked or not."""
    for folder in (root, root / "data", root / _DEVKIT / "data"):
        if (folder / name).is_file():
            return (folder / name).read_bytes()
    archive = root / f"{_DEVKIT}.tar.gz"
    if archive.is_file():
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if Path(member.name).name == name:
                    return tar.extractfile(member).read()
    raise UserError(
        f"{root} lacks {archive.name}, which holds the validation labels ({name}); "
        "or sort val/ into synsets"
    )


def _find(root: Path, what: str, *names: str) -> Path:
    for name in names:
        if (root / name).exists():
            return root / name
    raise UserError(f"{root} lacks {what}: {' or '.join(names)}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", required=True, help="folder of the official files")
    write.run(lambda flags: build(flags.data_dir, flags.source, flags.overwrite), parser)


if __name__ == "__main__":
    main()
