"""Prepares the animated Fluent emoji of people, with one clip of each action, person and skin tone,
split by person.

    python -m swin_jax.data.builders.emoji_actions [--data_dir DIR]
        [--packages anim-3|anim-1,anim-2|all] [--source FOLDER] [--size 80]

The animations come in four npm packages (165, 182, 197 and 186 MB). A class is an action that a
man, a woman and a person each show in six skin tones; anim-3 alone has 16 complete classes (288
clips), all four packages have 60 (1,080 clips). Packages are fetched into DIR/downloads/emoji,
checked and kept; --source reads them instead from a folder that `npm pack` filled. The data set is
called emoji_actions/anim_3, emoji_actions/all, ..., followed by _SIZEpx for sizes other than 80
pixels; the splits are man, person and woman. All frames are scaled down and kept as PNG with
transparency. This takes about a second per clip; an interrupted run resumes with the next clip.

Both packages and animations (Microsoft Corporation) are under the MIT license.
"""

import argparse
import base64
import collections
import dataclasses
import hashlib
import io
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tqdm

from swin_jax.core.errors import UserError
from swin_jax.data.builders import npm, write
from swin_jax.data.builders.unicode_emoji import KEYWORDS, NAMES, SUBGROUPS, read_concepts
from swin_jax.data.image import picture

VERSION = "1.0.0"
DEFAULT_SIZE = 80
WHO = ("man", "person", "woman")
TONES = ("none", "light", "medium-light", "medium", "medium-dark", "dark")
_TONE_POINTS = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")
_GROUP = "People & Body"
_LICENSE = """# License

MIT. Fluent Emoji, animated, Copyright (c) Microsoft Corporation,
https://github.com/microsoft/fluentui-emoji-animated
(npm {packages}). Frames are scaled to {size} x {size} pixels; otherwise unchanged.
"""


@dataclasses.dataclass(frozen=True)
class Animations:
    """A package of assets/<code points>.webp.

    Attributes:
        package: The package that contains them.
        sha512: Checksum of the tarball in base64, from the registry; '' skips the check.
    """

    package: npm.Package
    sha512: str = ""


PACKAGES = {
    "anim-1": Animations(
        npm.Package("@lobehub/fluent-emoji-anim-1", "1.0.0"),
        "/4m31vAuZEQ4aUJ5pxcOU5PVkuJya55GRxUZL7+zgLlxZXpzzE8jPqpDyhZICE3n47nS/Y9M5/vLdizi8201QA==",
    ),
    "anim-2": Animations(
        npm.Package("@lobehub/fluent-emoji-anim-2", "1.0.0"),
        "S6yzf0RZXrQbXdxCWuHA9BAoLdBRk2flX+ne4TPGEH/qApwisCAKHoAAGjKSlTY3OVeZ9b7t/NEbmpjawnQYJA==",
    ),
    "anim-3": Animations(
        npm.Package("@lobehub/fluent-emoji-anim-3", "1.0.0"),
        "UzRSUDMjdfdt9vER5bhjHkPqgc3EEgfGtYs6ndvizOTvQOxYQ57ow2RTkWSDZxwW30X4EYBi2eWTS7CXDDoFsg==",
    ),
    "anim-4": Animations(
        npm.Package("@lobehub/fluent-emoji-anim-4", "1.0.0"),
        "IIkl5ztSd1HrzvIDt/uGsFoC1WODXRdYq5uROrnkyqi9DbToEcJ1nlY86PnoUXeFS9nBCnHfiYk3ouSEGThFmA==",
    ),
}
_EXPECTED_CLASSES = {("anim-3",): 16, tuple(PACKAGES): 60}


@dataclasses.dataclass(frozen=True)
class Clip:
    """One animation of a person; `file` is its path in the package."""

    code: str
    package: str
    file: str
    name: str
    who: str
    action: str
    tone: str
    subgroup: str


def build(
    data_dir: str,
    packages: Sequence[str] = ("anim-3",),
    source: str | None = None,
    size: int = DEFAULT_SIZE,
    overwrite: bool = False,
    available: Mapping[str, Animations] = PACKAGES,
    texts: tuple[npm.Package, npm.Package, npm.Package] = (NAMES, KEYWORDS, SUBGROUPS),
) -> Path:
    """Writes the data set.

    Args:
        data_dir: Folder of data sets.
        packages: Names of the packages to build from, among those of `available`.
        source: Folder of the tarballs; None fetches them into data_dir/downloads/emoji.
        size: Height and width of the frames in pixels.
        overwrite: True to replace an existing data set.
        available: Animations by name.
        texts: Packages of the emoji's names, keywords and subgroups.

    Returns:
        The path of the data set. Raises UserError if a package is unknown, missing, damaged or
        cannot be fetched, if the packages have no complete class, or if an animation cannot be
        read.
    """
    packages = _check(packages, available, size)
    config = _config(packages, available, size)
    root = Path(data_dir).expanduser()
    write.refuse_existing(root / "emoji_actions" / config / VERSION, overwrite)
    folder = Path(source).expanduser() if source else root / "downloads" / "emoji"
    wanted = (*texts, *(available[name].package for name in packages))
    if source is None:
        npm.fetch(wanted, folder)
    tarballs = npm.find(wanted, folder)
    for name in packages:
        _verify(tarballs[available[name].package.name], available[name].sha512)
    archives = {name: tarballs[available[name].package.name] for name in packages}
    clips, classes = whole_classes(
        find_clips(archives, *(tarballs[package.name] for package in texts))
    )
    cache = root / "emoji_actions" / f"{config}.frames"
    _decode(clips, archives, cache, size)
    expected = _EXPECTED_CLASSES.get(packages, len(classes)) * len(TONES)
    titles = ", ".join(_titles(packages, available))
    path = write.write(
        str(root / "emoji_actions"),
        config,
        VERSION,
        _features(classes, size),
        {
            who: write.Split(_examples([c for c in clips if c.who == who], cache), expected)
            for who in WHO
        },
        overwrite,
        description=(
            f"Animated emoji of people: {len(classes)} actions, "
            f"frames of {size} x {size} pixels RGBA."
        ),
        files={"LICENSES.md": _LICENSE.format(packages=titles, size=size).encode()},
        license="MIT, see LICENSES.md",
    )
    shutil.rmtree(cache)
    print(f"{len(clips)} clips of {len(classes)} actions: {', '.join(classes)}")
    return path


def find_clips(
    archives: Mapping[str, Path], names: Path, keywords: Path, subgroups: Path
) -> list[Clip]:
    """Finds the animations of people in action.

    Args:
        archives: Tarballs of animations, by the package's short name.
        names, keywords, subgroups: Tarballs of the emoji's texts.

    Returns:
        Clips in the order of the tarballs, without still images and other emoji.
    """
    concepts = {concept.code: concept for concept in read_concepts(names, keywords, subgroups)}
    clips = []
    for package, tarball in archives.items():
        for file, data in npm.read(tarball, (".webp",)):
            code, tones = _split_tones(Path(file).stem)
            concept = concepts.get(code)
            match = re.fullmatch(f"({'|'.join(WHO)})[: ]+(.*)", concept.name) if concept else None
            if not match or concept.group != _GROUP or len(tones) > 1 or not _is_animated(data):
                continue
            tone = TONES[1 + _TONE_POINTS.index(tones[0])] if tones else TONES[0]
            stem = Path(file).stem.lower()
            clips.append(
                Clip(stem, package, file, concept.name, match[1], match[2], tone, concept.subgroup)
            )
    return clips


def whole_classes(clips: Iterable[Clip]) -> tuple[list[Clip], list[str]]:
    """Keeps the clips of actions that every person shows in every skin tone.

    Args:
        clips: Clips of any actions; of those with the same action, person and tone the first
            counts.

    Returns:
        (the clips sorted by class, person and tone, names of the classes). Raises UserError if
        no action is complete.
    """
    found = collections.defaultdict(dict)
    for clip in clips:
        found[clip.action].setdefault((clip.who, TONES.index(clip.tone)), clip)
    classes = sorted(
        action for action, variants in found.items() if len(variants) == len(WHO) * len(TONES)
    )
    if not classes:
        raise UserError(
            "the packages hold no action that a man, a woman and a person "
            "show in all six skin tones"
        )
    return [found[action][key] for action in classes for key in sorted(found[action])], classes


def read_frames(data: bytes, size: int) -> list[bytes]:
    """Decodes an animation and scales its frames.

    Args:
        data: An animated WebP file.
        size: Height and width in pixels.

    Returns:
        PNG files of size x size pixels RGBA. Raises UnreadableError or an error of the codec
        if the data is damaged.
    """
    from PIL import Image

    frames, image = [], picture.open_image(data)
    for index in range(image.n_frames):
        image.seek(index)
        frame, png = image.convert("RGBA"), io.BytesIO()
        # Resizing RGBA weights colors by alpha.
        frame.resize((size, size), Image.Resampling.LANCZOS).save(png, "png")
        frames.append(png.getvalue())
    return frames


def _decode(clips: Iterable[Clip], archives: Mapping[str, Path], cache: Path, size: int) -> None:
    """Writes the frames of each clip to cache/<code>.zip, unless the file exists."""
    cache.mkdir(parents=True, exist_ok=True)
    wanted = {(clip.package, clip.file): clip for clip in clips}
    done = sum(_cached(cache, clip).exists() for clip in wanted.values())
    with tqdm.tqdm(
        desc="decode", total=len(wanted), initial=done, unit=" clips", mininterval=1.0
    ) as progress:
        for package, tarball in archives.items():
            for file, data in npm.read(tarball, (".webp",)):
                clip = wanted.get((package, file))
                if clip is None or _cached(cache, clip).exists():
                    continue
                try:
                    frames = read_frames(data, size)
                except (
                    Exception
                ) as error:  # codecs raise OSError, SyntaxError, struct.error, ...: no common class
                    raise UserError(
                        f"{file} in {tarball} cannot be read ({error}); fetch the package again"
                    ) from error
                part = _cached(cache, clip).with_suffix(".part")
                with zipfile.ZipFile(part, "w") as archive:
                    for number, frame in enumerate(frames):
                        archive.writestr(f"{number:04d}.png", frame)
                part.rename(_cached(cache, clip))
                progress.update()


def _cached(cache: Path, clip: Clip) -> Path:
    return cache / f"{clip.code}.zip"


def _examples(clips: Iterable[Clip], cache: Path) -> Iterator[dict[str, Any]]:
    for clip in clips:
        with zipfile.ZipFile(_cached(cache, clip)) as archive:
            frames = [archive.read(name) for name in sorted(archive.namelist())]
        yield {
            "video": frames,
            "num_frames": len(frames),
            "label": clip.action,
            "who": clip.who,
            "tone": clip.tone,
            "code": clip.code,
            "package": clip.package,
            "name": clip.name,
            "action": clip.action,
            "group": _GROUP,
            "subgroup": clip.subgroup,
        }


def _features(classes: list[str], size: int) -> dict[str, Any]:
    import numpy as np
    import tensorflow_datasets as tfds

    texts = ("code", "package", "name", "action", "group", "subgroup")
    return {
        "video": tfds.features.Sequence(
            tfds.features.Image(shape=(size, size, 4), encoding_format="png")
        ),
        "num_frames": tfds.features.Scalar(np.int32),
        "label": tfds.features.ClassLabel(names=classes),
        "who": tfds.features.ClassLabel(names=list(WHO)),
        "tone": tfds.features.ClassLabel(names=list(TONES)),
        **{key: tfds.features.Text() for key in texts},
    }


def _is_animated(data: bytes) -> bool:
    """True if a WebP file has the animation flag; faster than opening it."""
    return data[12:16] == b"VP8X" and len(data) > 20 and bool(data[20] & 2)


def _split_tones(stem: str) -> tuple[str, list[str]]:
    """Splits the code points in a file's name into (code without tones and fe0f, tones)."""
    points = [point for point in stem.lower().split("-") if point != "fe0f"]
    return "-".join(p for p in points if p not in _TONE_POINTS), [
        p for p in points if p in _TONE_POINTS
    ]


def _check(
    packages: Sequence[str], available: Mapping[str, Animations], size: int
) -> tuple[str, ...]:
    """The packages in the order of `available`; 'all' stands for all of them."""
    names = tuple(available) if tuple(packages) == ("all",) else packages
    unknown = [name for name in names if name not in available]
    if unknown or not names:
        raise UserError(
            f"--packages: {', '.join(unknown) or 'none'} is not one of "
            f"{', '.join(available)} or all"
        )
    if not 8 <= size <= 256:
        raise UserError(f"--size must be 8 to 256 pixels, not {size}")
    return tuple(name for name in available if name in names)


def _config(packages: tuple[str, ...], available: Mapping[str, Animations], size: int) -> str:
    if packages == tuple(available):
        name = "all"
    else:
        name = "_".join(("anim", *(p.split("-")[-1] for p in packages)))
    return name if size == DEFAULT_SIZE else f"{name}_{size}px"


def _titles(packages: Sequence[str], available: Mapping[str, Animations]) -> list[str]:
    return [
        f"{available[name].package.name} {available[name].package.version}" for name in packages
    ]


def _verify(tarball: Path, sha512: str) -> None:
    if (
        sha512
        and base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode() != sha512
    ):
        raise UserError(
            f"{tarball} is not the expected file (its sha512 differs); remove it and try again"
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--packages",
        default="anim-3",
        help="packages of animations, separated by commas, or all (default: %(default)s)",
    )
    parser.add_argument(
        "--source", help="folder of the tarballs (default: fetch them from the npm registry)"
    )
    parser.add_argument("--size", type=int, default=DEFAULT_SIZE, help="height and width in pixels")
    write.run(
        lambda f: build(f.data_dir, f.packages.split(","), f.source, f.size, f.overwrite), parser
    )


if __name__ == "__main__":
    main()
