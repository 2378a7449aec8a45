"""Accuracy over whole sets, against numpy: any length, any batch size, padding, few classes, NaN."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.evals.accuracy import Accuracy
from swin_jax.train import sharding


@dataclasses.dataclass(frozen=True)
class Rows:
    """As `data.pipeline.EvalData`: the last batch is filled with copies of the last row, of weight 0."""

    image: np.ndarray
    label: np.ndarray
    batch_size: int

    def batches(self, batch_size, rows):
        last = len(self.label) - 1
        for start in range(0, len(self.label), batch_size):
            positions = np.array([start + row for row in rows])
            index = np.minimum(positions, last)
            weight = (positions <= last).astype(np.float32)
            yield {"image": self.image[index], "label": self.label[index], "weight": weight, "bad": weight}


class Linear:
    """A task whose logits are its images."""

    predicts = "logits"

    def predict(self, state, batch, frozen):
        return {"logits": batch["image"] + state}


def rows(count, classes, batch_size, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, classes)).astype(np.float32)
    return Rows(logits, rng.integers(0, classes, count).astype(np.int32), batch_size)


def by_numpy(data, top):
    logits = data.image.astype(np.float64)
    order = np.argsort(-logits, axis=-1, kind="stable")
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(logits)), data.label]
    hits = order == data.label[:, None]
    return {"top1": hits[:, :1].any(1).mean(), f"top{top}": hits[:, :top].any(1).mean(), "loss": losses.mean()}


def evaluate(data, sizes=(8, 1, 1), task=None, **options):
    placement = sharding.Placement(sharding.make_mesh(*sizes))
    return Accuracy(data, **options).bind(task or Linear(), placement)(jnp.zeros((1, 1)), {})


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("count, batch_size", [(360, 100), (3, 100), (3, 1), (16, 8), (17, 8)])
def test_equal_to_numpy_on_8_devices(count, batch_size, sizes):
    data = rows(count, 10, batch_size)
    found, expected = evaluate(data, sizes), by_numpy(data, 5)
    assert found.keys() == expected.keys()
    assert found["top1"] == expected["top1"] and found["top5"] == expected["top5"]
    assert abs(found["loss"] - expected["loss"]) < 1e-6
    assert all(isinstance(value, float) for value in found.values())


@pytest.mark.parametrize("classes, top", [(2, 2), (4, 4), (5, 5), (7, 5)])
def test_the_second_figure_is_of_the_top_5_or_of_all_classes(classes, top):
    data = rows(40, classes, 16)
    found = evaluate(data)
    assert set(found) == {"top1", f"top{top}", "loss"}
    assert found[f"top{top}"] == by_numpy(data, top)[f"top{top}"]
    assert (found[f"top{top}"] == 1.0) == (classes <= 5)


def test_the_second_figure_can_be_chosen():
    data = rows(40, 10, 16)
    assert evaluate(data, top=3)["top3"] == by_numpy(data, 3)["top3"]


def test_padding_counts_nothing_whatever_its_labels_are():
    """The last row is right and every other is wrong, so that counted padding would show."""
    data = rows(9, 4, 8)
    data.image[:] = np.eye(4, dtype=np.float32)[(data.label + 1) % 4]
    data.image[-1] = 9 * np.eye(4, dtype=np.float32)[data.label[-1]]
    found = evaluate(data)
    assert found["top1"] == 1 / 9 and abs(found["loss"] - by_numpy(data, 4)["loss"]) < 1e-6


def test_equal_logits_are_no_hit_for_the_later_class():
    data = Rows(np.zeros((8, 4), np.float32), np.arange(8, dtype=np.int32) % 4, 8)
    assert evaluate(data, top=2) == {"top1": 0.25, "top2": 0.5, "loss": pytest.approx(np.log(4))}


def test_a_nan_is_never_a_hit_and_shows_in_the_loss():
    data = rows(24, 6, 8)
    data.image[:] = np.eye(6, dtype=np.float32)[data.label]
    assert evaluate(data)["top1"] == 1.0
    data.image[3] = np.nan  # a row whose logits are all NaN
    data.image[7, data.label[7]] = np.nan
    data.image[9, (data.label[9] + 1) % 6] = np.nan  # of another class: ranks above the label
    found = evaluate(data)
    assert found["top1"] == 21 / 24 and np.isnan(found["loss"])
    assert found["top5"] == 22 / 24


def test_state_and_frozen_reach_the_task_and_running_twice_gives_the_same():
    class Shifted:
        predicts = "logits"

        def predict(self, state, batch, frozen):
            return {"logits": (batch["image"] * state["sign"] + frozen["shift"]).astype(jnp.bfloat16)}

    data = rows(20, 3, 8)
    data.image[:] = np.eye(3, dtype=np.float32)[data.label]
    run = Accuracy(data).bind(Shifted(), sharding.Placement(sharding.make_mesh()))
    shift = {"shift": jnp.zeros((1, 3))}
    up, down = {"sign": jnp.ones(())}, {"sign": -jnp.ones(())}
    assert run(up, shift) == run(up, shift) and run(up, shift)["top1"] == 1.0
    assert run(down, shift)["top1"] == 0.0
    assert run(up, {"shift": jnp.array([[9.0, 0.0, 0.0]])})["top1"] == (data.label == 0).mean()


def test_with_the_real_pipeline():
    from swin_jax.data import fake, pipeline

    def transform(example):
        return {"image": example["image"].astype(np.float32).mean((0, 1)), "label": np.int32(example["label"])}

    source = fake.images(8, num_classes=3, num_examples=27)
    found = evaluate(pipeline.EvalData(source, transform, batch_size=10))
    examples = [transform(source[i]) for i in range(27)]
    data = Rows(np.stack([e["image"] for e in examples]), np.stack([e["label"] for e in examples]), 27)
    order = np.argsort(-data.image, axis=-1, kind="stable")
    assert found["top1"] == (order[:, 0] == data.label).mean() and found["top3"] == 1.0


def test_of_several_labels_it_is_the_mean_average_precision():
    from sklearn.metrics import average_precision_score

    data = rows(19, 3, 8)
    label = np.random.default_rng(1).choice(np.array([-1, 0, 1], np.int8), (19, 3))
    several = dataclasses.replace(data, label=label)
    object.__setattr__(several, "multi_label", True)
    found, x, known = evaluate(several), data.image.astype(np.float64), label >= 0
    each = [average_precision_score(label[k, c] > 0, x[k, c]) for c, k in enumerate(known.T)]
    assert found["map"] == pytest.approx(np.mean(each)) and set(found) == {"map", "loss"}
    losses = np.logaddexp(0, x) - x * np.maximum(label, 0)
    assert found["loss"] == pytest.approx(losses[known].mean(), abs=1e-6)
