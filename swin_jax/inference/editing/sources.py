"""Sources of latents to edit: seeds, files, or pictures, whose latents an inverter has to find."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from swin_jax.core.errors import UnreadableError, UserError, warn
from swin_jax.core.ranges import Seed, checked
from swin_jax.data import folders
from swin_jax.data.image import alignment, picture
from swin_jax.pretrained.styleclip.statistics import read_latents

LATENTS = (".npz", ".npy", ".pt")
_SEEDS = re.compile(r"seeds:(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)")
_MOST = 100_000  # seeds of one command


class LoadedInverter(Protocol):
    """An inverter with its weights.

    Attributes:
        image_size: Side of the pictures that it takes, in pixels.
    """

    image_size: int

    def invert(self, images: np.ndarray) -> np.ndarray:
        """Pictures (B, size, size, 3) uint8 -> W+ (B, num_ws, w_dim)."""


class Inverter(Protocol):
    """A way from pictures to latents, the value under `invert` of an experiment."""

    def check(self) -> None:
        """Raises UserError, naming the flag, for a file that is missing; reads none."""

    def load(self, generator: Any, variables: dict) -> LoadedInverter:
        """Reads all weights, to find latents of this generator."""


@dataclasses.dataclass(frozen=True)
class Latents:
    """The latents to edit.

    Attributes:
        names: Name of each for its files: 'seed12', or the path below the folder without its
            suffix.
        ws: W+ (N, num_ws, w_dim) float32.
        pictures: The pictures that were inverted, uint8 (N, H, W, 3), or None.
    """

    names: tuple[str, ...]
    ws: np.ndarray
    pictures: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """The source of latents: seeds, or files of one of two kinds.

    Attributes:
        seeds: Seeds of latents that are drawn.
        latents: Files of latents.
        pictures: Picture files.
        root: Folder that names of files are relative to.
    """

    seeds: tuple[int, ...] = ()
    latents: tuple[pathlib.Path, ...] = ()
    pictures: tuple[pathlib.Path, ...] = ()
    root: pathlib.Path = pathlib.Path()


def find(text: str) -> Source:
    """The source that the flag --edit names: 'seeds:0-9,12', a file,
    or a folder of pictures or of latents.

    Raises:
        UserError: Nothing there to edit, or both pictures and latents.
    """
    if text.startswith("seeds:"):
        return Source(seeds=_seeds(text))
    path = pathlib.Path(text).expanduser()
    if path.is_file():
        kind = "latents" if path.suffix.lower() in LATENTS else "pictures"
        return Source(**{kind: (path,)}, root=path.parent)
    if not path.is_dir():
        raise UserError(
            f"--edit={text} is not a folder, a file or a list of seeds such as seeds:0-9"
        )
    pictures, latents = (_files(path, suffixes) for suffixes in (picture.suffixes(), LATENTS))
    if bool(pictures) == bool(latents):
        if pictures:
            found = "both pictures and latents: give a folder of either"
        else:
            found = "no pictures and no latents"
        raise UserError(f"--edit={text} holds {found} ({', '.join(LATENTS)})")
    return Source(latents=latents, pictures=pictures, root=path)


def _files(folder: pathlib.Path, suffixes: Sequence[str]) -> tuple[pathlib.Path, ...]:
    found = folders.files_under(str(folder), suffixes)
    return tuple(pathlib.Path(folder, name) for name in found.paths)


def _seeds(text: str) -> tuple[int, ...]:
    found = _SEEDS.fullmatch(text)
    if not found:
        raise UserError(f"--edit={text}: seeds are numbers and ranges, such as seeds:0-9,12")
    seeds: list[int] = []
    for part in found[1].split(","):
        first, _, last = part.partition("-")
        last = last or first
        if max(len(first), len(last)) > 10 or int(last) >= 2**32 or int(last) < int(first):
            raise UserError(f"--edit={text}: {part} is not a range of seeds below 2^32")
        if int(last) - int(first) + len(seeds) >= _MOST:
            raise UserError(f"--edit={text}: more than {_MOST} seeds; give fewer at a time")
        seeds += range(int(first), int(last) + 1)
    return tuple(seeds)


def read(
    source: Source,
    generator: Any,
    variables: dict,
    truncation: float,
    inverter: LoadedInverter | None,
) -> Latents:
    """The latents of a source.

    Args:
        source: The source that `find` gives.
        generator: A `models.stylegan2.Generator`.
        variables: Variables of the generator.
        truncation: Truncation of latents that are drawn.
        inverter: The inverter that finds the latents of pictures.

    Raises:
        UserError: A file of latents of another shape; a picture that is not an aligned square.
    """
    if source.seeds:
        names = tuple(f"seed{seed}" for seed in source.seeds)
        return Latents(names, draw(generator, variables, source.seeds, truncation))
    if source.latents:
        return _read_files(source, generator)
    return _invert(source, inverter)


@checked
def draw(generator: Any, variables: dict, seeds: Sequence[Seed], truncation: float) -> np.ndarray:
    """W+ (N, num_ws, w_dim) of seeds, as NVIDIA's scripts draw z:
    each from a RandomState of its own.
    """
    if generator.c_dim:
        raise UserError(
            "seeds are for generators without labels; this one is conditional: give latents instead"
        )
    z = np.concatenate([np.random.RandomState(seed).randn(1, generator.z_dim) for seed in seeds])
    map_latents = jax.jit(
        lambda z: generator.apply(variables, z, truncation=truncation, method="map")
    )
    return np.asarray(map_latents(z.astype(np.float32)))


def check_pictures(source: Source) -> None:
    """Raises UserError for the first picture that cannot be opened or is neither square nor
    has landmarks beside it.
    """
    for path in source.pictures:
        landmarks = path.with_suffix(".json")
        if landmarks.is_file():
            alignment.read_landmarks(landmarks)
        else:
            _check_square(path, _readable(path, picture.open_image, str(path)).size)


def picture_names(source: Source) -> tuple[str, ...]:
    """The names that the latents of pictures will have; () of another source."""
    return tuple(_name(source, path) for path in source.pictures)


def _read_files(source: Source, generator: Any) -> Latents:
    names, paths, found = [], [], []
    for path in source.latents:
        latents = read_latents(path, generator.num_ws, generator.w_dim)
        name = _name(source, path)
        names += [name] if len(latents) == 1 else [f"{name}_{i}" for i in range(len(latents))]
        paths += [path] * len(latents)
        found.append(latents)
    _check_unique(names, paths)
    return Latents(tuple(names), np.concatenate(found))


def _invert(source: Source, inverter: LoadedInverter) -> Latents:
    names = picture_names(source)
    _check_unique(names, source.pictures)
    pictures = np.stack([_face(path, inverter.image_size) for path in source.pictures])
    return Latents(names, inverter.invert(pictures), pictures)


def _name(source: Source, path: pathlib.Path) -> str:
    return path.relative_to(source.root).with_suffix("").as_posix()


def _check_unique(names: Sequence[str], paths: Sequence[pathlib.Path]) -> None:
    """Raises UserError for two files whose edits would be written into one."""
    first: dict[str, pathlib.Path] = {}
    for name, path in zip(names, paths, strict=True):
        if name in first:
            raise UserError(
                f"the edits of {first[name]} and of {path} would both be called {name}: "
                "rename one of them"
            )
        first[name] = path


def _face(path: pathlib.Path, size: int) -> np.ndarray:
    """A picture as an inverter takes it: cut out by the landmarks in the .json beside it,
    if there is one.
    """
    landmarks = path.with_suffix(".json")
    if landmarks.is_file():
        return np.asarray(_readable(path, alignment.align, str(path), str(landmarks), size))
    image = _readable(path, picture.decode, str(path), "display")
    _check_square(path, image.size)
    if image.width < size:
        warn(
            f"{path} is {image.width} x {image.height} and is enlarged: "
            f"faces are inverted at {size} x {size}"
        )
    return alignment.face_transform(size, "lanczos")({"image": image})["image"]


def _check_square(path: pathlib.Path, size: tuple[int, int]) -> None:
    if size[0] != size[1]:
        raise UserError(
            f"{path} is {size[0]} x {size[1]}: faces are aligned squares; put 5 or 68 landmarks "
            f"beside it as {path.with_suffix('.json').name} ([[x, y], ...]), or cut it out with "
            "data.image.alignment.align"
        )


def _readable(path: pathlib.Path, read: Callable, *arguments: Any) -> Any:
    """The result of a function that reads a picture;
    raises UserError, naming the file, where it cannot.
    """
    try:
        return read(*arguments)
    except UnreadableError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    except UserError as error:
        raise error.about(path) from error
