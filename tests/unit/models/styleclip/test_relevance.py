"""What relevance costs: by the table of layers, by what is traced, and by what XLA counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models.styleclip.directions import image_directions
from swin_jax.models.styleclip.relevance import Change, flops_of_relevance
from swin_jax.models.stylegan2 import Generator, style_layers
from swin_jax.plan import flops

MODEL = Generator(32, z_dim=8, w_dim=8, mapping_layers=1, channel_base=2048, channel_max=64, resampling="plain")


def lower(layer):
    """The generator from a layer on, for one picture: (lowered, FLOPs of its convolutions and products)."""
    styles = tuple(jnp.zeros((1, layer.channels)) for layer in MODEL.style_layers())
    variables = jax.eval_shape(MODEL.init, jax.random.key(0), jnp.zeros((1, 8)))
    begin = lambda v, s: MODEL.apply(v, s, layer, method="activations")  # noqa: E731
    resume = lambda v, x, s: MODEL.apply(v, *x, s, layer, method="resume")  # noqa: E731
    x = jax.eval_shape(begin, variables, styles)
    return jax.jit(resume).lower(variables, x, styles), flops.count(resume, variables, x, styles)


def test_config_f_at_1024_pixels_is_as_the_table_of_layers_implies():
    cost = flops_of_relevance(style_layers(1024))
    assert cost.pictures == 6048 * 200
    assert round(cost.whole / cost.from_layer, 2) == 1.12
    assert round(cost.whole / cost.rank_one, 2) == 1.17
    assert cost.whole == cost.pictures * sum(layer.convolution() for layer in style_layers(1024))


@pytest.mark.parametrize("layer", [0, 3, 8, 9])
def test_the_compiled_tail_costs_what_the_table_says(layer):
    layers = MODEL.style_layers()
    implied = 2 * sum(one.convolution() for one in layers[layer:])
    powers = 2 * sum(one.channels * one.features for one in layers[layer:] if not one.is_rgb)  # of demodulation
    lowered, traced = lower(layer)
    counted = lowered.cost_analysis()["flops"]
    # A transposed convolution is traced with the one place more that its filter takes away again.
    assert abs(traced - powers - implied) <= 0.02 * implied
    # XLA leaves padding out, 3 % at 32 pixels, and counts filters, noise and activations in.
    assert abs(counted - implied) <= 0.05 * implied


def test_a_change_of_other_words_is_refused():
    with pytest.raises(UserError, match="form='papers'"):
        Change(form="papers")
    with pytest.raises(UserError, match="cumulative=True is of form='code'"):
        Change(form="paper", cumulative=True)


def test_a_channel_that_changes_no_picture_has_no_direction():
    features = np.random.default_rng(0).normal(size=(2, 3, 2, 4)).astype(np.float32)
    features[1, :, 0] = features[1, :, 1]
    rows = image_directions(features)
    assert not rows[1].any()
    np.testing.assert_allclose(np.linalg.norm(rows[0]), 1, rtol=1e-6)
