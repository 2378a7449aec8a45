"""The style of files, folders, expressions and docstrings: the tree is walked with ast, and each finding is named."""

import ast
import functools
import pathlib
import re

import pytest

from tests.pages import ROOT

LINES = 400
MODULES = 15
STATEMENTS = 60  # lines of a function behind its docstring
# A summary or an argument that begins so needs the name beside it to be read.
FRAGMENT = re.compile(
    r"(Of|That|Those|Where|As|What|Whether|How|Which|Who|Whom|Whose|In|By|From|Is|Are|May|At|Between)\b", re.IGNORECASE
)
SECTION = re.compile(r" *(Args|Attributes):")
ENTRY = re.compile(r" +[\w*, ]+: +(?P<text>.*)")


@functools.cache
def trees(top: str) -> dict[str, ast.Module]:
    """{path below the root: its syntax tree} of the Python files in a folder."""
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in sorted((ROOT / top).rglob("*.py"))}


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


def docstrings(tree: ast.Module) -> list[str]:
    """The docstrings of a module, its classes and its functions."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, owners)]


def arguments(docstring: str) -> list[str]:
    """The lines that begin an entry under Args or Attributes, which are indented by four blanks."""
    found, is_inside = [], False
    for line in docstring.splitlines():
        if line and not line.startswith(" "):
            is_inside = SECTION.fullmatch(line) is not None
        elif is_inside and line.strip() and not line.startswith(" " * 5):
            found.append(line)
    return found


def fragments(tree: ast.Module) -> list[str]:
    """Summaries and arguments that do not stand alone, and arguments that are indented otherwise."""
    found = [text.partition("\n")[0] for text in docstrings(tree) if FRAGMENT.match(text)]
    for line in (line for text in docstrings(tree) for line in arguments(text)):
        entry = ENTRY.match(line)
        if not line.startswith(" " * 4) or (entry and FRAGMENT.match(entry["text"])):
            found.append(line.strip())
    return found


def long_functions(tree: ast.Module) -> list[str]:
    """The functions that a page does not hold; `get_config` is a list of settings."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name != "get_config":
            first = node.body[0].end_lineno + 1 if ast.get_docstring(node) else node.body[0].lineno
            if node.end_lineno - first >= STATEMENTS:
                found.append(node.name)
    return found


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


@pytest.mark.parametrize("find", [conditionals, named_lambdas, fragments, long_functions])
@pytest.mark.parametrize("top", ["swin_jax", "experiments"])
def test_expressions_and_docstrings_are_read_once(top, find):
    found = {name: find(tree) for name, tree in trees(top).items()}
    assert not {name: lines for name, lines in found.items() if lines}


def test_what_is_looked_for_is_found():
    nested = ast.parse("x = 1 if a else 2 if b else 3")
    assert conditionals(nested) == [1]
    assert conditionals(ast.parse("x = (\n1 if a\nelse 2\n)")) == [2]
    assert conditionals(ast.parse("x = 1 if a else 2\ny = [1 if a else 2 for a in b]")) == []
    assert named_lambdas(ast.parse("f = lambda: 0\nclass A:\n    g: int = lambda: 0")) == [1, 3]
    assert named_lambdas(ast.parse("f(lambda: 0, key=lambda: 1)")) == []
    args = '    """Draws.\n\n    Args:\n        a: {}\n            as here.\n\n    Returns:\n        x: of it.\n    """'
    assert fragments(ast.parse("def f(a):\n" + args.format("of the image."))) == ["a: of the image."]
    assert fragments(ast.parse("def f(a):\n" + args.format("Number of images."))) == []
    assert fragments(ast.parse("def f(a):\n" + args.format("One.").replace("        a", "      a"))) == ["a: One."]
    assert fragments(ast.parse('"""What it does."""\ndef f():\n    """Asks."""')) == ["What it does."]
    long = 'def f():\n    """Adds."""\n' + "    x = 1\n" * STATEMENTS
    assert long_functions(ast.parse(long)) == [] and long_functions(ast.parse(long + "    x = 1\n")) == ["f"]
