"""A Swin is found under whatever training put around it, and what is left out or chosen is said."""

import json
import os
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models import swin
from swin_jax.models.video_swin import make_video_swin
from swin_jax.pretrained import beside, compare, wrappers
from swin_jax.pretrained.clip import layouts as clip_layouts
from swin_jax.pretrained.files.read import read
from swin_jax.pretrained.load import load
from swin_jax.pretrained.preprocess import preprocess
from swin_jax.pretrained.swin import convert, finetune, simmim
from swin_jax.pretrained.video_swin import convert as video
from swin_jax.train.init_from import InitFrom
from tests.unit.pretrained.test_load import TINY
from tests.unit.pretrained.video_swin.test_convert import TINY as TINY_VIDEO

MODEL = swin.Swin(**TINY)


def state_dict(value=None):
    """An official state dict; all of one value, or each array its own."""
    shapes = convert.official_shapes(MODEL)
    rng = np.random.default_rng(0)
    if value is not None:
        return {name: np.full(shape, value, np.float32) for name, shape in shapes.items()}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def under(prefix, arrays):
    return {prefix + name: value for name, value in arrays.items()}


def save(path, checkpoint):
    path.write_bytes(pickle.dumps(checkpoint, 2))
    return path


def said(path, **arguments):
    """(what `read` gives, what it says)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read(path, **arguments)
    return found, [str(warning.message).removeprefix(f"{path}: ") for warning in caught]


PREFIXES = ["module.", "model.", "net.", "student.", "teacher.", "my_swin.", "swin.", "image_encoder.", "img_backbone.",
            "backbone.bottom_up.", "module.model.module.", "_orig_mod.", "_orig_mod.module.model.", "ema_model.module.",
            "_fsdp_wrapped_module.", "model._fsdp_wrapped_module._orig_mod.", "backbone.0.", "swin_ema."]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix_is_found(tmp_path, prefix):
    arrays = state_dict()
    found, lines = said(save(tmp_path / "w.pth", under(prefix, arrays)))
    assert found.keys() == arrays.keys() and not lines
    if prefix in ("_orig_mod.", "_fsdp_wrapped_module."):  # put before every name, or before none
        return
    extra = {"criterion.weight": np.ones(3), "epoch_scale": np.ones(1)}
    found, lines = said(save(tmp_path / "w.pth", {"state_dict": under(prefix, arrays) | extra, "epoch": 3}))
    official = convert.to_official_names(found) if found.keys() != arrays.keys() else found
    for name, value in arrays.items():
        np.testing.assert_array_equal(official[name], value)
    assert lines == ["ignored weights that do not belong to a Swin: criterion (1), epoch_scale (1)"]


@pytest.mark.parametrize(
    "inside", [{"layers.0.": "layers.0.{}"}, {".attn.": ".{}attn."}, {".": ".{}"}, {"patch_embed.": "{}patch_embed."}]
)
@pytest.mark.parametrize("part", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_fpw_module"])
def test_parts_inside_names_are_taken_out(inside, part):
    arrays = state_dict()
    ((old, new),) = inside.items()
    wrapped = {name.replace(old, new.format(part + "."), 1): value for name, value in arrays.items()}
    assert wrapped.keys() != arrays.keys()
    for prefix in ("", "module.", "teacher."):
        assert wrappers.unwrap(under(prefix, wrapped))[0].keys() == arrays.keys()


def test_names_that_become_the_same_are_refused():
    with pytest.raises(UserError, match=r"two arrays would both be called a\.b"):
        compare.strip_wrappers({"a._orig_mod.b": 1, "a.b": 2})


@pytest.mark.parametrize("inner", ["encoder.", "backbone."])
@pytest.mark.parametrize("outer", ["", "module.", "student.", "model.module.", "net."])
def test_larger_models_stay_whole_inside_their_wrapper(outer, inner):
    arrays = under(inner, state_dict()) | {"decoder.0.weight": np.ones(1), f"{inner}mask_token": np.ones(1)}
    assert wrappers.unwrap(under(outer, arrays))[0].keys() == arrays.keys()
    found, lines = wrappers.unwrap(under(outer or "x.", arrays) | {"loss.a": np.ones(1)})
    assert found.keys() == arrays.keys() and "loss (1)" in lines[0]


def test_a_swin_beside_a_clip_stays_there():
    arrays = under("backbone.", state_dict()) | {"token_embedding.weight": np.ones((2, 2))}
    assert wrappers.unwrap(arrays)[0].keys() == arrays.keys()
    arrays = under("image.", state_dict()) | {"token_embedding.weight": np.ones((2, 2))}
    assert wrappers.unwrap(arrays)[0].keys() == arrays.keys()


def test_other_names_stay_as_they_are():
    for names in (
        ["a.b", "c"],
        ["vit.patch_embed.proj.weight", "vit.blocks.0.attn.qkv.weight", "x"],
        ["module.a", "b"],
    ):
        assert list(wrappers.unwrap(dict.fromkeys(names, 0))[0]) == names


# What lies there, what is taken, what is said to lie beside it.
CHOICES = [
    ({"model": 1, "model_ema": 2}, "model", "model_ema"),
    ({"model_ema": 2, "model": 1}, "model", "model_ema"),
    ({"state_dict": 1, "state_dict_ema": 2}, "state_dict", "state_dict_ema"),
    ({"state_dict": 1, "ema_state_dict": 2}, "state_dict", "ema_state_dict"),
    ({"student": 1, "teacher": 2}, "teacher", "student"),
    ({"teacher": 2, "student": 1}, "teacher", "student"),
    ({"encoder_q": 1, "encoder_k": 2}, "encoder_q", "encoder_k"),
    ({"net": 1, "net_ema": 2}, "net", "net_ema"),
    ({"model": 1, "state_dict": 2}, "model", "state_dict"),
    ({"model_ema": 2}, "model_ema", ""),
    ({"swa_model": 2}, "swa_model", ""),
]


@pytest.mark.parametrize("inside", ["entries", "names", "entries of module", "names of module"])
@pytest.mark.parametrize("parts, taken, others", CHOICES)
def test_one_of_several_weights_is_taken_by_the_rule(tmp_path, parts, taken, others, inside):
    prefix = "module." if "module" in inside else ""
    if "entries" in inside:
        checkpoint = {part: under(prefix, state_dict(value)) for part, value in parts.items()}
        checkpoint["optimizer"] = {"exp_avg": state_dict(9)}
    elif "state_dict" in parts or taken == "model" and "state_dict" in others:
        return  # entries only
    else:
        checkpoint = {"epoch": 1}
        checkpoint["state_dict"] = {
            name: value for part, v in parts.items() for name, value in under(f"{part}.{prefix}", state_dict(v)).items()
        }
    found, lines = said(save(tmp_path / "w.pth", checkpoint))
    assert found.keys() == state_dict().keys()
    assert all(value.flat[0] == parts[taken] for value in found.values())
    assert bool(others) == any(f"took the weights under {taken}" in line and others in line for line in lines)
    for part, value in parts.items():
        found, lines = said(tmp_path / "w.pth", key=part)
        assert found.keys() == state_dict().keys() and not [line for line in lines if "took" in line]
        assert all(array.flat[0] == value for array in found.values())


@pytest.mark.parametrize("names", [("generator", "discriminator"), ("left", "right"), ("model_ema", "swa_model")])
@pytest.mark.parametrize("flat", [True, False])
def test_where_the_rule_does_not_tell_the_names_are_listed(tmp_path, names, flat):
    parts = {name: state_dict(i) for i, name in enumerate(names)}
    if flat:
        parts = {key: value for name in names for key, value in under(f"{name}.", parts[name]).items()}
    save(tmp_path / "w.pth", {"checkpoint": parts})
    with pytest.raises(UserError, match=f"there are weights under {names[0]}, {names[1]}: choose with key="):
        read(tmp_path / "w.pth")
    assert read(tmp_path / "w.pth", key=names[1])["norm.bias"][0] == 1


@pytest.mark.parametrize(
    "form, place",
    [
        (list, ""),
        (tuple, ""),
        (lambda dicts: dict(enumerate(dicts)), ""),
        (lambda dicts: {"folds": list(dicts), "scores": [0.5, 0.6], "epoch": 3}, "folds."),
        (lambda dicts: [{"model": found, "epoch": 3} for found in dicts], ""),
    ],
)
def test_state_dicts_in_a_list_are_called_by_their_numbers(tmp_path, form, place):
    path = save(tmp_path / "w.pth", form([state_dict(1), state_dict(2)]))
    with pytest.raises(UserError, match="there are weights under 0, 1: choose with key=, such as key='0'"):
        read(path)
    for key in (f"{place}1", "1"):
        found, lines = said(path, key=key)
        assert found.keys() == state_dict().keys() and found["norm.bias"][0] == 2 and not lines
    found, lines = said(save(tmp_path / "one.pth", form([state_dict(3)])))
    assert found["norm.bias"][0] == 3 and not lines


def test_a_list_beside_weights_changes_nothing(tmp_path):
    optimizer = {"state": {0: {"exp_avg": np.ones(1)}}, "param_groups": [{"lr": np.ones(1), "params": [0]}]}
    for checkpoint in (
        {"net": state_dict(1), "history": [{"loss": np.ones(1)}], "averages": [state_dict(2)]},
        (state_dict(1), optimizer),
        [state_dict(1), 3, None],
    ):
        found, lines = said(save(tmp_path / "w.pth", checkpoint))
        assert found["norm.bias"][0] == 1 and not lines


@pytest.mark.parametrize("key", ["student.backbone", "state_dict.student", "state_dict.student.backbone", "student",
                                 "state_dict.student.", "backbone.student"])  # fmt: skip
def test_a_key_is_a_part_of_names_inside_entries(tmp_path, key):
    parts = under("student.backbone.", state_dict(1)) | under("teacher.backbone.", state_dict(2))
    save(tmp_path / "w.pth", {"state_dict": parts, "epoch": 1})
    if key == "backbone.student":
        with pytest.raises(UserError, match="no dict under 'backbone.student'; its entries are state_dict"):
            read(tmp_path / "w.pth", key=key)
        return
    assert convert.to_official_names(read(tmp_path / "w.pth", key=key))["norm.bias"][0] == 1


def test_a_key_that_is_not_there_is_answered_with_the_nearest(tmp_path):
    save(tmp_path / "w.pth", {"model": {"a": np.ones(1)}, "model_ema": {"a": np.ones(1)}})
    np.savez(tmp_path / "w.npz", **under("student.", state_dict(1)) | under("teacher.", state_dict(2)))
    for file, key, near in (("w.pth", "modelema", "model_ema"), ("w.npz", "techer", "teacher")):
        with pytest.raises(UserError, match=f"no .* under '{key}'.*did you mean '{near}'"):
            read(tmp_path / file, key=key)
    for key in ("", ".", 3, ["model"]):
        with pytest.raises(UserError, match="must be a text"):
            read(tmp_path / "w.npz", key=key)
    assert read(tmp_path / "w.npz", key="student")["norm.bias"][0] == 1


def test_a_swin_is_found_over_all_files_of_an_index(tmp_path):
    """One of whose files hold no patches, so that it cannot tell where the Swin lies."""
    parts = (
        under("student.backbone.", state_dict(1)) | under("teacher.backbone.", state_dict(2)) | {"loss.a": np.ones(1)}
    )
    names, files = sorted(parts), ("model-1.npz", "model-2.npz", "model-3.npz")
    for number, file in enumerate(files):
        np.savez(tmp_path / file, **{name: parts[name] for name in names[number::3]})
    listed = {name: files[number % 3] for number, name in enumerate(names)}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": listed}))
    with pytest.warns(UserWarning, match="took the weights under teacher.backbone; key= selects those under student"):
        found = beside.read(index)
    assert convert.to_official_names(found)["norm.bias"][0] == 2
    assert convert.to_official_names(beside.read(index, "student"))["norm.bias"][0] == 1
    with pytest.raises(UserError, match="did you mean 'teacher'"):
        beside.read(index, "teachr")


HEADS = ["head.mlp.0.weight", "head.last_layer.weight_g", "head_dist.weight", "aux_head.fc.weight", "classifier.weight",
         "fc.weight", "projector.0.weight", "predictor.weight", "prototypes.weight", "queue", "queue_ptr",
         "decode_head.conv.weight", "criterion.center", "heads.0.weight"]  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "backbone.", "student.", "model.backbone."])
def test_extra_heads_are_left_out_and_said(tmp_path, prefix):
    heads = {name: np.ones(2, np.float32) for name in HEADS}
    save(tmp_path / "w.pth", under(prefix, state_dict() | heads))
    with pytest.warns(UserWarning, match="ignored weights that do not belong to a Swin") as caught:
        model, variables = load(weights=tmp_path / "w.pth")
    text = " ".join(str(warning.message) for warning in caught)
    assert all(name.split(".")[0] in text for name in HEADS)
    assert model == MODEL
    np.testing.assert_array_equal(variables["params"]["norm"]["bias"], state_dict()["norm.bias"])


@pytest.mark.parametrize("name", ["cls_token", "prompts.0", "adapter.weight", "layers.0.adapter.weight", "pre_norm.a"])
def test_what_could_change_the_features_is_refused(tmp_path, name):
    save(tmp_path / "w.pth", state_dict() | {name: np.ones(2, np.float32)})
    with pytest.raises(UserError):
        load(weights=tmp_path / "w.pth")


@pytest.mark.parametrize("prefix", ["", "module.", "student.", "net."])
def test_a_video_swin_is_found_like_a_swin(tmp_path, prefix):
    model = make_video_swin(**TINY_VIDEO)
    shapes = video.official_shapes(model)
    arrays = {name: np.full(shape, 2.0, np.float32) for name, shape in shapes.items()}
    extra = under(prefix, {"projector.weight": np.ones(1)}) | {"loss.a": np.ones(1)}
    with pytest.warns(UserWarning, match="ignored weights"):
        found = video.from_official(read(save(tmp_path / "w.pth", under(prefix, arrays) | extra)), model)
    assert found["params"]["cls_head"]["fc_cls"]["bias"][0] == 2


def test_of_several_clips_the_key_says_which(tmp_path):
    names = ("token_embedding.weight", "visual.conv1.weight", "positional_embedding")
    parts = {part: {name: np.full(1, i) for name in names} for i, part in enumerate(("one", "two"))}
    np.savez(tmp_path / "w.npz", **{f"{part}.{name}": parts[part][name] for part in parts for name in names})
    with pytest.raises(UserError, match="several CLIPs, under 'one.', 'two.': choose with key="):
        clip_layouts.to_official_names(read(tmp_path / "w.npz"))
    assert read(tmp_path / "w.npz", key="two") == parts["two"]


def test_load_and_preprocess_take_a_key(tmp_path):
    path = save(tmp_path / "w.pth", {"one": state_dict(1), "two": state_dict(2)})
    with pytest.raises(UserError, match="choose with key="):
        load(weights=path)
    model, variables = load(weights=path, key="two")
    assert model == MODEL and variables["params"]["norm"]["bias"][0] == 2
    assert preprocess(path, key="one", mean=(0, 0, 0)).image_size == (16, 16)
    for run in (lambda: load("swin_tiny_patch4_window7_224", key="two"), lambda: preprocess(model, key="two")):
        with pytest.raises(UserError, match="key='two' selects weights in a file"):
            run()


def test_init_from_takes_a_key(tmp_path):
    path = str(save(tmp_path / "w.pth", {"one": state_dict(1), "two": state_dict(2)}))

    class Task:
        model = MODEL

    shapes = convert.from_official(state_dict(), MODEL)["params"]
    for reader in (
        finetune.pretrained(),
        lambda source, model, **more: finetune.load_pretrained(source, model, **more),
    ):
        found, _ = InitFrom(path=path, convert=reader, key="two").load(Task, shapes)
        assert found["norm/bias"][0] == 2
        with pytest.raises(UserError, match="no dict under 'tow'.*did you mean 'two'"):
            InitFrom(path=path, convert=reader, key="tow").load(Task, shapes)
    with pytest.raises(UserError, match="init_from.key=two: what reads the file"):
        InitFrom(path=path, convert=lambda source, model: {}, key="two").check()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="is a workdir, whose weights are taken without it"):
        InitFrom(path=str(tmp_path / "run"), convert=finetune.pretrained(), key="two").check()


def test_every_reader_takes_a_key(tmp_path):
    """Each refuses a wrong one, which shows that it is passed on."""
    from swin_jax.pretrained.clip import finetune as clip
    from swin_jax.pretrained.video_swin import finetune as video_finetune

    path = save(tmp_path / "w.pth", {"one": state_dict(1), "two": state_dict(2)})
    readers = (finetune.pretrained(), finetune.simmim_pretrained(), simmim.pretrained(), video_finetune.pretrained())
    for reader in (*readers, clip.pretrained()):
        with pytest.raises(UserError, match="no dict under 'three'"):
            reader(path, MODEL, key="three")


@pytest.mark.parametrize("name", ["layers.0.blocks.99999.norm1.weight", "layers.90000.blocks.0.norm1.weight"])
def test_block_numbers_far_above_their_number_are_one_line(tmp_path, name):
    save(tmp_path / "w.pth", state_dict() | {name: np.ones(8, np.float32)})
    for arguments in ({}, {"name": "swin_tiny_patch4_window7_224"}):
        with pytest.raises(UserError, match="the others are missing") as error:
            load(weights=tmp_path / "w.pth", **arguments)
        assert "\n" not in str(error.value)


def test_arrays_of_shapes_that_no_model_has_are_one_line(tmp_path):
    empty, long = np.zeros((0, 2), np.float32), np.zeros((0, 10**9), np.float32)
    cases = [("layers.0.downsample.reduction.weight", np.float32(1)), ("patch_embed.proj.weight", empty),
             ("patch_embed.proj.weight", np.zeros((8, 3, 2, 0), np.float32)), ("norm.weight", np.float32(1)),
             ("layers.0.blocks.0.attn.relative_position_bias_table", empty), ("head.weight", np.float32(1)),
             ("layers.0.blocks.0.attn.relative_position_index", long.T), ("norm.weight", long),
             ("layers.0.blocks.0.mlp.fc1.weight", np.float32(1)), ("absolute_pos_embed", np.float32(1))]  # fmt: skip
    for name, array in cases:
        path = save(tmp_path / "w.pth", state_dict() | {name: array})

        def init_from(path=path):
            InitFrom(path=str(path), convert=finetune.pretrained()).load(SimpleNamespace(model=MODEL), {})

        for run in (lambda path=path: load(weights=path), init_from):
            try:
                run()
            except UserError as error:
                assert str(path) in str(error) or "these weights" in str(error) or "layers" in str(error), str(error)


@pytest.mark.parametrize("kind", ["fifo", "loop", "dangling"])
def test_what_is_no_file_is_one_line_everywhere(tmp_path, kind):
    path = tmp_path / "w.pth"
    os.mkfifo(path) if kind == "fifo" else path.symlink_to(path if kind == "loop" else tmp_path / "nothing")
    init_from = InitFrom(path=str(path), convert=finetune.pretrained())
    runs = [lambda: load(weights=path), lambda: load("swin_tiny_patch4_window7_224", path), lambda: preprocess(path)]
    for run in (*runs, init_from.check, lambda: init_from.load(SimpleNamespace(model=MODEL), {})):
        with pytest.raises(UserError) as error:
            run()
        assert str(path) in str(error.value) and "\n" not in str(error.value)
