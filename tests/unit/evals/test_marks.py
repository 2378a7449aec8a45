"""Accuracy of each mark, by logits and by pairs of texts, against numpy."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from swin_jax.core.errors import UserError
from swin_jax.evals.marks import MarkAccuracy, TextPairs, mark_scores
from swin_jax.train import sharding

NAMES = ("hat", "beard", "smile")
PAIRS = {"hat": ("with a hat", "plain"), "beard": ("with a beard", "plain"), "smile": ("smiling", "sad")}
VECTORS = {"plain": 0, "with a hat": 1, "with a beard": 2, "smiling": 3, "sad": 4}


@dataclasses.dataclass(frozen=True)
class Rows:
    """As `data.pipeline.EvalData`: the last batch is filled with copies of the last row, of weight 0."""

    image: np.ndarray
    label: np.ndarray
    batch_size: int = 8
    class_names: tuple = NAMES
    multi_label: bool = True

    def batches(self, batch_size, rows):
        last = len(self.label) - 1
        for start in range(0, len(self.label), batch_size):
            positions = np.array([start + row for row in rows])
            index = np.minimum(positions, last)
            weight = (positions <= last).astype(np.float32)
            yield {"image": self.image[index], "label": self.label[index], "weight": weight}


class Logits:
    predicts = "logits"

    def predict(self, state, batch, frozen):
        return {"logits": batch["image"] + state}


class Features:
    """Texts are unit vectors, numbered by their tokens."""

    predicts = "features"

    def predict(self, state, batch, frozen):
        if "text" in batch:
            return {"text_features": jnp.eye(5)[batch["text"][:, 0]]}
        return {"image_features": batch["image"]}


def rows(width, count=21):
    rng = np.random.default_rng(0)
    label = rng.integers(-1, 2, (count, 3)).astype(np.int8)
    return Rows(rng.normal(size=(count, width)).astype(np.float32), label)


def by_numpy(scores, label):
    found = {}
    for name, score, marks in zip(NAMES, scores.T, label.T):
        score, marks = score[marks != -1], marks[marks != -1]
        found[f"{name}/accuracy"] = np.mean([(s > 0) == (m == 1) for s, m in zip(score, marks)])
        found[f"{name}/auc"] = roc_auc_score(marks, score)
    each = [found[f"{name}/accuracy"] for name in NAMES]
    return found | {"accuracy": np.mean(each), "least_accuracy": min(each)}


def evaluate(evaluation, task):
    placement = sharding.Placement(sharding.make_mesh(8, 1, 1))
    return evaluation.bind(task, placement)(jnp.zeros((1, 1)), {})


def tokenize(texts):
    return np.array([[VECTORS[text]] for text in texts], np.int32)


def test_a_classifier():
    data = rows(3)
    assert evaluate(MarkAccuracy(data), Logits()) == pytest.approx(by_numpy(data.image, data.label))


def test_pairs_of_texts():
    data = rows(5)
    scores = data.image[:, [1, 2, 3]] - data.image[:, [0, 0, 4]]
    assert evaluate(TextPairs(data, tokenize, PAIRS), Features()) == pytest.approx(by_numpy(scores, data.label))


def test_a_class_that_always_occurs_has_no_auc():
    found = mark_scores(np.array([[1.0, -1.0], [-2.0, 3.0]]), np.array([[1, 0], [1, 1]]), ("a", "b"))
    assert found == {"a/accuracy": 0.5, "b/accuracy": 1.0, "b/auc": 1.0, "accuracy": 0.75, "least_accuracy": 0.5}


def test_a_score_that_is_nan_is_wrong():
    found = mark_scores(np.array([[np.nan], [2.0], [np.nan]]), np.array([[0], [1], [1]]), ("a",))
    assert found["accuracy"] == found["a/accuracy"] == 1 / 3 and np.isnan(found["a/auc"])


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(UserError, match="whether it is 'b'"):
        mark_scores(np.ones((2, 2)), np.array([[1, -1], [0, -1]]), ("a", "b"))
    single = dataclasses.replace(rows(3), multi_label=False)
    with pytest.raises(UserError, match="MarkAccuracy evaluates records with several labels"):
        evaluate(MarkAccuracy(single), Logits())
    with pytest.raises(UserError, match="pairs lack 1 classes of the data set, 'smile' for example"):
        evaluate(TextPairs(rows(5), tokenize, {name: PAIRS[name] for name in NAMES[:2]}), Features())
    with pytest.raises(UserError, match="TextPairs"):
        evaluate(TextPairs(rows(3), tokenize, PAIRS), Logits())
