"""Positions of a CLIP's image tower that do not lie in a square: told, refused, or stretched along each axis."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import swin_jax
from swin_jax.core.errors import UserError
from swin_jax.models.clip import make_clip
from swin_jax.pretrained.clip import convert, finetune

VIT = dict(
    embed_dim=6,
    vision_layers=1,
    vision_width=64,
    patch_size=4,
    context_length=5,
    vocab_size=20,
    text_width=64,
    text_layers=1,
    act="gelu",
)
RESNET = VIT | dict(vision_layers=(1, 1, 1, 1), vision_width=2, vision_heads=1, patch_size=None)


def random_state(model):
    rng = np.random.default_rng(0)
    return {n: rng.normal(size=s).astype(np.float32) for n, s in convert.official_shapes(model).items()}


def save(tmp_path, fields, image_size, **extra):
    model = make_clip(**fields, image_size=image_size)
    state_dict = random_state(model)
    np.savez(tmp_path / "w.npz", **state_dict, **extra)
    return tmp_path / "w.npz", state_dict


@pytest.mark.parametrize("image_size", [(8, 32), (32, 8), 16])
def test_a_grid_that_nothing_tells_is_refused_and_the_argument_tells_it(tmp_path, image_size):
    file, state_dict = save(tmp_path, VIT, image_size)
    with pytest.raises(UserError, match="grid of these weights' positions is unknown .* give image_size"):
        swin_jax.load(weights=file, act="gelu")
    model, variables = swin_jax.load(weights=file, act="gelu", image_size=image_size)
    assert model.visual.image_size == image_size
    found = variables["params"]["visual"]["positional_embedding"]
    np.testing.assert_array_equal(found, state_dict["visual.positional_embedding"])


@pytest.mark.parametrize("image_size", [(8, 12), (64, 96)])
def test_a_grid_of_no_square_is_refused_by_its_argument(tmp_path, image_size):
    fields = VIT if image_size == (8, 12) else RESNET
    file, _ = save(tmp_path, fields, image_size)
    heads = dict(vision_heads=1, act="gelu")
    with pytest.raises(UserError, match="give image_size"):
        swin_jax.load(weights=file, **heads)
    assert swin_jax.load(weights=file, **heads, image_size=image_size)[0].visual.image_size == image_size


def test_an_archive_tells_that_its_grid_is_square(tmp_path):
    file, _ = save(tmp_path, VIT, 16, input_resolution=np.int64(16))
    assert swin_jax.load(weights=file, act="gelu")[0].visual.image_size == 16


def test_published_shapes_are_square():
    shapes = convert.official_shapes(make_clip(512, vision_layers=1, text_layers=1, patch_size=16))
    file = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    assert convert.told_image_size(file) == convert.told_image_size(file, (112, 448)) == 224


@pytest.mark.parametrize("image_size", [[8, 32], [32, 8], [16, 16], 16])
def test_the_config_beside_the_weights_tells_the_grid(tmp_path, image_size):
    sizes = tuple(image_size) if isinstance(image_size, list) else image_size
    file, state_dict = save(tmp_path, VIT, sizes)
    vision = dict(layers=1, width=64, patch_size=4, image_size=image_size)
    text = dict(context_length=5, vocab_size=20, width=64, heads=1, layers=1)
    config = dict(model_cfg=dict(embed_dim=6, vision_cfg=vision, text_cfg=text))
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    found, variables = swin_jax.load(weights=file)
    assert found.visual.image_size == (16 if image_size in (16, [16, 16]) else sizes)
    wide = dict(image_size=(8, 32) if image_size != [8, 32] else (32, 8))
    with pytest.raises(UserError, match="choose resize="):  # as many positions, in another grid
        swin_jax.load(weights=file, **wide)
    _, resized = swin_jax.load(weights=file, **wide, resize="bicubic")
    kept, changed = (v["params"]["visual"]["positional_embedding"] for v in (variables, resized))
    assert kept.shape == changed.shape and not np.allclose(kept, changed)


@pytest.mark.parametrize("fields", [VIT, RESNET], ids=["vit", "resnet"])
def test_weights_of_a_run_are_fitted_to_another_grid(fields):
    stride = fields["patch_size"] or 32
    sizes = [(2 * stride, 8 * stride), (4 * stride, 4 * stride)]
    wide, square = (make_clip(**fields, image_size=size) for size in sizes)
    source = convert.from_official(random_state(wide), wide, image_size=sizes[0])
    source["config"] = {"task.model.image_size": list(sizes[0]), "task.model.act": "gelu"}
    with pytest.raises(UserError, match="2 x 8 positions, but the model takes 4 x 4: choose resize="):
        finetune.load_pretrained(source, square)
    found = finetune.load_pretrained(source, square, "bicubic")
    assert jax.tree.map(np.shape, found["params"]) == jax.tree.map(np.shape, source["params"])
    kept = finetune.load_pretrained(source, wide)
    jax.tree.map(np.testing.assert_array_equal, kept["params"], source["params"])


def test_as_many_positions_are_not_taken_for_the_models():
    square = random_state(make_clip(**VIT, image_size=16))
    with pytest.raises(UserError, match="the grid of the weights is unknown: .* 17 rows, .* the model's grid is 2 x 8"):
        convert.from_official(square, make_clip(**VIT, image_size=(8, 32)))


def test_features_and_errors_have_the_rectangle():
    model = make_clip(**VIT, image_size=(8, 12))
    image, text = jnp.zeros((1, 8, 12, 3)), jnp.zeros((1, 5), jnp.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image, text)
    visual = {"params": variables["params"]["visual"]}
    (maps,) = jax.eval_shape(lambda v: model.visual.apply(v, image, method="features"), visual)
    assert maps.shape == (1, 2, 3, 64)
    with pytest.raises(UserError, match=r"\(B, 8, 12, 3\)"):
        jax.eval_shape(lambda v: model.visual.apply(v, image.transpose(0, 2, 1, 3)), visual)
    for size, wrong in (((8, 13), "not a multiple of patch_size=4"), ((0, 8), "image_size="), (3, "not a multiple of")):
        with pytest.raises(UserError, match=wrong):
            jax.eval_shape(make_clip(**VIT, image_size=size).init, jax.random.key(0), image, text)
