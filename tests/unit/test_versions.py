"""A Python or a JAX that is too old is told in one line where the package is imported."""

import ast
import collections
import importlib.metadata
import re
import sys
import types

import pytest

Version = collections.namedtuple("Version", "major minor micro releaselevel serial")


@pytest.fixture
def source(root):
    """The text of the module that is imported first."""
    return (root / "swin_jax" / "__init__.py").read_text()


def run(source):
    exec(compile(source, "swin_jax/__init__.py", "exec"), {"__name__": "swin_jax"})


def use_python(monkeypatch, *version):
    monkeypatch.setattr(sys, "version_info", Version(*version, "final", 0))
    monkeypatch.setattr(sys, "version", ".".join(map(str, version)) + " (main, Jan 1 2024)")


@pytest.mark.parametrize("minor", [7, 8, 9, 10])
def test_an_old_python_is_told_in_one_line(minor, source, monkeypatch):
    ast.parse(source, feature_version=(3, minor))
    use_python(monkeypatch, 3, minor, 4)
    # Nothing that this Python lacks is imported before.
    monkeypatch.setitem(sys.modules, "importlib.metadata", None)
    with pytest.raises(
        ImportError, match=rf"^swin_jax needs Python 3.11 or later; this is Python 3\.{minor}\.4, "
    ) as error:
        run(source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("version", ["0.4.38", "0.9.2", "0.9.2.dev1", "0.0"])
@pytest.mark.parametrize("imported", [True, False])
def test_an_old_jax_is_told_in_one_line(version, imported, source, monkeypatch):
    if imported:
        monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace(__version__=version))
    else:
        monkeypatch.delitem(sys.modules, "jax")
        monkeypatch.setattr(importlib.metadata, "version", {"jax": version}.get)
    with pytest.raises(
        ImportError, match="^swin_jax needs JAX 0.10 or later; this is JAX 0.*: pip install .*"
    ) as error:
        run(source)
    assert version in str(error.value) and "\n" not in str(error.value)
    assert imported or "jax" not in sys.modules


@pytest.mark.parametrize(
    "jax", [dict(__version__=v) for v in ("0.10.0", "0.10.0.dev1", "0.11", "1.0.0", "local")] + [{}]
)
def test_other_versions_are_taken(jax, source, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace(**jax))
    for minor in (11, 12, 20):
        use_python(monkeypatch, 3, minor, 0)
        run(source)


def test_without_jax_the_import_of_jax_says_so(source, monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.setattr(importlib.metadata, "version", version)
    run(source)


# `python -m swin_jax.launch` has -m at that time; the other is the script that pip installs.
@pytest.mark.parametrize("command", ["-m", "/usr/local/bin/swin_jax"])
@pytest.mark.parametrize("old", ["python", "jax"])
def test_a_command_ends_with_the_line_and_no_traceback(old, command, source, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [command, "--config=x.py"])
    if old == "python":
        use_python(monkeypatch, 3, 9, 1)
    else:
        monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace(__version__="0.4.1"))
    with pytest.raises(SystemExit) as end:
        run(source)
    err = capsys.readouterr().err
    assert end.value.code == 2 and err.startswith("error: swin_jax needs ") and err.count("\n") == 1


def test_setup_py_demands_the_same_versions(source, root):
    setup = (root / "setup.py").read_text()
    python, jax = re.search(r'python_requires=">=([\d.]+)"', setup)[1], re.search(r'"jax>=([\d.]+)"', setup)[1]
    for name, version in (("Python", python), ("JAX", jax)):
        assert f'_refuse("{name} {version} or later"' in source
        assert f"< ({version.replace('.', ', ')})" in source
