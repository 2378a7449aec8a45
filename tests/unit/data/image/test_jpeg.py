"""JPEG files that are decoded late: the same pixels and the same verdicts as those decoded at once."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UnreadableError
from swin_jax.data.image import jpeg, picture
from swin_jax.data.image.transforms import train_transform

RNG = np.random.default_rng(0)
IMAGE = Image.fromarray(RNG.integers(0, 256, (9, 12, 3)).astype(np.uint8)).resize((121, 90), Image.Resampling.BICUBIC)


def encoded(image=IMAGE, file_format="JPEG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


@pytest.fixture(params=["simplejpeg", "PIL"])
def decoder(request, monkeypatch):
    if request.param == "PIL":
        monkeypatch.setattr(jpeg, "_library", lambda: None)
    else:
        pytest.importorskip("simplejpeg")
    return request.param


@pytest.mark.parametrize(
    "options", [{}, dict(subsampling=0), dict(progressive=True), dict(quality=100), dict(quality=5)]
)
def test_pixels_are_those_of_pil(options, decoder):
    data = encoded(**options)
    wanted = np.asarray(picture.decode(data))
    assert jpeg.is_undecoded(jpeg.open_late(data))
    np.testing.assert_array_equal(np.asarray(jpeg.open_late(data)), wanted)
    found = jpeg.pixels(jpeg.open_late(data))
    assert (found is None) == (decoder == "PIL")
    if found is not None:
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, dict(restart_marker_rows=1), dict(optimize=True), dict(progressive=True)])
def test_rows_above_the_bottom_are_those_of_the_whole_file(options, subsampling):
    pytest.importorskip("simplejpeg")
    data = encoded(subsampling=subsampling, **options)
    wanted = np.asarray(picture.decode(data))
    heights = set()
    for bottom in (1, 15, 16, 17, 40, 64, 88, 90):
        found = jpeg.pixels(jpeg.open_late(data), bottom=bottom)
        heights.add(len(found))
        assert len(found) >= bottom
        np.testing.assert_array_equal(found[:bottom], wanted[:bottom])
    assert heights == {90} if "progressive" in options else min(heights) <= 32


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_both_decode_smaller_to_the_same_size(factor):
    pytest.importorskip("simplejpeg")
    data = encoded()
    found = jpeg.pixels(jpeg.open_late(data), factor)
    np.testing.assert_array_equal(found, np.asarray(jpeg.drafted(jpeg.open_late(data), factor)))
    assert found.shape == (-(-90 // factor), -(-121 // factor), 3)


def test_the_factor_leaves_enough_pixels():
    assert [jpeg.factor(shrink) for shrink in (0.3, 1, 1.99, 2, 3.9, 4, 7.9, 8, 20)] == [1, 1, 1, 2, 2, 4, 4, 8, 8]


def test_what_is_no_jpeg_in_rgb_is_decoded_at_once():
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        ("display", encoded(exif=exif)): (90, 121),
        ("reference", encoded(IMAGE.convert("L"))): (121, 90),
        ("reference", encoded(IMAGE.convert("CMYK"))): (121, 90),
        ("display", encoded(IMAGE, "PNG")): (121, 90),
    }
    for (conversion, data), size in files.items():
        found = jpeg.open_late(data, conversion)
        assert found.size == size and not jpeg.is_undecoded(found) and jpeg.pixels(found) is None
        np.testing.assert_array_equal(np.asarray(found), np.asarray(picture.decode(data, conversion)))


def test_the_orientation_of_the_file_is_forgotten():
    exif = Image.Exif()
    exif[0x0112] = 6
    found = jpeg.open_late(encoded(exif=exif), "reference")
    assert found.size == IMAGE.size and picture.orientation(found) == 1


def test_a_file_that_is_cut_off_is_refused_when_it_is_opened():
    data = encoded()
    for file in (data[: len(data) // 2], data[:-2000], b""):
        with pytest.raises(UnreadableError):
            jpeg.open_late(file)


def test_damage_before_the_end_is_found_by_the_transform(decoder):
    data = encoded()
    at = data.index(b"\xff\xc4")  # the tables that pixels are coded with
    damaged = data[: at + 4] + bytes([0xFF] * 16) + data[at + 20 :]
    image = jpeg.open_late(damaged)
    with pytest.raises(UnreadableError):
        train_transform(8)({"image": image}, np.random.default_rng(0))


def test_warnings_are_left_to_pil(decoder):
    data = encoded()
    warned = data[:-2] + bytes([0x12] * 64) + data[-2:]  # bytes that belong to nothing
    assert jpeg.pixels(jpeg.open_late(warned)) is None
    whole = train_transform(90, (1, 1), (1, 1), hflip=0, auto_augment="")
    images = (jpeg.open_late(warned), picture.decode(warned), picture.decode(data))
    found = [whole({"image": image}, np.random.default_rng(0))["image"] for image in images]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_images_that_were_opened_elsewhere_are_pils(tmp_path):
    (tmp_path / "image.jpg").write_bytes(encoded())
    drafted = Image.open(io.BytesIO(encoded()))
    drafted.draft("RGB", (60, 45))
    whole = train_transform(16, (1, 1), (0.1, 10), auto_augment="")
    for image in (Image.open(tmp_path / "image.jpg"), drafted):
        assert not jpeg.is_undecoded(image) and jpeg.pixels(image) is None
        assert whole({"image": image}, np.random.default_rng(0))["image"].shape == (16, 16, 3)


def test_limits_hold():
    with pytest.raises(UnreadableError, match="limit of 100"):
        jpeg.open_late(encoded(), limits=picture.Limits(pixels=100))


def test_an_image_that_is_not_decoded_yet_pickles():
    found = pickle.loads(pickle.dumps(jpeg.open_late(encoded())))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(picture.decode(encoded())))
