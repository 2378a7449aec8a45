"""The masked loss over whole sets, against numpy: any length, any batch size, padding, any mesh; and the picture."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.evals import reconstruction
from swin_jax.evals.reconstruction import Reconstruction
from swin_jax.train import sharding

H, W = 4, 6


@dataclasses.dataclass(frozen=True)
class Rows:
    """As `data.pipeline.EvalData`: the last batch is filled with copies of the last row, of weight 0."""

    image: np.ndarray
    mask: np.ndarray
    batch_size: int

    @property
    def num_examples(self):
        return len(self.image)

    def batches(self, batch_size, rows):
        last = len(self.image) - 1
        for start in range(0, len(self.image), batch_size):
            positions = np.array([start + row for row in rows])
            index = np.minimum(positions, last)
            weight = (positions <= last).astype(np.float32)
            yield {"image": self.image[index], "mask": self.mask[index], "weight": weight, "bad": weight}


class Shifted:
    """A task that is off by the state, everywhere, and more in brighter images."""

    predicts = "reconstruction"

    def predict(self, state, batch, frozen):
        image = batch["image"].astype(jnp.float32) / 255
        masked = batch["mask"].astype(jnp.float32).sum((1, 2))
        error = masked * (state + image.mean((1, 2, 3)))
        return {"reconstruction": image + state, "pixel_mask": batch["mask"], "error": error, "masked": masked}


def rows(count, batch_size, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (count, H, W, 1)).astype(np.uint8)
    return Rows(image, rng.integers(0, 2, (count, H, W)).astype(np.uint8), batch_size)


def evaluate(data, sizes=(8, 1, 1), state=0.25, **options):
    placement = sharding.Placement(sharding.make_mesh(*sizes))
    return Reconstruction(data, **options).bind(Shifted(), placement)(jnp.float32(state), {})


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("count, batch_size", [(36, 10), (3, 10), (16, 8), (17, 8)])
def test_equal_to_numpy_on_8_devices(count, batch_size, sizes):
    data = rows(count, batch_size)
    found = evaluate(data, sizes)
    masked = data.mask.sum((1, 2))
    expected = (masked * (0.25 + data.image.mean((1, 2, 3)) / 255)).sum() / masked.sum()
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-6)
    assert isinstance(found["loss"], float)
    assert found == evaluate(data, sizes) | {"reconstruction": found["reconstruction"]}


def test_padding_counts_nothing():
    """The last row has by far the largest error, so that copies of it would show."""
    data = rows(9, 8)
    data.image[:8], data.image[8] = 0, 255
    data.mask[:] = 1
    np.testing.assert_allclose(evaluate(data, state=0.0)["loss"], 1 / 9, rtol=1e-6)


@pytest.mark.parametrize("count, pictures, drawn", [(20, 8, 8), (3, 8, 3), (20, 30, 16), (20, 0, 0)])
def test_the_picture_shows_the_first_images(count, pictures, drawn):
    data = rows(count, 16)
    found = evaluate(data, pictures=pictures)
    if not drawn:
        assert set(found) == {"loss"}
        return
    picture = found["reconstruction"][:: 96 // H, :: 96 // H]  # small images are shown larger
    assert picture.dtype == np.uint8 and picture.shape == (drawn * (H + 2) - 2, 3 * (W + 2) - 2, 1)
    for i in range(drawn):
        row = picture[i * (H + 2) : i * (H + 2) + H]
        hidden = data.mask[i] > 0
        np.testing.assert_array_equal(row[:, :W], data.image[i])
        assert (row[:, W + 2 : 2 * W + 2][hidden] == 128).all()
        filled = np.round(np.clip(data.image[i] / np.float32(255) + 0.25, 0, 1) * 255)
        assert np.abs(row[:, 2 * W + 4 :][hidden] - filled[hidden]).max() <= 1
        for column in (1, 2):
            start = column * (W + 2)
            np.testing.assert_array_equal(row[:, start : start + W][~hidden], data.image[i][~hidden])


def test_what_is_outside_the_pixels_is_clipped():
    image = np.zeros((1, 2, 2, 3), np.uint8)
    wild = np.array([-1.0, 2.0, np.nan, 0.5], np.float32).reshape(1, 2, 2, 1).repeat(3, -1)
    picture = reconstruction.grid(image, np.ones((1, 2, 2)), wild)
    assert picture.shape == (2, 10, 3)
    np.testing.assert_array_equal(picture[:, 8:, 0], [[0, 255], [0, 128]])
    assert (picture[:, 2:4] == 255).all() and (picture[:, 4:6] == 128).all()
