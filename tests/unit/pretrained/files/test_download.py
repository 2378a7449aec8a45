"""The cache of downloads: what was recorded beside a file is compared, and a damaged record is one line."""

import json

import pytest

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
    with pytest.raises(UserError, match="does not tell the checksum of .*; delete both to start again") as error:
        download.fetch(URL)
    assert "\n" not in str(error.value)


def test_a_record_of_another_kind_of_checksum_is_a_changed_file(cached):
    cached.with_name(cached.name + ".json").write_text(json.dumps({"sha256": ["a"]}))
    with pytest.raises(UserError, match="is not the file that was downloaded"):
        download.fetch(URL)
