"""The grid of a fused window attention, and the blocks of the arrays that each of its steps has."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from swin_jax.ops.kernels.tiling import Problem, Tiling


@dataclasses.dataclass(frozen=True)
class Call:
    """One kernel call: the grid (part, group of heads, block of queries or keys, step over
    windows).

    Steps over windows are innermost, so that a block of the bias is fetched once. The parts share
    the windows among the two cores of a chip that has two.

    Attributes:
        problem: The shapes.
        blocks: The part that one step computes.
        cosine: True for scaled cosine attention.
    """

    problem: Problem
    blocks: Tiling
    cosine: bool

    @property
    def whole(self) -> bool:
        """True if a step has all heads: it slices them, and q, k and v, out of one block."""
        return self.blocks.heads == self.problem.heads

    @property
    def split(self) -> bool:
        """True if a step has a part of the queries or of the keys."""
        return min(self.blocks.queries, self.blocks.keys) < self.problem.tokens

    @property
    def one_view(self) -> bool:
        """True if one block of qkv has all that a step reads of it."""
        return self.whole and not self.split

    @property
    def channels(self) -> int:
        """Channels of a step's heads."""
        return self.blocks.heads * self.problem.size

    @property
    def grid(self) -> tuple[int, int, int, int]:
        """Numbers of parts, groups of heads, blocks of queries or keys, and steps over windows."""
        steps = self.problem.rows // self.blocks.windows
        groups = self.problem.heads // self.blocks.heads
        split = pl.cdiv(self.problem.tokens, min(self.blocks.queries, self.blocks.keys))
        parts = 2 if groups * split == 1 and steps % 2 == 0 else 1
        return parts, groups, split, steps // parts

    def inputs(self, qkv, bias, regions, scale):
        """Arrays that every pass reads and their blocks, both as lists: one to three views of qkv,
        the bias, the regions (nW, 1, N) and the scale where there are any.
        """
        p, t = self.problem, self.blocks
        steps, groups = self.grid[3], self.grid[1]
        if self.one_view:
            specs = [self.tokens_spec(p.tokens, 3 * self.channels)]
        elif self.whole:
            specs = [self.tokens_spec(count, 3 * self.channels) for count in (t.queries, t.keys)]
        else:
            specs = [
                self.tokens_spec(count, self.channels, lambda g, first=first: first * groups + g)
                for first, count in enumerate((t.queries, t.keys, t.keys))
            ]
        arrays = [qkv] * len(specs) + [bias]
        specs.append(self.bias_spec())
        if regions is not None:
            if t.windows > p.regions:
                regions = jnp.tile(regions, (t.windows // p.regions, 1, 1))
            period = len(regions) // t.windows
            arrays.append(regions)
            specs.append(
                pl.BlockSpec(
                    (t.windows, 1, t.keys),
                    lambda c, g, b, s: ((c * steps + s) % period, 0, self._place(t.keys, b)),
                )
            )
        if scale is not None:
            arrays.append(scale)
            specs.append(pl.BlockSpec(memory_space=pltpu.SMEM))
        return arrays, specs

    def tokens_spec(
        self, count: int, width: int, place: Callable[[int], int] = lambda g: 0
    ) -> pl.BlockSpec:
        """The block (windows, count, width) of an array (rows, N, ...); `place` gives the position
        of a group of heads along the last axis.
        """
        steps = self.grid[3]
        return pl.BlockSpec(
            (self.blocks.windows, count, width),
            lambda c, g, b, s: (c * steps + s, self._place(count, b), place(g)),
        )

    def heads_spec(self, count: int) -> pl.BlockSpec:
        """The block of an array (rows, N, C) that belongs to the heads of a step."""
        return self.tokens_spec(count, self.channels, lambda g: g)

    def bias_spec(self, parts: bool = False) -> pl.BlockSpec:
        """The block of the bias (h, N, N), or of its gradient (parts, h, N, N)."""
        t = self.blocks

        def index(c, g, b, s):
            place = g, self._place(t.queries, b), self._place(t.keys, b)
            return (c, *place) if parts else place

        return pl.BlockSpec((None,) * parts + (t.heads, t.queries, t.keys), index)

    def statistics(self) -> tuple[jax.ShapeDtypeStruct, pl.BlockSpec]:
        """The result of the first backward pass that the second one reads, (groups, rows, N,
        2 * heads + 1): of each query the logarithm of the sum of its weights before they were
        normalized, the mean of their gradients, and its region.
        """
        p, t = self.problem, self.blocks
        steps, width = self.grid[3], 2 * t.heads + 1
        shape = (p.heads // t.heads, p.rows, p.tokens, width)
        spec = pl.BlockSpec(
            (None, t.windows, t.queries, width),
            lambda c, g, b, s: (g, c * steps + s, self._place(t.queries, b), 0),
        )
        return jax.ShapeDtypeStruct(shape, jnp.float32), spec

    def sums(self) -> tuple[list[jax.ShapeDtypeStruct], list[pl.BlockSpec]]:
        """The gradients of the bias, (parts, h, N, N), and of the scale."""
        p, (parts, groups, split, _) = self.problem, self.grid
        bias = jax.ShapeDtypeStruct((parts, p.heads, p.tokens, p.tokens), jnp.float32)
        heads = (self.blocks.heads, 1)
        scale = jax.ShapeDtypeStruct((parts, groups, split, *heads), jnp.float32)
        spec = pl.BlockSpec((None, None, None, *heads), lambda c, g, b, s: (c, g, b, 0, 0))
        return [bias, scale], [self.bias_spec(parts=True), spec]

    def _place(self, count, block):
        """The block of an axis of which a step has so many tokens."""
        return block if count < self.problem.tokens else 0
