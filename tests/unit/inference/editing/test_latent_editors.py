"""The editors that optimize and that map: strength, both spaces, and what is missing."""

import types

import jax
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.inference.editing.latent_mapper import LatentMapperEditor
from swin_jax.inference.editing.latent_optimization import LatentOptimizationEditor, LoadedOptimization, optimize
from swin_jax.models.styleclip import LevelsMapper, StyleSpaceMapper
from swin_jax.pretrained.styleclip import mappers
from swin_jax.pretrained.stylegan2 import loader as stylegan2
from swin_jax.train import checkpoint
from swin_jax.train.init_from import Frozen
from tests.editing import GENERATOR, networks
from tests.unit.tasks.test_latent_optimization import TEXTS, make

WS = np.random.default_rng(0).standard_normal((3, 4, 8)).astype(np.float32)


def save_mapper(path, model=None):
    model = model or LevelsMapper()
    generator = networks()["generator"].model
    layers = generator.style_layers()
    latent = tuple(np.ones((1, x.channels)) for x in layers) if isinstance(model, StyleSpaceMapper) else WS[:1]
    variables = jax.jit(model.init)(jax.random.key(5), latent)
    mappers.save(path, jax.device_get(variables))
    return variables


def styles_of(ws):
    given = networks()["generator"]
    return given.model.apply(given.variables, ws, method="styles")


def test_a_mapper_of_a_file_edits_by_a_tenth_of_its_output_times_the_strength(tmp_path):
    variables = save_mapper(tmp_path / "mapper.pt")
    loaded = LatentMapperEditor(networks()["generator"], text="glasses", mapper=str(tmp_path / "mapper.pt")).load()
    step = 0.1 * np.asarray(LevelsMapper().apply(variables, WS))
    for strength in (1.0, -2.0):
        edited = loaded.edit(WS, strength=strength)
        np.testing.assert_allclose(edited.ws, WS + strength * step, atol=1e-6)
        for found, expected in zip(edited.styles, styles_of(edited.ws), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(loaded.edit(WS).ws, loaded.edit(WS, strength=1.0).ws)
    np.testing.assert_allclose(loaded.direction(WS), step.reshape(3, -1), atol=1e-6)
    alone = [loaded.edit(WS[i : i + 1]).ws[0] for i in range(3)]
    np.testing.assert_allclose(loaded.edit(WS).ws, alone, atol=1e-6)
    assert loaded.text == "glasses" and loaded.axes[0].name == "strength" and edited.chosen == ((),) * 3


def test_one_file_holds_the_mapper_and_its_generator(tmp_path):
    """As the released files do: it is given for both."""
    given, path = networks()["generator"], str(tmp_path / "mapper.pt")
    mappers.save(path, jax.device_get(save_mapper(path)), jax.device_get(given.variables))
    frozen = Frozen(given.model, path, stylegan2.pretrained(), ("latent",), flag="generator")
    loaded = LatentMapperEditor(frozen, mapper=path).load()
    for name in ("params", "noise"):
        jax.tree.map(np.testing.assert_array_equal, loaded.variables[name], given.variables[name])
    np.testing.assert_array_equal(loaded.edit(WS).ws, LatentMapperEditor(given, mapper=path).load().edit(WS).ws)


def test_a_mapper_of_s_edits_the_styles_and_leaves_colors(tmp_path):
    channels = tuple(layer.channels for layer in networks()["generator"].model.style_layers())
    save_mapper(tmp_path / "mapper.pt", StyleSpaceMapper(channels))
    loaded = LatentMapperEditor(networks()["generator"], mapper=str(tmp_path / "mapper.pt")).load()
    edited = loaded.edit(WS)
    moved = [float(np.abs(one - other).max()) > 1e-4 for one, other in zip(edited.styles, styles_of(WS))]
    assert edited.ws is None and moved == [True, False, True, True, False]


def test_a_mapper_of_a_run_is_its_newest_checkpoint(tmp_path, monkeypatch):
    variables = jax.device_get(save_mapper(tmp_path / "mapper.pt"))
    monkeypatch.setattr(checkpoint, "exists", lambda path: path.name == "run")
    monkeypatch.setattr(checkpoint, "load_params", lambda path: (variables["params"], None, {}))
    editor = LatentMapperEditor(networks()["generator"], LevelsMapper())
    of_file = LatentMapperEditor(networks()["generator"], mapper=str(tmp_path / "mapper.pt")).load()
    np.testing.assert_array_equal(editor.load(str(tmp_path / "run")).edit(WS).ws, of_file.edit(WS).ws)
    with pytest.raises(UserError, match="other levels than LevelsMapper here: params/course_mapping"):
        LatentMapperEditor(networks()["generator"], LevelsMapper(coarse=False)).load(str(tmp_path / "run"))
    with pytest.raises(UserError, match="holds no mapper; train one first, or give --config.mapper=FILE"):
        editor.load(str(tmp_path / "other"))


def test_what_is_missing_is_named_by_its_flag(tmp_path):
    with pytest.raises(UserError, match="--config.mapper=nowhere is neither a file of a mapper nor a workdir"):
        LatentMapperEditor(networks()["generator"], mapper="nowhere").check()
    frozen = Frozen(networks()["generator"].model, inputs=("latent",), flag="generator")
    with pytest.raises(UserError, match="give --config.generator=FILE_OR_WORKDIR"):
        LatentMapperEditor(frozen).check()
    with pytest.raises(UserError, match="give --config.generator=FILE_OR_WORKDIR"):
        LatentOptimizationEditor(make(1, generator=frozen), "glasses").check()
    with pytest.raises(UserError, match="edited to one text here, not to 4"):
        LatentOptimizationEditor(make(4), "glasses").check()


def test_a_mapper_of_another_generator_is_refused(tmp_path):
    save_mapper(tmp_path / "mapper.pt")
    wider = types.SimpleNamespace(model=networks()["generator"].model.clone(w_dim=12), check=lambda key: None)
    wider.load = lambda batch, key: {}
    with pytest.raises(UserError, match=r"mapping_1/bias is \(8,\), and latents of the generator need \(12,\)"):
        LatentMapperEditor(wider, mapper=str(tmp_path / "mapper.pt")).load()
    assert GENERATOR["w_dim"] == 8


@pytest.mark.parametrize("space", ["w+", "s"])
def test_optimized_edits_are_computed_once_and_scaled(space):
    calls = []
    editor = LatentOptimizationEditor(make(1, space=space), "glasses", steps=7)
    start = WS if space == "w+" else styles_of(WS)
    step = {"ws": np.ones_like(WS)} if space == "w+" else {"b8_conv0": np.ones((3, 8), np.float32)}

    def run(ws, text_ids, steps, progress):
        calls.append((len(ws), len(text_ids), steps))
        rows = [int(np.flatnonzero((WS == row).all(axis=(1, 2)))[0]) for row in ws]
        return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], (start, step))

    loaded = LoadedOptimization(editor, networks()["generator"].variables, run)
    whole, half, last = loaded.edit(WS), loaded.edit(WS, strength=0.5), loaded.edit(WS[2:], strength=-1.0)
    assert calls == [(3, 1, 7)]
    if space == "w+":
        np.testing.assert_allclose(half.ws, WS + 0.5)
        np.testing.assert_allclose(last.ws, WS[2:] - 1)
        np.testing.assert_allclose(whole.styles[0], styles_of(WS + 1)[0], atol=1e-5)
    else:
        moved = [float((one - other).max()) for one, other in zip(half.styles, start)]
        np.testing.assert_allclose(moved, [0, 0, 0.5, 0, 0], atol=1e-6)
        assert whole.ws is None
    assert loaded.text == "glasses"


def test_an_optimizing_editor_runs_the_steps_of_its_task():
    task = make(1, TEXTS[:1])
    edited = LatentOptimizationEditor(task, "glasses", steps=2).load().edit(WS[:1])
    np.testing.assert_array_equal(edited.ws, optimize(task, WS[:1], 2, show=False))
    assert np.abs(edited.ws - WS[:1]).max() > 1e-3
