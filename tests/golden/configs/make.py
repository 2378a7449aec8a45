"""Writes the resolved configs of all experiments, as they were on commit 9c335b1, into this folder.

    python tests/golden/configs/make.py

One file per experiment. Its first section is the whole config without arguments, `key: JSON value` a line; each further
section names the arguments it is for and lists what they change (`-`: the key is gone; `refused`: the error message).
The sections are, in this order: every value of every argument by itself, every pair of them, every published row (the
table PODS), and each row on each kind of chip. Callables have the names of that commit;
`swin_jax.core.public_names` knows those of today.
"""

import itertools
import json
import pathlib

from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from swin_jax.plan import presets as pods

FOLDER = pathlib.Path(__file__).parent
EXPERIMENTS = FOLDER.parents[2] / "experiments"


def experiments() -> list[pathlib.Path]:
    """The experiment files, by name."""
    files = [path for path in EXPERIMENTS.rglob("*.py") if "def get_config(" in path.read_text()]
    return sorted(files, key=lambda path: path.stem)


def arguments(path: pathlib.Path) -> list[str]:
    """The argument strings that a file has a section for."""
    experiment, known = configs.module(str(path)), {}
    parse = experiment.parse_arg
    experiment.parse_arg = lambda arg, **defaults: known.update(defaults) or parse(arg, **defaults)
    experiment.get_config()
    known.pop("pod", None)
    choices = {key: value[1:] for key, value in known.items() if isinstance(value, tuple)}
    choices |= {key: (not value,) for key, value in known.items() if isinstance(value, bool)}
    choices |= {key: (2 * value or 256,) for key, value in known.items() if type(value) in (int, float)}
    single = [[f"{key}={value}" for value in values] for key, values in choices.items()]
    pairs = [",".join(pair) for one, two in itertools.combinations(single, 2) for pair in itertools.product(one, two)]
    rows = list(getattr(experiment, "PODS", {}))
    on_chips = [",".join(filter(None, (row, f"pod={chip}"))) for row in rows for chip in pods.NAMES[1:]]
    return list(dict.fromkeys(["", *itertools.chain(*single), *pairs, *rows, *on_chips]))


def resolved(path: pathlib.Path, argument: str) -> dict[str, str]:
    """{dotted key: JSON value} of a file's config; {'refused': the message} where it refuses the arguments."""
    try:
        config = configs.flatten(configs.load(f"{path}:{argument}"))
    except UserError as error:
        return {"refused": json.dumps(str(error))}
    return {key: json.dumps(value) for key, value in config.items()}


def read(path: pathlib.Path) -> dict[str, dict[str, str]]:
    """{arguments: {dotted key: JSON value}} of a file in this folder."""
    sections, whole = {}, {}
    for line in path.read_text().splitlines():
        if line.startswith("# "):
            whole = whole or dict(sections.get("", {}))
            section = sections[line.partition(":")[2]] = dict(whole)
        elif line:
            key, _, value = line.partition(": ")
            if key == "refused":
                section.clear()
            if value == "-":
                del section[key]
            else:
                section[key] = value
    return sections


def write() -> None:
    """Writes all files."""
    for path in experiments():
        whole = resolved(path, "")
        text = ""
        for argument in arguments(path):
            section = resolved(path, argument)
            changed = section
            if argument and "refused" not in section:
                changed = {key: value for key, value in section.items() if whole.get(key) != value}
                changed |= dict.fromkeys(whole.keys() - section.keys(), "-")
            lines = [f"{key}: {changed[key]}\n" for key in sorted(changed)]
            text += f"# {path.stem}:{argument}\n{''.join(lines)}\n"
        (FOLDER / f"{path.stem}.txt").write_text(text)


if __name__ == "__main__":
    write()
