"""Losses and counts of labels for each pixel, where `constants.IGNORED` is no class.

References: `CrossEntropyLoss`, `accuracy` and `intersect_and_union` of
Swin-Transformer-Semantic-Segmentation (mmsegmentation 0.11).
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from swin_jax.core.constants import IGNORED
from swin_jax.ops.resampling import resize_bilinear


def pixel_loss(
    logits: jax.Array, label: jax.Array, count_ignored: bool = True
) -> tuple[jax.Array, jax.Array]:
    """The mean cross entropy of the pixels of a batch, and the share of them that are right.

    Args:
        logits: (B, h, w, K), which are brought to the size of the labels.
        label: uint8 (B, H, W), 0 to K - 1 or IGNORED.
        count_ignored: True: an ignored pixel adds 0, is never right, and counts in the divisor of
            both, as in the released code. False: the divisor is the number of labeled pixels.

    Returns:
        Two float32 scalars; 0 where no pixel is labeled.
    """
    logits = resize_bilinear(logits.astype(jnp.float32), label.shape[1:])
    labeled = label != IGNORED
    # Without a gather, whose gradient is a scatter.
    classes = jnp.arange(logits.shape[-1])[None, None, None]
    own = jnp.where(label[..., None] == classes, logits, 0.0).sum(axis=-1)
    each = jnp.where(labeled, jax.nn.logsumexp(logits, axis=-1) - own, 0.0)
    right = labeled & (jnp.argmax(logits, axis=-1) == label)
    divisor = label.size if count_ignored else jnp.maximum(labeled.sum(), 1)
    return each.sum() / divisor, right.sum() / divisor


def pixel_labels(logits: jax.Array, size: tuple[int, int]) -> jax.Array:
    """The class of each pixel: logits (B, h, w, K), K up to 255, -> uint8 (B, *size)."""
    return jnp.argmax(resize_bilinear(logits, size), axis=-1).astype(jnp.uint8)


@dataclasses.dataclass(frozen=True)
class Pass:
    """A network's view of a batch.

    Attributes:
        logits: (B, h, w, K) float32, K up to 255.
        size: (H, W) of the image that it has seen.
        mirrored: True if the image was mirrored.
    """

    logits: jax.Array
    size: tuple[int, int]
    mirrored: bool = False

    def rows(self, at: jax.Array) -> jax.Array:
        """Rows (B, n, w, K) of the logits, resized to `size`; `at` is int (B, n)."""
        return _between(self.logits, 1, *_places(at, self.logits.shape[1], self.size[0]))

    def columns(self, logits: jax.Array, at: jax.Array) -> jax.Array:
        """Columns (B, n, m, K) of logits (B, n, w, K), resized to `size` and mirrored back;
        `at` is int (B, m).
        """
        at = self.size[1] - 1 - at if self.mirrored else at
        return _between(logits, 2, *_places(at, logits.shape[2], self.size[1]))


def resized_labels(
    passes: Sequence[Pass], sizes: jax.Array, shape: tuple[int, int], strip: int = 64
) -> jax.Array:
    """The class of each pixel of pictures of several sizes, as one program.

    Logits are resized twice, to the image that the network has seen and to the picture's own size.

    Args:
        passes: Passes over the same pictures; with several, their probabilities are averaged.
        sizes: int (B, 2), the (height, width) of each picture.
        shape: (H, W), at least all `sizes`.
        strip: Rows of the result at a time, which bounds the memory.

    Returns:
        uint8 (B, H, W); what lies beyond a picture's size is of no meaning.
    """

    def scores(one, rows):
        above, below, down = _places(rows[None], one.size[0], sizes[:, :1])
        before, behind, across = _places(jnp.arange(shape[1])[None], one.size[1], sizes[:, 1:])
        found = _mix(one.rows(above), one.rows(below), down, 1)
        return _mix(one.columns(found, before), one.columns(found, behind), across, 2)

    def labels(rows):
        if len(passes) == 1:
            found = scores(passes[0], rows)
        else:
            found = sum(jax.nn.softmax(scores(one, rows), axis=-1) for one in passes)
        return jnp.argmax(found, axis=-1).astype(jnp.uint8)

    strips = jnp.arange(-(-shape[0] // strip) * strip).reshape(-1, strip)
    found = jnp.moveaxis(jax.lax.map(labels, strips), 0, 1)  # (B, strips, strip, W)
    return found.reshape(len(sizes), -1, shape[1])[:, : shape[0]]


def _places(
    at: jax.Array, before: int, after: int | jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The neighbors of places in `after` pixels among `before`, and the share of the second."""
    at = (at.astype(jnp.float32) + 0.5) * (before / jnp.asarray(after, jnp.float32)) - 0.5
    at = jnp.clip(at, 0, before - 1)
    low = at.astype(jnp.int32)
    return low, jnp.minimum(low + 1, before - 1), at - low


def _between(
    x: jax.Array, axis: int, low: jax.Array, high: jax.Array, share: jax.Array
) -> jax.Array:
    """Linear interpolation along an axis of (B, h, w, K), at places of each of B."""
    take = jax.vmap(lambda x, at: jnp.take(x, at, axis=axis - 1))
    return _mix(take(x, low), take(x, high), share, axis)


def _mix(first: jax.Array, second: jax.Array, share: jax.Array, axis: int) -> jax.Array:
    """first (1 - share) + second share, the share (B, n) being along an axis of (B, h, w, K)."""
    share = jnp.expand_dims(share, (3 - axis, 3))
    return first * (1 - share) + second * share


def count_pixels(found: jax.Array, label: jax.Array, num_classes: int) -> dict[str, jax.Array]:
    """Counts the pixels of each class that are labeled.

    Args:
        found: Labels of any integer type, any shape.
        label: The same shape; where it is IGNORED nothing counts.
        num_classes: K.

    Returns:
        {'intersect', 'predicted', 'labeled'}: (K,) int32 each, the pixels that are of the class in
        both, in `found` and in `label`.
    """
    classes, known = jnp.arange(num_classes)[None], label != IGNORED

    def count(values, among):
        # One reduction of comparisons: accelerators add into bins one by one.
        hits = (values.reshape(-1, 1) == classes) & among.reshape(-1, 1)
        return hits.sum(axis=0, dtype=jnp.int32)

    return {
        "intersect": count(label, known & (found == label)),
        "predicted": count(found, known),
        "labeled": count(label, known),
    }
