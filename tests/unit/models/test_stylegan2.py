"""StyleGAN2's generator and discriminator: sizes, the ways in, batches, noise, and what they refuse."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models.stylegan2 import PRESETS, Discriminator, Generator, num_ws, style_layers
from swin_jax.models.stylegan2.discriminator import minibatch_deviation

TINY = dict(resolution=8, channel_base=128, channel_max=16)
LATENTS = dict(z_dim=12, w_dim=10, mapping_layers=2)


@functools.cache
def generator(**fields):
    model = Generator(**TINY | LATENTS | fields)
    labels = jnp.zeros((1, model.c_dim)) if model.c_dim else None
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 12)), labels)
    draw = lambda leaf: leaf + 0.3 * jnp.cos(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape)  # noqa: E731
    return model, jax.tree.map(draw, variables)


def latents(count=4):
    return jax.random.normal(jax.random.key(1), (count, 12))


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    "resolution, of_generator, of_discriminator",
    [(256, 30_034_338, 28_864_129), (512, 30_276_583, 28_982_849), (1024, 30_370_060, 29_012_513)],
)
def test_parameters_are_as_many_as_in_the_released_networks(resolution, of_generator, of_discriminator):
    shapes = jax.eval_shape(Generator(resolution).init, jax.random.key(0), jnp.zeros((1, 512)))
    assert count(shapes["params"]) == of_generator
    image = jnp.zeros((1, resolution, resolution, 3))
    assert count(jax.eval_shape(Discriminator(resolution).init, jax.random.key(0), image)) == of_discriminator
    if resolution == 1024:
        assert count(shapes["params"]["mapping"]) == 2_101_248 and count(shapes["noise"]) == 2_796_176


@pytest.mark.parametrize(
    "resolution, base, layers, total, without_rgb",
    [
        (1024, 32768, 26, 9088, 6048),
        (512, 32768, 23, 8960, 5952),
        (256, 32768, 20, 8704, 5760),
        (256, 16384, 20, 7424, 4928),
    ],
)
def test_the_style_space_is_that_of_the_released_networks(resolution, base, layers, total, without_rgb):
    found = style_layers(resolution, base)
    assert len(found) == layers == 3 * int(math.log2(resolution)) - 4
    assert sum(layer.channels for layer in found) == total
    assert sum(layer.channels for layer in found if not layer.is_rgb) == without_rgb
    assert [index for index, layer in enumerate(found) if layer.is_rgb] == list(range(1, layers, 3))
    if resolution == 1024:
        rows = [0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 9, 10, 11, 11, 12, 13, 13, 14, 15, 15, 16, 17]
        assert [layer.row for layer in found] == rows and num_ws(1024) == 18
        assert [layer.channels for layer in found] == [512] * 15 + [256] * 3 + [128] * 3 + [64] * 3 + [32] * 2
        assert sum(layer.channels for layer in found[:17] if not layer.is_rgb) == 5376


def test_every_preset_is_a_generator():
    for name, fields in PRESETS.items():
        assert Generator(**fields).style_layers()[-1].resolution == fields["resolution"], name


def test_z_w_and_styles_are_ways_to_the_same_image():
    model, variables = generator()
    image = model.apply(variables, latents())
    ws = model.apply(variables, latents(), method="map")
    styles = model.apply(variables, ws, method="styles")
    assert image.shape == (4, 8, 8, 3) and ws.shape == (4, 4, 10) and len(styles) == 5
    np.testing.assert_array_equal(model.apply(variables, ws, method="synthesize"), image)
    np.testing.assert_array_equal(model.apply(variables, styles, method="synthesize_styles"), image)


@pytest.mark.parametrize("fields", [{}, {"resampling": "plain"}, {"c_dim": 3}, {"conv_clamp": 0.5}])
def test_a_batch_of_four_is_four_of_one(fields):
    model, variables = generator(**fields)
    labels = jnp.eye(3)[jnp.array([0, 1, 2, 1])] if model.c_dim else None
    whole = model.apply(variables, latents(), labels)
    rows = [
        model.apply(variables, latents()[i : i + 1], labels if labels is None else labels[i : i + 1]) for i in range(4)
    ]
    np.testing.assert_allclose(whole, jnp.concatenate(rows), atol=1e-5)


def test_recomputed_maps_give_the_same_image_and_gradient():
    model, variables = generator()

    def total(model, ws):
        return (model.apply(variables, ws, method="synthesize") ** 2).sum()

    ws = model.apply(variables, latents(2), method="map")
    value, gradient = jax.value_and_grad(lambda ws: total(model, ws))(ws)
    again, other = jax.value_and_grad(lambda ws: total(model.clone(remat="full"), ws))(ws)
    np.testing.assert_allclose(value, again, rtol=1e-6)
    np.testing.assert_allclose(gradient, other, rtol=1e-4, atol=1e-5 * float(jnp.abs(gradient).max()))


def test_the_length_of_z_does_not_count():
    model, variables = generator()
    ws = model.apply(variables, latents(), method="map")
    np.testing.assert_allclose(model.apply(variables, 10 * latents(), method="map"), ws, rtol=1e-4, atol=1e-5)


def test_truncation_goes_towards_the_mean_in_the_first_rows():
    model, variables = generator()
    mean = variables["averages"]["mapping"]["w_avg"]
    ws = model.apply(variables, latents(), method="map")
    half = model.apply(variables, latents(), truncation=0.5, truncation_cutoff=2, method="map")
    np.testing.assert_allclose(half[:, :2], (ws[:, :2] + mean[None, None]) / 2, atol=1e-6)
    np.testing.assert_array_equal(half[:, 2:], ws[:, 2:])
    nothing = model.apply(variables, latents(), truncation=0.0, method="map")
    np.testing.assert_allclose(nothing, jnp.broadcast_to(mean, nothing.shape), atol=1e-6)


def test_noise_is_constant_drawn_absent_or_given():
    model, variables = generator()
    constant = model.apply(variables, latents())
    np.testing.assert_array_equal(model.apply(variables, latents()), constant)
    drawn = [model.apply(variables, latents(), noise="random", rngs={"noise": jax.random.key(k)}) for k in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert float(jnp.abs(drawn[0] - drawn[2]).max()) > 1e-3
    zeros = [jnp.zeros((1, side, side, 1)) for side in (4, 8, 8)]
    none = model.apply(variables, latents(), noise="none")
    np.testing.assert_allclose(model.apply(variables, latents(), noise=zeros), none, atol=1e-6)
    assert float(jnp.abs(none - constant).max()) > 1e-3


def test_half_precision_is_close_and_finite():
    model, variables = generator()
    image = model.apply(variables, latents())
    for dtype, tolerance in (("bfloat16", 0.1), ("float16", 0.02)):
        found = model.clone(dtype=dtype).apply(variables, latents())
        assert found.dtype == jnp.float32
        assert float(jnp.abs(found - image).max()) < tolerance * float(jnp.abs(image).max())


def test_the_deviation_of_a_group_is_that_of_rows_far_apart():
    """Rows b and b + n are in a group: what a row gets does not depend on its neighbors."""
    x = np.random.default_rng(0).standard_normal((8, 4, 4, 3)).astype(np.float32)
    found = minibatch_deviation(jnp.asarray(x), 4)[..., 3]
    for row in range(8):
        group = x[row % 2 :: 2]
        expected = np.sqrt(group.var(axis=0) + 1e-8).mean()
        np.testing.assert_allclose(found[row], np.full((4, 4), expected), rtol=1e-5)


def test_images_of_no_deviation_have_a_finite_gradient():
    gradient = jax.grad(lambda x: minibatch_deviation(x, 4).sum())(jnp.ones((4, 4, 4, 2)))
    assert bool(jnp.isfinite(gradient).all())


def test_a_conditional_discriminator_asks_for_labels():
    model = Discriminator(**TINY, c_dim=3)
    image, labels = jnp.ones((4, 8, 8, 3)), jnp.eye(3)[jnp.array([0, 1, 2, 0])]
    variables = model.init(jax.random.key(0), image, labels)
    assert model.apply(variables, image, labels).shape == (4, 1)
    with pytest.raises(UserError, match="conditional: give it label vectors"):
        model.apply(variables, image)


def start(model, shape, dtype=jnp.float32):
    return model.init(jax.random.key(0), jnp.zeros(shape, dtype))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, v: m.apply(v, jnp.zeros((2, 7))), r"z is of shape \(2, 7\), but this network takes \(B, 12\)"),
        (lambda m, v: m.apply(v, latents(), jnp.zeros((4, 2))), "has no labels"),
        (lambda m, v: m.apply(v, jnp.zeros((4, 10)), method="synthesize"), r"W\+ is \(B, 4, 10\)"),
        (lambda m, v: m.apply(v, latents(), noise="fixed"), "must be one of const, random, none"),
        (lambda m, v: m.apply(v, latents(), noise=[jnp.zeros((1, 4, 4, 1))]), "sides 4 x 4, 8 x 8, 8 x 8"),
        (lambda m, v: m.apply(v, [jnp.zeros((1, 16))], method="synthesize_styles"), "styles are"),
        (lambda m, v: start(Generator(12), (1, 512)), "resolution=12 must be a power of two"),
        (lambda m, v: start(Generator(**TINY, resampling="fast"), (1, 512)), "resampling='fast'"),
        (lambda m, v: start(Discriminator(**TINY), (3, 8, 8, 3), jnp.uint8), "uint8"),
        (lambda m, v: start(Discriminator(**TINY), (3, 16, 16, 3)), r"\(3, 16, 16, 3\)"),
        (lambda m, v: start(Discriminator(**TINY), (6, 8, 8, 3)), "not a multiple of"),
        (lambda m, v: start(Discriminator(**TINY, architecture="skip"), (1, 8, 8, 3)), "skip"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(UserError, match=message):
        call(*generator())
