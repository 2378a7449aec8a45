"""Mean IoU: the official figures, and the same ones for any batches, meshes and padding."""

import dataclasses
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UserError
from swin_jax.evals.mean_iou import MeanIoU, scores
from swin_jax.ops import label_maps
from swin_jax.ops.segmentation import count_pixels, pixel_labels
from swin_jax.train import sharding

GOLDEN = Path(__file__).parents[2] / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

CASES = sorted((GOLDEN / "segmentation").glob("mean_iou*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_figures_are_the_official_ones(path):
    case, sums = golden.load(path), {}
    classes = case.config["num_classes"]
    for i in range(case.config["images"]):
        label, found = case.input(f"label_{i}"), case.input(f"prediction_{i}")
        if case.config["reduce_zero_label"]:
            label = np.where(label == 0, IGNORED, label - (label != IGNORED)).astype(np.uint8)
        for name, value in count_pixels(jnp.asarray(found), jnp.asarray(label), classes).items():
            sums[name] = sums.get(name, 0) + np.asarray(value)
    for ours, theirs in (("intersect", "intersect"), ("predicted", "predicted"), ("labeled", "labelled")):
        np.testing.assert_array_equal(sums[ours], case.expected(theirs))
    values = scores(sums)
    figures = {"mean_iou": "mIoU", "mean_accuracy": "mAcc", "pixel_accuracy": "aAcc"}
    for ours, theirs in figures.items():
        assert np.float32(round(100 * values[ours], 2)) == case.expected(theirs)
    for column, theirs in ((1, "iou"), (2, "acc")):
        ours = [float(row[column] or -1) for row in values["classes"][1:]]
        np.testing.assert_allclose(ours, case.expected(theirs), atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Scenes:
    """As `data.pipeline.EvalData`: the last batch is filled with copies of the last scene, of weight 0."""

    maps: np.ndarray
    label: np.ndarray
    batch_size: int
    class_names: tuple = ("ground", "disc", "square")
    source: object = None

    def batches(self, batch_size, rows):
        last = len(self.label) - 1
        for start in range(0, len(self.label), batch_size):
            positions = np.array([start + row for row in rows])
            index = np.minimum(positions, last)
            weight = (positions <= last).astype(np.float32)
            yield {"image": self.maps[index], "label": self.label[index], "weight": weight, "bad": weight}


class Linear:
    """A task whose maps are its images, at half of their size."""

    predicts = "maps"

    def predict(self, state, batch, frozen):
        maps = batch["image"][:, ::2, ::2] + state
        return {"maps": maps, "labels": pixel_labels(maps, batch["image"].shape[1:3])}


def scenes(count, batch_size):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (count, 6, 8)).astype(np.uint8)
    label[rng.random(label.shape) < 0.2] = IGNORED
    return Scenes(rng.normal(size=(count, 6, 8, 3)).astype(np.float32), label, batch_size)


def evaluate(data, sizes=(8, 1, 1), **options):
    placement = sharding.Placement(sharding.make_mesh(*sizes))
    return MeanIoU(data, **options).bind(Linear(), placement)(jnp.zeros((1, 1, 1, 1)), {})


def by_numpy(data):
    found = np.asarray(pixel_labels(jnp.asarray(data.maps[:, ::2, ::2]), (6, 8)))
    known, shares = data.label != IGNORED, []
    for k in range(3):
        both = ((found == k) | (data.label == k)) & known
        shares.append(((found == k) & (data.label == k)).sum() / both.sum())
    right = (found == data.label)[known].mean()
    return shares, right


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("count, batch_size", [(21, 8), (3, 100)])
def test_equal_to_numpy_whatever_the_mesh(count, batch_size, sizes):
    data = scenes(count, batch_size)
    if sizes == (1, 1, 1):
        placement = sharding.Placement(sharding.make_mesh(1, 1, 1, devices=[jnp.zeros(()).device]))
        found = MeanIoU(data, "ground").bind(Linear(), placement)(jnp.zeros((1, 1, 1, 1)), {})
    else:
        found = evaluate(data, sizes, background="ground")
    shares, right = by_numpy(data)
    assert found["mean_iou"] == pytest.approx(np.mean(shares), abs=1e-12)
    assert found["foreground_iou"] == pytest.approx(np.mean(shares[1:]), abs=1e-12)
    assert found["pixel_accuracy"] == pytest.approx(right, abs=1e-12)
    assert [row[0] for row in found["classes"]] == ["class", "ground", "disc", "square"]
    assert [row[1] for row in found["classes"][1:]] == [f"{share:.6f}" for share in shares]


@dataclasses.dataclass(frozen=True)
class Views(Scenes):
    """The same scenes at two sizes, mirrored as well, with a label of another size."""

    flip: bool = True

    def batches(self, batch_size, rows):
        for batch in super().batches(batch_size, rows):
            original = np.repeat([self.label.shape[1:]], len(batch["image"]), axis=0).astype(np.int32)
            yield {**batch, "image_1": batch["image"][:, :4, ::2], "original": original}


def test_passes_at_several_sizes_and_mirrored_ones_are_averaged():
    """Two sizes and two directions: the mean of four softmaxes."""
    one = scenes(5, 4)
    data = Views(one.maps, one.label, 4)
    views = []
    for image in (data.maps, data.maps[:, :4, ::2]):
        for mirrored in (False, True):
            image_seen = image[:, :, ::-1] if mirrored else image
            views.append((image_seen[:, ::2, ::2], image.shape[1:3], mirrored))
    expected = [
        label_maps.labels([label_maps.View(s, [(0, 0, *s)], [x[i]], m) for x, s, m in views], (6, 8)) for i in range(5)
    ]
    known = data.label != IGNORED
    assert evaluate(data, (2, 2, 2))["pixel_accuracy"] == pytest.approx(
        (np.array(expected) == data.label)[known].mean()
    )


def test_what_cannot_be_measured_is_refused():
    data = scenes(3, 2)
    with pytest.raises(UserError, match="^background='sky' is no class of the data set$"):
        evaluate(data, background="sky")
    source = SimpleNamespace(record_name=lambda index: f"val record {index}")
    for whose, named in ((None, ""), (source, " that begins with val record 0")):
        with pytest.raises(UserError, match=f"^the data set{named} has no pixel that belongs to a class$"):
            evaluate(dataclasses.replace(data, label=np.full_like(data.label, IGNORED), source=whose))
