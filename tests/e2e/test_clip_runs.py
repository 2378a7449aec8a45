"""A trained CLIP: a folder of pictures is indexed and searched from the launcher, and the notebook says the same."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import jax
import numpy as np
import pytest
from PIL import Image

import swin_jax
from swin_jax import launch as launcher
from swin_jax.core import config as configs
from swin_jax.data import sources
from swin_jax.data.pipeline import EvalData
from swin_jax.evals import features
from swin_jax.inference import image_index, search, similarity, trained_run
from swin_jax.inference.trained_run import open_trained
from swin_jax.train import checkpoint
from swin_jax.train.setup import build_run
from tests.experiments import config_path

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = "experiments/clip/clip_emoji.py:fake"
AVERAGE = "--config.task.ema_decay=0.9"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five pictures, one of them gray and one in a sub-folder, a damaged one, and a text file."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "more").mkdir()
    rng = np.random.default_rng(0)
    for name, shape in {"a.png": (40, 40, 3), "b.png": (30, 50, 3), "c.png": (8, 8), "d.jpg": (64, 64, 3)}.items():
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(root / name)
    Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(root / "more" / "e.png")
    (root / "damaged.jpg").write_bytes((root / "d.jpg").read_bytes()[:300])
    (root / "notes.txt").write_text("no picture")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workdir of three steps, with an average of the weights."""
    workdir = tmp_path_factory.mktemp("trained")
    assert launcher.run(["launch", f"--config={ROOT / CONFIG}", f"--workdir={workdir}", AVERAGE]) == 0
    return workdir


@pytest.fixture(scope="module")
def indexed(trained, folder):
    """The same workdir with an index of the folder."""
    arguments = [f"--config={ROOT / CONFIG}", f"--workdir={trained}", AVERAGE, f"--index={folder}"]
    assert launcher.run(["launch", *arguments]) == 0
    return trained


def hits(out):
    """[(cosine, path)] that the launcher printed."""
    lines = [line.split(None, 1) for line in out.splitlines() if line[:1] in "+-"]
    return [(float(cosine), path) for cosine, path in lines]


def test_the_notebook_loads_a_run(trained):
    model, variables = swin_jax.load(weights=trained)
    assert model.visual.width == 8 and model.text.context_length == 20
    assert set(variables) == {"params", "batch_stats"}
    params, average, _ = checkpoint.load_params(trained)
    for tower in ("visual", "text"):
        np.testing.assert_equal(variables["params"][tower], average[tower])
    assert (np.asarray(average["visual"]["conv1"]["kernel"]) != params["visual"]["conv1"]["kernel"]).any()
    prepared = swin_jax.preprocess(trained)(np.zeros((50, 40, 3), np.uint8))
    assert prepared.shape == (1, 32, 32, 3)


def test_a_folder_is_indexed_as_the_notebook_does(indexed, folder, launch):
    found = image_index.load(indexed / "index.npz")
    assert found.names == ("a.png", "b.png", "c.png", "d.jpg", "more/e.png") and found.normalized and found.complete
    assert "step 3" in found.model
    model, variables = swin_jax.load(weights=indexed)
    assert found.checksum == image_index.model_checksum(model, variables)
    preprocess = swin_jax.preprocess(indexed)
    paths = [folder / name for name in found.names]
    expected = similarity.encode_images(model, variables, paths, preprocess)
    np.testing.assert_array_equal(found.features, expected)
    own = image_index.of_folder(model, variables, folder, batch_size=4, progress=False)
    np.testing.assert_array_equal(found.features, own.features)
    assert own.preparation == found.preparation == preprocess.fingerprint()
    # Nothing has changed, so nothing but the damaged one is read.
    status, out, err = launch(CONFIG, indexed, AVERAGE, f"--index={folder}")
    assert status == 0 and "5 images" in out, err
    assert "left out, cannot be read" in err and "damaged.jpg" in err
    np.testing.assert_array_equal(image_index.load(indexed / "index.npz").features, found.features)


def test_every_way_gives_the_same_features_to_the_last_bit(indexed, folder, launch):
    index = image_index.load(indexed / "index.npz")
    paths, query = [folder / name for name in index.names], "a red square"
    status, out, err = launch(CONFIG, indexed, AVERAGE, f"--predict={folder}")
    assert status == 0 and "--index=FOLDER" in out and "1 of 6 left out" in out, err
    with np.load(indexed / "features.npz") as predicted:
        assert predicted["names"].tolist() == list(index.names) and predicted["root"] == index.root
        np.testing.assert_array_equal(predicted["image_features"], index.features)

    config = configs.load(str(ROOT / CONFIG))
    config.task.ema_decay = 0.9
    run, workdir = build_run(config), open_trained(config, str(indexed))
    with jax.set_mesh(run.placement.mesh):
        state, frozen, _ = trained_run.trained(config, run, workdir)
        one = search._image_query(config, run, state, frozen, str(paths[1]))
        text = search._text_query(config, run, state, frozen, query)
        data = EvalData(sources.flat_folder(str(folder / "more")), trained_run.preparation(config).transform_example, 7)
        evaluated = features.extractor(run.task, run.placement, data)(state, frozen)
    np.testing.assert_array_equal(one, index.features[1])
    np.testing.assert_array_equal(evaluated["image_features"], index.features[4:])

    model, variables = swin_jax.load(weights=indexed)
    np.testing.assert_array_equal(similarity.encode_texts(model, variables, [query, "two"])[0], text)


EXPORTED = """
import sys
import jax, numpy as np, swin_jax
from swin_jax.core import config as configs
from swin_jax.inference import export, similarity
workdir, path, config = sys.argv[1:]
config = configs.load(config)
config.task.ema_decay = 0.9
assert export.prepare_run(config, workdir, path)() == 0
model, variables = swin_jax.load(weights=workdir)
exported = jax.export.deserialize(open(path, "rb").read())
pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
texts = ["a red square", "three"]
ids, _ = swin_jax.preprocess(model).tokenize_and_flag(texts)
wanted = similarity.encode_images(model, variables, pixels)
for rows in (slice(None), slice(1, 2), slice(2, 4)):
    found = exported.call({"image": pixels[rows], "text": ids})
    np.testing.assert_array_equal(found["image_features"], wanted[rows])
    np.testing.assert_array_equal(found["text_features"], similarity.encode_texts(model, variables, texts))
"""


def test_an_exported_run_gives_the_same_features_to_the_last_bit(trained, tmp_path):
    """In a process of its own: the flags by which tests compile quickly make each program round in its own way."""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", EXPORTED, str(trained), str(tmp_path / "model.stablehlo"), str(ROOT / CONFIG)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "model.stablehlo.json").read_text())
    assert facts["preparation"] == json.loads(swin_jax.preprocess(trained).fingerprint())
    assert facts["texts"] == swin_jax.preprocess(trained).texts()


def test_search_by_text(indexed, folder, launch, monkeypatch):
    monkeypatch.setattr(search, "DRAWN", 2)
    status, out, err = launch(CONFIG, indexed, AVERAGE, "--search=a red square", "--top=3")
    assert status == 0, err
    model, variables = swin_jax.load(weights=indexed)
    expected = image_index.find(image_index.load(indexed / "index.npz"), model, variables, "a red square", 3)
    assert [path for _, path in hits(out)] == [path for path, _ in expected]
    np.testing.assert_allclose([cosine for cosine, _ in hits(out)], [cosine for _, cosine in expected], atol=2e-4)
    assert f"3 of 5 images: {indexed / 'search.png'} (the first 2)" in out
    assert Image.open(indexed / "search.png").size[0] > 300


def test_search_says_no_more_than_it_must(indexed, folder, tmp_path, launch, recwarn):
    workdir, pictures = tmp_path / "run", tmp_path / "pictures"
    shutil.copytree(indexed, workdir)
    pictures.mkdir()
    shutil.copy(folder / "a.png", pictures / "two\nlines.png")
    assert launch(CONFIG, workdir, AVERAGE, f"--index={pictures}")[0] == 0
    status, out, err = launch(CONFIG, workdir, AVERAGE, "--search=" + "\N{SLICE OF PIZZA} dog " * 40)
    assert status == 0 and hits(out)[0][1].endswith(r"two\nlines.png"), err
    assert "the text is cut to 20 tokens" in err.splitlines()
    assert "Warning" not in err and not [x for x in recwarn if "Glyph" in str(x.message) or "cut" in str(x.message)]


def test_search_by_picture(indexed, folder, launch, monkeypatch):
    status, out, err = launch(CONFIG, indexed, AVERAGE, f"--search={folder / 'b.png'}")
    assert status == 0, err
    assert len(hits(out)) == 5 and hits(out)[0] == (1.0, str(folder / "b.png"))
    monkeypatch.setenv("HOME", str(folder))
    assert hits(launch(CONFIG, indexed, AVERAGE, "--search=~/b.png")[1]) == hits(out)


def test_a_picture_that_is_gone_is_still_found(indexed, folder, tmp_path, launch):
    workdir, pictures = tmp_path / "run", tmp_path / "pictures"
    shutil.copytree(indexed, workdir)
    shutil.copytree(folder, pictures)
    assert launch(CONFIG, workdir, AVERAGE, f"--index={pictures}")[0] == 0
    (pictures / "a.png").unlink()
    status, out, err = launch(CONFIG, workdir, AVERAGE, "--search=cat")
    assert status == 0 and len(hits(out)) == 5, err


def test_an_index_of_other_weights_is_refused(indexed, folder, tmp_path, launch):
    workdir = tmp_path / "run"
    shutil.copytree(indexed, workdir)
    arguments = (AVERAGE, "--config.total_steps=4")
    assert launch(CONFIG, workdir, *arguments)[0] == 0
    status, _, err = launch(CONFIG, workdir, *arguments, "--search=cat")
    assert status == 1 and "the index is of other weights" in err and "rebuild the index" in err
    assert launch(CONFIG, workdir, *arguments, f"--index={folder}")[0] == 0
    assert launch(CONFIG, workdir, *arguments, "--search=cat")[0] == 0


def test_bad_input_is_one_line(trained, folder, tmp_path, launch):
    def message(config, workdir, *flags):
        found, out, err = launch(config, workdir, *flags)
        assert found == 2 and out == "", err
        lines = [line for line in err.splitlines() if not line.startswith("starts from")]
        assert len(lines) == 1 and lines[0].startswith("error: "), err
        return lines[0]

    (tmp_path / "empty").mkdir()
    assert "no images in" in message(CONFIG, trained, AVERAGE, f"--index={tmp_path / 'empty'}")
    assert "there is no folder" in message(CONFIG, trained, AVERAGE, "--index=nowhere")
    assert "train first" in message(CONFIG, tmp_path / "new", f"--index={folder}")
    assert "train first" in message(CONFIG, tmp_path / "new", "--search=cat")
    assert "is empty; give it a text" in message(CONFIG, trained, AVERAGE, "--search= ")
    assert "is empty; give it a folder" in message(CONFIG, trained, AVERAGE, "--index=")
    both = message(CONFIG, trained, AVERAGE, "--search=cat", f"--index={folder}")
    assert "--index and --search are two commands" in both
    assert "--top=0" in message(CONFIG, trained, AVERAGE, "--search=cat", "--top=0")
    (tmp_path / "run").mkdir()
    shutil.copytree(checkpoint.folder(trained), checkpoint.folder(tmp_path / "run"))
    assert "make it with --index=FOLDER" in message(CONFIG, tmp_path / "run", AVERAGE, "--search=cat")
    (tmp_path / "run" / "index.npz").write_bytes(b"broken")
    assert "is not an index" in message(CONFIG, tmp_path / "run", AVERAGE, "--search=cat")
    folder_said = message(CONFIG, tmp_path / "run", AVERAGE, f"--search={folder}")
    assert f"{folder} is a folder; give a text or one picture" in folder_said
    notes = message(CONFIG, tmp_path / "run", AVERAGE, f"--search={folder / 'notes.txt'}")
    assert "is a file but not a picture that can be read" in notes
    assert "there is no picture nope.gif" in message(CONFIG, tmp_path / "run", AVERAGE, "--search=nope.gif")
    assert "there is no picture nowhere.png" in message(CONFIG, tmp_path / "run", AVERAGE, "--search=nowhere.png")


def test_a_classifier_has_no_index(folder, tmp_path, launch):
    with tarfile.open(ROOT / "tests" / "golden" / "runs" / "swin.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    status, out, err = launch(None, tmp_path, f"--index={folder}")
    assert status == 2 and "A classifier names images with --predict=FOLDER" in err


def test_captions_that_are_cut_are_counted_over_the_run(tmp_path):
    """Every caption of the fakes is longer than five tokens: 8 a step are cut, and the last line has all of them."""
    flags = ("--config.context_length=5", "--config.logs.every=1", AVERAGE)
    assert launcher.run(["launch", f"--config={config_path('clip_openai:fake')}", f"--workdir={tmp_path}", *flags]) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    counts = [line["data/truncated_texts"] for line in lines if "train/loss" in line]
    assert len(counts) == 3 and counts == sorted(counts) and 0 < counts[0] < counts[-1] <= 24
