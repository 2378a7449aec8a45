"""Folders of hubs: every field of a config beside the weights is obeyed, or refused by its name.

The pixels are compared with Pillow, used as the processors of transformers, open_clip and timm use it.
"""

import json
import warnings

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from swin_jax.core.errors import UserError
from swin_jax.models import swin
from swin_jax.pretrained import beside, processors
from swin_jax.pretrained.load import load
from swin_jax.pretrained.preparations import published
from swin_jax.pretrained.preprocess import preprocess
from swin_jax.pretrained.swin import convert

TINY = dict(image_size=16, patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4, num_classes=5)
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 47, 3), dtype=np.uint8)
MEAN, STD = [0.5, 0.25, 0.125], [0.5, 0.25, 0.75]
# As transformers writes them for Swin and ViT, and for CLIP.
VIT = dict(
    do_normalize=True,
    do_rescale=True,
    do_resize=True,
    image_mean=MEAN,
    image_processor_type="ViTImageProcessor",
    image_std=STD,
    resample=3,
    rescale_factor=1 / 255,
    size={"height": 16, "width": 16},
)
CLIP = VIT | dict(
    crop_size={"height": 16, "width": 16},
    do_center_crop=True,
    do_convert_rgb=True,
    image_processor_type="CLIPImageProcessor",
    size={"shortest_edge": 20},
)
OPEN_CLIP = dict(
    model_cfg=dict(embed_dim=8, vision_cfg=dict(image_size=16), text_cfg=dict(context_length=8)),
    preprocess_cfg=dict(mean=MEAN, std=STD),
)
TIMM = dict(
    architecture="swin_tiny_patch4_window7_224",
    num_classes=5,
    pretrained_cfg=dict(
        tag="ms_in1k",
        input_size=[3, 16, 16],
        fixed_input_size=True,
        interpolation="bicubic",
        crop_pct=0.8,
        crop_mode="center",
        mean=MEAN,
        std=STD,
        num_classes=5,
        pool_size=[7, 7],
        first_conv="patch_embed.proj",
    ),
)
FILES = {"preprocessor_config.json": VIT, "open_clip_config.json": OPEN_CLIP, "config.json": TIMM}


def by_hand(to, corner, resample=Image.Resampling.BICUBIC, size=(16, 16)):
    """`PICTURE` resized to (width, height), `size` of it from (left, top), normalized: float32 (1, 16, 16, 3)."""
    image = Image.fromarray(PICTURE).resize(to, resample)
    image = image.crop((*corner, corner[0] + size[0], corner[1] + size[1]))
    return (np.asarray(image, np.float32)[None] / 255 - np.float32(MEAN)) / np.float32(STD)


def in_folder(folder, name, config):
    """A folder with this config and weights of a Swin; returns the path of the weights."""
    (folder / name).write_text(json.dumps(config))
    if name != "config.json":
        (folder / "config.json").write_text(json.dumps({"model_type": "swin"}))
    shapes = convert.official_shapes(swin.Swin(**TINY))
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, folder / "model.safetensors")
    return folder / "model.safetensors"


def timm(**changes):
    return TIMM | {"pretrained_cfg": TIMM["pretrained_cfg"] | changes}


def open_clip(text=None, **changes):
    model = OPEN_CLIP["model_cfg"] | {"text_cfg": OPEN_CLIP["model_cfg"]["text_cfg"] | (text or {})}
    return {"model_cfg": model, "preprocess_cfg": OPEN_CLIP["preprocess_cfg"] | changes}


# The short side 40 becomes 20, the long one int(20 * 47 / 40) = 23: margins of 7 and 4 pixels.
OBEYED = {
    "a square": ("preprocessor_config.json", VIT, ((16, 16), (0, 0))),
    "a number for the square": ("preprocessor_config.json", VIT | dict(size=16), ((16, 16), (0, 0))),
    "bilinear": ("preprocessor_config.json", VIT | dict(resample=2), ((16, 16), (0, 0), Image.Resampling.BILINEAR)),
    "nearest": ("preprocessor_config.json", VIT | dict(resample=0), ((16, 16), (0, 0), Image.Resampling.NEAREST)),
    "lanczos": ("preprocessor_config.json", VIT | dict(resample=1), ((16, 16), (0, 0), Image.Resampling.LANCZOS)),
    "transformers cut half pixels off": ("preprocessor_config.json", CLIP, ((23, 20), (3, 2))),
    "a number for the crop": ("preprocessor_config.json", CLIP | dict(crop_size=16), ((23, 20), (3, 2))),
    "a number for the short side": ("preprocessor_config.json", CLIP | dict(size=20), ((23, 20), (3, 2))),
    "open_clip": ("open_clip_config.json", OPEN_CLIP, ((18, 16), (1, 0))),
    "open_clip's size": ("open_clip_config.json", open_clip(size=[16, 16], mode="RGB"), ((18, 16), (1, 0))),
    "open_clip's squash": (
        "open_clip_config.json",
        open_clip(resize_mode="squash", interpolation="bilinear"),
        ((16, 16), (0, 0), Image.Resampling.BILINEAR),
    ),
    "timm rounds half pixels to even": ("config.json", timm(), ((23, 20), (4, 2))),
    "timm without its inner config": (
        "config.json",
        {"architecture": "swin_tiny", **timm()["pretrained_cfg"]},
        ((23, 20), (4, 2)),
    ),
    "timm's whole short side": ("config.json", timm(crop_pct=1.0), ((18, 16), (1, 0))),
    "timm cuts a part of a pixel off": ("config.json", timm(crop_pct=0.85), ((21, 18), (2, 1))),
    "timm's squash": (
        "config.json",
        timm(crop_pct=1.0, crop_mode="squash", interpolation="bilinear"),
        ((16, 16), (0, 0), Image.Resampling.BILINEAR),
    ),
}


@pytest.mark.parametrize("case", OBEYED)
def test_the_pixels_are_those_that_the_config_says(case, tmp_path):
    name, config, wanted = OBEYED[case]
    in_folder(tmp_path, name, config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is assumed
        found = preprocess(tmp_path)
    np.testing.assert_allclose(found(PICTURE), by_hand(*wanted), atol=1e-6)


def test_open_clips_fill_pads_the_short_side(tmp_path):
    in_folder(tmp_path, "open_clip_config.json", open_clip(resize_mode="longest", fill_color=255))
    found = preprocess(tmp_path).pixels(PICTURE)[0]
    assert (found[0] == 255).all() and (found[15] == 255).all()
    whole = Image.fromarray(PICTURE).resize((16, 14), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(found[1:15], np.asarray(whole))


def bare(config, *left, **changes):
    """A config without some fields, with others changed."""
    return {key: value for key, value in (config | changes).items() if key not in left}


# Older and slim files leave out what is the default of the class that wrote them.
OBEYED |= {
    "ViT's filter by default": (
        "preprocessor_config.json",
        bare(VIT, "resample"),
        ((16, 16), (0, 0), Image.Resampling.BILINEAR),
    ),
    "the filter of a fast processor": (
        "preprocessor_config.json",
        bare(VIT, "resample", image_processor_type="ViTImageProcessorFast"),
        ((16, 16), (0, 0), Image.Resampling.BILINEAR),
    ),
    "the filter of an extractor": (
        "preprocessor_config.json",
        bare(VIT, "resample", "image_processor_type", feature_extractor_type="ViTFeatureExtractor"),
        ((16, 16), (0, 0), Image.Resampling.BILINEAR),
    ),
    "CLIP's filter and crop by default": (
        "preprocessor_config.json",
        bare(CLIP, "resample", "do_center_crop"),
        ((23, 20), (3, 2)),
    ),
    "a fast processor's nulls": (
        "preprocessor_config.json",
        VIT
        | dict.fromkeys(["crop_size", "do_center_crop", "do_convert_rgb", "do_pad", "pad_size", "device"])
        | dict(default_to_square=True, size=16),
        ((16, 16), (0, 0)),
    ),
    "a number for the short side, said": (
        "preprocessor_config.json",
        CLIP | dict(size=20, default_to_square=False),
        ((23, 20), (3, 2)),
    ),
    "timm's nulls": ("config.json", timm(crop_pct=None, interpolation=None, crop_mode=None), ((21, 18), (2, 1))),
    "a processor's image processor": ("processor_config.json", {"image_processor": CLIP}, ((23, 20), (3, 2))),
}


# (to, corner) of 16 x 24 pixels. By the references a picture covers (20, 30) where 30 wide is 25.5 high.
OBLONG = {"height": 16, "width": 24}
OBEYED_OBLONG = {
    "a height and a width": ("preprocessor_config.json", VIT | dict(size=OBLONG), ((24, 16), (0, 0))),
    "a list": ("preprocessor_config.json", VIT | dict(size=[16, 24]), ((24, 16), (0, 0))),
    "a processor's": ("processor_config.json", {"image_processor": VIT | dict(size=OBLONG)}, ((24, 16), (0, 0))),
    "a crop": (
        "preprocessor_config.json",
        CLIP | dict(size={"shortest_edge": 26}, crop_size=OBLONG),
        ((30, 26), (3, 5)),
    ),
    "a crop of the whole": ("preprocessor_config.json", CLIP | dict(size=OBLONG, crop_size=OBLONG), ((24, 16), (0, 0))),
    "no crop": ("preprocessor_config.json", CLIP | dict(size=OBLONG, do_center_crop=False), ((24, 16), (0, 0))),
    "open_clip": ("open_clip_config.json", open_clip(size=[16, 24]), ((24, 20), (0, 2))),
    "open_clip's squash": ("open_clip_config.json", open_clip(size=[16, 24], resize_mode="squash"), ((24, 16), (0, 0))),
    "timm": ("config.json", timm(input_size=[3, 16, 24]), ((30, 26), (3, 5))),
    "timm's whole": ("config.json", timm(input_size=[3, 16, 24], crop_pct=1.0), ((24, 20), (0, 2))),
    "timm's squash": (
        "config.json",
        timm(input_size=[3, 16, 24], crop_pct=1.0, crop_mode="squash"),
        ((24, 16), (0, 0)),
    ),
}


@pytest.mark.parametrize("case", OBEYED_OBLONG)
def test_oblong_sizes_are_obeyed(case, tmp_path):
    name, config, wanted = OBEYED_OBLONG[case]
    (tmp_path / name).write_text(json.dumps(config))
    told = processors.preparation_beside(tmp_path / "model.safetensors")
    told.pop("clean", None)
    found = published.of_pictures((16, 24), 3, assumed=False).replace(**told)
    np.testing.assert_allclose(found(PICTURE), by_hand(*wanted, size=(24, 16)), atol=1e-6)


def test_a_model_and_its_oblong_config_load_together(tmp_path):
    file = in_folder(tmp_path, "preprocessor_config.json", VIT | dict(size=OBLONG))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "swin", "image_size": [16, 24], "window_size": 4}))
    for source in (tmp_path, file):
        model, _ = load(weights=source)
        assert model.image_size == (16, 24) and preprocess(model).image_size == (16, 24)
        assert preprocess(source)(PICTURE).shape == (1, 16, 24, 3)


REFUSED = {
    "image_processor_type='EfficientNetImageProcessor'": (
        "preprocessor_config.json",
        VIT | dict(image_processor_type="EfficientNetImageProcessor"),
    ),
    "resample='bilinear'": ("processor_config.json", {"image_processor": VIT | dict(resample="bilinear")}),
    "do_reduce_labels": ("preprocessor_config.json", VIT | dict(do_reduce_labels=True)),
    "crop_pct=0.9 ": ("preprocessor_config.json", VIT | dict(crop_pct=0.9)),
    "do_pad is on": ("preprocessor_config.json", VIT | dict(do_pad=True)),
    "do_resize is off": ("preprocessor_config.json", VIT | dict(do_resize=False)),
    "do_rescale is off": ("preprocessor_config.json", VIT | dict(do_rescale=False)),
    "do_normalize is off": ("preprocessor_config.json", VIT | dict(do_normalize=False)),
    "rescale_factor=0.5": ("preprocessor_config.json", VIT | dict(rescale_factor=0.5)),
    "resample=5": ("preprocessor_config.json", VIT | dict(resample=5)),
    "resample='bicubic'": ("preprocessor_config.json", VIT | dict(resample="bicubic")),
    "size=.16, 16, 3. is neither": ("preprocessor_config.json", VIT | dict(size=[16, 16, 3])),
    "size='16' is neither": ("preprocessor_config.json", VIT | dict(size="16")),
    "size=True is neither": ("preprocessor_config.json", VIT | dict(size=True)),
    "size=0 is neither": ("preprocessor_config.json", VIT | dict(size={"height": 0, "width": 16})),
    "crop_size=None": ("preprocessor_config.json", CLIP | dict(crop_size={"height": None, "width": 16})),
    "size=16.5 is neither": ("preprocessor_config.json", CLIP | dict(size={"shortest_edge": 16.5})),
    "short_side=16 is less than size=.16, 24.": ("preprocessor_config.json", CLIP | dict(size=16, crop_size=OBLONG)),
    "crop_size=16 with size=.'height'": ("preprocessor_config.json", CLIP | dict(size=OBLONG, crop_size=16)),
    "short_side=20 is less than size=224": ("preprocessor_config.json", bare(CLIP, "crop_size")),
    "do_center_crop=False makes": ("preprocessor_config.json", CLIP | dict(size=20, do_center_crop=False)),
    "rescale_factor='x' must be a number": ("preprocessor_config.json", VIT | dict(rescale_factor="x")),
    "size={'longest_edge': 16}": ("preprocessor_config.json", VIT | dict(size={"longest_edge": 16})),
    "size={'shortest_edge': 16, 'longest_edge': 20}": (
        "preprocessor_config.json",
        CLIP | dict(size={"shortest_edge": 16, "longest_edge": 20}),
    ),
    "do_center_crop=False": ("preprocessor_config.json", CLIP | dict(do_center_crop=False)),
    "do_center_crop=True": ("preprocessor_config.json", VIT | dict(do_center_crop=True)),
    "short_side=12 is less than size=16": ("preprocessor_config.json", CLIP | dict(size={"shortest_edge": 12})),
    "mean=0.5": ("preprocessor_config.json", VIT | dict(image_mean=0.5)),
    "std=.0.5, 0.5.": ("preprocessor_config.json", VIT | dict(image_std=[0.5, 0.5])),
    "mean=.*123.675.*divide it by 255": ("preprocessor_config.json", VIT | dict(image_mean=[123.675, 116.28, 103.53])),
    "does not tell image_mean, image_std": (
        "preprocessor_config.json",
        {key: value for key, value in VIT.items() if key not in ("image_mean", "image_std")},
    ),
    "resize mode 'cover'": ("open_clip_config.json", open_clip(resize_mode="cover")),
    "interpolation 'random'": ("open_clip_config.json", open_clip(interpolation="random")),
    "mode='L'": ("open_clip_config.json", open_clip(mode="L")),
    "antialias": ("open_clip_config.json", open_clip(antialias=False)),
    "size=.16. is neither": ("open_clip_config.json", open_clip(size=[16])),
    "does not tell mean": ("open_clip_config.json", open_clip(mean=None)),
    "hf_tokenizer_name": ("open_clip_config.json", open_clip({"hf_tokenizer_name": "timm/ViT-B-16-SigLIP"})),
    "clean='lowest'": ("open_clip_config.json", open_clip({"tokenizer_kwargs": {"clean": "lowest"}})),
    "strip_sep_token": ("open_clip_config.json", open_clip({"tokenizer_kwargs": {"strip_sep_token": True}})),
    "input_size=.1, 16, 16. ": ("config.json", timm(input_size=[1, 16, 16])),
    "input_size=.16, 16. ": ("config.json", timm(input_size=[16, 16])),
    "input_size=224 is not": ("config.json", timm(input_size=224)),
    "input_size=16.5 is neither": ("config.json", timm(input_size=[3, 16, 16.5])),
    "crop_pct=-0.9 must be a number": ("config.json", timm(crop_pct=-0.9)),
    "crop_pct='0.9' must be a number": ("config.json", timm(crop_pct="0.9")),
    "short_side=12 is less than size=16 ": ("config.json", timm(crop_pct=1.3)),
    "crop_mode='border'": ("config.json", timm(crop_mode="border")),
    "crop_pct=0.8 with crop_mode='squash'": ("config.json", timm(crop_mode="squash")),
    "interpolation 'random' ": ("config.json", timm(interpolation="random")),
    "gamma": ("config.json", timm(gamma=2.2)),
    "does not tell std": (
        "config.json",
        {"architecture": "swin_tiny", "mean": MEAN, "input_size": [3, 16, 16]},
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_field_that_cannot_be_obeyed_is_refused_by_its_name(message, tmp_path):
    name, config = REFUSED[message]
    (tmp_path / name).write_text(json.dumps(config))
    with pytest.raises(UserError, match=message.strip()) as error:
        processors.preparation_beside(tmp_path / "model.safetensors")
    assert str(error.value).startswith(str(tmp_path / name)) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("text, message", [("{", "cannot be read"), ("[1]", "holds a list, not a JSON object")])
def test_a_broken_config_is_named(name, text, message, tmp_path):
    in_folder(tmp_path, name, FILES[name])
    (tmp_path / name).write_text(text)
    for call in (lambda: load(weights=tmp_path), lambda: preprocess(tmp_path)):
        with pytest.raises(UserError, match=f"{name} {message}") as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("clean, ours", [("lower", "openai"), ("canonicalize", "canonicalize"), (None, "openai")])
def test_open_clips_cleaning_of_texts_is_obeyed(clean, ours, tmp_path):
    config = open_clip({"tokenizer_kwargs": {"clean": clean}} if clean else {})
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert processors.preparation_beside(tmp_path / "open_clip_model.safetensors")["clean"] == ours


def test_texts_are_told_apart_from_pictures(tmp_path):
    """A config of transformers for the pictures, and open_clip's without any: its cleaning of texts still counts."""
    model = OPEN_CLIP["model_cfg"] | {"text_cfg": {"tokenizer_kwargs": {"clean": "canonicalize"}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    path = tmp_path / "open_clip_model.safetensors"
    assert processors.preparation_beside(path) == {"clean": "canonicalize"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CLIP))
    found = processors.preparation_beside(path)
    assert found["clean"] == "canonicalize" and found["arguments"]["short_side"] == 20
    whole = {"model_cfg": model, "preprocess_cfg": OPEN_CLIP["preprocess_cfg"] | {"size": 32}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(whole))
    assert processors.preparation_beside(path)["arguments"]["size"] == 32  # of its own library
    assert processors.preparation_beside(tmp_path / "model.safetensors")["arguments"]["size"] == 16


def test_where_nothing_lies_beside_a_file_nothing_is_told(tmp_path):
    assert processors.preparation_beside(tmp_path / "model.safetensors") is None
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "swin", "image_size": 224}))
    assert processors.preparation_beside(tmp_path / "model.safetensors") is None


def test_a_folder_is_known_by_its_config_and_by_its_weights(tmp_path):
    assert beside.weights_in(tmp_path) is None
    (tmp_path / "config.json").write_text(json.dumps({"task.model.fn": "swin_jax.models.swin.Swin"}))
    assert beside.weights_in(tmp_path) is None
    for name, config in (("config.json", TIMM), ("open_clip_config.json", OPEN_CLIP)):
        (tmp_path / name).write_text(json.dumps(config))
        with pytest.raises(UserError, match=f"{tmp_path} holds neither model.safetensors nor"):
            beside.weights_in(tmp_path)
    # timm's repositories of CLIPs hold the image tower alone as model.safetensors.
    for file in ("pytorch_model.bin", "model.safetensors", "open_clip_pytorch_model.bin"):
        (tmp_path / file).touch()
        assert beside.weights_in(tmp_path) == tmp_path / file
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    assert beside.weights_in(tmp_path) == tmp_path / "model.safetensors"


@pytest.mark.parametrize("name", FILES)
def test_a_folder_loads_and_its_preparation_comes_along(name, tmp_path):
    file = in_folder(tmp_path, name, FILES[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wanted = preprocess(tmp_path)
        assert list(wanted.mean) == MEAN and list(wanted.std) == STD and not wanted.assumed
        for source in (tmp_path, str(tmp_path), file):
            assert preprocess(load(weights=source)[0]) == wanted
        assert preprocess(file) == wanted


def test_another_size_scales_the_short_side_too(tmp_path):
    in_folder(tmp_path, "config.json", TIMM)
    wanted = preprocess(tmp_path, image_size=32)
    assert wanted.arguments == dict(size=32, short_side=40, interpolation="bicubic", rounding="even")
    assert preprocess(load(weights=tmp_path, image_size=32)[0]) == wanted
    assert preprocess(load(weights=tmp_path)[0], image_size=32) == wanted
    assert preprocess(tmp_path, image_size=32, short_side=36).arguments["short_side"] == 36
    in_folder(tmp_path, "preprocessor_config.json", VIT)
    assert preprocess(tmp_path, image_size=32).arguments["short_side"] == 0


def test_a_config_for_another_size_is_refused_unless_the_size_is_given(tmp_path):
    file = in_folder(tmp_path, "config.json", timm(input_size=[3, 32, 32]))
    for call in (
        lambda **size: preprocess(load(weights=tmp_path, **size)[0]),
        lambda **size: preprocess(tmp_path, **size),
    ):
        with pytest.raises(
            UserError, match=f"beside {file} is for pictures of 32 pixels, but the model is for 16: give"
        ) as error:
            call()
        assert "\n" not in str(error.value)
        assert call(image_size=32).arguments == dict(size=32, short_side=40, interpolation="bicubic", rounding="even")
        assert call(image_size=16).arguments["short_side"] == 20
