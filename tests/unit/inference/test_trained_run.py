"""Weights that a run takes as they are: what lies beside them and prepares otherwise is told."""

import json
import warnings

import pytest

from experiments.clip import clip_openai
from swin_jax import launch
from swin_jax.core import config as configs
from swin_jax.inference.trained_run import open_trained
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
    values = launch.define_flags()
    values(["launch", f"--workdir={workdir}"])
    launch._prepare(values, config, None)


def test_an_evaluation_of_weights_with_another_preparation_is_told(opened, monkeypatch):
    monkeypatch.setattr(loop, "prepare", lambda *arguments: None)
    (line,) = opened("preprocessor_config.json", OPENAI | {"image_mean": [0.5] * 3}, use=evaluate)
    assert "comes with another preparation than this experiment's" in line
    assert opened("preprocessor_config.json", OPENAI, use=evaluate) == []


@pytest.mark.parametrize("change", [{}, {"task.mean": (0.5,) * 3}, {"predict.transform.interpolation": "bilinear"}])
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
