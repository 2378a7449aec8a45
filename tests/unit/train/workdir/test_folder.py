"""The folder of a run: its name, and what is refused."""

import pytest

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.train.workdir import make_workdir

# ---- names ----


@pytest.mark.parametrize("name", ["a*b", "a?", "a[1]", "a#1", "a\\b"])
def test_a_name_that_a_bucket_s_libraries_take_for_a_pattern_is_refused(monkeypatch, name):
    monkeypatch.setattr(storage, "_check_installed", lambda: None)
    with pytest.raises(UserError, match="cannot be used: . in the name of a bucket") as caught:
        make_workdir(storage.path(f"gs://bucket/{name}/run"))
    assert "\n" not in str(caught.value)


def test_a_backslash_is_refused_and_all_else_is_a_folder(tmp_path):
    with pytest.raises(UserError, match="in the name of a workdir"):
        make_workdir(tmp_path / "a\\b")
    for name in ("a[b]", "a*", "a?", "{a}", "a b", "a%", "a#", "ü", "-a", "~a"):
        make_workdir(tmp_path / name)
        assert (tmp_path / name).is_dir()
