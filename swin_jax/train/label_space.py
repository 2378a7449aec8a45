"""One label space for a run: training data, evaluations and weights agree on classes by name."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from etils import epath

from swin_jax.core import config as configs
from swin_jax.core import labels, storage
from swin_jax.core.errors import UserError
from swin_jax.tasks.base import Task, frozen_models
from swin_jax.train import checkpoint

# Paths of classifiers, of which `InitFrom.head` matches one where it leaves the classifier out.
_HEADS = ("head/kernel", "decode_head/conv_seg/kernel")
_CLASSIFIERS = ("logits", "maps")  # what tasks predict whose outputs stand for classes


@dataclasses.dataclass(frozen=True)
class Reference:
    """The classes that logits stand for.

    Attributes:
        names: Class names in the order of the logits; () where they are not known.
        owner: Owner of these classes, for messages.
        advice: Advice for the case that they are not wanted.
        is_loose: True if other data may call all of them otherwise:
            ImageNet's folders have the names of synsets.
    """

    names: tuple[str, ...] = ()
    owner: str = ""
    advice: str = ""
    is_loose: bool = False


def weights_classes(config, folder: epath.Path, classes: int = 0) -> Reference:
    """The classes of the weights that a run starts from:
    those of its own checkpoint, or of `init_from`.

    Args:
        config: Config from an experiment file.
        folder: The workdir.
        classes: Number that the model is made for; a classifier of `init_from` with another one is
            replaced. 0 if not known.

    Returns:
        The classes; `owner` is '' where the run starts from scratch or trains a
        classifier of unknown classes.
    """
    if checkpoint.exists(folder):
        names = checkpoint.class_names(folder)
        if names:
            advice = ""
        else:
            advice = "; the checkpoint has no class names, so that all of its classes must be there"
        return Reference(names, f"the checkpoint in {folder}", advice)
    source = configs.build(config.init_from, "init_from")
    path = getattr(source, "path", "")
    if not path:
        return Reference()
    if not takes_classifier(source):
        return Reference()
    names, advice, is_loose = (
        (),
        "; for a new classifier give --config.init_from.backbone=True",
        False,
    )
    if getattr(source, "class_names", ""):
        names = labels.read_names(source.class_names)
    elif checkpoint.exists(storage.path(path)):
        names = checkpoint.class_names(storage.path(path))
    else:
        names = _names_beside(path)
        is_loose = bool(names)
    if (classes and len(names) not in (0, classes)) or (not names and config.total_steps > 0):
        return Reference()
    if not names or is_loose:
        advice = advice if names else ""
        advice += (
            "; or give the names of all classes of the weights in a file, "
            "--config.init_from.class_names=FILE"
        )
    return Reference(names, f"the model in {path}", advice, is_loose)


def takes_classifier(source: Any) -> bool:
    """True if a run that starts from weights takes their classifier; `source` has the fields of an
    `InitFrom`.
    """
    backbone, head = getattr(source, "backbone", False), getattr(source, "head", "")
    return not (backbone and any(re.search(head, path) for path in _HEADS))


def refuse_untrained(config, folder: epath.Path, task: Any, user: str) -> None:
    """Refuses a classifier that neither a checkpoint nor the first weights give.

    Args:
        config, folder, task: The same as in `share_labels`; a task of other predictions will do.
        user: Name of the evaluation or action that classifies, for the message.

    Raises:
        UserError: The classifier would be a random one.
    """
    if getattr(task, "predicts", None) not in _CLASSIFIERS or checkpoint.exists(folder):
        return
    source = configs.build(config.init_from, "init_from")
    if getattr(source, "path", "") and not takes_classifier(source):
        raise UserError(
            f"{user} needs a classifier, and init_from.backbone=True leaves it at initialization: "
            "give --config.init_from.backbone=False, or train first where "
            f"{source.path} has no classifier of this kind"
        )


def _names_beside(path: str) -> tuple[str, ...]:
    return () if not path or storage.is_remote(path) else labels.names_beside(path)


def share_labels(
    config, folder: epath.Path, task: Any, data: Any, evaluations: Mapping[str, Any]
) -> tuple[Any, dict[str, Any], list[str]]:
    """Gives training data and evaluations of a classifier the labels of its logits.

    Args:
        config: Config from an experiment file.
        folder: The workdir, whose checkpoint decides; without one the weights of `init_from` do if
            they have as many classes, or else the training data.
        task: The built task. Labels are shared only where it predicts logits, of images or pixels.
        data: The built `config.data`; not compared where nothing is trained and the classes of the
            weights are known.
        evaluations: Built evaluations by name, each with a data set in any of its fields. One that
            has classes of its own says so by the attribute `own_classes`.

    Returns:
        (training data, evaluations, lines for the user).

    Raises:
        UserError: Sets of different classes; the message names both sets and the classes. An
            evaluation of a classifier that nothing trains, see `refuse_untrained`.
    """
    classifies = getattr(task, "predicts", None) in _CLASSIFIERS
    if classifies:
        reference = weights_classes(config, folder, getattr(data, "expected_classes", 0))
    else:
        reference = Reference()
    lines, found = [], {}
    if _calls_otherwise(data, reference):
        lines, reference = [_by_number(reference, "the training data")], Reference()
    if config.total_steps > 0 or not reference.names:
        data = _fit(data, task, "the training data") if classifies else data
        data, said = _map(data, reference, "the training data", subset=False)
        lines += said
        if said and data.class_names == reference.names and getattr(task, "class_weights", ()):
            lines.append(f"task.class_weights are taken in the order of {reference.owner}")
        if labels.count_up(reference.names):  # names are worth more than numbers
            reference = Reference(tuple(getattr(data, "class_names", ())), "the training data")
    lines += _teachers(task, reference) if classifies else []
    for key, evaluation in evaluations.items() if classifies else ():
        changed = {}
        if config.total_steps == 0 and _data_sets(evaluation):
            refuse_untrained(config, folder, task, f"the evaluation {key!r}")
        for name, value in _data_sets(evaluation).items():
            value = _fit(value, task, f"the evaluation {key!r}")
            changed[name], said = _map(value, reference, f"the evaluation {key!r}")
            lines += said
        found[key] = dataclasses.replace(evaluation, **changed) if changed else evaluation
    return data, {**evaluations, **found}, lines


def _map(data: Any, reference: Reference, whose: str, subset: bool = True) -> tuple[Any, list[str]]:
    """A data set with the labels of `reference`, and lines for the user."""
    said = ""
    try:
        if _calls_otherwise(data, reference):
            said = _by_number(reference, whose)
        elif reference.owner:
            data, said = labels.map_data(data, reference.names, whose, reference.owner, subset)
        if hasattr(data, "check_counts"):
            data.check_counts()
    except UserError as error:
        raise UserError(f"{error}{reference.advice}") from error
    return data, [said] if said else []


def _calls_otherwise(data: Any, reference: Reference) -> bool:
    """True if a data set has as many classes as loose names, and none of their names."""
    names = getattr(data, "class_names", ())
    if (
        not reference.is_loose
        or len(names) != len(reference.names)
        or {*names} & {*reference.names}
    ):
        return False
    try:
        labels.match(names, reference.names, "", "")
    except UserError:
        return True
    return False  # numbers


def _by_number(reference: Reference, whose: str) -> str:
    return (
        f"{whose} calls all classes of {reference.owner} differently: "
        "its labels are matched by number"
    )


def _teachers(task: Task, reference: Reference) -> list[str]:
    """Lines for the user about frozen models whose logits may stand for other classes."""
    lines = []
    for name, item in frozen_models(task).items():
        known = checkpoint.exists(storage.path(item.path)) if item.path else False
        names = (
            checkpoint.class_names(storage.path(item.path)) if known else _names_beside(item.path)
        )
        if not known and not {*names} & {*reference.names}:
            continue  # called otherwise throughout
        if len(names) == len(reference.names) and names != reference.names:
            lines.append(
                f"task.{name} was trained with other class names than {reference.owner}, "
                "or in another order: its logits stand for other classes"
            )
    return lines


def _fit(data: Any, task: Task, whose: str) -> Any:
    """A data set with labels as the batches of a task have them:
    a number for each record, or a mark for each class.
    """
    several = getattr(data, "multi_label", False)
    shapes = task.batch_shapes(1) if hasattr(task, "batch_shapes") else {}
    # (B, H, W) of pixels is one label each.
    wanted = len(shapes["label"].shape) == 2 if "label" in shapes else several
    if several and not wanted:
        raise UserError(
            f"records of {whose} have several labels: give --config.task.multi_label=True"
        )
    return data.with_marks() if wanted and not several and hasattr(data, "with_marks") else data


def _data_sets(evaluation: Any) -> dict[str, Any]:
    """The fields of an evaluation whose labels stand for logits, by name."""
    if not dataclasses.is_dataclass(evaluation) or getattr(evaluation, "own_classes", False):
        return {}
    values = {
        field.name: getattr(evaluation, field.name) for field in dataclasses.fields(evaluation)
    }
    return {name: value for name, value in values.items() if hasattr(value, "class_names")}
