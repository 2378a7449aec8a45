"""Prediction of a folder of pictures with a segmenter: the label of each pixel as a picture, laid
over the original too, a legend of the colors, and each picture's shares of the classes.
"""

import csv
import dataclasses
import io
import pathlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from swin_jax.core import config as configs
from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.core.labels import composed, match
from swin_jax.core.output.text import counted, say
from swin_jax.data.image.transforms import to_rgb
from swin_jax.data.pipeline import EvalData
from swin_jax.data.segmentation import ade20k, label_files, palettes
from swin_jax.data.segmentation import folder as label_folder
from swin_jax.inference import contact_sheet, segmentation
from swin_jax.inference.trained_run import examples, preparation, trained
from swin_jax.ops import label_maps
from swin_jax.ops.label_maps import WHOLE, Method
from swin_jax.pretrained.files import objects
from swin_jax.pretrained.preparation import Preparation
from swin_jax.train import checkpoint, sharding
from swin_jax.train.label_space import weights_classes
from swin_jax.train.setup import Run

FOLDERS, LEGEND, SHARES = ("labels", "overlays"), "legend.png", "shares.csv"
PLACE = "predictions"  # of a workdir
FILES = tuple(f"{PLACE}/{name}" for name in (LEGEND, SHARES))
ALL_FOLDERS = (PLACE, *(f"{PLACE}/{name}" for name in FOLDERS))
_HELD = 4  # batches of windows that wait for others of their size
_SWATCH = 24  # pixels


def write_labels(config, run: Run, data: EvalData, folder: epath.Path) -> int:
    """Writes labels/, overlays/, legend.png and shares.csv into the folder `predictions` of a run.

    Args:
        config: The experiment's config. Its `predict_method`, if it has one, is a `Method`: the
            passes over a picture.
        run: The built run, whose task predicts maps.
        data: The pictures.
        folder: The workdir.

    Returns:
        The number of pictures that could be read. Raises UserError where none could, and for ratios
        without a scale that they multiply.
    """
    method = _method(config)
    transforms = _transforms(config, data, method)
    with jax.set_mesh(run.placement.mesh):
        state, frozen, _ = trained(config, run, folder)
        names = _class_names(config, folder, _count_classes(run))
        colors = class_colors(config, names)
        target, counts = folder / PLACE, {}
        files = _label_names(data)
        windows = _windows(data, transforms, method)
        for name, picture, labels in _labels(run, state, frozen, windows, data.batch_size):
            counts[name] = np.bincount(labels.ravel(), minlength=len(names))
            if jax.process_index() == 0:
                _write(target, files[name], picture, labels, colors)
    if not counts:
        raise UserError(f"none of the {data.num_examples} files can be read")
    if jax.process_index() == 0:
        total = np.sum([*counts.values()], axis=0)
        draw_legend(target / LEGEND, names, total / total.sum(), colors)
        _write_shares(target / SHARES, names, files, counts)
        written = ", ".join([*(f"{name}/" for name in FOLDERS), LEGEND, SHARES])
        print(f"{counted(len(counts), 'image')}: {target} ({written})", flush=True)
        if earlier := describe_earlier(target, {files[name] for name in counts}):
            say(earlier)
    return len(counts)


def check(config, run: Run, folder: epath.Path) -> None:
    """Raises what `write_labels` raises before any picture is read, and UserError for a file of
    colors that does not fit the classes of a run's task.
    """
    _scaled(config, _method(config))
    with jax.set_mesh(run.placement.mesh):
        count = _count_classes(run)
    names = weights_classes(config, folder, count).names
    class_colors(config, names if len(names) == count else tuple(map(str, range(count))))


def _count_classes(run: Run) -> int:
    """The classes that a run's task tells apart, by the shapes of what it predicts."""
    predict, batch = run.task.predict, run.task.batch_shapes(1)
    return jax.eval_shape(predict, run.abstract, batch, run.frozen)["maps"].shape[-1]


def _write_shares(
    path: epath.Path,
    names: Sequence[str],
    files: Mapping[str, str],
    counts: Mapping[str, np.ndarray],
) -> None:
    """Writes the share of each class in each picture as a table.

    Args:
        path: The file to write.
        names: K class names.
        files: {path of a picture: path of its labels}.
        counts: {path of a picture: (K,) its pixels of each class}.
    """
    rows = [("image", "label_file", *names)]
    for name, pixels in counts.items():
        shares = pixels / pixels.sum()
        rows.append((name, f"{FOLDERS[0]}/{files[name]}", *(f"{share:.6f}" for share in shares)))
    csv.writer(text := io.StringIO(newline="")).writerows(rows)
    storage.write(path, text.getvalue().encode("utf-8", "surrogateescape"))


def describe_earlier(folder: epath.Path, written: Collection[str]) -> str:
    """A line about labels that an earlier prediction of other pictures left; '' if there are none.
    Buckets, where looking takes long, are not searched.

    Args:
        folder: The folder of the predictions.
        written: Names of the labels that this prediction has written.
    """
    labels = folder / FOLDERS[0]
    paths = () if storage.is_remote(labels) else pathlib.Path(labels).rglob("*.png")
    left = sorted({str(path.relative_to(labels)) for path in paths} - set(written))
    if not left:
        return ""
    return (
        f"{folder} still has the labels and overlays of {counted(len(left), 'picture')} of an "
        f"earlier prediction, {left[0]} for one: {LEGEND} and {SHARES} are without them"
    )


def _class_names(config, folder: epath.Path, count: int) -> tuple[str, ...]:
    """The names of the classes; their numbers where neither run nor weights tell them."""
    names = weights_classes(config, folder, count).names
    path = config.init_from.path
    if not names and path and not checkpoint.exists(folder) and not storage.is_remote(path):
        names = objects.class_names(path)
    return names if len(names) == count else tuple(map(str, range(count)))


def _method(config) -> Method:
    """The passes over a picture, whole pictures where the config has no choice of them."""
    if "predict_method" not in config:
        return WHOLE
    return configs.build(config.predict_method, "predict_method")


def _scaled(config, method: Method) -> list[Preparation]:
    """The preparation of a picture at each ratio."""
    prepared = preparation(config)
    return [segmentation.scaled(prepared, ratio) for ratio in method.ratios]


def _transforms(config, data: EvalData, method: Method) -> list[Callable[[dict], dict]]:
    """The preparation of a picture at each ratio. Says how many sizes there are to compile for."""
    scaled = _scaled(config, method)
    if jax.process_index() == 0:
        files = [data.source.record_name(index) for index in range(data.num_examples)]
        instead = "--config.predict_method.mode=slide"
        segmentation.tell_sizes(files, preparation(config), method, instead)
    return [one.transform_example for one in scaled]


@dataclasses.dataclass(eq=False)
class _Picture:
    """A picture on its way through the network.

    Attributes:
        name: Its path.
        pixels: uint8 (H, W, 3), as it is.
        views: The passes over it, whose logits are filled in window by window.
        missing: Number of windows without logits.
    """

    name: str
    pixels: np.ndarray
    views: list[label_maps.View]
    missing: int


class _Window(NamedTuple):
    """A part that the network sees at once: the pixels, and the place of its logits."""

    pixels: np.ndarray
    picture: _Picture
    view: label_maps.View
    place: int


def _windows(
    data: EvalData, transforms: Sequence[Callable[[dict], dict]], method: Method
) -> Iterator[_Window]:
    """The windows of all pictures that can be read, picture by picture."""

    def prepare(example):
        images = [transform(example)["image"] for transform in transforms]
        return {"images": images, "original": np.asarray(to_rgb(example["image"]))}

    for name, example in examples(data, prepare):
        picture = _Picture(name, example["original"], [], 0)
        found = []
        for image in example["images"]:
            for mirrored in (False, True) if method.flip else (False,):
                view, parts = label_maps.cut(image, method, mirrored)
                picture.views.append(view)
                found += [_Window(part, picture, view, place) for place, part in enumerate(parts)]
        picture.missing = len(found)
        yield from found


def _labels(
    run: Run, state: Any, frozen: Any, windows: Iterator[_Window], batch_size: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, picture uint8 (H, W, 3), labels uint8 (H, W)) of every picture whose windows all have
    been seen. Windows of one size make batches, of several pictures too.
    """

    def maps(state, batch, frozen):
        return run.task.predict(state, batch, frozen)["maps"]

    predict = jax.jit(maps, out_shardings=sharding.replicated(run.placement.mesh))
    whole = run.placement.round_up(batch_size)
    waiting: dict[tuple[int, ...], list[_Window]] = {}
    full = set()  # the sizes that have a program for whole batches

    def finish(size):
        part = waiting.pop(size)
        rows = whole if size in full else run.placement.round_up(len(part))
        own = [min(row, len(part) - 1) for row in run.placement.rows(rows)]
        batch = {"image": np.stack([part[row].pixels for row in own])}
        found = predict(state, run.placement.to_global(batch, rows), frozen)
        for window, logits in zip(part, np.asarray(found, np.float32)):
            picture = window.picture
            window.view.logits[window.place] = logits
            picture.missing -= 1
            if not picture.missing:
                labels = label_maps.labels(picture.views, picture.pixels.shape[:2])
                yield picture.name, picture.pixels, labels

    for window in windows:
        size = window.pixels.shape
        group = waiting.setdefault(size, [])
        group.append(window)
        if len(group) == whole:
            full.add(size)
            yield from finish(size)
        elif sum(map(len, waiting.values())) >= _HELD * whole:
            yield from finish(max(waiting, key=lambda size: len(waiting[size])))
    for size in list(waiting):
        yield from finish(size)


def _label_names(data: EvalData) -> dict[str, str]:
    """{path of a picture: path of its labels below their folder}, for all pictures."""
    pictures = [data.source.record_name(index) for index in range(data.num_examples)]
    paths = [pathlib.PurePath(name).relative_to(data.source.root) for name in pictures]
    return dict(zip(pictures, label_names(paths)))


def label_names(paths: Sequence[pathlib.PurePath]) -> list[str]:
    """Names for files of labels, 'a.png' for the picture 'a.jpg'.

    Pictures that would share a name keep their suffixes, 'a.jpg.png', all of them, so that a name
    depends neither on the order nor on which of them can be read.

    Args:
        paths: Paths of the pictures, which differ.

    Returns:
        A name for each, which differ too.
    """
    found = [str(path.with_suffix(".png")) for path in paths]
    while clashes := {name for name, count in Counter(found).items() if count > 1}:
        found = [f"{path}.png" if name in clashes else name for path, name in zip(paths, found)]
    return found


def _write(
    folder: epath.Path, name: str, picture: np.ndarray, labels: np.ndarray, colors: np.ndarray
) -> None:
    overlay = label_files.encode_overlay(labels, picture, colors)
    for kind, data in zip(FOLDERS, (label_files.encode(labels, colors), overlay)):
        path = folder / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.write(path, data)


def class_colors(config, names: Sequence[str]) -> np.ndarray:
    """The color of each class: those of the data set, or else colors that differ.

    Args:
        config: The experiment's config; `root` and `palette` of its training pictures,
            `data.source`, say where a file of colors is, see `palettes.of_folder`, and
            `ade20k.names_and_colors` for ADE20K. The colors are in the order of the class list
            there.
        names: K class names in the order of the model's labels. Where they are those of the list
            in another order, colors go with names.

    Returns:
        uint8 (K, 3). Raises UserError for a file of other colors than K, and for a list of
        different classes, some of which are the model's at other places.
    """
    source = config.data.source
    root, file = source.get("root") or "", source.get("palette") or ""
    if source.get("fn") is ade20k.ade20k and root and len(names) == ade20k.NUM_CLASSES:
        own, colors = ade20k.names_and_colors(root)
    else:
        own = label_folder.read_classes(root, source.get("class_names") or "")
        colors = palettes.of_folder(root, file, len(names))
    colors = _in_order(colors, own, names) if colors else palettes.distinct(len(names))
    return np.array(colors, np.uint8)


def _in_order(
    colors: Sequence[palettes.Color], own: Sequence[str], names: Sequence[str]
) -> Sequence[palettes.Color]:
    """The colors of the classes `own` in the order of `names`; as they are where no name that both
    have is at another place.
    """
    own, names = composed(own), composed(names)
    places = {name: place for place, name in enumerate(names)}
    if all(places.get(name, place) == place for place, name in enumerate(own)):
        return colors
    index = match(own, names, "the class list of the palette", "the model").index
    return colors if index is None else [colors[index.index(k)] for k in range(len(names))]


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
