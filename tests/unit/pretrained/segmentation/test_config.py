"""A config of transformers beside the weights of an UPerNet: obeyed, compared with the arrays, or refused by name."""

import json
import warnings

import numpy as np
import pytest
from safetensors.numpy import save_file

from swin_jax.core.errors import UserError
from swin_jax.models.segmentation import make_upernet
from swin_jax.models.swin import V2
from swin_jax.pretrained.load import load
from swin_jax.pretrained.segmentation import convert, finetune
from tests.unit.models.segmentation.test_upernet import TINY
from tests.unit.pretrained.segmentation.test_weights import to_hub

SCALES = (1, 2, 4, 8)
BACKBONE = dict(
    model_type="swin",
    image_size=224,
    patch_size=4,
    num_channels=3,
    embed_dim=8,
    depths=[1, 1, 1, 1],
    num_heads=[1, 1, 2, 2],
    window_size=4,
    mlp_ratio=4.0,
    qkv_bias=True,
    hidden_act="gelu",
    layer_norm_eps=1e-5,
    use_absolute_embeddings=False,
    out_features=["stage1", "stage2", "stage3", "stage4"],
)
HUGGING = dict(
    model_type="upernet",
    architectures=["UperNetForSemanticSegmentation"],
    auxiliary_channels=4,
    auxiliary_concat_input=False,
    auxiliary_in_channels=32,
    auxiliary_loss_weight=0.4,
    auxiliary_num_convs=1,
    backbone=None,
    backbone_kwargs=None,
    hidden_size=8,
    initializer_range=0.02,
    loss_ignore_index=255,
    pool_scales=list(SCALES),
    use_auxiliary_head=True,
    use_pretrained_backbone=False,
    use_timm_backbone=False,
)


def weights(**changes):
    rng = np.random.default_rng(0)
    shapes = convert.official_shapes(make_upernet(**TINY | changes))
    return to_hub({name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})


ARRAYS = weights()


def folder(path, fields, backbone, arrays=ARRAYS):
    (path / "config.json").write_text(json.dumps({"backbone_config": BACKBONE | backbone} | HUGGING | fields))
    save_file(arrays, path / "model.safetensors")
    return path


def warned(call, *args):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = call(*args)
    return found, [str(line.message) for line in caught]


def test_a_config_tells_the_grids_that_arrays_do_not(tmp_path):
    (model, _), said = warned(load, None, folder(tmp_path, {}, {}))
    assert model.pool_scales == SCALES and model.backbone.window_size == 4 and not said
    assert model.backbone.image_size == 512  # of the crops; 224 is that of a classifier


def test_the_second_version_without_buffers_loads_by_its_config(tmp_path):
    inside = dict(model_type="swinv2", image_size=256, window_size=4, pretrained_window_sizes=[2, 2, 2, 2])
    place = folder(tmp_path, {}, inside, weights(**V2))
    (model, _), said = warned(load, None, place)
    assert not said and model == make_upernet(
        **TINY | dict(V2, image_size=256, pretrained_window_sizes=(2,) * 4, pool_scales=SCALES)
    )
    found, said = warned(finetune.load_pretrained, str(place), model)
    assert found["params"].keys() == {"auxiliary_head", "backbone", "decode_head"} and not said
    inside["image_size"] = 128  # the last map is one window there, and not shifted
    with pytest.raises(UserError, match="config.json: image_size=128 makes windows of 4"):
        load(weights=folder(tmp_path, {}, inside, weights(**V2)))


REFUSED = dict(
    hidden_size=16,
    auxiliary_channels=8,
    auxiliary_concat_input=True,
    auxiliary_num_convs=2,
    pool_scales=[1, 2, 3],
    backbone="microsoft/swin-tiny-patch4-window7-224",
    use_timm_backbone=True,
    a_new_field=1,
)
INSIDE = dict(hidden_act="relu", layer_norm_eps=1e-2, num_heads=[1, 1, 2, 4], window_size=7, a_new_field=1)


@pytest.mark.parametrize(
    "fields, backbone", [*[({name: x}, {}) for name, x in REFUSED.items()], *[({}, {n: x}) for n, x in INSIDE.items()]]
)
def test_a_field_that_is_not_obeyed_or_contradicts_the_arrays_is_refused_by_its_name(tmp_path, fields, backbone):
    (name,) = fields | backbone
    place = folder(tmp_path, fields, backbone)
    for call in (lambda: load(weights=place), lambda: finetune.load_pretrained(str(place), make_upernet(**TINY))):
        with pytest.raises(UserError, match=f"config.json: {name}="):
            call()


def test_a_run_that_pools_to_other_grids_than_the_file_that_it_starts_from_is_told(tmp_path):
    """The arrays of both are alike. Whoever takes the backbone alone may go on."""
    place, other = folder(tmp_path, {}, {}), make_upernet(**TINY)
    (line,) = warned(finetune.load_pretrained, str(place), other)[1]
    assert "pools to grids of" in line and "--config.task.model.pool_scales=(1, 2, 4, 8)" in line
    assert not warned(finetune.load_pretrained, str(place), make_upernet(**TINY, pool_scales=SCALES))[1]


def test_the_config_of_another_model_is_said_not_to_be_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(BACKBONE))
    save_file(ARRAYS, tmp_path / "model.safetensors")
    for call in (load, finetune.load_pretrained):
        arguments = (None, tmp_path) if call is load else (str(tmp_path), make_upernet(**TINY))
        said = warned(call, *arguments)[1]
        assert len(said) == 1 and "config.json is not read: it describes no UPerNet" in said[0]
