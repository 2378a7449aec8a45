"""Weights that a run takes as they are: what lies beside them and prepares otherwise is told; where results go."""

import json
import os
import re
import warnings

import pytest
from experiments.clip import clip_openai
from experiments.segmentation import upernet_ade20k
from PIL import Image

from experiments import quickstart
from swin_jax import launch
from swin_jax.core import command_line
from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from swin_jax.inference import export, predict, search
from swin_jax.inference.trained_run import open_trained
from swin_jax.plan import command as plan
from swin_jax.plan import throughput
from swin_jax.pretrained.swin import finetune
from swin_jax.train import loop

# OpenAI's, as transformers writes it.
OPENAI = dict(
    crop_size={"height": 32, "width": 32},
    do_center_crop=True,
    image_mean=[0.48145466, 0.4578275, 0.40821073],
    image_processor_type="CLIPImageProcessor",
    image_std=[0.26862954, 0.26130258, 0.27577711],
    resample=3,
    size={"shortest_edge": 32},
)


@pytest.fixture
def opened(tmp_path):
    """Opens a run without a checkpoint whose weights have configs beside them, and returns the warnings."""

    def call(name=None, config=None, text=None, use=open_trained, **others):
        weights = tmp_path / "hub" / "model.safetensors"
        weights.parent.mkdir(exist_ok=True)
        weights.touch()
        others = {f"{file}.json": content for file, content in others.items()}
        for file, content in ((name, config), ("open_clip_config.json", text), *others.items()):
            if content is not None:
                (weights.parent / file).write_text(json.dumps(content))
        resolved = clip_openai.get_config("fake")
        resolved.init_from.path = str(weights)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            use(resolved, str(tmp_path / "run"))
        return [str(warning.message) for warning in caught]

    return call


def test_weights_that_are_prepared_as_the_experiment_says_are_no_news(opened):
    assert opened() == []
    assert opened("preprocessor_config.json", OPENAI) == []


@pytest.mark.parametrize(
    "change", [{"image_mean": [0.5] * 3}, {"resample": 2}, {"size": {"shortest_edge": 40}}, {"image_std": [0.5] * 3}]
)
def test_weights_with_another_preparation_are_told(change, opened):
    (line,) = opened("preprocessor_config.json", OPENAI | change)
    assert "comes with another preparation than this experiment's" in line and "--config.task.mean=" in line


def test_weights_with_another_cleaning_of_texts_are_told(opened):
    text = {"model_cfg": {"text_cfg": {"tokenizer_kwargs": {"clean": "canonicalize"}}}}
    (line,) = opened("preprocessor_config.json", OPENAI, text)
    assert "clean='canonicalize', here" in line


def test_weights_of_another_vocabulary_are_told(opened):
    clip = {"model_type": "clip"}
    (line,) = opened("config.json", clip, vocab={"a</w>": 0}, tokenizer_config={"model_max_length": 7})
    assert "vocab.json' and context_length=7, here" in line


def evaluate(config, workdir):
    """What the launcher does where nothing is trained, without the evaluation."""
    config.total_steps = 0
    values = command_line.define_flags()
    values(["launch", f"--workdir={workdir}"])
    launch._prepare(values, config, None)


def test_an_evaluation_of_weights_with_another_preparation_is_told(opened, monkeypatch):
    monkeypatch.setattr(loop, "prepare", lambda *arguments: None)
    (line,) = opened("preprocessor_config.json", OPENAI | {"image_mean": [0.5] * 3}, use=evaluate)
    assert "comes with another preparation than this experiment's" in line
    assert opened("preprocessor_config.json", OPENAI, use=evaluate) == []


def train(config, workdir):
    """What the launcher does before it trains."""
    values = command_line.define_flags()
    values(["launch", f"--workdir={workdir}"])
    launch._prepare(values, config, None)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"image_mean": [0.5] * 3}, "mean=(0.5, 0.5, 0.5), this run has mean=(0.48145466"),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, "--config.task.mean= --config.task.std= to use the same"),
        ({"image_processor_type": "SegformerImageProcessor"}, "how .* was trained is not told: "),
        ({"resample": 2, "size": {"shortest_edge": 40}}, None),  # the recipe's
        ({}, None),
    ],
)
def test_training_from_weights_with_another_mean_is_told(opened, monkeypatch, change, told):
    monkeypatch.setattr(loop, "prepare", lambda *arguments: None)
    lines = opened("preprocessor_config.json", OPENAI | change, use=train)
    assert len(lines) == bool(told)
    if told:
        assert re.search(told if ".*" in told else re.escape(told), lines[0])


def test_an_experiment_with_an_init_from_of_its_own_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "prepare", lambda *arguments: "prepared")
    config = clip_openai.get_config("fake")
    config.init_from = {"fn": "mine.load"}
    train(config, str(tmp_path / "run"))


def test_an_experiment_without_a_mean_is_trained_from_weights(opened, monkeypatch):
    monkeypatch.setattr(loop, "prepare", lambda *arguments: None)

    def call(config, workdir):
        del config.task.mean
        train(config, workdir)

    assert opened("preprocessor_config.json", OPENAI, use=call) == []


def test_training_from_a_workdir_with_another_mean_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "prepare", lambda *arguments: None)
    config = clip_openai.get_config("fake")
    trained = tmp_path / "trained"
    (trained / "checkpoints" / "3").mkdir(parents=True)
    config.init_from.path = str(trained)
    for mean in (config.task.mean, (0.5,) * 3):
        (trained / "config.json").write_text(json.dumps(configs.flatten(config) | {"task.mean": mean}))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(config, str(tmp_path / "run"))
        told = [str(warning.message) for warning in caught]
        assert ["normalized with mean=(0.5, 0.5, 0.5)" in line for line in told] == [True] * (mean[0] == 0.5)


@pytest.mark.parametrize(
    "change",
    [{}, {"task.mean": (0.5,) * 3}, {"predict.transform.interpolation": "bilinear"}]
    + [{"predict.source.conversion": "reference"}],
)
def test_a_workdir_with_another_preparation_is_told(tmp_path, change):
    resolved = clip_openai.get_config("fake")
    trained = tmp_path / "trained"
    (trained / "checkpoints" / "3").mkdir(parents=True)
    (trained / "config.json").write_text(json.dumps(configs.flatten(resolved) | change))
    resolved.init_from.path = str(trained)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_trained(resolved, str(tmp_path / "run"))
    assert ["another preparation" in str(warning.message) for warning in caught] == [True] * bool(change)


SEVERAL, ONE = "multi_label_classification", "single_label_classification"


@pytest.mark.parametrize(
    "problem, several, backbone, told",
    [
        (SEVERAL, False, False, "tell each class by itself.*: give --config.task.multi_label=True"),
        (ONE, True, False, "tell one class for each record.*: give --config.task.multi_label=False"),
        (SEVERAL, True, False, None),
        (ONE, False, False, None),
        (None, False, False, None),
        (["?"], False, False, None),
        (SEVERAL, False, True, None),  # another classifier is made
    ],
)
@pytest.mark.parametrize("kind", ["hub", "workdir"])
def test_a_classifier_of_several_labels_is_told_from_one_of_one(tmp_path, problem, several, backbone, told, kind):
    config = quickstart.get_config("fake")
    config.task.multi_label, config.init_from.backbone = several, backbone
    config.init_from.path, config.init_from.convert = str(tmp_path), configs.spec(finetune.pretrained)
    del config.predict  # pictures are another matter
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "swin", "problem_type": problem}))
    (tmp_path / "model.safetensors").touch()
    if kind == "workdir":
        if problem not in (ONE, SEVERAL):
            return  # runs tell it
        (tmp_path / "checkpoints" / "3").mkdir(parents=True)
        (tmp_path / "config.json").write_text(json.dumps({"task.multi_label": problem == SEVERAL}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_trained(config, str(tmp_path / "run"))
    lines = [str(warning.message) for warning in caught]
    assert len(lines) == bool(told) and all(re.search(told, line) for line in lines)


# ---- where results go, before the work ----


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The workdir of a run with a checkpoint, and pictures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run/checkpoints/3").mkdir(parents=True)
    (tmp_path / "pictures").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "pictures/1.png")
    return tmp_path / "run"


@pytest.mark.parametrize(
    "prepare, experiment, name",
    [
        (predict.prepare, quickstart, "predictions.csv"),
        (predict.prepare, quickstart, "predictions.png"),
        (predict.prepare, clip_openai, "features.npz"),
        (search.prepare_index, clip_openai, "index.npz"),
    ],
)
def test_a_folder_in_the_place_of_a_result_is_told_before_the_work(run, prepare, experiment, name):
    config = experiment.get_config("fake")
    prepare(config, str(run), "pictures")
    (run / name).mkdir()
    with pytest.raises(UserError, match=f"{name} cannot be written: it is a folder"):
        prepare(config, str(run), "pictures")


@pytest.mark.parametrize("name", ["predictions", "predictions/labels", "predictions/overlays"])
def test_a_file_in_the_place_of_a_folder_of_results_is_told_before_the_work(run, name):
    """It ended in a traceback after the first batch of pictures."""
    config = upernet_ade20k.get_config("fake")
    predict.prepare(config, str(run), "pictures")
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).touch()
    with pytest.raises(UserError, match=f"{name} cannot be used: it is a file"):
        predict.prepare(config, str(run), "pictures")


@pytest.mark.parametrize("name", ["throughput.json", "plan.json", "plan.png"])
def test_a_folder_in_the_place_of_a_report_is_told_before_the_work(run, name, monkeypatch):
    monkeypatch.setattr(plan.chips.Topology, "compiler_options", lambda self: {})
    monkeypatch.setattr(plan.tpu_compiler, "prepare_backend", lambda: pytest.fail("worked"))
    (run / name).mkdir()
    config = quickstart.get_config("fake")
    with pytest.raises(UserError, match=f"{name} cannot be written: it is a folder"):
        if name == "throughput.json":
            throughput.prepare(config, str(run))
        else:
            plan.prepare(config, "v5e:2x2", str(run))


def test_a_checkpoint_in_the_place_of_the_run_is_told(run):
    for name in ("config.json", "header.json"):
        (run / name).write_text("{}")
    with pytest.raises(UserError, match=f"inside the checkpoints of a run, whose workdir is {run};"):
        open_trained(quickstart.get_config("fake"), str(run / "checkpoints/3"))


def test_what_an_export_cannot_write_is_told_before_the_work(run):
    config = quickstart.get_config("fake")
    (run.parent / "a.json").mkdir()
    for path, said in (("a", "a.json cannot be written: it is a folder"), ("b" * 252, "at most 255 bytes")):
        with pytest.raises(UserError, match=said):
            export.prepare_run(config, str(run), path)


def test_a_run_that_may_only_be_read_is_exported(run, monkeypatch):
    access = os.access

    def read_only(path, mode, **options):
        return access(path, mode, **options) and not (str(path).startswith(str(run)) and mode & os.W_OK)

    monkeypatch.setattr(os, "access", read_only)
    config = quickstart.get_config("fake")
    export.prepare_run(config, str(run), "model.stablehlo")
    with pytest.raises(UserError, match="not writable"):
        predict.prepare(config, str(run), "pictures")
