"""Names out of files cannot speak to the terminal, nor fill it."""

import ast
import pathlib
import pickle
import warnings

import pytest

import swin_jax
from swin_jax.core.errors import UnreadableError, UserError, warn
from swin_jax.core.output.text import LENGTH, counted, quoted, say, shown

PACKAGE = pathlib.Path(swin_jax.__file__).parent


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a\x1b[31mred", r"a\x1b[31mred"),
        ("two\r\nlines\tand\x0bmore", r"two\r\nlines\tand\x0bmore"),
        ("cat\n  error: dog", r"cat\n  error: dog"),
        ("\x9b31m \x7f \0", r"\x9b31m \x7f \x00"),
        ("one\u2028two\u2029", r"one\u2028two\u2029"),
        ("exe.\u202egpj", r"exe.\u202egpj"),
        ("caf\udce9.jpg", r"caf\udce9.jpg"),
    ],
)
def test_what_a_terminal_obeys_is_escaped(text, expected):
    assert shown(text) == expected and shown(expected) == expected


@pytest.mark.parametrize(
    "name", ["Bär, Ü, ß", "猫　狗", "고양이", "ﻕﻁﺓ קוף", "क्षि", "👩\u200d🚒 🏴", r"C:\new\x1b", "'", "e\u0301"]
)
def test_letters_of_all_languages_stay(name):
    assert shown(name) == quoted(name) == name


def test_what_is_long_loses_its_middle():
    text = shown("error: " + "x" * 500_000 + "; rename it")
    assert len(text) == LENGTH and text.startswith("error: xxx") and text.endswith("xxx; rename it")
    assert shown(text) == text and " ... " in text
    assert shown("x" * LENGTH) == "x" * LENGTH
    assert len(quoted("\n" * 1_000_000)) == 200


def test_messages_are_on_one_line_wherever_they_are_shown(capsys):
    name, line = "a\nb\x1b[31m" + "c" * 10**6, "a\\nb\\x1b[31mccc"
    for kind in (UserError, UnreadableError):
        error = kind(f"{name} is wrong")
        assert str(error).startswith(line) and len(str(error)) == LENGTH and str(error).endswith("is wrong")
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warn(f"{name} is odd")
    assert str(told[0].message).startswith(line) and len(str(told[0].message)) == LENGTH
    say(name)
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(line) and err.count("\n") == 1 and len(err) == 2 * LENGTH + 1


def test_a_list_has_a_line_for_each_item(capsys):
    error = UserError("2 names\n  are odd", ["a\n  b", "c" * 500])
    lines = str(error).split("\n")
    assert lines == [r"2 names\n  are odd", r"  a\n  b", lines[2]] and len(lines[2]) == 202
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    say(f"error: {error.message}", error.items)
    assert capsys.readouterr().err == f"error: {error}\n"
    assert str(error.about("x\ny")) == rf"x\ny: {error}" and str(error.about("x\ny").about("x\ny")).count("x") == 1
    many = str(UserError("many", range(1000))).split("\n")
    assert many[1:3] + many[-1:] == ["  0", "  1", "  999"] and "  ... and 960 more" in many and len(many) == 42


def test_messages_go_through_one_door():
    """Whatever is printed to standard error is `shown`, unless it is a text of ours."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.stderr.write"):
                to = [ast.unparse(item.value) for item in node.keywords if item.arg == "file"]
                ours = all(isinstance(argument, ast.Constant) for argument in node.args)
                if (to == ["sys.stderr"] or "stderr" in ast.unparse(node.func)) and not ours:
                    found.append(f"{path.relative_to(PACKAGE)}: {ast.unparse(node)}")
    # The other is for a Python that cannot import the rest.
    assert {line.partition(":")[0] for line in found} == {"core/output/text.py", "__init__.py"} and len(found) == 2


def test_one_of_a_kind_is_singular():
    assert [counted(number, "image") for number in (0, 1, 1000)] == ["0 images", "1 image", "1,000 images"]
