"""What is said about weights of another family: names as each family's files have them."""

import warnings

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models.swin import Swin
from swin_jax.pretrained import recognize
from swin_jax.pretrained.swin import convert, finetune

MODEL = Swin(num_classes=5, image_size=16, patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4)
FILES = {
    "CLIP": ["token_embedding.weight", "visual.conv1.weight", "transformer.resblocks.0.attn.in_proj_weight"],
    "CLIP ": ["text_model.embeddings.token_embedding.weight", "vision_model.embeddings.class_embedding"],
    "StyleGAN": ["style.1.weight", "convs.0.conv.modulation.bias", "to_rgb1.bias"],
    "StyleGAN ": ["mapping.fc0.weight", "synthesis.b8.conv1.affine.weight"],
    "StyleGAN3": ["mapping.fc0.weight", "synthesis.input.freqs", "synthesis.L0_36_512.affine.weight"],
    "ArcFace's IR-SE50 or e4e": ["input_layer.0.weight", "body.0.res_layer.1.weight", "body.0.res_layer.5.fc1.weight"],
    "Swin-MoE": ["layers.0.blocks.0.norm1.weight", "layers.2.blocks.1.mlp._moe_layer.experts.batched_fc1_w"],
    "Swin2SR": [
        "swin2sr.embeddings.patch_embeddings.projection.weight",
        "swin2sr.encoder.stages.0.layers.0.attention.self.query.weight",
    ],
    "Swin-UNETR": ["swinViT.patch_embed.proj.weight", "swinViT.layers1.0.blocks.0.attn.relative_position_bias_table"],
    "SegFormer or PVT": [
        "segformer.encoder.patch_embeddings.0.proj.weight",
        "segformer.encoder.block.0.0.attention.self.query.weight",
        "segformer.encoder.block.0.0.mlp.dwconv.dwconv.weight",
    ],
    "SegFormer or PVT ": [
        "pvt.encoder.patch_embeddings.3.cls_token",
        "pvt.encoder.block.0.0.attention.self.key.weight",
    ],
    "SegFormer or PVT  ": ["patch_embed1.proj.weight", "block1.0.attn.kv.weight", "block1.0.mlp.dwconv.dwconv.weight"],
    "BERT or another transformer of texts": [
        "bert.embeddings.word_embeddings.weight",
        "bert.embeddings.position_embeddings.weight",
        "bert.encoder.layer.0.attention.self.query.weight",
    ],
    "BERT or another transformer of texts ": [
        "layoutlm.embeddings.word_embeddings.weight",
        "layoutlm.embeddings.x_position_embeddings.weight",
        "layoutlm.encoder.layer.0.attention.self.query.weight",
    ],
    "BLIP": [
        "vision_model.embeddings.class_embedding",
        "vision_model.encoder.layers.0.self_attn.qkv.weight",
        "text_decoder.bert.embeddings.word_embeddings.weight",
        "text_decoder.bert.encoder.layer.0.attention.self.query.weight",
    ],
    "VideoMAE": ["videomae.embeddings.patch_embeddings.projection.weight", "encoder_to_decoder.weight"],
    "MViT": ["cls_token", "patch_embed.proj.weight", "blocks.0.attn.pool_q.weight", "blocks.0.attn.qkv.weight"],
    "EVA-CLIP": ["visual.cls_token", "visual.blocks.0.attn.q_proj.weight", "text.token_embedding.weight"],
    "FocalNet": ["patch_embed.proj.weight", "layers.0.blocks.0.modulation.f.weight", "layers.0.blocks.0.norm1.weight"],
    "OpenMMLab's Swin": [
        "backbone.patch_embed.projection.weight",
        "backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table",
    ],
    "timm's swinv2_cr": ["patch_embed.proj.weight", "stages.0.blocks.0.attn.meta_mlp.fc1.weight"],
    "SimMIM's or BEiT's ViT": ["encoder.cls_token", "encoder.rel_pos_bias.relative_position_bias_table"],
    "SimMIM's or BEiT's ViT ": ["cls_token", "blocks.0.attn.relative_position_bias_table"],
    "ViT": ["cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "head.weight"],
    "ViT ": ["vit.embeddings.cls_token", "vit.encoder.layer.0.attention.attention.query.weight"],
    "ViT of Google's": ["Transformer/encoderblock_0/LayerNorm_0/scale", "embedding/kernel", "cls"],
    "the image tower of Hugging Face's CLIP": ["vision_model.pre_layrnorm.weight", "visual_projection.weight"],
    "ResNet": ["conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "fc.weight"],
    "ResNet ": ["resnet.embedder.embedder.convolution.weight", "classifier.1.weight"],
    "ConvNeXt": ["stages.0.blocks.0.conv_dw.weight", "stem.0.weight"],
}


@pytest.mark.parametrize("name", FILES)
def test_every_foreign_family_is_named_with_what_to_do(name):
    state_dict = {key: np.zeros((8, 3, 2, 2), np.float32) for key in FILES[name]}
    wanted = f"these weights look like {name.strip()}"
    for refuse in (convert.infer, lambda found: convert.from_official(found, MODEL)):
        with pytest.raises(UserError) as error:
            refuse(state_dict)
        message = str(error.value)
        assert message.startswith(wanted) and message.split("Swin-Transformer: ")[1] and "\n" not in message


def test_video_swin_is_known_by_its_patches():
    state_dict = {name: np.zeros(shape, np.float32) for name, shape in convert.official_shapes(MODEL).items()}
    video = state_dict | {"patch_embed.proj.weight": np.zeros((8, 3, 2, 2, 2), np.float32)}
    for file in (video, {f"backbone.{name}": value for name, value in video.items()}):
        for refuse in (convert.infer, lambda found: convert.from_official(found, MODEL)):
            with pytest.raises(UserError, match="look like Video Swin"):
                refuse(file)
        # Its tables are larger too; the family is what matters.
        table = "layers.0.blocks.0.attn.relative_position_bias_table"
        larger = file | {name: np.zeros((225, 1), np.float32) for name in file if name.endswith(table)}
        with pytest.raises(UserError, match="look like Video Swin"), warnings.catch_warnings():
            warnings.simplefilter("error")  # of a head of other classes, for example
            finetune.remap(larger, MODEL.clone(num_classes=7), resize="bicubic")
    assert recognize.recognize(video, axes=3) is None
    assert "2 spatial axes" in recognize.recognize(state_dict, axes=3)


@pytest.mark.parametrize("prefix", ["", "encoder.", "backbone."])
def test_a_swin_is_none_of_them(prefix):
    shapes = convert.official_shapes(MODEL.clone(ape=True)) | {"mask_token": (1, 1, 8), "neck.conv1.weight": (1,)}
    assert recognize.recognize({prefix + name: np.zeros(shape) for name, shape in shapes.items()}) is None
    assert recognize.recognize({"weight": np.zeros(3)}) is None


def test_what_has_the_attention_of_many_families_is_none_of_them():
    names = ["encoder.layer.0.attention.self.query.weight", "encoder.layer.0.attention.output.dense.weight"]
    assert recognize.foreign(dict.fromkeys(names, np.zeros(1))) is None
