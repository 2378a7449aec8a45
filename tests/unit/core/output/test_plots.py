"""Names of people in plots, in every function that draws them."""

import io
import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure

from swin_jax.core.output import plots
from swin_jax.evals.analysis import overlap, robustness, subgroups
from swin_jax.evals.probes import few_shot
from swin_jax.inference import contact_sheet, similarity
from swin_jax.train import curves, logs

NAMES = ["$5 and $6", r"$\frac{$", "_hidden", "\u540d\u524d", "plain"]
PICTURE = np.zeros((8, 8, 3), np.uint8)


def _few_shot(name, path):
    few_shot.plot({name: few_shot.Result({1: (0.5, 0.6)}, {})}, path)


def _overlap(name, path):
    overlap.plot([overlap.Overlap(name, 100, 10, 0.9, 0.5, 0.5, 0.5, 0.5, (0.1, 0.9))], path)


def _subgroups(name, path):
    subgroups.plot([subgroups.Rate(name, name, 5, 0.5, (0.4, 0.6))], path)


def _robustness(name, path):
    ordinary = [robustness.Measurement(f"b{i}", name, 0.5 + i / 10, 0.3 + i / 10) for i in range(3)]
    robustness.plot([robustness.Measurement(name, name, 0.5, 0.4)], ordinary, path)


def _similarity(name, path):
    similarity.draw([PICTURE], [name], np.array([[0.5]]), path, title=name)


def _contact_sheet(name, path):
    contact_sheet.draw(path, [(PICTURE, name)], title=name)


def _curves(name, path):
    with logs.Logs(path.parent, 10) as log:
        log.write(1, {f"eval/{name}/top1": 0.5})
    curves.draw(path.parent)


DRAWERS = (_few_shot, _overlap, _subgroups, _robustness, _similarity, _contact_sheet, _curves)


@pytest.mark.parametrize("draw", DRAWERS)
def test_names_are_drawn_as_they_are_and_without_warnings(draw, tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", _texts_of(found := []))
    for name in NAMES:
        found.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            draw(name, tmp_path / "plot.png")
        assert any(name in text for text in found), (name, found)


def _texts_of(found):
    """In place of Figure.savefig: draws, and keeps the texts that are there to be read."""
    from matplotlib.text import Text

    original = Figure.savefig

    def save(self, path, **options):
        original(self, io.BytesIO(), format="png", dpi=50)
        for text in self.findobj(Text):
            if text.get_visible():
                string = text.get_text()
                plain, is_math = text._preprocess_math(string)
                found.append("" if is_math is True else plain)

    return save


def test_a_dollar_sign_is_no_formula():
    assert plots.plain("$x$ and $") == r"\$x\$ and \$"
