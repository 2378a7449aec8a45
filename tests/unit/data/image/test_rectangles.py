"""Every transform of pictures and clips at sizes that are not square."""

import functools

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data.emoji.images import image_eval_transform
from swin_jax.data.emoji.style import style_train_transform
from swin_jax.data.image import small, transforms
from swin_jax.data.video import transforms as video

SIZES = [(32, 64), (64, 32), (20, 21)]
PICTURES = [(80, 50), (50, 80), (10, 100), (64, 64)]
TRAIN = {
    "train": transforms.train_transform,
    "clip train": transforms.clip_train_transform,
    "small": functools.partial(small.small_train_transform, rotation=30, zoom=0.3, hflip=0.5),
    "style": style_train_transform,
}
EVAL = {
    "crop": transforms.eval_transform,
    "whole": functools.partial(transforms.eval_transform, crop=False),
    "configured": functools.partial(transforms.crop_transform, short_side=70),
    "covered": functools.partial(transforms.crop_transform, short_side=(70, 90), rounding="floor"),
    "stretched": transforms.crop_transform,
    "shortest": transforms.clip_eval_transform,
    "longest": functools.partial(transforms.clip_eval_transform, mode="longest", fill=255),
    "squash": functools.partial(transforms.clip_eval_transform, mode="squash"),
    "small": small.small_eval_transform,
    "emoji": image_eval_transform,
}


def ramp(width, height):
    """Red grows to the right, green downwards."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 / width, y * 255 / height, 0 * x], -1).round().astype(np.uint8)


@pytest.mark.parametrize("shape", PICTURES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*EVAL, *TRAIN])
def test_the_result_is_height_by_width(name, size, shape):
    example = {"image": ramp(*shape), "label": 3}
    if name in EVAL:
        found = EVAL[name](size)(example)
    else:
        found = TRAIN[name](size)(example, np.random.default_rng(0))
    assert found["image"].shape == (*size, 3) and found["image"].dtype == np.uint8 and found["label"] == 3


@pytest.mark.parametrize("name", ["shortest", "crop", "covered"])
@pytest.mark.parametrize("shape", [(400, 200), (200, 400), (300, 100)])
def test_the_aspect_is_kept_and_the_center_taken(name, shape):
    image = EVAL[name]((40, 60))({"image": ramp(*shape), "label": 0})["image"].astype(float)
    right, down = np.diff(image[20, 5:-5, 0]).mean(), np.diff(image[5:-5, 30, 1]).mean()
    assert right * shape[0] == pytest.approx(down * shape[1], rel=0.03)
    np.testing.assert_allclose(image[18:22, 28:32, :2].mean((0, 1)), 127, atol=4)


def test_the_picture_just_covers_the_result_as_in_timm():
    # timm: ratio = min(h / H, w / W), then round(side / ratio): 100 x 300 to 60 x 180 for a crop of 40 x 60.
    image = Image.fromarray(ramp(300, 100))
    assert transforms._cover(image, (40, 60), transforms._FILTERS["bicubic"]).size == (120, 40)
    assert transforms._cover(image, (10, 60), transforms._FILTERS["bicubic"]).size == (60, 20)
    assert transforms._cover(image, (30, 30), transforms._FILTERS["bicubic"]).size == (90, 30)


def test_a_picture_that_fits_in_is_padded_along_one_axis():
    white = transforms.clip_eval_transform((32, 64), mode="longest", fill=255)
    image = white({"image": np.zeros((50, 50, 3), np.uint8)})["image"]
    assert (image[:, :16] == 255).all() and (image[:, 48:] == 255).all() and not image[:, 16:48].any()


def test_a_small_image_turned_by_nothing_is_itself():
    image = ramp(12, 8)
    np.testing.assert_array_equal(small._turn(image, 0.0, 1.0), image)
    half = small._turn(image, np.pi, 1.0)
    np.testing.assert_array_equal(half, image[::-1, ::-1])


def test_a_short_side_that_leaves_the_picture_is_refused():
    for short_side in (50, (50, 20), (20, 50)):
        with pytest.raises(UserError, match="the crop would leave the image"):
            transforms.crop_transform((40, 60), short_side)


class Frames:
    def __init__(self, height, width):
        self.pixels = np.stack([ramp(width, height)] * 6)

    def __len__(self):
        return len(self.pixels)

    def get(self, indices):
        return self.pixels[np.asarray(indices)]


@pytest.mark.parametrize("shape", PICTURES)
@pytest.mark.parametrize("size", SIZES)
def test_clips_are_height_by_width(size, shape):
    example = {"video": Frames(*shape[::-1])}
    fields = dict(size=size, length=4, stride=1)
    one = video.video_eval_transform(**fields, short_side=36)(example)["video"]
    assert one.shape == (4, *size, 3)
    views = video.video_views_transform(clips=2, crops=3, **fields)(example)["video"]
    assert views.shape == (6, 4, *size, 3)
    train = video.video_train_transform(**fields, short_side=36, randaugment_ops=2)
    assert train(example, np.random.default_rng(0))["video"].shape == (4, *size, 3)
    # The three crops lie along the axis that has room.
    ends = views[0, 0].astype(int), views[2, 0].astype(int)
    assert shape == (64, 64) and size == (20, 21) or np.abs(ends[0] - ends[1]).max() > 0
