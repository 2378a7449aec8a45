"""The cache of downloads: what was recorded beside a file is compared, and a damaged record is one line."""

import json

import pytest

import swin_jax
from swin_jax.core.errors import UserError
from swin_jax.pretrained.files import download

URL = "https://example.org/w.pth"


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIN_JAX_CACHE", str(tmp_path))
    path = download.cached_path(URL)
    path.write_bytes(b"weights")
    return path


def test_a_file_that_changed_is_refused(cached):
    assert download.fetch(URL) == cached == download.fetch(URL)
    cached.write_bytes(b"others")
    with pytest.raises(UserError, match="is not the file that was downloaded"):
        download.fetch(URL)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"3", b"{}", b"\xff", b"[" * 100_000, None])
def test_a_damaged_record_is_one_line(cached, text):
    record = cached.with_name(cached.name + ".json")
    record.mkdir() if text is None else record.write_bytes(text)
    with pytest.raises(UserError, match="does not hold the checksum of .*; delete both to start again") as error:
        download.fetch(URL)
    assert "\n" not in str(error.value)


def test_a_record_of_another_kind_of_checksum_is_a_changed_file(cached):
    cached.with_name(cached.name + ".json").write_text(json.dumps({"sha256": ["a"]}))
    with pytest.raises(UserError, match="is not the file that was downloaded"):
        download.fetch(URL)


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "http://127.0.0.1:1/my model.npz",
        "http://127.0.0.1:1/a\nb.npz",
        f"http://127.0.0.1:1/{'n' * 300}.npz",
    ],
)
def test_an_address_that_is_none_is_one_line(url, tmp_path, monkeypatch):
    monkeypatch.setenv("SWIN_JAX_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="could not be downloaded") as caught:
        download.fetch(url)
    assert "<urlopen" not in str(caught.value) and caught.value.__suppress_context__
    assert len(download.cached_path(url).name) < 200 and "\n" not in str(caught.value).replace(url, "")


@pytest.mark.parametrize("answer", [b"<!DOCTYPE html><html>Sign in", b"PK\x03\x04 cut"])
def test_what_came_instead_of_weights_is_to_be_deleted(answer, tmp_path, monkeypatch):
    """It stays in the cache, where the same error would come for ever."""
    (tmp_path / "w.npz").write_bytes(answer)
    monkeypatch.setenv("SWIN_JAX_CACHE", str(tmp_path / "cache"))
    url = f"file://{tmp_path / 'w.npz'}"
    path = download.cached_path(url)
    with pytest.raises(UserError, match=f"it came from {url}: to download it again, delete .*{path.name} and .*json"):
        swin_jax.load(weights=url)
    path.unlink(), path.with_name(f"{path.name}.json").unlink()
    with pytest.raises(UserError, match="it came from"):
        swin_jax.load(weights=url)
