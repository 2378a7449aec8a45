"""The names of the classes that a classifier's logits stand for.

No list of names is part of this package. They come from the run that trained the model, from the
file of its weights or a config beside it, from a file of the user, or, for the published
classifiers of ImageNet and Kinetics-400, from an installed package, which is read but not imported.
"""

import ast
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn

from swin_jax.core import labels, storage, text_files
from swin_jax.core.errors import UserError, warn
from swin_jax.evals.prompts import class_names as prompts
from swin_jax.pretrained import load as loading
from swin_jax.pretrained.beside import origin, told_class_names
from swin_jax.pretrained.media import shown
from swin_jax.train import checkpoint

_ADVICE = "give names=FILE, with a name on each line"


def class_names(model: nn.Module, names: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
    """The names of a classifier's logits, in their order; see `swin_jax.class_names`."""
    if not isinstance(model, nn.Module):
        raise UserError(f"class_names takes a model that load() returned, not {shown(model)}")
    kind = next(iter(loading.family_of(model).inputs(model)))
    count = getattr(model, "num_classes", 0)
    if not count:
        raise UserError(f"this {type(model).__name__} has no classes")
    if names is not None:
        return _counted(labels.read_names(os.fspath(names)), count, os.fspath(names))
    source = origin(model)
    if source is not None and loading.is_workdir(source):
        found = checkpoint.class_names(storage.path(source))
        if not found:
            raise UserError(f"the checkpoint in {source} has no class names; {_ADVICE}")
        return _counted(found, count, source)
    if found := known(model):
        return found
    found = published(kind, count)
    if source is None or _is_file(source):
        warn(assumed(source or "a model with random weights", kind, count))
    return found


def known(model: nn.Module) -> tuple[str, ...]:
    """The names that came with a model's weights: those of its run, or in the file or beside it;
    () where none tells as many as there are classes. Nothing is assumed.
    """
    source = origin(model)
    if source is None:
        return ()
    if loading.is_workdir(source):
        told = (checkpoint.class_names(storage.path(source)),)
    else:
        beside = labels.names_beside(source) if _is_file(source) else ()
        told = (told_class_names(model), beside)
    count = getattr(model, "num_classes", 0)
    return next((tuple(names) for names in told if names and len(names) == count), ())


def _is_file(source: str) -> bool:
    """True if weights are of a file or an address, not known by a name."""
    return os.path.exists(source) or "://" in source


def assumed(source: str, kind: str, count: int, advice: str = _ADVICE) -> str:
    """A warning that the names of `published` are a guess, since nothing but the number tells them.

    Args:
        source: The weights.
        kind, count: The same as in `published`.
        advice: Advice for the case that they are others.
    """
    return (
        f"{source} does not name its classes; it has {count}, so they are assumed to be those of "
        f"{_LISTS[kind, count][0]}. For others {advice}"
    )


def published(kind: str, count: int) -> tuple[str, ...]:
    """The class names of the published classifiers with so many classes.

    Args:
        kind: 'image' or 'video'.
        count: Number of classes.

    Raises:
        UserError: No data set that has them, or none of the packages that list them.
    """
    if (kind, count) not in _LISTS:
        sets = ", ".join(f"{name} ({n} classes)" for (_, n), (name, _, _) in _LISTS.items())
        raise UserError(
            f"no installed package names {count} classes of {kind}s, only those of {sets}; "
            f"{_ADVICE}"
        )
    name, readers, advice = _LISTS[kind, count]
    for read in readers:
        if (found := read()) is not None and len(found) == count:
            return found
    raise UserError(f"the class names of {name} come with a package: {advice}; or {_ADVICE}")


def _counted(found: tuple[str, ...], count: int, source: str) -> tuple[str, ...]:
    if len(found) != count:
        raise UserError(f"{source} has {len(found)} class names, this model {count} classes")
    return found


def _folder(package: str) -> Path | None:
    """The folder of an installed package; None where there is none."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) if places else None


def _of_prompts() -> tuple[str, ...] | None:
    """ImageNet-1K's as OpenAI curated them, in the installed distribution clip-benchmark."""
    try:
        found = prompts.curated("imagenet")
    except UserError:
        return None
    return tuple(name if isinstance(name, str) else name[0] for name in found)


def _of_timm(synsets: str) -> tuple[str, ...] | None:
    """The words of WordNet for a list of synsets in an installed timm."""
    folder = _folder("timm")
    if folder is None:
        return None
    try:
        ids = text_files.read(folder / "data" / "_info" / synsets).split()
        lines = text_files.read(folder / "data" / "_info" / "imagenet_synset_to_lemma.txt")
        words = dict(line.split("\t", 1) for line in lines.splitlines() if "\t" in line)
        return tuple(words[synset] for synset in ids)
    except (UserError, KeyError):  # another version has no such list
        return None


def _of_torchvision(variable: str) -> tuple[str, ...] | None:
    """A list in the source of an installed torchvision."""
    folder = _folder("torchvision")
    if folder is None:
        return None
    try:
        tree: Any = ast.parse(text_files.read(folder / "models" / "_meta.py"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == variable:
                return tuple(ast.literal_eval(node.value))
    except (UserError, SyntaxError, ValueError):
        pass
    return None


def _from_timm(synsets: str) -> Callable[[], tuple[str, ...] | None]:
    return lambda: _of_timm(synsets)


def _from_torchvision(variable: str) -> Callable[[], tuple[str, ...] | None]:
    return lambda: _of_torchvision(variable)


# (input, number of classes) -> the data set, readers of its names, the best first, and what to
# install. Of ImageNet-22K timm has two lists: of 21,841 classes in another order than that of the
# published weights, and in theirs, but of 21,843.
_LISTS = {
    ("image", 1000): (
        "ImageNet-1K",
        (
            _of_prompts,
            _from_timm("imagenet_synsets.txt"),
            _from_torchvision("_IMAGENET_CATEGORIES"),
        ),
        "pip install --no-deps clip-benchmark==1.6.2",
    ),
    ("video", 400): (
        "Kinetics-400",
        (_from_torchvision("_KINETICS400_CATEGORIES"),),
        "pip install --no-deps torchvision",
    ),
}
