"""What `load` says of weights that it cannot take: always one line, with what they are and what to do."""

import dataclasses
import errno
import os
import warnings

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models.clip import PRESETS as CLIPS
from swin_jax.models.clip import make_clip
from swin_jax.models.swin import PRESETS as SWINS
from swin_jax.models.swin import Swin
from swin_jax.models.video_swin import make_video_swin
from swin_jax.models.video_swin.presets import PRESETS as VIDEOS
from swin_jax.pretrained import load as loading
from swin_jax.pretrained.clip import convert as convert_clip
from swin_jax.pretrained.load import load
from swin_jax.pretrained.preprocess import preprocess
from swin_jax.pretrained.swin import convert as convert_swin
from swin_jax.pretrained.video_swin import convert as convert_video
from tests.unit.pretrained.test_recognize import FILES

TINY = dict(num_classes=5, image_size=16, patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4)
TITLES = ", ".join(family.title for family in loading.FAMILIES)
K400 = "_patch244_window877_kinetics400"
# Of these a part is enough to be taken for a family that loads, which refuses them in its own words.
RECOGNIZED = {
    "CLIP": "not a whole CLIP",
    "CLIP ": "not a whole CLIP",
    "the image tower of Hugging Face's CLIP": "not a whole CLIP",
    "FocalNet": "these weights look like FocalNet",
    "BLIP": "these weights look like BLIP, not like a CLIP",
    "EVA-CLIP": "these weights look like EVA-CLIP, not like a CLIP",
}


def refusal(call, *arguments, **keywords):
    """The message of the UserError that a call raises, which is one line."""
    with pytest.raises(UserError) as error:
        call(*arguments, **keywords)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Makes a file of weights of these shapes, however large: file(shapes)."""

    def make(shapes):
        arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
        monkeypatch.setattr(loading, "read", lambda path, key: arrays)
        (tmp_path / "weights.pth").touch()
        return tmp_path / "weights.pth"

    return make


def shapes_of(name, **overrides):
    """The shapes in the file of a model."""
    if name in SWINS:
        return convert_swin.official_shapes(Swin(**SWINS[name] | overrides))
    if name in CLIPS:
        return convert_clip.official_shapes(make_clip(**CLIPS[name] | overrides))
    return convert_video.official_shapes(make_video_swin(**VIDEOS[name] | overrides))


@pytest.mark.parametrize("looks", FILES)
def test_a_file_of_a_known_foreign_family_is_named_with_what_to_do(looks, tmp_path):
    np.savez(tmp_path / "weights.npz", **{key: np.zeros((8, 3, 2, 2), np.float32) for key in FILES[looks]})
    for call in (lambda: load(weights=tmp_path / "weights.npz"), lambda: preprocess(tmp_path / "weights.npz")):
        message = refusal(call)
        if looks in RECOGNIZED:
            assert message.startswith(RECOGNIZED[looks])
        else:
            assert message.startswith(f"these weights look like {looks.strip()}")
            assert message.split("which load() does not support: ")[1]


@pytest.mark.parametrize("looks", FILES)
@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "ViT-B/32", f"swin_tiny{K400}_1k"])
def test_a_foreign_file_under_a_name_is_refused(looks, name, tmp_path):
    np.savez(tmp_path / "weights.npz", **{key: np.zeros((8, 3, 2, 2), np.float32) for key in FILES[looks]})
    message = refusal(load, name, weights=tmp_path / "weights.npz")
    assert message.startswith("not a whole CLIP" if name == "ViT-B/32" and "look like" not in message else "these")


@pytest.mark.parametrize(
    "names, message",
    [
        ([], f"not of a family that load() supports ({TITLES}): there are none"),
        (["a", "b.c", "d", "e"], f"({TITLES}): their 4 names begin with a, b.c, d"),
    ],
)
def test_a_file_of_no_known_family_says_what_it_holds(names, message, file):
    path = file(dict.fromkeys(names, (2,)))
    for call in (load, lambda weights: preprocess(weights)):
        assert message in refusal(call, weights=path)


def test_of_a_file_that_two_families_could_be_both_are_named(file, monkeypatch):
    swin, *others = loading.FAMILIES
    twin = dataclasses.replace(swin, title="Twin", usual="twin_tiny", find=lambda word: None, names=list)
    monkeypatch.setattr(loading, "FAMILIES", (swin, *others, twin))
    path = file(convert_swin.official_shapes(Swin(**TINY)))
    for call in (load, lambda weights: preprocess(weights)):
        message = refusal(call, weights=path)
        assert "could be a Swin or a Twin" in message
        assert "give load() the name of the model, 'swin_tiny_patch4_window7_224' or 'twin_tiny'" in message


def test_nothing_and_folders_that_are_none_say_what_is_missing(tmp_path):
    assert "give load() a name or weights; swin_jax.list_models()" in refusal(load)
    wanted = "without a config.json: not the workdir of a run, nor a folder of a hub"
    for arguments in (dict(), dict(name="ViT-B/32")):
        assert f"{tmp_path} is a directory {wanted}" in refusal(load, weights=tmp_path, **arguments)
    assert wanted in refusal(preprocess, tmp_path)
    missing = tmp_path / "swin_tiny.pth"
    assert f"{missing} is not a file, a workdir or the name of official weights" in refusal(load, weights=missing)
    (tmp_path / "config.json").write_text("{")
    assert f"{tmp_path}/config.json cannot be read" in refusal(load, weights=tmp_path)


SIBLINGS = [
    ("swin_tiny_patch4_window7_224", "swin_small_patch4_window7_224", "(depths=(2, 2, 18, 2))"),
    ("swin_small_patch4_window7_224", "swin_tiny_patch4_window7_224", "depths=(2, 2, 6, 2)"),
    ("swin_base_patch4_window7_224", "swin_tiny_patch4_window7_224", "embed_dim=96"),
    ("swin_base_patch4_window12_384", "swin_large_patch4_window12_384_22k", "num_heads=(6, 12, 24, 48)"),
    ("swinv2_tiny_patch4_window8_256", "swinv2_small_patch4_window8_256", "depths=(2, 2, 18, 2)"),
    ("ViT-B/32", "ViT-B/16", "patch_size=16"),
    ("ViT-B/32", "ViT-L/14", "vision_width=1024"),
    ("ViT-H-14", "ViT-L/14", "vision_layers=24"),
    ("RN50", "RN101", "vision_layers=(3, 4, 23, 3)"),
    ("ViT-B/32", "RN50", "vision_layers=(3, 4, 6, 3)"),
    (f"swin_tiny{K400}_1k", f"swin_small{K400}_1k", "depths=(2, 2, 18, 2)"),
    (f"swin_small{K400}_1k", f"swin_base{K400}_1k", "embed_dim=128"),
]


@pytest.mark.parametrize("name, true, sizes", SIBLINGS)
def test_weights_of_a_sibling_size_are_told_by_their_name(name, true, sizes, file):
    path = file(shapes_of(true))
    for overrides in (dict(), dict(num_classes=3) if name not in CLIPS else dict(act="gelu")):
        message = refusal(load, name, weights=path, **overrides)
        theirs, ours = message.split(f", not a {name} (")
        assert theirs.startswith(f"{path}: this file is a {true} (") and sizes.strip("()") in theirs
        assert sizes.strip("()") not in ours and ours.endswith("); give that name, or leave out the name")


def test_the_sizes_of_a_sibling_stand_with_its_own_name(file):
    path = file(shapes_of("swin_tiny_patch4_window7_224"))
    assert refusal(load, "swin_small_patch4_window7_224", weights=path) == (
        f"{path}: this file is a swin_tiny_patch4_window7_224 (depths=(2, 2, 6, 2)), not a "
        "swin_small_patch4_window7_224 (depths=(2, 2, 18, 2)); give that name, or leave out the name"
    )


V1, V2 = "swin_tiny_patch4_window7_224", "swinv2_tiny_patch4_window8_256"
VIDEO_V1, VIDEO_V2 = f"swin_tiny{K400}_1k", "video_swinv2_tiny_patch244_window888_kinetics400"


@pytest.mark.parametrize("one, other", [(V1, V2), (VIDEO_V1, VIDEO_V2)])
def test_weights_of_the_other_version_are_told_by_their_name(one, other, file):
    for true, name, found in ((one, other, False), (other, one, True)):
        message = refusal(load, name, weights=file(shapes_of(true)))
        assert f"this file is a {true} (cosine_attention={found}, continuous_bias={found}), not a {name}" in message


@pytest.mark.parametrize(
    "name, true, sizes, advice",
    [
        (f"swin_small{K400}_1k", V1, "depths=(2, 2, 6, 2)", f"give the name '{VIDEO_V1}'"),
        (VIDEO_V1, "swin_base_patch4_window7_224", "embed_dim=128", f"give the name 'swin_base{K400}_1k'"),
        (VIDEO_V1, V2, "cosine_attention=True, continuous_bias=True", f"give the name '{VIDEO_V2}'"),
    ],
)
def test_an_image_swin_of_another_size_is_not_inflated(name, true, sizes, advice, file):
    message = refusal(load, name, weights=file(shapes_of(true)))
    assert f"this file is a {true}" in message and sizes in message and f", not a {name} (" in message
    assert message.endswith(advice)


@pytest.mark.parametrize("head", [5, 21841])
def test_a_sibling_with_another_head_is_told_too(head, file):
    path = file(shapes_of("swin_small_patch4_window7_224", num_classes=head))
    message = refusal(load, "swin_tiny_patch4_window7_224", weights=path)
    true = "swin_small_patch4_window7_224" + ("_22k" if head == 21841 else "")
    assert f"this file is a {true} (depths=(2, 2, 18, 2)), not a swin_tiny" in message


def test_weights_of_a_size_that_no_name_has_are_told_by_their_sizes(file):
    path = file(convert_swin.official_shapes(Swin(**TINY)))
    message = refusal(load, "swin_tiny_patch4_window7_224", weights=path)
    sizes = "embed_dim=8, depths=(1, 1), num_heads=(1, 2)"
    assert f"this file is a Swin ({sizes}), not a swin_tiny" in message
    assert message.endswith(f"leave out the name, or give {sizes}")


def test_of_a_size_that_is_given_the_sizes_of_both_are_told(file):
    path = file(shapes_of("swin_small_patch4_window7_224"))
    message = refusal(load, "swin_tiny_patch4_window7_224", weights=path, depths=(2, 2, 4, 2))
    assert message == "these weights are of a Swin of depths=(2, 2, 18, 2), the model is one of depths=(2, 2, 4, 2)"


@pytest.mark.parametrize(
    "overrides",
    [
        dict(image_size="384"),
        dict(image_size=224.5),
        dict(image_size=0),
        dict(image_size=()),
        dict(window_size=(7, "7")),
        dict(num_classes="7"),
        dict(num_classes=-1),
        dict(num_classes=True),
        dict(embed_dim=96.0),
        dict(depths=(2, 2, None, 2)),
    ],
)
def test_a_value_of_another_type_is_named_before_anything_else(overrides, file):
    ((key, value),) = overrides.items()
    path = file(convert_swin.official_shapes(Swin(**TINY)))
    sources = (dict(name="swin_tiny_patch4_window7_224"), dict(weights=path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of random weights
        for source in sources:
            message = refusal(load, **source, **overrides)
            assert message.startswith(f"{key}={value!r}: it must be ")
        assert message == refusal(preprocess, path, **overrides)


def test_a_message_of_flax_is_cut_before_the_model_that_it_prints():
    long = ValueError("Shapes differ in Swin(\n    # attributes\n    num_classes = 5\n). More of it.")
    assert str(loading._no_model(dict(ape=1), long)) == "ape=1 does not make a model: Shapes differ in"
    assert len(str(loading._no_model({"x": "y" * 300}, ValueError("z" * 999)))) < 330


def test_resize_is_one_of_the_familys_choices_wherever_it_is_given(file, tmp_path, monkeypatch):
    path = file(convert_swin.official_shapes(Swin(**TINY)))
    names = {"swin_tiny_patch4_window7_224": "'bicubic', 'geometric'", "ViT-B/32": "'bilinear', 'bicubic'"}
    for name, choices in names.items():
        assert refusal(load, name, resize="linear") == f"resize='linear' is not one of {choices}"
    assert refusal(load, VIDEO_V1, resize="geometric") == "resize='geometric' is not 'bicubic'"
    for resize in ("linear", 3, "", ["bicubic"]):
        assert f"resize={resize!r} is not one of 'bicubic'" in refusal(load, weights=path, resize=resize)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"task.model.fn": "swin_jax.models.swin.Swin"}')
    assert refusal(load, weights=tmp_path / "run", resize="bilinear").endswith("not one of 'bicubic', 'geometric'")
    swin, *others = loading.FAMILIES
    monkeypatch.setattr(loading, "FAMILIES", (dataclasses.replace(swin, resizes=()), *others))
    message = refusal(load, "swin_tiny_patch4_window7_224", resize="bicubic")
    assert message == "resize='bicubic': a Swin has nothing to resize; leave it out"


def test_a_path_that_is_given_as_a_name_says_where_it_belongs(file, tmp_path):
    path = str(file({}))
    for given in (path, str(tmp_path), "gs://bucket/run"):
        assert refusal(load, given).endswith(f"load(weights={given!r})")


def test_a_folder_inside_a_workdir_names_the_workdir(tmp_path, monkeypatch):
    inside = tmp_path / "checkpoints" / "3"
    inside.mkdir(parents=True)
    (tmp_path / "config.json").write_text("{}")
    for folder in (inside, inside.parent):
        for call in (lambda weights: load(weights=weights), preprocess):
            assert refusal(call, folder).endswith(f"inside the workdir of a run: give the workdir, {tmp_path}")
    monkeypatch.chdir(inside)
    assert str(tmp_path) in refusal(load, weights=".")


CLIP = dict(embed_dim=6, image_size=8, patch_size=4, vision_layers=1, vision_width=64, vision_heads=1)
CLIP |= dict(context_length=4, vocab_size=9, text_width=64, text_heads=1, text_layers=1)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_of_a_file_that_holds_two_families_the_name_takes_one(prefix, tmp_path, monkeypatch):
    monkeypatch.setitem(SWINS, "swin_tiny_patch4_window7_224", TINY)
    monkeypatch.setitem(CLIPS, "ViT-B/32", CLIP)
    swin_shapes = convert_swin.official_shapes(Swin(**TINY)).items()
    shapes = {prefix + name: shape for name, shape in swin_shapes}
    shapes |= convert_clip.official_shapes(make_clip(**CLIP))
    path = tmp_path / "weights.npz"
    np.savez(path, **{name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
    assert "could be a Swin or a CLIP: give load() the name" in refusal(load, weights=path)
    with pytest.warns(UserWarning, match=r"not belong to a Swin: .*visual \(\d+\)"):
        assert load("swin_tiny_patch4_window7_224", weights=path)[0] == Swin(**TINY)
    with pytest.warns(UserWarning, match=rf"not belong to a CLIP: {len(swin_shapes)} arrays of a Swin"):
        assert load("ViT-B/32", weights=path, act="gelu")[0] == make_clip(**CLIP, act="gelu")


@pytest.mark.parametrize("read", [lambda path: load(weights=path), preprocess], ids=["load", "preprocess"])
def test_a_workdir_that_may_not_be_entered_is_one_line(read, tmp_path, monkeypatch):
    """As a colleague's of mode 700; whoever runs the tests as root may enter everything."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    stat = os.stat

    def denied(path, *arguments, **options):
        if str(path).startswith(str(tmp_path / "run/")):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", denied)
    with pytest.raises(UserError, match="/run/config.json cannot be used: Permission denied$"):
        read(str(tmp_path / "run"))
