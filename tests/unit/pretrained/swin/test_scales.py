"""The windows that scale a continuous bias leave no trace in files without buffers: what is assumed is said."""

import warnings

import numpy as np
import pytest

from swin_jax.models.swin import V2, Swin
from swin_jax.models.video_swin import make_video_swin
from swin_jax.pretrained.load import load
from swin_jax.pretrained.swin import buffers, convert, finetune
from swin_jax.pretrained.video_swin import convert as convert_video
from swin_jax.pretrained.video_swin import finetune as finetune_video

TINY = dict(num_classes=3, patch_size=2, embed_dim=8, depths=(2, 2), num_heads=(1, 2), **V2)
MODEL = Swin(**TINY, image_size=32, window_size=8, pretrained_window_sizes=(4, 4))
CLIPS = TINY | dict(image_size=(32, 16, 16), patch_size=(2, 2, 2), window_size=(3, 4, 4))
SIZES = dict(window_size=8, image_size=32)
ASSUMED = r"continuous position bias.*the model's own, .*, are assumed: give pretrained_window_sizes"


def write(path, shapes, change=dict):
    np.savez(path, **change({name: np.ones(shape, np.float32) for name, shape in shapes.items()}))
    return str(path)


@pytest.mark.parametrize("layout", [dict, convert.to_timm])
def test_the_scale_of_a_file_without_buffers_is_assumed_aloud_once(layout, tmp_path):
    """timm's swinv2_*_window12to24_* are such files."""
    bare = write(tmp_path / "bare.npz", convert.official_shapes(MODEL), layout)
    with pytest.warns(UserWarning, match=ASSUMED) as told:
        assert load(weights=bare, **SIZES)[0].pretrained_window_sizes == ()
    assert len(told) == 1
    with pytest.warns(UserWarning, match=ASSUMED) as told:
        finetune.load_pretrained(bare, MODEL.clone(pretrained_window_sizes=()))
    assert len(told) == 1
    whole = write(tmp_path / "whole.npz", convert.official_shapes(MODEL), lambda x: x | buffers.official_buffers(MODEL))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(weights=bare, **SIZES, pretrained_window_sizes=(4, 4))[0] == MODEL
        load(weights=bare, **SIZES, pretrained_window_sizes=())
        assert load(weights=whole)[0] == MODEL
        finetune.load_pretrained(bare, MODEL)
        finetune.load_pretrained({"params": load(weights=whole)[1]["params"]}, MODEL.clone(pretrained_window_sizes=()))


def test_that_of_a_video_swin_too(tmp_path):
    model = make_video_swin(**CLIPS)
    bare = write(tmp_path / "bare.npz", convert_video.official_shapes(model))
    with pytest.warns(UserWarning, match=ASSUMED) as told:
        load(weights=bare, window_size=(3, 4, 4))
    assert len(told) == 1
    with pytest.warns(UserWarning, match=ASSUMED):
        finetune_video.load_pretrained(bare, model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(weights=bare, window_size=(3, 4, 4), pretrained_window_sizes=((0, 2, 2), (0, 2, 2)))
