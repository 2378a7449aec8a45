"""The table of official files, and the cache."""

import json

import pytest

from swin_jax.convert import official
from swin_jax.errors import UserError
from swin_jax.models import swin


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIN_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SWIN_JAX_OFFLINE", raising=False)
    return tmp_path / "cache"


def test_every_preset_has_weights_and_every_file_a_preset():
    assert official.WEIGHTS.keys() == swin.PRESETS.keys()


def test_urls_are_the_published_ones():
    base = "https://github.com/SwinTransformer/storage/releases/download/"
    urls = {name: weights.url.removeprefix(base) for name, weights in official.WEIGHTS.items()}
    for name, file in {
        "swin_tiny_patch4_window7_224": "v1.0.0/swin_tiny_patch4_window7_224.pth",
        "swin_tiny_patch4_window7_224_22k": "v1.0.8/swin_tiny_patch4_window7_224_22k.pth",
        "swin_small_patch4_window7_224_22kto1k": "v1.0.8/swin_small_patch4_window7_224_22kto1k_finetune.pth",
        "swin_base_patch4_window12_384": "v1.0.0/swin_base_patch4_window12_384.pth",
        "swin_large_patch4_window12_384_22kto1k": "v1.0.0/swin_large_patch4_window12_384_22kto1k.pth",
        "swin_tiny_c24_patch4_window8_256": "v1.0.5/swin_tiny_c24_patch4_window8_256.pth",
    }.items():
        assert urls[name] == file
    assert len(set(urls.values())) == len(urls) == 17


@pytest.mark.parametrize("name", official.WEIGHTS)
def test_every_spelling_of_a_name_leads_to_it(name):
    weights = official.WEIGHTS[name]
    file = weights.url.rsplit("/", 1)[1]
    spellings = {name, file, file.removesuffix(".pth")} | ({weights.hub, weights.hub[5:]} if weights.hub else set())
    assert {official.canonical_name(spelling) for spelling in spellings} == {name}
    assert official.canonical_name(name + "x") is None and official.canonical_name("") is None


def test_hub_names_lead_to_the_hub(cache):
    url, path = official.locate("timm/swin_tiny_patch4_window7_224.ms_in1k")
    assert url == "https://huggingface.co/timm/swin_tiny_patch4_window7_224.ms_in1k/resolve/main/model.safetensors"
    assert path == cache / "swin_tiny_patch4_window7_224.ms_in1k.safetensors"


def test_a_download_is_whole_recorded_and_reused(cache, tmp_path):
    source = tmp_path / "weights.pth"
    source.write_bytes(bytes(range(256)) * 9000)
    url = source.as_uri()
    path = official.fetch(url)
    assert path.parent == cache and path.read_bytes() == source.read_bytes()
    record = json.loads(path.with_name(path.name + ".json").read_text())
    assert record["url"] == url and record["sha256"] == official.sha256(source) and "MIT" in record["licence"]
    assert sorted(p.name for p in cache.iterdir()) == sorted([path.name, path.name + ".json"])
    source.unlink()
    assert official.fetch(url) == path == official.fetch(url, offline=True)


def test_a_file_that_changed_is_refused(cache, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"right")
    path = official.fetch((tmp_path / "weights.pth").as_uri())
    path.write_bytes(b"wrong")
    with pytest.raises(UserError, match="is not the file that was downloaded"):
        official.fetch((tmp_path / "weights.pth").as_uri())


def test_offline_says_where_to_put_the_file(cache, monkeypatch):
    monkeypatch.setenv("SWIN_JAX_OFFLINE", "1")
    name = "swin_tiny_patch4_window7_224"
    with pytest.raises(UserError) as error:
        official.fetch(name)
    assert official.WEIGHTS[name].url in str(error.value) and str(cache / f"{name}.pth") in str(error.value)
    cache.mkdir()
    (cache / f"{name}.pth").write_bytes(b"put there by hand")
    assert official.fetch(name) == cache / f"{name}.pth"


def test_a_failed_download_leaves_nothing_behind(cache, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="could not be downloaded"):
        official.fetch((tmp_path / "absent.pth").as_uri())
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

    monkeypatch.setattr(official.urllib.request, "urlopen", lambda *_, **__: Response())
    with pytest.raises(UserError, match="only 5 of 10 bytes"):
        official.fetch("swin_tiny_patch4_window7_224")
    assert list(cache.iterdir()) == []


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="nearest name is 'swin_tiny_patch4_window7_224'"):
        official.fetch("swin_tiny_patch4_windw7_224")
