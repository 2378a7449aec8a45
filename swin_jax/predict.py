"""Prediction of a folder of images with a run's checkpoint: predictions.csv and a sheet of pictures."""

import csv
import dataclasses
import math
import pathlib
import sys
from typing import Any

import jax
import numpy as np

from swin_jax import checkpoint, sharding
from swin_jax import config as configs
from swin_jax.data import sources
from swin_jax.errors import UserError
from swin_jax.start import first_state, make_workdir, setup

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
        UserError: no weights, no images.
    """
    folder = pathlib.Path(workdir)
    if not config.init_from.path and not checkpoint.folder(folder).is_dir():
        raise UserError(f"no checkpoint in {checkpoint.folder(folder)}: train first, or give --config.init_from.path=")
    make_workdir(folder)
    if "predict" not in config:
        raise UserError("this experiment has no prediction; --predict is for classifiers", 2)
    config.predict.source.root = images
    at, data = setup(config), configs.build(config.predict)
    source, unreadable = sources.readable(data.source)
    for line in unreadable:
        print(f"left out, cannot be read: {line}", file=sys.stderr, flush=True)
    if not len(source):
        raise UserError(f"none of the {len(unreadable)} images in {images} can be read")
    data = dataclasses.replace(data, source=source)
    batch_size = at.placement.round_up(data.batch_size)
    with jax.set_mesh(at.placement.mesh):
        state, meta = first_state(config, at, checkpoint.open(folder, write=False), write=False)
        state = state if state.ema is None else state.replace(params=state.ema)
        frozen = sharding.put_tree(at.task.load_frozen(), at.frozen)
        probabilities = _probabilities(at, state, frozen, data, batch_size)
    names = meta.get("class_names") or [str(i) for i in range(probabilities.shape[-1])]
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, : min(top, len(names))]
    rows = [
        (data.source.record_name(i), [(names[k], float(probabilities[i, k])) for k in ranks])
        for i, ranks in enumerate(order)
    ]
    if jax.process_index() == 0:
        with open(folder / "predictions.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["image", *(f"{what}_{k + 1}" for k in range(order.shape[1]) for what in ("class", "probability"))]
            )
            writer.writerows([name, *(v for c, p in ranks for v in (c, f"{p:.6f}"))] for name, ranks in rows)
        _sheet(folder / "predictions.png", data, rows[:SHEET])
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


def _sheet(path: pathlib.Path, data: Any, rows: list) -> None:
    """Draws the first pictures with their top classes."""
    from matplotlib.figure import Figure

    columns = min(len(rows), 8)
    lines = math.ceil(len(rows) / columns)
    figure = Figure(figsize=(1.8 * columns, 2.5 * lines), layout="constrained")
    for i, (name, ranks) in enumerate(rows):
        axes = figure.add_subplot(lines, columns, i + 1)
        image = np.asarray(data.transform(data.source[i])["image"])
        axes.imshow(image.squeeze(), cmap="gray" if image.shape[-1] == 1 else None, vmin=0, vmax=255)
        axes.set_axis_off()
        label = "\n".join(f"{_short(kind)} {probability:.0%}" for kind, probability in ranks[:3])
        axes.set_title(f"{_short(pathlib.Path(name).name)}\n{label}", fontsize=7, loc="left")
    figure.savefig(path, dpi=120)


def _short(text: str, length: int = 22) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
