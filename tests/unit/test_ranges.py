"""Every number that a config can set, or that a face takes, has a range; what is outside is refused."""

import importlib
import inspect
import json
import math
import pathlib
import pkgutil
import types
import typing
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from swin_jax.core.public_names import current_names, find
from swin_jax.core.ranges import Ascending, NotEmpty, PositiveFloat, Range, RangeError, ranges, refusal
from swin_jax.data.image.transforms import clip_preprocess
from swin_jax.inference.loaded_model import LoadedModel
from swin_jax.ops import augmentation
from swin_jax.pretrained.load import FAMILIES
from swin_jax.tasks.classification import Classification
from swin_jax.tasks.contrastive import Contrastive
from swin_jax.tasks.masked_image import MaskedImageModeling
from tests.unit.experiments.test_golden_configs import GOLDEN, make

NAN, INF = float("nan"), float("inf")
ROOMS = ("data", "evals", "models", "optim", "pretrained", "tasks", "train")
FACES = ("swin_jax.models.clip", "swin_jax.models.swin", "swin_jax.models.video_swin", "swin_jax.optim")


def named_by_configs():
    """The callables of this package in the resolved configs of all experiments."""
    names = set()
    for path in pathlib.Path(GOLDEN).glob("*.txt"):
        for lines in make.read(path).values():
            if "refused" not in lines:
                values = current_names({key: json.loads(value) for key, value in lines.items()}).values()
                names |= {value for value in values if str(value).startswith("swin_jax.")}
    return [fn for fn in map(find, sorted(names)) if callable(fn)]


def makers():
    """Those, what the faces offer and the families make, tasks, evaluations, transforms and sources."""
    found = named_by_configs()
    for face in map(importlib.import_module, FACES):
        found += [getattr(face, name) for name in face.__all__ if inspect.isclass(getattr(face, name))]
        found += [getattr(face, name) for name in face.__all__ if name.startswith("make_")]
    found += [family.make for family in FAMILIES]
    for room in ROOMS:
        package = importlib.import_module(f"swin_jax.{room}")
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            for name, value in vars(module).items():
                ours = getattr(value, "__module__", "") == info.name and not name.startswith("_")
                if ours and (_is_task_or_evaluation(value) or name.endswith("_transform") or name == "Limits"):
                    found.append(value)
    return list({f"{fn.__module__}.{fn.__qualname__}": fn for fn in found}.items())


def _is_task_or_evaluation(value):
    is_protocol = getattr(value, "_is_protocol", False)
    return inspect.isclass(value) and not is_protocol and {"bind", "train_step"} & vars(value).keys()


MAKERS = [pytest.param(fn, id=name.removeprefix("swin_jax.")) for name, fn in makers()]


def bare_numbers(hint):
    """True if an annotation holds an int or a float without a range."""
    if range_of(hint) or typing.get_origin(hint) is Callable:
        return False
    return hint in (int, float) or any(map(bare_numbers, typing.get_args(hint)))


def parameters(fn):
    return {name: x for name, x in inspect.signature(fn).parameters.items() if name not in ("parent", "name")}


@pytest.mark.parametrize("fn", MAKERS)
def test_every_number_has_a_range(fn):
    found = ranges(fn)
    for name, parameter in parameters(fn).items():
        number = isinstance(parameter.default, (int, float)) and not isinstance(parameter.default, bool)
        assert name in found or not number, name
        assert not bare_numbers(found.get(name, parameter.annotation)), name


def is_union(hint):
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def range_of(hint):
    return next((part for part in getattr(hint, "__metadata__", ()) if isinstance(part, Range)), None)


def inside(hint):
    """A value that an annotation allows."""
    parts = typing.get_args(hint)
    if (found := range_of(hint)) is not None:
        kind = parts[0]
        return next(value for value in map(kind, (1, 3, 0.5, 0)) if value in found)
    if typing.get_origin(hint) is typing.Annotated or is_union(hint):
        return inside(parts[0])
    if typing.get_origin(hint) in (tuple, Sequence):
        return tuple(inside(part) for part in parts if part is not Ellipsis)
    return "x" if hint is str else None


def outside(hint):
    """Values that an annotation does not allow; none where it has no range."""
    parts = typing.get_args(hint)
    if (found := range_of(hint)) is not None:
        edges = [found.above, found.below]
        for bound, way in ((found.low, -INF), (found.high, INF)):
            near = None if bound is None else math.nextafter(bound, way)
            edges.append(near if near is None or parts[0] is float else round(bound + math.copysign(1, way)))
        edges = [edge for edge in edges if edge is not None and edge not in found.also]
        whole = [1.5, 3.0] if parts[0] is int else []
        return [NAN, INF, -INF, True, "1", 1j, *edges, *whole]
    if is_union(hint):
        return [value for part in parts for value in outside(part)]
    if Ascending() in getattr(hint, "__metadata__", ()):
        return [*outside(parts[0]), (), tuple(map(inside, typing.get_args(parts[0])))[:1], (0.9, 0.5)]
    if NotEmpty() in getattr(hint, "__metadata__", ()):
        return [*outside(parts[0]), ()]
    if typing.get_origin(hint) is Sequence or (parts and parts[-1] is Ellipsis):
        return [(value,) for value in outside(parts[0])]
    if typing.get_origin(hint) is tuple:
        right = [inside(part) for part in parts]
        wrong = [[*right[:i], value, *right[i + 1 :]] for i, part in enumerate(parts) for value in outside(part)]
        return [tuple(values) for values in (*wrong, right[:-1], [*right, right[-1]])]
    return []


CASES = [pytest.param(fn, name, id=f"{x.id}-{name}") for x in MAKERS for fn in x.values for name in ranges(fn)]


@pytest.mark.parametrize("fn, name", CASES)
def test_out_of_range(fn, name):
    hints = ranges(fn)
    required = [key for key, parameter in parameters(fn).items() if parameter.default is inspect.Parameter.empty]
    others = {key: inside(hints[key]) if key in hints else None for key in required}
    refused = outside(hints[name])
    assert refused
    for value in refused:
        with pytest.raises(RangeError, match=rf"^{name}=.*: it must be "):
            fn(**others | {name: value})


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize("channels, values", [(3, (0.5,) * 2), (3, (0.5,)), (3, (0.5,) * 4), (1, (0.5,) * 3), (3, ())])
@pytest.mark.parametrize("task", [Classification, Contrastive, MaskedImageModeling])
def test_statistics_have_a_number_for_each_channel(task, channels, values, name):
    right = dict(mean=(0.5,) * channels, std=(0.5,) * channels, channels=channels, image_size=8)
    required = dict.fromkeys(("num_classes",), 5) if task is Classification else {}
    task(None, None, **right, **required)
    with pytest.raises(RangeError, match=rf"^{name}=.*: it must have a number for each of {channels} channels$"):
        task(None, None, **right | {name: values}, **required)


NORMALIZING = [fn for _, fn in makers() if {"mean", "std"} <= ranges(fn).keys()]


@pytest.mark.parametrize("fn", [*NORMALIZING, LoadedModel, clip_preprocess], ids=lambda fn: fn.__name__)
@pytest.mark.parametrize("name, values", [("mean", (123.675, 116.28, 103.53)), ("std", (58.395, 57.12, 57.375))])
def test_statistics_of_pixels_up_to_255_are_refused(fn, name, values):
    """As mmcv, detectron2 and Keras write them, for pixels that are not divided by 255."""
    required = [key for key, parameter in parameters(fn).items() if parameter.default is inspect.Parameter.empty]
    others = {key: inside(ranges(fn)[key]) if key in ranges(fn) else None for key in required}
    if "num_classes" in others:
        others["num_classes"] = 2  # one is refused
    right = others | dict(mean=(0.5,) * 3, std=(1.0,) * 3)
    fn(**right)
    with pytest.raises(RangeError, match=rf"^{name}=.*: it must be of pixels in 0..1, not 0..255: divide it by 255$"):
        fn(**right | {name: values})


def test_the_tasks_are_among_those_that_normalize():
    assert {"Classification", "Contrastive", "Segmentation", "SampleQuality", "Survey"} <= {
        fn.__name__ for fn in NORMALIZING
    }


def test_a_gray_image_does_not_become_three_channels():
    with pytest.raises(RangeError, match="^mean=.* each of 1 channels"):
        augmentation.normalize(np.zeros((1, 4, 4, 1), np.uint8))


def test_arrays_and_lists_are_as_good_as_tuples():
    for values in ([0.5, 0.5], np.full(2, 0.5), np.full(2, 0.5, np.float32)):
        assert refusal(tuple[PositiveFloat, ...], values) == refusal(tuple[PositiveFloat, PositiveFloat], values) == ""
    for values in (np.full((1, 2), 0.5), np.array([True, True]), np.array(["1"]), "12", {0.5: 1}, {0.5}):
        assert refusal(tuple[PositiveFloat, ...], values)
