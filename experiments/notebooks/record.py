"""Executes the notebooks of this folder, and records their outputs in them.

    pip install -e '.[notebooks]'
    python experiments/notebooks/record.py                     # all of them
    python experiments/notebooks/record.py video plan_a_pod

What differs from machine to machine is left out of the outputs: times, the states that progress
bars went through, and the folders of the kernel and of the repository.
"""

import argparse
import os
import pathlib
import re
import tempfile
from typing import Any

FOLDER = pathlib.Path(__file__).resolve().parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.ipynb")))
TAG = "parameters"
# What the launcher prints of times and commits: whole lines, or the ends of lines.
PASSING = (
    r"^source +\S+\n",
    r"^compiled in .* s\n",
    r"^.*: compiling, \d+ s\n",
    r"^time  +traced in .*\n",
    r"  \([\d.]+ s\)$",
    r", [\d:]+ in this process$",
    r" \[[\d:]+<.*\]$",
)
MISSING = "notebooks are executed by nbclient and ipykernel: pip install -e '.[notebooks]'"


def execute(path: pathlib.Path, folder: pathlib.Path, **values: Any) -> Any:
    """Runs a notebook from its first cell to its last, in a kernel of its own.

    Args:
        path: The file, which is not changed.
        folder: The folder that the kernel works in.
        **values: Names of the cell tagged 'parameters', set to other values after it.

    Returns:
        The notebook with its outputs.

    Raises:
        ImportError: The extra is not installed; the message has the pip line.
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    try:
        import ipykernel  # noqa: F401
        import nbclient
        import nbformat
        from traitlets.config import Config
    except ImportError as error:
        raise ImportError(f"{error}; {MISSING}") from error
    notebook = nbformat.read(path, as_version=4)
    first = next(i for i, x in enumerate(notebook.cells) if TAG in x.metadata.get("tags", ()))
    lines = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    notebook.cells.insert(first + 1, nbformat.v4.new_code_cell(lines))
    place = {"metadata": {"path": str(folder)}}
    with tempfile.TemporaryDirectory() as sockets:
        # Kernels that start at the same time might take the same port; sockets have a name each.
        transport = dict(transport="ipc", ip=f"{sockets}/kernel")
        nbclient.NotebookClient(
            notebook,
            timeout=3600,
            startup_timeout=300,
            kernel_name="python3",
            resources=place,
            record_timing=False,
            config=Config(KernelManager=transport),
        ).execute()
    del notebook.cells[first + 1]
    return notebook


def clean(notebook: Any) -> None:
    """Removes from the outputs what differs from machine to machine."""
    counted = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(counted, start=1):
        cell.execution_count = number
        cell.outputs = merged(cell.outputs)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
            if output.output_type == "stream":
                output.text = clean_text(output.text)
    notebook.metadata["language_info"] = {"name": "python"}


def merged(outputs: list[Any]) -> list[Any]:
    """The outputs of a cell, with the pieces of a text that came one by one put together."""
    found: list[Any] = []
    for output in outputs:
        before = found[-1] if found else {}
        if output.output_type == "stream" and before.get("name") == output.name:
            before.text += output.text
        else:
            found.append(output)
    return found


def clean_text(text: str) -> str:
    """A text as it stands on a screen in the end, without times and folders of this machine."""
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    text = "\n".join(lines).replace(f"{FOLDER.parents[1]}/", "")
    for pattern in PASSING:
        text = re.sub(pattern, "", text, flags=re.MULTILINE)
    return re.sub(r"\S*ipykernel_\d+/\d+\.py:\d+: ", "", text)


def record(path: pathlib.Path) -> None:
    """Executes a notebook on CPUs beside its file, and writes it with its outputs."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    notebook = execute(path, path.parent)
    import nbformat  # `execute` tells where it is missing

    clean(notebook)
    nbformat.write(notebook, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"any of {', '.join(NAMES)}; all by default")
    names = parser.parse_args().names
    if unknown := set(names) - set(NAMES):
        parser.error(f"there is no notebook {', '.join(sorted(unknown))}")
    for name in names or NAMES:
        record(FOLDER / f"{name}.ipynb")
        print(f"recorded {name}", flush=True)


if __name__ == "__main__":
    main()
