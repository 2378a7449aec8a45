"""Treatment of unreadable records in training and evaluation.

Only errors that a file causes make a record unreadable. A TypeError or KeyError is a mistake in a
source or a transform and keeps its traceback.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from swin_jax.core.errors import UnreadableError, UserError, did_you_mean
from swin_jax.core.output.text import shown

log = logging.getLogger(__name__)

CAUSES = (UnreadableError, OSError, EOFError)
POLICIES = ("refuse", "leave_out")
MAX_RUN = 100  # so many unreadable records in a row mean that the data set is broken

_named: set[str] = set()  # unreadable records that this process has warned about


def check_policy(policy: Any) -> None:
    """Raises UserError for a policy that does not exist."""
    if policy not in POLICIES:
        hint = did_you_mean(str(policy), POLICIES)
        raise UserError(f"unreadable={policy!r} must be 'refuse' or 'leave_out'{hint}")


def read(
    source: Any, index: int, transform: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """Reads and transforms a record of a source.

    Raises one of CAUSES if it cannot be read; any other error gets a note that names the record.
    """
    try:
        return transform(source[index])
    except (*CAUSES, UserError):
        raise
    except Exception as error:
        error.add_note(f"while {source.record_name(index)} was read")
        raise


def read_or_next(
    index: int, rng: np.random.Generator, source: Any, transform: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    """The transformed record, or the next readable one with `bad` 1;
    raises UserError after MAX_RUN unreadable records.
    """
    start = rng.bit_generator.state
    for skipped in range(MAX_RUN):
        record = (int(index) + skipped) % len(source)
        try:
            example = read(source, record, lambda example: transform(example, rng))
            return {**example, "bad": np.uint8(skipped > 0)}
        except CAUSES as error:  # video frames are decoded only once the transform chooses them
            found, rng.bit_generator.state = error, start
        _warn_once(source.record_name(record), found, "using the next record instead")
    raise _broken(source, record, found)


def read_for_evaluation(
    source: Any, index: int, transform: Callable[[dict[str, Any]], dict[str, Any]], policy: str
) -> dict[str, Any] | None:
    """The transformed record; for an unreadable record, None or UserError, depending on the
    policy.
    """
    try:
        return read(source, index, transform)
    except CAUSES as error:
        name = source.record_name(index)
        if policy == "leave_out":
            _warn_once(name, error, "leaving it out of the evaluation")
            return None
        raise UserError(
            f"{name} cannot be read ({describe(error)}); an evaluation needs every record: repair "
            "or remove it, or leave unreadable records out with unreadable='leave_out' of its data"
        ) from error


def stand_in(
    source: Any, index: int, transform: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """The next readable record after an unreadable one, to give its row the right shapes;
    raises UserError after MAX_RUN unreadable records.
    """
    for step in range(1, min(MAX_RUN, len(source)) + 1):
        record = (index + step) % len(source)
        try:
            return read(source, record, transform)
        except CAUSES as error:
            found = error
    raise _broken(source, record, found)


def left_out(data: Any, count: int) -> dict[str, int]:
    """{'left_out': number of records that an evaluation left out}; {} if it may not leave out any.

    Args:
        data: A `pipeline.EvalData`.
        count: Number of its records that were read, on all processes together.
    """
    return {"left_out": data.num_examples - int(count)} if may_leave_out(data) else {}


def may_leave_out(data: Any) -> bool:
    """True if evaluations on this data leave unreadable records out."""
    return getattr(data, "unreadable", "refuse") == "leave_out"


def describe(error: Exception) -> str:
    """Describes an error in one line."""
    return shown(f"{type(error).__name__}: {' '.join(str(error).split())}")


def _broken(source: Any, record: int, error: Exception) -> UserError:
    count = min(MAX_RUN, len(source))
    return UserError(
        f"{count} records in a row are unreadable, "
        f"the last one is {source.record_name(record)} ({describe(error)}); check the data set"
    )


def _warn_once(name: str, error: Exception, remedy: str) -> None:
    if name not in _named:
        _named.add(name)
        log.warning("unreadable record %s (%s); %s", shown(name), describe(error), remedy)
