"""A model's preparation: what makes it, what changes it, what is missing, and who uses it."""

import json
import pickle
import warnings

import jax
import numpy as np
import pytest

from swin_jax.core.constants import CLIP_MEAN, IMAGENET_MEAN, IMAGENET_STD
from swin_jax.core.errors import UserError
from swin_jax.data.image_text.tokenizer import tokenize
from swin_jax.inference import loaded_model, similarity
from swin_jax.models import swin
from swin_jax.models.clip import make_clip
from swin_jax.models.swin import Swin
from swin_jax.models.video_swin import make_video_swin
from swin_jax.pretrained import preparation
from swin_jax.pretrained.load import load, shapes
from swin_jax.pretrained.preparations import published
from swin_jax.pretrained.preprocess import preprocess
from swin_jax.pretrained.swin import convert
from swin_jax.train import checkpoint

NAME = "swin_tiny_patch4_window7_224"
TINY = dict(num_classes=5, image_size=16, patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4)
PAIRS = dict(embed_dim=6, image_size=16, context_length=8, text_width=8, text_heads=2, text_layers=1, vision_layers=1)
CLIP = make_clip(**PAIRS, vision_width=8, vision_heads=2, patch_size=8)
CLIPS = make_video_swin(
    image_size=(4, 16, 16), patch_size=(2, 2, 2), window_size=(2, 4, 4), depths=(1,), num_heads=(1,)
)
TRANSFORM = {
    "fn": "swin_jax.data.image.transforms.eval_transform",
    "size": 16,
    "crop": True,
    "interpolation": "nearest",
}
PICTURE = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def state_dict():
    return {name: np.zeros(shape, np.float32) for name, shape in convert.official_shapes(Swin(**TINY)).items()}


@pytest.fixture
def file(state_dict, tmp_path):
    np.savez(tmp_path / "weights.npz", **state_dict)
    return tmp_path / "weights.npz"


@pytest.fixture
def presets(monkeypatch):
    monkeypatch.setattr(swin, "PRESETS", {NAME: TINY, "swin_base_patch4_window12_384": TINY | dict(image_size=384)})


@pytest.fixture
def workdir(state_dict, tmp_path, monkeypatch):
    """Makes the workdir of a run of TINY: workdir(**changes of its config), None leaves a key out."""
    params = convert.from_official(state_dict, Swin(**TINY))["params"]
    monkeypatch.setattr(checkpoint, "load_params", lambda workdir: (params, None, {}))

    def make(**changes):
        config = {f"task.model.{key}": list(v) if isinstance(v, tuple) else v for key, v in TINY.items()}
        config |= {"task.model.fn": "swin_jax.models.swin.Swin", "task.mean": [0.5] * 3, "task.std": [0.25] * 3}
        config |= {f"predict.transform.{key}": value for key, value in TRANSFORM.items()} | changes
        kept = {key: value for key, value in config.items() if value is not None}
        (tmp_path / "config.json").write_text(json.dumps(kept))
        return tmp_path

    return make


def warned(call, *arguments, **keywords):
    """The result of a call, and the warnings that it gave."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = call(*arguments, **keywords)
    return result, [str(warning.message) for warning in found]


def test_a_name_tells_all_and_nothing_is_assumed(presets):
    found, said = warned(preprocess, NAME)
    assert not said and not found.assumed
    assert (found.input, found.image_size, found.frames, found.channels) == ("image", (16, 16), None, 3)
    assert found.arguments == dict(size=16, crop=True, interpolation="bicubic")
    assert (found.mean, found.std, found.vocabulary) == (IMAGENET_MEAN, IMAGENET_STD, None)
    pairs, said = warned(preprocess, "ViT-L/14@336px")
    assert not said and (pairs.mean, pairs.context_length, pairs.clean) == (CLIP_MEAN, 77, "openai")
    assert pairs.image_size == (336, 336) and "bpe_simple_vocab_16e6" in pairs.vocabulary
    clips, said = warned(preprocess, "swin_base_patch244_window1677_sthv2")
    assert not said and (clips.input, clips.frames, clips.arguments["sampling"]) == ("video", 32, "uniform")
    clips = preprocess("swin_tiny_patch244_window877_kinetics400_1k")
    assert (clips.arguments["sampling"], clips.arguments["short_side"]) == ("dense", 256)


def test_what_is_assumed_of_a_file_alone_is_said_once_per_load(file):
    for _ in range(2):
        (model, _), said = warned(load, weights=file)
        assert said == []
        first, said = warned(preprocess, model)
        assert len(said) == 1 and "how this model's images were prepared" in said[0]
        for word in ("size=16", "crop=True", "interpolation='bicubic'", "mean=(0.485,", "std=(0.229,"):
            assert word in said[0]
        second, said = warned(preprocess, model)
        assert said == [] and second == first.replace(assumed=())
    assert len(warned(preprocess, file)[1]) == 1


def test_what_is_given_is_not_assumed(file):
    model = load(weights=file)[0]
    (said,) = warned(preprocess, model, mean=(0.5,) * 3, std=(0.5,) * 3)[1]
    assert "bicubic" in said and "mean" not in said and "std" not in said
    (said,) = warned(preprocess, load(weights=file)[0], crop=False, interpolation="bilinear", image_size=20)[1]
    assert "mean=" in said and not any(word in said for word in ("size", "crop", "bicubic", "bilinear"))
    (said,) = warned(preprocess, CLIP.clone(), mean=(0.5,) * 3)[1]
    assert "std=" in said and "clean='openai'" in said and "mean" not in said


def test_a_name_for_a_file_tells_all(presets, file):
    (model, _), said = warned(load, NAME, weights=file)
    assert said == []
    found, said = warned(preprocess, model)
    assert said == [] and found == preprocess(NAME)


def test_a_workdir_tells_all(workdir):
    found, said = warned(preprocess, workdir())
    assert said == [] and (found.mean, found.std) == ((0.5,) * 3, (0.25,) * 3)
    assert found.arguments == {key: value for key, value in TRANSFORM.items() if key != "fn"}
    (model, _), said = warned(load, weights=workdir())
    assert said == []
    carried, said = warned(preprocess, model)
    assert said == [] and carried == found


def test_a_model_made_by_hand_and_a_clone_have_what_is_usual_and_say_so(workdir):
    for model in (Swin(**TINY), load(weights=workdir())[0].clone()):
        assert preparation.carried(model) is None
        found, said = warned(preprocess, model)
        assert len(said) == 1 and found.mean == IMAGENET_MEAN
        assert warned(preprocess, model)[1] == []
    assert warned(preprocess, CLIPS.clone())[0].arguments == dict(
        size=16, length=4, stride=2, sampling="dense", short_side=18
    )


@pytest.mark.parametrize("source", ["name", "file", "workdir"])
def test_a_size_given_to_load_and_to_preprocess_gives_the_same(source, presets, file, workdir):
    given = {"name": dict(name=NAME, weights=file), "file": dict(weights=file)}.get(source) or dict(weights=workdir())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        changed = preprocess(load(**given, image_size=384)[0]).replace(assumed=())
        for place in (*given.values(), load(**given)[0]):
            assert preprocess(place, image_size=384).replace(assumed=()) == changed
    assert changed.image_size == (384, 384) and changed.arguments["crop"] is False  # as the official ones of 384


@pytest.mark.parametrize("source", ["name", "file", "model"])
def test_overrides_change_what_they_name(source, presets, file):
    place = {"name": NAME, "file": file}.get(source) or Swin(**TINY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = preprocess(place).replace(assumed=())
        found = preprocess(place, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 2.0), crop=False, interpolation="bilinear")
    assert found.mean == (0.1, 0.2, 0.3) and found.std == (1.0, 1.0, 2.0)
    assert found.arguments == dict(size=16, crop=False, interpolation="bilinear")
    assert before.arguments == dict(size=16, crop=True, interpolation="bicubic")  # and no other than found
    np.testing.assert_allclose(found(PICTURE), (found.pixels(PICTURE) / 255 - found.mean) / found.std, atol=1e-6)


def test_a_size_changes_what_follows_it_unless_that_is_given_too(presets):
    whole = preprocess("swin_base_patch4_window12_384")
    assert whole.arguments["crop"] is False and whole.replace(image_size=16).arguments["crop"] is True
    assert preprocess(NAME, image_size=384, crop=True).arguments["crop"] is True
    clips = preprocess("swin_tiny_patch244_window877_kinetics400_1k", image_size=(16, 112, 112))
    assert (clips.frames, clips.image_size, clips.arguments["short_side"]) == (16, (112, 112), 128)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (dict(means=(0.5,) * 3), "a preparation has no 'means'; did you mean 'mean'?"),
        (dict(interpolate="nearest"), "has no 'interpolate'; did you mean 'interpolation'?"),
        (dict(imagesize=32), "has no 'imagesize'; did you mean 'image_size'?"),
        (dict(image_size=(16, 18, 20, 22)), r"image_size=\(16, 18, 20, 22\) (must be|.*does not make a model)"),
        (dict(size=(16, 0)), r"size=\(16, 0\): it must be a whole number, at least 1"),
        (dict(mean=(0.5,)), r"mean=\(0.5,\): it must have a number for each of 3 channels"),
        (dict(mean=(123.675, 116.28, 103.53)), r"mean=\(123.*not 0..255: divide it by 255"),
        (dict(transform="os.system"), "os.system does not prepare a model's image"),
        (dict(size="100"), "size='100': it must be a whole number, at least 1"),
        (dict(image_size="100"), "image_size='100'(: it)? must be a whole number"),
        (dict(size=0), "size=0: it must be a whole number, at least 1"),
        (dict(mean="0.5"), "mean='0.5': it must be a tuple of numbers"),
        (dict(mean=0.5), "mean=0.5: it must be a tuple of numbers"),
        (dict(std=(0, 1, 1)), r"std=\(0, 1, 1\): it must be a tuple of numbers, above 0"),
        (dict(interpolation="foo"), "interpolation 'foo' is not known"),
        (dict(crop=3), "crop=3 must be True or False"),
        (dict(context_length=5), "this model reads no texts"),
    ],
)
def test_overrides_that_it_does_not_have_are_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        preprocess(NAME, **overrides)
    with pytest.raises(UserError, match=message):
        preprocess(prepared_model(), **overrides)


def test_what_a_clip_cannot_be_given_is_refused():
    with pytest.raises(UserError, match="the cleaner 'foo' is not known"):
        preprocess("ViT-B/32", clean="foo")
    with pytest.raises(UserError, match="context_length='a': it must be a whole number"):
        preprocess("ViT-B/32", context_length="a")
    assert preprocess("swin3d_t", frames=3).frames == 3


def test_what_a_run_does_not_tell_can_be_given(workdir):
    folder = workdir(**{"task.mean": None, "task.std": None})
    with pytest.raises(UserError, match="task.mean, task.std missing; give mean=, std= to swin_jax.preprocess"):
        preprocess(folder)
    assert preprocess(folder, mean=(0.1, 0.2, 0.3), std=(0.5,) * 3).mean == (0.1, 0.2, 0.3)
    folder = workdir(**{f"predict.transform.{key}": None for key in ("fn", "size", "crop", "interpolation")})
    with pytest.raises(UserError, match="predict.transform missing; give transform="):
        preprocess(folder)
    found = preprocess(folder, transform=preparation.RESIZED, size=24, crop=False)
    assert found.image_size == (24, 24) and found(PICTURE).shape == (1, 24, 24, 3)


def test_a_picture_has_no_frames():
    with pytest.raises(UserError, match=r"image_size=\(4, 16, 16\) has three numbers"):
        preprocess(prepared_model(), image_size=(4, 16, 16))


def prepared_model():
    return preparation.attach(Swin(**TINY), published.of_pictures(16, 3, assumed=False))


@pytest.mark.parametrize(
    "model, message",
    [
        (Swin(**TINY | dict(in_channels=4)), "4 channels has no preparation: it is unknown how"),
        (Swin(**TINY | dict(in_channels=1)), "1 channels has no preparation: it is unknown how"),
    ],
)
def test_of_what_has_no_preparation_the_missing_is_named(model, message):
    for _ in range(2):
        with pytest.raises(UserError, match=message):
            preprocess(model)


@pytest.mark.parametrize(
    "model, shape",
    [
        (Swin(**TINY | dict(image_size=(16, 32))), (1, 16, 32, 3)),
        (Swin(**TINY | dict(image_size=(32, 384))), (1, 32, 384, 3)),
        (make_clip(embed_dim=4, image_size=(32, 96), vision_layers=1, text_layers=1), (1, 32, 96, 3)),
    ],
)
def test_a_rectangle_is_prepared(model, shape):
    prepared = preprocess(model)
    assert prepared(PICTURE).shape == shape and prepared.image_size == shape[1:3]
    turned = prepared.replace(image_size=shape[2:0:-1])
    assert turned(PICTURE).shape == (1, shape[2], shape[1], 3)
    json.loads(turned.fingerprint())


def test_clips_of_a_rectangle_are_prepared():
    model = CLIPS.clone(backbone=CLIPS.backbone.clone(image_size=(4, 16, 40)))
    frames = np.zeros((6, 30, 30, 3), np.uint8)
    assert preprocess(model)(frames).shape == (1, 4, 16, 40, 3)
    assert preprocess(model, image_size=(2, 24, 8))(frames).shape == (1, 2, 24, 8, 3)


def test_a_load_of_what_has_no_preparation_succeeds_and_preprocess_says_why(presets, tmp_path):
    model = Swin(**TINY | dict(in_channels=4))
    zeros = {name: np.zeros(shape, np.float32) for name, shape in convert.official_shapes(model).items()}
    np.savez(tmp_path / "four.npz", **zeros)
    loaded = load(weights=tmp_path / "four.npz")[0]
    assert loaded == model
    for source in (loaded, tmp_path / "four.npz"):
        with pytest.raises(UserError, match="a model of 4 channels has no preparation"):
            preprocess(source)
    with pytest.raises(UserError, match="a model of 4 channels has no preparation"):
        preprocess(NAME, in_channels=4)


@pytest.mark.parametrize(
    "changes, missing",
    [
        ({"predict.transform.fn": None}, "predict.transform missing"),
        ({"task.mean": None}, "task.mean missing"),
        ({"task.mean": None, "task.std": None, "predict.transform.fn": None}, "predict.transform, task.mean, task.std"),
        ({"predict.transform.fn": "mine.square"}, "mine.square, which is not one of this package's"),
        ({"predict.transform.fn": "swin_jax.data.image.transforms.eval_transfrom"}, "did you mean"),
    ],
)
def test_of_a_workdir_the_missing_keys_are_named(changes, missing, workdir):
    folder = workdir(**changes)
    with pytest.raises(UserError, match=missing) as error:
        preprocess(folder)
    assert str(error.value).startswith(f"{folder}/config.json") and "\n" not in str(error.value)


def test_nothing_is_assumed_of_the_model_of_a_workdir_that_does_not_tell(workdir):
    model, said = warned(load, weights=workdir(**{"task.mean": None}))
    assert said == []
    for _ in range(2):
        with pytest.raises(UserError, match="does not say how pictures are prepared: task.mean missing"):
            preprocess(model[0])


def test_a_gray_run_gives_one_channel(workdir):
    fn = "swin_jax.data.image.small.small_eval_transform"
    transform = {"fn": fn, "size": 16, "channels": 1, "crop": None, "interpolation": None}
    changes = {f"predict.transform.{key}": value for key, value in transform.items()}
    found = preprocess(workdir(**changes, **{"task.mean": [0.5], "task.std": [0.25], "task.model.in_channels": 1}))
    assert found.channels == 1
    np.testing.assert_allclose(found(np.full((16, 16, 3), 255, np.uint8)), np.full((1, 16, 16, 1), 2.0))


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_patch4_window8_256"])
def test_a_size_of_videos_is_refused_for_a_model_of_images(name):
    with pytest.raises(UserError, match=r"image_size=\(4, 32, 32\) is for a model of videos, but .* takes images"):
        preprocess(name, image_size=(4, 32, 32))
    assert preprocess(name, image_size=(32, 32)).input == "image"


def test_similarity_reads_texts_as_the_models_preparation_says(monkeypatch):
    seen = []

    def encode(tokens):
        seen.append(np.asarray(tokens))
        return np.ones((len(tokens), 2), np.float32)

    monkeypatch.setattr(loaded_model, "text_encoder", lambda model, variables: encode)
    prepared = published.of_pairs(16, 8, assumed=False).replace(clean="canonicalize")
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes(CLIP))
    similarity.encode_texts(preparation.attach(CLIP.clone(), prepared), variables, ["A boat!"])
    np.testing.assert_array_equal(seen[-1], tokenize(["a boat"], 8))
    similarity.encode_texts(preparation.attach(CLIP.clone(), prepared.replace(clean="openai")), variables, ["A boat!"])
    np.testing.assert_array_equal(seen[-1], tokenize(["a boat!"], 8))
    shorter = similarity.tokenizer_of(prepared.replace(context_length=5), None)
    assert shorter(["a boat"]).shape == (1, 5)
    own = similarity.tokenizer_of(prepared, tokenize)
    assert own is tokenize and similarity.tokenizer_of(None, None) is None


def test_a_fingerprint_tells_all_that_changes_pixels_and_nothing_else():
    one = published.of_pairs(16, 8, assumed=True)
    for same in (one.replace(assumed=()), one.replace(context_length=5), one.replace(clean="canonicalize")):
        assert same.fingerprint() == one.fingerprint()
    changes = (dict(image_size=18), dict(mode="squash"), dict(interpolation="nearest"), dict(fill=1))
    for changed in (*changes, dict(mean=(0.5,) * 3), dict(std=(0.5,) * 3)):
        other = one.replace(**changed).fingerprint()
        assert other != one.fingerprint() and not preparation.same_pixels(other, one.fingerprint())


def test_older_fingerprints_are_compared_as_far_as_they_tell():
    whole = published.of_pairs(16, 8, assumed=True).fingerprint()
    older = json.dumps({key: value for key, value in json.loads(whole).items() if key not in ("mean", "std")})
    assert preparation.same_pixels(older, whole) and preparation.same_pixels(whole, older)
    assert not preparation.same_pixels(older.replace("shortest", "squash"), whole)
    assert not preparation.same_pixels("", "") and not preparation.same_pixels("", whole)


def test_models_that_differ_in_preparation_only_are_equal_and_compile_once():
    models = [Swin(**TINY) for _ in range(2)]
    for model, size in zip(models, (16, 32)):
        preparation.attach(model, published.of_pictures(size, 3, assumed=False))
    assert models[0] == models[1] and hash(models[0]) == hash(models[1])
    assert preprocess(models[0]) != preprocess(models[1])
    traces = []

    def double(x, model):
        traces.append(model)
        return 2 * x

    compiled = jax.jit(double, static_argnums=1)
    for model in models:
        compiled(1.0, model)
    assert len(traces) == 1


@pytest.mark.parametrize("name", [NAME, "ViT-B/32", "swin_base_patch244_window1677_sthv2"])
def test_a_preparation_pickles(name):
    found = preprocess(name)
    again = pickle.loads(pickle.dumps(found))
    assert again == found
    if found.input == "image":
        np.testing.assert_array_equal(again(PICTURE), found(PICTURE))


@pytest.mark.parametrize("bad", [None, "", 3, np.zeros(3), {}])
def test_preprocess_of_no_source_says_what_it_takes(bad):
    with pytest.raises(UserError, match="preprocess takes a model, its name, the workdir of a run or a file") as error:
        preprocess(bad)
    assert "\n" not in str(error.value)
