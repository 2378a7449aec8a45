"""A config beside the weights of a CLIP: obeyed, compared with the arrays, or refused by the name of the field."""

import copy
import importlib.util
import json
import pathlib
import warnings

import numpy as np
import pytest
from safetensors.numpy import save_file

from swin_jax.core.errors import UserError
from swin_jax.pretrained import beside
from swin_jax.pretrained.clip import config as clip_config
from swin_jax.pretrained.clip import finetune
from swin_jax.pretrained.load import load
from swin_jax.pretrained.preprocess import preprocess

GOLDEN = pathlib.Path(__file__).parents[3] / "golden" / "beside"
spec = importlib.util.spec_from_file_location("make_beside", GOLDEN / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)
with np.load(GOLDEN / "clip.npz") as file:
    FEATURES = dict(file)
CASES = json.loads(str(FEATURES.pop("cases")))
OPEN, HUGGING = CASES["open_clip/heads"], CASES["transformers/heads"]
NAMES = {"open_clip_config.json": "open_clip_model.safetensors", "config.json": "model.safetensors"}


def arrays(case, prefix=""):
    return {prefix + name: value for name, value in make.arrays(case["shapes"]).items()}


def folder(path, case, config=None, weights=None):
    """A folder of the hub with a case's arrays, and its config or another."""
    (path / case["file"]).write_text(json.dumps(case["config"] if config is None else config))
    save_file(arrays(case) if weights is None else weights, path / NAMES[case["file"]])
    return path


def features(loaded):
    model, variables = loaded
    image, ids = make.inputs(model.visual.image_size)
    seen = model.apply(variables, image, normalize=True, method="encode_image")
    return np.concatenate([seen, model.apply(variables, ids, normalize=True, method="encode_text")])


def assert_features(loaded, case):
    wanted = np.concatenate([FEATURES[f"{case}/image"], FEATURES[f"{case}/text"]])
    np.testing.assert_allclose(features(loaded), wanted, atol=2e-6)


def quietly(call, *arguments, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call(*arguments, **keywords)


@pytest.mark.parametrize("case", CASES)
def test_the_features_are_those_of_the_library_that_wrote_the_config(case, tmp_path):
    loaded = quietly(load, weights=folder(tmp_path, CASES[case]))
    assert_features(loaded, case)


def test_init_from_takes_what_load_takes_and_refuses_another_number_of_heads(tmp_path):
    for case in (OPEN, HUGGING):
        path = tmp_path / case["file"]
        path.mkdir()
        model, variables = load(weights=folder(path, case))
        found = quietly(finetune.load_pretrained, str(path), model)
        for one, other in zip(_leaves(found["params"]), _leaves(variables["params"]), strict=True):
            np.testing.assert_array_equal(one, other)
        for tower, key in (("visual", "vision_heads"), ("text", "text_heads")):
            other = model.clone(**{tower: getattr(model, tower).clone(num_heads=1)})
            with pytest.raises(UserError, match=rf"{key}=\d, but the model has 1: give --config.task.model.{key}="):
                finetune.load_pretrained(path, other)


def _leaves(tree):
    return [leaf for _, leaf in sorted(_walk(tree))] if isinstance(tree, dict) else [tree]


def _walk(tree, path=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _walk(value, f"{path}/{key}")
        else:
            yield f"{path}/{key}", np.asarray(value).tolist()


def test_what_the_user_gives_goes_before_a_config(tmp_path):
    folder(tmp_path, OPEN)
    model, _ = load(weights=tmp_path, vision_heads=1, text_heads=1)
    assert (model.visual.num_heads, model.text.num_heads) == (1, 1)
    with pytest.warns(UserWarning, match="but the weights were trained with 'gelu': open_clip_config.json"):
        assert load(weights=tmp_path, act="quick_gelu")[0].text.act == "quick_gelu"


def changed(case, **fields):
    """A case's config with fields at dotted places, 'vision_cfg.pool_type' for example."""
    config = copy.deepcopy(CASES[case]["config"])
    for path, value in fields.items():
        inside = config.get("model_cfg", config)
        *outer, name = path.split(".")
        for key in outer:
            inside = inside[key]
        inside[name] = value
    return config


VISION = {
    "layers": 3,
    "width": 32,
    "head_width": 7,
    "patch_size": 16,
    "image_size": 32,
    "mlp_ratio": 4.0,
    "ls_init_value": 1e-4,
    "attentional_pool": True,
    "no_ln_pre": True,
    "pos_embed_type": "rope",
    "pool_type": "avg",
    "act_kwargs": {"approximate": "tanh"},
    "norm_kwargs": {"eps": 1e-6},
    "block_type": "custom",
    "qk_norm": True,
    "scaled_cosine_attn": True,
    "scale_heads": True,
    "scale_attn_inner": True,
    "scale_attn": True,
    "scale_fc": True,
    "timm_model_name": "vit_base_patch16_224",
    "a_new_field": 1,
}
TEXT = {
    "context_length": 7,
    "vocab_size": 31,
    "hf_tokenizer_name": "bert-base-uncased",
    "tokenizer_mode": "clips",
    "width": 32,
    "heads": 3,
    "layers": 3,
    "mlp_ratio": 2.0,
    "ls_init_value": 1e-4,
    "embed_cls": True,
    "no_causal_mask": True,
    "pool_type": "last",
    "proj_bias": True,
    "proj_type": "none",
    "act_kwargs": {"approximate": "tanh"},
    "norm_kwargs": {"eps": 1e-6},
    "block_type": "custom",
    "qk_norm": True,
    "hf_model_name": "roberta-base",
    "a_new_field": 1,
}
HUGGING_TOWERS = {
    "num_hidden_layers": 3,
    "hidden_size": 32,
    "num_attention_heads": 5,
    "intermediate_size": 96,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu_new",
    "pruned_heads": {"0": [1]},
    "a_new_field": 1,
}
REFUSED = [("open_clip/heads", f"vision_cfg.{name}", value) for name, value in VISION.items()]
REFUSED += [("open_clip/heads", f"text_cfg.{name}", value) for name, value in TEXT.items()]
REFUSED += [
    ("open_clip/heads", "embed_dim", 16),
    ("open_clip/heads", "init_logit_bias", -10),
    ("open_clip/heads", "multimodal_cfg", {"layers": 2}),
    ("open_clip/heads", "a_new_field", 1),
    ("open_clip/heads", "quick_gelu", "false"),
    ("open_clip/heads", "vision_cfg", [1]),
    ("transformers/heads", "model_type", "siglip"),
    ("transformers/heads", "projection_dim", 16),
    ("transformers/heads", "a_new_field", 1),
    ("transformers/heads", "vision_config.num_channels", 1),
    ("transformers/heads", "vision_config.patch_size", 16),
    ("transformers/heads", "vision_config.image_size", 32),
    ("transformers/heads", "text_config.max_position_embeddings", 7),
    ("transformers/heads", "text_config.vocab_size", 31),
    ("transformers/heads", "text_config.eos_token_id", 5),
    ("transformers/heads", "text_config.eos_token_id", [2, 29]),
]
REFUSED += [
    ("transformers/heads", f"{tower}_config.{name}", value)
    for tower in ("vision", "text")
    for name, value in HUGGING_TOWERS.items()
]
SIZES = dict(
    embed_dim=12,
    image_size=16,
    vision_layers=2,
    vision_width=24,
    vision_mlp_ratio=2.5,
    patch_size=8,
    context_length=6,
    vocab_size=30,
    text_width=16,
    text_layers=2,
    logit_bias=None,
)


@pytest.mark.parametrize("case, field, value", REFUSED)
def test_a_field_that_is_not_obeyed_or_contradicts_the_arrays_is_refused_by_its_name(case, field, value, tmp_path):
    kind = case.partition("/")[0]
    path = tmp_path / CASES[case]["file"]
    found = beside.Config(kind, path, changed(case, **{field: value}))
    with pytest.raises(UserError, match=field.split(".")[-1]) as error:
        clip_config.arguments_of(found, SIZES)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "case, field", [("open_clip/heads", "text_cfg.mlp_ratio"), ("transformers/heads", "text_config.intermediate_size")]
)
def test_weights_are_not_said_to_have_what_nobody_looked_at(case, field, tmp_path):
    """Here the text tower of a CLIP has one ratio; the file may have the config's."""
    kind = case.partition("/")[0]
    found = beside.Config(kind, tmp_path / CASES[case]["file"], changed(case, **{field: 2}))
    with pytest.raises(UserError, match=f"{field}=2 is not supported: it is always [0-9.]+ in the text tower"):
        clip_config.arguments_of(found, SIZES)


def test_load_preprocess_and_init_from_refuse_alike(tmp_path):
    folder(tmp_path, OPEN)
    model, _ = load(weights=tmp_path)
    folder(tmp_path, OPEN, changed("open_clip/heads", **{"text_cfg.no_causal_mask": True}))
    for call in (
        lambda: load(weights=tmp_path),
        lambda: load(weights=tmp_path / "open_clip_model.safetensors"),
        lambda: preprocess(tmp_path),
        lambda: finetune.load_pretrained(tmp_path, model),
    ):
        with pytest.raises(UserError, match="text_cfg.no_causal_mask=True is not supported"):
            call()


def test_what_a_fragment_leaves_out_comes_from_the_arrays(tmp_path):
    """A config without the width, which isn't the default's, is not a complete one: its other defaults tell nothing."""
    folder(tmp_path, OPEN, {"model_cfg": {"quick_gelu": True}})
    model, _ = load(weights=tmp_path, vision_heads=3, text_heads=4)
    assert model.text.act == "quick_gelu"
    with pytest.raises(UserError, match="number of heads cannot be inferred from a width of 24; give vision_heads"):
        load(weights=tmp_path)


def test_the_second_config_of_a_tower_wins_as_in_transformers():
    fields = HUGGING["config"] | {"text_config_dict": {"hidden_size": 16, "num_attention_heads": 2}}
    found = beside.Config(beside.TRANSFORMERS, pathlib.Path("config.json"), fields)
    assert clip_config.arguments_of(found, SIZES)["text_heads"] == 2
    fields["text_config_dict"] = {"hidden_size": 16}
    assert clip_config.arguments_of(found, SIZES)["text_heads"] == 8


def test_fields_of_older_versions_of_transformers_change_nothing():
    idle = dict(pruned_heads={}, is_decoder=False, add_cross_attention=False, temperature=1.0, dropout=0.0)
    idle |= dict(torch_dtype="float16", use_cache=True, attention_dropout=0.1, tie_word_embeddings=True)
    fields = HUGGING["config"] | {"torch_dtype": "float32", "initializer_factor": 1.0, "logit_scale_init_value": 2.6}
    fields["transformers.js_config"] = {"dtype": {"text_model": "fp16"}}
    for tower in ("text_config", "vision_config"):
        fields[tower] = fields[tower] | idle
    found = beside.Config(beside.TRANSFORMERS, pathlib.Path("config.json"), fields)
    wanted = dict(vision_heads=3, text_heads=4, act="quick_gelu")
    assert clip_config.arguments_of(found, SIZES) == wanted


def shards(path, case, suffix="safetensors", count=3):
    """Writes the arrays of a case into several files and their index."""
    found = arrays(case)
    names = sorted(found)
    listed = {}
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    for number in range(count):
        file = f"{stem}-{number + 1:05}-of-{count:05}.{suffix}"
        own = {name: found[name] for name in names[number::count]}
        save_file(own, path / file)
        listed |= dict.fromkeys(own, file)
    index = path / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": listed}))
    (path / case["file"]).write_text(json.dumps(case["config"]))
    return index


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_weights_in_several_files_are_one(suffix, tmp_path):
    index = shards(tmp_path, HUGGING, suffix)
    for source in (tmp_path, index):
        loaded = quietly(load, weights=source)
    assert_features(loaded, "transformers/heads")
    found = quietly(finetune.load_pretrained, tmp_path, loaded[0])
    assert _leaves(found["params"]) == _leaves(loaded[1]["params"])


def test_an_index_that_does_not_fit_its_files_is_refused(tmp_path):
    index = shards(tmp_path, HUGGING)
    good = json.loads(index.read_text())
    first = next(iter(good["weight_map"]))
    file = good["weight_map"][first]
    bad = {
        "lists no weights": {"metadata": {}},
        "lists no weights ": {"weight_map": []},
        "not the name of a file beside it": {"weight_map": {first: f"../{file}"}},
        "not the name of a file beside it ": {"weight_map": {first: 3}},
        "which is missing": {"weight_map": good["weight_map"] | {first: "model-00009-of-00003.safetensors"}},
        "more.weight, which is not in it": {"weight_map": good["weight_map"] | {"more.weight": file}},
        f"no {first}, which is in it": {"weight_map": {k: v for k, v in good["weight_map"].items() if k != first}},
    }
    for message, content in bad.items():
        index.write_text(json.dumps(content))
        with pytest.raises(UserError, match=message.strip()) as error:
            beside.read(index)
        assert str(index) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("case", ["open_clip/heads", "transformers/heads"])
@pytest.mark.parametrize("prefix", ["clip.", "clip_model.", "backbone.clip_model.", "module.clip."])
def test_a_clip_under_a_prefix_is_found_and_the_rest_is_left_out_with_a_line(case, prefix, tmp_path):
    weights = arrays(CASES[case], prefix)
    folder(tmp_path, CASES[case], weights=weights)
    assert_features(quietly(load, weights=tmp_path), case)
    folder(tmp_path, CASES[case], weights=weights | {"decoder.weight": np.ones((2, 2), np.float32)})
    with pytest.warns(UserWarning, match="ignored weights.*1 others, such as decoder.weight"):
        model, _ = load(weights=tmp_path)
    assert model.visual.num_heads == 3


def test_a_classifiers_head_on_a_clip_is_left_out_and_of_two_clips_none_is_chosen(tmp_path):
    head = {"classification_head.weight": np.ones((2, 2), np.float32)}
    folder(tmp_path, OPEN, weights=arrays(OPEN) | head)
    with pytest.warns(UserWarning, match="1 others, such as classification_head.weight"):
        load(weights=tmp_path)
    folder(tmp_path, OPEN, weights=arrays(OPEN, "one.") | arrays(OPEN, "two."))
    with pytest.raises(UserError, match="several CLIPs, under 'one.', 'two.'"):
        load(weights=tmp_path)


@pytest.mark.parametrize(
    "taken, left",
    [("teacher", "student"), ("model", "model_ema"), ("", "ema"), ("model.clip", "model_ema.clip")],
)
def test_of_several_clips_the_one_is_taken_that_the_rule_of_checkpoints_says(taken, left, tmp_path):
    own, other = arrays(OPEN, taken and f"{taken}."), arrays(OPEN, f"{left}.")
    folder(tmp_path, OPEN, weights={name: np.zeros_like(value) for name, value in other.items()} | own)
    with pytest.warns(UserWarning, match=f"took the weights under {taken or 'no prefix'}; key= selects .* {left}"):
        loaded = load(weights=tmp_path)
    assert_features(loaded, "open_clip/heads")
    assert not features(quietly(load, weights=tmp_path, key=left)).any()
