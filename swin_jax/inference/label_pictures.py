"""Prediction of a folder of pictures with a segmenter: the label of each pixel as a picture, laid
over the original too, a legend of the colors, and each picture's shares of the classes.
"""

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.data.image.transforms import to_rgb
from swin_jax.data.pipeline import EvalData
from swin_jax.data.segmentation import label_files, palettes
from swin_jax.inference import contact_sheet
from swin_jax.inference.trained_run import examples, trained
from swin_jax.ops import label_maps
from swin_jax.train import sharding
from swin_jax.train.label_space import weights_classes
from swin_jax.train.setup import Run

FOLDERS, LEGEND, SHARES = ("labels", "overlays"), "legend.png", "shares.csv"
FILES = tuple(f"predictions/{name}" for name in (LEGEND, SHARES))
_HELD = 4  # batches of pictures that wait for others of their size
_SWATCH = 24  # pixels


def write_labels(config, run: Run, data: EvalData, folder: epath.Path) -> int:
    """Writes labels/, overlays/, legend.png and shares.csv into the folder `predictions` of a run.

    Args:
        config: The experiment's config.
        run: The built run, whose task predicts maps.
        data: The pictures.
        folder: The workdir.

    Returns:
        The number of pictures that could be read. Raises UserError where none could.
    """
    with jax.set_mesh(run.placement.mesh):
        state, frozen, _ = trained(config, run, folder)
        maps = run.task.predict
        shape = jax.eval_shape(maps, state, run.task.batch_shapes(1), frozen)["maps"].shape
        names = weights_classes(config, folder, shape[-1]).names
        names = names if len(names) == shape[-1] else tuple(map(str, range(shape[-1])))
        colors = class_colors(config, len(names))
        target, rows, used = folder / "predictions", [], set()
        for name, picture, labels in _labels(run, state, frozen, data):
            rows.append((name, np.bincount(labels.ravel(), minlength=len(names)) / labels.size))
            if jax.process_index() == 0:
                path = pathlib.PurePath(name).relative_to(data.source.root)
                _write(target, _free_name(path, used), picture, labels, colors)
    if not rows:
        raise UserError(f"none of the {data.num_examples} files can be read")
    if jax.process_index() == 0:
        means = np.mean([shares for _, shares in rows], axis=0)
        draw_legend(target / LEGEND, names, means, colors)
        csv.writer(text := io.StringIO(newline="")).writerows(
            [("image", *names), *((name, *(f"{x:.6f}" for x in shares)) for name, shares in rows)]
        )
        storage.write(target / SHARES, text.getvalue().encode("utf-8", "surrogateescape"))
        files = ", ".join([*(f"{name}/" for name in FOLDERS), LEGEND, SHARES])
        print(f"{len(rows)} images: {target} ({files})", flush=True)
    return len(rows)


def _labels(
    run: Run, state: Any, frozen: Any, data: EvalData
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, picture uint8 (H, W, 3), labels uint8 (H, W)) of all that can be read, grouped by the
    size that the network sees.
    """

    def maps(state, batch, frozen):
        return run.task.predict(state, batch, frozen)["maps"]

    predict = jax.jit(maps, out_shardings=sharding.replicated(run.placement.mesh))
    whole = run.placement.round_up(data.batch_size)
    waiting: dict[tuple[int, ...], list] = {}
    full = set()  # the sizes that have a program for whole batches

    def finish(size):
        part = waiting.pop(size)
        rows = whole if size in full else run.placement.round_up(len(part))
        own = [min(row, len(part) - 1) for row in run.placement.rows(rows)]
        batch = {"image": np.stack([part[row][2] for row in own])}
        found = predict(state, run.placement.to_global(batch, rows), frozen)
        for (name, picture, image), logits in zip(part, np.asarray(found, np.float32)):
            height, width = image.shape[:2]
            view = label_maps.View((height, width), [(0, 0, height, width)], [logits])
            yield name, picture, label_maps.labels([view], picture.shape[:2])

    for name, picture, image in _pictures(data):
        group = waiting.setdefault(image.shape, [])
        group.append((name, picture, image))
        if len(group) == whole:
            full.add(image.shape)
            yield from finish(image.shape)
        elif sum(map(len, waiting.values())) >= _HELD * whole:
            yield from finish(max(waiting, key=lambda size: len(waiting[size])))
    for size in list(waiting):
        yield from finish(size)


def _pictures(data: EvalData) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, the picture as it is, the picture as the network sees it) of all that can be read."""
    transform = data.transform

    def with_original(example):
        return {**transform(example), "original": np.asarray(to_rgb(example["image"]))}

    for name, example in examples(data, with_original):
        yield name, example["original"], example["image"]


def _free_name(path: pathlib.PurePath, used: set[str]) -> str:
    """The path of a picture's labels; it keeps its suffix where another picture has them."""
    found = str(path.with_suffix(".png"))
    if found in used:
        found = f"{path}.png"
    used.add(found)
    return found


def _write(
    folder: epath.Path, name: str, picture: np.ndarray, labels: np.ndarray, colors: np.ndarray
) -> None:
    overlay = label_files.encode_overlay(labels, picture, colors)
    for kind, data in zip(FOLDERS, (label_files.encode(labels, colors), overlay)):
        path = folder / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.write(path, data)


def class_colors(config, count: int) -> np.ndarray:
    """The color of each class: those of the data set, or else colors that differ.

    Args:
        config: The experiment's config; `root` and `palette` of its training pictures,
            `data.source`, say where a file of colors is, see `palettes.of_folder`.
        count: K.

    Returns:
        uint8 (K, 3). Raises UserError for a file of other colors than K.
    """
    source = config.data.source
    root, file = source.get("root") or "", source.get("palette") or ""
    colors = palettes.of_folder(root, file, count) or palettes.distinct(count)
    return np.array(colors, np.uint8)


def draw_legend(
    path: epath.Path, names: Sequence[str], shares: np.ndarray, colors: np.ndarray
) -> None:
    """Draws the color and the name of each class that was found, the largest first.

    Args:
        path: The picture to write.
        names: K class names.
        shares: (K,), the share of all pixels that each class has.
        colors: uint8 (K, 3).
    """
    order = [int(k) for k in np.argsort(-shares, kind="stable") if shares[k] > 0]
    swatches = [np.full((_SWATCH, _SWATCH, 3), colors[k], np.uint8) for k in order]
    texts = [f"{contact_sheet.short(names[k])}\n{shares[k]:.1%}" for k in order]
    contact_sheet.draw(path, list(zip(swatches, texts)))
