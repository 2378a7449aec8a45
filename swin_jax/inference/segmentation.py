"""Labels of pictures of any size in three lines.

    model, variables = swin_jax.load("upernet_swin_tiny_patch4_window7_512x512", weights="official")
    labels = segment(model, variables, "street.jpg")  # uint8 (H, W), as large as the picture

Class k is that of the data set's list, from 0; ADE20K's label pictures count it from 1.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from swin_jax.core import labels
from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UnreadableError, UserError, with_article
from swin_jax.core.output.progress import Progress
from swin_jax.core.output.text import say
from swin_jax.data.image.picture import USUAL, displayed_size, open_image
from swin_jax.data.labels import Relabeled
from swin_jax.data.segmentation.resizing import fitted_size
from swin_jax.evals.mean_iou import scores
from swin_jax.inference import class_names
from swin_jax.inference.loaded_model import Preprocess, check_variables, preparation_of
from swin_jax.models.segmentation import UPerNet
from swin_jax.ops import label_maps
from swin_jax.ops.label_maps import SCALES, WHOLE, Method, View
from swin_jax.pretrained import media
from swin_jax.pretrained.beside import origin
from swin_jax.pretrained.load import is_workdir, shapes
from swin_jax.pretrained.preparation import FIT, Preparation

__all__ = [
    "SCALES",
    "WHOLE",
    "Method",
    "mean_iou",
    "probabilities",
    "scaled",
    "segment",
    "tell_sizes",
    "views",
]


def segment(
    model: nn.Module,
    variables: dict,
    pictures: Any,
    method: Method = WHOLE,
    preprocess: Preparation | Preprocess | None = None,
) -> np.ndarray | list[np.ndarray]:
    """The class of every pixel of pictures.

    A program is compiled for each size to which pictures are resized, which is said in advance, or
    with mode='slide' one for all pictures that are at least as large as a window.

    Args:
        model: A segmenter of `load`.
        variables: Its variables.
        pictures: A path, a PIL image, a uint8 array (H, W) or (H, W, 3), or a list of them, of any
            sizes.
        method: The passes over a picture; `Method(ratios=SCALES, flip=True)` are the published
            six scales with mirroring.
        preprocess: A `Preparation`, or a function from a picture to normalized (1, h, w, C); None
            takes the model's own.

    Returns:
        uint8 (H, W) of the picture's own size, int32 where there are more than 256 classes; a list
        of them for a list of pictures.

    Raises:
        UserError: A model that is no segmenter, variables of another model, no picture.
    """
    several = isinstance(pictures, (list, tuple)) or getattr(pictures, "ndim", 0) == 4
    if several and not len(pictures):
        raise UserError("segment was given no pictures")
    given = list(pictures) if several else [pictures]
    if len(given) > 1 and isinstance(model, UPerNet):
        tell_sizes(given, preparation_of(model, preprocess), method, "Method(mode='slide')")
    found = []
    for picture in given:
        passes, size = views(model, variables, picture, method, preprocess)
        found.append(label_maps.labels(passes, size))
    return found if several else found[0]


def tell_sizes(
    pictures: Sequence[Any], prepared: Preparation | Preprocess, method: Method, instead: str
) -> None:
    """Says in advance how many programs pictures of several sizes need, by the heads of files.

    Args:
        pictures: Paths, PIL images or arrays.
        prepared: Their preparation.
        method: The passes over a picture; windows need one program, and nothing is said.
        instead: The argument or flag that asks for windows, for the message.
    """
    known = isinstance(prepared, Preparation) and prepared.transform == FIT
    if method.mode != "whole" or not known:
        return
    sizes = {_displayed_size(picture, prepared) for picture in pictures} - {None}
    seen = set()
    for ratio in method.ratios:
        scale = scaled(prepared, ratio).arguments.get("scale")
        seen |= {size if scale is None else fitted_size(size, scale) for size in sizes}
    if len(seen) > len(method.ratios):
        say(
            f"{len(seen)} sizes, with one program to compile for each; {instead} needs "
            "one for pictures of any size"
        )


def _displayed_size(picture: Any, prepared: Preparation) -> tuple[int, int] | None:
    """(H, W) of a picture; None for what is none, which is refused when its turn comes."""
    if hasattr(picture, "shape"):
        return tuple(picture.shape[:2])
    try:
        if isinstance(picture, (str, os.PathLike)):
            picture = open_image(picture, prepared.limits or USUAL)
        return displayed_size(picture, prepared.conversion)
    except (UnreadableError, AttributeError):
        return None


def probabilities(
    model: nn.Module,
    variables: dict,
    picture: Any,
    method: Method = WHOLE,
    preprocess: Preparation | Preprocess | None = None,
) -> np.ndarray:
    """Class probabilities of one picture, float32 (H, W, K); arguments as for `segment`.

    `segment` needs much less memory: 150 classes of 1,500 x 2,000 pixels are 1.8 GB here.
    """
    passes, size = views(model, variables, picture, method, preprocess)
    return label_maps.probabilities(passes, size)


def mean_iou(
    model: nn.Module,
    variables: dict,
    source: Any,
    method: Method = WHOLE,
    preprocess: Preparation | Preprocess | None = None,
) -> dict[str, Any]:
    """The figures of a labeled data set, picture by picture on one device.

    `Method(ratios=SCALES, flip=True)` makes them those that are published at several scales. An
    experiment's evaluation of one scale, `evals.mean_iou.MeanIoU`, uses a whole mesh.

    Args:
        model, variables, method, preprocess: The same as in `segment`.
        source: A sequence of {'image': a picture, 'label': uint8 (H, W), 255 where nothing counts},
            with `class_names`; `data.segmentation.ade20k.ade20k(folder, "val")` for example. Its
            labels are mapped to the model's by name, where the weights tell names; it may have
            some of the model's classes.

    Returns:
        The figures of `evals.mean_iou.scores`: `mean_iou`, `mean_accuracy`, `pixel_accuracy` and
        the table `classes`, in the order of the model's.

    Raises:
        UserError: Classes that the model lacks, labels of another size than their picture, or
            beyond the classes.
    """
    source, names = _with_labels_of(model, source)
    counts = dict.fromkeys(("intersect", "predicted", "labeled"), 0)
    with Progress(len(source), "images", "segmenting") as progress:
        for index in range(len(source)):
            record = source[index]
            found = segment(model, variables, record["image"], method, preprocess)
            added = _counts(found, np.asarray(record["label"]), model.num_classes)
            counts = {name: counts[name] + added[name] for name in counts}
            progress.update()
    return scores(counts, names)


def _with_labels_of(model: nn.Module, source: Any) -> tuple[Any, tuple[str, ...]]:
    """The source with the labels of a model, and the names of the classes that they stand for.

    Says where labels change, and where they are taken by number because no names are known. Data
    that calls all classes otherwise than the weights do, in another language for example, is taken
    by number too; that of a run's workdir is not, since training gave it the names.
    """
    count, whose, of = getattr(model, "num_classes", 0), "the data set", "the model"
    own = labels.composed([str(name).strip() for name in source.class_names])
    names = labels.composed([name.strip() for name in class_names.known(model)])
    is_of_run = origin(model) is not None and is_workdir(origin(model))
    is_loose = len(own) == count and not {*own} & {*names} and not is_of_run
    try:
        found = labels.match(own, names, whose, of, subset=True)
    except UserError as error:
        if not is_loose:
            raise UserError(
                f"{error}, by dataclasses.replace(source, class_names=...) for example"
            ) from error
        found = labels.Match(
            None, f"{whose} calls all classes of {of} otherwise: its labels are taken by number"
        )
    if found.said:
        say(found.said)
    if found.index is not None:
        return Relabeled(source, found.index, names), names
    if count != len(own):
        raise UserError(f"the model has {count} classes, the data set {len(own)}")
    return source, names or own


def _counts(found: np.ndarray, label: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """int64 (K,) pixels of each class that are right, predicted and labeled."""
    if found.shape != label.shape:
        raise UserError(f"a label is {label.shape}, its picture {found.shape}")
    known = label != IGNORED
    found, label = found[known], label[known]
    if label.size and label.max() >= classes:
        raise UserError(f"a label has the class {label.max()}, the model {classes} classes")
    pixels = {"intersect": label[found == label], "predicted": found, "labeled": label}
    return {name: np.bincount(values, minlength=classes) for name, values in pixels.items()}


def views(
    model: nn.Module,
    variables: dict,
    picture: Any,
    method: Method = WHOLE,
    preprocess: Preparation | Preprocess | None = None,
) -> tuple[list[View], tuple[int, int]]:
    """The passes over one picture, and the picture's own (H, W); arguments as for `segment`."""
    if not isinstance(model, UPerNet):
        raise UserError(
            f"segment needs a segmenter, such as swin_jax.load('upernet_swin_tiny_patch4_window7_"
            f"512x512', weights='official'), not {with_article(type(model).__name__)}"
        )
    check_variables(variables, _shapes(model))
    prepared = preparation_of(model, preprocess)
    conversion = prepared.conversion if isinstance(prepared, Preparation) else "display"
    pixels = np.asarray(media.open_picture(picture, conversion))
    predict = functools.partial(_predict(model), variables)
    mirrors = (False, True) if method.flip else (False,)
    passes = []
    for ratio in method.ratios:
        (image,) = scaled(prepared, ratio)(pixels)
        passes += [label_maps.view(predict, image, method, mirrored) for mirrored in mirrors]
    return passes, pixels.shape[:2]


def scaled(prepared: Preparation | Preprocess, ratio: float) -> Preparation | Preprocess:
    """A preparation that makes pictures larger by a factor. Raises UserError for one without a
    scale, which the factor would multiply.
    """
    if ratio == 1:
        return prepared
    scale = prepared.arguments.get("scale") if isinstance(prepared, Preparation) else None
    if scale is None or prepared.transform != FIT:
        raise UserError(
            f"the ratio {ratio} multiplies the scale to which pictures are resized, and they are "
            "not resized here: give a preparation with a scale, or no ratio but 1"
        )
    return prepared.replace(scale=tuple(max(int(side * ratio), 1) for side in scale))


# Traced and compiled once for a model, however often it is asked.
_shapes = functools.lru_cache(maxsize=16)(shapes)


@functools.lru_cache(maxsize=16)
def _predict(model: nn.Module) -> Callable[[dict, np.ndarray], jax.Array]:
    return jax.jit(lambda variables, image: model.apply(variables, image)["logits"])
