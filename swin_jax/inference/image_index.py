"""An index of the pictures in a folder: their features, saved, loaded,
and searched by a text or by a picture.

    index = image_index.of_folder(model, variables, "photos", path="photos.npz")
    image_index.find(index, model, variables, "a red boat")

An index holds the checksum of the network that made it, and refuses to be searched with another.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from swin_jax.core import stacking, storage
from swin_jax.core.errors import UnreadableError, UserError, warn
from swin_jax.core.output.progress import Progress
from swin_jax.core.output.text import shown
from swin_jax.core.params import network_fields, weights_checksum
from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.data import sources, subsets, unreadable
from swin_jax.data.image.picture import decode, suffixes
from swin_jax.data.pipeline import EvalData
from swin_jax.evals import features
from swin_jax.inference import loaded_model, similarity
from swin_jax.inference.index_file import Index, load, save
from swin_jax.pretrained import preparation as preparing
from swin_jax.pretrained.preparation import Preparation

log = logging.getLogger(__name__)

# Batches of a data set -> (label (b,), features (b, E)) of its records in order, without padding.
Encode = Callable[[EvalData], Iterator[tuple[np.ndarray, np.ndarray]]]
_SUFFIXES = (*suffixes(), ".heic")  # of pictures, also of those that a folder leaves out
_UNREADABLE = (*unreadable.CAUSES, UserError)  # which a preparation raises for what it cannot take
_BLANK = np.zeros((64, 64, 3), np.uint8)


def model_checksum(model: Any, variables: dict) -> str:
    """The checksum of all that features of pictures depend on beside their preparation.

    Those are the weights, the same whether equal blocks are stored stacked or one by one, and what
    the image tower computes with them: its activation, for example.

    Args:
        model: The model, or None where it is not known.
        variables: Its variables.

    Returns:
        WEIGHTS-TOWER, a checksum of each. Older indices have only the first.
    """
    weights = weights_checksum({**variables, "params": stacking.unstack(variables["params"])})
    tower = json.dumps(network_fields(getattr(model, "visual", model)))
    return f"{weights}-{hashlib.sha256(tower.encode()).hexdigest()}"


@checked
def search(index: Index, query: np.ndarray, top: PositiveInt = 10) -> list[tuple[str, float]]:
    """The pictures nearest to features.

    Args:
        index: An index of `build`, `of_folder` or `load`.
        query: Features of the same model, (E,) floating point, of any length.
        top: Number of pictures to find; at most all.

    Returns:
        [(path of the picture, cosine), ...], the nearest first.

    Raises:
        UserError: Features of another width, `top` below 1 or no whole number.
    """
    query = features.normalize(query)
    if query.shape != index.features.shape[1:]:
        raise UserError(
            f"the query has features {query.shape}, the index {index.features.shape[1:]}"
        )
    cosines = index.features @ query
    if not index.normalized:
        lengths = np.sqrt(np.einsum("ne,ne->n", index.features, index.features))
        cosines /= np.where(lengths > 0, lengths, 1)
    order = np.argsort(-cosines, kind="stable")[:top]
    return [(os.path.join(index.root, index.names[i]), float(cosines[i])) for i in order]


def check(index: Index, checksum: str) -> None:
    """Raises UserError if an index was made with another network."""
    weights, _, tower = checksum.partition("-")
    made_with, _, made_by = index.checksum.partition("-")
    if made_with != weights:
        raise UserError(
            f"the index is of other weights ({index.model}, checksum {made_with[:12]}) "
            f"than the model ({weights[:12]}): features of different weights can't be "
            "compared; rebuild the index"
        )
    if not made_by and tower:
        warn(
            "the index does not tell with which activation it was made; rebuild it if the model's "
            "has changed since"
        )
    elif made_by != tower:
        raise UserError(
            f"the index is of the model's weights ({index.model}), but was made with another "
            "activation or other settings of the image tower: such features can't be compared; "
            "rebuild the index"
        )


def build(
    data: EvalData,
    encode: Encode,
    model: str,
    checksum: str,
    preparation: str = "",
    normalized: bool = True,
    previous: Index | None = None,
    path: str | os.PathLike | None = None,
    progress: bool = True,
) -> tuple[Index, list[str]]:
    """Makes an index. A batch of pictures is in memory at a time;
    the index itself takes 4 E bytes for each of them.

    Args:
        data: Pictures of a `sources.FileSource`.
        encode: An `Encode`; it gets data sets whose labels are to be handed back.
        model, checksum, preparation, normalized: Attributes of the index.
        previous: An earlier index; features of unchanged files are taken from it if it was made
            in the same way.
        path: File to save it to, when it is interrupted too:
            given as `previous`, it lets the next call resume. If `previous` has pictures that are
            there and not in the new index, its file is kept under another name.
        progress: True shows a bar.

    Returns:
        (index, [a line for each picture that cannot be read; these are left out]).

    Raises:
        UserError: None of the pictures can be read, or `path` cannot be written.
    """
    names, stamps = data.source.paths, _stamps(data.source)
    of = dict(
        root=os.path.abspath(data.source.root),
        model=model,
        checksum=checksum,
        preparation=preparation,
    )
    old = _reusable(previous, of, normalized, names, stamps)
    todo, known = np.flatnonzero(old < 0), old >= 0
    rows = np.zeros((len(names), previous.features.shape[1]), np.float32) if known.any() else None
    if rows is not None:
        rows[known] = previous.features[old[known]]
    unreadable, done = [], 0
    try:
        with Progress(
            total=len(names), unit="images", initial=len(names) - len(todo), show=progress
        ) as bar:
            for labels, found in encode(_marked(data, todo)) if len(todo) else ():
                rows = np.zeros((len(names), found.shape[1]), np.float32) if rows is None else rows
                where = todo[done : done + len(labels)]
                rows[where], known[where] = found, labels >= 0
                unreadable += [_problem(data, i) for i in where[labels < 0]]
                done += len(labels)
                bar.update(len(labels))
    finally:
        kept = np.flatnonzero(known)
        index = None
        if len(kept):
            kept_names = tuple(names[i] for i in kept)
            complete = done == len(todo)
            rows = rows if len(kept) == len(rows) else rows[kept]
            about = dict(normalized=normalized, stamps=stamps[kept], complete=complete)
            index = Index(**of, names=kept_names, features=rows, **about)
        if index is not None and path is not None:
            if previous is not None and _has_others(previous, data.source):
                _keep(previous, path)
            save(index, path)
    if index is None:
        raise UserError(
            f"none of the {len(names)} images in {data.source.root} can be read: {unreadable[0]}"
        )
    return index, unreadable


def _stamps(source: sources.FileSource) -> np.ndarray:
    """Size and time of change of each file: (N, 2) int64."""
    stamps = np.full((len(source), 2), -1, np.int64)
    for i in range(len(source)):
        with contextlib.suppress(OSError):  # a dangling link; it will be named as unreadable
            found = os.stat(source.record_name(i))
            stamps[i] = found.st_size, storage.changed(found)
    return stamps


def _has_others(previous: Index, source: sources.FileSource) -> bool:
    """True if an index is of another folder, or has pictures that are there and not in `source`."""
    root, names = os.path.abspath(source.root), {*source.paths}
    others = (name for name in previous.names if name not in names)
    return previous.root != root or any(os.path.lexists(os.path.join(root, x)) for x in others)


def _keep(previous: Index, path: str | os.PathLike) -> None:
    """Gives the file of an index the first free name of NAME.1.npz, NAME.2.npz, ..."""
    path = storage.path(path)
    if not path.exists():
        return
    names = (path.with_name(f"{path.stem}.{i}{path.suffix}") for i in itertools.count(1))
    target = next(name for name in names if not name.exists())
    try:
        path.rename(target)
    except OSError as error:
        raise UserError(
            f"the index {path} cannot be kept as {target}: {storage.reason(error)}"
        ) from error
    warn(f"the index of {len(previous)} images in {previous.root} is kept as {target}")


def _reusable(
    previous: Index | None, of: dict, normalized: bool, names: tuple[str, ...], stamps: np.ndarray
) -> np.ndarray:
    """The row of each picture in an earlier index, or -1: (N,) int."""
    same = previous is not None and all(
        getattr(previous, key) == of[key] for key in ("root", "checksum")
    )
    same = same and preparing.same_pixels(previous.preparation, of["preparation"])
    if not same or previous.normalized != normalized:
        return np.full(len(names), -1)
    row = {name: i for i, name in enumerate(previous.names)}
    old = np.array([row.get(name, -1) for name in names])
    return np.where((previous.stamps[old] == stamps).all(axis=-1), old, -1)


@dataclasses.dataclass(frozen=True)
class _Marked:
    """Prepared pictures of a source, with the label 0,
    or -1 and a blank one for what cannot be read.
    """

    source: Any
    transform: Callable[[dict[str, Any]], dict[str, Any]]
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            return {"image": self.transform(self.source[index])["image"], "label": 0}
        except _UNREADABLE:
            return {"image": self.transform({"image": _BLANK, "label": 0})["image"], "label": -1}

    def record_name(self, index: int) -> str:
        return self.source.record_name(index)


def _marked(data: EvalData, todo: np.ndarray) -> EvalData:
    source = subsets.Selection(data.source, tuple(todo.tolist()))
    return dataclasses.replace(data, source=_Marked(source, data.transform), transform=dict)


def _problem(data: EvalData, i: int) -> str:
    """The name of a picture that cannot be read, and why."""
    try:
        data.transform(data.source[i])
        reason = "it could not be read before"
    except _UNREADABLE as error:
        reason = unreadable.describe(error)
    return f"{data.source.record_name(i)} ({reason})"


@checked
def of_folder(
    model: Any,
    variables: dict,
    folder: str | os.PathLike,
    path: str | os.PathLike | None = None,
    preprocess: Preparation | loaded_model.Preprocess | None = None,
    batch_size: PositiveInt = 64,
    progress: bool = True,
) -> Index:
    """Makes an index of all pictures below a folder;
    those that cannot be read are named in a warning and left out.

    Args:
        model, variables: A CLIP of `swin_jax.load`.
        folder: Folder of pictures, or one picture.
        path: File (.npz) to save it to. If it holds an index of the same weights, folder and
            preparation, only new and changed pictures are read; all are read where `preprocess` is
            a function, which may have changed. An index of another folder is kept as NAME.1.npz.
        preprocess: Preparation or function for the pictures;
            None takes the preparation that the model carries.
        batch_size: Number of pictures at a time.
        progress: True shows a bar.

    Returns:
        The index.

    Raises:
        UserError: No folder, no pictures, none that can be read, or a file at `path` that is not an
            index.
    """
    loaded_model.check_features(model, variables)
    prepare = loaded_model.preparation_of(model, preprocess)
    preparation = prepare.fingerprint() if isinstance(prepare, Preparation) else ""
    previous = load(path) if path is not None and storage.path(path).exists() else None
    conversion = prepare.conversion if isinstance(prepare, Preparation) else "display"
    source = sources.flat_folder(os.fspath(folder), conversion)
    data = EvalData(source, loaded_model.example_transform(prepare), batch_size)
    encode = functools.partial(loaded_model.image_batches, model, variables, prepare)
    checksum = model_checksum(model, variables)
    towers = f"CLIP of {type(model.visual).__name__} and {type(model.text).__name__}"
    found, unreadable = build(
        data, encode, towers, checksum, preparation, previous=previous, path=path, progress=progress
    )
    for line in unreadable:
        log.warning("left out, cannot be read: %s", shown(line))
    return found


def picture_of(query: str) -> str | None:
    """The picture that a query names.

    Args:
        query: A text, or the path of a picture; ~ is the home folder.

    Returns:
        The path, or None for a text.

    Raises:
        UserError: A folder, a path without a file, a file that is not a picture.
    """
    path = os.path.expanduser(query)
    as_word = "to search for the word, write it with a blank after it"
    if os.path.isdir(path):
        raise UserError(f"{query} is a folder; give a text or one picture ({as_word})")
    if not os.path.isfile(path):
        if path.lower().endswith(_SUFFIXES) or query.startswith(("~/", "/", "./", "../")):
            raise UserError(f"there is no picture {query}")
        return None
    try:
        decode(path)
    except UnreadableError as error:
        raise UserError(
            f"{query} is a file but not a picture that can be read; {as_word}"
        ) from error
    return path


@checked
def find(
    index: Index,
    model: Any,
    variables: dict,
    query: Any,
    top: PositiveInt = 10,
    preprocess: Preparation | loaded_model.Preprocess | None = None,
    tokenize: features.Tokenize | None = None,
) -> list[tuple[str, float]]:
    """The pictures nearest to a text or to a picture.

    Args:
        index: An index that was made with the same weights.
        model, variables: A CLIP of `swin_jax.load`.
        query: A text, or a picture: a path (also as str, if there is such a file),
            a PIL image or a uint8 array.
        top: Number of pictures to find; at most all.
        preprocess, tokenize: The same as in `similarity.probabilities`.

    Returns:
        [(path of the picture, cosine), ...], the nearest first. Every call computes the checksum of
        all weights; where that is too slow, `search` takes features.

    Raises:
        UserError: An index of other weights or of another preparation, an empty text, what is not
            a picture; see `picture_of`.
    """
    loaded_model.check_features(model, variables)
    picture = picture_of(query) if isinstance(query, str) else None
    check(index, model_checksum(model, variables))
    if isinstance(query, str) and picture is None:
        tokenize = similarity.tokenizer_of(preprocess, tokenize)
        return search(index, similarity.encode_texts(model, variables, query, tokenize)[0], top)
    prepare = loaded_model.preparation_of(model, preprocess)
    if index.preparation and isinstance(prepare, Preparation):
        preparing.check_pixels(index.preparation, prepare, "the index")
    picture = query if picture is None else picture
    found = similarity.encode_images(model, variables, picture, prepare)
    if len(found) != 1:
        raise UserError(f"give one picture to look for, not {len(found)}")
    return search(index, found[0], top)
