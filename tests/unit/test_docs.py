"""The changelog leads from what moved, and from what saved runs name, to what exists; all modules are documented."""

import re

from swin_jax.core.public_names import RENAMED, find


def rows(root) -> list[list[str]]:
    lines = (root / "docs" / "changelog.md").read_text().splitlines()
    return [line.strip("|").split(" | ") for line in lines if line.startswith("| `swin_jax.")]


def test_every_new_name_exists(root):
    names = [name for _, new in rows(root) for name in re.findall(r"`(swin_jax\.[\w.]+)`", new)]
    assert len(names) > 120
    assert not [name for name in names if find(name) is None]


def test_every_old_name_of_saved_runs_is_there(root):
    old = {name for before, _ in rows(root) for name in re.findall(r"swin_jax\.[\w.]+", before)}
    assert RENAMED.keys() <= old


def test_every_module_stands_in_the_architecture(root):
    text = (root / "docs" / "architecture.md").read_text()
    modules = {path.stem for path in (root / "swin_jax").rglob("*.py")} - {"__init__"}
    assert len(modules) > 90
    assert not [name for name in sorted(modules) if not re.search(rf"\b{name}\b", text)]
