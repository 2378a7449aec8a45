"""What people give as pictures and videos."""

import io

import jax
import jax.numpy as jnp
import numpy as np
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


PIXELS = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3), np.uint8)
FRAMES = np.random.default_rng(1).integers(0, 256, (2, 4, 5, 6, 3), np.uint8)


class Tensor:
    """As PyTorch's: no array of NumPy, but read as one where it lies in memory and has no gradient."""

    def __init__(self, values, refuses=None):
        self.values, self.refuses = values, refuses
        self.ndim, self.shape, self.dtype = values.ndim, values.shape, f"torch.{values.dtype}"

    def __array__(self, dtype=None, copy=None):
        if self.refuses:
            raise self.refuses
        return self.values

    def __getitem__(self, index):
        return Tensor(self.values[index], self.refuses)


def same(example):
    """A transform that shows what it was given."""
    if "video" in example:
        return {"video": example["video"].get(range(len(example["video"])))}
    return {"image": np.asarray(example["image"])}


@pytest.mark.parametrize("kind", [jnp.asarray, Tensor])
def test_arrays_of_other_libraries_are_those_of_numpy(kind):
    for given in (kind(PIXELS), [kind(one) for one in PIXELS], list(map(kind, PIXELS))):
        np.testing.assert_array_equal(media.pictures(given, same, 3), PIXELS)
    np.testing.assert_array_equal(media.pictures(kind(PIXELS[0]), same, 3), PIXELS[:1])
    assert media.open_picture(kind(PIXELS[0])).tobytes() == PIXELS[0].tobytes()
    for given in (kind(FRAMES), list(map(kind, FRAMES))):
        np.testing.assert_array_equal(media.clips(given, same), FRAMES)


@pytest.mark.parametrize("read", [media.pictures, media.clips])
@pytest.mark.parametrize("reason", [TypeError("it lies on cuda:0.\nUse cpu()"), RuntimeError("it has a gradient")])
def test_an_array_that_numpy_cannot_read_says_why(read, reason):
    values = PIXELS[0] if read is media.pictures else FRAMES[0]
    for given in (Tensor(values, reason), [Tensor(values, reason)]):
        with pytest.raises(UserError, match="Tensor cannot be read as an array of NumPy: it ") as error:
            read(given, same, *[3] * (read is media.pictures))
        assert "\n" not in str(error.value)


def test_what_is_traced_is_not_prepared():
    with pytest.raises(UserError, match="outside of jax.jit"):
        jax.eval_shape(lambda image: media.pictures(image, same, 3), jax.ShapeDtypeStruct((5, 6, 3), jnp.uint8))


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray, Tensor])
def test_channels_that_come_first_are_named(kind):
    first = np.moveaxis(PIXELS, -1, 1)
    for given in (kind(first), kind(first[0])):
        with pytest.raises(UserError, match=r"uint8 of shape \(3, 5, 6\): channels first\? np.moveaxis\(picture, 0"):
            media.pictures(given, same, 3)


@pytest.mark.parametrize(("mode", "kind"), [("F", np.float32), ("I", np.int32)])
def test_pictures_of_numbers_of_unknown_range_are_refused(mode, kind):
    """PIL would clip them to 0..255 and say nothing."""
    image = Image.fromarray(np.linspace(0, 1, 12).reshape(3, 4).astype(kind))
    assert image.mode == mode
    for error, read in (
        (UserError, lambda: media.pictures(image, same, 3)),
        (UserError, lambda: media.pictures([image], same, 1)),
        (UserError, lambda: media.open_picture(image)),
        (UnreadableError, lambda: to_rgb(image)),
    ):
        with pytest.raises(error, match=f"mode {mode} .* are not supported; save them with 8 or 16 bits") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_picture_of_16_bits_is_scaled_not_clipped():
    image = Image.fromarray(np.array([[0, 25_700, 65_535]], np.uint16))
    for found in (media.open_picture(image), to_rgb(image)):
        assert np.asarray(found)[0, :, 0].tolist() == [0, 100, 255]
