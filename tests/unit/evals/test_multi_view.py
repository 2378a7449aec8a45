"""The test protocol of video models: views, fusion, the cache of a test that was stopped."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.data import labels
from swin_jax.data.pipeline import EvalData
from swin_jax.evals import metrics
from swin_jax.evals.multi_view import MultiView, fuse
from swin_jax.tasks.base import TrainState
from swin_jax.train import sharding

CLASSES, VIEWS, VIDEOS = 3, 4, 7


@dataclasses.dataclass(frozen=True)
class Videos:
    """Videos of one pixel whose views differ; record `broken` cannot be read."""

    broken: int = -1
    class_names: tuple[str, ...] = ("a", "b", "c")

    def __len__(self):
        return VIDEOS

    def __getitem__(self, index):
        if index == self.broken:
            raise KeyboardInterrupt
        return {"video": np.random.default_rng(index).integers(0, 256, (VIEWS, 2, 1, 1, 3)), "label": index % CLASSES}

    def record_name(self, index):
        return f"video {index}"


def as_bytes(example, scale):
    return {"video": (example["video"] * scale).astype(np.uint8), "label": example["label"]}


class Task:
    """Logits are the sums of the pixels' channels."""

    predicts = "logits"

    def predict(self, state, batch, frozen):
        return {"logits": batch["video"].astype(jnp.float32).mean((1, 2, 3)) * state.params["scale"] / 20}


def state(scale=1.0):
    return TrainState(jnp.int32(0), {"scale": jnp.float32(scale)}, (), {})


def expected(fusion):
    views = np.stack([Videos()[i]["video"] for i in range(VIDEOS)]).mean((2, 3, 4)) / 20  # (N, V, K)
    probabilities = jax.nn.softmax(views).mean(1) if fusion == "probability" else jax.nn.softmax(views.mean(1))
    label = np.arange(VIDEOS) % CLASSES
    right = np.asarray(probabilities).argmax(1) == label
    return {"top1": right.mean(), "mean_class": np.mean([right[label == k].mean() for k in range(CLASSES)])}


def evaluation(source=Videos(), **fields):
    data = EvalData(source, functools.partial(as_bytes, scale=1), 2, num_threads=0)
    return MultiView(data=data, progress=False, **fields)


def run(evaluation, scale=1.0, task=None):
    placement = sharding.Placement(sharding.make_mesh(devices=jax.devices()[:2]))
    with jax.set_mesh(placement.mesh):
        return evaluation.bind(task or Task(), placement)(state(scale), {})


@pytest.mark.parametrize("fusion", ["probability", "score"])
@pytest.mark.parametrize("views_at_once", [0, 1, 2])
def test_figures(fusion, views_at_once):
    found = run(evaluation(fusion=fusion, views_at_once=views_at_once))
    assert found["top3"] == 1
    for name, value in expected(fusion).items():
        np.testing.assert_allclose(found[name], value)


def test_the_two_fusions_are_what_they_say():
    views = jax.random.randint(jax.random.key(0), (2, VIEWS, 2, 1, 1, 3), 0, 256).astype(jnp.uint8)
    logits = np.asarray(views, np.float32).mean((2, 3, 4)) / 20
    mean = fuse(Task(), state(), views, {}, 2)
    np.testing.assert_allclose(mean, np.asarray(jax.nn.softmax(logits)).mean(1), rtol=1e-5)
    score = fuse(Task(), state(), views, {}, 2, "score")
    np.testing.assert_allclose(score, jax.nn.softmax(logits.mean(1)), rtol=1e-5)
    assert np.abs(mean - score).max() > 1e-3


def test_a_test_that_was_stopped_goes_on(tmp_path):
    fields = dict(cache=str(tmp_path), save_every=1)
    with pytest.raises(KeyboardInterrupt):
        run(evaluation(Videos(broken=6), **fields))
    written = list(tmp_path.glob("*/part_*.npz"))
    assert written
    # What is kept is not read again: the first videos are broken now.
    assert run(evaluation(Videos(broken=0), **fields)) == run(evaluation())
    assert run(evaluation(Videos(broken=0), **fields)) == run(evaluation())


def test_the_cache_is_of_one_model_and_one_transform(tmp_path):
    fields = dict(cache=str(tmp_path))
    run(evaluation(**fields))
    run(evaluation(**fields), -1.0)
    other = evaluation(**fields)
    other = dataclasses.replace(
        other, data=dataclasses.replace(other.data, transform=functools.partial(as_bytes, scale=-1))
    )
    run(other)
    assert len(list(tmp_path.iterdir())) == 3


def test_the_cache_is_of_one_mapping_of_labels(tmp_path):
    fields = dict(cache=str(tmp_path))
    plain, order = run(evaluation(**fields)), (2, 0, 1)
    mapped = evaluation(labels.Relabeled(Videos(), order, ("b", "c", "a")), **fields)
    assert run(mapped) == run(dataclasses.replace(mapped, cache="")) != plain
    marks = labels.Marked(Videos(), np.eye(CLASSES, dtype=np.int8)[np.arange(VIDEOS) % CLASSES])
    assert set(run(evaluation(marks, **fields))) == {"map"}


@dataclasses.dataclass(frozen=True)
class Listed(Videos):
    """Videos of a list, which knows their labels and their order."""

    labels: tuple[int, ...] = tuple(i % CLASSES for i in range(VIDEOS))
    order: tuple[int, ...] = tuple(range(VIDEOS))

    def __getitem__(self, index):
        return super().__getitem__(self.order[index]) | {"label": self.labels[index]}

    def record_name(self, index):
        return super().record_name(self.order[index])


@dataclasses.dataclass(frozen=True)
class Scaled(Task):
    """A task whose weights do not tell all that it predicts with."""

    factor: float
    tx: object = dataclasses.field(default_factory=object)

    def predict(self, state, batch, frozen):
        return {"logits": self.factor * super().predict(state, batch, frozen)["logits"]}


def test_the_cache_is_of_one_list_and_one_task(tmp_path):
    corrected = Listed(labels=(0, 1, 2, 1, 1, 2, 0))
    swapped = Listed(order=(0, 2, 1, 4, 3, 5, 6))
    run(evaluation(Listed(), cache=str(tmp_path)), task=Scaled(1.0))
    for source, factor in ((corrected, 1.0), (swapped, 1.0), (Listed(), -1.0)):
        cached = run(evaluation(source, cache=str(tmp_path)), task=Scaled(factor))
        assert cached == run(evaluation(source), task=Scaled(factor)), (source, factor)
    assert len(list(tmp_path.iterdir())) == 4
    run(evaluation(Listed(), cache=str(tmp_path)), task=Scaled(1.0))  # another optimizer object
    assert len(list(tmp_path.iterdir())) == 4


def test_the_cache_is_of_files_as_they_were(tmp_path):
    video = tmp_path / "a.mp4"
    video.write_bytes(b"one")

    @dataclasses.dataclass(frozen=True)
    class Files(Videos):
        def record_name(self, index):
            return str(video) if index == 3 else super().record_name(index)

    cache = tmp_path / "cache"
    run(evaluation(Files(), cache=str(cache)))
    video.write_bytes(b"another")
    run(evaluation(Files(), cache=str(cache)))
    assert len(list(cache.iterdir())) == 2


def test_bad_arguments():
    with pytest.raises(UserError, match="fusion='mean'"):
        evaluation(fusion="mean")
    with pytest.raises(UserError, match="views_at_once=3 does not divide the 4 views"):
        run(evaluation(views_at_once=3))


@pytest.mark.parametrize("fusion", ["probability", "score"])
def test_of_several_labels_it_is_the_mean_average_precision(fusion):
    """Of the mean of each class's own probability, or of the mean logit."""

    class Sigmoids(Task):
        probabilities = staticmethod(jax.nn.sigmoid)

    marks = np.random.default_rng(5).choice(np.array([0, 1], np.int8), (VIDEOS, CLASSES))
    found = run(evaluation(labels.Marked(Videos(), marks), fusion=fusion), task=Sigmoids())
    views = np.stack([Videos()[i]["video"] for i in range(VIDEOS)]).mean((2, 3, 4)) / 20
    scores = jax.nn.sigmoid(views).mean(1) if fusion == "probability" else views.mean(1)
    assert found == {"map": pytest.approx(metrics.multi_label_scores(np.asarray(scores), marks)["map"])}


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"PK\x03torn"),
        lambda path: np.savez(path, probabilities=np.zeros(3), label=np.zeros(3)),
        lambda path: np.savez(path, probabilities=np.zeros((3, 2)), label=np.zeros(2)),
    ],
)
@pytest.mark.parametrize("part", [0, 2, -1])
def test_what_follows_a_lost_part_of_the_cache_is_computed_again(tmp_path, part, damage):
    fields = dict(cache=str(tmp_path), save_every=1)
    whole = run(evaluation(**fields))
    damage(sorted(tmp_path.glob("*/part_*.npz"))[part])
    with pytest.raises(KeyboardInterrupt):  # what is left of a shorter test must not follow in a later one
        run(evaluation(Videos(broken=6), cache=str(tmp_path), save_every=2))
    assert run(evaluation(**fields)) == whole
    assert run(evaluation(Videos(broken=0), **fields)) == whole
