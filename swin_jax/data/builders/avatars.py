"""Draws faces with known attributes: glasses, beard, hat, smile, surprised eyes, color of hair.

    pip install -e '.[avatars]'
    python -m swin_jax.data.builders.avatars [--data_dir DIR] [--size 32] [--num_train 20000]
        [--num_test 5000] [--seed 0]

Each face is drawn from the parts of the package python_avatars and cropped to the head, on one
color. The data set is called `avatars` at 32 pixels, otherwise `avatars_SIZE`. Building it takes
two minutes on two cores.

A face depends only on --seed, the split and its number (see `data.avatars.attributes.draw`), so it
is the same on every machine and for any number of faces and processes. The appearance of a face
decides on its split, so no appearance is in both. About 900 of the 25,000 images repeat another one
of their split. `samples.png` beside the data shows some faces.

These are drawings from a fixed library of parts, not photographs. python_avatars, by Ibon, is under
the MIT license; its parts are based on Avataaars by Pablo Stanley, free for personal and commercial
use.
"""

import argparse
import functools
import importlib.metadata
import io
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from swin_jax.core import termination
from swin_jax.core.errors import UserError, extra, install
from swin_jax.data.avatars import attributes as avatars
from swin_jax.data.builders import svg, write
from swin_jax.data.image import picture

VERSION = "1.0.0"
DEFAULT_SIZE = 32
PACKAGE = "python_avatars"
PACKAGE_VERSION = "1.4.1"
BACKGROUND = (184, 199, 211)  # a color of none of the parts
# Left, top and side of the square around the head, in units of the drawing.
HEAD = (46, 14, 172)
CREDIT = (
    "Drawn with python_avatars 1.4.1 (MIT, https://github.com/ibonn/python_avatars), "
    "whose parts are after Avataaars by Pablo Stanley (free for personal and commercial use)."
)
_HEADER = 'width="264px" height="280px" viewBox="0 0 264 280"'  # of the package's drawings
_CHUNK = 64  # faces that a process draws at once


def build(
    data_dir: str,
    size: int = DEFAULT_SIZE,
    num_train: int = 20000,
    num_test: int = 5000,
    seed: int = 0,
    overwrite: bool = False,
    workers: int | None = None,
) -> Path:
    """Writes the data set.

    Args:
        data_dir: Folder of data sets.
        size: Height and width in pixels.
        num_train: Number of training faces.
        num_test: Number of test faces.
        seed: Seed of the draws.
        overwrite: True to replace an existing data set.
        workers: Number of drawing processes; None is one per core, 1 draws in this process.

    Returns:
        The path of the data set.

    Raises:
        UserError: A number is out of range, or python_avatars 1.4.1 or resvg-py is not installed.
    """
    name = "avatars" if size == DEFAULT_SIZE else f"avatars_{size}"
    write.refuse_existing(Path(data_dir).expanduser() / name / VERSION, overwrite)
    if not 16 <= size <= 1024:
        raise UserError(f"--size must be 16 to 1024 pixels, not {size}")
    if min(num_train, num_test) < 1:
        raise UserError(
            f"--num_train and --num_test must be positive, not {num_train} and {num_test}"
        )
    check_package()
    counts = {"train": num_train, "test": num_test}
    splits = {
        split: write.Split(_examples(split, count, size, seed, workers), count)
        for split, count in counts.items()
    }
    about = (
        f"Faces of {size} x {size} pixels, seed {seed}, "
        f"with the attributes {', '.join(avatars.ATTRIBUTES)}."
    )
    samples = io.BytesIO()
    sheet(size, seed).save(samples, "PNG")
    path = write.write(
        data_dir,
        name,
        VERSION,
        _features(size),
        splits,
        overwrite,
        description=f"{about} {CREDIT}",
        files={
            "LICENSES.md": f"# Licenses\n\n{CREDIT}\n".encode(),
            "samples.png": samples.getvalue(),
        },
        license="MIT",
    )
    print(CREDIT)
    return path


def check_package() -> None:
    """Raises UserError if python_avatars 1.4.1 or resvg-py is not installed."""
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        version = None
    if version != PACKAGE_VERSION:
        found = f", not {version}" if version else ""
        raise UserError(
            f"avatars are drawn with {PACKAGE} {PACKAGE_VERSION}{found}: {install('avatars')}"
        )
    with extra("avatars", f"avatars are drawn with {PACKAGE}"):
        import python_avatars  # noqa: F401
    svg.check_renderer("avatars")


def render(face: Mapping[str, str], size: int) -> bytes:
    """Draws the head of a face.

    Args:
        face: An option of each of `attributes.CHOICES`.
        size: Height and width in pixels.

    Returns:
        A PNG file, RGB, size x size pixels.
    """
    from PIL import Image

    left, top, side = HEAD
    header = f'width="{side}px" height="{side}px" viewBox="{left} {top} {side} {side}"'
    drawing = _drawing(face)
    if drawing.count(_HEADER) != 1:
        raise UserError(
            f"the drawings of {PACKAGE} have another size than those of {PACKAGE_VERSION}"
        )
    encoded = svg.rasterize(drawing.replace(_HEADER, header), size, size, "an avatar")
    image = picture.open_image(encoded).convert("RGBA")
    background = Image.new("RGBA", image.size, BACKGROUND)
    png = io.BytesIO()
    Image.alpha_composite(background, image).convert("RGB").save(png, "png")
    return png.getvalue()


def sheet(size: int, seed: int, rows: int = 4, columns: int = 12) -> Any:
    """Draws the first training faces side by side in a PIL image, enlarged without smoothing to
    64 pixels or more.
    """
    from PIL import Image

    side = size * -(-64 // size)
    whole = Image.new("RGB", (columns * side, rows * side))
    for number in range(rows * columns):
        image = picture.open_image(render(avatars.draw(seed, "train", number), size))
        place = (number % columns * side, number // columns * side)
        whole.paste(image.resize((side, side), Image.Resampling.NEAREST), place)
    return whole


def _drawing(face: Mapping[str, str]) -> str:
    """The SVG file of a face, uncropped and on a transparent background."""
    import python_avatars as parts

    top = face["top"]
    hair = parts.HairColor[face["hair_color"]]
    avatar = parts.Avatar(
        style=parts.AvatarStyle.TRANSPARENT,
        top=parts.HatType[top] if top in avatars.HATS else parts.HairType[top],
        hair_color=hair,
        facial_hair_color=hair,
        hat_color=parts.ClothingColor[face["hat_color"]],
        skin_color=parts.SkinColor[face["skin_color"]],
        nose=parts.NoseType[face["nose"]],
        facial_hair=parts.FacialHairType[face["facial_hair"]],
        accessory=parts.AccessoryType[face["accessory"]],
        eyes=parts.EyeType[face["eyes"]],
        eyebrows=parts.EyebrowType[face["eyebrows"]],
        mouth=parts.MouthType[face["mouth"]],
        clothing=parts.ClothingType.SHIRT_CREW_NECK,
        clothing_color=parts.ClothingColor.HEATHER,
    )
    return avatar.render()


def _examples(
    split: str, count: int, size: int, seed: int, workers: int | None
) -> Iterator[dict[str, Any]]:
    example = functools.partial(_example, split=split, size=size, seed=seed)
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        yield from map(example, range(count))
        return
    with multiprocessing.get_context("spawn").Pool(workers, _set_up) as pool:
        yield from pool.imap(example, range(count), _CHUNK)


def _set_up() -> None:
    """Makes a drawing process ignore Ctrl-C and end together with the writing process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    termination.end_with_parent()


def _example(index: int, split: str, size: int, seed: int) -> dict[str, Any]:
    face = avatars.draw(seed, split, index)
    found = avatars.attributes(face)
    return {
        "image": render(face, size),
        "attributes": found,
        "visible": avatars.visible(found),
        **face,
    }


def _features(size: int) -> dict[str, Any]:
    import numpy as np
    import tensorflow_datasets as tfds

    shape = (len(avatars.ATTRIBUTES),)
    choices = {
        choice: tfds.features.ClassLabel(names=list(options))
        for choice, options in avatars.CHOICES.items()
    }
    return {
        "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
        "attributes": tfds.features.Tensor(shape=shape, dtype=np.int8),
        "visible": tfds.features.Tensor(shape=shape, dtype=np.bool_),
        **choices,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=DEFAULT_SIZE, help="height and width in pixels")
    parser.add_argument(
        "--num_train", type=int, default=20000, help="training faces (default: %(default)s)"
    )
    parser.add_argument(
        "--num_test", type=int, default=5000, help="test faces (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the draws (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, help="number of drawing processes (default: one per core)"
    )
    write.run(
        lambda f: build(
            f.data_dir, f.size, f.num_train, f.num_test, f.seed, f.overwrite, f.workers
        ),
        parser,
    )


if __name__ == "__main__":
    main()
