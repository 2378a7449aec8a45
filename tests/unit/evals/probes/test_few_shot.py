"""Few-shot probes: draws, ridge regression against scikit-learn, and reports."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from swin_jax.core.errors import UserError
from swin_jax.evals.probes import few_shot, logistic_regression
from swin_jax.train import sharding


def problem(count=200, width=5, classes=3, seed=0, noise=0.9):
    rng = np.random.default_rng(seed)
    label = np.arange(count) % classes
    centers = np.random.default_rng(99).normal(size=(classes, width))
    return (3 * centers[label] + 3 * noise * rng.normal(size=(count, width)) + 2).astype(np.float32), label


@pytest.mark.parametrize("shots", [1, 2, 8])
def test_a_draw_has_so_many_of_each_class(shots):
    label = np.random.default_rng(0).integers(0, 4, 200)
    chosen = few_shot.sample(label, shots, 0)
    assert len(set(chosen)) == 4 * shots and np.bincount(label[chosen]).tolist() == [shots] * 4
    assert set(chosen) <= set(few_shot.sample(label, 2 * shots, 0))
    assert not np.array_equal(chosen, few_shot.sample(label, shots, 1))
    np.testing.assert_array_equal(chosen, few_shot.sample(label, shots, 0))
    with pytest.raises(UserError, match="class 0 has"):
        few_shot.sample(label, 100, 0)


def test_draws_are_saved(tmp_path):
    label = problem()[1]
    drawn = {(shots, seed): few_shot.sample(label, shots, seed) for shots in (1, 4) for seed in (0, 1)}
    few_shot.save_indices(tmp_path / "indices.json", drawn)
    loaded = few_shot.load_indices(tmp_path / "indices.json")
    assert loaded.keys() == drawn.keys()
    assert all(np.array_equal(loaded[key], drawn[key]) for key in drawn)
    (tmp_path / "other.json").write_text('[{"shots": 1}]')
    for name in ("other.json", "absent.json"):
        with pytest.raises(UserError, match=name):
            few_shot.load_indices(tmp_path / name)


@pytest.mark.parametrize(
    "indices", ["[-1]", "[0.7]", "[true]", "[1e400]", "[99999999999999999999]", "[[0]]", "0", "'a'"]
)
def test_indices_that_are_none_are_refused(indices, tmp_path):
    (tmp_path / "indices.json").write_text(f'[{{"shots": 1, "seed": 0, "indices": {indices}}}]')
    with pytest.raises(UserError, match="indices.json"):
        few_shot.load_indices(tmp_path / "indices.json")


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "3", '[{"shots": Infinity, "seed": 0, "indices": [0]}]'])
def test_files_of_other_forms_are_no_indices(text, tmp_path):
    (tmp_path / "indices.json").write_text(text)
    with pytest.raises(UserError, match="indices.json"):
        few_shot.load_indices(tmp_path / "indices.json")


@pytest.mark.parametrize("count, width", [(30, 5), (6, 20)])  # more examples than features, and fewer
def test_ridge_is_that_of_scikit_learn(count, width):
    x, label = problem(count, width)
    strengths = (0.5, 8.0, 1000.0)
    found = few_shot.ridge((x, label), 3, strengths)
    white = np.concatenate([(x - x.mean(0)) / (x.std(0) + 1e-5), np.full((count, 1), 100.0)], -1).astype(np.float64)
    for strength, weights in zip(strengths, found):
        peer = Ridge(alpha=strength, fit_intercept=False, solver="cholesky").fit(white, 2.0 * np.eye(3)[label] - 1)
        np.testing.assert_allclose(logistic_regression.with_ones(x) @ weights, peer.predict(white), atol=1e-4)


@pytest.mark.parametrize("method", ["logistic", "ridge"])
def test_more_shots_are_better_and_draws_can_be_repeated(method):
    train, test, validation = problem(seed=1), problem(999, seed=2), problem(99, seed=3)
    found = few_shot.few_shot(train, test, validation, (1, 16), (0, 1, 2), method)
    means = found.mean()
    assert 1 / 3 < means[1] < means[16] < 1 and means[16] > 0.6
    assert found.indices.keys() == {(shots, seed) for shots in (1, 16) for seed in (0, 1, 2)}
    swapped = {(16, 0): found.indices[16, 1]}
    again = few_shot.few_shot(train, test, validation, (16,), (0,), method, indices=swapped)
    assert again.accuracy[16] == (found.accuracy[16][1],)


def test_the_regularization_is_chosen_on_validation():
    train, validation = problem(9, 20, seed=1), problem(300, 20, seed=3)
    classifiers = few_shot.ridge(train, 3)
    right = [
        np.mean((logistic_regression.with_ones(validation[0]) @ w).argmax(-1) == validation[1]) for w in classifiers
    ]
    assert max(right) > min(right)
    found = few_shot.few_shot(train, validation, validation, (3,), (0,), "ridge")
    assert found.accuracy[3][0] == pytest.approx(max(right))


@pytest.mark.parametrize("method", ["ridge", "logistic"])
def test_features_that_are_not_finite_are_one_line(method):
    x, label = np.ones((6, 3), np.float32), np.arange(6) % 2
    with pytest.raises(UserError, match="features of a probe contain values that are not finite"):
        few_shot.few_shot((x * np.inf, label), (x, label), (x, label), (2,), method=method)


def test_no_shots_and_no_draws_are_refused():
    for name in ("shots", "seeds"):
        with pytest.raises(UserError, match=f"^{name}=.*it must be"):
            few_shot.FewShot(None, None, None, **{name: ()})


def test_unknown_method():
    with pytest.raises(UserError, match="'svm'"):
        few_shot.few_shot(problem(), problem(), problem(), method="svm")


def test_examples_that_equal_zero_shot():
    means = {1: 0.2, 2: 0.4, 4: 0.5, 16: 0.7}
    assert few_shot.shots_to_reach(means, 0.1) == 1
    assert few_shot.shots_to_reach(means, 0.5) == 4
    assert few_shot.shots_to_reach(means, 0.6) == pytest.approx(8)
    assert few_shot.shots_to_reach(means, 0.8) == float("inf")


def test_table_and_picture(tmp_path):
    results = {"clip": few_shot.Result({1: (0.1, 0.3), 4: (0.5, 0.5)}, {}), "swin": few_shot.Result({1: (0.1,)}, {})}
    lines = few_shot.table(results, {"clip": 0.4}).splitlines()
    assert lines[2] == "| clip | 40.0% | 20.0% ± 10.0 | 50.0% ± 0.0 |" and lines[3] == "| swin |  | 10.0% ± 0.0 |  |"
    assert {line.count("|") for line in lines} == {5}
    few_shot.plot(results, tmp_path / "few_shot.png", {"clip": 0.4})
    assert (tmp_path / "few_shot.png").stat().st_size > 1000


@dataclasses.dataclass(frozen=True)
class Rows:
    """As `data.pipeline.EvalData`: the last batch is filled with copies of the last row, of weight 0."""

    image: np.ndarray
    label: np.ndarray
    batch_size: int = 64
    class_names: tuple[str, ...] = ("a", "b", "c")

    def batches(self, batch_size, rows):
        last = len(self.label) - 1
        for start in range(0, last + 1, batch_size):
            positions = np.array([start + row for row in rows])
            index = np.minimum(positions, last)
            weight = (positions <= last).astype(np.float32)
            yield {"image": self.image[index], "label": self.label[index].astype(np.int32), "weight": weight}


class Same:
    """A task whose image features are its images."""

    predicts = "features"

    def predict(self, state, batch, frozen):
        return {"image_features": batch["image"] + state}


def test_evaluation_in_the_loop():
    train, test, validation = problem(seed=1), problem(130, seed=2), problem(99, seed=3)
    placement = sharding.Placement(sharding.make_mesh(4, 2, 1))
    evaluation = few_shot.FewShot(Rows(*train), Rows(*test), Rows(*validation), shots=(1, 4), seeds=(0, 5))
    found = evaluation.bind(Same(), placement)(jnp.zeros((1, 1)), {})
    expected = few_shot.few_shot(train, test, validation, (1, 4), (0, 5), "ridge").mean()
    assert found == {"1shot_top1": pytest.approx(expected[1]), "4shot_top1": pytest.approx(expected[4])}


def test_sets_of_other_classes_are_refused():
    sets = [Rows(*problem(12, seed=seed)) for seed in range(3)]
    placement = sharding.Placement(sharding.make_mesh(4, 2, 1))
    for place, name in ((1, "test"), (2, "validation")):
        given = [*sets]
        given[place] = dataclasses.replace(sets[place], class_names=("a", "b", "d"))
        with pytest.raises(UserError, match=f"{name} set.*'d'"):
            few_shot.FewShot(*given).bind(Same(), placement)


@pytest.mark.parametrize("method, fewest", [("ridge", 6), ("logistic", 6 * 15)])
def test_it_pauses_before_every_fit(method, fewest):
    calls = []
    few_shot.few_shot(problem(), problem(seed=1), problem(seed=2), (1, 2), method=method, pause=lambda: calls.append(0))
    assert len(calls) >= fewest


@pytest.mark.parametrize("chosen", [[0, 10, 99], [0, 1, 2], [0, 0, 20], [0, 10], [-1, 0, 10]])
def test_indices_of_another_training_set_are_refused(chosen):
    x, label = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32), np.repeat([0, 1, 2], 10)
    sets = [(x, label)] * 3
    few_shot.few_shot(*sets, (1,), (0,), "ridge", indices={(1, 0): np.array([5, 15, 25])})
    with pytest.raises(UserError, match="the indices of 1 shots are of another training set"):
        few_shot.few_shot(*sets, (1,), (0,), "ridge", indices={(1, 0): np.array(chosen)})
