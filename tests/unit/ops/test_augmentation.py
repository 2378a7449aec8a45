"""Normalizing, erasing and mixing on the device."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from swin_jax.core.constants import IMAGENET_MEAN, IMAGENET_STD
from swin_jax.ops import augmentation

# Compiling is what takes the time here, so shapes are few and what may be traced is.
_random_erase = jax.jit(augmentation.random_erase, static_argnames="mode")
_mix = jax.jit(augmentation.mix, static_argnames=("mixup_alpha", "cutmix_alpha", "group"))


def random_erase(seed, image, probability=1.0, mode="pixel"):
    return _random_erase(jax.random.key(seed), image, probability=probability, mode=mode)


def mix(seed, image, target, probability=1.0, switch_probability=0.5, group=4, **alphas):
    shares = {"probability": probability, "switch_probability": switch_probability}
    return _mix(jax.random.key(seed), image, target, group=group, **shares, **alphas)


def batch(size=16, side=12, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    image = jnp.asarray(rng.normal(size=(size, side, side, 3)), jnp.float32)
    return image, jax.nn.one_hot(jnp.arange(size) % classes, classes)


def pair_sums(x):
    return np.asarray(x, np.float64).reshape(-1, 2, *x.shape[1:]).sum(axis=1)


def own_weight(target, mixed):
    """The weight of each image's own target, where neighbors differ in class."""
    return np.asarray((mixed * target).sum(axis=1))


# ---- normalize ----


@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (2, 3, 4, 5, 3), (4, 5, 3)])
def test_normalize_is_per_channel(shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    expected = (image / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    out = augmentation.normalize(jnp.asarray(image))
    np.testing.assert_allclose(out, expected, atol=1e-5)
    assert out.dtype == jnp.float32


def test_normalize_gray():
    np.testing.assert_allclose(augmentation.normalize(jnp.full((1, 2, 2, 1), 255, jnp.uint8), (0.5,), (0.5,)), 1.0)


# ---- random_erase ----


def test_erase_changes_one_rectangle_smaller_than_the_image():
    image = jnp.full((300, 20, 30, 3), 7.0)
    out = np.asarray(random_erase(0, image))
    for changed in (out != 7.0).any(axis=-1):
        rows, columns = changed.any(axis=1), changed.any(axis=0)
        h, w = rows.sum(), columns.sum()
        assert 0 < h < 20 and 0 < w < 30
        assert changed.sum() == h * w  # a full rectangle
        assert 0.02 * 600 - h - w <= h * w <= 600 / 3 + h + w  # within rounding
        assert 0.3 * 0.6 < h / w < 1 / 0.3 / 0.6


def test_erase_happens_with_its_probability_in_all_places():
    image = jnp.full((300, 20, 30, 3), 7.0)
    out = np.concatenate([random_erase(seed, image, probability=0.25) for seed in range(10)])
    changed = (out != 7.0)[..., 0]
    assert abs(changed.any(axis=(1, 2)).mean() - 0.25) < 0.03
    frequency = changed.mean(axis=0)
    assert frequency[0, 0] > 0 and frequency[-1, -1] > 0  # the last place is drawn too
    np.testing.assert_allclose(frequency, frequency[::-1, ::-1], atol=0.03)  # and all places alike


@pytest.mark.parametrize("mode, mean, std", [("pixel", 0.0, 1.0), ("const", 0.0, 0.0)])
def test_erase_fill(mode, mean, std):
    image = jnp.full((300, 20, 30, 3), 7.0)
    out = np.asarray(random_erase(2, image, mode=mode))
    filled = out[out != 7.0]
    assert abs(filled.mean() - mean) < 0.05 and abs(filled.std() - std) < 0.05


def test_erase_with_one_color_per_image():
    image = jnp.full((8, 16, 16, 3), 7.0)
    out = np.asarray(random_erase(2, image, mode="rand"))
    colors = [np.unique(x[(x != 7.0).all(axis=-1)], axis=0) for x in out]
    assert all(len(color) == 1 for color in colors)
    assert len(np.unique(np.concatenate(colors), axis=0)) == 8


def test_erase_leaves_an_image_that_no_rectangle_fits():
    image, _ = batch()
    erase = functools.partial(augmentation.random_erase, probability=1.0, area=(0.999, 1.0), aspect=(0.999, 1.001))
    np.testing.assert_array_equal(jax.jit(erase)(jax.random.key(0), image), image)


def test_erase_refuses_an_unknown_mode():
    with pytest.raises(ValueError, match="'pixels'"):
        random_erase(0, jnp.zeros((1, 4, 4, 3)), mode="pixels")


# ---- mix ----


@pytest.mark.parametrize("switch", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_mix_only_moves_content_within_pairs(switch, seed):
    image, target = batch()
    mixed, mixed_target = mix(seed, image, target, switch_probability=switch)
    np.testing.assert_allclose(pair_sums(mixed), pair_sums(image), atol=1e-5)
    np.testing.assert_allclose(pair_sums(mixed_target), pair_sums(target), atol=1e-6)
    assert not np.allclose(mixed, image)


def test_mixup_blends_image_and_target_by_one_weight_per_group():
    image, target = batch()
    mixed, mixed_target = mix(3, image, target, switch_probability=0.0)
    weight = own_weight(target, mixed_target)
    neighbor = np.asarray(image)[np.arange(16) ^ 1]
    w = weight[:, None, None, None]
    np.testing.assert_allclose(mixed, w * np.asarray(image) + (1 - w) * neighbor, atol=1e-5)
    groups = weight.reshape(4, 4)
    np.testing.assert_allclose(groups, groups[:, :1].repeat(4, axis=1), atol=1e-6)
    assert len(np.unique(groups[:, 0].round(5))) == 4


def test_cutmix_pastes_one_box_per_group_and_weights_by_its_area():
    image, target = batch()
    mixed, mixed_target = mix(5, image, target, switch_probability=1.0)
    own = (np.asarray(mixed) == np.asarray(image)).all(axis=-1)
    other = (np.asarray(mixed) == np.asarray(image)[np.arange(16) ^ 1]).all(axis=-1)
    assert (own ^ other).all()  # each pixel is from exactly one of the two
    np.testing.assert_allclose(own.mean(axis=(1, 2)), own_weight(target, mixed_target), atol=1e-6)
    boxes = other.reshape(4, 4, 12, 12)
    assert (boxes == boxes[:, :1]).all() and len(np.unique(boxes[:, 0], axis=0)) > 1
    for box in boxes[:, 0]:
        assert box.sum() == box.any(axis=0).sum() * box.any(axis=1).sum()  # a full rectangle


@pytest.mark.parametrize("length", [7, 12])
def test_box_follows_the_rule_of_timm(length):
    center, side = (x.ravel() for x in np.meshgrid(np.arange(length), np.linspace(0.01, 0.99, 37)))
    cut = (length * side).astype(int)
    expected = np.clip([center - cut // 2, center + cut // 2], 0, length)
    np.testing.assert_array_equal(
        augmentation._span(jnp.asarray(center), jnp.asarray(side, jnp.float32), length), expected
    )


def test_lambda_is_beta_and_the_switch_and_the_probability_are_shares_of_groups():
    image, target = jnp.zeros((8000, 1, 1, 1)), jax.nn.one_hot(jnp.arange(8000) % 2, 2)

    def weights(**kwargs):
        return own_weight(target, mix(0, image, target, group=2, **kwargs)[1])[::2]

    weight = weights(switch_probability=0.0)
    assert abs(weight.mean() - 0.5) < 0.02
    assert abs(weight.var() - 1 / (4 * (2 * 0.8 + 1))) < 0.005  # Beta(a, a) has variance 1 / (4 (2a + 1))
    assert abs((weights(probability=0.3, switch_probability=0.0) == 1).mean() - 0.7) < 0.03
    # On one pixel CutMix has an empty box, so that its groups keep weight 1.
    assert abs((weights(switch_probability=0.2) == 1).mean() - 0.2) < 0.03


def test_the_box_before_clipping_covers_one_minus_lambda():
    """With lambda uniform, side sqrt(1 - lambda) and a uniform center, the clipped box covers 1/2 - 1/5 + 1/48."""
    image, target = jnp.zeros((6000, 40, 40, 1)), jax.nn.one_hot(jnp.arange(6000) % 2, 2)
    _, mixed_target = mix(0, image, target, switch_probability=1.0, group=2)
    assert abs(1 - own_weight(target, mixed_target).mean() - (1 / 2 - 1 / 5 + 1 / 48)) < 0.03  # whole, even sides


@pytest.mark.parametrize("off, cuts", [("cutmix_alpha", False), ("mixup_alpha", True)])
def test_an_alpha_of_0_leaves_the_other_kind(off, cuts):
    image, target = batch()
    mixed, mixed_target = mix(1, image, target, **{off: 0.0})
    pixels = (np.asarray(mixed) == np.asarray(image)) | (np.asarray(mixed) == np.asarray(image)[np.arange(16) ^ 1])
    assert pixels.all() == cuts
    assert not np.allclose(mixed_target, target)


def test_nothing_is_mixed_when_both_are_off_or_the_probability_is_0():
    image, target = batch()
    for off in ({"mixup_alpha": 0.0, "cutmix_alpha": 0.0}, {"probability": 0.0}):
        mixed, mixed_target = mix(0, image, target, **off)
        np.testing.assert_array_equal(mixed, image)
        np.testing.assert_array_equal(mixed_target, target)


@pytest.mark.parametrize("size, group, numbers", [(7, 128, "7"), (12, 8, "12 .* 8"), (6, 3, "6 .* 3")])
def test_mix_names_the_sizes_that_do_not_fit(size, group, numbers):
    with pytest.raises(ValueError, match=numbers):
        mix(0, *batch(size), group=group)


def test_results_do_not_depend_on_the_mesh_and_no_image_crosses_devices():
    devices = jax.device_count()
    image, target = batch(4 * devices)

    def augment(image, target):
        image = augmentation.random_erase(jax.random.key(0), image, probability=1.0)
        return augmentation.mix(jax.random.key(1), image, target, group=2 * devices)

    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    sharded = jax.jit(augment, in_shardings=sharding, out_shardings=sharding).lower(image, target).compile()
    for out, expected in zip(sharded(*jax.device_put((image, target), sharding)), jax.jit(augment)(image, target)):
        np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)
    moves = re.findall(r"collective-permute|all-to-all|all-gather", sharded.as_text())
    assert not moves, moves


def test_padding_is_cleared_below_and_on_the_right_of_each_image():
    image = jnp.ones((3, 4, 6, 2))
    found = augmentation.clear_padding(image, jnp.array([[4, 6], [1, 5], [3, 0]]))
    expected = np.zeros((3, 4, 6, 2))
    expected[0], expected[1, :1, :5] = 1, 1
    np.testing.assert_array_equal(found, expected)
