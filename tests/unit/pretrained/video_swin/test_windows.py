"""Which window the tables of a Video Swin are of: by their rows, by buffers, or as it is given."""

import re
import warnings

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models.swin import V2
from swin_jax.models.video_swin import make_video_swin
from swin_jax.pretrained.video_swin import convert
from swin_jax.pretrained.video_swin import finetune as video_swin_finetune
from tests.unit.pretrained.video_swin.test_convert import TINY, write


@pytest.mark.parametrize("window", [(8, 7, 7), (16, 7, 7), (4, 7, 7), (8, 12, 12), (1, 7, 7)])
def test_rows_of_tables_tell_windows(window):
    rows = np.prod([2 * w - 1 for w in window])
    assert convert.windows_of_rows(int(rows)) == [window]


def test_windows_that_the_weights_do_not_tell_must_be_given():
    fields = TINY | dict(window_size=(8, 8, 8))
    model = make_video_swin(**fields)
    shapes = convert.official_shapes(model)
    bare = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    with pytest.raises(UserError, match=r"3375 rows.*\(8, 8, 8\) or \(68, 3, 3\).*give window_size"):
        convert.infer(bare)
    with pytest.raises(UserError, match="give window_size"):
        convert.infer(bare, window_size=(7, 8, 8))
    assert convert.infer(bare, window_size=(8, 8, 8))["window_size"] == (8, 8, 8)
    index = convert.to_official(convert.from_official(bare, model), model, buffers=True)
    assert convert.infer(index)["window_size"] == (8, 8, 8)
    oblong = make_video_swin(**TINY | dict(window_size=(2, 4, 3)))
    bare = {name: np.zeros(shape, np.float32) for name, shape in convert.official_shapes(oblong).items()}
    with pytest.raises(UserError, match="no window with equal height and width; give window_size"):
        convert.infer(bare)
    whole = convert.to_official(convert.from_official(bare, oblong), oblong, buffers=True)
    assert convert.infer(whole)["window_size"] == (2, 4, 3)
    second = make_video_swin(**TINY, **V2)
    bare = {name: np.zeros(shape, np.float32) for name, shape in convert.official_shapes(second).items()}
    with pytest.raises(UserError, match="continuous position bias without buffers does not tell window_size"):
        convert.infer(bare)
    assert make_video_swin(**convert.infer(bare, window_size=(3, 4, 4))) == second.clone(
        backbone=second.backbone.clone(image_size=(32, 16, 16))
    )


def bare_of(buffers=False, **fields):
    """A model and its official state dict, with or without buffers."""
    model = make_video_swin(**TINY | fields)
    bare = {name: np.ones(shape, np.float32) for name, shape in convert.official_shapes(model).items()}
    return model, convert.to_official(convert.from_official(bare, model), model, buffers=True) if buffers else bare


@pytest.mark.parametrize("window", [(4, 3, 4), (4, 4, 3)])
def test_an_oblong_window_with_as_many_rows_is_told_or_given(window):
    _, bare = bare_of(window_size=window)
    with pytest.warns(UserWarning, match=r"\(3, 4, 4\) is assumed, though \(4, 3, 4\) has a table of the same size"):
        assert convert.infer(bare)["window_size"] == (3, 4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert convert.infer(bare, window)["window_size"] == window
        assert convert.infer(bare_of(True, window_size=window)[1])["window_size"] == window


@pytest.mark.parametrize(
    "window, other", [((8, 7, 7), (7, 7, 8)), ((16, 7, 7), (7, 7, 16)), ((8, 12, 12), (12, 8, 12))]
)
def test_windows_of_published_models_are_assumed_aloud(window, other):
    _, bare = bare_of(window_size=window)
    with pytest.warns(UserWarning, match=rf"{re.escape(f'{window} is assumed, though {other}')}.*give window_size"):
        assert convert.infer(bare)["window_size"] == window
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert convert.infer(bare_of(True, window_size=window)[1])["window_size"] == window


def test_a_file_fills_a_model_aloud_where_another_window_has_as_many_rows(tmp_path):
    whole, bare = (write(tmp_path / f"{buffers}.npz", bare_of(buffers)[1]) for buffers in (True, False))
    with pytest.warns(
        UserWarning, match=r"\(3, 4, 4\) is assumed, though \(4, 3, 4\).*relative_position_index"
    ) as told:
        video_swin_finetune.load_pretrained(bare, bare_of()[0])
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        video_swin_finetune.load_pretrained(whole, bare_of()[0])


@pytest.mark.parametrize("window", [4, (4, 4), ((3, 4, 4), (3, 4, 4)), (3, 4, None)])
def test_a_window_of_other_axes_is_refused_by_its_name(window):
    with pytest.raises(UserError, match=r"window_size=.* must be \(time, height, width\)"):
        convert.infer(bare_of()[1], window)


def test_an_index_of_a_plane_or_a_line_is_of_several_windows():
    for window in ((2, 3, 1), (2, 1, 3), (1, 1, 4)):
        _, whole = bare_of(True, window_size=window)
        with pytest.raises(UserError, match="give window_size"):
            convert.infer(whole)
        assert convert.infer(whole, window)["window_size"] == window


def test_tables_of_the_models_rows_are_not_taken_for_its_oblong_window():
    model, bare = bare_of(window_size=(2, 5, 13))
    with pytest.raises(
        UserError, match=r"whether backbone.* is of \(2, 8, 8\) or of \(2, 5, 13\), which the model has"
    ):
        video_swin_finetune.remap(bare, model)
    assert video_swin_finetune.remap(bare, model, window=(2, 5, 13)).keys() == bare.keys()
    assert video_swin_finetune.remap(bare_of(True, window_size=(2, 5, 13))[1], model).keys() == bare.keys()
    with pytest.raises(UserError, match=r"keep the weights' window of \(2, 8, 8\)"):
        video_swin_finetune.remap(bare_of(True, window_size=(2, 8, 8))[1], model)


def test_the_index_of_any_block_tells_the_window():
    _, whole = bare_of(True, window_size=(4, 3, 4))
    part = {
        name: value for name, value in whole.items() if "layers.0.blocks.0.attn.relative_position_index" not in name
    }
    assert len(part) == len(whole) - 1 and convert.infer(part)["window_size"] == (4, 3, 4)
    with pytest.raises(UserError, match=r"keep the weights' window of \(4, 3, 4\)"):
        video_swin_finetune.remap(part, bare_of()[0])
