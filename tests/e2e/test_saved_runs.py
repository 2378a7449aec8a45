"""Runs that an earlier commit saved (tests/golden/runs) are resumed, loaded, predicted with, searched and exported."""

import csv
import json
import pathlib
import shutil
import tarfile

import jax
import numpy as np
import pytest
from PIL import Image

import swin_jax
from swin_jax.inference import image_index, similarity
from swin_jax.train import loop
from tests.golden.runs import make

ROOT = pathlib.Path(__file__).parents[2]
CLIPS = tuple(kind for kind in make.KINDS if kind.startswith("clip_"))


@pytest.fixture(scope="module")
def saved(request, tmp_path_factory):
    """The workdir of a kind of run; it is not written to."""
    workdir = tmp_path_factory.mktemp(request.param)
    with tarfile.open(ROOT / "tests" / "golden" / "runs" / f"{request.param}.tar.xz") as archive:
        archive.extractall(workdir, filter="data")
    return workdir, make.command(request.param, ROOT / "experiments", workdir)


@pytest.fixture
def run(saved, tmp_path, launch):
    """Runs the launcher in a copy of the workdir: run(*flags) -> stdout and stderr; actions need no --config."""
    workdir, (config, _, *flags) = saved
    shutil.copytree(workdir, tmp_path / "run")

    def run(*more):
        acts = any(flag.startswith(("--predict", "--index", "--search", "--export")) for flag in more)
        given = [None] if acts else [config.removeprefix("--config="), *flags]
        status, out, err = launch(given[0], tmp_path / "run", *given[1:], *more)
        assert status == 0, err
        assert "changed since" not in out + err
        return out + err

    return run


@pytest.fixture
def pictures(tmp_path):
    """A folder of two pictures."""
    folder, rng = tmp_path / "pictures", np.random.default_rng(0)
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / name)
    return folder


def kinds(*names):
    return pytest.mark.parametrize("saved", names, indirect=True)


def expected(workdir):
    return json.loads((workdir / "expected.json").read_text())


@kinds(*make.KINDS)
def test_resumed_run_has_the_saved_state_and_goes_on_as_if_uninterrupted(saved, run, tmp_path, monkeypatch):
    restored, usual = {}, loop.first_state

    def first_state(*arguments, **options):
        state, meta = usual(*arguments, **options)
        rest = {"step": state.step, "opt_state": state.opt_state, "mutable": state.mutable}
        ema = {} if state.ema is None else {"ema": state.ema}
        restored.update(make.checksums(jax.device_get({"params": state.params, "rest": rest, **ema})))
        return state, meta

    monkeypatch.setattr(loop, "first_state", first_state)
    assert f"resuming at step {make.STOP} of {make.TOTAL}" in run()
    before, found = expected(saved[0]), make.losses(tmp_path / "run")
    assert restored == before["arrays"]
    assert found.keys() == before["losses"].keys() and len(found) == make.TOTAL - make.STOP
    np.testing.assert_allclose(list(found.values()), list(before["losses"].values()), rtol=1e-5)


@kinds(*make.KINDS)
def test_load_gives_the_model_that_was_saved(saved):
    model, variables = swin_jax.load(weights=saved[0])
    np.testing.assert_allclose(make.call(model, variables), expected(saved[0])["outputs"], rtol=1e-4, atol=1e-5)


@kinds("swin")
def test_a_config_that_differs_is_told_in_one_line(saved, run, launch, pictures, tmp_path):
    config, _, *flags = saved[1]
    changes = ["--config.task.mean=(0.5,0.5,0.5)", "--config.task.model.qkv_bias=True", "--config.total_steps=3"]
    given = [config.removeprefix("--config="), tmp_path / "run", *flags, *changes]
    status, _, err = launch(*given, f"--predict={pictures}")
    lines = [line for line in err.splitlines() if line.startswith("changed since this model was trained: ")]
    assert status == 0 and len(lines) == 1 and "task.mean: " in lines[0] and "total_steps" not in lines[0], err


@kinds("swin")
def test_predict_names_what_the_loaded_model_does(saved, run, pictures, tmp_path):
    run(f"--predict={pictures}")
    model, variables = swin_jax.load(weights=saved[0])
    images = swin_jax.preprocess(saved[0])(sorted(pictures.iterdir()))
    logits = jax.jit(model.apply)(variables, images)
    for row, probabilities in zip(csv.DictReader(open(tmp_path / "run" / "predictions.csv")), jax.nn.softmax(logits)):
        found = [float(row[f"probability_{i}"]) for i in range(1, 6)]
        np.testing.assert_allclose(found, np.sort(probabilities)[:-6:-1], atol=1e-5)


@kinds(*CLIPS)
def test_old_index_is_searched_and_made_anew(saved, run, pictures, tmp_path):
    assert "1 of 1 image:" in run("--search=a picture of class 3")
    run(f"--index={pictures}")
    model, variables = swin_jax.load(weights=saved[0])
    paths = sorted(pictures.iterdir())
    features = similarity.encode_images(model, variables, paths, swin_jax.preprocess(saved[0]))
    found = image_index.load(tmp_path / "run" / "index.npz")
    assert found.names == ("a.png", "b.png")
    np.testing.assert_allclose(found.features, features, atol=1e-5)


@kinds(*make.EXPORTED)
def test_exported_run_computes_what_it_did(saved, run, tmp_path):
    assert f"step {make.STOP}, for cpu, cuda, tpu" in run(f"--export={tmp_path / 'model.stablehlo'}")
    found = make.call_exported(tmp_path / "model.stablehlo")
    np.testing.assert_allclose(found, expected(saved[0])["exported"], rtol=1e-4, atol=1e-5)
