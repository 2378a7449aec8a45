"""CLIP's state dicts: exact round trips, every layout, inference, activations, positions, archives, what is refused."""

import json
import pickle
import warnings
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from swin_jax.core.errors import UserError
from swin_jax.models.clip import CLIP, OPENAI, PRESETS, make_clip
from swin_jax.models.swin import Swin
from swin_jax.pretrained.clip import convert
from swin_jax.pretrained.clip import finetune as clip_finetune
from swin_jax.pretrained.clip import layouts as clip_layouts
from swin_jax.pretrained.clip import resize as clip_resize
from swin_jax.pretrained.clip.activation import activation
from swin_jax.pretrained.files import modules, tensors
from swin_jax.pretrained.files.read import read
from swin_jax.pretrained.swin import convert as convert_swin

GOLDEN = Path(__file__).resolve().parents[3] / "golden" / "clip"
SMALL = dict(embed_dim=6, image_size=32, context_length=5, vocab_size=20, text_width=8, text_heads=2, text_layers=2)
VIT = dict(SMALL, vision_layers=2, vision_width=12, vision_heads=3, patch_size=8)
RESNET = dict(SMALL, vision_layers=(1, 2, 1, 1), vision_width=2, vision_heads=4, patch_size=None)
HEADS = dict(vision_heads=3, text_heads=2)


def random_weights(model, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in convert.official_shapes(model).items()}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
        assert found[name].dtype == value.dtype, name


def swin_clip():
    visual = Swin(num_classes=6, image_size=32, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4)
    return CLIP(visual, make_clip(**VIT).text, logit_bias=-10.0)


@pytest.mark.parametrize(
    "model",
    [make_clip(**VIT), make_clip(**RESNET), make_clip(**VIT, logit_bias=-10.0), swin_clip()],
    ids=["vit", "resnet", "bias", "swin"],
)
def test_a_round_trip_changes_nothing(model):
    state_dict = random_weights(model)
    variables = convert.from_official(state_dict, model)
    assert_same(convert.to_official(variables, model), state_dict)
    inputs = np.zeros((1, 32, 32, 3), np.float32), np.zeros((1, 5), np.int32)
    wanted = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, wanted)
    whole = convert.to_official(variables, model, buffers=True)
    assert set(whole) - set(state_dict) == {
        name.replace("running_var", "num_batches_tracked") for name in state_dict if name.endswith("running_var")
    }


def open_clip_layouts(plain):
    """The same weights as files hold them: wrapped, with buffers, with the text tower apart."""
    text = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")
    custom = {f"text.{name}" if name.startswith(text) else name: value for name, value in plain.items()}
    linear = dict(custom, **{"text.text_projection.weight": custom["text.text_projection"].T})
    del linear["text.text_projection"]
    return {
        "plain": plain,
        "distributed": {f"module.{name}": value for name, value in plain.items()},
        "compiled": {f"_orig_mod.module.{name}": value for name, value in plain.items()},
        "old": plain | {"attn_mask": np.zeros((5, 5), np.float32)},
        "custom text": custom | {"text.attn_mask": np.zeros((5, 5), np.float32)},
        "linear projection": linear,
        "scalars with an axis": plain | {"logit_scale": plain["logit_scale"].reshape(1)},
        "archive": plain | {name: np.int64(5) for name in ("input_resolution", "context_length", "vocab_size")},
        "transformers": transformers_names(plain),
        "old transformers": transformers_names(plain)
        | {f"{tower}_model.embeddings.position_ids": np.arange(5)[None] for tower in ("text", "vision")},
    }


def transformers_names(plain):
    """The state dict of transformers' CLIPModel with the same weights."""
    fixed = {
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    }
    parts = {
        "visual.transformer.resblocks.": "vision_model.encoder.layers.",
        "transformer.resblocks.": "text_model.encoder.layers.",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
        "ln_final": "text_model.final_layer_norm",
        ".attn.out_proj": ".self_attn.out_proj",
        ".ln_1": ".layer_norm1",
        ".ln_2": ".layer_norm2",
        ".c_fc": ".fc1",
        ".c_proj": ".fc2",
    }
    renamed = {}
    for name, value in plain.items():
        if name in ("text_projection", "visual.proj"):
            renamed["text_projection.weight" if name[0] == "t" else "visual_projection.weight"] = value.T
            continue
        new = fixed.get(name, name)
        for old, ours in parts.items() if new == name else ():
            new = new.replace(old, ours)
        if ".attn.in_proj_" in new:
            for letter, third in zip("qkv", np.split(value, 3)):
                renamed[new.replace(".attn.in_proj_", f".self_attn.{letter}_proj.")] = third
        else:
            renamed[new] = value
    return renamed


@pytest.mark.parametrize("layout", open_clip_layouts(random_weights(make_clip(**VIT))))
def test_every_layout_gives_the_same_variables_and_architecture(layout):
    model = make_clip(**VIT)
    plain = random_weights(model)
    state_dict = open_clip_layouts(plain)[layout]
    assert convert.is_clip(state_dict)
    assert_same(convert.to_official(convert.from_official(state_dict, model), model), plain)
    assert make_clip(**convert.infer(state_dict, **HEADS)) == model


def test_half_precision_is_widened_exactly():
    model = make_clip(**RESNET)
    half = {name: value.astype(np.float16) for name, value in random_weights(model).items()}
    found = convert.to_official(convert.from_official(half, model), model)
    assert_same(found, {name: value.astype(np.float32) for name, value in half.items()})


@pytest.mark.parametrize("name", PRESETS)
def test_every_published_architecture_is_inferred(name):
    model = make_clip(**PRESETS[name])
    shapes = convert.official_shapes(model)
    state_dict = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    fields = convert.infer(state_dict)
    found = make_clip(**fields | {"act": PRESETS[name]["act"]})
    assert convert.official_shapes(found) == shapes
    assert (found.visual.num_heads, found.text.num_heads) == (model.visual.num_heads, model.text.num_heads)
    assert found.visual.image_size == model.visual.image_size
    assumed = activation(state_dict)
    assert (assumed.act, assumed.known) == ("quick_gelu" if name in OPENAI else "gelu", False)


def one_line(message):
    assert "\n" not in message and len(message) < 400
    return message


def test_a_checkpoint_of_another_size_says_in_which_fields():
    model = make_clip(**VIT)
    for change, message in (
        (dict(embed_dim=10), "embed_dim is 10 in the weights and 6 in the model"),
        (dict(vision_layers=3), "vision_layers is 3 in the weights and 2 in the model"),
        (dict(text_width=16), "text_width is 16 in the weights and 8 in the model"),
        (dict(logit_bias=-10.0), "logit_bias is -?[0-9.]+ in the weights and None in the model"),
        (dict(patch_size=4), "patch_size is 4"),
    ):
        with pytest.raises(UserError, match=message) as error:
            convert.from_official(random_weights(make_clip(**VIT | change)), model)
        one_line(str(error.value))
    with pytest.raises(UserError, match=r"vision_layers is \(1, 2, 1, 1\)"):
        convert.from_official(random_weights(make_clip(**RESNET)), model)


def test_starting_from_weights_of_another_activation_is_an_error(tmp_path):
    model = make_clip(**VIT, act="quick_gelu")
    weights = random_weights(model)
    start = clip_finetune.pretrained()
    np.savez(tmp_path / "laion_small.npz", **weights)  # its name is not evidence
    with pytest.warns(UserWarning, match="it is unknown which activation .*laion.* the model's, quick_gelu, is used"):
        variables = start(tmp_path / "laion_small.npz", model)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": False}}))
    with pytest.raises(UserError, match="laion.*gelu, but the model has quick_gelu: give --config.task.model.act=gelu"):
        start(tmp_path / "laion_small.npz", model)
    start(tmp_path / "laion_small.npz", model.clone(text=model.text.clone(act="gelu")))
    with pytest.raises(UserError, match="was trained with the activation gelu"):
        start({**variables, "config": {"task.model.act": "gelu"}}, model)
    start({**variables, "config": {"task.model.act": "quick_gelu"}}, model)


def test_missing_and_unexpected_keys_are_listed():
    model = make_clip(**VIT)
    weights = random_weights(model)
    del weights["visual.ln_post.bias"]
    with pytest.raises(UserError, match=r"1 missing, 1 unexpected(.|\n)*visual.ln_post.bias(.|\n)*extra"):
        convert.from_official(weights | {"extra": np.zeros(1)}, model)
    variables = convert.from_official(random_weights(model), model)
    variables["params"]["visual"]["more"] = np.zeros(1)
    with pytest.raises(UserError, match="more than the parameters"):
        convert.to_official(variables, model)


def test_what_nothing_tells_of_a_file_with_a_swin_is_said(tmp_path):
    model = swin_clip()
    save_file(random_weights(model), tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match="^it is unknown which activation and how many heads the text tower of"):
        clip_finetune.load_pretrained(str(tmp_path / "model.safetensors"), model)
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"text_cfg": {"heads": 4}}}')
    with pytest.warns(UserWarning, match="is ignored, because it does not describe a CLIP with a Swin"):
        clip_finetune.load_pretrained(str(tmp_path / "model.safetensors"), model)


def test_other_families_are_named():
    swin = swin_clip()
    foreign = {
        "a Swin,": {f"{k}": np.zeros(s) for k, s in convert_swin.official_shapes(swin.visual).items()},
        "image tower is a Swin": random_weights(swin),
        "timm image tower": {"visual.trunk.patch_embed.proj.weight": np.zeros(1), "text.token_embedding.weight": 0},
        "Hugging Face text tower": {
            "text.transformer.embeddings.word_embeddings.weight": np.zeros(1),
            "visual.proj": 0,
        },
        "SigLIP": {"vision_model.head.probe": np.zeros(1)},
        "CoCa": random_weights(make_clip(**VIT)) | {"text_decoder.ln_final.weight": np.zeros(1)},
        "StyleGAN": {"g_ema.b4.const": np.zeros(1)},
        "a ResNet without": {"layer1.0.conv1.weight": np.zeros(1)},
        "a ViT without": {"cls_token": np.zeros(1)},
    }
    for message, state_dict in foreign.items():
        for load in (convert.infer, lambda weights: convert.from_official(weights, make_clip(**VIT))):
            with pytest.raises(UserError, match=message) as error:
                load(state_dict)
            one_line(str(error.value))
    half = {name: value for name, value in random_weights(make_clip(**VIT)).items() if name.startswith("visual.")}
    with pytest.raises(UserError, match="half of a CLIP"):
        convert.infer(half)
    with pytest.raises(UserError, match="cannot be inferred from a width of 12.*vision_heads"):
        convert.infer(random_weights(make_clip(**VIT)))


def test_positions_are_stretched_only_by_choice():
    small, large = make_clip(**VIT), make_clip(**VIT | dict(image_size=48, context_length=9))
    weights = random_weights(small)
    with pytest.raises(UserError, match="of 4 x 4 positions, but the model takes 6 x 6: choose resize='bilinear'"):
        convert.from_official(weights, large)
    for method in clip_resize.METHODS:
        params = convert.from_official(weights, large, method)["params"]
        table = params["visual"]["positional_embedding"]
        assert table.shape == (37, 12)
        np.testing.assert_array_equal(table[0], weights["visual.positional_embedding"][0])
        assert params["text"]["positional_embedding"].shape == (9, 8)
    shorter = convert.from_official(weights, make_clip(**VIT | dict(context_length=3)))["params"]
    np.testing.assert_array_equal(shorter["text"]["positional_embedding"], weights["positional_embedding"][:3])
    resnet = random_weights(make_clip(**RESNET))
    pool = convert.from_official(resnet, make_clip(**RESNET | dict(image_size=64)), "bilinear")["params"]
    assert pool["visual"]["attnpool"]["positional_embedding"].shape == (5, 64)


@pytest.mark.parametrize("method", clip_resize.METHODS)
def test_stretching_keeps_constants_and_straight_lines_and_identity(method):
    for old, new in ((16, 24), (7, 14), (24, 16)):
        matrix = clip_resize.resize_matrix(old, new, method)
        np.testing.assert_allclose(matrix.sum(axis=1), 1)
        np.testing.assert_allclose(matrix, matrix[::-1, ::-1])
        line = (matrix @ (np.arange(old) + 0.5))[4:-4]
        if new > old:  # smaller grids are averaged besides
            np.testing.assert_allclose(line, ((np.arange(new) + 0.5) * old / new)[4:-4])
    np.testing.assert_allclose(clip_resize.resize_matrix(5, 5, method), np.eye(5), atol=1e-12)


def test_stretching_is_that_of_torch():
    """Values of torch.nn.functional.interpolate(torch.arange(4.) ** 2, align_corners=False, antialias=True)."""
    values = np.arange(4.0) ** 2
    for method, size, wanted in TORCH:
        np.testing.assert_allclose(clip_resize.resize_matrix(4, size, method) @ values, wanted, atol=1e-5)


TORCH = (
    ("bilinear", 6, [0.0, 0.5, 1.5, 3.5, 6.5, 9.0]),
    ("bilinear", 3, [0.3, 2.5, 7.5]),
    ("bicubic", 6, [-0.065789, 0.294118, 1.361111, 3.361111, 6.82353, 9.328948]),
    ("bicubic", 3, [0.075515, 2.359195, 7.935927]),
)


def test_an_archive_is_read_without_torch_and_without_its_code(tmp_path):
    found = read(GOLDEN / "tiny_archive.pt")
    with np.load(GOLDEN / "tiny_archive.npz") as expected:
        assert_same(found, {name: expected[name] for name in expected.files})
    assert {found[n].dtype for n in ("visual.conv1.weight", "text_projection")} == {np.dtype("float16")}
    fields = convert.infer(found, 4, 2)
    assert fields["vision_layers"] == (1, 1, 1, 1) and clip_layouts.is_from_archive(found, fields)
    variables = convert.from_official(found, make_clip(**fields))
    weights = variables["params"]["visual"]["layer2_0"]["downsample_0"]["kernel"]
    np.testing.assert_array_equal(weights, found["visual.layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0))


def script(path, payload: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", payload)
        archive.writestr("a/constants.pkl", b"")
    return path


def test_archives_that_want_more_than_weights_are_refused(tmp_path):
    module = b"c__torch__.m\nCLIP\n"
    for payload in (
        b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
        b"\x80\x02" + module + b")\x81K\x01b.",  # a state that is not a dict
        b"\x80\x02" + module + b"}b.",  # a state for the class itself
        b"\x80\x02" + module + b")\x81q\x00}X\x01\x00\x00\x00ah\x00sb.",  # a module that holds itself
        b"\x80\x02" + module + b")\x81}b.",  # no arrays at all
    ):
        with pytest.raises(UserError) as error:
            read(script(tmp_path / "a.pt", payload))
        one_line(str(error.value))
    assert modules.ScriptModule.attributes == {}
    (tmp_path / "b.pkl").write_bytes(b"\x80\x02" + module + b")\x81}b.")  # outside of an archive there are no modules
    with pytest.raises(UserError, match="refused"):
        read(tmp_path / "b.pkl")


def test_doubling_modules_end(tmp_path):
    """Each of 40 modules holds the one before it twice: a million million names."""
    node = {"w": tensors.Tensor(tensors.Storage("0", "float32", 1), 0, (1,), (1,))}
    for _ in range(40):
        module = modules.ScriptModule()
        module.attributes = node
        node = {"a": module, "b": module}
    top = modules.ScriptModule()
    top.attributes = node
    with pytest.raises(ValueError, match="no end"):
        modules.state_dict(top)


def test_a_training_checkpoint_is_read(tmp_path):
    model = make_clip(**VIT)
    plain = random_weights(model)
    state_dict = {f"module.{name}": value for name, value in plain.items()}
    checkpoint = {"epoch": 3, "name": "run", "state_dict": state_dict, "optimizer": {"state": {}}}
    (tmp_path / "epoch_3.pt").write_bytes(pickle.dumps(checkpoint))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = convert.from_official(read(tmp_path / "epoch_3.pt"), model)
    assert_same(convert.to_official(found, model), plain)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(embed_dim=10), "embed_dim is 10 in the weights and 6 in the model"),
        (dict(vision_layers=3), "vision_layers is 3 in the weights and 2 in the model"),
        (dict(patch_size=4), "patch_size is 4 in the weights and 8 in the model"),
        (dict(text_width=16), "text_width is 16 in the weights and 8 in the model"),
        (dict(act="gelu"), "was trained with the activation gelu, but the model has quick_gelu"),
        (dict(vision_heads=6), "vision_heads is 6 in the weights and 3 in the model"),
        (dict(text_heads=4), "text_heads is 4 in the weights and 2 in the model"),
    ],
)
def test_a_workdir_of_another_clip_says_in_which_fields(change, message):
    fields = VIT | change
    other, model = make_clip(**fields), make_clip(**VIT)
    variables = convert.from_official(random_weights(other), other)
    run = {"task.model.fn": "swin_jax.models.clip.make_clip"}
    run |= {f"task.model.{key}": value for key, value in fields.items()}
    with pytest.raises(UserError, match=message) as error:
        clip_finetune.pretrained(resize="bilinear")({**variables, "config": run}, model)
    one_line(str(error.value))
