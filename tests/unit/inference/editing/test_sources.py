"""What --edit is given: seeds, files of latents, pictures; and what of it is refused."""

import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data.image import alignment
from swin_jax.inference.editing import sources
from tests.editing import networks

FIVE = [[12, 14], [28, 14], [20, 22], [14, 30], [26, 30]]  # both eyes, the nose, both corners of the mouth


class Inverter:
    """Takes pictures of 8 pixels; the latent of each is its mean."""

    image_size = 8

    def invert(self, images):
        assert images.dtype == np.uint8 and images.shape[1:] == (8, 8, 3)
        return np.broadcast_to(images.mean((1, 2, 3))[:, None, None], (len(images), 4, 8)).astype(np.float32)


def refused(match, call, *arguments):
    with pytest.raises(UserError, match=match) as error:
        call(*arguments)
    assert "\n" not in str(error.value) and "\\n" not in str(error.value)


def read(what, inverter=None):
    given = networks()["generator"]
    return sources.read(sources.find(str(what)), given.model, given.variables, 1.0, inverter)


def picture(path, width=8, height=8, value=100):
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(path)
    return path


@pytest.fixture
def latents():
    return np.random.default_rng(0).normal(size=(3, 4, 8)).astype(np.float32)


# ---- seeds ----


def test_seeds_draw_what_each_draws_by_itself():
    given = networks()["generator"]
    found = read("seeds:3,0-1")
    assert found.names == ("seed3", "seed0", "seed1") and found.pictures is None
    z = np.concatenate([np.random.RandomState(seed).randn(1, 8) for seed in (3, 0, 1)]).astype(np.float32)
    np.testing.assert_allclose(found.ws, given.model.apply(given.variables, z, method="map"), atol=1e-5)


@pytest.mark.parametrize(
    "text, match",
    [
        ("seeds:", "seeds are numbers and ranges, such as seeds:0-9,12"),
        ("seeds:a", "seeds are numbers and ranges"),
        ("seeds:1-", "seeds are numbers and ranges"),
        ("seeds:9-3", "9-3 is not a range of seeds below"),
        ("seeds:4294967296", "4294967296 is not a range of seeds below"),
        ("seeds:0-4000000000", "more than 100000 seeds"),
    ],
)
def test_seeds_that_are_none_are_refused(text, match):
    refused(match, sources.find, text)


# ---- latents ----


def test_latents_are_read_whatever_file_they_are_in(tmp_path, latents):
    np.save(tmp_path / "a.npy", latents)
    (tmp_path / "b.pt").write_bytes(pickle.dumps(latents[:1]))
    np.savez(tmp_path / "c.npz", ws=latents[1], edited_ws=latents[2])
    found = read(tmp_path)
    assert found.names == ("a_0", "a_1", "a_2", "b", "c") and found.pictures is None
    np.testing.assert_array_equal(found.ws, [*latents, latents[0], latents[1]])
    assert read(tmp_path / "b.pt").names == ("b",)


def test_a_bare_latent_is_one_and_a_warning_says_so(tmp_path, latents):
    np.save(tmp_path / "w_plus.npy", latents[0])
    with pytest.warns(UserWarning, match=r"\(4, 8\) is read as one latent, not as 4"):
        assert read(tmp_path / "w_plus.npy").ws.shape == (1, 4, 8)


def test_latents_of_another_generator_are_refused_with_both_numbers(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 18, 512), np.float32))
    refused(r"latents of shape \[2, 18, 512\], and the generator's are \(n, 4, 8\)", read, tmp_path)


def test_latents_that_are_no_numbers_are_refused(tmp_path, latents):
    latents[1, 2, 3] = np.nan
    np.save(tmp_path / "a.npy", latents)
    refused("holds values that are not numbers", read, tmp_path)


def test_a_poisoned_file_of_latents_is_refused_and_not_run(tmp_path):
    class Poison:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "latents.pt").write_bytes(pickle.dumps(Poison()))
    refused("latents.pt", read, tmp_path / "latents.pt")
    np.save(tmp_path / "latents.npy", np.array([Poison()], object), allow_pickle=True)
    refused("latents.npy", read, tmp_path / "latents.npy")
    np.savez(tmp_path / "latents.npz", ws=np.array([Poison()], object))
    refused("latents.npz", read, tmp_path / "latents.npz")
    assert not (tmp_path / "ran").exists()


def test_two_files_of_one_name_are_refused(tmp_path, latents):
    np.save(tmp_path / "a.npy", latents)
    np.save(tmp_path / "a_1.npy", latents[:1])
    refused("a.npy and of .*a_1.npy would both be called a_1: rename one", read, tmp_path)
    picture(tmp_path / "x.png")
    (tmp_path / "pictures").mkdir()
    for name in ("x.png", "x.bmp"):
        picture(tmp_path / "pictures" / name)
    refused("x.bmp and of .*x.png would both be called x: rename one", read, tmp_path / "pictures", Inverter())


# ---- pictures ----


def test_pictures_are_resized_and_called_as_their_files(tmp_path):
    (tmp_path / "more").mkdir()
    picture(tmp_path / "a.png", 16, 16, 20)
    picture(tmp_path / "more" / "b.v2.jpg", 8, 8, 200)
    Image.fromarray(np.full((32, 32), 50, np.uint8)).save(tmp_path / "gray.png")
    found = read(tmp_path, Inverter())
    assert found.names == ("a", "gray", "more/b.v2")
    assert found.pictures.shape == (3, 8, 8, 3)
    np.testing.assert_allclose(found.ws[:, 0, 0], [20, 50, 200], atol=1)


def test_a_picture_that_is_not_square_is_told_how_to_align(tmp_path):
    picture(tmp_path / "wide.jpg", 40, 30)
    message = (
        r"wide.jpg is 40 x 30: faces are aligned squares; put 5 or 68 landmarks beside it as wide.json \(\[\[x, y\]"
    )
    refused(message, sources.check_pictures, sources.find(str(tmp_path)))
    refused(message, read, tmp_path, Inverter())


def test_landmarks_beside_a_picture_cut_the_face_out(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "face.png")
    (tmp_path / "face.json").write_text(json.dumps(FIVE))
    sources.check_pictures(sources.find(str(tmp_path)))
    found = read(tmp_path, Inverter())
    np.testing.assert_array_equal(found.pictures[0], np.asarray(alignment.align(pixels, FIVE, 8)))


@pytest.mark.parametrize(
    "text, match",
    [
        ("[[1, 2]]", "face.json: landmarks are of shape"),
        ('{"name": "x"}', "face.json: landmarks are not numbers"),
        ("[[1, 2", "face.json cannot be read"),
    ],
)
def test_landmarks_that_are_none_name_their_file(tmp_path, text, match):
    picture(tmp_path / "face.png")
    (tmp_path / "face.json").write_text(text)
    refused(match, sources.check_pictures, sources.find(str(tmp_path)))


def test_landmarks_of_another_picture_name_it(tmp_path):
    picture(tmp_path / "face.png", 40, 40)
    (tmp_path / "face.json").write_text(json.dumps((np.array(FIVE) * 20).tolist()))
    refused("face.png: the face around .* is not in this picture of 40 x 40", read, tmp_path, Inverter())


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    refused("a.png cannot be read: it is not a picture", sources.check_pictures, sources.find(str(tmp_path)))
    data = picture(tmp_path / "b.png", 64, 64).read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) - 30])
    refused("a.png cannot be read", read, tmp_path / "a.png", Inverter())


def test_a_small_picture_is_enlarged_and_a_warning_says_so(tmp_path):
    with pytest.warns(UserWarning, match="a.png is 4 x 4 and is enlarged: faces are inverted at 8 x 8"):
        read(picture(tmp_path / "a.png", 4, 4), Inverter())


def test_a_source_that_is_none_is_refused(tmp_path, latents):
    refused("is not a folder, a file or a list of seeds", sources.find, str(tmp_path / "nothing"))
    refused("holds no pictures and no latents", sources.find, str(tmp_path))
    picture(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", latents)
    refused("holds both pictures and latents: give a folder of either", sources.find, str(tmp_path))
