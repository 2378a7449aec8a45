"""Evaluations that leave unreadable records out give the numbers of the rest, and how many are missing."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data.pipeline import EvalData
from swin_jax.data.subsets import Selection
from swin_jax.evals.accuracy import Accuracy
from swin_jax.evals.multi_view import MultiView
from swin_jax.evals.probes.few_shot import FewShot
from swin_jax.evals.probes.linear_probe import LinearProbe
from swin_jax.evals.reconstruction import Reconstruction
from swin_jax.evals.retrieval import Retrieval
from swin_jax.evals.zero_shot import ZeroShot
from swin_jax.tasks.base import TrainState
from swin_jax.train import sharding

COUNT, BROKEN = 21, (0, 5, 8, 9, 10, 11, 20)
REST = tuple(i for i in range(COUNT) if i not in BROKEN)


@dataclasses.dataclass(frozen=True)
class Records:
    """Random pictures with labels, tokens and masks; some of them cannot be read."""

    broken: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ("ant", "bee", "cow")

    def __len__(self):
        return COUNT

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index in self.broken:
            raise UnreadableError("damaged")
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        text = np.int32([index, 1 + index % 3, 2])
        return {
            "image": image,
            "video": image[None, None],
            "label": index % 3,
            "text": text,
            "mask": image[..., 0] > 99,
        }

    def record_name(self, index: int) -> str:
        return f"record {index}"


class Task:
    """Logits, features and reconstructions that follow the pixels."""

    def __init__(self, predicts):
        self.predicts = predicts

    def predict(self, state, batch, frozen):
        found = {}
        for key in batch.keys() & {"image", "video"}:
            pixels = batch[key].astype(jnp.float32).reshape(len(batch[key]), -1) / 255
            unit = pixels / jnp.linalg.norm(pixels, axis=-1, keepdims=True)
            found |= {"logits": pixels[:, :3] + state.params["shift"], "image_features": unit[:, :8]}
        if "text" in batch:
            found["text_features"] = jnp.eye(64)[batch["text"].sum(-1)][:, :8] + 0.1
        if "mask" in batch:
            error = (batch["image"].astype(jnp.float32) / 255)[..., 0]
            mask = batch["mask"].astype(jnp.float32)
            found |= {"error": (error * mask).sum((1, 2)), "masked": mask.sum((1, 2)), "pixel_mask": mask}
            found["reconstruction"] = batch["image"] / 255
        return found


def tokenize(texts):
    return np.array([[len(text), ord(text[-1]) % 30, 2] for text in texts], np.int32)


CAPTIONS = tuple((f"caption {i}", f"of {i}") for i in range(COUNT))
EVALUATIONS = {
    "accuracy": lambda data, rest: Accuracy(data),
    "multi-view": lambda data, rest: MultiView(data, progress=False),
    "cached": lambda data, rest: MultiView(data, cache=str(rest), save_every=1, progress=False),
    "zero-shot": lambda data, rest: ZeroShot(data, tokenize, templates=("a {}",)),
    "retrieval": lambda data, rest: Retrieval(data, ids="label"),
    "captions": lambda data, rest: Retrieval(data, [CAPTIONS[i] for i in rest], tokenize),
    "linear probe": lambda data, rest: LinearProbe(data, data),
    "few shots": lambda data, rest: FewShot(data, data, data, shots=(1, 2)),
    "reconstruction": lambda data, rest: Reconstruction(data, pictures=0),
}
PREDICTS = dict.fromkeys(("accuracy", "multi-view", "cached"), "logits") | {"reconstruction": "reconstruction"}


def run(name, data, rest):
    placement = sharding.Placement(sharding.make_mesh(-1, 1, 1))
    state = TrainState(np.zeros((), np.int32), {"shift": jnp.zeros(())}, (), {})
    return EVALUATIONS[name](data, rest).bind(Task(PREDICTS.get(name, "features")), placement)(state, {})


def same(example):
    return example


@pytest.mark.parametrize("name", [name for name in EVALUATIONS if name != "cached"])
def test_the_score_is_that_of_the_rest_and_the_missing_are_counted(name):
    data = EvalData(Records(BROKEN), same, 8, num_threads=0, unreadable="leave_out")
    found = run(name, data, range(COUNT))
    expected = run(name, EvalData(Selection(Records(), REST), same, 8, num_threads=0), REST)
    sets = {"linear probe": 2, "few shots": 3}.get(name, 1)
    assert found.pop("left_out") == sets * len(BROKEN)
    assert found.keys() == expected.keys() and len(found) > 0
    for key in found:
        assert found[key] == pytest.approx(expected[key], rel=1e-6), key
    whole = EvalData(Records(), same, 8, num_threads=0, unreadable="leave_out")
    assert run(name, whole, range(COUNT))["left_out"] == 0
    with pytest.raises(UserError, match="record 0 cannot be read .*repair or remove it, or leave"):
        run(name, dataclasses.replace(data, unreadable="refuse"), range(COUNT))


def test_a_test_of_several_views_goes_on_after_left_out_videos(tmp_path):
    data = EvalData(Records(BROKEN), same, 8, num_threads=0, unreadable="leave_out")
    expected = run("multi-view", data, range(COUNT))
    assert run("cached", data, tmp_path) == expected
    last = sorted(tmp_path.glob("*/part_*.npz"))[-2:]
    for path in last:
        path.unlink()
    assert run("cached", data, tmp_path) == expected
    with pytest.raises(UserError, match="record 0 cannot be read"):
        run("cached", dataclasses.replace(data, unreadable="refuse"), tmp_path)
