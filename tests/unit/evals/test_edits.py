"""Edits: means of all terms over the latents that are there, and pairs of pictures."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from swin_jax.data.pipeline import EvalData
from swin_jax.evals.edits import Edits, consistency
from swin_jax.pretrained.styleclip.latents import Latents, unchanged
from swin_jax.train.sharding import Placement, make_mesh


@dataclasses.dataclass(frozen=True)
class Brighter:
    """Pictures of 8 pixels whose brightness is the latent, before and after."""

    predicts: ClassVar[str] = "edits"

    def predict(self, state, batch, frozen):
        value = batch.get("latent", jnp.array([[0.5], [1.0]]))[:, 0]
        picture = jnp.broadcast_to(value[:, None, None, None], (len(value), 8, 8, 3))
        return {"before": picture, "image": picture - 1, "clip": value, "loss": value * 2}


def test_every_latent_counts_once_and_the_first_are_shown():
    values = np.linspace(-1, 1, 11, dtype=np.float32)[:, None]
    data = EvalData(Latents("latent", values, "x"), unchanged(), batch_size=8, num_threads=0)
    run = Edits(data, pictures=10, columns=4).bind(Brighter(), Placement(make_mesh()))
    found = run(None, None)
    picture = found.pop("edits")
    np.testing.assert_allclose([found["clip"], found["loss"]], [0, 0], atol=1e-6)
    assert picture.shape == (3 * 64, 8 * 64, 3)
    rows = picture[32::64, 32::64, 0]
    for place, shown in enumerate((values, values - 1)):
        expected = np.clip(shown[:10, 0] * 127.5 + 128, 0, 255)
        np.testing.assert_allclose(rows[:, place::2].ravel()[:10], expected, atol=1.01)
    assert not rows.ravel()[20:].any()


def test_a_task_with_latents_of_its_own_is_measured_without_data():
    found = Edits(columns=1).bind(Brighter(), Placement(make_mesh()))(None, None)
    assert found["clip"] == 0.75 and found["edits"].shape == (128, 128, 3)


def test_the_consistency_of_steps_is_the_cosine_between_any_two():
    steps = np.array([[1.0, 0], [2, 0], [0, 3]])
    found = consistency(steps)
    np.testing.assert_allclose([found["step_cosine"], found["step_cosine_std"]], [1 / 3, np.sqrt(2) / 3])
    assert consistency(steps[:1]) == {}
