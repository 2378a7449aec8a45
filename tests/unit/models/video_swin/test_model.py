"""Video Swin: sizes, the static video, the three designs, and what is said about bad input."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core import stacking
from swin_jax.core.params import flatten, unflatten
from swin_jax.models.swin import V2, Swin
from swin_jax.models.video_swin import PRESETS, make_video_swin, param_shapes
from swin_jax.pretrained.swin import convert as convert_swin
from swin_jax.pretrained.video_swin import convert

# Parameters and multiply-accumulates in G: README and paper (tables 1 to 5), recomputed to more digits.
SIZES = {
    "swin_tiny_patch244_window877_kinetics400_1k": (28_158_070, 87.76),
    "swin_small_patch244_window877_kinetics400_1k": (49_816_678, 165.68),
    "swin_base_patch244_window877_kinetics400_1k": (88_048_984, 281.33),
    "swin_base_patch244_window877_kinetics400_22k": (88_048_984, 281.33),
    "swin_base_patch244_window877_kinetics600_22k": (88_253_984, 281.33),
    "swin_base_patch244_window1677_kinetics400_22k": (89_065_688, 320.36),
    "swin_base_patch244_window1677_sthv2": (88_834_038, 320.36),
    "swin_large_patch244_window877_kinetics400_22k": (196_953_916, 603.27),
    "swin_large_patch244_window877_kinetics700_22k": (197_415_016, 603.27),
    "swin_large_384_patch244_window81212_kinetics400_22k": (199_999_516, 2106.38),
    "swin_large_384_patch244_window81212_kinetics600_22k": (200_306_916, 2106.38),
    "video_swinv2_tiny_patch244_window888_kinetics400": (27_896_506, None),
    "video_swinv2_small_patch244_window888_kinetics400": (49_283_914, None),
    "video_swinv2_base_patch244_window888_kinetics400": (87_322_248, None),
    "video_swinv2_base_384_patch244_window81212_kinetics400": (87_322_248, None),
    "video_swinv2_giant_320_patch244_window82020_kinetics400": (2_999_532_656, None),
}
TINY = PRESETS["swin_tiny_patch244_window877_kinetics400_1k"]
# Ablations of Swin-T: fields, parameters, G.
VARIED = [
    (dict(window_size=(16, 7, 7)), None, 105.70),
    (dict(window_size=(4, 7, 7)), None, 78.80),
    (dict(image_size=(16, 224, 224)), 28_158_070, 43.88),
    (dict(image_size=(8, 224, 224), window_size=(4, 7, 7)), None, 19.70),
    (dict(num_classes=600), 28_311_870, None),
    (dict(num_classes=174), 27_984_276, None),
    (dict(num_classes=0), 27_850_470, None),
    (dict(design="split"), 42_010_330, 83.20),  # paper: 42.0 M, 83 G
    (dict(design="factorized"), 36_486_316, 94.63),  # paper: 36.5 M, 95 G
]
SMALL = dict(
    num_classes=3,
    image_size=(8, 16, 16),
    patch_size=(2, 2, 2),
    window_size=(2, 2, 2),
    embed_dim=8,
    depths=(2, 2),
    num_heads=(1, 2),
)
FLAT = dict(num_classes=0, image_size=16, patch_size=2, window_size=2, embed_dim=8, depths=(2, 2), num_heads=(1, 2))


def count(model):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(param_shapes(model)))


@pytest.mark.parametrize("name", PRESETS)
def test_size(name):
    """Blocks are stored in stacks, because those are traced in a third of the time; those below one by one."""
    model = make_video_swin(**PRESETS[name], scan=True)
    parameters, giga = SIZES[name]
    assert count(model) == parameters
    assert giga is None or round(model.flops() / 1e9, 2) == giga


@pytest.mark.parametrize("fields, parameters, giga", VARIED, ids=lambda value: str(value))
def test_size_of_variants(fields, parameters, giga):
    model = make_video_swin(**TINY | fields)
    assert parameters is None or count(model) == parameters
    assert giga is None or round(model.flops() / 1e9, 2) == giga


def products(jaxpr):
    """Multiply-accumulates of all matrix products of a program."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            total += products(inner) if hasattr(inner, "eqns") else 0
    return total


@pytest.mark.parametrize("design", ["joint", "split", "factorized"])
@pytest.mark.parametrize("size", [(8, 16, 16), (7, 21, 13)])
def test_flops_are_the_matrix_products_of_the_program(design, size):
    model = make_video_swin(**SMALL | dict(design=design, image_size=size, window_size=(3, 2, 4)))
    video = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    assert products(jax.make_jaxpr(model.apply)(param_shapes(model), video).jaxpr) == model.flops()


def random_params(model, spread=0.2):
    """Parameters that depend on names and shapes only, no branch silent; in the storage of the model."""
    rng = np.random.default_rng(0)
    flat = flatten(param_shapes(make_video_swin_of(model, scan=False))["params"])
    flat = {
        path: (float(path.endswith("/scale")) + spread * rng.normal(size=flat[path].shape)).astype(np.float32)
        for path in sorted(flat)
    }
    return {"params": stacking.stack_as(unflatten(flat), model.backbone)}


def make_video_swin_of(model, **fields):
    return model.clone(backbone=model.backbone.clone(parent=None, **fields), parent=None)


def video(*shape):
    return jax.random.normal(jax.random.key(1), (*shape, 3))


def apply(model, variables, x, **kwargs):
    return jax.jit(lambda v, x: model.apply(v, x, **kwargs))(variables, x)


@pytest.mark.parametrize(
    "design, fields",
    [("joint", {}), ("joint", V2), ("split", {}), ("factorized", V2)],
    ids=["joint-v1", "joint-v2", "split-v1", "factorized-v2"],
)
def test_a_static_video_has_the_features_of_its_image(design, fields):
    """Inflated weights; time is shifted and masked, not padded: padding is seen. Attention along time is left out."""
    flat = Swin(**FLAT, **fields)
    rng = np.random.default_rng(0)
    image_weights = {
        name: rng.normal(size=shape).astype(np.float32) / math.sqrt(math.prod(shape[1:]))
        for name, shape in convert_swin.official_shapes(flat).items()
    }
    deep = make_video_swin(**SMALL | fields | dict(num_classes=0, design=design))
    params = flatten(random_params(deep)["params"]) | flatten(convert.inflate(image_weights, deep)["params"])
    params = {path: leaf * 0 if path.endswith("temporal/gate") else leaf for path, leaf in params.items()}
    image = video(2, 16, 16)
    clip = jnp.repeat(image[:, None], 8, axis=1)
    wanted = apply(flat, convert_swin.from_official(image_weights, flat), image)
    maps = apply(deep.clone(temporal_layers=0), {"params": unflatten(params)}, clip)
    np.testing.assert_allclose(maps, wanted, atol=2e-5)


def test_a_centered_patch_sees_its_own_frame():
    flat, deep = Swin(**FLAT), make_video_swin(**SMALL)
    weights = {name: np.ones(shape, np.float32) for name, shape in convert_swin.official_shapes(flat).items()}
    kernel = convert.inflate(weights, deep, patch="center")["params"]["backbone"]["patch_embed"]["proj"]["kernel"]
    assert kernel.shape == (2, 2, 2, 3, 8)
    assert not kernel[0].any() and (kernel[1] == 1).all()


@pytest.mark.parametrize("fields", [{}, V2], ids=["v1", "v2"])
def test_factorized_starts_as_the_spatial_model(fields):
    fields = SMALL | fields | dict(depths=(2,), num_heads=(1,))
    factorized = make_video_swin(**fields | dict(design="factorized"))
    spatial = make_video_swin(**fields | dict(window_size=(1, 2, 2)))
    fresh = jax.jit(factorized.init)(jax.random.key(0), video(1, 8, 16, 16))
    flat = flatten(fresh["params"])
    gates = [path for path in flat if path.endswith("temporal/gate")]
    assert len(gates) == 2 and not any(flat[path].any() for path in gates)
    # Not a model that is silent anyway: version 2's branches start from zero.
    flat = {path: leaf + 0.1 if path.endswith("scale") else leaf for path, leaf in flat.items()}
    without = {path: leaf for path, leaf in flat.items() if "/temporal/" not in path}
    x = video(2, 8, 16, 16)
    np.testing.assert_array_equal(
        apply(factorized, {"params": unflatten(flat)}, x), apply(spatial, {"params": unflatten(without)}, x)
    )
    loss = jax.jit(jax.grad(lambda p: factorized.apply({"params": p}, x).var()))
    gradient = flatten(loss(unflatten(flat)))
    assert all(abs(float(gradient[path])) > 1e-9 for path in gates)


@pytest.mark.parametrize(
    "design, reached", [("joint", "neighbors"), ("split", "all frames"), ("factorized", "neighbors")]
)
def test_which_frames_see_each_other(design, reached):
    """One block, windows of two frame tokens: token 0 sees frames 0 to 3, under 'split' all of them."""
    model = make_video_swin(**SMALL | dict(design=design, depths=(1,), num_heads=(1,), num_classes=0))
    variables = random_params(model)

    def first_frame(x):
        return model.apply(variables, x, method="encode")[0, 0].var()

    seen = np.abs(jax.jit(jax.grad(first_frame))(video(1, 8, 16, 16))).sum(axis=(0, 2, 3, 4)) > 0
    assert seen.tolist() == [True] * 4 + [reached == "all frames"] * 4


def test_the_temporal_shift_lets_windows_meet():
    model = make_video_swin(**SMALL | dict(design="factorized", depths=(2,), num_heads=(1,), num_classes=0))
    variables = random_params(model)

    def second_token(x):
        return model.apply(variables, x, method="encode")[0, 1].var()

    seen = np.abs(jax.jit(jax.grad(second_token))(video(1, 8, 16, 16))).sum(axis=(0, 2, 3, 4)) > 0
    assert seen.all()  # windows (0, 1)(2, 3), then (1, 2)


@pytest.mark.parametrize(
    "design, other", [("factorized", dict(scan=True, remat="dots")), ("split", dict(remat="full"))], ids=str
)
def test_storage_and_recomputation_do_not_change_the_function(design, other):
    fields = SMALL | dict(design=design, depths=(4,), num_heads=(1,), drop_path_rate=0.3)
    x = video(2, 6, 16, 16)

    def loss(model):
        value = lambda v: model.apply(v, x, train=True, rngs={"dropout": jax.random.key(3)}).var()  # noqa: E731
        value, gradient = jax.jit(jax.value_and_grad(value))(random_params(model))
        return value, stacking.unstack(gradient["params"])

    plain, model = make_video_swin(**fields), make_video_swin(**fields | other)
    assert any("units_2" in path for path in flatten(param_shapes(model))) == model.backbone.scan
    for found, wanted in zip(jax.tree.leaves(loss(model)), jax.tree.leaves(loss(plain)), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("design", ["split", "factorized"])
def test_bfloat16_keeps_float32_parameters_and_logits(design):
    fields = SMALL | dict(design=design, depths=(2,), num_heads=(1,))
    model, half = make_video_swin(**fields), make_video_swin(**fields, dtype="bfloat16")
    variables = random_params(model, 0.05)
    x = video(2, 8, 16, 16)
    logits = apply(half, variables, x)
    assert logits.dtype == jnp.float32 and all(
        leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(param_shapes(half))
    )
    np.testing.assert_allclose(logits, apply(model, variables, x), atol=0.02)


def test_head_is_pooling_dropout_and_one_layer():
    fields = SMALL | dict(depths=(1,), num_heads=(1,), drop_path_rate=0.0)
    model = make_video_swin(**fields, dropout_rate=0.5)
    variables, x = random_params(model), video(2, 8, 16, 16)
    pooled = apply(model.clone(num_classes=0), {"params": {"backbone": variables["params"]["backbone"]}}, x)
    head = variables["params"]["cls_head"]["fc_cls"]
    np.testing.assert_allclose(
        apply(model, variables, x), np.asarray(pooled) @ head["kernel"] + head["bias"], atol=1e-5
    )
    train = lambda key: model.apply(variables, x, train=True, rngs={"dropout": key})  # noqa: E731
    draws = np.asarray(jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), 400)))
    assert draws.std(axis=0).min() > 0.01
    np.testing.assert_allclose(draws.mean(axis=0), apply(model, variables, x), atol=5 * draws.std() / 20)
    kernel = jax.jit(make_video_swin(**fields | dict(num_classes=1000)).init)(jax.random.key(0), x)
    kernel = kernel["params"]["cls_head"]["fc_cls"]["kernel"]
    assert kernel.shape == (8, 1000) and 0.0095 < kernel.std() < 0.0105


def test_features_are_maps_before_merging():
    model = make_video_swin(**SMALL)
    variables = random_params(model)
    shapes = jax.eval_shape(lambda v, x: model.apply(v, x, method="features"), variables, video(2, 8, 16, 16))
    assert [x.shape for x in shapes] == [(2, 4, 8, 8, 8), (2, 4, 4, 4, 16)]


@pytest.mark.parametrize(
    "clip, error, message",
    [
        (np.zeros((1, 8, 16, 16, 3), np.uint8), ValueError, r"videos are uint8.*swin_jax.preprocess"),
        (np.zeros((1, 16, 16, 3), np.float32), ValueError, r"an image, or a clip without its batch axis"),
        (np.zeros((1, 0, 16, 16, 3), np.float32), ValueError, "has no frames"),
        (
            np.zeros((1, 8, 16, 16, 1), np.float32),
            ValueError,
            r"\(batch, frames, height, width, 3\), not \(1, 8, 16, 16, 1\)(\n|$)",
        ),
        (np.zeros((1, 3, 8, 16, 16), np.float32), ValueError, r"channels first\? jnp.moveaxis\(video, 1, -1\)"),
        (np.zeros((1, 8, 3, 16, 16), np.float32), ValueError, r"channels first\? jnp.moveaxis\(video, 2, -1\)"),
    ],
)
def test_bad_clips_are_refused(clip, error, message):
    model = make_video_swin(**SMALL)
    with pytest.raises(error, match=message):
        jax.eval_shape(model.apply, param_shapes(model), clip)


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(design="factored"), "not one of"),
        (dict(image_size=224), "image_size=224: it must be a tuple of 3 whole numbers"),
        (dict(window_size=(7, 7)), r"window_size=\(7, 7\): it must be a tuple of 3 whole numbers"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        make_video_swin(**SMALL | fields)
