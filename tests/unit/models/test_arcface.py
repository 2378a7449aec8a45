"""IR-SE networks: training, fields that contradict each other, the order of channels, and which weights decay."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten, map_named
from swin_jax.models.arcface import IRSE, rules
from swin_jax.models.arcface.model import PReLU

BLOCKS = ((8, 8, 1), (8, 16, 2))
TINY = IRSE(blocks=BLOCKS, image_size=16, embed_dim=6, dropout=0.5)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype("f"))


@functools.cache
def initial():
    return jax.jit(TINY.init)(jax.random.key(0), IMAGES)


def test_training_moves_the_statistics_drops_out_and_reaches_every_weight():
    def loss(params, key):
        variables = {**initial(), "params": params}
        out, changed = TINY.apply(variables, IMAGES, train=True, mutable=["batch_stats"], rngs={"dropout": key})
        return (out * jnp.arange(6.0).reshape(1, 6)).sum(), (out, changed)

    run = jax.jit(jax.grad(loss, has_aux=True))
    gradients, (first, changed) = run(initial()["params"], jax.random.key(1))
    _, (second, _) = run(initial()["params"], jax.random.key(2))
    assert not np.allclose(first, second)
    np.testing.assert_allclose(jnp.linalg.norm(first, axis=-1), 1, atol=1e-5)
    for before, after in zip(jax.tree.leaves(initial()["batch_stats"]), jax.tree.leaves(changed["batch_stats"])):
        assert not np.allclose(before, after)
    # What only shifts the input of a norm changes nothing.
    still = {path for path, leaf in flatten(gradients).items() if np.abs(leaf).max() < 1e-4}
    assert still == {"body_1/shortcut_layer_1/bias", "output_layer_3/bias"}


def test_a_batch_is_embedded_as_its_rows_are():
    run = jax.jit(TINY.apply)
    rows = jnp.concatenate([run(initial(), image[None]) for image in IMAGES])
    np.testing.assert_allclose(run(initial(), IMAGES), rows, atol=1e-6)


def test_bgr_turns_the_channels_round():
    turned = TINY.clone(channel_order="bgr").apply(initial(), IMAGES[..., ::-1])
    np.testing.assert_array_equal(turned, TINY.apply(initial(), IMAGES))


def test_features_are_the_maps_after_the_stages():
    _, kept = TINY.apply(initial(), IMAGES, mutable=["intermediates"])
    features = TINY.apply(initial(), IMAGES, method="features")
    assert [x.shape for x in features] == [(4, 8, 8, 8), (4, 4, 4, 16)]
    for name, x in zip(("body.0", "body.2"), features):
        np.testing.assert_array_equal(kept["intermediates"]["outputs"][name], x)


def test_slopes_are_of_channels():
    x = jnp.asarray([[-2.0, -2.0, 3.0, 0.0]])
    slopes = {"params": {"scale": jnp.asarray([0.5, -1.0, 7.0, 7.0])}}
    np.testing.assert_array_equal(PReLU(4).apply(slopes, x), [[-1.0, 2.0, 3.0, 0.0]])


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(blocks=((8, 8, 1), (16, 32, 1))), "are not stages"),
        (dict(blocks=((8, 8, 1), (8, 8, 1))), "are not stages"),
        (dict(blocks=()), "are not stages"),
        (dict(image_size=18), "image_size=18 is not a multiple of 4"),
        (dict(channel_order="rbg"), "channel_order='rbg' must be 'rgb' or 'bgr'"),
    ],
)
def test_fields_that_make_no_network_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(TINY.clone(**fields).init, jax.random.key(0), IMAGES)


@pytest.mark.parametrize("image, message", [(np.zeros((1, 16, 16, 3), np.uint8), "uint8"), (IMAGES[:, :8], "16, 16")])
def test_images_of_another_kind_are_refused(image, message):
    with pytest.raises(UserError, match=message):
        TINY.apply(initial(), image)


def test_only_matrices_decay():
    decayed = map_named(lambda name, leaf: not any(re.search(p, name) for p in rules.NO_DECAY), initial()["params"])
    leaves = flatten(initial()["params"])
    assert {path for path, one in flatten(decayed).items() if one} == {p for p, x in leaves.items() if x.ndim > 1}
