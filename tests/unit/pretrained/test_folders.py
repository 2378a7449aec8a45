"""Folders of a hub as people have them: caches, parts without their index, adapters."""

import json
import os

import pytest

from swin_jax.core.errors import UserError
from swin_jax.pretrained import beside
from swin_jax.pretrained.load import load
from swin_jax.pretrained.preprocess import preprocess
from tests.unit.pretrained.clip.test_config import HUGGING, features, folder


def cached(path, *versions):
    """models--OWNER--NAME as huggingface_hub keeps it, whose files are links into `blobs`."""
    (path / "blobs").mkdir(parents=True)
    for version in versions:
        snapshot = path / "snapshots" / version
        snapshot.mkdir(parents=True)
        folder(snapshot, HUGGING)
        for file in list(snapshot.iterdir()):
            blob = path / "blobs" / f"{version}{file.stem}"
            file.rename(blob)
            file.symlink_to(blob)
    return path


def test_a_cache_of_the_hub_is_its_one_version(tmp_path):
    path = cached(tmp_path / "models--a--b", "0123")
    assert beside.weights_in(path) == path / "snapshots" / "0123" / "model.safetensors"
    model, _ = found = load(weights=path)
    assert model.text.num_heads == HUGGING["config"]["text_config"]["num_attention_heads"]
    assert (features(found) == features(load(weights=path / "snapshots" / "0123"))).all()
    several = cached(tmp_path / "models--a--c", "0123", "4567")
    with pytest.raises(UserError, match="cache folder of the hub; give the folder of one version: .*snapshots/0123, "):
        load(weights=several)


def test_an_adapter_is_not_left_out_without_a_word(tmp_path):
    whole = folder(tmp_path, HUGGING)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "adapter_config.json").write_text("{}")
    for path in (whole, tmp_path / "alone"):
        for call in (lambda path=path: load(weights=path), lambda path=path: beside.locate(path)):
            with pytest.raises(UserError, match="holds an adapter .*merge it into its model") as error:
                call()
            assert "\n" not in str(error.value)
    load(weights=whole / "model.safetensors")  # which is asked for as it is


@pytest.mark.parametrize(
    "names, says",
    [
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            "one of several parts, whose index .*json",
        ),
        (["model.fp16.safetensors"], "give one of its files, model.fp16.safetensors"),
        (["epoch_3.pt", "epoch_4.pt"], "give one of its files, epoch_3.pt, epoch_4.pt"),
        (["tf_model.h5"], "nor pytorch_model.bin$"),
    ],
)
def test_files_of_other_names_are_told(names, says, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"holds neither model.safetensors .*{says}") as error:
        load(weights=tmp_path)
    assert "\n" not in str(error.value)


BESIDE = ("config.json", "preprocessor_config.json", "processor_config.json", "open_clip_config.json",
          "tokenizer_config.json", "tokenizer.json", "vocab.json", "adapter_config.json")  # fmt: skip


@pytest.mark.parametrize("place", ["a lost link", "a link to itself", "a folder", "a pipe"])
@pytest.mark.parametrize("name", BESIDE)
def test_a_config_that_cannot_be_opened_is_not_passed_over(name, place, tmp_path):
    folder(tmp_path, HUGGING)
    path = tmp_path / name
    path.unlink(missing_ok=True)
    {
        "a lost link": lambda: path.symlink_to("blobs/lost"),
        "a link to itself": lambda: path.symlink_to(name),
        "a folder": path.mkdir,
        "a pipe": lambda: os.mkfifo(path),
    }[place]()
    for call in (lambda: load(weights=tmp_path), lambda: preprocess(tmp_path)):
        with pytest.raises(UserError, match=name) as caught:
            call()
        assert "\n" not in str(caught.value)
