"""The transforms of segmentation against the official pipeline, with its random choices given:
the cases seg_pipeline* in tests/golden/segmentation.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from swin_jax.core.constants import IGNORED
from swin_jax.data.segmentation import photometric, transforms
from swin_jax.data.segmentation.label_files import reduce_zero
from swin_jax.data.segmentation.resizing import fitted_size, resize_image, resize_labels
from swin_jax.ops import augmentation

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

CASES = [golden.load(path) for path in sorted(GOLDEN.glob("segmentation/seg_pipeline*.json"))]
pytestmark = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

ORIGINALS = [(683, 512), (512, 683), (333, 500), (100, 1000), (2000, 300), (375, 500), (512, 512), (257, 300)]
SCALES = [(2048, 512), (1024, 256), (1536, 384), (2560, 640), (3072, 768), (3584, 896)]


def rgb(case, name):
    """A stored picture, which is BGR."""
    return np.ascontiguousarray(case.expected(name)[..., ::-1])


def difference(actual, expected):
    return np.abs(actual.astype(int) - expected).max()


def crop_box(case):
    (top, left), (height, width) = case.config["crop_offset"], case.config["crop_size"]
    return top, left, top + height, left + width


def test_zero_becomes_255(case):
    np.testing.assert_array_equal(reduce_zero(case.input("annotation")), case.expected("reduced"))


def test_sizes(case):
    sizes = [[fitted_size((h, w), scale)[::-1] for scale in SCALES] for w, h in ORIGINALS]
    np.testing.assert_array_equal(sizes, case.expected("sizes"))
    height, width = case.expected("reduced").shape
    resized = fitted_size((height, width), tuple(case.config["scale"]))
    assert resized == case.expected("resized").shape[:2]
    factors = np.float32([resized[1] / width, resized[0] / height] * 2)
    assert case.error("scale_factor", factors) < case.tolerance("scale_factor")


def test_resize_and_crop(case):
    image, label = case.input("image")[..., ::-1], case.expected("reduced")
    size, box = case.expected("resized").shape[:2], crop_box(case)
    assert difference(resize_image(image, size), rgb(case, "resized")) <= 1
    np.testing.assert_array_equal(resize_labels(label, size), case.expected("resized_labels"))
    assert difference(resize_image(image, size, box), rgb(case, "cropped")) <= 1
    np.testing.assert_array_equal(resize_labels(label, size, box), case.expected("cropped_labels"))


def test_a_crop_of_mostly_one_class_is_not_taken(case):
    label = case.expected("reduced")
    accepted = [
        transforms.is_mixed(label[3 * k : 3 * k + 8, 4 * k : 4 * k + 8], 0.75)
        for k in range(len(case.expected("crop_accepted")))
    ]
    np.testing.assert_array_equal(accepted, case.expected("crop_accepted").astype(bool))


def test_flip_distortion_and_padding(case):
    example = {"image": rgb(case, "cropped"), "label": case.expected("cropped_labels")}
    flipped = transforms.flip(example)
    np.testing.assert_array_equal(flipped["label"], case.expected("flipped_labels"))
    choices = photometric.Photometric(**case.config["photometric"])
    distorted = photometric.distort(flipped["image"], choices)
    np.testing.assert_array_equal(distorted, rgb(case, "distorted"))
    mean, std = (tuple(np.array(case.config[name]) / 255) for name in ("mean", "std"))
    normalized = np.asarray(augmentation.normalize(distorted[None], mean, std))
    assert case.error("normalised", normalized[0]) < case.tolerance("normalised")
    size = case.full_shape("padded")[:2]
    padded = transforms.pad({"image": distorted, "label": flipped["label"]}, size)
    np.testing.assert_array_equal(padded["label"], case.expected("padded_labels"))
    image = augmentation.normalize(padded["image"][None], mean, std)
    image = np.asarray(augmentation.clear_padding(image, padded["size"][None]))[0]
    assert case.error("padded", image) < case.tolerance("padded")
    assert (image[padded["label"] == IGNORED][:, 0] == 0).any()
