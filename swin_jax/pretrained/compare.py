"""Compares a state dict with the names and shapes that a model expects; shared by all families.

A state dict is {official name: numpy array in PyTorch's layout}.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from swin_jax.core.errors import UserError

# Tensors that official modules compute from the architecture, yet store; they are rebuilt here.
BUFFERS = ("relative_position_index", "relative_coords_table", "attn_mask", "num_batches_tracked")
# Put before every name by DistributedDataParallel and training scripts.
WRAPPER_PREFIXES = ("module.", "model.")
# Put into names by torch.compile, FSDP (fairscale's too) and activation checkpointing,
# at every module they wrap.
_WRAPPER_PARTS = (
    r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_fpw_module|_ddp_module)\."
)


# Missing blocks are normally reported by name; if the highest index is more than this many times
# the number of blocks, `count_of` refuses the weights instead.
_MOST_MISSING = 8
_MOST_NAMED = 5  # names of a kind in a report of one line


# Errors that conversions raise for arrays of unexpected shapes.
SHAPE_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, MemoryError)


def no_model_of(source: object, error: Exception) -> UserError:
    """The error for weights whose arrays have shapes that no model here has."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return UserError(
        f"{source}: the file is damaged, or its arrays have shapes of no model here ({reason})"
    )


def check_channels_first(name: str, weight: np.ndarray) -> None:
    """Raises UserError for a patch embedding with channels last, as in files of MLX.

    (E, 4, 4, 3) would be read as 4 channels and patches of 4 x 3.

    Args:
        name: Name of the weights.
        weight: The weights, which should be (E, C, *patch).
    """
    *patch, channels = weight.shape[1:]
    if len(patch) < 2 or channels not in (1, 3) or patch[0] in (1, 3):
        return
    if patch[-2] == patch[-1] != channels:
        raise UserError(
            f"{name} has the shape {weight.shape}: its channels come last, as in files of MLX; "
            "np.moveaxis(weight, -1, 1) moves them to where PyTorch has them"
        )


def is_buffer(name: str) -> bool:
    """True if an official name is a buffer: computed from the architecture, not learned."""
    return name.rsplit(".", 1)[-1] in BUFFERS


def drop_buffers(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The state dict without its buffers."""
    return {name: value for name, value in state_dict.items() if not is_buffer(name)}


def strip_prefix(state_dict: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Removes `prefix` if every name has it; otherwise the names are unchanged."""
    if not state_dict or not all(name.startswith(prefix) for name in state_dict):
        return dict(state_dict)
    return {name[len(prefix) :]: value for name, value in state_dict.items()}


def strip_wrappers(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Removes everything that training wrappers add to names, in any order.

    Raises:
        UserError: Two names become the same.
    """
    state_dict = _strip_parts(state_dict)
    for _ in WRAPPER_PREFIXES:
        for prefix in WRAPPER_PREFIXES:
            state_dict = strip_prefix(state_dict, prefix)
    return dict(state_dict)


def _strip_parts(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    plain = {}
    for name, value in state_dict.items():
        stripped = re.sub(_WRAPPER_PARTS, "", name)
        if stripped in plain:
            raise UserError(
                f"two arrays would both be called {stripped} once the parts that training "
                "wrappers add to names are removed"
            )
        plain[stripped] = value
    return plain


def count_of(numbers: Iterable[int], what: str) -> int:
    """The number of things that are indexed from 0: the highest index in their names, plus 1.

    Args:
        numbers: Indices of the things, in any order.
        what: The things, for messages, 'blocks of layers.0' for example.

    Raises:
        UserError: The highest index is far above the number of things, so most of the file is
            missing or its names are forged.
    """
    found = set(numbers)
    count = max(found, default=-1) + 1
    if count > _MOST_MISSING * (len(found) + 1):
        raise UserError(
            f"these weights number {len(found)} {what} up to {count - 1}: the others are missing"
        )
    return count


@dataclass(frozen=True)
class Report:
    """The difference between the names and shapes that were found and those that were expected.

    Attributes:
        missing: Names that were expected but not found.
        unexpected: Names that were found but not expected.
        misshaped: (name, found shape, expected shape).
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    def __bool__(self) -> bool:
        """True if there is any difference."""
        return bool(self.missing or self.unexpected or self.misshaped)

    def error(self, what: str) -> UserError:
        """The error that lists all differences.

        Args:
            what: The beginning of the message, 'these weights are not for this CLIP' for example.
        """
        items = [f"missing     {name}" for name in self.missing]
        items += [f"unexpected  {name}" for name in self.unexpected]
        items += [
            f"mis-shaped  {name}: {found}, expected {wanted}"
            for name, found, wanted in self.misshaped
        ]
        return UserError(
            f"{what}: {len(self.missing)} missing, {len(self.unexpected)} unexpected, "
            f"{len(self.misshaped)} mis-shaped keys",
            items,
        )

    def line(self) -> str:
        """The differences in one line, with the first names of each kind."""
        shapes = [f"{name} {found} instead of {wanted}" for name, found, wanted in self.misshaped]
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "mis-shaped": shapes}
        return "; ".join(f"{kind} {_first(names)}" for kind, names in kinds.items() if names)


def _first(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_NAMED
    return ", ".join(name[:200] for name in names[:_MOST_NAMED]) + (
        f" and {rest} more" if rest > 0 else ""
    )


def compare(found: Mapping, expected: Mapping, allowed: Iterable[str] = ()) -> Report:
    """Compares names and shapes.

    Args:
        found: {name: array or anything with a shape}. Buffers are ignored.
        expected: {name: shape}.
        allowed: Names that may be there although they are not expected.

    Returns:
        The report, which is falsy if there is no difference.
    """
    shapes = {name: tuple(np.shape(value)) for name, value in found.items() if not is_buffer(name)}
    allowed = set(allowed)
    return Report(
        missing=tuple(name for name in expected if name not in shapes),
        unexpected=tuple(name for name in shapes if name not in expected and name not in allowed),
        misshaped=tuple(
            (name, shapes[name], tuple(shape))
            for name, shape in expected.items()
            if name in shapes and shapes[name] != tuple(shape)
        ),
    )


def check(found: Mapping, expected: Mapping, what: str, allowed: Iterable[str] = ()) -> None:
    """Raises a UserError that lists every missing, unexpected and mis-shaped key, if there is one.

    Args:
        found, expected, allowed: The same as in `compare`.
        what: The model, for the message.
    """
    report = compare(found, expected, allowed)
    if report:
        raise report.error(f"these weights are not for {what}")
