"""Configs beside weights whose fields have values of another type: one line that names file and field."""

import copy
import json
import pathlib

import pytest

from swin_jax.core.errors import UserError
from swin_jax.pretrained import beside, processors
from swin_jax.pretrained.clip import config as clip_config
from swin_jax.pretrained.clip import infer
from swin_jax.pretrained.clip.texts import texts_beside
from swin_jax.pretrained.load import load
from swin_jax.pretrained.preprocess import preprocess
from swin_jax.pretrained.swin import config as swin_config
from tests.unit.pretrained.clip.test_config import HUGGING, OPEN, arrays
from tests.unit.pretrained.swin import test_config as swins
from tests.unit.pretrained.test_beside import CLIP, OPEN_CLIP, TIMM, VIT

OTHERS = [None, True, -1, 0, 3, 2.5, 1e300, float("nan"), "x", "", [], {}, [1], [None], {"a": 1}, [[1, 2], [3]]]
OTHERS += [10**400, [224, 224], [0.5, "x", 0.5], [3, 16.5, 16.5], [3, "a", "a"], "9" * 5000, {"shortest_edge": None}]
OTHERS += [{"height": "a", "width": "a"}, [1.0, 1.0, 0.0], float("inf"), float("-inf"), [float("inf")] * 3]
SMALL = json.loads(json.dumps(OPEN_CLIP))
SMALL["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"clean": "lower"}
SMALL["preprocess_cfg"] |= dict(size=16, mode="RGB", fill_color=0, interpolation="bicubic", resize_mode="shortest")
PROCESSORS = [
    ("preprocessor_config.json", VIT),
    ("preprocessor_config.json", CLIP),
    ("processor_config.json", {"image_processor": CLIP}),
    ("open_clip_config.json", SMALL),
    ("config.json", TIMM),
]


def paths(config, above=()):
    for name, value in config.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from paths(value, (*above, name))


def changed(config):
    """(the last name, a config) for every field and every other value."""
    for path in paths(config):
        for value in OTHERS:
            found = copy.deepcopy(config)
            inside = found
            for name in path[:-1]:
                inside = inside[name]
            inside[path[-1]] = value
            yield path, found


def check(call, path, file):
    """Calls; a refusal is one line that names the file and one of the names of the field."""
    try:
        call()
    except UserError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 500 and file in text
        assert any(name in text for name in path) or any(word in text for word in ("size", "mean", "std", "config"))


@pytest.mark.parametrize("name, config", PROCESSORS)
def test_what_is_said_of_pictures(name, config, tmp_path):
    if name != "config.json":
        (tmp_path / "config.json").write_text('{"model_type": "swin"}')
    for path, other in changed(config):
        (tmp_path / name).write_text(json.dumps(other))
        check(lambda: processors.preparation_beside(tmp_path / "model.safetensors"), path, name)


ALL_TIMM = swins.TIMM | {"model_args": swins.TIMM["model_args"] | dict(pretrained_window_sizes=[0, 0], mlp_ratio=4.0)}
ALL_HUGGING = swins.HUGGING | dict(pretrained_window_sizes=[0, 0], patch_norm=True, id2label={"0": "a"})


@pytest.mark.parametrize("kind, config", [("timm", ALL_TIMM), ("transformers", ALL_HUGGING)])
@pytest.mark.parametrize("weights", [swins.ONE, swins.TWO])
def test_what_is_said_of_a_swin(kind, config, weights):
    for path, other in changed(config):
        check(lambda: swin_config.arguments_of(swins.at(kind, other), weights), path, "config.json")


@pytest.mark.parametrize("kind, case", [(beside.OPEN_CLIP, OPEN), (beside.TRANSFORMERS, HUGGING)])
def test_what_is_said_of_a_clip(kind, case):
    config, sizes = copy.deepcopy(case["config"]), infer.infer(arrays(case), 1, 1)
    inside = config.get("model_cfg", config)
    for towers, fields in (
        (
            ("vision_cfg", "text_cfg"),
            dict(norm_kwargs={"eps": 1e-5}, act_kwargs={}, mlp_ratio=4.0, block_type="default"),
        ),
        (("vision_config", "text_config"), dict(intermediate_size=None, hidden_act="quick_gelu")),
    ):
        for tower in set(towers) & inside.keys():
            inside[tower] |= fields
    inside |= dict(init_logit_bias=None, quick_gelu=True) if kind == beside.OPEN_CLIP else {}
    for path, other in changed(config):
        found = beside.Config(kind, pathlib.Path("hub/config.json"), other)
        check(lambda: clip_config.arguments_of(found, sizes), path, "config.json")
        clip_config.declared_image_size(found)


def test_fields_without_a_value_are_left_out(tmp_path):
    """As the fast processors of transformers write those that are not used."""
    idle = dict.fromkeys(
        ["crop_size", "do_center_crop", "do_convert_rgb", "do_pad", "pad_size", "device", "input_data_format"]
    )
    config = (
        VIT
        | idle
        | dict(default_to_square=True, image_processor_type="ViTImageProcessorFast", data_format="channels_first")
    )
    wanted = {}
    (tmp_path / "config.json").write_text('{"model_type": "swin"}')
    for name, found in (("plain", VIT), ("fast", config)):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(found))
        wanted[name] = processors.preparation_beside(tmp_path / "model.safetensors")
    assert wanted["fast"] == wanted["plain"]


def test_names_that_no_file_can_have_are_one_line(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "x" * 5000}}))
    for call in (lambda: beside.read(index), lambda: load(weights="x" * 5000), lambda: preprocess("x" * 5000)):
        with pytest.raises(UserError) as error:
            call()
        assert len(str(error.value)) < len(str(index)) + 300


TEXTS = {
    "tokenizer_config.json": {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 16,
        "bos_token": {"content": "<|startoftext|>"},
        "eos_token": "<|endoftext|>",
    },
    "tokenizer.json": {"model": {"type": "BPE", "vocab": {"a": 0, "b</w>": 1}}},
    "vocab.json": {"a": 0, "b</w>": 1},
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_said_of_texts(name, tmp_path):
    beside_clip = beside.Config(beside.TRANSFORMERS, tmp_path / "config.json", {"model_type": "clip"})
    for path, other in changed(TEXTS[name]):
        (tmp_path / name).write_text(json.dumps(other))
        check(lambda: texts_beside(beside_clip), (*path, "pieces"), name)
