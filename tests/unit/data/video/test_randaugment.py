"""RandAugment of clips: every operation equals imgaug's, all frames get the same, the hidden flip has its switch."""

import collections

import cv2
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.data.video.randaugment import OPS, VideoRandAugment, crop_sides

TWO_SIDED = {"Rotate", "Color", "Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY"}


@pytest.fixture
def golden(root):
    """What imgaug 0.4.0 made of a frame at magnitudes 7 and 20: (1 or 2 signs, 24, 32, 3) for each operation."""
    with np.load(root / "tests" / "golden" / "imgaug" / "randaugment.npz") as arrays:
        return dict(arrays)


def clip(count=3, height=24, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def applied(augment, name, frames, sign=1.0, position=(0.5, 0.5)):
    return augment.apply(name, frames, sign, np.array(position))


@pytest.mark.parametrize("magnitude", [7, 20])
@pytest.mark.parametrize("name", [name for name in OPS if name != "Cutout"])
def test_operations_equal_imgaug_bit_for_bit(name, magnitude, golden):
    augment = VideoRandAugment(4, magnitude)
    mine = {applied(augment, name, golden["frame"][None], sign)[0].tobytes() for sign in (1.0, -1.0)}
    assert mine == {frame.tobytes() for frame in golden[f"{name}_{magnitude}"]}
    assert len(mine) == 1 + (name in TWO_SIDED)


def test_there_are_imgaugs_18_operations():
    assert len(OPS) == 18


@pytest.mark.parametrize("name", OPS)
def test_all_frames_get_the_same(name):
    """A clip is augmented as each of its frames alone."""
    frames = clip()
    for sign in (1.0, -1.0):
        whole = applied(VideoRandAugment(), name, frames, sign)
        assert whole.shape == frames.shape and whole.dtype == np.uint8
        for index in range(len(frames)):
            alone = applied(VideoRandAugment(), name, frames[index : index + 1], sign)
            np.testing.assert_array_equal(whole[index], alone[0])


@pytest.mark.parametrize(
    "position, box",
    [((0.5, 0.5), (95, 128, 133, 166)), ((0.0, 1.0), (0, 16, 283, 300)), ((1.0, 0.0), (207, 224, 0, 16))],
)
def test_cutout_fills_a_square_of_the_published_size(position, box):
    """14.6 % of the height at magnitude 7, cut to whole pixels and to the frame."""
    cut = applied(VideoRandAugment(), "Cutout", np.zeros((2, 224, 300, 3), np.uint8), position=position)
    expected = np.zeros_like(cut)
    expected[:, box[0] : box[1], box[2] : box[3]] = 128
    np.testing.assert_array_equal(cut, expected)


def test_strengths_at_magnitude_7_are_the_published_ones():
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    augment = VideoRandAugment()
    np.testing.assert_array_equal(applied(augment, "Posterize", ramp), ramp & 0b11111110)  # 7 bits
    np.testing.assert_array_equal(applied(augment, "Solarize", ramp), np.where(ramp >= 197, 255 - ramp, ramp))
    brighter = applied(augment, "Brightness", np.full((1, 4, 4, 3), 100, np.uint8))
    assert (brighter == 121).all()
    shifted = applied(augment, "TranslateX", np.full((1, 4, 1000, 3), 255, np.uint8))
    assert (shifted == 128).all(axis=(0, 1, 3)).sum() == 77  # 7.7 % of the width


def test_operations_are_distinct_all_applied_and_equally_often_drawn(monkeypatch):
    drawn = []
    monkeypatch.setattr(VideoRandAugment, "apply", lambda self, name, frames, sign, place: drawn.append(name) or frames)
    augment, rng, frames = VideoRandAugment(4, 7), np.random.default_rng(0), clip(1, 8, 8)
    for _ in range(900):
        augment(frames, rng)
    assert all(len(set(drawn[start : start + 4])) == 4 for start in range(0, len(drawn), 4))
    counts = collections.Counter(drawn)
    assert len(drawn) == 3600 and set(counts) == set(OPS)
    assert min(counts.values()) > 140 and max(counts.values()) < 260


def test_the_hidden_flip_has_its_switch():
    frames, rng = clip(2), np.random.default_rng(0)
    flips = VideoRandAugment(num_ops=0, hidden_flip=True, hidden_crop=False)
    flipped = [np.array_equal(flips(frames, rng), frames[:, :, ::-1]) for _ in range(200)]
    assert 70 < sum(flipped) < 130
    still = VideoRandAugment(num_ops=0, hidden_flip=False, hidden_crop=False)
    assert all(np.array_equal(still(frames, rng), frames) for _ in range(20))


def test_the_hidden_crop_has_its_switch_and_takes_at_most_its_share_of_each_side():
    frames, rng = clip(2, 224, 224), np.random.default_rng(0)
    crops = VideoRandAugment(num_ops=0, hidden_flip=False, magnitude=7)
    cropped = crops(frames, rng)
    assert cropped.shape == frames.shape and not np.array_equal(cropped, frames)
    shares = np.array([3, 7, 0, 5]) / 224  # top, right, bottom, left
    expected = [cv2.resize(np.ascontiguousarray(frame[3:, 5:217]), (224, 224)) for frame in frames]
    np.testing.assert_array_equal(crop_sides(frames, shares), expected)
    np.testing.assert_array_equal(crop_sides(frames, np.full(4, 0.4 / 224)), frames)


def test_the_crop_is_at_most_magnitude_pixels_of_224(monkeypatch):
    shares = []
    monkeypatch.setattr(
        "swin_jax.data.video.randaugment.crop_sides", lambda frames, drawn: shares.append(drawn) or frames
    )
    augment, rng = VideoRandAugment(num_ops=0), np.random.default_rng(0)
    for _ in range(300):
        augment(clip(1, 8, 8), rng)
    shares = np.array(shares)
    assert shares.shape == (300, 4) and shares.min() >= 0 and 0.97 * 7 / 224 < shares.max() <= 7 / 224
    assert np.abs(np.corrcoef(shares.T) - np.eye(4)).max() < 0.2  # sides are independent


def test_the_generator_decides_everything():
    frames, augment = clip(), VideoRandAugment()
    first, second, third = (augment(frames, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, third)


@pytest.mark.parametrize("fields", [dict(num_ops=19), dict(num_ops=-1), dict(magnitude=31)])
def test_wrong_settings(fields):
    with pytest.raises(UserError):
        VideoRandAugment(**fields)
