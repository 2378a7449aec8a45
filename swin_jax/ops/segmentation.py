"""Losses and counts of labels for each pixel, where `constants.IGNORED` is no class.

References: `CrossEntropyLoss`, `accuracy` and `intersect_and_union` of
Swin-Transformer-Semantic-Segmentation (mmsegmentation 0.11).
"""

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


def resized_labels(
    logits: jax.Array, sizes: jax.Array, shape: tuple[int, int], strip: int = 64
) -> jax.Array:
    """The class of each pixel of pictures of several sizes, as one program.

    Args:
        logits: (B, h, w, K), K up to 255.
        sizes: int (B, 2), the (height, width) that the logits of each picture are resized to.
        shape: (H, W), at least all `sizes`.
        strip: Rows of the result at a time, which bounds the memory.

    Returns:
        uint8 (B, H, W); what lies beyond a picture's size is of no meaning.
    """

    def places(at, before, after):
        """The neighbors of each place among `before`, and the share of the second, (B, n)."""
        at = (at.astype(jnp.float32)[None] + 0.5) * (before / after.astype(jnp.float32)) - 0.5
        at = jnp.clip(at, 0, before - 1)
        low = at.astype(jnp.int32)
        return low, jnp.minimum(low + 1, before - 1), at - low

    def between(x, axis, low, high, share):
        share = share[:, :, None, None] if axis == 1 else share[:, None, :, None]
        take = jax.vmap(lambda x, at: jnp.take(x, at, axis=axis - 1))
        return take(x, low) * (1 - share) + take(x, high) * share

    _, height, width, _ = logits.shape
    columns = places(jnp.arange(shape[1]), width, sizes[:, 1:])

    def labels(rows):
        found = between(logits, 1, *places(rows, height, sizes[:, :1]))
        return jnp.argmax(between(found, 2, *columns), axis=-1).astype(jnp.uint8)

    strips = jnp.arange(-(-shape[0] // strip) * strip).reshape(-1, strip)
    found = jnp.moveaxis(jax.lax.map(labels, strips), 0, 1)  # (B, strips, strip, W)
    return found.reshape(len(logits), -1, shape[1])[:, : shape[0]]


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
