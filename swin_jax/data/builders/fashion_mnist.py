"""Prepares Fashion-MNIST: 60,000 training and 10,000 test images of 10 kinds of clothes,
28 x 28 gray.

    python -m swin_jax.data.builders.fashion_mnist [--data_dir DIR] [--source FOLDER | --download]

FOLDER contains the four idx.gz files (31 MB); by default it is that of the Debian package
`dataset-fashion-mnist`. --download fetches the files from the authors' server and checks their
md5. The result takes 43 MB and ten seconds to build.

License: MIT (Zalando SE). Paper: Xiao et al. (arXiv 1708.07747).
"""

import argparse
import gzip
import hashlib
import io
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.data.builders import write

VERSION = "1.0.0"
DEBIAN_FOLDER = "/usr/share/datasets/fashion-mnist"
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
CLASS_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
MD5 = {  # of the files on the authors' server
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
_PREFIX = {"train": "train", "test": "t10k"}


def build(
    data_dir: str, source: str = DEBIAN_FOLDER, overwrite: bool = False, download: bool = False
) -> Path:
    """Writes the data set.

    Args:
        data_dir: Folder of data sets.
        source: Folder of the four files.
        overwrite: True to replace an existing data set.
        download: True to fetch the files into data_dir/downloads/fashion_mnist instead.

    Returns:
        The path of the data set. Raises UserError if a file is missing, damaged or cannot be
        fetched.
    """
    import tensorflow_datasets as tfds

    write.refuse_existing(Path(data_dir).expanduser() / "fashion_mnist" / VERSION, overwrite)
    folder = Path(source).expanduser()
    if download:
        folder = Path(data_dir).expanduser() / "downloads" / "fashion_mnist"
        fetch(folder)
    splits = {}
    for split, prefix in _PREFIX.items():
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", 3)
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 1)
        if len(images) != len(labels):
            raise UserError(f"{folder}: {len(images)} {split} images but {len(labels)} labels")
        splits[split] = write.Split(_examples(images, labels), len(images))
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
        "label": tfds.features.ClassLabel(names=list(CLASS_NAMES)),
    }
    description = "Fashion-MNIST: article images of Zalando."
    return write.write(
        data_dir,
        "fashion_mnist",
        VERSION,
        features,
        splits,
        overwrite,
        description=description,
        license="MIT",
    )


def fetch(folder: Path) -> None:
    """Downloads those of the four files that `folder` lacks;
    raises UserError if one is not the expected file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, md5 in MD5.items():
        path = folder / name
        if path.exists() and hashlib.md5(path.read_bytes()).hexdigest() == md5:
            continue
        print(f"fetching {URL}{name}")
        try:
            with urllib.request.urlopen(URL + name, timeout=60) as response:
                data = response.read()
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise UserError(
                f"cannot fetch {URL}{name} ({error}); put the file into a folder and use --source"
            ) from error
        if hashlib.md5(data).hexdigest() != md5:
            raise UserError(
                f"{URL}{name} is not the expected file (md5 "
                f"{hashlib.md5(data).hexdigest()}, not {md5})"
            )
        path.write_bytes(data)


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Reads a gzipped idx file of uint8 with `ndim` axes;
    raises UserError if it is missing or is not such a file.
    """
    if not path.is_file():
        raise UserError(
            f"there is no {path}: apt install dataset-fashion-mnist, or use --download, "
            "or --source FOLDER"
        )
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}); fetch it again") from error
    start = 4 + 4 * ndim
    # 0x800 + number of axes, then their lengths.
    header = np.frombuffer(data[:start] if len(data) >= start else b"", ">u4")
    if (
        not len(header)
        or header[0] != 0x800 + ndim
        or len(data) != start + np.prod(header[1:], dtype=int)
    ):
        raise UserError(f"{path} is not an idx file of uint8 with {ndim} axes")
    return np.frombuffer(data, np.uint8, offset=start).reshape(header[1:])


def _examples(images: np.ndarray, labels: np.ndarray) -> Iterator[dict[str, Any]]:
    from PIL import Image

    for image, label in zip(images, labels, strict=True):
        png = io.BytesIO()
        Image.fromarray(image).save(png, "png")
        yield {"image": png.getvalue(), "label": int(label)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source", default=DEBIAN_FOLDER, help="folder of the four files (default: %(default)s)"
    )
    parser.add_argument(
        "--download", action="store_true", help="fetch the files from the authors' server"
    )
    write.run(
        lambda flags: build(flags.data_dir, flags.source, flags.overwrite, flags.download), parser
    )


if __name__ == "__main__":
    main()
