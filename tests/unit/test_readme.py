"""The commands and programs of the README and of its pages name files, flags, keys and functions that exist."""

import ast
import importlib
import re
import shlex

from swin_jax import launch

SHELL = {"TPU": "swin", "ZONE": "z", "BUCKET": "b", "seed": "0"}


def text_of(root) -> str:
    """The README and the pages that go on where it ends."""
    return "\n".join((root / name).read_text() for name in ("README.md", "docs/styleclip.md"))


def blocks(root, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(root), re.MULTILINE | re.DOTALL)


def commands(root) -> list[list[str]]:
    """Every call of Python in the README, as its words, shell variables replaced; also those inside tables."""
    found = re.findall(r"`(python [^`]+)`", text_of(root))
    for block in blocks(root, "bash"):
        variables = dict(SHELL)
        for line in block.replace("\\\n", " ").splitlines():
            if given := re.match(r'(\w+)="(.*)"$', line):
                variables[given[1]] = given[2]
                continue
            line = re.sub(r"\$(\w+)", lambda name: variables.get(name[1], name[0]), line)
            found += re.findall(r"(?:python )(?:-m|experiments/)[^#&>;|]*", line)
    return [shlex.split(re.sub(r" \[--.*?\]", "", command)) for command in found]


def test_every_launcher_command_has_its_experiment_and_its_keys(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    runs = [words[3:] for words in commands(root) if words[1:3] == ["-m", "swin_jax.launch"]]
    assert len(runs) > 30
    wrong = []
    for words in runs:
        status = launch.run(["launch", *words, "--print_config"])
        error = capsys.readouterr().err
        if status:
            wrong.append((" ".join(words), error))
    assert not wrong


def test_every_other_command_has_its_file_and_its_flags(root):
    others = [words[1:] for words in commands(root) if "swin_jax.launch" not in words]
    others = [words for words in others if re.match("(-m )?(swin_jax|experiments)", " ".join(words))]
    assert len(others) > 15
    for words in others:
        named = words[0] == "-m"
        path = root / (f"{words[1].replace('.', '/')}.py" if named else words[0])
        assert path.exists(), words
        # Builders share some flags.
        source = "".join(file.read_text() for file in path.parent.glob("*.py"))
        for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert f'"{flag}"' in source, (words, flag)


def test_every_import_of_the_programs_exists(root):
    programs = blocks(root, "python")
    assert len(programs) > 8
    for node in (node for program in programs for node in ast.walk(ast.parse(program))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("swin_jax"):
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):
                    importlib.import_module(f"{node.module}.{name.name}")
