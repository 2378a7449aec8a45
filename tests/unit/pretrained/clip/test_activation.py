"""The activation of a CLIP is known by a config, by code, or by exactly these weights; else it is assumed aloud."""

import json
import pathlib
import shutil
import warnings
import zipfile

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models.clip import make_clip
from swin_jax.pretrained.clip import convert
from swin_jax.pretrained.clip import urls as clip_urls
from swin_jax.pretrained.clip.activation import GELU, QUICK_GELU, activation
from swin_jax.pretrained.files import download
from swin_jax.pretrained.load import load

GOLDEN = pathlib.Path(__file__).parents[3] / "golden"
VIT = dict(embed_dim=6, image_size=16, context_length=5, vocab_size=20, text_width=64, text_layers=1, patch_size=8)
SHAPES = convert.official_shapes(make_clip(**VIT, vision_layers=1, vision_width=64))
WEIGHTS = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
# (model, tag, activation, address, repository) of every entry of open_clip whose towers are OpenAI's.
TAGS = [
    line.split()
    for line in (GOLDEN / "beside" / "open_clip_tags.txt").read_text().splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize("model, tag, act, url, repository", TAGS, ids=lambda value: "")
def test_published_weights_have_their_own_activation_or_a_warning(model, tag, act, url, repository, tmp_path):
    """No word that stands in the name of published weights says more than it knows."""
    address = f"https://huggingface.co/{repository}/resolve/main/open_clip_model.safetensors"
    certain = [word for word in (url, address, repository, f"hf-hub:{repository}") if "-" != word and "/-/" not in word]
    for word in certain:
        found = activation(WEIGHTS, [word])
        if found.known:
            assert found.act == act, word
        else:  # of two families that cannot be loaded
            assert "coca" in word.lower() or "CLIPA" in word, word
    hinting = [tag, f"{model}/{tag}", f"{model}_{tag}.pt", url.split("/")[-1].replace("-quickgelu", "") + ".new"]
    for word in hinting:
        assert not activation(WEIGHTS, [word]).known, word
    for path in (tmp_path / tag / "open_clip_model.safetensors", tmp_path / repository / "model.pt", tmp_path / tag):
        assert not activation(WEIGHTS, [], path).known, path


def test_the_tables_are_those_of_open_clip():
    known = {repository for *_, repository in TAGS} | {url.split("v0.2-weights/")[-1] for *_, url, _ in TAGS}
    known |= {url.split("MMPT/")[-1] for *_, url, _ in TAGS}
    assert not QUICK_GELU & GELU and QUICK_GELU | GELU <= known


def test_a_local_file_with_the_name_of_published_weights_is_these_only_by_its_checksum(tmp_path, monkeypatch):
    release = "vit_b_32-quickgelu-laion400m_e31-d867053b.pt"
    for name, digest, act in (
        (release, "d867053b" + "0" * 56, "quick_gelu"),
        ("vit_b_16-laion400m_e31-00efa78f.pt", "00efa78f" + "0" * 56, "gelu"),
        ("ViT-B-32.pt", clip_urls.URLS["ViT-B/32"].split("/")[-2], "quick_gelu"),
    ):
        path = tmp_path / name
        np.savez(tmp_path / "any.npz", **WEIGHTS)
        shutil.copy(tmp_path / "any.npz", path)
        assert not activation(WEIGHTS, [], path).known
        with pytest.warns(UserWarning, match="is assumed"):
            load(weights=path)
        with monkeypatch.context() as patch:
            patch.setattr(download, "sha256", lambda _, digest=digest: digest)
            found = activation(WEIGHTS, [], path)
        assert (found.act, found.known) == (act, True) and "checksum" in found.source


def test_a_published_address_is_that_of_its_branch(tmp_path):
    address = "https://huggingface.co/apple/DFN5B-CLIP-ViT-H-14/resolve/{}/open_clip_pytorch_model.bin"
    assert activation(WEIGHTS, [address.format("main")]).known
    assert not activation(WEIGHTS, [address.format("refs%2Fpr%2F1")]).known
    assert not activation(WEIGHTS, ["https://example.org/apple/DFN5B-CLIP-ViT-H-14/resolve/main/a.bin"]).known


def archive(path, *code):
    """A copy of the tiny archive with other code."""
    with zipfile.ZipFile(GOLDEN / "clip" / "tiny_archive.pt") as source, zipfile.ZipFile(path, "w") as file:
        for entry in source.infolist():
            if "/code/" not in entry.filename:
                file.writestr(entry, source.read(entry))
        for number, text in enumerate(code):
            file.writestr(f"tiny_archive/code/__torch__/part{number}.py", text)
    return path


# As torch 2.13 writes them, scripted and traced.
QUICK = "class QuickGELU(Module):\n    _0 = torch.mul(x, torch.sigmoid(torch.mul(x, 1.702)))"
QUICK_TRACED = "  gelu : __torch__.open_clip.transformer.___torch_mangle_1.QuickGELU"
EXACT = "class GELU(Module):\n    return torch.gelu(argument_1)"
TANH = 'class GELU(Module):\n    _0 = torch.gelu(input, approximate="tanh")'


@pytest.mark.parametrize(
    "code, act",
    [
        ((QUICK,), "quick_gelu"),
        (("", QUICK_TRACED), "quick_gelu"),
        ((EXACT,), "gelu"),
        ((EXACT, QUICK), None),
        ((TANH,), None),
        (("QuickGELUs = 11.7021",), "quick_gelu"),  # says nothing, but has the numbers of OpenAI's archives
    ],
)
def test_the_code_of_an_archive_tells_its_activation(code, act, tmp_path):
    path = archive(tmp_path / "a.pt", *code)
    heads = dict(vision_heads=4, text_heads=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, _ = load(weights=path, **heads)
    assert bool(caught) == (act is None) and (act is None or model.text.act == act)


def test_an_archive_without_openais_numbers_is_not_openais(tmp_path):
    path = archive(tmp_path / "a.pt", "")
    with np.load(GOLDEN / "clip" / "tiny_archive.npz") as file:
        weights = dict(file)
    assert activation(weights, [], path).known
    for name in ("input_resolution", "context_length", "vocab_size"):
        assert not activation(weights | {name: np.int64(7)}, [], path).known
        assert not activation({key: value for key, value in weights.items() if key != name}, [], path).known
    assert not activation(weights, []).known  # the numbers alone, in a file that anyone could write


def test_evidence_for_both_is_refused_until_the_user_says_which(tmp_path):
    path = archive(tmp_path / "a.pt", QUICK)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": False}}))
    heads = dict(vision_heads=4, text_heads=2)
    with pytest.raises(UserError, match="contradictory .*gelu: open_clip_config.json.*quick_gelu: the code.*give act="):
        load(weights=path, **heads)
    assert load(weights=path, act="gelu", **heads)[0].text.act == "gelu"


def test_configs_of_either_library_tell_the_activation(tmp_path):
    path = tmp_path / "laion.npz"
    for config, act in (
        (
            {"model_type": "clip", "text_config": {"hidden_act": "gelu"}, "vision_config": {"hidden_act": "gelu"}},
            "gelu",
        ),
        ({"model_type": "clip"}, "quick_gelu"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        found = activation(WEIGHTS, (), path)
        assert (found.act, found.known) == (act, True) and "config.json" in found.source
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": {"hidden_act": "gelu"}}))
    with pytest.raises(UserError, match="gelu, quick_gelu"):
        activation(WEIGHTS, (), path)
    for quick in (True, False):
        config = {"model_cfg": {"quick_gelu": True} if quick else {}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
        assert activation(WEIGHTS, (), path).act == ("quick_gelu" if quick else "gelu")
