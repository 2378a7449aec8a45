"""What the house says of files, folders and expressions: the tree is walked with ast, and each finding is named."""

import ast
import functools
import pathlib

import pytest

from tests.pages import ROOT

LINES = 400
MODULES = 15


@functools.cache
def trees(*tops: str) -> dict[str, ast.Module]:
    """{path below the root: its syntax tree} of the Python files in folders."""
    paths = [path for top in tops for path in sorted((ROOT / top).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


def conditionals(tree: ast.Module) -> list[int]:
    """Lines of the conditional expressions that hold another one or span several lines."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.IfExp):
            inner = [part for part in ast.walk(node) if isinstance(part, ast.IfExp)]
            if len(inner) > 1 or node.end_lineno > node.lineno:
                found.append(node.lineno)
    return found


def named_lambdas(tree: ast.Module) -> list[int]:
    """Lines on which a name is given to a lambda."""
    named = (ast.Assign, ast.AnnAssign, ast.NamedExpr)
    return [node.lineno for node in ast.walk(tree) if isinstance(node, named) and isinstance(node.value, ast.Lambda)]


@pytest.mark.parametrize("top", ["swin_jax", "experiments", "tests"])
def test_files_end_within_400_lines(top):
    counts = {path: len(path.read_text().splitlines()) for path in (ROOT / top).rglob("*.py")}
    assert counts
    assert not {str(path.relative_to(ROOT)): count for path, count in counts.items() if count > LINES}


@pytest.mark.parametrize("top", ["swin_jax", "experiments"])
def test_folders_hold_at_most_15_modules(top):
    names = [pathlib.PurePath(name) for name in trees(top)]
    modules = [name.parent for name in names if name.stem != "__init__"]
    assert not {str(folder): modules.count(folder) for folder in set(modules) if modules.count(folder) > MODULES}


@pytest.mark.parametrize("find", [conditionals, named_lambdas])
def test_no_expression_asks_for_a_second_reading(find):
    found = [f"{name}:{line}" for name, tree in trees("swin_jax", "experiments").items() for line in find(tree)]
    assert not found


def test_what_is_looked_for_is_found():
    nested = ast.parse("x = 1 if a else 2 if b else 3")
    assert conditionals(nested) == [1]
    assert conditionals(ast.parse("x = (\n1 if a\nelse 2\n)")) == [2]
    assert conditionals(ast.parse("x = 1 if a else 2\ny = [1 if a else 2 for a in b]")) == []
    assert named_lambdas(ast.parse("f = lambda: 0\nclass A:\n    g: int = lambda: 0")) == [1, 3]
    assert named_lambdas(ast.parse("f(lambda: 0, key=lambda: 1)")) == []
