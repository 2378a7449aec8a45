"""What the README and the pages of docs/ name exists: links, files, functions, keys, flags and modules."""

import ast
import importlib
import inspect
import json
import re
import subprocess

import pytest

from swin_jax.core.command_line import define_flags
from swin_jax.core.public_names import RENAMED, RENAMED_ARGUMENTS, RENAMED_VALUES, find
from tests import pages
from tests.pages import PAGES, ROOT, TODAY

NAMES = [page.name for page in PAGES]
ROOMS = {path.name for path in (ROOT / "swin_jax").iterdir() if path.is_dir()}


def rows() -> list[list[str]]:
    """(old, new) names of the changelog."""
    lines = (ROOT / "docs" / "changelog.md").read_text().splitlines()
    return [line.strip("|").split(" | ") for line in lines if line.startswith("| `swin_jax.")]


def test_every_new_name_exists():
    names = [name for _, new in rows() for name in re.findall(r"`(swin_jax\.[\w.]+)`", new)]
    assert len(names) > 120
    assert not [name for name in names if find(name) is None]


def test_every_old_name_of_saved_runs_is_there():
    old = {name for before, _ in rows() for name in re.findall(r"swin_jax\.[\w.]+", before)}
    assert RENAMED.keys() <= old


def test_every_old_name_of_an_argument_or_a_choice_is_there():
    old = [(before, value) for (_, before), values in RENAMED_VALUES.items() for value in values]
    old += [(before, "") for _, before in RENAMED_ARGUMENTS]
    told = "".join(before for before, _ in rows())
    assert not [(name, value) for name, value in old if (f'`{name}="{value}"`' if value else f"`{name}`") not in told]


def test_every_module_stands_in_the_architecture():
    text = (ROOT / "docs" / "architecture.md").read_text()
    modules = {path.stem for path in (ROOT / "swin_jax").rglob("*.py")} - {"__init__"}
    assert len(modules) > 90
    assert not [name for name in sorted(modules) if not re.search(rf"\b{name}\b", text)]


def test_the_readme_is_a_path_and_no_manual():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250


def test_every_page_has_its_place_in_the_navigation():
    named = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(set(NAMES) - {"README.md"})


def test_every_page_but_the_home_is_listed_in_the_readme_or_at_home():
    listed = (ROOT / "README.md").read_text() + (ROOT / "docs" / "index.md").read_text()
    assert not [name for name in NAMES if name not in ("README.md", "index.md") and f"{name})" not in listed]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files_and_headings(page):
    text = pages.prose(page.read_text())
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in (link for link in links if "://" not in link):
        target, _, anchor = link.partition("#")
        file = page.parent / target if target else page
        assert file.exists(), link
        assert not anchor or anchor in pages.anchors(file.read_text()), link


def test_every_picture_is_shown():
    text = "".join(page.read_text() for page in PAGES)
    assert not [path.name for path in (ROOT / "docs" / "pictures").iterdir() if f"pictures/{path.name})" not in text]


@pytest.mark.parametrize("page", TODAY, ids=lambda page: page.name)
def test_markdown_is_read_alike_by_github_and_mkdocs(page):
    """A list or a table begins after a blank line, and no line but those of tables is over 120 columns."""
    lines = page.read_text().splitlines()
    assert not [line for line in lines if len(line) > 120 and not line.startswith("|")]
    before = ""
    for line in pages.prose(page.read_text()).splitlines():
        if re.match(r"- |\d+\. ", line):
            assert not before or before.startswith(("- ", " ")) or re.match(r"\d+\. ", before), line
        if line.startswith("|"):
            assert not before or before.startswith("|"), line
        before = line


@pytest.mark.parametrize("page", TODAY, ids=lambda page: page.name)
def test_files_that_pages_name_exist(page):
    text = page.read_text()
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in {name for code in pages.inline(text) for name in re.findall(r"[\w/]+\.py\b", code)}:
        if name not in (*pages.examples(), "FILE.py"):
            assert re.search(rf"(^|/){re.escape(name)}$", tracked, re.MULTILINE), name


@pytest.mark.parametrize("page", TODAY, ids=lambda page: page.name)
def test_names_of_the_package_on_pages_exist(page):
    for code in pages.inline(page.read_text()):
        room = re.match(r"(?:swin_jax\.)?(\w+)(?:\.(?!json$|zip$|csv$|png$)\w+)+$", code.partition("(")[0])
        if room and room[1] in ROOMS:
            name = "swin_jax." + code.partition("(")[0].removeprefix("swin_jax.")
            assert find(name) is not None or _is_module(name), code


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


@pytest.mark.parametrize("page", TODAY, ids=lambda page: page.name)
def test_keys_and_flags_on_pages_exist(page):
    keys = "".join(path.read_text() for path in (ROOT / "tests" / "golden" / "configs").iterdir())
    sources = "".join(path.read_text() for room in ("swin_jax", "experiments") for path in (ROOT / room).rglob("*.py"))
    known = {f"--{name}" for name in define_flags()} | set(re.findall(r'"(--\w+)"', sources)) | {"--config"}
    for word in (word for code in pages.inline(page.read_text()) for word in code.split()):
        if key := re.match(r"--config\.([\w.]+)", word):
            assert re.search(rf"^{re.escape(key[1])}\b", keys, re.MULTILINE), word
        elif flag := re.match(r"--[a-z_]+$|--[a-z_]+(?==)", word):
            assert flag[0] in known or flag[0] in ("--strict",), word


def programs() -> list[ast.Module]:
    found = [program for page in PAGES for program in pages.fenced(page.read_text(), "python")]
    assert len(found) > 15
    return [ast.parse(program) for program in found]


def test_what_programs_import_and_call_exists():
    for program in programs():
        names = {}
        for node in ast.walk(program):
            if isinstance(node, ast.Import):
                names |= {
                    alias.name: importlib.import_module(alias.name) for alias in node.names if "swin" in alias.name
                }
            if isinstance(node, ast.ImportFrom) and node.module.startswith("swin_jax"):
                for alias in node.names:
                    names[alias.asname or alias.name] = _imported(node.module, alias.name)
        for node in ast.walk(program):
            if isinstance(node, ast.Call):
                _check_call(node, names)


def _imported(module: str, name: str):
    value = getattr(importlib.import_module(module), name, None)
    return importlib.import_module(f"{module}.{name}") if value is None else value


def _check_call(node: ast.Call, names: dict) -> None:
    function = node.func
    if isinstance(function, ast.Name) and function.id in names:
        called = names[function.id]
    elif isinstance(function, ast.Attribute) and getattr(function.value, "id", None) in names:
        called = getattr(names[function.value.id], function.attr)
    else:
        return
    parameters = inspect.signature(called).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    assert {word.arg for word in node.keywords} - {None} <= set(parameters), ast.unparse(node)


def test_every_extra_is_named_with_what_it_is_for():
    metadata = (ROOT / "setup.py").read_text()
    (extras,) = re.findall(r"extras_require=(\{.*?\n    \}),", metadata, re.DOTALL)
    extras = set(ast.literal_eval(extras))
    text = "".join(page.read_text() for page in PAGES)
    named = {name for names in re.findall(r"(?:-e ['\"]?\.|swin_jax)\[([a-z,]+)\]", text) for name in names.split(",")}
    assert named <= extras
    table = re.findall(r"^\| `(\w+)` \| \S", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert extras <= set(table)


def test_the_page_of_presets_holds_what_the_compiler_said():
    from experiments.benchmarks import pod_presets

    results = json.loads(pod_presets.RESULTS.read_text())
    assert pod_presets.PAGE.read_text() == pod_presets.page(results)
