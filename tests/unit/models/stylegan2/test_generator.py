"""The generator, entered and left between its layers."""

import functools

import jax
import numpy as np
import pytest

from swin_jax.models.stylegan2 import Generator

MODEL = Generator(16, z_dim=6, w_dim=6, mapping_layers=1, channel_base=128, channel_max=8)


@functools.cache
def variables_and_styles():
    variables = MODEL.init(jax.random.key(0), np.zeros((1, 6)))
    # Noise that shows: its strength is 0 at first.
    lift = lambda path, leaf: leaf + 0.3 if path[-1].key == "noise_strength" else leaf  # noqa: E731
    variables = jax.tree_util.tree_map_with_path(lift, variables)
    ws = jax.random.normal(jax.random.key(1), (2, MODEL.num_ws, 6))
    return variables, MODEL.apply(variables, ws, method="styles")


@functools.cache
def whole():
    variables, styles = variables_and_styles()
    return MODEL.apply(variables, styles, method="synthesize_styles")


@pytest.mark.parametrize("layer", range(len(MODEL.style_layers())))
def test_from_a_layer_on_is_as_whole_runs(layer):
    variables, styles = variables_and_styles()
    x, image = MODEL.apply(variables, styles, layer, method="activations")
    # Styles before the layer may be anything.
    later = [np.zeros_like(style) if i < layer else style for i, style in enumerate(styles)]
    resumed = MODEL.apply(variables, x, image, later, layer, method="resume")
    assert (image is None) == (layer < 2)
    np.testing.assert_allclose(resumed, whole(), atol=1e-5)


def test_a_changed_style_shows_from_its_layer_on():
    variables, styles = variables_and_styles()
    layer = [layer.name for layer in MODEL.style_layers()].index("b8/conv1")
    changed = [style + 2.0 if i == layer else style for i, style in enumerate(styles)]
    x, image = MODEL.apply(variables, styles, layer, method="activations")
    resumed = MODEL.apply(variables, x, image, changed, layer, method="resume")
    np.testing.assert_allclose(resumed, MODEL.apply(variables, changed, method="synthesize_styles"), atol=1e-5)
    assert np.abs(resumed - whole()).max() > 0.01
