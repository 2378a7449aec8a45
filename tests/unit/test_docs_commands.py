"""Every command of the README and of docs/ has its experiment, its keys, its file and its flags."""

import re

from swin_jax import launch
from tests import pages
from tests.pages import ROOT

LAUNCHER = ("python", "-m", "swin_jax.launch")


def with_config(words: tuple[str, ...], trained: dict[str, str]) -> tuple[str, ...]:
    """The words with the config of the run in their workdir, which a command before it has trained."""
    flags = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
    if "--help" in words:
        return words
    if "--config" in flags:
        trained[flags.get("--workdir", "")] = flags["--config"]
        return words
    return (f"--config={trained[flags['--workdir']]}", *words)


def test_every_launcher_command_has_its_experiment_and_its_keys(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    runs = [words[3:] for words in pages.commands() if words[:3] == LAUNCHER]
    assert len(runs) > 55
    wrong, trained = [], {"runs/quickstart": "experiments/quickstart.py"}
    examples = pages.examples()  # tests/e2e/test_own_experiment.py and test_task_example.py launch them
    for words in runs:
        if any(words[0].startswith(f"--config={example}") for example in examples):
            continue
        words = with_config(words, trained)
        status = launch.run(["launch", *words, "--print_config"])
        if status:
            wrong.append((" ".join(words), capsys.readouterr().err))
    assert not wrong


def test_every_other_command_has_its_file_and_its_flags():
    others = [words[1:] for words in pages.commands() if words[:3] != LAUNCHER]
    others = [words for words in others if re.match("(-m )?(swin_jax|experiments)", " ".join(words))]
    assert len(others) > 15
    for words in others:
        is_module = words[0] == "-m"
        path = ROOT / (f"{words[1].replace('.', '/')}.py" if is_module else words[0])
        assert path.exists(), words
        # Builders share some flags.
        source = "".join(file.read_text() for file in path.parent.glob("*.py"))
        for flag in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert f'"{flag}"' in source, (words, flag)


def test_every_command_of_pytest_has_its_file():
    tests = [words for words in pages.commands() if words[1:3] == ("-m", "pytest")]
    assert len(tests) > 3
    for path in (word for words in tests for word in words if word.startswith("tests/")):
        assert (ROOT / path).exists()


def test_every_block_of_another_language_is_marked():
    """A command that is in no block of `bash` would not be read by these tests."""
    for page in pages.PAGES:
        for text in re.findall(r"^```\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            assert not re.match(r"python |pip |gcloud ", text), (page.name, text)
