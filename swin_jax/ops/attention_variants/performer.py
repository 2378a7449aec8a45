"""Attention in time linear in the number of tokens, by random features: FAVOR+.

Performers (Choromanski et al., arXiv 2009.14794): with features phi(x) = exp(w x - |x|^2 / 2) for
normal w, the mean of phi(q) phi(k) is exp(q k). They are positive, so that no weight can come out
negative, and rows of w are orthogonal in groups, which lowers the variance. The weights are never
formed: phi(k) v is summed over keys once for all queries.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.ops.attention import split_parts

# Added to every feature, as in the authors' code: no sum of weights can underflow to 0.
EPSILON = 1e-6


def num_features(dim: int) -> int:
    """Random features for heads of `dim` numbers: d ln d, the paper's order of growth, in whole
    groups of d.
    """
    return dim * max(1, math.ceil(math.log(dim)))


def random_features(dim: int, count: int, seed: int = 0) -> np.ndarray:
    """Directions, orthogonal within each group of `dim`, with the lengths of normal vectors.

    Args:
        dim: Numbers per head.
        count: Features.
        seed: They are a function of it; a step draws no new ones.

    Returns:
        (count, dim) float32.
    """
    rng = np.random.default_rng(seed)
    q, r = np.linalg.qr(rng.standard_normal((-(-count // dim), dim, dim)))
    # Uniform over all rotations with these signs only.
    groups = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None]
    lengths = np.linalg.norm(rng.standard_normal((count, dim)), axis=1)
    directions = groups.swapaxes(1, 2).reshape(-1, dim)[:count]
    return (directions * lengths[:, None]).astype(np.float32)


def performer_attention(qkv: jax.Array, features: np.ndarray) -> jax.Array:
    """Approximates softmax(q k) v among all tokens of a row.

    Args:
        qkv: (B, N, 3, h, d), with q times whatever scales the logits.
        features: (m, d) of `random_features`.

    Returns:
        (B, N, h, d) in the dtype of qkv; computed in float32.
    """
    q, k, v = (part.astype(jnp.float32) for part in split_parts(qkv))
    # q comes with the whole factor d^-1/2 of the logits; half of it each is the least variance.
    balance = qkv.shape[-1] ** 0.25
    q = _positive(q * balance, features, axes=(-1,))
    k = _positive(k / balance, features, axes=(1, -1))
    summed = jnp.einsum("bkhm,bkhd->bhmd", k, v)
    total = jnp.einsum("bqhm,bhm->bqh", q, k.sum(1))
    return (jnp.einsum("bqhm,bhmd->bqhd", q, summed) / total[..., None]).astype(qkv.dtype)


def _positive(x: jax.Array, features: np.ndarray, axes: tuple[int, ...]) -> jax.Array:
    """Positive features (B, N, h, m) of (B, N, h, d), at most 1.

    They are divided by their maximum over `axes`, a factor that the quotient of both sums cancels:
    one for each query, and one for all keys of a head.
    """
    exponent = jnp.einsum("bnhd,md->bnhm", x, features) - (x**2).sum(-1, keepdims=True) / 2
    most = jax.lax.stop_gradient(exponent.max(axes, keepdims=True))
    return jnp.exp(exponent - most) + EPSILON
