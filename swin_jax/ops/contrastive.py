"""Contrastive losses over a global batch of image-text pairs, in three exact forms.

The symmetric softmax loss of CLIP (arXiv 2103.00020, figure 3) and the sigmoid loss of SigLIP
(arXiv 2303.15343). The plain form is one matrix of logits, for which the compiler inserts what
communication it needs; `local_` and `ring_` are per-device code for `jax.shard_map`, where
each device holds its rows of both sides. In a ring the texts travel from device to device and
a device looks at a few columns at a time, so that no more than (B / devices, chunk) logits
exist at once, in the backward pass too. All forms give the same value and gradient as one
device with the whole batch.

Features are (B, E) float32 of length 1. Everything is computed in float32.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

WRITTEN_OUT = 16  # devices in a ring that is not a loop in the program

Axes = tuple[str, ...]
Metrics = dict[str, jax.Array]


def softmax_loss(
    image: jax.Array, text: jax.Array, scale: jax.Array, ids: jax.Array
) -> tuple[jax.Array, Metrics]:
    """The mean of the cross-entropies of each image against all texts and of each
    text against all images.

    Args:
        image, text: (B, E) float32, of length 1; row i of both is a pair.
        scale: () float32, the logits' factor, exp(logit_scale).
        ids: (B,) int, pairs of the same number are positives of each other and share the target
            evenly; all different for the published loss.

    Returns:
        The loss, and the fractions of images and texts whose best partner in the
        batch is a positive.
    """
    logits = scale * _dot(image, text)
    same = ids[:, None] == ids[None, :]
    total = 0.0
    # The positive is subtracted first: a small loss is not the difference of large numbers.
    for axis in (1, 0):
        positive = jnp.where(same, logits, 0.0).sum(axis, keepdims=True) / same.sum(
            axis, keepdims=True
        )
        total += jax.nn.logsumexp(logits - positive, axis).mean()
    best = jnp.where(same, logits, -jnp.inf)
    accuracy = [(best.max(axis) >= logits.max(axis)).mean(dtype=jnp.float32) for axis in (1, 0)]
    return total / 2, dict(image_to_text=accuracy[0], text_to_image=accuracy[1])


def local_softmax_loss(
    image: jax.Array, text: jax.Array, scale: jax.Array, ids: jax.Array, axes: Axes
) -> tuple[jax.Array, Metrics]:
    """`softmax_loss` under `jax.shard_map`: both sides are gathered,
    and a device makes its rows of both matrices.

    Args:
        image, text: (B / devices, E), this device's rows.
        scale, ids: The same as in `softmax_loss`; ids (B / devices,).
        axes: The mesh axes that the batch is split over.
    """
    every_id = _gather(ids, axes)
    total, accuracy = 0.0, []
    for ours, theirs in ((image, text), (text, image)):
        logits = scale * _dot(ours, _gather(theirs, axes))  # (B / devices, B)
        same = ids[:, None] == every_id[None, :]
        positive = jnp.where(same, logits, 0.0).sum(1, keepdims=True) / same.sum(1, keepdims=True)
        total += _mean(jax.nn.logsumexp(logits - positive, 1), axes)
        accuracy.append(_mean(jnp.where(same, logits, -jnp.inf).max(1) >= logits.max(1), axes))
    return total / 2, dict(image_to_text=accuracy[0], text_to_image=accuracy[1])


def ring_softmax_loss(
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    ids: jax.Array,
    axes: Axes = (),
    chunk: int = 512,
) -> tuple[jax.Array, Metrics]:
    """`softmax_loss` without the matrix, under `jax.shard_map`, or on one device with `axes=()`.

    Args:
        image, text, scale, ids, axes: The same as in `local_softmax_loss`.
        chunk: Texts that are looked at together; the largest divisor of this device's
            rows up to it.
    """

    def tile(rows, columns):
        logits = scale * _dot(image, columns["text"])  # (B / devices, chunk)
        same = ids[:, None] == columns["ids"][None, :]
        return _add_tile(rows, logits, same, 1), columns | _add_tile(columns, logits, same, 0)

    rows = _empty_sums(image, axes)
    rows, columns = over_ring(
        tile, rows, dict(text=text, ids=ids) | _empty_sums(text, axes), axes, chunk
    )
    losses, accuracy = zip(*(_finish(sums) for sums in (rows, columns)))
    means = [_mean(accuracy[i], axes) for i in (0, 1)]
    return (_mean(losses[0], axes) + _mean(losses[1], axes)) / 2, dict(
        image_to_text=means[0], text_to_image=means[1]
    )


def sigmoid_loss(
    image: jax.Array, text: jax.Array, scale: jax.Array, bias: jax.Array, ids: jax.Array
) -> tuple[jax.Array, Metrics]:
    """A binary cross-entropy for every pair of an image and a text, summed, divided by B (SigLIP,
    equation 1).

    Args:
        image, text, scale, ids: The same as in `softmax_loss`.
        bias: () float32, added to the logits.
    """
    logits = scale * _dot(image, text) + bias
    same = ids[:, None] == ids[None, :]
    loss = -jax.nn.log_sigmoid(jnp.where(same, logits, -logits)).sum(1).mean()
    best = jnp.where(same, logits, -jnp.inf)
    accuracy = [(best.max(axis) >= logits.max(axis)).mean(dtype=jnp.float32) for axis in (1, 0)]
    return loss, dict(image_to_text=accuracy[0], text_to_image=accuracy[1])


def ring_sigmoid_loss(
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    ids: jax.Array,
    axes: Axes = (),
    chunk: int = 512,
) -> tuple[jax.Array, Metrics]:
    """`sigmoid_loss` without the matrix; arguments as `ring_softmax_loss`."""

    def tile(rows, columns):
        logits = scale * _dot(image, columns["text"]) + bias
        same = ids[:, None] == columns["ids"][None, :]
        terms = -jax.nn.log_sigmoid(jnp.where(same, logits, -logits)).sum(1)
        rows = _add_best(rows, logits, same, 1) | dict(loss=rows["loss"] + terms)
        return rows, columns | _add_best(columns, logits, same, 0)

    def best(x):
        return {name: _empty_sums(x, axes)[name] for name in ("best", "max")}

    rows = best(image) | dict(loss=_empty_sums(image, axes)["sum"])
    rows, columns = over_ring(tile, rows, dict(text=text, ids=ids) | best(text), axes, chunk)
    means = [_mean(sums["best"] >= sums["max"], axes) for sums in (rows, columns)]
    return _mean(rows["loss"], axes), dict(image_to_text=means[0], text_to_image=means[1])


def over_ring(tile: Callable, rows: Any, columns: Any, axes: Axes, chunk: int) -> tuple[Any, Any]:
    """Shows every device's rows to every device's columns, a chunk at a time.

    Args:
        tile: (rows, columns of one chunk) -> the same, updated.
            Computed again in the backward pass.
        rows: Tree of arrays that stay on this device.
        columns: Tree of arrays (B / devices, ...) that travel once around and come home.
        axes: Mesh axes of the batch; () is one device.
        chunk: Columns at a time, at most.

    Returns:
        (rows, columns) after all tiles.
    """
    count = jax.tree.leaves(columns)[0].shape[0]
    size = max(n for n in range(1, min(chunk, count) + 1) if count % n == 0)

    def split(x):
        return x.reshape(count // size, size, *x.shape[1:])

    # Without the checkpoint every tile's logits are kept for the backward pass,
    # which is the whole matrix.
    tile = jax.checkpoint(tile, prevent_cse=False)

    def visit(carry, _):
        rows, columns = carry
        rows, columns = jax.lax.scan(tile, rows, columns)
        return (rows, _pass_on(columns, axes)), None

    # A short ring is written out: XLA on CPUs (jax 0.10) runs a loop with communication in
    # it beside other communication, in another order on each device, and they wait for
    # each other for ever.
    devices = _devices(axes)
    carry = (rows, jax.tree.map(split, columns))
    (rows, columns), _ = jax.lax.scan(
        visit, carry, length=devices, unroll=devices <= WRITTEN_OUT or 1
    )
    return rows, jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), columns)


def _pass_on(tree, axes):
    if not axes:
        return tree
    devices = _devices(axes)
    ring = [(i, (i + 1) % devices) for i in range(devices)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, axes, ring), tree)


def _empty_sums(like: jax.Array, axes: Axes) -> dict[str, jax.Array]:
    """Running sums over the logits of each row: the largest, sum(exp(logit - largest)),
    those of the positives.
    """
    # Derived from an array that varies over the mesh, as a carry of a loop must from its start.
    zero = jnp.zeros_like(like, shape=like.shape[:1]) + 0 * jax.lax.stop_gradient(like[:, 0])
    return {
        "max": zero - jnp.inf,
        "best": zero - jnp.inf,
        "sum": zero,
        "positive": zero,
        "count": zero,
    }


def _add_best(sums, logits, same, axis):
    best = jnp.where(same, logits, -jnp.inf).max(axis)
    found = dict(
        best=jnp.maximum(sums["best"], best), max=jnp.maximum(sums["max"], logits.max(axis))
    )
    return sums | jax.lax.stop_gradient(found)


def _add_tile(sums, logits, same, axis):
    """Adds a tile's logits to the sums of its rows (axis 1) or columns (axis 0)."""
    new = _add_best({name: sums[name] for name in ("best", "max")}, logits, same, axis)
    grown = sums["sum"] * jnp.exp(sums["max"] - new["max"])
    terms = jnp.exp(logits - jnp.expand_dims(new["max"], axis)).sum(axis)
    positive = sums["positive"] + jnp.where(same, logits, 0.0).sum(axis)
    return new | dict(sum=grown + terms, positive=positive, count=sums["count"] + same.sum(axis))


def _finish(sums) -> tuple[jax.Array, jax.Array]:
    """(cross-entropies, whether the best is a positive) of rows whose sums are complete."""
    # In this order, since the two logits cancel where a pair is well learned and the loss is small.
    losses = (sums["max"] - sums["positive"] / sums["count"]) + jnp.log(sums["sum"])
    return losses, sums["best"] >= sums["max"]


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """All inner products (rows of a, rows of b); in full float32,
    since the factor 100 magnifies every rounding.
    """
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return jnp.einsum("ie,je->ij", a, b, precision=jax.lax.Precision.HIGHEST)


def _gather(x, axes):
    return jax.lax.all_gather(x, axes, axis=0, tiled=True) if axes else x


def _mean(x, axes):
    """The mean over all rows of all devices."""
    mean = x.astype(jnp.float32).mean()
    return jax.lax.pmean(mean, axes) if axes else mean


def _devices(axes) -> int:
    return functools.reduce(lambda n, axis: n * jax.lax.axis_size(axis), axes, 1)
