"""Comparing what was found with what was expected."""

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.pretrained import compare


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
