"""The relevance of channels: what each does to CLIP's features,
measured in parts that a kill does not lose.
"""

import dataclasses
import functools
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.core.output.progress import Progress
from swin_jax.core.params import weights_checksum
from swin_jax.core.ranges import checked
from swin_jax.inference.editing import statistics as files
from swin_jax.inference.editing.batches import progress
from swin_jax.models.clip import CLIP
from swin_jax.models.styleclip.directions import mean_directions
from swin_jax.models.styleclip.relevance import Survey, channel_moves
from swin_jax.models.styleclip.statistics import Statistics, style_statistics
from swin_jax.models.stylegan2 import Generator
from swin_jax.train import checkpoint

PART = "fs3.part.npz"
_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclasses.dataclass(frozen=True)
class Models:
    """A generator and a CLIP with their variables."""

    generator: Generator
    variables: dict
    clip: CLIP
    clip_variables: dict


@dataclasses.dataclass(frozen=True)
class Piece:
    """Some channels of one layer, in one picture.

    Attributes:
        layer: Index in `style_layers()`.
        image: Number of the picture.
        first, count: Channels of the layer.
        row: Row of the first one among all that are not ToRGB's.
    """

    layer: int
    image: int
    first: int
    count: int
    row: int


def pieces(generator: Generator, images: int, channels: int) -> Iterator[Piece]:
    """All work in order: layer by layer, picture by picture, so many channels at a time."""
    row = 0
    for index, layer in enumerate(generator.style_layers()):
        if layer.is_rgb:
            continue
        for image in range(images):
            for first in range(0, layer.channels, channels):
                yield Piece(index, image, first, min(channels, layer.channels - first), row + first)
        row += layer.channels


class Measure:
    """Compiled functions that measure pieces, one program for each layer.

    Args:
        models: Generator and CLIP.
        statistics: Statistics of the generator.
        styles: (N, C) of all layers, of the pictures.
        survey: Settings.
    """

    def __init__(
        self, models: Models, statistics: Statistics, styles: Sequence[np.ndarray], survey: Survey
    ):
        self.channels = max(survey.batch_size // 2, 1)
        self._models, self._styles, self._survey = models, styles, survey
        self._means, self._deviations = statistics.means, statistics.deviations
        self._variables = jax.device_put(
            {"generator": models.variables, "clip": models.clip_variables}
        )
        self._started = None
        pixels = dict(mean=tuple(survey.mean), std=tuple(survey.std))
        self._moves = functools.lru_cache(maxsize=1)(lambda layer: self._compile(layer, pixels))

    def _compile(self, layer: int, pixels: dict) -> tuple[Callable, Callable]:
        generator, clip, change = self._models.generator, self._models.clip, self._survey.change

        @jax.jit
        def start(variables, styles):
            return generator.apply(variables, styles, layer, method="activations")

        @jax.jit
        def move(variables, begun, styles, mean, deviation, channels):
            changed = change.apply(styles[layer][0], mean, deviation, channels)
            return channel_moves(generator, clip, variables, begun, styles, changed, layer, pixels)

        return start, move

    def __call__(self, piece: Piece) -> jax.Array:
        """(channels, E) of the piece, which has `count` rows and then copies;
        returns before it is computed.
        """
        start, move = self._moves(piece.layer)
        if self._started is None or self._started[0] != (piece.layer, piece.image):
            styles = jax.device_put(self._one(piece))
            moments = jax.device_put((self._means[piece.layer], self._deviations[piece.layer]))
            self._started = (
                (piece.layer, piece.image),
                start(self._variables["generator"], styles),
                styles,
                *moments,
            )
        most = min(self.channels, len(self._means[piece.layer]))
        channels = np.minimum(piece.first + np.arange(most), piece.first + piece.count - 1)
        return move(self._variables, *self._started[1:], channels.astype(np.int32))

    def _one(self, piece: Piece) -> tuple[np.ndarray, ...]:
        """Styles (1, C) of a picture before its channels are moved."""
        styles = tuple(style[piece.image : piece.image + 1] for style in self._styles)
        layers = self._models.generator.style_layers()
        return self._survey.change.before(styles, self._means, layers, piece.layer)


def measure(
    models: Models,
    statistics: Statistics,
    survey: Survey,
    folder: Any,
    origin: dict[str, Any],
    show: bool = True,
) -> np.ndarray:
    """Measures the relevance of all channels that are in no ToRGB,
    or resumes where a call was killed.

    Sums are kept in float32 and in one order, so that a resumed call gives the same bits.

    Args:
        models: Generator and CLIP.
        statistics: Statistics of the generator.
        survey: Settings.
        folder: Folder in which the work done so far is saved, as fs3.part.npz.
        origin: Checksums of the weights, and settings; saved work of other ones is not resumed.
        show: Show a progress bar.

    Returns:
        (channels, E) float32, the rows of fs3.npy.
    """
    styles = survey.draws.styles(models.generator, models.variables, survey.images)
    run = Measure(models, statistics, styles, survey)
    work = list(pieces(models.generator, survey.images, run.channels))
    path, key = folder / PART, json.dumps(origin, sort_keys=True)
    done, sums = _read_part(path, key)
    pictures = [2 * piece.count for piece in work]
    saved, pending = time.monotonic(), None
    with Progress(
        total=sum(pictures),
        unit="pictures",
        name="relevance of channels",
        initial=sum(pictures[:done]),
        show=show,
    ) as bar:
        for number in range(done, len(work) + 1):
            found = run(work[number]) if number < len(work) else None
            if pending is not None:
                piece, rows = work[number - 1], np.asarray(pending, np.float32)
                if sums is None:
                    sums = np.zeros((_rows(models.generator), rows.shape[1]), np.float32)
                sums[piece.row : piece.row + piece.count] += rows[: piece.count]
                bar.update(2 * piece.count)
                if time.monotonic() - saved >= survey.save_seconds:
                    _write_part(path, key, number, sums)
                    saved = time.monotonic()
            pending = found
    return mean_directions(sums)


def _rows(generator: Generator) -> int:
    return sum(layer.channels for layer in generator.style_layers() if not layer.is_rgb)


def _read_part(path: Any, key: str) -> tuple[int, np.ndarray | None]:
    """(pieces that are done, their sums), of a call that was killed."""
    if not path.is_file():
        return 0, None
    try:
        with path.open("rb") as file, np.load(file) as stored:
            if str(stored["key"]) == key:
                return int(stored["done"]), stored["sums"]
    except _DAMAGE:
        pass
    return 0, None


def _write_part(path: Any, key: str, done: int, sums: np.ndarray) -> None:
    with storage.writing(path) as file:
        np.savez(file, key=np.array(key), done=done, sums=sums)


@checked
def compute(
    models: Models, folder: str, survey: Survey | None = None, show: bool = True
) -> tuple[Statistics, np.ndarray]:
    """Computes statistics and relevance into a folder, or reads what is there;
    a killed call is resumed.

    Args:
        models: Generator and CLIP.
        folder: Folder for S_mean_std, fs3.npy and statistics.json.
        survey: Settings; None for those of the released code.
        show: Show progress.

    Returns:
        (statistics, relevance (channels, E) float32).

    Raises:
        UserError: The folder has those of other weights or settings.
    """
    survey = survey or Survey()
    path = storage.path(folder)
    origin = _origin(models, survey)
    if files.is_complete(path):
        files.check_origin(path, origin)
        arguments = models.generator, models.variables, models.clip_variables
        return files.read_folder(folder, *arguments, clip=models.clip)
    path.mkdir(parents=True, exist_ok=True)
    bar = functools.partial(progress, name="statistics of styles", show=show)
    found = style_statistics(models.generator, models.variables, survey.draws, bar)
    rows = measure(models, found, survey, path, origin, show)
    _write(path, found, rows, models, survey)
    (path / PART).unlink(missing_ok=True)
    return found, rows


def take_run(task: Any, models: Models, workdir: Any, folder: str) -> None:
    """Writes what a run of the training loop has summed up as a folder of statistics,
    unless it is there.

    Args:
        task: The run's `tasks.style_relevance.StyleRelevance`.
        models: Generator and CLIP.
        workdir: Workdir of the run; nothing is done where it has no checkpoint.
        folder: Folder for S_mean_std, fs3.npy and statistics.json.

    Raises:
        UserError: A run that has not ended, or was made with other weights or settings.
    """
    path = storage.path(folder)
    if files.is_complete(path) or not checkpoint.exists(storage.path(workdir)):
        return
    params, _, meta = checkpoint.load_params(workdir)
    if meta["step"] < task.steps:
        raise UserError(
            f"the relevance in {workdir} is at step {meta['step']} of {task.steps}: "
            "give the same command without --edit to finish it, or another --workdir"
        )
    frozen = task.load_frozen()
    if weights_checksum(frozen) != meta.get("frozen", {}).get("sha256"):
        raise UserError(
            f"the relevance in {workdir} was measured with other weights "
            "or settings than those given"
        )
    path.mkdir(parents=True, exist_ok=True)
    found = Statistics(frozen["means"], frozen["deviations"])
    _write(path, found, mean_directions(params["sums"]), models, task.survey)


def _write(path: Any, found: Statistics, rows: np.ndarray, models: Models, survey: Survey) -> None:
    """Writes the files, and last the one that says that all is there."""
    files.write_moments(path, found)
    with storage.writing(path / files.DIRECTIONS) as file:
        np.save(file, rows)
    storage.write(path / files.ORIGIN, json.dumps(_origin(models, survey), indent=1))


def _origin(models: Models, survey: Survey) -> dict[str, Any]:
    networks = models.variables, models.clip_variables, models.clip
    return files.origin(*networks, settings=survey.settings())
