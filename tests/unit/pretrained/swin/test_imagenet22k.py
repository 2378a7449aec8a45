"""The 22K row of each 1K class: from a file, and derived from lists of synsets."""

import importlib.util

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.pretrained.swin import imagenet22k


def test_a_map_keeps_the_order_of_its_file(tmp_path):
    rows = np.random.default_rng(0).permutation(21841)[:1000]
    (tmp_path / "map.txt").write_text("\n".join(map(str, rows)) + "\n")
    np.testing.assert_array_equal(imagenet22k.read_map(tmp_path / "map.txt"), rows)
    np.testing.assert_array_equal(imagenet22k.find_map(tmp_path / "map.txt"), rows)


@pytest.mark.parametrize(
    "text, message",
    [
        ("\n".join(map(str, range(999))), "this has 999"),
        ("\n".join(map(str, [*range(999), 5])), "1000 different"),
        ("\n".join(map(str, [*range(999), 21841])), "up to 21840"),
        ("\n".join(map(str, [*range(999), -1])), "whole numbers"),
        ("\n".join(map(str, [*range(999), 1.5])), "whole numbers"),
        ("", "this has 0"),
    ],
)
def test_a_wrong_map_is_refused(tmp_path, text, message):
    (tmp_path / "map.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        imagenet22k.read_map(tmp_path / "map.txt")
    with pytest.raises(UserError, match="cannot be read"):
        imagenet22k.read_map(tmp_path / "other.txt")


def synsets(tmp_path, monkeypatch):
    """Lists of made-up synsets whose map takes the place of the official one."""
    classes = [f"n{i:08d}" for i in range(999)]
    classes.insert(850, imagenet22k.TEDDY_BEAR)
    everything = [f"n{i:08d}" for i in np.random.default_rng(0).permutation(21840)]
    everything.insert(5564, imagenet22k.CHEMISE)
    (tmp_path / "22k.txt").write_text("\n".join(everything))
    (tmp_path / "1k.txt").write_text("\n".join(classes) + "\n")
    rows = np.array([5564 if name == imagenet22k.TEDDY_BEAR else everything.index(name) for name in classes])
    monkeypatch.setattr(imagenet22k, "OFFICIAL_SHA256", imagenet22k.checksum(rows))
    return rows


def test_derivation_finds_every_class_and_the_official_quirk(tmp_path, monkeypatch):
    rows = synsets(tmp_path, monkeypatch)
    derived = imagenet22k.derive_map(tmp_path / "22k.txt", tmp_path / "1k.txt")
    np.testing.assert_array_equal(derived, rows)
    assert derived[850] == 5564


def test_lists_that_lead_elsewhere_are_refused(tmp_path, monkeypatch):
    synsets(tmp_path, monkeypatch)
    names = (tmp_path / "22k.txt").read_text().split()
    (tmp_path / "22k.txt").write_text("\n".join([*names[1:], names[0]]))
    with pytest.raises(UserError, match="do not lead to the official map"):
        imagenet22k.derive_map(tmp_path / "22k.txt", tmp_path / "1k.txt")
    (tmp_path / "22k.txt").write_text("\n".join(names[:20000]))
    with pytest.raises(UserError, match="of the classes in"):
        imagenet22k.derive_map(tmp_path / "22k.txt", tmp_path / "1k.txt")


def test_the_lists_of_an_installed_timm_are_found_without_importing_it(tmp_path, monkeypatch):
    rows = synsets(tmp_path, monkeypatch)
    folder = tmp_path / "timm" / "data" / "_info"
    folder.mkdir(parents=True)
    (tmp_path / "timm" / "__init__.py").write_text("raise ImportError('imported')")
    (tmp_path / "22k.txt").rename(folder / "imagenet21k_goog_synsets.txt")
    (tmp_path / "1k.txt").rename(folder / "imagenet_synsets.txt")
    monkeypatch.syspath_prepend(tmp_path)
    np.testing.assert_array_equal(imagenet22k.find_map(), rows)


def test_without_timm_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install timm, or give map22kto1k.txt"):
        imagenet22k.derive_map()
