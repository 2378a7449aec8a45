"""The inversions that experiments share fit the networks that they are for."""

import ml_collections
import numpy as np
import pytest

from experiments.common import inversion
from experiments.styleclip import avatars_attributes
from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from tests.editing import networks


def sizes(avatars):
    return ml_collections.ConfigDict(dict(image_size=32, w_dim=64) if avatars else dict(image_size=1024, w_dim=512))


def test_the_classifier_is_that_of_the_attributes():
    c = sizes(True)
    c.invert = inversion.inversion(c, True)
    model = configs.build(c.invert.distance.network.model, "model")
    assert model == configs.build(avatars_attributes.get_config().task.model, "model")


@pytest.mark.parametrize("avatars, flag", [(True, "classifier"), (False, "e4e")])
def test_the_flag_of_the_file_is_named_and_taken(avatars, flag):
    c = sizes(avatars)
    c.invert = inversion.inversion(c, avatars)
    with pytest.raises(UserError, match=f"give --config.{flag}=FILE_OR_WORKDIR"):
        configs.build(c.invert, "invert").check()
    c[flag] = "nothing"
    with pytest.raises(UserError, match=f"^{flag}=nothing is neither a workdir with checkpoints nor a file of weights"):
        configs.build(c.invert, "invert").check()


@pytest.mark.parametrize("avatars", [True, False])
def test_fakes_invert_for_the_fake_generator(avatars):
    c = sizes(avatars)
    c.invert = inversion.inversion(c, avatars)
    c.update(image_size=8, w_dim=8)
    inversion.use_fakes(c.invert)
    given = networks()["generator"]
    inverter = configs.build(c.invert, "invert")
    inverter.check()
    loaded = inverter.load(given.model, given.variables)
    side = loaded.image_size
    found = loaded.invert(np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8))
    assert found.shape == (2, 4, 8) and np.isfinite(found).all()
