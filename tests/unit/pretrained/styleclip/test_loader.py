"""Latent mappers through `swin_jax.load`: by name, by a file alone, from a run."""

import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swin_jax
from swin_jax.core.errors import UserError
from swin_jax.models.styleclip import LevelsMapper, SingleMapper, StyleSpaceMapper
from swin_jax.models.stylegan2 import Generator
from swin_jax.pretrained.load import FAMILIES
from swin_jax.pretrained.styleclip import loader
from swin_jax.train import checkpoint
from tests import stylegan2
from tests.unit.pretrained.styleclip.test_mappers import CLASSES, inputs, released, write


@pytest.mark.parametrize("name", [None, "latent_mapper", "Latent-Mapper"])
@pytest.mark.parametrize("kind", ["without fine", "single", "without rgb"])
def test_a_file_tells_its_mapper(kind, name, tmp_path, caplog):
    parts, expected = CLASSES[kind]
    write(tmp_path / "mapper.pt", released(parts))
    with caplog.at_level(logging.INFO, "swin_jax.pretrained.styleclip.loader"):
        model, variables = swin_jax.load(name, weights=tmp_path / "mapper.pt")
    assert model == expected and "non-commercial" in caplog.text
    shapes = jax.eval_shape(model.init, jax.random.key(0), inputs(model))
    assert jax.tree.map(lambda x: x.shape, variables) == jax.tree.map(lambda x: x.shape, shapes)


def test_the_generator_of_its_file_is_taken_by_key_or_name(tmp_path):
    write(tmp_path / "mapper.pt", released(CLASSES["single"][0]))
    sizes = stylegan2.GENERATORS["usual"]
    with pytest.warns(UserWarning):  # it has no mean latent
        model, variables = swin_jax.load(weights=tmp_path / "mapper.pt", key="decoder")
    assert model == Generator(**sizes) and "noise" in variables


def test_one_family_recognizes_a_mapper():
    for parts, _ in CLASSES.values():
        assert [family.title for family in FAMILIES if family.recognizes(released(parts))] == ["latent mapper"]
    assert "latent_mapper" in swin_jax.list_models()


def test_norms_along_the_features_are_asked_for(tmp_path):
    write(tmp_path / "mapper.pt", released(CLASSES["single"][0]))
    model, _ = swin_jax.load(weights=tmp_path / "mapper.pt", norm_axis="features")
    assert model == SingleMapper("features")


def test_what_is_no_use_is_one_line():
    with pytest.raises(UserError, match="not downloaded, because their files hold a generator"):
        swin_jax.load("latent_mapper", weights="official")
    with pytest.raises(UserError, match="a mapper takes latents, not pictures"):
        swin_jax.preprocess(LevelsMapper())
    with pytest.warns(UserWarning, match="random weights"):
        model, _ = swin_jax.load("latent_mapper", kind="styles", channels=(4, 4, 4, 2, 2))
    assert model == StyleSpaceMapper((4, 4, 4, 2, 2))


def test_the_mapper_of_a_run_is_loaded_as_it_was_trained(tmp_path, monkeypatch):
    fields = {"fn": "swin_jax.models.styleclip.LevelsMapper", "fine": False, "coarse": True}
    (tmp_path / "config.json").write_text(json.dumps({f"task.model.{name}": value for name, value in fields.items()}))
    shapes = jax.eval_shape(LevelsMapper(fine=False).init, jax.random.key(0), jnp.ones((1, 18, 4)))
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    monkeypatch.setattr(checkpoint, "load_variables", lambda workdir: variables)
    model, found = swin_jax.load(weights=tmp_path)
    assert model == LevelsMapper(fine=False)
    jax.tree.map(np.testing.assert_array_equal, found, variables)


def test_styles_of_all_layers_may_be_one_array():
    model = StyleSpaceMapper((4, 4, 4, 2, 2))
    styles = tuple(jnp.ones((2, width)) * (i + 1) for i, width in enumerate(model.channels))
    variables = model.init(jax.random.key(0), styles)
    found = loader.predict(model, variables, {"styles": jnp.concatenate(styles, axis=1)}, None)["step"]
    np.testing.assert_array_equal(found, jnp.concatenate(model.apply(variables, styles), axis=1))
    with pytest.raises(UserError, match=r"styles of all layers are \(B, 16\), not \(2, 15\)"):
        model.apply(variables, jnp.ones((2, 15)))


def test_the_mapper_of_a_smaller_generator_is_loaded(tmp_path, monkeypatch):
    """Its latents have fewer levels than the published ones, and it has no mapping for the others."""
    (tmp_path / "config.json").write_text(json.dumps({"task.model.fn": "swin_jax.models.styleclip.LevelsMapper"}))
    shapes = jax.eval_shape(LevelsMapper().init, jax.random.key(0), jnp.ones((1, 6, 4)))
    assert "fine_mapping" not in shapes["params"]
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    monkeypatch.setattr(checkpoint, "load_variables", lambda workdir: variables)
    assert swin_jax.load(weights=tmp_path)[0] == LevelsMapper()
