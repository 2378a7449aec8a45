"""The relevance of channels by steps of the loop, against the pieces from the changed layer on."""

import jax
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.inference.editing.relevance import compute
from swin_jax.models.styleclip.directions import mean_directions
from swin_jax.models.styleclip.relevance import Change, Survey
from swin_jax.models.styleclip.statistics import Draws
from swin_jax.tasks.base import frozen_shapes, load_frozen
from swin_jax.tasks.editing import Given
from swin_jax.tasks.style_relevance import StyleRelevance
from tests.unit.inference.editing.small import models


@pytest.mark.parametrize("change", [Change(), Change(cumulative=True)], ids=["each", "cumulative"])
def test_steps_add_up_to_what_is_measured_from_the_changed_layer_on(change, tmp_path):
    made, survey = models(), Survey(Draws(samples=40), images=2, change=change)
    networks = Given(made.generator, made.variables), Given(made.clip, made.clip_variables)
    task = StyleRelevance(*networks, survey, batch_size=10)
    assert (task.channels, task.steps) == (24, 6)
    frozen, step = load_frozen(task), jax.jit(task.train_step)
    like = jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), frozen_shapes(task))
    assert like == jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), frozen)
    state, rows = task.init(jax.random.key(0)), {"row": np.arange(10, dtype=np.int32)}
    first = jax.jit(task.predict)(state, rows, frozen)["moves"]
    for number in range(8):  # the last two change nothing
        state, metrics = step(state, rows, frozen)
        assert metrics["loss"] > 0
        if number == 0:
            np.testing.assert_allclose(state.params["sums"][:10], first, atol=1e-5)
            assert not np.any(state.params["sums"][10:])
        if number == 5:
            sums = np.asarray(state.params["sums"])
    np.testing.assert_array_equal(state.params["sums"], sums)
    # A rounding to bytes that falls the other way moves a feature a little.
    _, rows = compute(made, str(tmp_path), survey, show=False)
    np.testing.assert_allclose(mean_directions(sums), rows, atol=2e-3)


def test_a_conditional_generator_is_refused():
    made = models()
    network = Given(made.generator.clone(c_dim=2), made.variables)
    with pytest.raises(UserError, match="generators without labels"):
        StyleRelevance(network, Given(made.clip, made.clip_variables))
