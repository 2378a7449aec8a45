"""The arithmetic of a fused window attention, one step of the grid at a time."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from swin_jax.ops.kernels.blocks import Call
from swin_jax.ops.normalize import unit
from swin_jax.ops.window_geometry import MASKED


def forward(call: Call, *refs) -> None:
    """Writes the result, (windows, queries, channels)."""
    *refs, out = refs
    step = _step(call, refs)
    for head in range(call.blocks.heads):
        q, k, v = step.heads(head)
        if call.cosine:
            q, k = _rounded(unit(q) * step.scale(head), q), _rounded(unit(k), k)
        weights, _ = _softmax(step.logits(q, k, head))
        _write(out, head, _product("wqk,wkd->wqd", _rounded(weights, v), v))


def backward(call: Call, *refs) -> None:
    """Writes the gradients of qkv, or of q, k and v, or of q and the statistics for
    `backward_by_keys`; adds to those of bias and scale.
    """
    outputs = _outputs(call)
    refs, (out_gradient, *outputs) = refs[: -outputs - 3], refs[-outputs - 3 :]
    *outputs, bias_gradient, scale_gradient = outputs
    step, size = _step(call, refs), call.problem.size

    @pl.when(pl.program_id(3) == 0)
    def _():
        bias_gradient[...] = jnp.zeros(bias_gradient.shape, jnp.float32)
        scale_gradient[...] = jnp.zeros(scale_gradient.shape, jnp.float32)

    for head in range(call.blocks.heads):
        q, k, v = step.heads(head)
        out = step.clear(out_gradient[:, :, head * size : (head + 1) * size])
        if call.cosine:
            (unit_q, pull_q), (unit_k, pull_k) = jax.vjp(unit, q), jax.vjp(unit, k)
            q, k = _rounded(unit_q * step.scale(head), q), _rounded(unit_k, k)
        weights, total = _softmax(step.logits(q, k, head))
        of_weights = _product("wqd,wkd->wqk", out, v)
        mean = jnp.sum(of_weights * weights, -1, keepdims=True)
        of_logits = weights * (of_weights - mean)
        bias_gradient[head] += jnp.sum(of_logits, 0)
        of_logits = _rounded(of_logits, q)
        dq = _product("wqk,wkd->wqd", of_logits, k)
        if call.cosine:
            of_scale = jnp.sum(jnp.sum(dq * unit_q, 0), 0, keepdims=True)  # (1, d)
            scale_gradient[head : head + 1] += jnp.sum(of_scale, 1, keepdims=True)
            (dq,) = pull_q(dq * step.scale(head))
        if call.split:
            _write(outputs[0], head, dq)
            _write(outputs[1], head, total)
            _write(outputs[1], call.blocks.heads + head, mean)
            continue
        dk = _product("wqk,wqd->wkd", of_logits, q)
        dv = _product("wqk,wqd->wkd", _rounded(weights, v), out)
        if call.cosine:
            (dk,) = pull_k(dk)
        for i, x in enumerate((dq, dk, dv)):
            if call.one_view:
                _write(outputs[0], i * call.problem.heads + head, x)
            else:
                _write(outputs[i], head, x)
    if call.split and step.regions is not None:
        _write(outputs[1], 2 * call.blocks.heads, step.own_regions())


def backward_by_keys(call: Call, *refs) -> None:
    """Writes the gradients of a block of keys and of values, from all queries and their
    statistics.
    """
    *refs, statistics, out_gradient, key_gradient, value_gradient = refs
    heads, size = call.blocks.heads, call.problem.size
    step = _step(call, refs, own=statistics[:, :, 2 * heads :])
    for head in range(heads):
        q, k, v = step.heads(head)
        out = out_gradient[:, :, head * size : (head + 1) * size]
        if call.cosine:
            unit_k, pull_k = jax.vjp(unit, k)
            q, k = _rounded(unit(q) * step.scale(head), q), _rounded(unit_k, k)
        total, mean = (statistics[:, :, i : i + 1] for i in (head, heads + head))
        weights = jnp.exp(step.logits(q, k, head) - total)
        of_logits = weights * (_product("wqd,wkd->wqk", out, v) - mean)
        dk = _product("wqk,wqd->wkd", _rounded(of_logits, q), q)
        if call.cosine:
            (dk,) = pull_k(dk)
        _write(key_gradient, head, dk)
        _write(value_gradient, head, _product("wqk,wqd->wkd", _rounded(weights, v), out))


@dataclasses.dataclass(frozen=True)
class _Step:
    """The arrays that a step of the grid reads.

    Attributes:
        call: The kernel call.
        views: Blocks of q, k and v, which may be one and the same.
        bias: A block of the bias, (heads, queries, keys).
        regions: The regions of the keys, (windows, 1, keys), or None.
        scales: (h,) in scalar memory, or None.
        mask: (windows, queries, keys) to be added to the logits, or None.
    """

    call: Call
    views: tuple[Any, Any, Any]
    bias: Any
    regions: jax.Array | None
    scales: Any
    mask: jax.Array | None = None

    @property
    def pairs(self) -> tuple[int, int, int]:
        """The shape of the logits of a head."""
        blocks = self.call.blocks
        return blocks.windows, blocks.queries, blocks.keys

    def heads(self, head: int) -> list[jax.Array]:
        """q, k and v of a head: (windows, queries or keys, d)."""
        size, found = self.call.problem.size, []
        for i, view in enumerate(self.views):
            place = head + (i * self.call.problem.heads if self.call.whole else 0)
            found.append(view[:, :, place * size : (place + 1) * size])
        return [self.clear(found[0]), *found[1:]]

    def scale(self, head: int) -> jax.Array:
        """The factor of a head, a scalar."""
        return self.scales[pl.program_id(1) * self.call.blocks.heads + head]

    def logits(self, q: jax.Array, k: jax.Array, head: int) -> jax.Array:
        """(windows, queries, keys) float32."""
        logits = _product("wqd,wkd->wqk", q, k) + self.bias[head][None]
        return self.clear(logits if self.mask is None else logits + self.mask)

    def clear(self, x: jax.Array) -> jax.Array:
        """(windows, queries, ...) with zeros for queries beyond the last token: what is read there
        may be anything, NaN too, and sums over queries must not have it.
        """
        tokens, (_, queries, _) = self.call.problem.tokens, self.pairs
        if tokens % queries == 0:
            return x
        query = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1) + pl.program_id(2) * queries
        return jnp.where(query < tokens, x, jnp.zeros_like(x))

    def own_regions(self) -> jax.Array:
        """The regions of the queries, (windows, queries, 1), in a step that has all keys.

        A row cannot be turned into a column cheaply, but the diagonal of its copies can be summed.
        """
        keys, queries = jnp.broadcast_to(self.regions, self.pairs), self.call.blocks.queries
        start = pl.program_id(2) * queries if self.call.split else 0
        query = jax.lax.broadcasted_iota(jnp.int32, self.pairs, 1) + start
        diagonal = query == jax.lax.broadcasted_iota(jnp.int32, self.pairs, 2)
        return jnp.sum(jnp.where(diagonal, keys, 0.0), -1, keepdims=True)


def _outputs(call):
    """The number of arrays that `backward` writes besides those that it adds to."""
    if call.one_view:
        return 1
    return 2 if call.split else 3


def _step(call, refs, own=None):
    refs = list(refs)
    scales = refs.pop() if call.cosine else None
    regions = refs.pop()[...] if call.problem.regions else None
    *views, bias = refs
    # One block of everything, one of queries and one of keys and values, or three.
    views = (views[0], views[min(1, len(views) - 1)], views[-1])
    step = _Step(call, views, bias, regions, scales)
    if regions is None:
        return step
    own = step.own_regions() if own is None else own
    return dataclasses.replace(step, mask=jnp.where(own == regions, 0.0, MASKED))


def _softmax(logits):
    """The weights, and the logarithm of what they were divided by, (windows, queries, 1)."""
    most = jnp.max(logits, -1, keepdims=True)
    weights = jnp.exp(logits - most)
    total = jnp.sum(weights, -1, keepdims=True)
    return weights / total, most + jnp.log(total)


def _rounded(x, like):
    return x.astype(like.dtype)


def _write(ref, place, x):
    size = x.shape[-1]
    ref[:, :, place * size : (place + 1) * size] = x.astype(ref.dtype)


def _product(subscripts, one, other):
    # jax_default_matmul_precision is for float32; the compiler refuses all but the default for
    # bfloat16, whose products are exact anyhow.
    precision = None if one.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    return jnp.einsum(
        subscripts, one, other, precision=precision, preferred_element_type=jnp.float32
    )
