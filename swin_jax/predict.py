"""Prediction of a folder of images with a run's checkpoint: predictions.csv and a sheet of pictures."""

import csv
import dataclasses
import pathlib
import sys
from typing import Any

import jax
import numpy as np

from swin_jax import sharding, sheet
from swin_jax.data import sources
from swin_jax.errors import UserError
from swin_jax.start import open_trained, outputs, pictures, setup, trained

SHEET = 40  # pictures on the sheet


def predict(config, workdir: str, images: str, top: int = 5) -> int:
    """Names every image below a folder, or one image. Images that cannot be read are told and left out.

    Args:
        config: of the experiment; its `predict` says how images are read.
        workdir: of a run; its newest checkpoint is used, the average if it keeps one. Without a checkpoint the weights
            of `init_from` are used.
        images: a folder.
        top: classes per image; at most the number of classes.

    Returns:
        The exit status, 0. Writes predictions.csv (image, then class and probability for each of the top classes) and
        predictions.png into the workdir.

    Raises:
        UserError: no weights, no images, a task that names no classes.
    """
    folder = open_trained(config, workdir)
    at, data = setup(config), pictures(config, images)
    if "logits" not in outputs(at, data):
        raise UserError(
            "--predict names classes, and this experiment has none. A model of images and texts searches: "
            '--index=FOLDER, then --search="some text"',
            2,
        )
    source, unreadable = sources.readable(data.source)
    for line in unreadable:
        print(f"left out, cannot be read: {line}", file=sys.stderr, flush=True)
    if not len(source):
        raise UserError(f"none of the {len(unreadable)} images in {images} can be read")
    data = dataclasses.replace(data, source=source)
    batch_size = at.placement.round_up(data.batch_size)
    with jax.set_mesh(at.placement.mesh):
        state, frozen, meta = trained(config, at, folder)
        probabilities = _probabilities(at, state, frozen, data, batch_size)
    names = meta.get("class_names") or [str(i) for i in range(probabilities.shape[-1])]
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, : min(top, len(names))]
    rows = [
        (data.source.record_name(i), [(names[k], float(probabilities[i, k])) for k in ranks])
        for i, ranks in enumerate(order)
    ]
    if jax.process_index() == 0:
        with open(folder / "predictions.csv", "w", newline="", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["image", *(f"{what}_{k + 1}" for k in range(order.shape[1]) for what in ("class", "probability"))]
            )
            writer.writerows([name, *(v for c, p in ranks for v in (c, f"{p:.6f}"))] for name, ranks in rows)
        sheet.draw(folder / "predictions.png", [_picture(data, i, *row) for i, row in enumerate(rows[:SHEET])])
        shown = f" (the first {SHEET})" if len(rows) > SHEET else ""
        print(f"{len(rows)} images: {folder / 'predictions.csv'}, {folder / 'predictions.png'}{shown}", flush=True)
    return 0


def _probabilities(at: Any, state: Any, frozen: Any, data: Any, batch_size: int) -> np.ndarray:
    """Softmax of the logits of every image: (number of images, K) float32, on every process."""
    everywhere = sharding.replicated(at.placement.mesh)
    run = jax.jit(
        lambda *arguments: jax.nn.softmax(at.task.predict(*arguments)["logits"], axis=-1), out_shardings=everywhere
    )
    found = []
    for batch in data.batches(batch_size, at.placement.rows(batch_size)):
        placed = at.placement.put({"image": batch["image"]}, batch_size)
        found.append(np.asarray(run(state, placed, frozen)))
    return np.concatenate(found)[: data.num_examples]


def _picture(data: Any, i: int, name: str, ranks: list) -> tuple[np.ndarray, str]:
    """An image as the model sees it, with its top classes."""
    label = "\n".join(f"{sheet.short(kind)} {probability:.0%}" for kind, probability in ranks[:3])
    return np.asarray(data.transform(data.source[i])["image"]), f"{sheet.short(pathlib.Path(name).name)}\n{label}"
