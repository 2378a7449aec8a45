"""Photos that a camera turned, and their labels: of the upright pixels, of those as stored, or turned too."""

import warnings

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data.segmentation import scan
from swin_jax.data.segmentation.folder import label_folder

SIZE = (6, 9)


def write(root, name, size=SIZE, image_orientation=1, label_orientation=1, suffix=".jpg"):
    """Writes an image and its label, of stored pixels of the same size; returns the label."""
    draw = np.random.default_rng(sum(map(ord, name)))
    label = draw.integers(0, 2, size).astype(np.uint8)
    image = draw.integers(0, 256, (*size, 3)).astype(np.uint8)
    files = (("images", suffix, image, image_orientation), ("labels", ".png", label, label_orientation))
    for part, ending, pixels, orientation in files:
        exif = Image.Exif()
        exif[0x0112] = orientation
        (root / part / "train").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / part / "train" / (name + ending), exif=exif)
    return label


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A good pair, to which others are added."""
    monkeypatch.setenv("SWIN_JAX_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "set", "good")
    (tmp_path / "set" / "classes.txt").write_text("sky\nsea")
    return tmp_path / "set"


def read(root, **arguments):
    return label_folder(str(root), "train", **arguments)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_turned_photos_are_measured_as_they_are_read(root, suffix):
    write(root, "a", SIZE[::-1], 6, suffix=suffix)
    with pytest.raises(UserError, match="a.png: it is 6 x 9 pixels, its image 9 x 6"):
        read(root)
    upright = np.zeros(SIZE, np.uint8)
    Image.fromarray(upright).save(root / "labels/train/a.png")
    assert read(root)[0]["image"].size == SIZE[::-1] and scan.run([f"--folder={root}"]) == 0
    if suffix == ".jpg":  # PIL turns TIFFs for the reference, too
        with pytest.raises(UserError, match="a.png: it is 9 x 6 pixels, its image 6 x 9"):
            read(root, conversion="reference")


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
@pytest.mark.parametrize("orientation, size", [(2, SIZE), (3, SIZE), (4, SIZE), (6, (9, 9))])
def test_turned_photos_whose_labels_may_not_be_are_said(root, orientation, size, suffix, capsys):
    write(root, "a", size, orientation, suffix=suffix)
    says = "1 of 2 images are turned upright .* conversion=reference, .*images/train/a.(jpg|tif)"
    with pytest.warns(UserWarning, match=says):
        read(root)
    assert scan.run([f"--folder={root}"]) == 0
    assert "1 of 2 images are turned upright" in capsys.readouterr().out
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if suffix == ".jpg":
            read(root, conversion="reference")
        write(root, "b", SIZE[::-1], 6)
        label = np.random.default_rng(0).integers(0, 2, SIZE).astype(np.uint8)
        Image.fromarray(label).save(root / "labels/train/b.png")  # whose size tells that labels are upright
        read(root)


def test_labels_turn_by_their_own_orientation_as_images_do(root):
    label = write(root, "a", image_orientation=3, label_orientation=3)
    np.testing.assert_array_equal(read(root, check=False)[0]["label"], label[::-1, ::-1])
    np.testing.assert_array_equal(read(root, check=False, conversion="reference")[0]["label"], label)
