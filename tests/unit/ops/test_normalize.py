"""Everything that divides by a length or a deviation, at zeros, in each dtype, forward and backward."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from swin_jax.evals import features
from swin_jax.models import clip, layers, swin
from swin_jax.models.clip import make_clip
from swin_jax.ops import contrastive, masked_image, normalize
from swin_jax.optim.optimizers import clip_by_norm

DTYPES = ("float32", "bfloat16", "float16")
PACKAGE = pathlib.Path(normalize.__file__).parents[1]


def gradient(function, x):
    """Of a sum with weights as large as a logit scale makes them."""
    weigh = lambda y: (y.astype(jnp.float32) * (100 * jnp.arange(y.size, dtype=jnp.float32).reshape(y.shape))).sum()  # noqa: E731
    return jax.grad(lambda x: weigh(function(x)))(x)


def layer_norm(x):
    norm = layers.layer_norm(x.dtype)
    return norm.apply({"params": {"scale": jnp.ones(x.shape[-1]), "bias": jnp.zeros(x.shape[-1])}}, x)


def batch_norm(x):
    norm, shape = layers.batch_norm(dict(dtype=x.dtype, param_dtype="float32")), x.shape[-1]
    variables = {"params": {"scale": jnp.ones(shape), "bias": jnp.zeros(shape)}}
    variables["batch_stats"] = {"mean": jnp.zeros(shape), "var": jnp.ones(shape)}
    return norm.apply(variables, x, use_running_average=False, mutable=["batch_stats"])[0]


def softmax_loss(x):
    text = clip.normalize(jnp.ones_like(x))
    return contrastive.softmax_loss(clip.normalize(x), text, jnp.float32(100), jnp.arange(len(x)))[0]


def sigmoid_loss(x):
    text = clip.normalize(jnp.ones_like(x))
    return contrastive.sigmoid_loss(clip.normalize(x), text, jnp.float32(100), jnp.float32(-10), jnp.arange(len(x)))[0]


USERS = {
    "unit": normalize.unit,
    "latents of StyleGAN2": normalize.unit_power,
    "features of CLIP": clip.normalize,
    "layer norm": layer_norm,
    "batch norm": batch_norm,
    "softmax loss": softmax_loss,
    "sigmoid loss": sigmoid_loss,
    "ring": lambda x: contrastive.ring_softmax_loss(
        clip.normalize(x), clip.normalize(x), jnp.float32(100), jnp.arange(len(x)), (), 2
    )[0],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", USERS)
def test_zeros_and_the_smallest_numbers_have_finite_values_and_gradients(name, dtype):
    tiny = jnp.finfo(dtype).smallest_subnormal if dtype == "float16" else jnp.finfo(dtype).tiny
    for value in (0, tiny, jnp.finfo(dtype).tiny, 1e-4):
        x = jnp.full((4, 4), value, dtype)
        x = x.at[0].set(0)
        found, slope = USERS[name](x), gradient(USERS[name], x)
        assert np.isfinite(np.asarray(found, np.float32)).all(), value
        assert slope.dtype == x.dtype and np.isfinite(np.asarray(slope, np.float32)).all(), value


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_target_of_simmim_is_finite_where_nothing_varies(dtype):
    for value in (0.0, 1e-4, 3.0):
        image = jnp.full((1, 4, 4, 1), value, dtype)
        np.testing.assert_allclose(masked_image.normalize_locally(image, 3), 0, atol=1e-3)


def test_zeros_have_no_gradient_and_others_that_of_a_direction():
    x = jnp.array([[0.0, 0, 0], [3, 0, 4]])
    np.testing.assert_array_equal(normalize.unit(x), np.float32([[0, 0, 0], [0.6, 0, 0.8]]))
    slope = jax.grad(lambda x: normalize.unit(x)[:, 0].sum())(x)
    np.testing.assert_allclose(slope, [[0, 0, 0], [0.64 / 5, 0, -0.48 / 5]], atol=1e-6)


@pytest.mark.parametrize("transform", [jax.jit, jax.checkpoint, jax.vmap], ids=lambda f: f.__name__)
def test_half_precision_goes_through_transformations(transform):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)), jnp.float16)
    found = jax.grad(lambda x: (transform(normalize.unit)(x) ** 3).sum())(x)
    wanted = jax.grad(lambda x: (normalize.unit(x) ** 3).sum())(x.astype(jnp.float32))
    np.testing.assert_allclose(np.asarray(found, np.float32), wanted, atol=2e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(20, 20), (12, 20)], ids=str)
def test_a_padded_swin_v2_has_finite_gradients(size, dtype):
    fields = dict(embed_dim=8, depths=(2,), num_heads=(2,), window_size=4, num_classes=3, small="keep")
    model = swin.Swin(**fields, **swin.V2, image_size=24, dtype=dtype, drop_path_rate=0.0)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, *size, 3)), jnp.float32)
    variables = model.init(jax.random.key(0), image)
    # Norms at the ends of the branches start from zero: with ones, all that lies behind them has a gradient.
    params = jax.tree.map(lambda leaf: leaf + 0.1, variables["params"])
    params["layers_0"]["blocks_0"]["attn"]["q_bias"] *= 0

    @jax.jit
    def loss(params, image):
        return (100 * model.apply({"params": params}, image)).sum()

    for picture in (image, jnp.zeros_like(image)):
        found = jax.grad(loss, argnums=(0, 1))(params, picture)
        assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(found))


CLIP = dict(embed_dim=8, vision_width=8, vision_heads=2, context_length=4, vocab_size=9, text_width=8, text_heads=2)
TOWERS = {
    "vit": dict(image_size=8, patch_size=4, vision_layers=1),
    "resnet": dict(image_size=32, patch_size=None, vision_layers=(1, 1, 1, 1)),
}


@pytest.mark.parametrize("tower", TOWERS)
def test_a_clip_in_float16_has_finite_features_and_gradients_of_zeros(tower):
    model = make_clip(**CLIP | TOWERS[tower], text_layers=1, dtype="float16")
    image, ids = jnp.zeros((2, *(TOWERS[tower]["image_size"],) * 2, 3)), jnp.zeros((2, 4), jnp.int32)
    variables = jax.jit(model.init)(jax.random.key(0), image, ids)
    rest = {name: value for name, value in variables.items() if name != "params"}

    @jax.jit
    def loss(params, image):
        seen = lambda m, *x: (m.encode_image(x[0], train=True, normalize=True), m.encode_text(x[1], normalize=True))  # noqa: E731
        found, _ = model.apply({"params": params, **rest}, image, ids, method=seen, mutable=[*rest])
        return sum((100 * jnp.arange(8)[None] * part).sum() for part in found)

    value, found = jax.value_and_grad(loss, argnums=(0, 1))(variables["params"], image)
    assert np.isfinite(value) and all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_features_and_clipping_of_zeros_are_finite(dtype):
    zeros = np.zeros((2, 3), jnp.dtype(dtype))
    np.testing.assert_array_equal(features.normalize(zeros), np.zeros((2, 3), np.float32))
    grads = {"a": jnp.asarray(zeros), "b": jnp.zeros((), dtype)}
    tx = clip_by_norm(1.0)
    updates, state = tx.update(grads, tx.init(grads))
    assert float(state.grad_norm) == 0 and float(optax.tree.norm(updates)) == 0


def test_nobody_else_divides_by_a_length():
    own = re.compile(r"1e-(12|24)\b|rsqrt\(|jnp\.linalg\.norm")
    found = [str(path) for path in PACKAGE.rglob("*.py") if own.search(path.read_text("utf-8"))]
    assert found == [normalize.__file__]
