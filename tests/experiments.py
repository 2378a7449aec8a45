"""The experiment files, found by their names in whichever folder they lie."""

import pathlib

FOLDER = pathlib.Path(__file__).parents[1] / "experiments"
FILES = sorted((p for p in FOLDER.rglob("*.py") if "def get_config(" in p.read_text()), key=lambda path: path.stem)
WITH_PODS = [path for path in FILES if "\nPODS = " in path.read_text()]


def config_path(name: str) -> str:
    """The value of --config for 'swin_in1k', or for 'swin_in1k:fake'."""
    stem, colon, arguments = name.partition(":")
    (found,) = (path for path in FILES if path.stem == stem)
    return f"{found}{colon}{arguments}"
