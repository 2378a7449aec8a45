"""From logits to labels, strip by strip, against the same with whole arrays."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.ops import label_maps
from swin_jax.ops.label_maps import WHOLE, Method, labels, probabilities, view, windows
from swin_jax.ops.resampling import resize_bilinear

RNG = np.random.default_rng(0)
MIX = RNG.normal(size=(3, 6)).astype(np.float32)


def predict(image):
    """Six classes for every 4 x 4 pixels, of any image whose sides need not be multiples of 4."""
    _, height, width, _ = image.shape
    padded = np.pad(image, ((0, 0), (0, -height % 4), (0, -width % 4), (0, 0)))
    cells = padded.reshape(1, padded.shape[1] // 4, 4, padded.shape[2] // 4, 4, 3)
    return cells.mean(axis=(2, 4)) @ MIX


def plain(image, boxes, size):
    """All classes at all pixels at once."""
    total, count = np.zeros((1, *image.shape[:2], 6), np.float32), np.zeros(image.shape[:2])[..., None]
    for top, left, bottom, right in boxes:
        part = image[None, top:bottom, left:right]
        total[:, top:bottom, left:right] += resize_bilinear(jnp.asarray(predict(part)), part.shape[1:3])
        count[top:bottom, left:right] += 1
    return np.asarray(resize_bilinear(jnp.asarray(total / count, jnp.float32), size))[0]


@pytest.mark.parametrize("method", [WHOLE, Method(mode="slide", crop=(16, 20), stride=(11, 13))])
@pytest.mark.parametrize("size", [(37, 50), (23, 31), (60, 41)])
def test_strips_are_rows_of_the_whole(method, size, monkeypatch):
    image = RNG.normal(size=(37, 50, 3)).astype(np.float32)
    wanted = plain(image, method.boxes((37, 50)), size)
    one = view(predict, image, method)
    np.testing.assert_allclose(one.rows(size, 0, size[0]), wanted, atol=2e-6)
    np.testing.assert_allclose(one.rows(size, 5, 9), wanted[5:9], atol=2e-6)
    soft = jax.nn.softmax(wanted)
    np.testing.assert_allclose(probabilities([one], size), soft, atol=2e-6)
    for rows in (1, 7, 1000):
        monkeypatch.setattr(label_maps, "_STRIP_BYTES", 4 * 6 * size[1] * rows)
        found = labels([one], size)
        assert found.dtype == np.uint8 and (found == wanted.argmax(-1)).all()


def test_several_passes_are_mean_probabilities_and_mirrored_ones_turn_back():
    image = RNG.normal(size=(22, 30, 3)).astype(np.float32)
    views = [view(predict, image, WHOLE), view(predict, image, WHOLE, mirrored=True)]
    plainly = [plain(image, [(0, 0, 22, 30)], (41, 33)), plain(image[:, ::-1], [(0, 0, 22, 30)], (41, 33))[:, ::-1]]
    wanted = np.mean([jax.nn.softmax(scores) for scores in plainly], axis=0)
    np.testing.assert_allclose(probabilities(views, (41, 33)), wanted, atol=2e-6)
    assert (labels(views, (41, 33)) == wanted.argmax(-1)).all()


def test_no_array_has_all_classes_at_all_pixels(monkeypatch):
    size, method = (300, 400), Method(mode="slide", crop=64, stride=43)
    image = RNG.normal(size=(*size, 3)).astype(np.float32)
    one = view(lambda part: np.repeat(predict(part), 25, axis=-1), image, method)
    assert len(one.boxes) == 7 * 9 and one.logits[0].shape[-1] == 150
    monkeypatch.setattr(label_maps, "_STRIP_BYTES", 2**20)
    tracemalloc.start()
    labels([one], size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20 < 4 * 150 * 300 * 400 / 8


def test_windows_are_the_official_ones():
    assert windows((64, 64), (64, 64), (43, 43)) == [(0, 0, 64, 64)]
    spans = sorted({(left, right) for _, left, _, right in windows((10, 121), (64, 64), (43, 43))})
    assert spans == [(0, 64), (43, 107), (57, 121)]
    assert {(top, bottom) for top, _, bottom, _ in windows((10, 121), (64, 64), (43, 43))} == {(0, 10)}
    assert len(windows((1500, 2000), (512, 512), (341, 341))) == 4 * 6


def test_many_classes_need_more_than_a_byte():
    logits = np.zeros((1, 1, 300), np.float32)
    logits[..., 299] = 1
    one = label_maps.View((4, 4), [(0, 0, 4, 4)], [logits])
    assert labels([one], (2, 3)).dtype == np.int32 and (labels([one], (2, 3)) == 299).all()


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(mode="sliding"), "mode='sliding' is not one of"),
        (dict(mode="slide", crop=64, stride=65), "stride=65 leaves pixels between windows of 64"),
        (dict(ratios=()), "no passes"),
        (dict(ratios=(0.0,)), "ratios"),
    ],
)
def test_a_method_that_cannot_be_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Method(**fields)
