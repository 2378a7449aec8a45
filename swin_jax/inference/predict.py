"""Prediction of a folder of images or videos with a run's checkpoint:
classes and a sheet of pictures, or features.
"""

import csv
import functools
import io
import itertools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath

from swin_jax.core import storage
from swin_jax.core.errors import UserError, warn
from swin_jax.core.output.text import counted, say
from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.data.pipeline import EvalData
from swin_jax.evals import multi_view
from swin_jax.inference import class_names, contact_sheet, image_index, label_pictures
from swin_jax.inference.trained_run import (
    examples,
    image_encoder,
    open_trained,
    pictures,
    trained,
)
from swin_jax.tasks import base
from swin_jax.tasks.base import check_frozen
from swin_jax.train import checkpoint, sharding
from swin_jax.train.label_space import refuse_untrained, weights_classes
from swin_jax.train.setup import Run, build_run
from swin_jax.train.workdir import check_entries

CLASSES, FEATURES = ("predictions.csv", "predictions.png"), "features.npz"
SHEET = 40  # pictures on the sheet
STRIP = 6  # frames that stand for a video


@checked
def prepare(config, workdir: str, images: str, top: PositiveInt = 5) -> Callable[[], int]:
    """Sets up the prediction of every image or video below a folder, or of one file.

    Args:
        config: The experiment's config; its `predict` says how images or videos are read. Several
            views of a video are predicted, and their probabilities averaged.
        workdir: The workdir of a run; its newest checkpoint is used, the average if it keeps one.
            Without a checkpoint the weights of `init_from` are used.
        images: A folder, or one file.
        top: Number of classes per image; at most all.

    Returns:
        The function that predicts and returns the exit status, 0; it names files that cannot be
        read and leaves them out. If the task predicts logits, it writes predictions.csv (`image`,
        or `file` of a video, then class and probability for each of the top classes) and
        predictions.png into the workdir; if it predicts features, features.npz (`root`, the folder;
        `names`, paths below it; `image_features` (N, E) float32 of length 1); if it predicts maps,
        the folder predictions, see `label_pictures.write_labels`.

    Raises:
        UserError: No weights, no images, a task that predicts something else, a classifier that
            was never trained, colors of another number of classes, passes that cannot be made.
    """
    folder = open_trained(config, workdir)
    run = build_run(config)
    check_frozen(run.task)
    predicts = getattr(run.task, "predicts", None)
    if predicts not in _ACTIONS:
        raise UserError(
            f"--predict writes {', '.join(_ACTIONS)}; this experiment's task predicts {predicts}"
        )
    refuse_untrained(config, folder, run.task, "--predict")
    act, files, folders = _ACTIONS[predicts]
    check_entries(folder, (), folders)
    for name in files:
        storage.check_target(folder / name)
    if predicts == "maps":
        label_pictures.check(config, run, folder)
    return functools.partial(act, config, run, pictures(config, images), folder, top)


def _predict_features(config, run: Run, data: EvalData, folder: epath.Path, top: int) -> int:
    """Writes features for other programs."""
    lead = jax.process_index() == 0
    with jax.set_mesh(run.placement.mesh):
        state, frozen, _ = trained(config, run, folder)
        found, unreadable = image_index.build(
            data, image_encoder(run, state, frozen), "", "", progress=lead
        )
    if lead:
        for line in unreadable:
            say(f"left out, cannot be read: {line}")
        with storage.writing(folder / FEATURES) as file:
            np.savez(
                file,
                root=found.root,
                names=np.array(found.names, str),
                image_features=found.features,
            )
        advice = 'to find images, --index=FOLDER, then --search="some text"'
        print(f"{counted(len(found), 'image')}: {folder / FEATURES}; {advice}", flush=True)
        _print_left(data, len(found))
    return 0


def _predict_classes(config, run: Run, data: EvalData, folder: epath.Path, top: int) -> int:
    with jax.set_mesh(run.placement.mesh):
        state, frozen, _ = trained(config, run, folder)
        names, rows, shown, what = _predict(run, state, frozen, data)
    if jax.process_index() == 0:
        classes = _class_names(config, folder, what, rows.shape[-1])
        files = _write_classes(folder, names, rows, shown, what, classes, top)
        print(f"{counted(len(names), what)}: {files}", flush=True)
        _print_left(data, len(names))
    return 0


def _class_names(config, folder: epath.Path, what: str, count: int) -> tuple[str, ...]:
    """The names of the classes; their numbers where neither run, weights nor packages tell them."""
    names = weights_classes(config, folder, count).names
    if len(names) == count:
        return names
    if not checkpoint.exists(folder):  # weights that somebody published, perhaps
        try:
            found = class_names.published(what, count)
        except UserError:
            pass
        else:
            advice = "give --config.init_from.class_names=FILE, with a name on each line"
            warn(class_names.assumed(config.init_from.path, what, count, advice))
            return found
    return tuple(map(str, range(count)))


def _print_left(data: EvalData, count: int) -> None:
    if left := data.num_examples - count:
        print(f"{left} of {data.num_examples} left out: they cannot be read", flush=True)


def _write_classes(folder, names, probabilities, shown, what, classes, top) -> str:
    """Writes the most probable classes as text and as pictures; returns what was written."""
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, : min(top, len(classes))]
    rows = [
        (name, [(classes[k], float(probabilities[i, k])) for k in ranks])
        for i, (name, ranks) in enumerate(zip(names, order))
    ]
    writer = csv.writer(text := io.StringIO(newline=""))
    columns = [
        f"{kind}_{k + 1}" for k in range(order.shape[1]) for kind in ("class", "probability")
    ]
    writer.writerow(["file" if what == "video" else what, *columns])
    writer.writerows(
        [name, *(v for c, p in ranks for v in (c, f"{p:.6f}"))] for name, ranks in rows
    )
    table, sheet = (folder / name for name in CLASSES)
    storage.write(table, text.getvalue().encode("utf-8", "surrogateescape"))
    strips = dict(columns=2, width=1.2 * STRIP) if what == "video" else {}
    contact_sheet.draw(sheet, [(x, _title(*row)) for x, row in zip(shown, rows)], **strips)
    limit = f" (the first {SHEET})" if len(rows) > SHEET else ""
    return f"{table}, {sheet}{limit}"


def _predict(
    run: Run, state: Any, frozen: Any, data: Any
) -> tuple[list[str], np.ndarray, list[np.ndarray], str]:
    """Names of what could be read, its class probabilities on every process, and what it is.

    Returns:
        (N names, (N, K), the first pictures, 'image' or 'video').
    """
    batch_size, names, found, shown = run.placement.round_up(data.batch_size), [], [], []

    def probabilities(state, batch, frozen):
        if "video" in batch:
            return multi_view.fuse(run.task, state, batch["video"], frozen)
        return base.probabilities(run.task, run.task.predict(state, batch, frozen)["logits"])

    predict_batch = jax.jit(probabilities, out_shardings=sharding.replicated(run.placement.mesh))
    records = examples(data, data.transform)
    while part := list(itertools.islice(records, batch_size)):
        inputs = [
            {key: array for key, array in example.items() if key in ("image", "video")}
            for _, example in part
        ]
        rows = [min(row, len(part) - 1) for row in run.placement.rows(batch_size)]
        batch = {key: np.stack([inputs[row][key] for row in rows]) for key in inputs[0]}
        found.append(
            predict_batch(state, run.placement.to_global(batch, batch_size), frozen)[: len(part)]
        )
        shown += [_picture(example) for example in inputs[: SHEET - len(shown)]]
        names += [name for name, _ in part]
    if not names:
        raise UserError(f"none of the {data.num_examples} files can be read")
    return names, np.concatenate([np.asarray(x) for x in found]), shown, next(iter(inputs[0]))


def _picture(example: dict) -> np.ndarray:
    """An image as the model sees it, or a strip of frames of a video's first view."""
    if "image" in example:
        return np.asarray(example["image"])
    clip = example["video"][0]
    return np.concatenate(clip[np.linspace(0, len(clip) - 1, STRIP).astype(int)], axis=1)


def _title(name: str, ranks: list) -> str:
    label = "\n".join(
        f"{contact_sheet.short(kind)} {probability:.0%}" for kind, probability in ranks[:3]
    )
    return f"{contact_sheet.short(pathlib.Path(name).name)}\n{label}"


def _predict_maps(config, run: Run, data: EvalData, folder: epath.Path, top: int) -> int:
    count = label_pictures.write_labels(config, run, data, folder)
    if jax.process_index() == 0:
        _print_left(data, count)
    return 0


# What a task predicts -> what writes it, and the files and folders that it writes.
_ACTIONS: dict[str, tuple[Callable[..., int], tuple[str, ...], tuple[str, ...]]] = {
    "logits": (_predict_classes, CLASSES, ()),
    "features": (_predict_features, (FEATURES,), ()),
    "maps": (_predict_maps, label_pictures.FILES, label_pictures.ALL_FOLDERS),
}
