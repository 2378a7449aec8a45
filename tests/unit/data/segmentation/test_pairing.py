"""Images and labels whose names differ at their ends: the suffixes that would pair them."""

import pytest

from swin_jax.core.errors import UserError
from swin_jax.data.segmentation.pairing import pair


@pytest.mark.parametrize(
    "images, labels, given, advice",
    [
        (["{}_rgb.jpg"], ["{}.png"], {}, "give image_suffix='_rgb'"),
        (["{}_rgb.jpg"], ["{}_m.png"], {}, "give image_suffix='_rgb' and label_suffix='_m'"),
        (["{}_rgb.jpg"], ["{}_m.png"], dict(label_suffix="_m"), "give image_suffix='_rgb'"),
        (["{}_rgb.jpg"], ["{}_m.png"], dict(image_suffix="_rgb"), "give label_suffix='_m'"),
        (["{}_rgb.jpg"], ["{}.png"], dict(image_suffix="_RGB.jpg"), "give image_suffix='_rgb'"),
        (["{}.jpg"], ["{}_m.png"], dict(label_suffix="_m.png"), "give label_suffix='_m'"),
        (["{}.jpg"], ["{}_m.png"], dict(label_suffix="_M"), "give label_suffix='_m'"),
        (["{}.jpg"], ["{}_m.png"], dict(label_suffix="_x"), "no name ends in label_suffix='_x', 1_m.png for one"),
        (
            ["{}_leftImg8bit.jpg"],
            ["{}_gtFine_color.png", "{}_gtFine_labelIds.png"],
            {},
            "give image_suffix='_leftImg8bit' and label_suffix='_gtFine_color' or label_suffix='_gtFine_labelIds'",
        ),
        (
            ["a{}.jpg", "b{}.jpg"],
            ["a{}_mask.png", "b{}-seg.png"],
            {},
            "label_suffix= takes one of '-seg' or '_mask': let all labels end alike",
        ),
        (["a{}.jpg"], ["b{}.png"], {}, "give a label the name of its image"),
        (["a_{}_x.jpg"], ["b_{}_y.png"], {}, "give a label the name of its image"),
    ],
)
def test_the_suffixes_that_would_pair_files_are_named(images, labels, given, advice):
    names = [[form.format(number) for number in range(1, 13) for form in forms] for forms in (images, labels)]
    with pytest.raises(UserError) as error:
        pair(*names, "labels", **given)
    assert str(error.value).endswith(advice)
