"""Masks: exactly as many cells as the ratio says, uniform, reproducible; what does not divide is named."""

import functools

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.data import fake, pipeline
from swin_jax.data.image import masking
from swin_jax.data.image import small as small_image


@pytest.mark.parametrize(
    "size, cell, ratio, side, count", [(192, 32, 0.6, 6, 22), (32, 4, 0.6, 8, 39), (8, 4, 0.5, 2, 2)]
)
def test_the_number_of_masked_cells_is_rounded_up(size, cell, ratio, side, count):
    assert masking.masked_cells(size, cell, 4, ratio) == (side, count)
    for seed in range(20):
        mask = masking.random_mask((side, side), count, np.random.default_rng(seed))
        assert mask.shape == (side, side) and mask.dtype == np.uint8
        assert mask.sum() == count and set(np.unique(mask)) <= {0, 1}


def test_every_cell_is_masked_equally_often():
    rng = np.random.default_rng(0)
    share = np.mean([masking.random_mask((3, 4), 5, rng) for _ in range(6000)], axis=0)
    assert abs(share - 5 / 12).max() < 5 * np.sqrt(5 / 12 * 7 / 12 / 6000)


@pytest.mark.parametrize(
    "arguments, numbers",
    [
        ((192, 40, 4, 0.6), ("40", "192")),
        ((192, 32, 5, 0.6), ("5", "32")),
        ((192, 32, 64, 0.6), ("64", "32")),
        ((192, 0, 4, 0.6), ("cell=0:",)),
        ((192, 32, 4, 1.0), ("1.0", "36")),
        ((192, 32, 4, 0.99), ("0.99", "36")),
        ((192, 32, 4, 0.0), ("0.0", "36")),
        ((192, 32, 4, 1.5), ("ratio=1.5:",)),
        ((192, 32, 4, float("nan")), ("ratio=nan:",)),
        ((24, 24, 4, 0.6), ("24", "1")),
    ],
)
@pytest.mark.parametrize("make", [masking.mask_train_transform, masking.mask_eval_transform])
def test_what_does_not_divide_is_named(make, arguments, numbers):
    with pytest.raises(UserError) as error:
        make(lambda example: example, *arguments)
    assert all(number in str(error.value).split() for number in numbers)


def test_training_masks_differ_between_images_and_visits_and_are_a_function_of_the_step():
    transform = masking.mask_train_transform(small_image.small_train_transform(16, channels=1), 16, cell=4)
    data = pipeline.TrainData(fake.images(16, num_examples=8, channels=1), transform, batch_size=8)
    batches = data.batches(0, range(8))
    first, second = next(batches), next(batches)
    batches.close()
    assert set(first) == {"image", "mask", "bad"} and first["mask"].shape == (8, 4, 4)
    assert first["mask"].dtype == np.uint8 and first["image"].shape == (8, 16, 16, 1)
    assert (first["mask"].reshape(8, -1).sum(1) == 10).all()
    assert len({mask.tobytes() for batch in (first, second) for mask in batch["mask"]}) > 12
    again = data.batches(1, range(8))
    resumed = next(again)
    again.close()
    np.testing.assert_array_equal(resumed["mask"], second["mask"])
    np.testing.assert_array_equal(resumed["image"], second["image"])


def test_the_image_is_that_of_the_inner_transform():
    inner = small_image.small_train_transform(16, padding=2, hflip=0.5, channels=1)
    example = fake.images(16, num_examples=4, channels=1)[1]
    made = masking.mask_train_transform(inner, 16, cell=4)(example, np.random.default_rng(3))
    np.testing.assert_array_equal(made["image"], inner(example, np.random.default_rng(3))["image"])


def test_evaluation_masks_are_fixed_and_do_not_depend_on_the_batch():
    make = functools.partial(masking.mask_eval_transform, small_image.small_eval_transform(16, channels=1), 16, cell=4)
    source = fake.images(16, num_examples=8, channels=1)

    def masks(transform, batch_size):
        data = pipeline.EvalData(source, transform, batch_size)
        return np.concatenate([batch["mask"] for batch in data.batches(batch_size, range(batch_size))])[:8]

    whole = masks(make(), 8)
    assert (whole.reshape(8, -1).sum(1) == 10).all() and len({mask.tobytes() for mask in whole}) > 5
    np.testing.assert_array_equal(masks(make(), 3), whole)
    assert (masks(make(seed=1), 8) != whole).any()


@pytest.mark.parametrize(
    "size, cell, patch, grid",
    [((32, 64), 8, 4, (4, 8)), ((64, 32), (16, 8), (4, 2), (4, 4)), ((24, 64), (8, 16), 4, (3, 4))],
)
def test_masks_of_rectangles_have_a_cell_for_each(size, cell, patch, grid):
    found, count = masking.masked_cells(size, cell, patch, 0.5)
    assert found in (grid, grid[0]) and count == -(-grid[0] * grid[1] // 2)
    image = {"image": np.zeros((*size, 3), np.uint8)}
    train = masking.mask_train_transform(lambda x, rng: x, size, cell, patch, 0.5)
    fixed = masking.mask_eval_transform(lambda x: x, size, cell, patch, 0.5)
    for mask in (train(image, np.random.default_rng(0))["mask"], fixed(image)["mask"]):
        assert mask.shape == grid and mask.sum() == count


@pytest.mark.parametrize("size, cell, patch", [((32, 60), 8, 4), ((32, 64), (8, 10), 4), ((32, 64), (8, 8), (4, 3))])
def test_cells_that_leave_a_rest_along_one_axis_are_refused(size, cell, patch):
    with pytest.raises(UserError, match="does not divide"):
        masking.masked_cells(size, cell, patch, 0.5)
