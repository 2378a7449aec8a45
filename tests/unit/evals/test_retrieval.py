"""Retrieval against plain sorting: several captions per image, ties, any chunk."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.evals import retrieval
from swin_jax.evals.retrieval import Retrieval
from swin_jax.train import sharding


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def by_sorting(queries, query_ids, candidates, ids, k):
    order = np.argsort(-(queries @ candidates.T), axis=-1, kind="stable")[:, :k]
    return np.mean((ids[order] == query_ids[:, None]).any(-1))


def problem(images=23, captions=5, seed=0):
    rng = np.random.default_rng(seed)
    image = unit(rng.normal(size=(images, 8)))
    owner = np.repeat(np.arange(images), rng.integers(1, captions + 1, images))
    return image, unit(image[owner] + 0.8 * rng.normal(size=(len(owner), 8))), owner


@pytest.mark.parametrize("chunk", [1, 7, 23, 500])
def test_equal_to_sorting(chunk):
    image, text, owner = problem()
    found = retrieval.recall(image, text, text_ids=owner, ks=(1, 5, 10), chunk=chunk)
    for k in (1, 5, 10):
        assert found[f"image_to_text_r{k}"] == pytest.approx(by_sorting(image, np.arange(23), text, owner, k))
        assert found[f"text_to_image_r{k}"] == pytest.approx(by_sorting(text, owner, image, np.arange(23), k))
    assert found["image_to_text_r1"] > found["text_to_image_r1"] > 0.1  # one of several captions is enough
    assert found["text_to_image_r10"] < 1


def test_several_images_of_one_content_all_count():
    image, text, owner = problem()
    ids = np.arange(23) // 2 * 1000
    found = retrieval.recall(image, text, ids, ids[owner])
    assert found["text_to_image_r1"] == pytest.approx(by_sorting(text, ids[owner], image, ids, 1))
    assert found["text_to_image_r1"] > retrieval.recall(image, text, text_ids=owner)["text_to_image_r1"]


def test_order_does_not_matter():
    image, text, owner = problem()
    order = np.random.default_rng(1).permutation(len(text))
    assert retrieval.recall(image, text[order], text_ids=owner[order]) == retrieval.recall(image, text, text_ids=owner)


def test_a_collapsed_model_finds_no_more_than_chance():
    found = retrieval.recall(np.ones((20, 8), np.float32), np.ones((20, 8), np.float32))
    assert found["image_to_text_r1"] == found["text_to_image_r1"] == 0.05
    nan = retrieval.recall(np.full((20, 8), np.nan, np.float32), np.ones((20, 8), np.float32))
    assert nan["image_to_text_r10"] == nan["text_to_image_r10"] == 0


def test_what_cannot_be_is_told():
    with pytest.raises(UserError, match="8 and 4"):
        retrieval.recall(np.ones((2, 8)), np.ones((2, 4)))
    with pytest.raises(UserError, match="1 of 3 queries"):
        retrieval.recall(np.ones((3, 8)), np.ones((2, 8)))
    for captions in (["a cat"], [["a"], []]):
        with pytest.raises(UserError, match="image"):
            retrieval.caption_features(None, None, captions)


@dataclasses.dataclass(frozen=True)
class Rows:
    """As `data.pipeline.EvalData`: the last batch is filled with copies of the last row, of weight 0."""

    columns: dict
    batch_size: int = 6

    def batches(self, batch_size, rows):
        last = len(self.columns["image"]) - 1
        for start in range(0, last + 1, batch_size):
            positions = np.array([start + row for row in rows])
            index = np.minimum(positions, last)
            yield {key: value[index] for key, value in self.columns.items()} | {
                "weight": (positions <= last).astype(np.float32)
            }


class Pairs:
    """A task whose image features are its images, and whose text features are looked up in a table."""

    predicts = "features"

    def predict(self, state, batch, frozen):
        found = {"image_features": batch["image"]} if "image" in batch else {}
        return found | ({"text_features": frozen[batch["text"][:, 0]]} if "text" in batch else {})


def run(table, task=None, **options):
    placement = sharding.Placement(sharding.make_mesh(2, 4, 1))
    return Retrieval(**options).bind(Pairs(), placement)({}, jnp.asarray(table))


def test_evaluation_in_the_loop_of_pairs():
    image, text, owner = problem(captions=1)
    tokens = np.arange(23, dtype=np.int32)[:, None]
    data = Rows({"image": image, "text": tokens, "label": np.arange(23, dtype=np.int32) // 3})
    assert run(text, data=data) == retrieval.recall(image, text)
    ids = np.arange(23) // 3
    assert run(text, data=data, ids="label", ks=(2,)) == retrieval.recall(image, text, ids, ids, (2,))
    with pytest.raises(UserError, match="prefix"):
        run(text, data=data, prefix="a photo of ")


def test_evaluation_in_the_loop_of_captions_with_a_prefix():
    image, text, owner = problem()
    texts = [f"a photo of {i}" for i in range(len(text))]
    captions = [[str(i) for i in np.flatnonzero(owner == number)] for number in range(23)]

    def tokenize(lines):
        return np.array([[texts.index(line)] for line in lines], np.int32)

    options = {"captions": captions, "tokenize": tokenize, "prefix": "a photo of ", "batch_size": 5}
    found = run(text, data=Rows({"image": image}), **options)
    assert found == retrieval.recall(image, text, text_ids=owner)
    with pytest.raises(UserError, match="22 images for 23"):
        run(text, data=Rows({"image": image}), **(options | {"captions": captions[:-1]}))
