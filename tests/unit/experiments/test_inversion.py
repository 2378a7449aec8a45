"""The inversions that experiments share fit the networks that they are for."""

import ml_collections
import numpy as np
import pytest
from experiments.common import inversion
from experiments.studies.avatar_inversion import kept
from experiments.styleclip import avatars_attributes

from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from tests.editing import networks

KINDS = {"e4e": {}, "vgg16": dict(projector=True), "classifier": {}}


def made(flag):
    c = ml_collections.ConfigDict(dict(image_size=1024, w_dim=512))
    c.invert = inversion.inversion(c, flag == "classifier", **KINDS[flag])
    return c


def test_the_classifier_is_that_of_the_attributes():
    model = configs.build(made("classifier").invert.distance.network.model, "model")
    assert model == configs.build(avatars_attributes.get_config().task.model, "model")


@pytest.mark.parametrize("flag", KINDS)
def test_the_flag_of_the_file_is_named_and_taken(flag):
    c = made(flag)
    with pytest.raises(UserError, match=f"give --config.{flag}=FILE_OR_WORKDIR"):
        configs.build(c.invert, "invert").check()
    c[flag] = "nothing"
    with pytest.raises(UserError, match=f"^{flag}=nothing is neither a workdir with checkpoints nor a file of weights"):
        configs.build(c.invert, "invert").check()


def test_missing_heads_of_lpips_are_told_when_the_inversion_is_built():
    c = made("vgg16")
    c.lpips = "nothing.pth"
    with pytest.raises(UserError, match="heads=nothing.pth: there is no such file; it is vgg.pth in lpips"):
        configs.build(c.invert, "invert")


@pytest.mark.parametrize("flag", KINDS)
def test_fakes_invert_for_the_fake_generator(flag, recwarn):
    c = made(flag)
    c.update(image_size=8, w_dim=8)
    inversion.use_fakes(c.invert)
    given = networks()["generator"]
    inverter = configs.build(c.invert, "invert")
    inverter.check()
    loaded = inverter.load(given.model, given.variables)
    side = loaded.image_size
    found = loaded.invert(np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8))
    assert found.shape == (2, 4, 8) and np.isfinite(found).all()


def test_what_is_hidden_is_neither_kept_nor_lost():
    right, seen = kept(np.array([[True, True, False, False, True]]), np.array([[1, 0, 0, 1, -1]], np.int8))
    assert right.tolist() == [[True, False, True, False, False]] and seen.tolist() == [[True] * 4 + [False]]
