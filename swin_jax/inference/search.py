"""The launcher's --index and --search: a folder of pictures found by texts and pictures,
with a run's checkpoint.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from swin_jax.core import storage
from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.core.output.text import counted, say, shown
from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.data.image.picture import decode
from swin_jax.evals import features
from swin_jax.inference import contact_sheet
from swin_jax.inference import image_index as indices
from swin_jax.inference.trained_run import (
    image_encoder,
    open_trained,
    pictures,
    preparation,
    trained,
)
from swin_jax.pretrained.preparation import check_pixels
from swin_jax.tasks.base import TrainState, check_frozen
from swin_jax.train.setup import Run, build_run

INDEX, SHEET = "index.npz", "search.png"
DRAWN = 200  # pictures on the sheet


def prepare_index(config, workdir: str, images: str) -> Callable[[], int]:
    """Sets up the index of every image below a folder;
    files that cannot be read are named and left out.

    Files that the workdir's index already has from the same weights, and that have not changed,
    are not read again. An index of another folder is kept as index.1.npz.

    Args:
        config: The experiment's config; its `predict` says how images are read.
        workdir: The workdir of a run; its newest checkpoint is used, the average if it keeps one.
            Without a checkpoint the weights of `init_from` are used.
        images: A folder, or one image.

    Returns:
        The function that writes index.npz into the workdir and returns the exit status, 0.

    Raises:
        UserError: No weights, no images, a task without image features.
    """
    folder = open_trained(config, workdir)
    run = build_run(config)
    check_frozen(run.task)
    _check_features(run)
    storage.check_target(folder / INDEX)
    data = pictures(config, images)
    return functools.partial(_index, config, run, data, folder)


def _index(config, run: Run, data: Any, folder: epath.Path) -> int:
    path, lead = folder / INDEX, jax.process_index() == 0
    with jax.set_mesh(run.placement.mesh):
        state, frozen, meta = trained(config, run, folder)
        found, unreadable = indices.build(
            data,
            image_encoder(run, state, frozen),
            f"{storage.absolute(folder)} step {meta.get('step', 0)}",
            _checksum(run, state),
            preparation(config).fingerprint(),
            previous=_previous(path),
            path=path if lead else None,
            progress=lead,
        )
    for line in unreadable if lead else ():
        say(f"left out, cannot be read: {line}")
    if lead:
        print(
            f"{counted(len(found), 'image')}: {path}; "
            'search them with --search="a text" or --search=PICTURE',
            flush=True,
        )
    return 0


@checked
def prepare_search(config, workdir: str, query: str, top: PositiveInt = 10) -> Callable[[], int]:
    """Sets up the search for the indexed images that are nearest to a text, or to an image file.

    Args:
        config: The experiment's config, as for `prepare_index`.
        workdir: A workdir with an index.
        query: A text, or the path of an image.
        top: Number of images to find.

    Returns:
        The function that prints cosines and paths, the nearest first, draws search.png into the
        workdir and returns the exit status, 0. It raises UserError for an index of other weights or
        of pictures that were prepared differently, and for a text if the model reads none.

    Raises:
        UserError: No weights, no index, a folder, no such image or one that cannot be read.
    """
    folder = open_trained(config, workdir)
    path = folder / INDEX
    storage.check_target(folder / SHEET)
    run = build_run(config)
    check_frozen(run.task)
    _check_features(run)
    if not path.is_file():
        raise UserError(f"there is no index {path}: make it with --index=FOLDER")
    picture, index = indices.picture_of(query), indices.load(path)
    return functools.partial(_search, config, run, folder, index, picture, query, top)


def _search(
    config,
    run: Run,
    folder: epath.Path,
    index: indices.Index,
    picture: str | None,
    query: str,
    top: int,
) -> int:
    path, lead = folder / INDEX, jax.process_index() == 0
    with jax.set_mesh(run.placement.mesh):
        state, frozen, _ = trained(config, run, folder)
        indices.check(index, _checksum(run, state))
        check_pixels(index.preparation, preparation(config), str(path))
        encode = _image_query if picture else _text_query
        hits = indices.search(index, encode(config, run, state, frozen, picture or query), top)
    if lead:
        if not index.complete:
            say("the index was interrupted and lacks images; --index=FOLDER resumes it")
        for name, cosine in hits:
            print(f"{cosine:+.4f}  {shown(name)}")
        cells = [
            (_thumbnail(name), f"{cosine:.3f}\n{contact_sheet.short(pathlib.Path(name).name)}")
            for name, cosine in hits[:DRAWN]
        ]
        cells = [(_thumbnail(picture), "looked for"), *cells] if picture else cells
        contact_sheet.draw(folder / SHEET, cells, title=contact_sheet.short(query, 80))
        limit = f" (the first {DRAWN})" if len(hits) > DRAWN else ""
        print(f"{len(hits)} of {counted(len(index), 'image')}: {folder / SHEET}{limit}", flush=True)
    return 0


def _check_features(run: Run) -> None:
    predicts = getattr(run.task, "predicts", None)
    if predicts != "features":
        raise UserError(
            "--index and --search need features of images and texts; this experiment's task "
            f"predicts {predicts}. A classifier names images with --predict=FOLDER"
        )


def _previous(path: epath.Path) -> indices.Index | None:
    """The existing index, to resume from; None if there is none or it cannot be read
    and will be replaced.
    """
    try:
        return indices.load(path) if path.is_file() else None
    except UserError as error:
        say(f"{error}; rebuilding it")
        return None


def _checksum(run: Run, state: TrainState) -> str:
    def whole(x):
        return x if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True)

    variables = jax.tree.map(whole, {"params": state.params, **state.mutable})
    return indices.model_checksum(getattr(run.task, "model", None), variables)


def _image_query(config, run: Run, state: TrainState, frozen: Any, query: str) -> np.ndarray:
    """Features of an image file: (E,)."""
    found, _ = indices.build(
        pictures(config, query), image_encoder(run, state, frozen), "", "", progress=False
    )
    return found.features[0]


def _text_query(config, run: Run, state: TrainState, frozen: Any, query: str) -> np.ndarray:
    """Features of a text: (E,)."""
    prepared = preparation(config)
    if prepared.context_length is None:
        raise UserError("this model has no text encoder; give --search=PICTURE")
    encode = features.text_encoder(run.task, run.placement)(state, frozen)
    ids, cut = prepared.tokenize_and_flag(query)
    if cut.any() and jax.process_index() == 0:
        say(f"the text is cut to {prepared.context_length} tokens")
    return features.encode_texts(encode, lambda texts: ids, [query], run.placement.round_up(1))[0]


def _thumbnail(path: str) -> np.ndarray | None:
    """A small version of an image, None where it cannot be read any more."""
    try:
        picture = decode(path, "display")
    except UnreadableError:
        return None
    picture.thumbnail((256, 256))
    return np.asarray(picture)
