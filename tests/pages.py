"""The README and the pages of docs/: their blocks, commands, links and anchors."""

import dataclasses
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TODAY = [page for page in PAGES if page.name != "changelog.md"]  # which names what was
# What the shell variables of the pages may be.
SHELL = {"TPU": "swin", "ZONE": "z", "BUCKET": "b", "seed": "0"}
NEEDS = "# needs: "


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of shell commands.

    Attributes:
        page: File name of its page.
        text: Its lines.
        needs: What its first line says that it needs, "" if nothing.
        commands: Its calls of Python as words, shell variables replaced.
    """

    page: str
    text: str
    needs: str
    commands: tuple[tuple[str, ...], ...]


def fenced(text: str, language: str = "") -> list[str]:
    """The contents of a page's code blocks of a language; of all blocks for ''."""
    return re.findall(rf"^```{language or '[a-z]*'}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def inline(text: str) -> list[str]:
    """The inline code of a page."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(text))]


def blocks() -> list[Block]:
    """All blocks of shell commands, page by page."""
    found = []
    for page in PAGES:
        for text in fenced(page.read_text(), "bash"):
            first = text.splitlines()[0]
            needs = first.removeprefix(NEEDS) if first.startswith(NEEDS) else ""
            found.append(Block(page.name, text, needs, tuple(_commands(text))))
    return found


def commands() -> list[tuple[str, ...]]:
    """Every call of Python on the pages of today, those in prose and tables too."""
    found = [command for block in blocks() for command in block.commands]
    for page in TODAY:
        for code in inline(page.read_text()):
            if call := re.search(r"python (?:-m|experiments/).*", code):
                found.append(_words(re.sub(r" \[--.*?\]", "", call[0])))
    return found


def examples() -> list[str]:
    """The Python files whose text a page shows."""
    return [name for page in PAGES for name in re.findall(r"^`(\S+\.py)`:$", page.read_text(), re.MULTILINE)]


def _commands(text: str) -> list[tuple[str, ...]]:
    variables, found = dict(SHELL), []
    for line in text.replace("\\\n", " ").splitlines():
        if given := re.match(r'(\w+)="(.*)"$', line):
            variables[given[1]] = given[2]
            continue
        line = re.sub(r"\$(\w+)", lambda name: variables.get(name[1], name[0]), line)
        found += [_words(call) for call in re.findall(r"python (?:-m|experiments/)[^#&>;|]*", line)]
    return found


def _words(command: str) -> tuple[str, ...]:
    return tuple(shlex.split(command))


def anchors(text: str) -> set[str]:
    """What links into a page may name, as GitHub and MkDocs make it of the headings."""
    titles = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
