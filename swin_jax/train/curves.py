"""The curves of a run as a picture, drawn from metrics.jsonl."""

import math
import os
from collections.abc import Callable

import jax
import numpy as np
from etils import epath

from swin_jax.core import storage
from swin_jax.core.output import plots
from swin_jax.train.logs import read_metrics

CROWD = 8  # more curves than this are not read in one panel
MOST = 30  # panels


def draw(workdir: str | os.PathLike) -> epath.Path | None:
    """Draws curves.png from metrics.jsonl: losses, evaluations, learning rate, one panel each.

    Fractions share a panel if they are few; other evaluation metrics get one per kind (the last
    part of the name). No more than `MOST` panels are drawn.

    Returns:
        The picture's path, or None if there is nothing to draw.
    """
    from matplotlib.figure import Figure

    panels = dict(list(_panels(_series(read_metrics(workdir))).items())[:MOST])
    if not panels:
        return None
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5 * columns, 3.6 * rows))
    _leave_margins(figure, columns, rows)
    for index, (title, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        axes.set_title(_plain(title), loc="left", fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        for name, (steps, values) in lines.items():
            _draw(axes, _plain(f"{name}: {values[-1]:.4g}"), steps, values, smooth=title == "loss")
        if len(lines) > 1 or title == "loss" or name.startswith("eval/"):
            axes.legend(fontsize=8, frameon=False)
    path = storage.path(workdir) / "curves.png"
    with plots.quiet_glyphs():
        storage.write_figure(path, figure, dpi=120)
    return path


def draw_or_tell(workdir: str | os.PathLike, tell: Callable[[str], None]) -> None:
    """Draws the curves on process 0; a failure ends no run, and `tell` gets the reason."""
    if jax.process_index() == 0:
        try:
            draw(workdir)
        except Exception as error:
            tell(f"curves.png is not drawn: {' '.join(str(error).split())}")


def _series(lines):
    """{name: (steps, values)} of all lines; null values are left out."""
    series = {}
    for line in lines:
        for name, value in line.items():
            if name != "step" and value is not None:
                steps, values = series.setdefault(name, ([], []))
                steps.append(line["step"])
                values.append(value)
    return series


def _panels(series):
    """{title: {name: (steps, values)}} of what curves.png shows, in its order."""
    panels = {}
    for name, (steps, values) in sorted(
        series.items(), key=lambda item: not item[0].startswith("train/")
    ):
        kind = name.rsplit("/", 1)[-1]
        if kind == "loss":
            title = "loss"
        elif kind == "learning_rate":
            title = "learning rate"
        elif name.startswith("eval/"):
            title = "evaluation" if 0 <= min(values) and max(values) <= 1 else f"evaluation: {kind}"
        else:
            continue
        panels.setdefault(title, {})[name] = (steps, values)
    if len(panels.get("evaluation", ())) > CROWD:
        for name, curve in panels.pop("evaluation").items():
            panels.setdefault(f"evaluation: {name.rsplit('/', 1)[-1]}", {})[name] = curve
    titles = sorted(panels, key=lambda title: (title != "loss", title == "learning rate", title))
    return {title: panels[title] for title in titles}


def _plain(text):
    """A text that matplotlib takes for no formula, and that fits into a panel."""
    return plots.plain(text if len(text) <= 80 else f"...{text[-77:]}")


def _leave_margins(figure, columns, rows):
    """Fixes the room around each panel: to measure every label takes longer than all else here."""
    width, height = figure.get_size_inches()
    left, right, bottom, top = 0.75, 0.15, 0.5, 0.35  # inches around each panel
    across, down = width / columns - left - right, height / rows - bottom - top
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        bottom=bottom / height,
        top=1 - top / height,
        wspace=(left + right) / across,
        hspace=(bottom + top) / down,
    )


def _draw(axes, label, steps, values, smooth):
    """One curve; if `smooth` a long one is drawn faintly under its running mean."""
    window = len(values) // 50
    if not smooth or window < 2:
        axes.plot(steps, values, marker="." if len(values) < 50 else "", linewidth=1.5, label=label)
        return
    faint = axes.plot(steps, values, linewidth=0.6, alpha=0.3)[0]
    sums = np.cumsum(np.concatenate([[0.0], values]))
    means = (sums[window:] - sums[:-window]) / window
    axes.plot(steps[window - 1 :], means, color=faint.get_color(), linewidth=1.5, label=label)
