"""The launcher's --edit: pictures, latents or seeds, edited by a text,
as files in a run's workdir.
"""

import csv
import functools
import hashlib
import io
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from swin_jax.core import config as configs
from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.data.video.encode import encode_png
from swin_jax.inference.editing import sheets, sources
from swin_jax.inference.editing.batches import filled, progress
from swin_jax.inference.editing.edits import Chosen, LoadedEditor, Synthesize, synthesizer
from swin_jax.train.workdir import check_entries, check_place

_PLACE = "edits"  # of a workdir
_TEXT = "text.txt"  # beside the edits, what they are made to
_LONGEST = 200  # bytes of a folder's name; file systems have 255
_PAIRS = "before_after"
_SHEET = 24  # edits on the sheet
_FRAMES = 25  # of the video


@checked
def prepare(config: Any, workdir: str, what: str) -> Callable[[], int]:
    """Sets up the edits of a folder, a file or seeds.

    Args:
        config: The experiment's config; its `edit` is the editor,
            `invert` finds latents of pictures.
        workdir: Folder for files, in edits/TEXT, and for what editors compute once and keep.
        what: The latents or pictures to edit, see `sources.find`.

    Returns:
        The function that edits and returns the exit status, 0. It writes for each name
        NAME.png, NAME.npz (`ws` before; `edited_ws`, or `style_0`, ... after) and NAME.csv
        (layer, channel, weight); and text.txt, before_after.png, a sheet over the editor's axes,
        and a video along the first one.

    Raises:
        UserError: An experiment that edits nothing; files that are missing; pictures without an
            inverter, and those that are neither square nor have landmarks; an unusable workdir.
    """
    if config.get("edit") is None:
        raise UserError(
            "this experiment edits nothing; --edit is for those of "
            "experiments/styleclip: styleclip_*.py"
        )
    check_place(storage.path(workdir))
    check_entries(storage.path(workdir), (), (_PLACE,))
    source = sources.find(what)
    editor, inverter = configs.build(config.edit, "edit"), None
    editor.check()
    if source.pictures:
        inverter = configs.build(config.invert, "invert") if config.get("invert") else None
        if inverter is None:
            raise UserError(
                f"{what} holds pictures, and this experiment has no "
                "`invert` that finds their latents"
            )
        inverter.check()
        sources.check_pictures(source)
    return functools.partial(_act, config, workdir, source, editor, inverter)


def _act(config, workdir: str, source: sources.Source, editor: Any, inverter: Any) -> int:
    loaded = editor.load(workdir)
    generator, variables = loaded.generator, loaded.variables
    _check_names(sources.picture_names(source), loaded)
    folder = _folder(storage.path(workdir), loaded.text)
    finder = inverter and inverter.load(generator, variables)
    found = sources.read(source, generator, variables, config.get("truncation", 1.0), finder)
    _check_names(found.names, loaded)
    folder.mkdir(parents=True, exist_ok=True)
    storage.write(folder / _TEXT, _encoded(loaded.text))
    synthesize = synthesizer(loaded.generator, loaded.variables)
    count = write_edits(loaded, found, folder, synthesize, config.edit_batch_size)
    files = write_sheets(loaded, found, folder, synthesize)
    print(
        f"{count} edits to '{loaded.text}' ({loaded.method}): {folder}; {', '.join(files)}",
        flush=True,
    )
    return 0


def slug(text: str) -> str:
    """A text as the name of a folder; others may have the same."""
    found = re.sub(r"\W+", "_", text).strip("_")[:80].encode()[:_LONGEST]
    return found.decode(errors="ignore") or "edit"


def _folder(workdir: epath.Path, text: str) -> epath.Path:
    """The folder of the edits to a text, with a hash in its name where that of the text alone
    has the edits to another one.
    """
    name = slug(text)
    check_entries(workdir, (), (f"{_PLACE}/{name}",))
    folder = workdir / _PLACE / name
    kept = folder / _TEXT
    if kept.exists() and kept.read_bytes() != _encoded(text):
        name += f"_{hashlib.sha256(_encoded(text)).hexdigest()[:12]}"
        folder = folder.with_name(name)
        check_entries(workdir, (), (f"{_PLACE}/{name}",))
    return folder


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@checked
def write_edits(
    loaded: LoadedEditor,
    found: sources.Latents,
    folder: Any,
    synthesize: Synthesize,
    batch_size: PositiveInt,
) -> int:
    """Edits all latents in batches; writes their files and the sheet of the first ones.
    Returns their number.
    """
    styles_of = jax.jit(
        lambda variables, ws: loaded.generator.apply(variables, ws, method="styles")
    )
    pairs = []
    for start in progress(range(0, len(found.ws), batch_size), "edits"):
        ws, count = filled(found.ws, start, batch_size)
        edited = loaded.edit(ws)
        before, after = synthesize(styles_of(loaded.variables, ws)), synthesize(edited.styles)
        for row, name in enumerate(found.names[start : start + count]):
            latents = {"ws": ws[row]}
            if edited.ws is None:
                latents |= {f"style_{i}": style[row] for i, style in enumerate(edited.styles)}
            else:
                latents["edited_ws"] = edited.ws[row]
            np.savez(file := io.BytesIO(), **latents)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            storage.write(folder / f"{name}.png", encode_png(after[row]))
            storage.write(folder / f"{name}.npz", file.getvalue())
            storage.write(folder / f"{name}.csv", _table(edited.chosen[row]))
            if len(pairs) < _SHEET:
                original = [] if found.pictures is None else [found.pictures[start + row]]
                pairs.append([*original, before[row], after[row]])
    headings = ["before", "after"] if found.pictures is None else ["picture", "inverted", "after"]
    sheets.draw_pairs(
        folder / f"{_PAIRS}.png", found.names[: len(pairs)], pairs, headings, _title(loaded)
    )
    return len(found.ws)


def write_sheets(
    loaded: LoadedEditor, found: sources.Latents, folder: Any, synthesize: Synthesize
) -> list[str]:
    """Writes the sheet over the editor's axes and the video along the first, of one latent;
    returns their names.
    """
    ws, name = found.ws[:1], found.names[0]
    first, *others = loaded.axes
    cells = []
    for values in itertools.product(*(axis.values for axis in (*others, first))):
        settings = dict(zip([axis.name for axis in (*others, first)], values))
        edited = loaded.edit(ws, **settings)
        text = "  ".join(f"{key} {value:g}" for key, value in settings.items())
        cells.append((synthesize(edited.styles)[0], f"{text}  {edited.note}".rstrip()))
    sheet = f"{_grid_name(loaded)}.png"
    title = f"{_title(loaded)}: {name}"
    sheets.draw_grid(folder / sheet, cells, len(first.values), title)
    values = np.linspace(min(first.values), max(first.values), _FRAMES)
    frames = [
        synthesize(loaded.edit(ws, **{first.name: float(value)}).styles)[0] for value in values
    ]
    return [f"{_PAIRS}.png", sheet, sheets.write_video(folder, first.name, frames)]


def _grid_name(loaded: LoadedEditor) -> str:
    return "_".join(axis.name for axis in loaded.axes)


def _check_names(names: Sequence[str], loaded: LoadedEditor) -> None:
    """Raises UserError for a latent or picture that is called as a sheet is."""
    for name in {_PAIRS, _grid_name(loaded)} & set(names):
        raise UserError(
            f"{name} is what a sheet beside the edits is called: rename the file that is edited"
        )


def _title(loaded: LoadedEditor) -> str:
    return f"{loaded.text} ({loaded.method})"


def _table(chosen: Chosen) -> bytes:
    writer = csv.writer(text := io.StringIO(newline=""))
    writer.writerow(["layer", "channel", "weight"])
    writer.writerows(chosen)
    return text.getvalue().encode()
