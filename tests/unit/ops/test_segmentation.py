"""Losses, labels and counts of pixels: the official numbers, and plain loops in numpy."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.constants import IGNORED
from swin_jax.ops import label_maps, segmentation
from swin_jax.ops.resampling import half_pixels

GOLDEN = Path(__file__).parents[2] / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

LOSSES = sorted((GOLDEN / "segmentation").glob("upernet_train_*.json"))


@pytest.mark.parametrize("path", LOSSES, ids=lambda path: path.stem)
def test_the_losses_are_the_official_ones(path):
    case = golden.load(path)
    label = jnp.asarray(case.input("labels"))
    for logits, loss, weight in (("logits", "loss_decode", 1.0), ("aux_logits", "loss_aux", 0.4)):
        maps = jnp.asarray(case.expected(logits).transpose(0, 2, 3, 1))
        value = weight * segmentation.pixel_loss(maps, label)[0]
        assert case.error(loss, value) < case.tolerance(loss)
        # The corrected divisor makes another loss: these labels have ignored pixels.
        other = weight * segmentation.pixel_loss(maps, label, count_ignored=False)[0]
        assert case.error(loss, other) > case.tolerance(loss)


def scene(classes=5, shape=(2, 6, 8), seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(*shape, classes)).astype(np.float32)
    label = rng.integers(0, classes, shape).astype(np.uint8)
    label[:, :2, :3] = IGNORED
    return logits, label


@pytest.mark.parametrize("count_ignored", [True, False])
def test_loss_and_accuracy_are_those_of_plain_loops(count_ignored):
    logits, label = scene()
    each = np.log(np.exp(logits.astype(np.float64)).sum(-1)) - np.take_along_axis(
        logits, np.minimum(label, 4)[..., None].astype(int), -1
    ).squeeze(-1)
    known = label != IGNORED
    divisor = label.size if count_ignored else known.sum()
    loss, accuracy = segmentation.pixel_loss(jnp.asarray(logits), jnp.asarray(label), count_ignored)
    np.testing.assert_allclose(loss, each[known].sum() / divisor, rtol=1e-6)
    np.testing.assert_allclose(accuracy, (logits.argmax(-1) == label)[known].sum() / divisor, rtol=1e-6)


def test_ignored_pixels_have_no_gradient_and_none_at_all_give_zero():
    logits, label = map(jnp.asarray, scene())
    gradient = jax.grad(lambda x: segmentation.pixel_loss(x, label)[0])(logits)
    assert not np.asarray(gradient)[:, :2, :3].any() and np.asarray(gradient)[:, 2:].all()
    nothing = jnp.full_like(label, IGNORED)
    assert segmentation.pixel_loss(logits, nothing, count_ignored=False) == (0.0, 0.0)


def test_pixels_of_each_class_are_counted():
    found, label = scene(seed=1)[0].argmax(-1), scene(seed=1)[1]
    counts = segmentation.count_pixels(jnp.asarray(found), jnp.asarray(label), 5)
    known = label != IGNORED
    for k in range(5):
        right = (found == k) & (label == k)
        expected = [right.sum(), ((found == k) & known).sum(), (label == k).sum()]
        assert [int(counts[name][k]) for name in ("intersect", "predicted", "labeled")] == expected


def test_pictures_of_several_sizes_get_labels_by_one_program():
    """As each of them by itself does, with strips that divide no height; what lies beyond is not looked at."""
    logits = np.random.default_rng(2).normal(size=(3, 5, 7, 4)).astype(np.float32)
    sizes = np.array([[11, 7], [3, 13], [5, 4]], np.int32)
    passes = [segmentation.Pass(jnp.asarray(logits), (5, 7))]
    found = np.asarray(segmentation.resized_labels(passes, jnp.asarray(sizes), (11, 13), strip=4))
    for picture, size, labels in zip(logits, sizes, found):
        rows, columns = half_pixels(5, size[0]), half_pixels(7, size[1])
        alone = np.einsum("ih,hwk,jw->ijk", rows, picture, columns).argmax(-1)
        np.testing.assert_array_equal(labels[: size[0], : size[1]], alone)


@pytest.mark.parametrize("mirrored", [(False,), (True,), (False, True, False)])
def test_several_passes_give_the_labels_that_the_host_gives(mirrored):
    """Two resizes, mirrored passes and mean probabilities, as `label_maps` has them."""
    rng, sizes = np.random.default_rng(3), [(19, 26), (23, 22)]
    seen = [(9 + 4 * i, 13 + 3 * i) for i in range(len(mirrored))]
    logits = [rng.normal(size=(2, -(-h // 4), -(-w // 4), 4)).astype(np.float32) for h, w in seen]
    passes = [segmentation.Pass(jnp.asarray(x), *view) for x, *view in zip(logits, seen, mirrored)]
    found = np.asarray(segmentation.resized_labels(passes, jnp.asarray(sizes), (23, 26), strip=8))
    for i, size in enumerate(sizes):
        views = [
            label_maps.View(view, [(0, 0, *view)], [x[i]], flipped) for x, view, flipped in zip(logits, seen, mirrored)
        ]
        np.testing.assert_array_equal(found[i, : size[0], : size[1]], label_maps.labels(views, size))
