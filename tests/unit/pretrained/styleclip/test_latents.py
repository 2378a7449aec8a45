"""Latents as a data source: files of W+ and S, and z of a seed."""

import pickle

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models.stylegan2.style_space import style_layers
from swin_jax.pretrained.styleclip.latents import latents, styles

CHANNELS = [layer.channels for layer in style_layers(8, 128, 8)]


def write_styles(path, channels=CHANNELS, count=3):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((count, 1, width, 1, 1)).astype(np.float32) for width in channels]
    path.write_bytes(pickle.dumps(arrays))
    return arrays


def test_files_of_w_plus_are_records(tmp_path):
    ws = np.random.default_rng(0).standard_normal((3, 4, 6)).astype(np.float32)
    np.save(tmp_path / "w_plus.npy", ws)
    source = latents(str(tmp_path / "w_plus.npy"), 8, w_dim=6)
    assert len(source) == 3 and "w_plus.npy 2" in source.record_name(2)
    np.testing.assert_array_equal(source[1]["latent"], ws[1])
    with pytest.raises(UserError, match="the generator's are \\(n, 6, 6\\)"):
        latents(str(tmp_path / "w_plus.npy"), 16, w_dim=6)


def test_drawn_latents_depend_on_the_seed_and_their_number_alone():
    few, many, other = (latents("", 8, 6, count=count, seed=seed) for count, seed in ((2, 0), (5, 0), (5, 1)))
    np.testing.assert_array_equal(few.rows, many.rows[:2])
    assert (many.rows != other.rows).all() and many[0]["latent"].shape == (6,)
    assert len(latents("", 8, 6)) == 5000


def test_lists_of_styles_are_records_layer_by_layer(tmp_path):
    arrays = write_styles(tmp_path / "styles")
    source = styles(str(tmp_path / "styles"), 8, 128, 8)
    np.testing.assert_array_equal(source[2]["styles"], np.concatenate([array[2].ravel() for array in arrays]))
    named = [[f"layer {i}" for i in range(len(CHANNELS))], [array[:, 0, :, 0, 0] for array in arrays]]
    (tmp_path / "S").write_bytes(pickle.dumps(named))
    np.testing.assert_array_equal(styles(str(tmp_path / "S"), 8, 128, 8).rows, source.rows)


def test_styles_of_another_generator_are_refused(tmp_path):
    write_styles(tmp_path / "styles", [8, 8])
    with pytest.raises(UserError, match="has styles of widths \\[8, 8\\], and the generator's are"):
        styles(str(tmp_path / "styles"), 8, 128, 8)
    np.save(tmp_path / "w.npy", np.zeros((2, 3)))
    with pytest.raises(UserError, match="does not hold a list of styles"):
        styles(str(tmp_path / "w.npy"), 8, 128, 8)
