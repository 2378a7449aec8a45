"""The notebooks run as Jupyter runs them, at toy size, and what is committed of them is of a whole run."""

import ast
import importlib.util
import json
import re

import pytest
from experiments.notebooks import record

EXTRA = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("ipykernel", "nbclient")), reason=record.MISSING
)

# What is set after a notebook's cell of sizes.
TOY = {
    "clip_search": dict(STEPS=2, BATCH_SIZE=4, WIDTH=16, COUNT=8),
    "edit_by_text": dict(GENERATOR="none", CLIP="none", SAMPLES=64, IMAGES=1, BETA=0.001),
    "first_logits": dict(
        CHANGES=dict(image_size=56, embed_dim=8, depths=(1, 1), num_heads=(1, 2)), STEPS=2, BATCH_SIZE=4
    ),
    "own_images": dict(COUNT=4, FLAGS="--config.total_steps=2 --config.task.model.embed_dim=16"),
    "plan_a_pod": dict(EXPERIMENT="experiments/quickstart.py:fake", SLICE="v5e:2x2", LAYOUTS={"plain": []}),
    "video": dict(FRAMES=4, STEPS=2, BATCH_SIZE=4),
}
# Its names for folders that it writes.
FOLDERS = dict.fromkeys(TOY, ()) | {"own_images": ("IMAGES", "NEW", "WORKDIR"), "plan_a_pod": ("WORKDIR",)}
LARGEST = 2_000_000  # bytes of all notebooks
# A path from the root of a machine, which no address of the web is, or a cell's temporary file.
PLACE = re.compile(r"(?<![\w.:/<>\\-])/\w+/[\w.]|ipykernel_")


def load(name: str) -> dict:
    return json.loads((record.FOLDER / f"{name}.ipynb").read_text())


def words(name: str) -> str:
    """A notebook without its pictures, whose characters are at random."""

    def without(fields):
        return {key: value for key, value in fields.items() if not key.startswith("image/")}

    text = (record.FOLDER / f"{name}.ipynb").read_text()
    return json.dumps(json.loads(text, object_hook=without))


def code_cells(notebook) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text_of(cell) -> str:
    return "".join(cell["source"])


def pictures(cell) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell["outputs"])


def test_each_notebook_has_a_toy_size():
    assert TOY.keys() == set(record.NAMES) and len(TOY) == 6


@EXTRA
@pytest.mark.parametrize("name", record.NAMES)
def test_a_notebook_runs_at_toy_size_and_draws_what_is_recorded(name, tmp_path):
    folders = {key: str(tmp_path / key) for key in FOLDERS[name]}
    ran = record.execute(record.FOLDER / f"{name}.ipynb", tmp_path, **TOY[name], **folders)
    assert [pictures(cell) for cell in code_cells(ran)] == [pictures(cell) for cell in code_cells(load(name))]


@pytest.mark.parametrize("name", record.NAMES)
def test_a_notebook_begins_with_how_to_install_official_weights_and_sizes(name):
    first, sizes, *_ = load(name)["cells"]
    text = text_of(first)
    assert first["cell_type"] == "markdown" and text.startswith("# ")
    assert "pip install -e '.[notebooks" in text and "swin_jax.load(" in text
    assert record.TAG in sizes["metadata"]["tags"]
    names = {node.targets[0].id for node in ast.parse(text_of(sizes)).body}
    assert TOY[name].keys() <= names and all(name.isupper() for name in names)


@pytest.mark.parametrize("name", record.NAMES)
def test_what_is_recorded_is_one_run_from_start_to_end_of_no_particular_machine(name):
    notebook = load(name)
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert sum(map(pictures, cells)) >= 2
    assert notebook["metadata"].keys() == {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert not PLACE.findall(words(name))


def test_the_notebooks_are_small_and_explained(root):
    sizes = [(record.FOLDER / f"{name}.ipynb").stat().st_size for name in record.NAMES]
    assert sum(sizes) < LARGEST
    page = (root / "docs" / "notebooks.md").read_text()
    assert not [name for name in record.NAMES if f"experiments/notebooks/{name}.ipynb" not in page]


@EXTRA
def test_a_failing_cell_fails_and_values_are_set_after_the_cell_of_sizes(tmp_path):
    cells = [
        dict(cell_type="code", id="a", metadata={"tags": ["parameters"]}, source="SIZE = 3", outputs=[]),
        dict(cell_type="code", id="b", metadata={}, source="assert SIZE == 3, SIZE\nprint(SIZE)", outputs=[]),
    ]
    notebook = dict(cells=[cell | {"execution_count": None} for cell in cells], metadata={}, nbformat=4)
    path = tmp_path / "little.ipynb"
    path.write_text(json.dumps(notebook | {"nbformat_minor": 5}))
    ran = record.execute(path, tmp_path)
    assert len(ran.cells) == 2 and ran.cells[1].outputs[0].text == "3\n"
    with pytest.raises(Exception, match=r"AssertionError\S*: 4"):
        record.execute(path, tmp_path, SIZE=4)


def test_a_missing_extra_is_the_pip_line(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nbclient", None)
    with pytest.raises(ImportError, match=r"nbclient.*pip install -e '\.\[notebooks\]'"):
        record.execute(record.FOLDER / "video.ipynb", tmp_path)


@pytest.mark.parametrize(
    "text, cleaned",
    [
        ("10%\r 20%\r100%\ndone\n", "100%\ndone\n"),
        ("a\r\nb\r\n", "a\nb\n"),
        (f"written {record.FOLDER.parents[1]}/runs/plan/plan.json\n", "written runs/plan/plan.json\n"),
        ("/tmp/ipykernel_12/345.py:2: UserWarning: random\n", "UserWarning: random\n"),
        ("compiling the first step\r\ncompiled in 1.9 s\r\nstep 2\n", "compiling the first step\nstep 2\n"),
        ("v5e:2x4: compiling, 10 s\ntopology    v5e:2x4\n", "topology    v5e:2x4\n"),
        ("memory   1 GiB\ntime        traced in 3 s, compiled in 19 s\nwritten  x\n", "memory   1 GiB\nwritten  x\n"),
        ("step 120  eval/val/top1 1.0000  (0.8 s)\n", "step 120  eval/val/top1 1.0000\n"),
        ("source    4f283c9a2297-dirty\ndata      72 records\n", "data      72 records\n"),
        ("Done: 600 steps, 01:04 in this process\n", "Done: 600 steps\n"),
        ("100%|##| 600/600 [01:03<00:00,  9.45step/s, loss 0.41]\n", "100%|##| 600/600\n"),
        ("(1 s) is [0, 1]\n", "(1 s) is [0, 1]\n"),
    ],
)
def test_recorded_texts_are_as_they_stand_in_the_end(text, cleaned):
    assert record.clean_text(text) == cleaned


@EXTRA
def test_a_bar_that_came_in_pieces_is_recorded_as_it_stands_in_the_end():
    from nbformat import v4

    pieces = [v4.new_output("stream", name="stdout", text=text) for text in ("a\n 1%", "\r 50%", "\r100%\n")]
    pieces.insert(2, v4.new_output("stream", name="stderr", text="warning\n"))
    notebook = v4.new_notebook(cells=[v4.new_code_cell("", outputs=pieces[:2] + pieces[3:] + pieces[2:3])])
    record.clean(notebook)
    assert [output.text for output in notebook.cells[0].outputs] == ["a\n100%\n", "warning\n"]
