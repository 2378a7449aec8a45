"""Losses and counts for classification. The references are timm's `SoftTargetCrossEntropy` and its
smoothed one-hot targets, and torch's `cross_entropy` and `binary_cross_entropy_with_logits`
with weights of classes.

All but the means return one value per example in float32,
so that the caller can weight padding with 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def smooth_one_hot(label: jax.Array, num_classes: int, smoothing: float = 0.0) -> jax.Array:
    """One-hot targets that give `smoothing` of their mass to all classes alike.

    Args:
        label: (B,) int.
        num_classes: K.
        smoothing: s in 0..1; the label's own class gets 1 - s + s/K, the others s/K.

    Returns:
        (B, K) float32; rows sum to 1.
    """
    off = smoothing / num_classes
    return off + (1.0 - smoothing) * jax.nn.one_hot(label, num_classes, dtype=jnp.float32)


def soft_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Cross entropy of each row with a target distribution:
    logits (B, K), target (B, K) -> (B,) float32.
    """
    return -jnp.sum(
        target.astype(jnp.float32) * jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1),
        axis=-1,
    )


def weighted_cross_entropy(
    logits: jax.Array, target: jax.Array, class_weights: jax.Array, label: jax.Array | None = None
) -> jax.Array:
    """The mean cross entropy where each class has a weight, as torch's `cross_entropy(weight=...)`.

    Args:
        logits: (B, K).
        target: (B, K), smoothed or mixed.
        class_weights: (K,); a term of class c counts class_weights[c] times.
        label: (B,) int, the class of each row. The sum is divided by the weights of these classes,
            as torch's is where targets are class numbers. None divides by B, as torch's is where
            targets are probabilities.

    Returns:
        () float32.
    """
    weights = jnp.asarray(class_weights, jnp.float32)
    rows = soft_cross_entropy(logits, target * weights[None])
    return rows.mean() if label is None else rows.sum() / weights[label].sum()


def sigmoid_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Binary cross entropy of each class by itself:
    logits (B, K), target (B, K) in 0..1 -> (B, K) float32.
    """
    logits, target = logits.astype(jnp.float32), target.astype(jnp.float32)
    return jax.nn.softplus(logits) - logits * target


def known_mean(
    values: jax.Array, known: jax.Array, class_weights: jax.Array | None = None
) -> jax.Array:
    """The mean over the classes that are known, as torch's
    `binary_cross_entropy_with_logits(weight=...)`.

    Args:
        values: (B, K).
        known: (B, K) bool; the others don't count.
        class_weights: (K,), the factor of each class; the mean is not divided by them.

    Returns:
        () float32; 0 where nothing is known.
    """
    if class_weights is None:
        weights = jnp.ones(values.shape[-1])
    else:
        weights = jnp.asarray(class_weights, jnp.float32)
    return jnp.where(known, values * weights[None], 0.0).sum() / jnp.maximum(known.sum(), 1)


def shared_marks(one: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compares each record of one set with each of another,
    where a record has a class of each of several choices.

    Args:
        one: (A, K): 1 for the class of each choice, 0 for its other classes, -1 for all classes of
            a choice of which nothing is known.
        other: (B, K), likewise.

    Returns:
        (the number of choices in which both have the same class; the number of choices of which it
        is known for both), (A, B) float32 each.
    """
    own, there, known = ((x.astype(jnp.float32)) for x in (one > 0, other > 0, other >= 0))
    return own @ there.T, own @ known.T


def top_k_correct(logits: jax.Array, label: jax.Array, k: int) -> jax.Array:
    """True where the label is among the min(k, K) largest logits.

    The rank of the label is the number of larger logits plus the number of equal ones at a lower
    index, so that exactly k classes count as the top k. A NaN counts as larger than everything, and
    a label whose own logit is NaN is wrong.

    Args:
        logits: (B, K).
        label: (B,) int in 0..K-1.
        k: Number of the largest logits among which the label counts.

    Returns:
        (B,) float32, 1 or 0.
    """
    num_classes = logits.shape[-1]
    own = jnp.take_along_axis(logits, label[:, None], axis=-1)  # (B, 1)
    above = ~(logits <= own)
    tied_before = (logits == own) & (jnp.arange(num_classes)[None, :] < label[:, None])
    rank = jnp.sum(above | tied_before, axis=-1)
    return (rank < min(k, num_classes)).astype(jnp.float32)


def gradient_penalty(judge: Callable[[jax.Array], jax.Array], images: jax.Array) -> jax.Array:
    """The mean over a batch of the squared norm of the gradient of `judge(images)`, (B, 1),
    by the images.
    """
    gradient = jax.grad(lambda images: judge(images).sum())(images)
    return (gradient**2).sum(axis=(1, 2, 3)).mean()
