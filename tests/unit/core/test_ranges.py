"""Ranges in signatures: what they let pass, what they refuse, and what they call it."""

import dataclasses
import inspect
import pickle

import flax.linen as nn
import numpy as np
import pytest
from ml_collections import ConfigDict

from swin_jax.core.config import build, spec
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    RangeError,
    Rate,
    checked,
)
from swin_jax.core.sizes import Size

NAN, INF = float("nan"), float("inf")


@checked
def optimizer(decay: Rate = 0.9, clip_norm: NonNegativeFloat | None = None, name: str = "sgd"):
    """A rule."""
    return decay, clip_norm, name


@checked
@dataclasses.dataclass(frozen=True)
class Task:
    image_size: Size
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.0)
    classes: NonNegativeInt = 0
    mixup: Fraction = 0.0


@checked
class Layer(nn.Module):
    width: PositiveInt = 1
    inner: nn.Module | None = None


class Source:
    @checked
    def __init__(self, limit: PositiveInt):
        self.limit = limit


REFUSED = [
    *[(optimizer, dict(decay=value)) for value in (1.0, -1e-9, NAN, INF, -INF, True, "0.5", None, (0.5,), 1 + 1j)],
    *[(optimizer, dict(clip_norm=value)) for value in (-1, NAN, INF, False)],
    *[(Task, dict(image_size=value)) for value in (0, -1, 3.0, True, (8, 0), (8, 3.0), ("8",), None)],
    *[(Task, dict(image_size=8, std=value)) for value in ((1.0, 1.0), (1.0, 0.0, 1.0), 1.0, (1.0,) * 4)],
    *[(Task, dict(image_size=8, classes=value)) for value in (-1, 1.5, True, np.float32(1))],
    *[(Task, dict(image_size=8, mixup=value)) for value in (1.1, -0.1)],
    *[(Layer, dict(width=value)) for value in (0, 2.0, None)],
    *[(Source, dict(limit=value)) for value in (0, 2.0, None)],
]


@pytest.mark.parametrize("fn, arguments", REFUSED)
def test_out_of_range(fn, arguments):
    name = list(arguments)[-1]
    with pytest.raises(RangeError, match=rf"^{name}=.*: it must be "):
        fn(**arguments)


@pytest.mark.parametrize(
    "fn, arguments",
    [
        (optimizer, {}),
        (optimizer, dict(decay=0, clip_norm=None)),
        (optimizer, dict(decay=np.float32(0.5), clip_norm=0)),
        (Task, dict(image_size=8)),
        (Task, dict(image_size=(8, np.int64(16)), std=[1, 2.0, 3], mixup=1)),
        (Layer, dict(width=np.int32(3))),
        (Source, dict(limit=1)),
    ],
)
def test_in_range(fn, arguments):
    fn(**arguments)


def test_the_rest_stays_as_it_was():
    assert optimizer.__doc__ == "A rule." and list(inspect.signature(optimizer).parameters)[0] == "decay"
    assert pickle.loads(pickle.dumps(optimizer)) is optimizer
    assert dataclasses.replace(Task(8), classes=3) == Task(8, classes=3) and hash(Task(8)) == hash(Task(8))
    assert Layer(2).clone(inner=Layer()) == Layer(2, Layer())
    with pytest.raises(TypeError, match=r"optimizer\(\) got an unexpected keyword"):
        optimizer(decy=1)
    with pytest.raises(RangeError):
        dataclasses.replace(Task(8), classes=-3)


@pytest.mark.parametrize(
    "found, text, code",
    [
        (Range(), "finite", "Range()"),
        (Range(low=1), "at least 1", "Range(low=1)"),
        (Range(low=0, below=1), "at least 0 and below 1", "Range(low=0, below=1)"),
        (
            Range(above=0, high=0.5, also=(-1,)),
            "above 0 and at most 0.5, or -1",
            "Range(high=0.5, above=0, also=(-1,))",
        ),
    ],
)
def test_words(found, text, code):
    assert str(found) == text and repr(found) == code


def test_config_names_the_key():
    config = spec(Task, image_size=8)
    config.classes = -1
    with pytest.raises(UserError, match=r"^--config\.run\.task\.classes=-1: it must be a whole number, at least 0$"):
        build(ConfigDict({"task": config}), "run")


def test_messages():
    with pytest.raises(RangeError, match=r"std=\(1.0, 0.0, 1.0\): it must be a tuple of 3 numbers, above 0"):
        Task(8, std=(1.0, 0.0, 1.0))
    with pytest.raises(RangeError, match="a whole number, at least 1, or a tuple of whole numbers, at least 1"):
        Task(0)
