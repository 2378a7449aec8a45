"""Multinomial logistic regression on features by L-BFGS.

The reference is scikit-learn's LogisticRegression. With C its inverse regularization, its objective
is this one at lambda = 1 / C for three classes or more. For two it fits one column of weights w,
where there are two here, which at the optimum are -w / 2 and w / 2: their penalty is half of that
of w, so that lambda = 2 / C. Value and gradient run on the accelerator, in chunks of rows; scipy's
L-BFGS, the one scikit-learn uses, runs on the host.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    checked,
)

log = logging.getLogger(__name__)

CHUNK = 8192  # rows at a time, so that (rows, classes) logits fit


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A linear classifier of features.

    Attributes:
        weights: (E, K) float32.
        bias: (K,) float32.
        strength: lambda that it was fitted with.
        loss: Summed cross-entropy + lambda / 2 ||weights||^2 at the end.
    """

    weights: np.ndarray
    bias: np.ndarray
    strength: float
    loss: float

    def stacked(self) -> np.ndarray:
        """(E + 1, K): a classifier of features with a one appended, `with_ones`."""
        return np.concatenate([self.weights, self.bias[None]])

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The class of each row of (N, E): (N,) int."""
        return np.argmax(np.asarray(x, np.float32) @ self.weights + self.bias, axis=-1)


def with_ones(x: np.ndarray) -> np.ndarray:
    """Features with a one appended: (N, E) -> (N, E + 1)."""
    return np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=-1)


def check_finite(x: np.ndarray) -> None:
    """Raises UserError for features of which some are not finite."""
    if not np.isfinite(x).all():
        raise UserError("the features of a probe contain values that are not finite")


@jax.jit
def _cross_entropy(parameters: jax.Array, x: jax.Array, label: jax.Array, weight: jax.Array):
    """Cross-entropies, which the host adds in float64 because line searches need the digits,
    and their gradient.

    parameters (E + 1, K), x (chunks, rows, E), label and weight (chunks, rows) -> (chunks, rows),
    (E + 1, K).
    """
    matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

    def add(gradient, rows):
        x, label, weight = rows
        logits = matmul(x, parameters[:-1]) + parameters[-1:]
        logs = jax.nn.log_softmax(logits, axis=-1)
        losses = -jnp.take_along_axis(logs, label[:, None], axis=-1)[:, 0] * weight
        error = (jnp.exp(logs) - jax.nn.one_hot(label, logits.shape[-1])) * weight[:, None]
        return gradient + jnp.concatenate(
            [matmul(x.T, error), error.sum(axis=0, keepdims=True)]
        ), losses

    gradient, losses = jax.lax.scan(add, jnp.zeros_like(parameters), (x, label, weight))
    return losses, gradient


@dataclasses.dataclass(frozen=True)
class Rows:
    """Features on the device, cut into chunks of one size; what fills up the last one weighs 0."""

    x: jax.Array  # (chunks, rows, E)
    label: jax.Array  # (chunks, rows)
    weight: jax.Array  # (chunks, rows)
    count: int
    num_classes: int

    @staticmethod
    def put(x: np.ndarray, label: np.ndarray, num_classes: int, chunk: int) -> "Rows":
        if len(x) != len(label) or not len(x):
            raise UserError(
                f"a probe needs as many labels as features, and some: got {len(label)} and {len(x)}"
            )
        if np.min(label) < 0 or np.max(label) >= num_classes:
            raise UserError(
                f"labels must be in 0..{num_classes - 1}, got {np.min(label)}..{np.max(label)}"
            )
        check_finite(x)
        chunk = min(chunk, len(x))
        chunks = -(-len(x) // chunk)
        index = np.minimum(np.arange(chunks * chunk), len(x) - 1)
        weight = (np.arange(chunks * chunk) < len(x)).astype(np.float32)
        shape = (chunks, chunk)
        return Rows(
            jnp.asarray(np.asarray(x, np.float32)[index].reshape(*shape, -1)),
            jnp.asarray(np.asarray(label, np.int32)[index].reshape(shape)),
            jnp.asarray(weight.reshape(shape)),
            len(x),
            num_classes,
        )


@checked
def fit(
    x: np.ndarray,
    label: np.ndarray,
    strength: NonNegativeFloat,
    num_classes: PositiveInt | None = None,
    start: Classifier | None = None,
    max_iterations: PositiveInt = 1000,
    tolerance: PositiveFloat = 1e-4,
    chunk: PositiveInt = CHUNK,
    pause: Callable[[], None] = lambda: None,
) -> Classifier:
    """Minimizes summed cross-entropy + strength / 2 ||weights||^2; the bias is not penalized.

    Args:
        x: (N, E) features.
        label: (N,) int in 0..K-1.
        strength: lambda on the summed loss: scikit-learn's 1 / C, of two classes 2 / C.
        num_classes: K; None for the largest label + 1.
        start: Weights to start from; None starts at zero, as scikit-learn.
        max_iterations: Most iterations of L-BFGS; the paper has 1000.
        tolerance: Bound on the largest gradient of loss / N, as scikit-learn's `tol`.
        chunk: Rows at a time.
        pause: The same as in `linear_probe.probe`.

    Raises:
        UserError: No rows, labels out of range, or features that are not finite.
    """
    num_classes = int(np.max(label, initial=0)) + 1 if num_classes is None else num_classes
    return fit_rows(
        Rows.put(x, label, num_classes, chunk), strength, start, max_iterations, tolerance, pause
    )


def fit_rows(
    rows: Rows,
    strength: float,
    start: Classifier | None,
    max_iterations: int,
    tolerance: float,
    pause: Callable[[], None],
) -> Classifier:
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    shape = (rows.x.shape[-1] + 1, rows.num_classes)

    def value_and_gradient(flat):
        parameters = flat.reshape(shape)
        losses, gradient = _cross_entropy(
            parameters.astype(np.float32), rows.x, rows.label, rows.weight
        )
        penalized = parameters[:-1]
        value = np.asarray(losses, np.float64).sum() + 0.5 * strength * np.vdot(
            penalized, penalized
        )
        gradient = np.array(gradient, np.float64)
        gradient[:-1] += strength * penalized
        return value / rows.count, gradient.ravel() / rows.count

    def pause_alone(_):
        # Hosts that differ in a last bit may take another number of iterations,
        # but the same number of fits.
        if jax.process_count() == 1:
            pause()

    pause()
    first = np.zeros(shape) if start is None else start.stacked().astype(np.float64)
    options = {
        "maxiter": max_iterations,
        "maxls": 50,
        "gtol": tolerance,
        "ftol": 64 * np.finfo(np.float64).eps,
    }
    # The threads of OpenBLAS spin between L-BFGS's short vector operations,
    # 10 times slower where cores are shared.
    with threadpool_limits(1, "blas"):
        found = minimize(
            value_and_gradient,
            first.ravel(),
            jac=True,
            method="L-BFGS-B",
            options=options,
            callback=pause_alone,
        )
    largest = float(np.abs(found.jac).max())
    if found.nit >= max_iterations:
        log.warning(
            "L-BFGS stopped after %d iterations at lambda %.3g (gradient %.2g)",
            found.nit,
            strength,
            largest,
        )
    parameters = found.x.reshape(shape).astype(np.float32)
    return Classifier(parameters[:-1], parameters[-1], strength, float(found.fun) * rows.count)
