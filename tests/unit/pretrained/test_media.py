"""What people give as pictures and videos."""

import io

import pytest
from PIL import Image

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data.image.transforms import to_rgb
from swin_jax.pretrained import media
from swin_jax.pretrained.preprocess import preprocess
from tests.unit.data.image.test_picture import POSTSCRIPT


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swin_base_patch244_window1677_sthv2"])
def test_sets_have_no_order(name):
    for several in ({"a", "b"}, frozenset(["a"])):
        with pytest.raises(UserError, match="in a set have no order: give a list"):
            preprocess(name)(several)


@pytest.mark.parametrize("call", ["open_picture", "to_rgb"])
def test_an_opened_picture_of_postscript_is_refused(call, monkeypatch):
    """PIL's `open` gives it out before it is decoded, so that it is our call that would start Ghostscript."""
    for name in ("Popen", "check_call"):
        monkeypatch.setattr(f"subprocess.{name}", lambda *args, **kwargs: pytest.fail("a program was started"))
    error, function = (UserError, media.open_picture) if call == "open_picture" else (UnreadableError, to_rgb)
    with pytest.raises(error, match="PostScript"):
        function(Image.open(io.BytesIO(POSTSCRIPT)))


def test_a_picture_of_any_other_format_of_pil_is_taken():
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "TGA")
    assert media.open_picture(Image.open(file)).size == (3, 2)
