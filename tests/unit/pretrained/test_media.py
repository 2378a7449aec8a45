"""What people give as pictures and videos."""

import pytest

from swin_jax.core.errors import UserError
from swin_jax.pretrained.preprocess import preprocess


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swin_base_patch244_window1677_sthv2"])
def test_sets_have_no_order(name):
    for several in ({"a", "b"}, frozenset(["a"])):
        with pytest.raises(UserError, match="in a set have no order: give a list"):
            preprocess(name)(several)
