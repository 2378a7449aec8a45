"""Run-length encoded masks against texts of pycocotools."""

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.data.detection import rle


def disk(height, width, y, x, radius):
    rows, columns = np.ogrid[:height, :width]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def ring():
    return disk(60, 90, 30, 40, 25) & ~disk(60, 90, 30, 40, 20)


# By pycocotools 2.0.11: pycocotools.mask.encode(np.asfortranarray(mask, np.uint8))["counts"].
CASES = {
    "diagonal": (np.eye(5, dtype=bool), "0150000000"),
    "nothing": (np.zeros((3, 4), bool), "<"),
    "everything": (np.ones((3, 4), bool), "0<"),
    "one pixel": (np.ones((1, 1), bool), "01"),
    "left half of a large one": (np.arange(700)[None].repeat(300, 0) < 350, "0XaV3XaV3"),
    "disk": (
        disk(128, 128, 10, 100, 31),
        "Sh8?^36M3M2N1O2N1O1O1O1O1O1O1O001O1O001O00001O00001O0000000000000000000000000000O10000O100"
        "00O100O1O100O1O1O1O1O1O1O1N2O1",
    ),
    "ring": (
        ring(),
        "hn0=\\16K4L4M2M]O@0=OG07OM01010NN60I090E0=0B0>0A0a00^OOd00[O1e00ZOOh00XO0h00WO0k00TO0l00TO0"
        "l00TO0l00TO0l00TO0l00TO0l00TO0l00TO0l00TO0l00TO0l00TO0l00TO0l00UO0i00XO0h00XO1f00[OOe00\\O1"
        "b00_O0?0B0>0C0;0G070J220O0O031I091C0`0c03N3L4L5JW^1",
    ),
}


@pytest.mark.parametrize(("mask", "text"), CASES.values(), ids=CASES)
def test_text_is_that_of_pycocotools(mask, text):
    assert rle.encode(mask) == {"size": list(mask.shape), "counts": text}


@pytest.mark.parametrize(("mask", "text"), CASES.values(), ids=CASES)
def test_decoding_gives_the_mask_back(mask, text):
    np.testing.assert_array_equal(rle.decode({"size": list(mask.shape), "counts": text}), mask)


@pytest.mark.parametrize("seed", range(3))
def test_there_and_back(seed):
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((5, 7)) < 0.5, np.ones((4, 11))).astype(bool)
    np.testing.assert_array_equal(rle.decode(rle.encode(mask)), mask)


def test_runs_may_be_a_list():
    mask = rle.decode({"size": [2, 3], "counts": [1, 2, 3]})
    np.testing.assert_array_equal(mask, [[0, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize("counts", [[1, 2], [7, -1], "14"])
def test_runs_that_do_not_fit_are_refused(counts):
    with pytest.raises(UserError, match="do not cover its 2 x 3 pixels"):
        rle.decode({"size": [2, 3], "counts": counts})


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [10**6, 10**6], "counts": [10**12]},
        {"size": [2, 2]},
        {"counts": [4]},
        {"size": [2, 2], "counts": None},
        {"size": [2, 2], "counts": ["4"]},
        {"size": [2, 2], "counts": [4.0]},
        {"size": [-2, -2], "counts": [4]},
        {"size": "22", "counts": [4]},
        {"size": [2, 2], "counts": "o" * 10**6},
        [[0, 0, 2, 0, 2, 2]],
        None,
    ],
    ids=range(11),
)
def test_what_is_no_mask_is_one_line(segmentation):
    with pytest.raises(UserError, match="mask") as caught:
        rle.decode(segmentation)
    assert "\n" not in str(caught.value)
