"""RandAugment: strengths of the operations, their number, and the notation."""

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data.image import randaugment
from swin_jax.data.image.randaugment import IMAGENET_FILL, OPS, RandAugment, parse

OFFICIAL = "rand-m9-mstd0.5-inc1"
RNG = np.random.default_rng(0)
IMAGE = Image.fromarray(np.kron(RNG.integers(0, 256, (5, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8))
INCREASING = RandAugment(increasing=True)
WITHOUT_STRENGTH = {"AutoContrast", "Equalize", "Invert"}
SIGNED = {
    "Rotate",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
}


def argument(name, fraction, sign=1.0, increasing=True):
    return OPS[name][0](fraction, sign, increasing)


def difference(name, level, sign=1.0):
    changed = INCREASING.apply(name, IMAGE, level, sign)
    return np.abs(np.asarray(changed, float) - np.asarray(IMAGE, float)).mean()


def test_there_are_fifteen_operations_and_they_keep_size_and_mode():
    assert len(OPS) == 15
    for name in OPS:
        for level in (0.0, 9.0, 10.0):
            for sign in (1.0, -1.0):
                changed = INCREASING.apply(name, IMAGE, level, sign)
                assert (changed.size, changed.mode) == (IMAGE.size, "RGB"), name


@pytest.mark.parametrize("name", sorted(set(OPS) - WITHOUT_STRENGTH))
def test_increasing_operations_change_more_at_a_higher_magnitude(name):
    assert difference(name, 10.0) > difference(name, 3.0)


@pytest.mark.parametrize("name", sorted(SIGNED | {"Solarize", "SolarizeAdd"}))
def test_magnitude_zero_changes_nothing(name):
    assert difference(name, 0.0) == 0


@pytest.mark.parametrize("name", sorted(SIGNED))
def test_signed_operations_go_both_ways(name):
    neutral = argument(name, 0.0)
    assert argument(name, 0.7, 1.0) - neutral == pytest.approx(neutral - argument(name, 0.7, -1.0)) != 0


def test_arguments_at_magnitude_nine_and_ten():
    at_nine = {name: argument(name, 0.9) for name in set(OPS) - WITHOUT_STRENGTH}
    assert at_nine == pytest.approx({
        'Rotate': 27.0, 'Posterize': 1, 'Solarize': 26, 'SolarizeAdd': 99, 'Color': 1.81, 'Contrast': 1.81,
        'Brightness': 1.81, 'Sharpness': 1.81, 'ShearX': 0.27, 'ShearY': 0.27, 'TranslateXRel': 0.405,
        'TranslateYRel': 0.405,
    })  # fmt: skip
    assert argument("Color", 1.0, -1.0) == pytest.approx(0.1)
    assert argument("Posterize", 0.9, increasing=False) == 3
    assert argument("Solarize", 0.9, increasing=False) == 230
    assert argument("Brightness", 0.0, increasing=False) == pytest.approx(0.1)


def test_posterize_keeps_the_high_bits():
    assert set(np.unique(np.asarray(INCREASING.apply("Posterize", IMAGE, 9.0, 1.0)))) <= {0, 128}
    assert not np.asarray(INCREASING.apply("Posterize", IMAGE, 10.0, 1.0)).any()


def test_solarize_add_brightens_dark_pixels_only():
    changed = np.asarray(INCREASING.apply("SolarizeAdd", IMAGE, 10.0, 1.0)).astype(int)
    image = np.asarray(IMAGE).astype(int)
    np.testing.assert_array_equal(changed, np.where(image < 128, np.minimum(image + 110, 255), image))


def test_pixels_from_outside_have_the_imagenet_mean():
    assert INCREASING.apply("TranslateXRel", IMAGE, 10.0, 1.0).getpixel((47, 20)) == IMAGENET_FILL == (124, 116, 104)


def test_translation_is_relative_to_the_side():
    moved = np.asarray(INCREASING.apply("TranslateYRel", IMAGE, 5.0, -1.0))  # 0.225 * 40 = 9 pixels down
    np.testing.assert_array_equal(moved[9:], np.asarray(IMAGE)[:-9])


@pytest.mark.parametrize("axis", ["X", "Y"])
def test_opencv_translates_as_pil_does(axis, monkeypatch):
    pytest.importorskip("cv2")
    noise = Image.fromarray(RNG.integers(0, 256, (40, 48, 3)).astype(np.uint8))
    flat = Image.new("RGB", (48, 40), (0, 101, 255))
    for image in (noise, flat):
        for level in (0.1, 1.3, 5.0, 7.77, 10.0):
            for sign in (1.0, -1.0):
                arguments = f"Translate{axis}Rel", image, level, sign
                found = np.asarray(INCREASING.apply(*arguments)).astype(int)
                with monkeypatch.context() as without:
                    without.setattr(randaugment, "_opencv", lambda: None)
                    wanted = np.asarray(INCREASING.apply(*arguments))
                assert np.abs(found - wanted).max() <= 1 and (found != wanted).mean() < 0.02


def test_the_fast_form_translates_by_whole_pixels():
    moved = np.asarray(RandAugment(fast=True).apply("TranslateXRel", IMAGE, 5.1, 1.0))  # 11.0 of 48
    image = np.asarray(IMAGE)
    np.testing.assert_array_equal(moved[:, :37], image[:, 11:])
    assert (moved[:, 37:] == IMAGENET_FILL).all()


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY"])
@pytest.mark.parametrize("opencv", [False, True])
def test_the_fast_form_moves_to_the_same_places(name, opencv, monkeypatch):
    if opencv:
        pytest.importorskip("cv2")
    else:
        monkeypatch.setattr(randaugment, "_opencv", lambda: None)
    image = Image.fromarray(np.uint8(np.mgrid[:40, :48].sum(0)[..., None] * [2, 1, 0]))
    exact = RandAugment(increasing=True, resample=Image.Resampling.BILINEAR)
    fast = RandAugment(increasing=True, resample=Image.Resampling.BILINEAR, fast=True)
    for sign in (1.0, -1.0):
        one, two = (np.asarray(a.apply(name, image, 8.0, sign)).astype(int) for a in (exact, fast))
        assert (np.abs(one - two).max(-1) <= 2).mean() > 0.93  # but for the border


def test_each_of_two_draws_is_applied_half_the_time(monkeypatch):
    applied = []
    monkeypatch.setattr(
        RandAugment, "apply", lambda self, name, image, level, sign: applied.append((name, level, sign))
    )
    augment, rng = parse(OFFICIAL), np.random.default_rng(1)
    counts = []
    for _ in range(3000):
        before = len(applied)
        augment(IMAGE, rng)
        counts.append(len(applied) - before)
    np.testing.assert_allclose(np.bincount(counts, minlength=3) / 3000, [0.25, 0.5, 0.25], atol=0.03)
    names, levels, signs = zip(*applied, strict=True)
    assert min(np.unique(names, return_counts=True)[1]) > 3000 / 15 * 0.7 and set(names) == set(OPS)
    assert max(levels) == 10.0 and np.mean(levels) == pytest.approx(9.0, abs=0.05)
    assert np.std(levels) == pytest.approx(0.5, abs=0.05)
    assert np.mean(signs) == pytest.approx(0.0, abs=0.06)


def test_the_generator_decides_everything():
    augment = parse(OFFICIAL)
    results = [np.asarray(augment(IMAGE, np.random.default_rng(seed))) for seed in (5, 5, *range(6, 16))]
    np.testing.assert_array_equal(results[0], results[1])
    assert any((result != results[0]).any() for result in results)


def test_notation():
    assert parse(OFFICIAL) == RandAugment(magnitude=9.0, magnitude_std=0.5, num_ops=2, increasing=True)
    assert parse("rand-n3-m7") == RandAugment(magnitude=7.0, num_ops=3)
    assert not parse("rand-inc0").increasing


@pytest.mark.parametrize("text", ["rand-m9-mstd", "rand-x3", "rand-m", "randm9", "augmix-m3", "rand-n1.5", "rand--m9"])
def test_unreadable_notation_is_a_user_error(text):
    with pytest.raises(UserError, match=text):
        parse(text)
