"""Experiments stay short and alike: recipes in the same order, plumbing called from experiments/common/, documented."""

import ast
import io
import json
import pathlib
import re
import tokenize

import pytest

from tests.experiments import FILES, FOLDER, WITH_PODS

COMMON = sorted((FOLDER / "common").glob("*.py"))
SECTIONS = ["Sizes", "Model", "Optimizer", "Task", "Data", "Evals", "Run"]
PLUMBING = {"image_text", "imagenet", "run", "small", "video"}  # of the 24 experiments below
LINES = 1700  # of code, of these experiments and their plumbing together
BODY = 60  # lines of code in a function
SILENT = {
    tokenize.COMMENT,
    tokenize.NEWLINE,
    tokenize.NL,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
# Characters of the modules' docstrings, blanks not counted, before the plumbing moved out of the files, less what
# shorter words for the same have saved since.
DOCSTRINGS = {
    "clip_emoji": 935,
    "clip_openai": 2048,
    "clip_swin": 667,
    "lit": 633,
    "quickstart": 353,
    "siglip": 751,
    "simmim_fashion_mnist": 558,
    "simmim_fashion_mnist_finetune": 539,
    "simmim_finetune": 1566,
    "simmim_in1k": 1842,
    "swin_fashion_mnist": 375,
    "swin_in1k": 990,
    "swin_in1k_finetune": 1006,
    "swin_in22k": 566,
    "swinv2_finetune": 1040,
    "swinv2_giant": 1976,
    "swinv2_in1k": 1264,
    "swinv2_in22k": 610,
    "swinv2_window_transfer": 1850,
    "video_swin_ablation": 1144,
    "video_swin_emoji": 1117,
    "video_swin_k400": 1595,
    "video_swin_k600": 795,
    "video_swin_ssv2": 812,
}


def code_lines(text: str) -> set[int]:
    """The numbers of the lines that hold code: no comment, no blank, no part of a docstring."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SILENT:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def functions(text: str) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]


def test_the_counter_counts_code_only():
    text = '"""Title.\n\nMore.\n"""\n\nX = (  # note\n    1,\n)\n\ndef f():\n    """Doc."""\n    # why\n    return X\n'
    assert code_lines(text) == {6, 7, 8, 10, 13}


def test_all_experiments_together_stay_short():
    files = [path for path in FILES if path.stem in DOCSTRINGS]
    plumbing = [path for path in COMMON if path.stem in PLUMBING]
    counted = {path.stem: len(code_lines(path.read_text())) for path in [*files, *plumbing]}
    assert len(files) == len(DOCSTRINGS)
    assert sum(counted.values()) <= LINES, counted


@pytest.mark.parametrize("path", [*FILES, *COMMON], ids=lambda path: path.stem)
def test_no_function_is_long(path):
    text = path.read_text()
    lines = code_lines(text)
    for function in functions(text):
        body = lines & set(range(function.body[0].lineno, function.end_lineno + 1))
        assert len(body) <= BODY, function.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_sections_are_the_same_in_all_files(path):
    assert re.findall(r"^    # ([A-Z][a-z]+)(?:$|:)", path.read_text(), re.MULTILINE) == SECTIONS


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_docstring_has_not_become_shorter(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert len("".join(docstring.split())) >= DOCSTRINGS.get(path.stem, 350)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_recipe_is_inherited(path):
    """From experiments/ a file has only what lies in common/, and it loads no other file's config."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "experiments":
            assert node.module == "experiments.common"
        if isinstance(node, ast.ImportFrom) and node.module == "swin_jax.core.config":
            assert not {"load", "module"} & {alias.name for alias in node.names}
    if path.stem == "quickstart":
        assert "experiments.common" not in path.read_text()


@pytest.mark.parametrize("path", COMMON, ids=lambda path: path.stem)
def test_every_function_in_common_is_documented_and_none_is_a_recipe(path):
    assert path.stem in PLUMBING | {"edits", "inversion", "segmentation"}
    assert not [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
    for function in functions(path.read_text()):
        assert len(ast.get_docstring(function)) > 40, function.name


def test_presets_for_pods_are_of_files_that_read_them():
    pods = json.loads(pathlib.Path(FOLDER / "common" / "pods.json").read_text())
    assert sorted(pods) == sorted(path.stem for path in WITH_PODS)
    for path in WITH_PODS:
        assert f'\nPODS = run.read_pods("{path.stem}")\n' in path.read_text()
