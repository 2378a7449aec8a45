"""Comparing what was found with what was expected."""

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.pretrained import compare
from swin_jax.pretrained.swin import adapt
from swin_jax.pretrained.swin import infer as swin_infer
from swin_jax.pretrained.video_swin import convert as video_convert


def test_a_perfect_match_is_a_falsy_report_and_raises_nothing():
    found = {"a": np.zeros((2, 3)), "b": np.zeros(())}
    assert not compare.compare(found, {"a": (2, 3), "b": ()})
    compare.check(found, {"a": (2, 3), "b": ()}, "a model")


def test_every_difference_is_listed_at_once():
    found = {"a": np.zeros((2, 3)), "extra": np.zeros(1), "more": np.zeros(1), "block.attn_mask": np.zeros(4)}
    with pytest.raises(UserError) as error:
        compare.check(found, {"a": (3, 2), "b": (1,), "c": (2,)}, "a model")
    message = str(error.value)
    assert "2 missing, 2 unexpected, 1 mis-shaped" in message
    listed = ("missing     b", "missing     c", "unexpected  extra", "unexpected  more", "a: (2, 3), expected (3, 2)")
    assert all(part in message for part in listed)
    assert "attn_mask" not in message


def test_a_name_has_one_line_whatever_it_holds():
    with pytest.raises(UserError) as error:
        compare.check({"a\n  missing     b": np.zeros(1)}, {}, "a model")
    assert str(error.value).split("\n")[1:] == [r"  unexpected  a\n  missing     b"]


def test_allowed_names_and_buffers_are_passed_over():
    found = {"a": np.zeros(1), "decoder": np.zeros(1), "layers.0.relative_position_index": np.zeros(1)}
    assert compare.compare(found, {"a": (1,)}, allowed=["decoder"]) == compare.Report((), (), ())


def test_buffers_are_told_by_the_last_part_of_a_name():
    assert compare.is_buffer("layers.0.blocks.1.attn_mask") and compare.is_buffer("attn_mask")
    assert not compare.is_buffer("attn_mask.weight") and not compare.is_buffer("my_attn_mask")


def test_a_prefix_is_taken_off_only_where_all_names_have_it():
    assert compare.strip_prefix({"m.a": 1, "m.b": 2}, "m.") == {"a": 1, "b": 2}
    assert compare.strip_prefix({"m.a": 1, "b": 2}, "m.") == {"m.a": 1, "b": 2}
    assert compare.strip_wrappers({"module._orig_mod.a": 1}) == {"a": 1}
    assert compare.strip_wrappers({}) == {}


@pytest.mark.parametrize("shape", [(8, 4, 4, 3), (8, 4, 4, 1), (8, 2, 4, 4, 3), (8, 14, 14, 3)])
def test_channels_that_come_last_are_refused(shape):
    """Files of MLX have the names of PyTorch: (8, 4, 4, 3) was read as 4 channels in patches of 4 x 3."""
    with pytest.raises(UserError, match=r"has the shape \(8, .*\): its channels come last, as in files of MLX"):
        compare.check_channels_first("conv1.weight", np.zeros(shape))
    readers = {
        4: (swin_infer.infer, "patch_embed.proj.weight", "layers.0.blocks.0.norm1.weight"),
        5: (video_convert.infer, "backbone.patch_embed.proj.weight", "backbone.layers.0.blocks.0.norm1.weight"),
    }
    infer, stem, block = readers[len(shape)]
    with pytest.raises(UserError, match="come last"):
        infer({stem: np.zeros(shape), block: np.ones(8)})
    with pytest.raises(UserError, match="come last"):
        adapt.adapt_channels({stem: np.zeros(shape)}, 3, stem)


@pytest.mark.parametrize(
    "shape", [(8, 3, 4, 4), (8, 1, 4, 4), (8, 4, 3, 3), (8, 3, 5, 3), (8, 3, 2, 4, 4), (8, 9), (8, 2, 1, 3)]
)
def test_channels_that_come_first_are_taken(shape):
    compare.check_channels_first("conv1.weight", np.zeros(shape))
