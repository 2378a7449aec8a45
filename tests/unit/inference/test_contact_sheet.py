"""Sheets of pictures: every picture in a place of its own, however many there are."""

import numpy as np
import pytest

from swin_jax.inference import contact_sheet


@pytest.mark.parametrize("count, columns, title", [(1, 8, ""), (11, 4, "a title"), (200, 8, "a title")])
def test_places_are_apart_and_need_no_solver(count, columns, title, monkeypatch):
    """Solving a layout for 200 pictures takes minutes."""
    drawn = []
    monkeypatch.setattr(contact_sheet.storage, "write_figure", lambda path, figure, dpi: drawn.append(figure))
    pictures = [(np.zeros((4, 6, 3), np.uint8), f"picture {i}") for i in range(count)]
    contact_sheet.draw("sheet.png", pictures, title, columns)
    (figure,) = drawn
    assert figure.get_layout_engine() is None
    places = np.array([axes.get_position().extents for axes in figure.axes])
    assert len(places) == count and places.min() > 0 and places.max() < 1
    rows, lines = (np.unique(places[:, i].round(6)) for i in (0, 1))
    assert len(rows) == min(count, columns) and len(lines) == -(-count // columns)
    for i, (left, bottom, right, top) in enumerate(places):
        others = np.delete(places, i, 0)
        beside = (others[:, 0] >= right) | (others[:, 2] <= left)
        assert (beside | (others[:, 1] >= top) | (others[:, 3] <= bottom)).all()
    inches = figure.get_size_inches()[1] * places[:columns]
    assert figure.get_size_inches()[1] - inches[:, 3].max() >= 0.6  # for four lines of text and the title
