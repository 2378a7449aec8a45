"""The table of official files, and the cache."""

import json

import pytest

from swin_jax.core.errors import UserError
from swin_jax.models import swin
from swin_jax.pretrained.files import download
from swin_jax.pretrained.swin import urls


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIN_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SWIN_JAX_OFFLINE", raising=False)
    return tmp_path / "cache"


def test_every_preset_has_weights_and_every_file_a_preset():
    unreleased = {"swinv2_huge", "swinv2_giant_1b", "swinv2_giant"}
    classifiers = {name for name in urls.WEIGHTS if not name.startswith("simmim_")}
    assert classifiers == swin.PRESETS.keys() - unreleased


def test_urls_are_the_published_ones():
    base = "https://github.com/SwinTransformer/storage/releases/download/"
    files = {name: w.url.removeprefix(base) for name, w in urls.WEIGHTS.items() if w.url.startswith(base)}
    for name, file in {
        "swin_tiny_patch4_window7_224": "v1.0.0/swin_tiny_patch4_window7_224.pth",
        "swin_tiny_patch4_window7_224_22k": "v1.0.8/swin_tiny_patch4_window7_224_22k.pth",
        "swin_small_patch4_window7_224_22kto1k": "v1.0.8/swin_small_patch4_window7_224_22kto1k_finetune.pth",
        "swin_base_patch4_window12_384": "v1.0.0/swin_base_patch4_window12_384.pth",
        "swin_large_patch4_window12_384_22kto1k": "v1.0.0/swin_large_patch4_window12_384_22kto1k.pth",
        "swin_tiny_c24_patch4_window8_256": "v1.0.5/swin_tiny_c24_patch4_window8_256.pth",
        "swin_mlp_tiny_c6_patch4_window8_256": "v1.0.5/swin_mlp_tiny_c6_patch4_window8_256.pth",
        "swin_mlp_base_patch4_window7_224": "v1.0.5/swin_mlp_base_patch4_window7_224.pth",
        "swinv2_small_patch4_window16_256": "v2.0.0/swinv2_small_patch4_window16_256.pth",
        "swinv2_large_patch4_window12_192_22k": "v2.0.0/swinv2_large_patch4_window12_192_22k.pth",
        "swinv2_base_patch4_window12to24_192to384_22kto1k_ft": (
            "v2.0.0/swinv2_base_patch4_window12to24_192to384_22kto1k_ft.pth"
        ),
    }.items():
        assert files[name] == file
    assert len(set(files.values())) == len(files) == 17 + 12 + 4


def test_simmims_files_are_the_published_ones():
    base = "https://huggingface.co/zdaxie/SimMIM/resolve/main/simmim_swinv2_"
    files = {name: w.url.removeprefix(base) for name, w in urls.WEIGHTS.items() if w.url.startswith(base)}
    assert files["simmim_pretrain_swinv2_base_1kper10_125k"] == "pretrain_models/swinv2_base_1kper10_125k.pth"
    assert files["simmim_finetune_swinv2_giant_22k_500k"] == "finetune_models/finetune_swinv2_giant_22k_500k.pth"
    # Table of arXiv 2206.04664: small without 22K, huge without a tenth, giant without a tenth and a fifth.
    assert len(set(files.values())) == len(files) == 2 * 3 * (4 + 5 + 5 + 4 + 3)
    for absent in ("small_22k", "huge_1kper10", "giant_1kper20"):
        assert not any(absent in name for name in files)
    by_hand = [name for name, weights in urls.WEIGHTS.items() if weights.page]
    assert len(by_hand) == 7 and all("__swin_" in name for name in by_hand)


def test_a_file_that_no_program_can_fetch_is_explained(cache):
    name = "simmim_pretrain__swin_base__img192_window6__800ep"
    for offline in (False, True):
        with pytest.raises(UserError) as error:
            urls.fetch(name, offline)
        for part in ("Google Drive only", "https://github.com/microsoft/SimMIM", str(cache / f"{name}.pth")):
            assert part in str(error.value)
    cache.mkdir()
    (cache / f"{name}.pth").write_bytes(b"put there by hand")
    assert urls.fetch(name) == urls.fetch(f"{name}.pth") == cache / f"{name}.pth"


@pytest.mark.parametrize("name", urls.WEIGHTS)
def test_every_spelling_of_a_name_leads_to_it(name):
    weights = urls.WEIGHTS[name]
    spellings = {name, weights.file, weights.file.removesuffix(".pth")} | (
        {weights.hub, weights.hub[5:]} if weights.hub else set()
    )
    assert {urls.canonical_name(spelling) for spelling in spellings} == {name}
    assert urls.canonical_name(name + "x") is None and urls.canonical_name("") is None


def test_hub_names_lead_to_the_hub(cache):
    url, path = urls.locate("timm/swin_tiny_patch4_window7_224.ms_in1k")
    assert url == "https://huggingface.co/timm/swin_tiny_patch4_window7_224.ms_in1k/resolve/main/model.safetensors"
    assert path == cache / "swin_tiny_patch4_window7_224.ms_in1k.safetensors"
    url, _ = urls.locate("swinv2_large_window12to16_192to256.ms_in22k_ft_in1k")
    assert url.startswith("https://huggingface.co/timm/swinv2_large_window12to16_192to256.ms_in22k_ft_in1k/resolve/")


def test_a_download_is_whole_recorded_and_reused(cache, tmp_path):
    source = tmp_path / "weights.pth"
    source.write_bytes(bytes(range(256)) * 9000)
    url = source.as_uri()
    path = urls.fetch(url)
    assert path.parent == cache and path.read_bytes() == source.read_bytes()
    record = json.loads(path.with_name(path.name + ".json").read_text())
    assert record["url"] == url and record["sha256"] == download.sha256(source) and "MIT" in record["license"]
    assert sorted(p.name for p in cache.iterdir()) == sorted([path.name, path.name + ".json"])
    source.unlink()
    assert urls.fetch(url) == path == urls.fetch(url, offline=True)


def test_a_file_that_changed_is_refused(cache, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"right")
    path = urls.fetch((tmp_path / "weights.pth").as_uri())
    path.write_bytes(b"wrong")
    with pytest.raises(UserError, match="is not the file that was downloaded"):
        urls.fetch((tmp_path / "weights.pth").as_uri())


def test_offline_says_where_to_put_the_file(cache, monkeypatch):
    monkeypatch.setenv("SWIN_JAX_OFFLINE", "1")
    name = "swin_tiny_patch4_window7_224"
    with pytest.raises(UserError) as error:
        urls.fetch(name)
    assert urls.WEIGHTS[name].url in str(error.value) and str(cache / f"{name}.pth") in str(error.value)
    cache.mkdir()
    (cache / f"{name}.pth").write_bytes(b"put there by hand")
    assert urls.fetch(name) == cache / f"{name}.pth"


def test_a_failed_download_leaves_nothing_behind(cache, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="could not be downloaded"):
        urls.fetch((tmp_path / "absent.pth").as_uri())
    assert list(cache.iterdir()) == []

    class Response:
        headers = {"Content-Length": "10"}
        blocks = [b"12345", b""]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, _):
            return self.blocks.pop(0)

    monkeypatch.setattr(download.urllib.request, "urlopen", lambda *_, **__: Response())
    with pytest.raises(UserError, match="only 5 of 10 bytes"):
        urls.fetch("swin_tiny_patch4_window7_224")
    assert list(cache.iterdir()) == []


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="nearest name is 'swin_tiny_patch4_window7_224'"):
        urls.fetch("swin_tiny_patch4_windw7_224")
