"""The blocks of a fused window attention, which fit the VMEM of a TPU core."""

import dataclasses
from collections.abc import Iterator

from swin_jax.core.errors import UserError

# v4 has 16 MiB, and the compiler gives a kernel no more than that on later chips either. A part of
# it holds what the estimate below does not know of: registers that are spilled.
VMEM = 12 * 2**20
MOST_WINDOWS = 16
_LANES, _SUBLANES = 128, 16


@dataclasses.dataclass(frozen=True)
class _Arrays:
    """The arrays that a step has at a time: of queries, of keys, biases of its heads, and of
    queries times keys of one head.
    """

    queries: int
    keys: int
    biases: int
    pairs: int


_FORWARD = _Arrays(queries=2, keys=2, biases=1, pairs=4)
_BACKWARD = _Arrays(queries=4, keys=4, biases=2, pairs=6)
_BY_KEYS = _Arrays(queries=3, keys=4, biases=1, pairs=6)


@dataclasses.dataclass(frozen=True)
class Problem:
    """The shapes of one attention.

    Attributes:
        rows: Windows of all images, B * nW.
        tokens: Tokens of a window, N.
        heads: Number of heads, h.
        size: Channels of a head, d.
        itemsize: Bytes of a number in qkv.
        regions: Windows of an image that have regions of their own; 0 for no mask.
    """

    rows: int
    tokens: int
    heads: int
    size: int
    itemsize: int
    regions: int = 0


@dataclasses.dataclass(frozen=True)
class Tiling:
    """The part that one step of the grid computes. Either queries or keys are all tokens; of the
    others, the last block may have fewer.

    Attributes:
        windows: Windows; they divide the rows.
        heads: Heads; either all of them, or so many that their channels fill whole lanes.
        queries: Tokens that attend.
        keys: Tokens that are attended to.
    """

    windows: int
    heads: int
    queries: int
    keys: int


def forward_tiling(problem: Problem) -> Tiling:
    """The blocks of the forward pass that move the fewest bytes: all heads and queries where they
    fit, then groups of heads, then blocks of queries, which read keys and values once each.

    Raises:
        UserError: Not even the smallest block fits.
    """
    for queries in _query_blocks(problem.tokens):
        for heads in _head_groups(problem):
            for windows in _window_blocks(problem):
                blocks = Tiling(windows, heads, queries, problem.tokens)
                if _vmem(problem, blocks, _FORWARD) <= VMEM:
                    return blocks
    raise _too_large(problem)


def backward_tiling(problem: Problem) -> tuple[Tiling, Tiling | None]:
    """The blocks of the backward pass, and those of a second pass over blocks of keys; None where
    one pass has all queries and gives the gradients of keys and values too.

    Raises:
        UserError: Not even the smallest block fits.
    """
    for queries in _query_blocks(problem.tokens):
        for heads in _head_groups(problem):
            for windows in _window_blocks(problem):
                blocks = Tiling(windows, heads, queries, problem.tokens)
                if _vmem(problem, blocks, _BACKWARD) > VMEM:
                    continue
                if queries == problem.tokens:
                    return blocks, None
                if by_keys := _by_keys(problem, heads):
                    return blocks, by_keys
    raise _too_large(problem)


def _vmem(problem: Problem, blocks: Tiling, arrays: _Arrays) -> int:
    """Bytes of VMEM that a step takes, by estimate. Blocks count twice, because the next ones are
    fetched meanwhile.
    """
    queries, keys = _up(blocks.queries, _SUBLANES), _up(blocks.keys, _SUBLANES)
    channels = _up(blocks.heads * problem.size, _LANES) * problem.itemsize
    pairs = 4 * queries * _up(blocks.keys, _LANES)
    tokens = blocks.windows * (arrays.queries * queries + arrays.keys * keys) * channels
    return (
        2 * (tokens + arrays.biases * blocks.heads * pairs) + arrays.pairs * blocks.windows * pairs
    )


def _by_keys(problem: Problem, heads: int) -> Tiling | None:
    whole = _up(problem.tokens, _LANES)
    # Keys are lanes of the bias.
    for keys in (problem.tokens, *range(whole - _LANES, 0, -_LANES)):
        for windows in _window_blocks(problem):
            blocks = Tiling(windows, heads, problem.tokens, keys)
            if _vmem(problem, blocks, _BY_KEYS) <= VMEM:
                return blocks
    return None


def _query_blocks(tokens: int) -> Iterator[int]:
    """Numbers of queries, the largest first."""
    yield tokens
    for count in range(2, tokens // _SUBLANES + 1):
        yield _up(-(-tokens // count), _SUBLANES)


def _head_groups(problem: Problem) -> list[int]:
    """Numbers of heads, the largest first."""
    smaller = range(problem.heads - 1, 0, -1)
    return [
        problem.heads,
        *(n for n in smaller if problem.heads % n == 0 and n * problem.size % _LANES == 0),
    ]


def _window_blocks(problem: Problem) -> list[int]:
    """Numbers of windows, the largest first. The regions of a block are those of whole images, or
    of an equal part of one.
    """
    period = problem.regions or 1
    return [
        n
        for n in range(min(MOST_WINDOWS, problem.rows), 0, -1)
        if problem.rows % n == 0 and (n % period == 0 or period % n == 0)
    ]


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _too_large(problem: Problem) -> UserError:
    return UserError(
        f"fused attention over {problem.tokens} tokens with {problem.heads} heads of "
        f"{problem.size} channels does not fit the memory of a TPU core: give attention='xla' "
        "or 'sequential'"
    )
