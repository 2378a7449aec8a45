"""Processors of transformers beside weights that leave out what their class, or the kind of model, tells.

The classes and their defaults are those of transformers 5.24; pixels are Pillow's.
"""

import json

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.pretrained import processors
from tests.unit.pretrained.test_beside import CLIP, MEAN, PICTURE, STD, VIT, by_hand

BILINEAR = Image.Resampling.BILINEAR
BARE = dict(image_mean=MEAN, image_std=STD, size=16)


def prepared(folder, config, model):
    """What the files in a folder give for `PICTURE`."""
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    if model is not None:
        (folder / "config.json").write_text(json.dumps({"model_type": model}))
    found = processors.preparation_beside(folder / "model.safetensors")
    transform = processors.public_names.find(found["transform"])(**found["arguments"])
    pixels = transform({"image": Image.fromarray(PICTURE), "label": 0})["image"]
    return (pixels[None].astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)


@pytest.mark.parametrize(
    "config, model, wanted",
    [
        (BARE, "swin", ((16, 16), (0, 0), BILINEAR)),
        (BARE, "swinv2", ((16, 16), (0, 0), BILINEAR)),
        (BARE | {"crop_size": 16}, "clip", ((18, 16), (1, 0))),
        (BARE | {"feature_extractor_type": "CLIPFeatureExtractor", "crop_size": 16}, "swin", ((18, 16), (1, 0))),
        (BARE | {"feature_extractor_type": "ViTFeatureExtractor"}, "clip", ((16, 16), (0, 0), BILINEAR)),
        (BARE | {"resample": 3}, "other", ((16, 16), (0, 0))),
        (BARE | {"resample": 3}, None, ((16, 16), (0, 0))),
        # A number is a square for ViT's class, and a short side for that of CLIP, whether it crops or not.
        (VIT | {"size": 16, "do_center_crop": True, "crop_size": 16}, "swin", ((16, 16), (0, 0))),
        (CLIP | {"size": 16, "default_to_square": True}, "clip", ((16, 16), (0, 0))),
    ],
)
def test_what_is_left_out_comes_from_the_class_or_the_kind_of_model(config, model, wanted, tmp_path):
    np.testing.assert_allclose(prepared(tmp_path, config, model), by_hand(*wanted), atol=1e-6)


@pytest.mark.parametrize(
    "config, model, says",
    [
        (BARE, "other", "gives neither resample nor the class .image_processor_type."),
        (BARE, None, "gives neither resample"),
        (BARE, ["swin"], "gives neither resample"),
        (VIT | {"image_processor_type": "SiglipImageProcessor", "size": 16}, "swin", "makes pictures of varying width"),
        (BARE | {"do_center_crop": False}, "clip", "makes pictures of varying width"),
    ],
)
def test_what_nothing_tells_is_refused(config, model, says, tmp_path):
    with pytest.raises(UserError, match=says) as error:
        prepared(tmp_path, config, model)
    assert "\n" not in str(error.value)
