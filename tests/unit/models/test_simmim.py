"""SimMIM: what the encoder sees, pixel shuffle, the masked loss, the normalized target, and that the task learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax import optim
from swin_jax.models import simmim
from swin_jax.models.swin import Swin, rules
from swin_jax.ops import augmentation, masked_image
from swin_jax.optim import schedules
from swin_jax.tasks import base
from swin_jax.tasks.masked_image import MaskedImageModeling

SIZE, GRID = 16, (4, 4)
FIELDS = dict(
    num_classes=0, image_size=SIZE, embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=2, drop_path_rate=0.0
)


def model(**fields):
    return simmim.SimMIM(Swin(**FIELDS | fields))


def images(count=2, channels=3, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(count, SIZE, SIZE, channels)), jnp.float32)


def masks(count=2, masked=6, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray([rng.permutation(16).reshape(GRID) < masked for _ in range(count)], jnp.float32)


@pytest.fixture(scope="module")
def variables():
    return jax.jit(model().init)(jax.random.key(0), images(), masks())


@jax.jit
def apply(variables, image, mask):
    return model().apply(variables, image, mask)


# ---- model ----


def test_parameters_have_the_official_shapes_and_initial_ranges(variables):
    params = variables["params"]
    assert set(params) == {"encoder", "mask_token", "decoder"} and "head" not in params["encoder"]
    assert params["mask_token"].shape == (1, 1, 16)
    assert params["decoder"]["kernel"].shape == (1, 1, 32, 3 * 8 * 8) and params["decoder"]["bias"].shape == (192,)
    bound = 1 / np.sqrt(32)
    for leaf in jax.tree.leaves(params["decoder"]):
        assert 0.95 * bound < jnp.abs(leaf).max() <= bound
    assert 0 < jnp.abs(params["mask_token"]).max() < 0.1


def test_masked_pixels_are_not_seen(variables):
    image, mask = images(), masks()
    pixels = masked_image.upsample(mask, (SIZE, SIZE))[..., None]
    seen = apply(variables, image, mask)
    assert seen.shape == image.shape and seen.dtype == jnp.float32
    np.testing.assert_array_equal(apply(variables, image + 5 * pixels, mask), seen)
    assert jnp.abs(apply(variables, image + 5 * (1 - pixels), mask) - seen).max() > 1e-3


def test_the_mask_token_matters_only_where_something_is_masked(variables):
    image, other = images(), jax.tree.map(jnp.copy, variables)
    other["params"]["mask_token"] = variables["params"]["mask_token"] + 1
    none = jnp.zeros_like(masks())
    np.testing.assert_array_equal(apply(variables, image, none), apply(other, image, none))
    assert jnp.abs(apply(variables, image, masks()) - apply(other, image, masks())).max() > 1e-3


def test_pixel_shuffle_puts_channels_where_pytorch_does():
    x = jnp.arange(2 * 2 * 3 * 12).reshape(2, 2, 3, 12)
    y = simmim.pixel_shuffle(x, (2, 2))
    assert y.shape == (2, 4, 6, 3)
    for b, row, column, c in np.ndindex(2, 4, 6, 3):
        assert y[b, row, column, c] == x[b, row // 2, column // 2, c * 4 + row % 2 * 2 + column % 2]


def test_pixel_shuffle_over_three_axes():
    x = jnp.arange(1 * 2 * 3 * 1 * 16).reshape(1, 2, 3, 1, 16)
    y = simmim.pixel_shuffle(x, (2, 1, 4))
    assert y.shape == (1, 4, 3, 4, 2)
    for t, row, column, c in np.ndindex(4, 3, 4, 2):
        assert y[0, t, row, column, c] == x[0, t // 2, row, column // 4, c * 8 + t % 2 * 4 + column % 4]


def test_an_image_that_is_no_multiple_of_the_stride_is_named():
    with pytest.raises(ValueError, match=r"\(12, 16\).*\(8, 8\)"):
        jax.eval_shape(model().init, jax.random.key(0), jnp.zeros((1, 12, 16, 3)), jnp.zeros((1, 3, 4)))


def test_flops_are_the_encoder_and_the_decoder():
    """SimMIM's Swin-B at 192 pixels: the decoder is 6 x 6 tokens of 1024 channels to 3,072."""
    encoder = Swin(
        num_classes=0, image_size=192, embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), window_size=6
    )
    assert simmim.SimMIM(encoder).flops() == encoder.flops() + 36 * 1024 * 3072


# ---- ops ----


def test_upsample_repeats_cells_and_names_what_does_not_divide():
    mask = jnp.asarray([[[1, 0], [0, 1]]], jnp.uint8)
    np.testing.assert_array_equal(masked_image.upsample(mask, (4, 6))[0], np.kron(mask[0], np.ones((2, 3), int)))
    np.testing.assert_array_equal(masked_image.upsample(mask, (2, 2)), mask)
    for grid in ((5, 4), (1, 2)):
        with pytest.raises(ValueError, match=r"\(2, 2\) cells"):
            masked_image.upsample(mask, grid)


def test_the_loss_is_the_mean_over_all_masked_pixels_of_the_batch():
    """Images with more masked pixels count more: it is not a mean of means."""
    rng = np.random.default_rng(0)
    predicted, target = rng.normal(size=(2, 3, 6, 6, 3)).astype(np.float32)
    mask = np.zeros((3, 6, 6), np.uint8)
    mask[0, :1], mask[1, :5] = 1, 1
    error, count = masked_image.masked_error(jnp.asarray(predicted), jnp.asarray(target), jnp.asarray(mask))
    expected = np.abs(predicted - target)[mask > 0].mean()
    np.testing.assert_allclose(masked_image.masked_mean(error, count), expected, rtol=1e-6)
    np.testing.assert_array_equal(count, [6, 30, 0])
    assert abs(expected - (error[:2] / count[:2]).mean()) > 1e-4
    assert masked_image.masked_mean(error[2:], count[2:]) == 0.0


@pytest.mark.parametrize("window", [3, 7, 47])
def test_local_statistics_use_the_valid_pixels_and_the_unbiased_variance(window):
    image = np.random.default_rng(0).normal(1, 2, size=(2, 9, 12, 2)).astype(np.float32)
    mean, variance = masked_image.local_statistics(jnp.asarray(image), window)
    half = window // 2
    for b, row, column, c in [(0, 0, 0, 0), (1, 4, 5, 1), (0, 8, 11, 1), (1, 0, 7, 0)]:
        part = image[b, max(row - half, 0) : row + half + 1, max(column - half, 0) : column + half + 1, c]
        np.testing.assert_allclose(mean[b, row, column, c], part.mean(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(variance[b, row, column, c], part.var(ddof=1), rtol=1e-5)
    normalized = masked_image.normalize_locally(jnp.asarray(image), window)
    np.testing.assert_allclose(normalized, (image - mean) / np.sqrt(variance + 1e-6), rtol=1e-6, atol=1e-6)


def test_a_flat_image_is_normalized_to_zero():
    flat = jnp.full((1, 8, 8, 1), 0.7)
    assert jnp.abs(masked_image.normalize_locally(flat, 5)).max() < 1e-2


@pytest.mark.parametrize("window", [1, 46])
def test_an_even_window_is_named(window):
    with pytest.raises(ValueError, match=f"odd and at least 3, not {window}"):
        masked_image.normalize_locally(jnp.zeros((1, 8, 8, 1)), window)


# ---- task ----


def task(**options):
    tx = optim.adamw(schedules.constant(5e-3), no_decay=rules.NO_DECAY, weight_decay=0.0)
    options = dict(channels=1, mean=(0.4,), std=(0.3,)) | options
    return MaskedImageModeling(model(in_channels=options["channels"]), tx, SIZE, **options)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    image = np.tile(rng.integers(0, 256, (8, 4, 4, 1)), (1, 4, 4, 1)).astype(np.uint8)  # each cell tells of the others
    return {"image": jnp.asarray(image), "mask": masks(8).astype(jnp.uint8), "bad": jnp.zeros(8, jnp.uint8)}


@pytest.fixture(scope="module")
def state():
    """Of any task without an average."""
    return jax.jit(task().init)(jax.random.key(0))


@pytest.mark.parametrize("norm_target", [0, 7])
def test_it_learns(batch, state, norm_target):
    item = task(norm_target=norm_target)
    step = jax.jit(item.train_step)
    first, metrics = step(state, batch, {})
    assert set(metrics) == {"loss", "grad_norm", "learning_rate"} and first.step == 1
    losses = [float(metrics["loss"])]
    for _ in range(30):
        first, metrics = step(first, batch, {})
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("norm_target", [0, 7])
def test_the_loss_of_the_step_is_that_of_predict(batch, state, norm_target):
    item = task(norm_target=norm_target)
    _, metrics = jax.jit(item.train_step)(state, batch, {})
    found = jax.jit(item.predict)(state, batch, {})
    assert found["reconstruction"].shape == (8, SIZE, SIZE, 1) and found["pixel_mask"].shape == (8, SIZE, SIZE)
    mean = masked_image.masked_mean(found["error"], found["masked"])
    np.testing.assert_allclose(mean, metrics["loss"], rtol=1e-5)


def test_the_loss_is_in_normalized_units_and_the_reconstruction_in_pixels(batch, state):
    item = task()
    found = jax.jit(item.predict)(state, batch, {})
    assert set(found) == set(base.PREDICTIONS[item.predicts])
    image = batch["image"].astype(jnp.float32) / 255
    difference = jnp.abs(found["reconstruction"] - image)[..., 0] / 0.3
    np.testing.assert_allclose(found["error"], (difference * found["pixel_mask"]).sum((1, 2)), rtol=1e-4)


def test_a_normalized_target_is_undone_with_the_images_own_statistics(batch, state):
    """A model that predicts zeros reconstructs the local mean."""
    item = task(norm_target=7)
    state = state.replace(params=state.params | {"decoder": jax.tree.map(jnp.zeros_like, state.params["decoder"])})
    found = jax.jit(item.predict)(state, batch, {})
    mean, _ = masked_image.local_statistics(augmentation.normalize(batch["image"], (0.0,), (1.0,)), 7)
    np.testing.assert_allclose(found["reconstruction"], mean, atol=1e-5)


def test_masks_of_cells_and_of_tokens_agree(batch, state):
    """A cell of 2 x 2 patches is the same as its four tokens."""
    item = task()
    cells = jnp.asarray(np.random.default_rng(1).integers(0, 2, (8, 2, 2)), jnp.uint8)
    predict = jax.jit(item.predict)
    coarse = predict(state, batch | {"mask": cells}, {})
    fine = predict(state, batch | {"mask": masked_image.upsample(cells, GRID)}, {})
    for name in coarse:
        np.testing.assert_array_equal(coarse[name], fine[name])


def test_accumulation_and_the_average(batch):
    """With as many masked pixels in each image the mean of micro-batches is the mean of the batch."""
    whole, parts = task(), task(accumulate=2, ema_decay=0.5)
    state = jax.jit(parts.init)(jax.random.key(0))
    start = jax.tree.leaves(state.params)[0]
    one, metrics = jax.jit(whole.train_step)(state.replace(ema=None), batch, {})
    two, same = jax.jit(parts.train_step)(state, batch, {})
    np.testing.assert_allclose(same["loss"], metrics["loss"], rtol=1e-5)
    np.testing.assert_allclose(same["grad_norm"], metrics["grad_norm"], rtol=1e-4)
    np.testing.assert_allclose(jax.tree.leaves(two.ema)[0], (start + jax.tree.leaves(two.params)[0]) / 2, atol=1e-6)


def test_facts_for_the_header():
    item = task(mask_cell=8)
    facts = base.describe(item, jax.eval_shape(item.init, jax.random.key(0)))
    assert facts["parameters"] > 1000 and facts["gflops_per_image"] > 0
