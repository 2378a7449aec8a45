"""What people type for a model: the name that is found, or the nearest one."""

import re

import pytest

import swin_jax
from swin_jax.core.errors import UserError
from swin_jax.pretrained import names
from swin_jax.pretrained.load import FAMILIES, load

# What people type, and what it means.
FOUND = {
    "swin_tiny_patch4_window7_224.pth": "swin_tiny_patch4_window7_224",
    "swin_tiny_patch4_window7_224.ms_in1k": "swin_tiny_patch4_window7_224",
    "microsoft/swin-tiny-patch4-window7-224": "swin_tiny_patch4_window7_224",
    "microsoft/swin-base-patch4-window7-224-in22k": "swin_base_patch4_window7_224_22k",
    "microsoft/swin-base-patch4-window12-384": "swin_base_patch4_window12_384",
    "microsoft/swin-large-patch4-window12-384-in22k": "swin_large_patch4_window12_384_22k",
    "microsoft/swin-large-patch4-window7-224": "swin_large_patch4_window7_224_22kto1k",
    "microsoft/swin-large-patch4-window12-384": "swin_large_patch4_window12_384_22kto1k",
    "microsoft/swinv2-tiny-patch4-window8-256": "swinv2_tiny_patch4_window8_256",
    "microsoft/swinv2-large-patch4-window12-192-22k": "swinv2_large_patch4_window12_192_22k",
    "microsoft/swinv2-base-patch4-window12to16-192to256-22kto1k-ft": (
        "swinv2_base_patch4_window12to16_192to256_22kto1k_ft"
    ),
    "https://huggingface.co/microsoft/swin-tiny-patch4-window7-224/": "swin_tiny_patch4_window7_224",
    "openai/clip-vit-base-patch32": "ViT-B/32",
    "openai/clip-vit-base-patch16": "ViT-B/16",
    "openai/clip-vit-large-patch14": "ViT-L/14",
    "openai/clip-vit-large-patch14-336": "ViT-L/14@336px",
    "hf-hub:timm/swin_tiny_patch4_window7_224.ms_in1k": "swin_tiny_patch4_window7_224",
    "hf_hub:timm/swin_tiny_patch4_window7_224.ms_in22k": "swin_tiny_patch4_window7_224_22k",
    "hf-hub:timm/swinv2_tiny_window8_256.ms_in1k": "swinv2_tiny_patch4_window8_256",
    "hf-hub:timm/vit_base_patch32_clip_224.openai": "ViT-B/32",
    "ViT-B-32": "ViT-B/32",
    "vit-b-32-quickgelu": "ViT-B/32",
    "ViT-L-14-336": "ViT-L/14@336px",
    "rn50": "RN50",
    "swin3d_t": "swin_tiny_patch244_window877_kinetics400_1k",
    "swin_base_patch244_window1677_sthv2.pth": "swin_base_patch244_window1677_sthv2",
    "swinv2_giant": "swinv2_giant",
}
# What people type that no model is called, and the name that is suggested first.
SUGGESTED = {
    "swin": "swin_tiny_patch4_window7_224",
    "Swin Transformer": "swin_tiny_patch4_window7_224",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "swin_t": "swin_tiny_patch4_window7_224",
    "Swin-T": "swin_tiny_patch4_window7_224",
    "swint": "swin_tiny_patch4_window7_224",
    "swin_small": "swin_small_patch4_window7_224",
    "Swin-B": "swin_base_patch4_window7_224",
    "swin_base_384": "swin_base_patch4_window12_384",
    "swin_large": "swin_large_patch4_window7_224_22k",
    "swin_tiny_22k": "swin_tiny_patch4_window7_224_22k",
    "swinv2": "swinv2_tiny_patch4_window8_256",
    "swin_v2": "swinv2_tiny_patch4_window8_256",
    "Swin V2": "swinv2_tiny_patch4_window8_256",
    "swin_v2_t": "swinv2_tiny_patch4_window8_256",
    "SwinV2-L": "swinv2_large_patch4_window12_192_22k",
    "swinv2_tiny_window8": "swinv2_tiny_patch4_window8_256",
    "timm/swinv2_cr_tiny_ns_224.sw_in1k": "swinv2_tiny_patch4_window8_256",
    "hf-hub:timm/swin_tiny_foo": "swin_tiny_patch4_window7_224",
    "swinv2_h": "swinv2_huge",
    "swin_giant": "swinv2_giant",
    "swin_tinny": "swin_tiny_patch4_window7_224",
    "swim_tiny": "swin_tiny_patch4_window7_224",
    "swin_tiny_patch4_windw7_224": "swin_tiny_patch4_window7_224",
    "swin_lagre": "swin_large_patch4_window7_224_22k",
    "clip": "ViT-B/32",
    "CLIP": "ViT-B/32",
    "vit_b_32": "ViT-B/32",
    "ViTB32": "ViT-B/32",
    "resnet50": "RN50",
    "openai/clip-vit-bas-patch32": "ViT-B/32",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": "ViT-B/32",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": "ViT-H-14",
    "hf-hub:laion/CLIP-ViT-L-14-laion2B-s32B-b82K": "ViT-L/14",
    "hf-hub:laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": "ViT-bigG-14",
    "hf-hub:timm/ViT-B-16-SigLIP": "ViT-B/16",
    "video swin": "swin_tiny_patch244_window877_kinetics400_1k",
    "VideoSwin": "swin_tiny_patch244_window877_kinetics400_1k",
    "video-swin-t": "swin_tiny_patch244_window877_kinetics400_1k",
    "swin3d_tiny": "swin3d_t",
    "swin_3d_b": "swin3d_b",
    "swin_tiny_k400": "swin_tiny_patch244_window877_kinetics400_1k",
    "swin_large_k700": "swin_large_patch244_window877_kinetics700_22k",
    "swin_base_ssv2": "swin_base_patch244_window1677_sthv2",
    "swin_base_something": "swin_base_patch244_window1677_sthv2",
    "simmim_base": "simmim_pretrain_swinv2_base_1k_125k",
}


@pytest.mark.parametrize("word", FOUND)
def test_what_people_type_is_found(word):
    family, spelling = names.find(word, FAMILIES)
    assert family.find(spelling) == FOUND[word] and FOUND[word] in swin_jax.list_models()


@pytest.mark.parametrize("word", SUGGESTED)
def test_what_means_no_model_is_answered_by_the_nearest_name(word):
    assert names.find(word, FAMILIES) is None
    said = names.suggest(word, FAMILIES)
    first, *others = re.findall("'(.+?)'", said)
    assert first == SUGGESTED[word]
    assert {first, *others} <= set(swin_jax.list_models()) and len(others) <= 2
    if "giant" not in word:
        assert "giant" not in said


@pytest.mark.parametrize("word", ["xyzzy", "foo/bar", "123", "?", "", " "])
def test_what_is_near_no_name_is_answered_by_all(word):
    assert names.suggest(word, FAMILIES) == "; swin_jax.list_models() gives all names"


def test_every_listed_name_is_found_by_one_family():
    listed = swin_jax.list_models()
    for name in listed:
        assert [family for family in FAMILIES if family.find(name) is not None] == [
            family for family in FAMILIES if name in family.names()
        ]
        family, word = names.find(name, FAMILIES)
        assert word == name and family.preset(name)
    assert sum(len(set(family.names())) for family in FAMILIES) == len(listed)


def test_listed_names_are_sorted_once_each_and_match_patterns_whatever_their_capitals():
    listed = swin_jax.list_models()
    assert listed == sorted(set(listed)) and len(listed) > 100
    assert swin_jax.list_models("VIT-b*") == ["ViT-B-16-plus-240", "ViT-B/16", "ViT-B/32", "ViT-bigG-14"]
    videos = swin_jax.list_models("*Kinetics*")
    assert len(videos) == 15 and videos == [name for name in listed if "kinetics" in name]
    assert swin_jax.list_models("swin_tiny") == []


@pytest.mark.parametrize("arguments", [dict(name="Swin-T"), dict(weights="Swin-T")])
def test_load_says_the_nearest_name_in_one_line(arguments):
    with pytest.raises(UserError, match="the nearest name is 'swin_tiny_patch4_window7_224'$"):
        load(**arguments)
