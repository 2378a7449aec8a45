"""Zero-shot classifiers and their figures, against plain loops and scikit-learn."""

import dataclasses
import zlib
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from swin_jax.core.errors import UserError
from swin_jax.evals import metrics, zero_shot
from swin_jax.evals.probes.few_shot import few_shot
from swin_jax.evals.probes.linear_probe import probe
from swin_jax.evals.prompts import class_names
from swin_jax.evals.zero_shot import Subset, ZeroShot
from swin_jax.tasks.base import TrainState
from swin_jax.train import sharding

WIDTH = 16
TEMPLATES = ("a photo of a {}.", "the {}.", "{}")


def embed(text):
    """A random vector that depends on the text alone."""
    return np.random.default_rng(zlib.crc32(text.encode())).normal(size=WIDTH)


class Tower:
    """Turns texts to tokens and tokens to vectors, and counts calls."""

    def __init__(self):
        self.texts, self.shapes = {}, []

    def tokenize(self, texts):
        codes = [zlib.crc32(text.encode()) & 0x7FFFFFFF for text in texts]
        self.texts |= dict(zip(codes, texts))
        return np.array(codes, np.int32)[:, None]

    def encode(self, tokens):
        self.shapes.append(tokens.shape)
        return jnp.asarray(np.stack([3 * embed(self.texts[int(code)]) for code in tokens[:, 0]]), jnp.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def by_loops(names, templates):
    columns = []
    for own in names:
        own = (own,) if isinstance(own, str) else own
        columns.append(unit(np.mean([unit(embed(t.format(n))) for n in own for t in templates], axis=0)))
    return np.stack(columns, axis=-1)


NAMES = ("cat", ("happy", "smiling", "glad"), "T-shirt", "cat", "great white shark")


@pytest.mark.parametrize("batch_size", [1, 4, 21, 100])
def test_classifier_is_the_mean_of_normalized_prompts(batch_size):
    tower = Tower()
    found = zero_shot.classifier(tower.encode, tower.tokenize, NAMES, TEMPLATES, batch_size, progress=False)
    np.testing.assert_allclose(found, by_loops(NAMES, TEMPLATES), atol=1e-6)
    assert found.dtype == np.float32
    assert tower.shapes == [(batch_size, 1)] * -(-21 // batch_size)  # 7 names x 3 templates, one fixed shape


def test_classifier_is_cached_under_everything_that_it_depends_on(tmp_path):
    def make(names=NAMES, templates=TEMPLATES, key="weights"):
        tower = Tower()
        found = zero_shot.classifier(
            tower.encode, tower.tokenize, names, templates, progress=False, cache=tmp_path / "new", key=key
        )
        np.testing.assert_allclose(found, by_loops(names, templates), atol=1e-6)
        return bool(tower.shapes)

    assert make() and not make()
    assert make(key="other") and make(templates=TEMPLATES[:2]) and make(names=("cat", "dog")) and make(names=("dog",))
    assert make(names=(("cat", "dog"),)) and make(names=("dog", "cat"))
    assert not make()
    for path in (tmp_path / "new").iterdir():
        assert path.suffix == ".npz"
        path.write_bytes(path.read_bytes()[:-40])
    assert make() and not make()


def _array(path, **arrays):
    with path.open("wb") as file:
        np.savez(file, **arrays) if arrays else np.save(file, np.zeros(3))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"weights"),
        _array,
        lambda path: _array(path, other=np.zeros(3)),
        lambda path: _array(path, weights=np.zeros((WIDTH, 1), np.float32)),
        lambda path: _array(path, weights=np.zeros(WIDTH, np.float32)),
        lambda path: _array(path, weights=np.array([None])),
        lambda path: _array(path, weights=np.zeros((WIDTH, len(NAMES)), "U1")),
    ],
)
def test_a_cached_classifier_that_is_damaged_is_made_again(tmp_path, damage):
    tower = Tower()
    arguments = (tower.encode, tower.tokenize, NAMES, TEMPLATES)
    found = zero_shot.classifier(*arguments, progress=False, cache=tmp_path, key="weights")
    damage(next(tmp_path.iterdir()))
    again = zero_shot.classifier(*arguments, progress=False, cache=tmp_path, key="weights")
    np.testing.assert_array_equal(again, found)


def test_bad_arguments_are_told(tmp_path):
    tower = Tower()
    with pytest.raises(UserError, match="key"):
        zero_shot.classifier(tower.encode, tower.tokenize, NAMES, TEMPLATES, cache=tmp_path)
    with pytest.raises(UserError, match="needs names"):
        zero_shot.classifier(tower.encode, tower.tokenize, (), TEMPLATES)
    for names, message in {
        "cat": "class_names is 'cat', one str",
        5: "class_names is 5, one int",
        ("cat", ()): r"class 1 are \(\)",
        ("cat", ""): "class 1 are ''",
        (("a", " "), "b"): "class 0 are",
        (3, "cat"): "class 0 are 3",
    }.items():
        with pytest.raises(UserError, match=message):
            zero_shot.classifier(tower.encode, tower.tokenize, names, TEMPLATES, progress=False)
    with pytest.raises(UserError, match="templates is one text"):
        zero_shot.classifier(tower.encode, tower.tokenize, NAMES, "a {}", progress=False)
    with pytest.raises(UserError, match="'a photo'"):
        zero_shot.classifier(tower.encode, tower.tokenize, NAMES, ("a photo",))
    with pytest.raises(UserError, match="different models"):
        metrics.rank_labels(np.ones((3, 4)), np.zeros(3, int), np.ones((5, 2)))


def problem(count=57, classes=7, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, count)
    weights = unit(rng.normal(size=(classes, WIDTH))).T.astype(np.float32)
    image = (weights.T[label] + 0.5 * rng.normal(size=(count, WIDTH))).astype(np.float32)
    return image, label, weights


@pytest.mark.parametrize("chunk", [1, 10, 57, 100])
def test_figures_are_those_of_scikit_learn(chunk):
    image, label, weights = problem()
    rank, prediction = metrics.rank_labels(image, label, weights, chunk)
    found, logits = metrics.top_scores(rank, label, 7), image @ weights
    assert found["top1"] == pytest.approx(sklearn_metrics.accuracy_score(label, logits.argmax(-1)))
    assert found["top5"] == pytest.approx(sklearn_metrics.top_k_accuracy_score(label, logits, k=5))
    assert found["mean_per_class"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(label, logits.argmax(-1)))
    assert found["mean_top1_top5"] == pytest.approx((found["top1"] + found["top5"]) / 2)
    assert 0.3 < found["top1"] < found["top5"] < 1
    np.testing.assert_array_equal(prediction, logits.argmax(-1))


def test_equal_columns_share_no_credit():
    weights = np.ones((WIDTH, 4), np.float32)
    rank, prediction = metrics.rank_labels(np.ones((4, WIDTH), np.float32), np.arange(4), weights)
    assert rank.tolist() == [0, 1, 2, 3] and prediction.tolist() == [0, 0, 0, 0]
    rank, _ = metrics.rank_labels(np.full((4, WIDTH), np.nan, np.float32), np.arange(4), weights)
    assert (rank > 0).all()


def test_roc_auc_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    positive = rng.random(200) < 0.3
    score = np.round(positive + rng.normal(size=200), 1)  # with ties
    assert metrics.roc_auc(score, positive) == pytest.approx(sklearn_metrics.roc_auc_score(positive, score))
    with pytest.raises(UserError):
        metrics.roc_auc(score, np.ones(200))
    image, label, weights = problem(classes=2)
    logits = unit(image) @ weights
    found = metrics.evaluate(image, label, weights, "hateful_memes")[metrics.metric("hateful_memes")]
    assert found == pytest.approx(sklearn_metrics.roc_auc_score(label, logits[:, 1] - logits[:, 0]))


def test_average_precision_of_11_points():
    # Precision where recall grows: 1/1, 2/3, 3/6. Recalls 0-0.3 get 1, 0.4-0.6 get 2/3, 0.7-1 get 1/2.
    positive = np.array([1, 0, 1, 0, 0, 1, 0], bool)
    expected = (4 * 1 + 3 * 2 / 3 + 4 * 1 / 2) / 11
    score = -np.arange(7.0)
    assert metrics.average_precision_11_points(score, positive) == pytest.approx(expected)
    order = np.random.default_rng(0).permutation(7)
    assert metrics.average_precision_11_points(score[order], positive[order]) == pytest.approx(expected)
    assert metrics.average_precision_11_points(np.zeros(7), positive) == pytest.approx(3 / 7)
    assert metrics.average_precision_11_points(positive * (1 + np.arange(7.0)), positive) == 1


def test_average_precision_is_that_of_scikit_learn_for_equal_scores_and_what_is_not_known_too():
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    scores, label = np.round(rng.normal(size=(40, 4)), 1), rng.choice([-1, 0, 0, 1], (40, 4))
    label[:, 2] = np.minimum(label[:, 2], 0)  # a class that does not occur
    expected = []
    for c in (0, 1, 3):
        known = label[:, c] >= 0
        expected.append(average_precision_score(label[known, c] > 0, scores[known, c]))
        assert metrics.average_precision(scores[known, c], label[known, c] > 0) == pytest.approx(expected[-1])
    assert metrics.multi_label_scores(scores, label) == {"map": pytest.approx(np.mean(expected))}
    with pytest.raises(UserError, match="none of these has one"):
        metrics.multi_label_scores(scores, np.minimum(label, 0))


@pytest.mark.parametrize("rows", [slice(None), 0])
def test_scores_that_are_nan_give_no_precision(rows):
    """Records often come class by class, and scores that are no numbers left them in that order."""
    label = np.eye(3, dtype=int).repeat(4, axis=0)
    scores = label + 0.5
    scores[rows] = np.nan
    assert np.isnan(metrics.multi_label_scores(scores, label)["map"])
    assert np.isnan(metrics.average_precision_11_points(scores[:, 0], label[:, 0] > 0))
    assert np.isnan(metrics.evaluate(scores, label, np.eye(3))["map_11_points"])


def test_multi_label_scores_are_softmaxed_and_leave_out_what_does_not_count():
    image, label, weights = problem(60, 3)
    multi = np.eye(3, dtype=int)[label]
    multi[::7] = -1
    logits = 100 * unit(image) @ weights
    probability = np.exp(logits - logits.max(-1, keepdims=True))
    probability /= probability.sum(-1, keepdims=True)
    kept = multi[:, 0] >= 0
    expected = np.mean(
        [metrics.average_precision_11_points(probability[kept, c], multi[kept, c] > 0) for c in range(3)]
    )
    assert metrics.evaluate(image, multi, weights, "voc2007") == {"map_11_points": pytest.approx(expected)}
    assert metrics.metric("voc2007") == "map_11_points" and metrics.metric("imagenet") == "top1"


@dataclasses.dataclass(frozen=True)
class Rows:
    """As `data.pipeline.EvalData`: the last batch is filled with copies of the last row, of weight 0."""

    image: np.ndarray
    label: np.ndarray
    batch_size: int
    class_names: tuple[str, ...]

    def batches(self, batch_size, rows):
        last = len(self.label) - 1
        for start in range(0, len(self.label), batch_size):
            positions = np.array([start + row for row in rows])
            index = np.minimum(positions, last)
            weight = (positions <= last).astype(np.float32)
            yield {"image": self.image[index], "label": self.label[index], "weight": weight, "bad": weight}


@dataclasses.dataclass(frozen=True)
class Pairs:
    """A task whose image features are its images, and whose text features are rows of a table in the state."""

    predicts: ClassVar[str] = "features"
    turn: int = 0  # of the rows, as another activation changes features of the same weights

    def predict(self, state, batch, frozen):
        found = {"logit_scale": jnp.zeros(())}
        if "image" in batch:
            found["image_features"] = batch["image"] / jnp.linalg.norm(batch["image"], axis=-1, keepdims=True)
        if "text" in batch:
            found["text_features"] = jnp.roll(state.params["table"], self.turn, 0)[batch["text"][:, 0]]
        return found


CLASSES = ("red_fox", "grey_fox", "oak", "elm", "rose")
KINDS = {"red_fox": "animal", "grey_fox": "animal", "oak": "tree", "elm": "tree", "rose": "flower"}
TEXTS = [
    template.format(name.replace("_", " ")) for name in (*CLASSES, "animal", "tree", "flower") for template in TEMPLATES
]


def tokenize(texts):
    return np.array([[TEXTS.index(text)] for text in texts], np.int32)


def run_zero_shot(tokenize=tokenize, task=Pairs(), **options):
    rng = np.random.default_rng(1)
    table = unit(rng.normal(size=(len(TEXTS), WIDTH))).astype(np.float32)
    weights = unit(unit(table).reshape(-1, 3, WIDTH).mean(1)).T
    label = rng.integers(0, 5, 43).astype(np.int32)
    image = (weights.T[label] + 0.4 * rng.normal(size=(43, WIDTH))).astype(np.float32)
    state = TrainState(jnp.zeros((), jnp.int32), {"table": jnp.asarray(table)}, (), {})
    placement = sharding.Placement(sharding.make_mesh(4, 2, 1))
    data = Rows(image, label, 20, CLASSES)
    found = ZeroShot(data, tokenize, TEMPLATES, batch_size=5, **options).bind(task, placement)(state, {})
    return found, image @ weights, label


def test_evaluation_in_the_loop_with_subsets_and_groups():
    subsets = {
        "foxes": Subset(("red_fox", "grey_fox")),
        "unseen": Subset(("elm", "oak"), ("oak", "rose", "elm")),
    }
    found, logits, label = run_zero_shot(subsets=subsets, groups=KINDS)
    right = logits[:, :5].argmax(-1) == label
    assert found["top1"] == pytest.approx(right.mean()) and found["top5"] == 1
    assert found["foxes/top1"] == pytest.approx(right[label < 2].mean())
    trees = (label == 2) | (label == 3)
    restricted = logits[trees, 2:5].argmax(-1) + 2
    assert found["unseen/top1"] == pytest.approx(np.mean(restricted == label[trees]))
    assert "count" not in found and found["unseen/top3"] == 1
    group = np.array([0, 0, 1, 1, 2])
    assert found["group_top1"] == pytest.approx(np.mean(group[logits[:, :5].argmax(-1)] == group[label]))
    assert 0.3 < found["top1"] < 0.97


def test_classes_can_be_the_groups_themselves_and_names_are_bound_by_name(tmp_path):
    found, logits, label = run_zero_shot(relabel=KINDS)
    own = np.array([0, 0, 1, 1, 2])[label]
    assert found["top1"] == pytest.approx(np.mean(logits[:, 5:].argmax(-1) == own)) and found["top3"] == 1
    plain = run_zero_shot()[0]
    assert run_zero_shot(names=("rose", "elm", "red fox", "oak", "grey fox"), cache=str(tmp_path))[0] == plain
    assert run_zero_shot(names=("rose", "elm", "red fox", "oak", "grey fox"), cache=str(tmp_path))[0] == plain
    swapped = run_zero_shot(names={"red_fox": "grey fox", "grey_fox": "red fox"} | {n: n for n in CLASSES[2:]})[0]
    assert swapped["top1"] < plain["top1"]


def test_a_cached_classifier_is_of_one_tokenizer_and_one_model(tmp_path):
    """Neither another cleaning of texts nor another activation shows in the weights."""

    def others(texts):
        return (tokenize(texts) + 1) % len(TEXTS)

    run_zero_shot(cache=str(tmp_path))
    for change in ({"tokenize": others}, {"task": Pairs(turn=2)}):
        assert run_zero_shot(cache=str(tmp_path), **change)[0] == run_zero_shot(**change)[0]
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    "labels, names, message",
    [
        (["a"], [1], "class 0 are 1"),
        (["a"], [()], r"class 0 are \(\)"),
        (["a"], [""], "class 0 are ''"),
        (["a"], "a", "class_names is 'a', one str"),
        (["a"], 5, "class_names is 5, one int"),
        (["a"], {"a": ()}, r"'a' are \(\)"),
        (["a"], {"a": 1}, "'a' are 1"),
        (["a"], {1: "a"}, "the label 1 must be a text"),
        ([1], ["a"], "the label 1 must be a text"),
    ],
)
def test_names_that_are_no_texts_are_told(labels, names, message):
    with pytest.raises(UserError, match=message):
        class_names.bind(labels, names)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"names": ("rose", "elm")}, "labels without a name: 'red_fox', 'grey_fox', 'oak'"),
        ({"subsets": {"x": Subset(("ash",))}}, "'ash'"),
        ({"subsets": {"x": Subset(("oak",), ("elm",))}}, "candidates"),
        ({"groups": {"oak": "tree"}}, "4 classes"),
        ({"relabel": {"oak": "tree"}}, "4 labels"),
    ],
)
def test_names_that_do_not_fit_the_labels_are_told(options, message):
    with pytest.raises(UserError, match=message):
        run_zero_shot(**options)


def test_a_choice_among_one_class_is_refused():
    with pytest.raises(UserError, match="zero-shot classification with one class is always right"):
        run_zero_shot(relabel=dict.fromkeys(CLASSES, "thing"))
    examples = np.zeros((20, 3), np.float32), np.zeros(20, int)
    with pytest.raises(UserError, match="linear probe with one class"):
        probe(examples)
    with pytest.raises(UserError, match="few-shot probe with one class"):
        few_shot(examples, examples, examples)
