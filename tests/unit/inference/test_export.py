"""Models written as StableHLO: any number of rows, what goes in and comes out, and what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swin_jax
from swin_jax.core.errors import UserError
from swin_jax.inference import export
from swin_jax.models.clip import VisionTransformer, make_clip
from swin_jax.models.swin import Swin
from swin_jax.models.video_swin import make_video_swin
from swin_jax.pretrained.arguments import random_variables

TINY = dict(embed_dim=8, depths=(1, 1), num_heads=(1, 2), num_classes=3)
SWIN = Swin(image_size=16, patch_size=2, window_size=4, **TINY)
VIDEO = make_video_swin(image_size=(4, 16, 16), patch_size=(2, 4, 4), window_size=(2, 2, 2), **TINY)
CLIP = make_clip(
    8, image_size=16, vision_layers=1, vision_width=8, vision_heads=1, patch_size=8, context_length=5, vocab_size=20,
    text_width=8, text_heads=1, text_layers=1,
)  # fmt: skip


def floats(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def reload(path):
    return jax.export.deserialize(path.read_bytes())


@pytest.fixture(scope="module")
def swin(tmp_path_factory):
    """(variables, path, facts) of an exported classifier."""
    path = tmp_path_factory.mktemp("exported") / "swin.stablehlo"
    variables = random_variables(SWIN, floats(1, 16, 16, 3))
    return variables, path, swin_jax.export(SWIN, variables, path)


def test_any_number_of_images_gets_what_the_model_gives(swin):
    variables, path, _ = swin
    model = reload(path)
    for count in (1, 3):
        images = floats(count, 16, 16, 3)
        logits = model.call({"image": images})["logits"]
        assert logits.shape == (count, 3)
        np.testing.assert_allclose(logits, jax.jit(SWIN.apply)(variables, images), atol=1e-5)


def test_the_file_beside_it_says_what_goes_in_and_out(swin):
    _, path, facts = swin
    assert json.loads(path.with_name("swin.stablehlo.json").read_text()) == facts
    assert facts["inputs"] == {"image": "float32 (b, 16, 16, 3)"} and facts["outputs"] == {"logits": "float32 (b, 3)"}
    assert facts["platforms"] == ["cpu", "cuda", "tpu"] == list(reload(path).platforms)
    assert facts["versions"]["jax"] == jax.__version__
    assert sorted(file.name for file in path.parent.iterdir()) == ["swin.stablehlo", "swin.stablehlo.json"]


@pytest.mark.parametrize(
    "batch, message",
    [
        ({"image": floats(2, 16, 8, 3)}, r"expected \(b, 16, 16, 3\) and called with \(2, 16, 8, 3\)"),
        ({"image": floats(16, 16, 3)}, r"expected \(b, 16, 16, 3\) and called with \(16, 16, 3\)"),
        ({"image": np.zeros((2, 16, 16, 3), np.uint8)}, "expected float32 and called with uint8"),
        ({"images": floats(2, 16, 16, 3)}, "'model' was exported"),
    ],
)
def test_wrong_inputs_are_named(swin, batch, message):
    with pytest.raises(ValueError, match=message):
        reload(swin[1]).call(batch)


def test_rounded_weights_halve_the_file_and_are_those_that_are_computed_with(swin, tmp_path):
    variables, path, _ = swin
    swin_jax.export(SWIN, variables, tmp_path / "half", weights="bfloat16", platforms=["cpu"])
    assert reload(tmp_path / "half").platforms == ("cpu",)
    saved = path.stat().st_size - (tmp_path / "half").stat().st_size
    assert saved >= sum(x.nbytes for x in jax.tree.leaves(variables)) / 2
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), variables)
    images = floats(2, 16, 16, 3)
    logits = reload(tmp_path / "half").call({"image": images})["logits"]
    np.testing.assert_allclose(logits, jax.jit(SWIN.apply)(rounded, images), atol=1e-5)


def test_a_clip_takes_as_many_images_and_texts_as_it_is_given(tmp_path):
    text = np.arange(15, dtype=np.int32).reshape(3, 5)
    variables = random_variables(CLIP, floats(1, 16, 16, 3), text[:1])
    facts = swin_jax.export(CLIP, variables, tmp_path / "clip")
    assert facts["inputs"] == {"image": "float32 (b_image, 16, 16, 3)", "text": "int32 (b_text, 5)"}
    image = floats(2, 16, 16, 3)
    out = reload(tmp_path / "clip").call({"image": image, "text": text})
    logits = out["logit_scale"] * out["image_features"] @ out["text_features"].T
    np.testing.assert_allclose(logits, jax.jit(CLIP.apply)(variables, image, text)[0], atol=1e-4)


def test_what_the_model_refuses_is_told_in_its_own_words(tmp_path):
    variables = random_variables(CLIP, floats(1, 16, 16, 3), np.zeros((1, 5), np.int32))
    with pytest.raises(UserError, match=r"^images are of shape \(1, 32, 32, 3\)"):
        swin_jax.export(CLIP, variables, tmp_path / "clip", image_size=32)


def test_video_and_pooled_features(tmp_path):
    model = VIDEO.clone(num_classes=0)
    video = floats(2, 4, 16, 16, 3)
    variables = random_variables(model, video)
    assert swin_jax.export(model, variables, tmp_path / "v")["inputs"] == {"video": "float32 (b, 4, 16, 16, 3)"}
    features = reload(tmp_path / "v").call({"video": video})["features"]
    np.testing.assert_allclose(features, jax.jit(model.apply)(variables, video), atol=1e-5)


def test_maps_of_a_backbone_at_another_size(tmp_path):
    model = SWIN.clone(out_norms=(0, 1), small="keep")
    variables = random_variables(model, floats(1, 16, 16, 3))
    facts = swin_jax.export(model, variables, tmp_path / "maps", image_size=(20, 12))
    assert facts["outputs"] == {"features_0": "float32 (b, 10, 6, 8)", "features_1": "float32 (b, 5, 3, 16)"}
    images = floats(2, 20, 12, 3)
    out = reload(tmp_path / "maps").call({"image": images})
    for ours, want in zip((out["features_0"], out["features_1"]), jax.jit(model.apply)(variables, images)):
        np.testing.assert_allclose(ours, want, atol=1e-5)


def test_variables_that_are_not_the_models_are_told_before_anything_is_compiled(swin, tmp_path):
    def refused(message, variables, model=SWIN):
        with pytest.raises(UserError, match=message) as caught:
            swin_jax.export(model, variables, tmp_path / "x")
        assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []

    refused("'params': ...}, not None$", None)
    refused("'params': ...}, not a list$", [1])
    refused("'params' is not among nothing", {})
    refused("'params' is not among .*head", swin[0]["params"])
    wider = Swin(image_size=16, patch_size=2, window_size=4, **TINY | {"num_classes": 5})
    refused(r"params/head/bias is of shape \(3,\), in this model of shape \(5,\)", swin[0], wider)
    headless = Swin(image_size=16, patch_size=2, window_size=4, **TINY | {"num_classes": 0})
    refused(r"params/head/\w+ is of shape .*, in this model absent", swin[0], headless)
    without = {"params": {name: tree for name, tree in swin[0]["params"].items() if name != "head"}}
    refused("params/head/bias is absent, in this model of shape", without)


def test_what_cannot_be_exported_is_one_line(swin, tmp_path, monkeypatch):
    def refused(message, model=SWIN, path=tmp_path / "x", **options):
        with pytest.raises(UserError, match=message) as caught:
            swin_jax.export(model, swin[0], path, **options)
        assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []

    refused("is a folder; name a file in it, .*model.stablehlo", path=tmp_path)
    refused("there is no folder", path=tmp_path / "no" / "x")
    refused("weights='int8' is not one of", weights="int8")
    refused("that load.. returned, a Swin or .*, not a VisionTransformer", model=VisionTransformer(embed_dim=8))
    refused("must be some of .*'rocm'", platforms=["abacus"])
    refused("must be some of", platforms=[])
    refused("must be some of", platforms=5)
    for wrong in (None, "", 5):
        refused(f"path={wrong!r} is not the path of a file", path=wrong)
    refused("image_size=.*must be a whole number, at least 1", image_size=(20, 0))
    monkeypatch.setattr(export, "_LARGEST", 3999)
    refused(r"GiB of weights are more than the 2 GiB of such a file; .*weights='bfloat16'")


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--export="], "--export= is empty; give it a file"),
        (["--export=x", "--predict=y"], "--predict and --export are two commands"),
        (["--export=no/where"], "no/where cannot be written: there is no folder no"),
        (["--export=x"], "no checkpoint in"),
    ],
)
def test_bad_flags_are_one_line(launch, tmp_path, flags, message):
    status, out, err = launch("experiments/quickstart.py", tmp_path / "run", *flags)
    assert status == 2 and out == "" and message in err and err.count("\n") == 1


@pytest.mark.parametrize("name, there", [("metrics.jsonl", "metrics.jsonl"), ("config", "config.json")])
def test_files_that_are_no_exports_stay(launch, tmp_path, name, there):
    """Completion of names may give a file of the run, and PATH.json may be its config."""
    (tmp_path / there).write_text('{"step": 1}')
    status, _, err = launch("experiments/quickstart.py", tmp_path / "run", f"--export={tmp_path / name}")
    assert status == 2 and f"{tmp_path / there} is not from an earlier export and would be overwritten" in err
    assert (tmp_path / there).read_text() == '{"step": 1}'


def test_one_of_several_processes_refuses(launch, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    status, _, err = launch("experiments/quickstart.py", tmp_path, f"--export={tmp_path / 'x'}")
    assert status == 2 and "--export runs in one process" in err
