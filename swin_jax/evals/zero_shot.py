"""Zero-shot classification with prompt ensembles: the classifier, and an evaluation for the loop.

CLIP (arXiv 2103.00020), section 3.1; the reference is the prompt notebook of openai/CLIP. Text
features of all prompts of a class are normalized, averaged and normalized again, so a classifier is
computed once and used for any number of images.
"""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.labels import refuse_one_class
from swin_jax.core.output.text import shown
from swin_jax.core.params import weights_checksum
from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.data.unreadable import left_out
from swin_jax.evals import features, metrics
from swin_jax.evals.features import Encode, Tokenize
from swin_jax.evals.prompts import class_names as names_of
from swin_jax.evals.prompts import templates as prompts
from swin_jax.evals.prompts.class_names import Names
from swin_jax.tasks.base import Task, TrainState, check_predicts

log = logging.getLogger(__name__)

_CACHE_FORMAT = 2


@checked
def classifier(
    encode: Encode,
    tokenize: Tokenize,
    class_names: Sequence[Names],
    templates: Sequence[str],
    batch_size: PositiveInt = 1024,
    progress: bool = True,
    cache: str | os.PathLike | None = None,
    key: str = "",
) -> np.ndarray:
    """The weights of a zero-shot classifier. All names x templates are encoded in large batches
    of one fixed size.

    Args:
        encode: (batch_size, L) int32 tokens -> (batch_size, E), normalized or not.
        tokenize: Texts -> (n, L) int32.
        class_names: C entries in label order, each a name or several that are averaged.
        templates: Templates with one {} each.
        batch_size: Prompts at a time.
        progress: True to show a bar.
        cache: Folder for the result, stored under a hash of key, tokens and the class of each;
            None stores nothing.
        key: Text that stands for `encode` in that hash: weights, and what else its features follow.

    Returns:
        (E, C) float32, columns of unit length. 100 * normalized image features @
        weights are CLIP's logits.

    Raises:
        UserError: No classes or one without a name, no templates, a template without its {},
            a cache without a key.
    """
    classes = [
        names_of.several(names, f"class {i}")
        for i, names in enumerate(names_of.as_classes(class_names))
    ]
    if isinstance(templates, str):
        raise UserError(f"templates is one text, {templates!r}; give a list")
    if not classes or not len(templates):
        raise UserError(
            f"a classifier needs names and templates, got {len(classes)} and {len(templates)}"
        )
    if cache is not None and not key:
        raise UserError(
            "to cache a classifier, say which weights it belongs to: give their checksum as key"
        )
    texts, owner = _prompts(classes, templates)
    path = None
    if cache is not None:
        tokens = _tokens(tokenize, texts, batch_size)
        path = _cache_path(Path(cache).expanduser(), key, owner, tokens)
        if (stored := _load(path, len(classes))) is not None:
            return stored
    title = f"{len(classes)} classes x {len(templates)} prompts" if progress else ""
    sums = None
    for part, found in features.text_batches(encode, tokenize, texts, batch_size, title):
        if sums is None:
            sums = np.zeros((len(classes), found.shape[-1]))
        np.add.at(sums, owner[part], found)
    means = sums / np.bincount(owner)[:, None]
    weights = np.ascontiguousarray(features.normalize(means).T)
    if path is not None:
        _store(path, weights)
    return weights


def _prompts(
    classes: Sequence[Sequence[str]], templates: Sequence[str]
) -> tuple[list[str], np.ndarray]:
    """The texts of all classes, and the number of the class of each."""
    texts, owner = [], []
    for number, names in enumerate(classes):
        texts += [prompts.fill(template, name) for name in names for template in templates]
        owner += [number] * (len(names) * len(templates))
    return texts, np.asarray(owner)


def _tokens(tokenize: Tokenize, texts: Sequence[str], batch_size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(texts), batch_size):
        yield np.asarray(tokenize(list(texts[start : start + batch_size])), np.int32)


def _cache_path(folder: Path, key: str, owner: np.ndarray, tokens: Iterable[np.ndarray]) -> Path:
    """The file of a classifier. Of a tokenizer nothing but the tokens tells how it cleans texts."""
    content = hashlib.sha256(json.dumps([_CACHE_FORMAT, key, owner.tolist()]).encode())
    for part in tokens:
        content.update(f"{part.shape}".encode() + part.tobytes())
    return folder / f"zero_shot_{content.hexdigest()[:32]}.npz"


def _load(path: Path, classes: int) -> np.ndarray | None:
    try:
        with np.load(path) as stored:
            weights = stored["weights"]
        if weights.ndim != 2 or weights.shape[1] != classes or weights.dtype.kind != "f":
            raise ValueError(f"it holds {weights.dtype} {weights.shape}")
        return weights
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever a damaged file provokes in NumPy
        log.warning("%s cannot be read (%s) and is computed again", path, shown(error))
        return None


def _store(path: Path, weights: np.ndarray) -> None:
    """Writes beside and renames, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    with open(beside, "wb") as file:
        np.savez(file, weights=weights)
    os.replace(beside, path)


@dataclasses.dataclass(frozen=True)
class Subset:
    """Classes that are reported apart.

    Attributes:
        classes: Label names whose examples count.
        candidates: Label names that are chosen among; () for all classes of the evaluation.
    """

    classes: Sequence[str]
    candidates: Sequence[str] = ()


@checked
@dataclasses.dataclass(frozen=True)
class ZeroShot:
    """Evaluates an image-text task on a labeled set during training.

    Attributes:
        data: A `data.pipeline.EvalData` with `image` and `label`.
        tokenize: Texts -> (n, L) int32.
        templates: Prompts with one {} each.
        names: {label name: name or several names for prompts}, or names in any order; None takes
            the label names, with spaces for underscores.
        subsets: {name: Subset}, reported as '<name>/top1' beside the figures of the whole set.
            Unseen classes, or a smaller choice, are such subsets.
        groups: {label name: group}; adds 'group_top1',
            where the predicted class must be of the right group.
        relabel: {label name: class}: classifies into these classes instead, the groups themselves
            for example. Then `names`, `subsets` and `groups` speak of these classes.
        batch_size: Prompts at a time.
        cache: Folder for the classifier ('' for none): of use where the weights don't change.
    """

    data: Any
    tokenize: Tokenize
    templates: Sequence[str] = prompts.IMAGENET_80
    names: Mapping[str, Names] | Sequence[Names] | None = None
    subsets: Mapping[str, Subset] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, str] | None = None
    relabel: Mapping[str, str] | None = None
    batch_size: PositiveInt = 256
    cache: str = ""

    def bind(self, task: Task, placement: Any) -> Callable[[TrainState, Any], dict[str, float]]:
        """Compiles for a task and a `sharding.Placement`; returns run(state,
        frozen) -> {name: value}.
        """
        check_predicts(task, "features", type(self).__name__)
        labels, index = self._classes()
        refuse_one_class(len(labels), "a zero-shot classification", "give images of a second one")
        if self.names is not None:
            bound = names_of.bind(labels, self.names)
        else:
            bound = [x.replace("_", " ") for x in labels]
        extract = features.extractor(task, placement, self.data)
        text_encoder = features.text_encoder(task, placement)
        batch_size = placement.round_up(self.batch_size)
        chosen = {"": (np.arange(len(labels)), np.arange(len(labels)))}
        chosen |= {
            f"{name}/": (_positions(labels, x.classes), _positions(labels, x.candidates or labels))
            for name, x in self.subsets.items()
        }
        groups = None if self.groups is None else _group_numbers(labels, self.groups)

        def run(state: TrainState, frozen: Any) -> dict[str, float]:
            found = extract(state, frozen)
            image_features, label = found["image_features"], index[found["label"]]
            key = ""
            if self.cache:
                checksum = weights_checksum((state.params, state.mutable, frozen))
                key = f"{checksum} {features.text_of_task(task)}"
            encode = text_encoder(state, frozen)
            weights = classifier(
                encode,
                self.tokenize,
                bound,
                self.templates,
                batch_size,
                False,
                self.cache or None,
                key,
            )
            results: dict[str, float] = left_out(self.data, len(label))
            for prefix, (classes, candidates) in chosen.items():
                results |= {
                    prefix + name: value
                    for name, value in subset_scores(
                        image_features, label, weights, classes, candidates, groups
                    ).items()
                    if name != "count"
                }
            return results

        return run

    def _classes(self) -> tuple[list[str], np.ndarray]:
        """The classes, and for each label of the data which of them it is."""
        labels = list(self.data.class_names)
        if self.relabel is None:
            return labels, np.arange(len(labels))
        missing = [name for name in labels if name not in self.relabel]
        if missing:
            raise UserError(
                f"relabel lacks {len(missing)} labels of the data set, {missing[0]!r} for example"
            )
        classes = sorted({self.relabel[name] for name in labels})
        return classes, np.array([classes.index(self.relabel[name]) for name in labels])


def subset_scores(
    image_features: np.ndarray,
    label: np.ndarray,
    weights: np.ndarray,
    classes: np.ndarray,
    candidates: np.ndarray,
    groups: np.ndarray | None = None,
) -> dict[str, float]:
    """`metrics.top_scores` of the examples of some classes, chosen among some candidates.

    Args:
        image_features: (N, E).
        label: (N,) int.
        weights: (E, C).
        classes: Class numbers whose examples count.
        candidates: Class numbers that are chosen among; they contain `classes`.
        groups: (C,) int, the group of each class, or None.

    Returns:
        As `metrics.top_scores` without 'mean_top1_top5', and 'count', the number of examples; with
        groups also 'group_top1'.

    Raises:
        UserError: No examples, or classes that are not candidates.
    """
    if not np.isin(classes, candidates).all():
        raise UserError("the candidates of a subset must contain its classes")
    counted = np.isin(label, classes)
    if not counted.any():
        raise UserError(f"the data set has no examples of the {len(classes)} classes of a subset")
    candidates = np.sort(candidates)
    own = np.searchsorted(candidates, label[counted])
    rank, prediction = metrics.rank_labels(image_features[counted], own, weights[:, candidates])
    if len(candidates) == weights.shape[1]:
        names_of.warn_if_reordered(own, prediction, len(candidates))
    results = metrics.top_scores(rank, own, len(candidates)) | {"count": float(counted.sum())}
    del results["mean_top1_top5"]
    if groups is not None:
        results["group_top1"] = float(
            np.mean(groups[candidates][prediction] == groups[label[counted]])
        )
    return results


def _positions(labels: list[str], names: Sequence[str]) -> np.ndarray:
    place = {name: number for number, name in enumerate(labels)}
    missing = [name for name in names if name not in place]
    if missing:
        raise UserError(
            f"{len(missing)} classes of a subset are not labels, {missing[0]!r} for example"
        )
    return np.array([place[name] for name in names], np.int64)


def _group_numbers(labels: list[str], groups: Mapping[str, str]) -> np.ndarray:
    missing = [name for name in labels if name not in groups]
    if missing:
        raise UserError(f"groups lack {len(missing)} classes, {missing[0]!r} for example")
    kinds = sorted({groups[name] for name in labels})
    return np.array([kinds.index(groups[name]) for name in labels])
