"""The linear probe against scikit-learn, and the points that its search visits."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from swin_jax.core.errors import UserError
from swin_jax.evals.probes import linear_probe, logistic_regression
from swin_jax.evals.probes.linear_probe import LinearProbe
from swin_jax.train import sharding


def problem(count=150, width=6, classes=4, seed=0, noise=1.5):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, count)
    centers = np.random.default_rng(99).normal(size=(classes, width))
    return (centers[label] + noise * rng.normal(size=(count, width)) + 0.5).astype(np.float32), label


def objective(x, label, weights, bias, strength):
    logits = x.astype(np.float64) @ weights + bias
    logits -= logits.max(-1, keepdims=True)
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(x)), label]
    return losses.sum() + strength / 2 * np.sum(np.square(weights, dtype=np.float64))


@pytest.mark.parametrize("strength", [1e-6, 1e-2, 1.0, 1e2, 1e6])
@pytest.mark.parametrize("classes, chunk", [(4, 8192), (2, 40)])
def test_the_optimum_is_that_of_scikit_learn(strength, classes, chunk):
    x, label = problem(classes=classes)
    inverse = (2 if classes == 2 else 1) / strength
    peer = LogisticRegression(C=inverse, max_iter=10_000, tol=1e-10).fit(x, label)
    weights, bias = peer.coef_.T, peer.intercept_
    if classes == 2:  # scikit-learn fits one column; the same classifier with two has half the penalty
        weights, bias = np.concatenate([-weights, weights], -1) / 2, np.array([-bias[0], bias[0]]) / 2
    ours = logistic_regression.fit(x, label, strength, tolerance=1e-6, chunk=chunk)
    found = objective(x, label, ours.weights, ours.bias, strength)
    expected = objective(x, label, weights, bias, strength)
    assert found == pytest.approx(expected, rel=1e-4)
    assert ours.loss == pytest.approx(found, rel=1e-5) and ours.strength == strength


@pytest.mark.parametrize("classes, factor", [(2, 2.0), (3, 1.0), (5, 1.0)])
@pytest.mark.parametrize("inverse", [0.1, 1.0, 10.0])
def test_lambda_is_one_over_c_and_of_two_classes_two(classes, factor, inverse):
    x, label = problem(classes=classes)
    peer = LogisticRegression(C=inverse, max_iter=10_000, tol=1e-10).fit(x, label)
    ours = logistic_regression.fit(x, label, factor / inverse, tolerance=1e-8)
    found = x @ ours.weights + ours.bias
    decision = found[:, 1] - found[:, 0] if classes == 2 else found
    np.testing.assert_allclose(decision, peer.decision_function(x), atol=5e-3)


def test_the_default_tolerance_is_close_to_the_optimum():
    x, label = problem()
    for strength in (1e-6, 1e-2, 1.0, 1e2, 1e6):
        best = logistic_regression.fit(x, label, strength, tolerance=1e-7).loss
        assert logistic_regression.fit(x, label, strength).loss == pytest.approx(best, rel=1e-4)


def test_chunks_and_starts_do_not_change_the_optimum():
    x, label = problem()
    whole = logistic_regression.fit(x, label, 0.3, tolerance=1e-7)
    for chunk in (1, 7, 150):
        part = logistic_regression.fit(x, label, 0.3, tolerance=1e-7, chunk=chunk)
        np.testing.assert_allclose(part.stacked(), whole.stacked(), atol=1e-3)
    far = logistic_regression.fit(x, label, 1e-4)
    warm = logistic_regression.fit(x, label, 0.3, start=far, tolerance=1e-7)
    np.testing.assert_allclose(warm.stacked(), whole.stacked(), atol=1e-3)


def test_the_grid_has_8_steps_a_decade():
    assert len(linear_probe.LAMBDAS) == 97 and linear_probe.LAMBDAS[[0, 48, 96]] == pytest.approx([1e-6, 1, 1e6])
    np.testing.assert_allclose(np.diff(np.log10(linear_probe.LAMBDAS)), 1 / 8)


@pytest.mark.parametrize(
    "peak, visited",
    [
        (-6.0, [-5, -5.5, -5.75, -5.875]),
        (-0.1, [-1, 1, -0.5, 0.5, -0.25, 0.25, -0.125, 0.125]),
        (1.7, [1, 3, 1.5, 2.5, 1.25, 1.75, 1.625, 1.875]),
        (3.9, [3, 5, 3.5, 4.5, 3.75, 4.25, 3.875, 4.125]),
        (6.0, [5, 5.5, 5.75, 5.875]),
    ],
)
def test_the_search_halves_the_interval_around_the_best(peak, visited):
    def score(strength):
        return -abs(np.log10(strength) - peak)

    found = linear_probe.search(score)
    exponents = [float(np.log10(strength)) for strength, _ in found.visited]
    assert exponents == pytest.approx([-6, -4, -2, 0, 2, 4, 6, *visited])
    assert found.best == pytest.approx(linear_probe.LAMBDAS[np.argmax([score(s) for s in linear_probe.LAMBDAS])])
    assert all(value == score(strength) for strength, value in found.visited)


def test_of_equally_good_points_the_most_regularized_is_taken():
    assert linear_probe.search(lambda strength: 1.0).best == pytest.approx(1e6)


def test_a_validation_set_is_carved_out_of_every_class():
    label = np.repeat([0, 1, 2, 5], [50, 10, 2, 1])
    kept, held = linear_probe.split(label, 0.2, seed=3)
    assert sorted([*kept, *held]) == list(range(63))
    assert np.bincount(label[held]).tolist() == [10, 2, 1] and set(label[kept]) == {0, 1, 2, 5}
    assert not np.array_equal(linear_probe.split(label, 0.2, seed=4)[1], held)
    np.testing.assert_array_equal(linear_probe.split(label, 0.2, seed=3)[1], held)
    with pytest.raises(UserError, match="validation"):
        linear_probe.split(np.arange(5))


def test_the_protocol_chooses_on_validation_and_refits_on_both():
    train, validation, test = problem(80, seed=1), problem(60, seed=2), problem(300, seed=3)
    found = linear_probe.probe(train, validation, tolerance=1e-6)
    best = max(score for _, score in found.search.visited)
    for strength, score in [*found.search.visited[1:7:2], *found.search.visited[-2:]]:
        peer = LogisticRegression(C=1 / strength, max_iter=10_000, tol=1e-6).fit(*train)
        assert score == pytest.approx(peer.score(*validation), abs=1.5 / 60)
    assert dict(found.search.visited)[found.search.best] == best
    both = [np.concatenate(pair) for pair in zip(train, validation)]
    refitted = logistic_regression.fit(*both, found.search.best, tolerance=1e-6).stacked()
    np.testing.assert_allclose(found.classifier.stacked(), refitted, atol=1e-3)
    assert np.abs(refitted - logistic_regression.fit(*train, found.search.best).stacked()).max() > 0.02
    ours = found.evaluate(*test)
    assert ours["top1"] == pytest.approx(np.mean(found.classifier.predict(test[0]) == test[1]))
    alone = linear_probe.probe(train, validation, refit=False)
    np.testing.assert_allclose(
        alone.classifier.stacked(), logistic_regression.fit(*train, alone.search.best).stacked(), atol=0.05
    )
    assert len(linear_probe.probe(train).search.visited) <= 15


def test_what_cannot_be_fitted_is_told():
    x, label = problem(10)
    for arguments, message in [
        ((x, label[:9]), "9 and 10"),
        ((x[:0], label[:0]), "0 and 0"),
        ((np.where(x > 0, np.nan, x), label), "finite"),
    ]:
        with pytest.raises(UserError, match=message):
            logistic_regression.fit(*arguments, 1.0, num_classes=4)
    with pytest.raises(UserError, match=r"0\.\.1"):
        logistic_regression.fit(x, label, 1.0, num_classes=2)


@dataclasses.dataclass(frozen=True)
class Rows:
    """As `data.pipeline.EvalData`: the last batch is filled with copies of the last row, of weight 0."""

    image: np.ndarray
    label: np.ndarray
    batch_size: int = 16
    class_names: tuple[str, ...] = ("a", "b", "c", "d", "e", "f")

    def batches(self, batch_size, rows):
        last = len(self.label) - 1
        for start in range(0, last + 1, batch_size):
            positions = np.array([start + row for row in rows])
            index = np.minimum(positions, last)
            weight = (positions <= last).astype(np.float32)
            yield {"image": self.image[index], "label": self.label[index].astype(np.int32), "weight": weight}


class Scaled:
    """A task whose image features are its images times its state."""

    predicts = "features"

    def predict(self, state, batch, frozen):
        return {"hidden": batch["image"] * state}


def test_evaluation_in_the_loop():
    train, validation, test = problem(83, seed=1), problem(61, seed=2), problem(111, seed=3)
    placement = sharding.Placement(sharding.make_mesh(8, 1, 1))
    evaluation = LinearProbe(Rows(*train), Rows(*test), Rows(*validation), output="hidden")
    found = evaluation.bind(Scaled(), placement)(jnp.ones(()), {})
    expected = linear_probe.probe(train, validation, num_classes=6)
    assert found["lambda"] == expected.search.best
    assert found["top1"] == pytest.approx(expected.evaluate(*test)["top1"]) and 0.4 < found["top1"] < found["top5"]
    assert found["validation"] == max(score for _, score in expected.search.visited)


def test_sets_of_other_classes_are_refused():
    sets = [Rows(*problem(12, seed=seed)) for seed in range(3)]
    placement = sharding.Placement(sharding.make_mesh(8, 1, 1))
    other = dataclasses.replace(sets[1], class_names=("A", "b", "c", "d", "e", "f"))
    for name in ("test", "validation"):
        given = dict(zip(("train", "test", "validation"), sets)) | {name: other}
        with pytest.raises(UserError, match=f"{name} set.*'A'.*'a'"):
            LinearProbe(**given, output="hidden").bind(Scaled(), placement)


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("call", [1, 2, 16, 40])
def test_it_pauses_before_every_fit_and_within_each(call):
    calls = []

    def pause():
        calls.append(0)
        if len(calls) == call:
            raise Stopped

    x, label = problem()
    with pytest.raises(Stopped):
        linear_probe.probe((x, label), pause=pause)
    with pytest.raises(Stopped):
        calls.clear()
        linear_probe.probe((x[:100], label[:100]), (x[100:], label[100:]), pause=pause)
