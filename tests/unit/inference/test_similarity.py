"""Pictures against texts: the numbers are the model's own, and what is wrong is said."""

import jax
import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data.image_text.tokenizer import tokenize
from swin_jax.inference import similarity
from swin_jax.models.clip import make_clip
from swin_jax.models.swin import Swin
from swin_jax.pretrained import preprocess

TINY = dict(embed_dim=6, image_size=16, context_length=8, text_width=8, text_heads=2, text_layers=1, vision_layers=1,
            vision_width=8, vision_heads=2, patch_size=8)  # fmt: skip
TEXTS = ["a red boat", "two cats", "a tree in winter"]


def initialize(model):
    arguments = np.zeros((1, 16, 16, 3), np.float32), np.zeros((1, 8), np.int32)
    return jax.jit(model.init)(jax.random.key(0), *arguments)


@pytest.fixture(scope="module")
def clip():
    model = make_clip(**TINY)
    return model, initialize(model)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (20 + 9 * i, 30, 3), dtype=np.uint8) for i in range(5)]


def test_probabilities_are_the_softmax_of_the_models_logits(clip, pictures):
    model, variables = clip
    logits, _ = model.apply(variables, preprocess.preprocess(model)(pictures), tokenize(TEXTS, 8))
    found = similarity.probabilities(model, variables, pictures, TEXTS)
    np.testing.assert_allclose(found, jax.nn.softmax(logits, axis=-1), atol=1e-6)
    assert found.shape == (5, 3) and found.dtype == np.float32
    np.testing.assert_allclose(similarity.probabilities(model, variables, pictures, TEXTS[0]), np.ones((5, 1)))


def test_a_bias_on_the_logits_makes_every_entry_a_probability_of_its_own(pictures):
    model = make_clip(**TINY, logit_bias=-2.0)
    variables = initialize(model)
    logits, _ = model.apply(variables, preprocess.preprocess(model)(pictures), tokenize(TEXTS, 8))
    found = similarity.probabilities(model, variables, pictures, TEXTS)
    np.testing.assert_allclose(found, jax.nn.sigmoid(logits), atol=1e-6)


def test_batches_and_forms_of_pictures_change_nothing(clip, pictures, tmp_path):
    model, variables = clip
    whole = similarity.encode_images(model, variables, pictures)
    np.testing.assert_allclose(similarity.encode_images(model, variables, pictures, batch_size=2), whole, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=-1), 1, atol=1e-6)
    Image.fromarray(pictures[1]).save(tmp_path / "a.png")
    for one in (pictures[1], Image.fromarray(pictures[1]), tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_allclose(similarity.encode_images(model, variables, one), whole[1:2], atol=1e-6)
    texts = similarity.encode_texts(model, variables, TEXTS)
    np.testing.assert_allclose(similarity.encode_texts(model, variables, TEXTS, batch_size=2), texts, atol=1e-6)


def test_own_preparation_and_tokenizer_are_used(clip, pictures):
    model, variables = clip
    dark = similarity.encode_images(model, variables, pictures, preprocess=lambda p: np.zeros((len(p), 16, 16, 3)))
    np.testing.assert_allclose(dark, np.broadcast_to(dark[:1], dark.shape), atol=1e-6)
    same = similarity.encode_texts(model, variables, TEXTS, tokenize=lambda texts: tokenize(["x"] * len(texts), 8))
    np.testing.assert_allclose(same, np.broadcast_to(same[:1], same.shape), atol=1e-6)


def test_nearest_captions_are_in_the_order_of_the_cosines(clip, pictures):
    model, variables = clip
    cosines = similarity.cosines(model, variables, pictures, TEXTS)
    found = similarity.nearest_captions(model, variables, pictures, TEXTS, top=2)
    for row, captions in zip(cosines, found, strict=True):
        assert [TEXTS.index(text) for text, _ in captions] == np.argsort(-row)[:2].tolist()
        np.testing.assert_allclose([cosine for _, cosine in captions], np.sort(row)[::-1][:2], atol=1e-6)
    assert len(similarity.nearest_captions(model, variables, pictures[0], TEXTS, top=99)[0]) == 3


def test_long_texts_are_cut_with_a_warning(clip):
    with pytest.warns(UserWarning, match="1 texts are cut to 8 tokens, 'one two three"):
        similarity.encode_texts(*clip, ["short", "one two three four five six seven eight nine"])


def test_a_matrix_is_drawn_beside_pictures_and_captions(pictures, tmp_path):
    values = np.linspace(-0.2, 0.4, 10).reshape(5, 2)
    figure = similarity.draw(pictures, ["costs $5, not $6", "long " * 30], values, tmp_path / "m.png", title="$a$ b")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == [f"{value:.2f}" for value in values.ravel()]
    assert len(axes.images) == 1 + len(pictures)
    assert axes.get_yticklabels()[0].get_text() == "costs $5, not $6"
    for i, shown in enumerate(axes.images[1:]):  # each above its column, in its own proportions
        left, right, bottom, top = shown.get_extent()
        height, width = pictures[i].shape[:2]
        assert i - 0.5 < left < right < i + 0.5 and top < bottom < -0.5
        np.testing.assert_allclose((right - left) / (bottom - top), width / height)
    assert Image.open(tmp_path / "m.png").size[0] > 300
    with pytest.raises(UserError, match=r"\(5, 1\), not \(5, 2\)"):
        similarity.draw(pictures, ["one"], values)


def test_many_or_large_pictures_are_drawn_small(tmp_path, monkeypatch):
    """A hundred photos took gigabytes, and a thousand columns more pixels than can be written."""
    monkeypatch.setattr(similarity, "_MOST_PIXELS", 10**5)
    photo = np.zeros((40, 3000, 3), np.uint8)
    figure = similarity.draw([photo] * 3, ["a", "b"], np.zeros((3, 2)), tmp_path / "m.png")
    assert {image.get_array().shape for image in figure.axes[0].images[1:]} == {(3, 256, 3)}
    width, height = Image.open(tmp_path / "m.png").size
    assert 0.5 * 10**5 < width * height < 1.1 * 10**5 and photo.shape == (40, 3000, 3)


def test_one_picture_and_one_text_are_drawn(clip, pictures, tmp_path):
    figure = similarity.draw(pictures[0], "a cat", similarity.cosines(*clip, pictures[0], "a cat"))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a cat"]
    with pytest.raises(UserError, match=r"matrix \(2, 1\), not \(2, 2\)"):
        similarity.draw(pictures[:2], "ab", np.zeros((2, 2)))
    for path, message in {"a.xyz": "as .xyz", "nowhere/a.png": "cannot be written: No such file"}.items():
        with pytest.raises(UserError, match=message):
            similarity.draw(pictures[0], "a cat", np.zeros((1, 1)), tmp_path / path)


@pytest.mark.parametrize(
    "images, texts, message",
    [
        ([], ["a"], "no pictures"),
        (["nowhere.png"], ["a"], "nowhere.png: not a picture"),
        ([np.zeros((4, 4, 3))], ["a"], "a picture is a uint8 array"),
        *((x, ["a"], f"pictures must be .* not an? {type(x).__name__}") for x in (None, 5, set(), {}, iter(()), b"a")),
        (np.zeros((0, 0, 3), np.uint8), ["a"], "picture 0 has no pixels"),
        (np.zeros((2, 0, 4, 3), np.uint8), ["a"], "picture 0 has no pixels"),
        ([Image.new("L", (3, 3)), Image.new("RGB", (0, 3))], ["a"], "picture 1 has no pixels"),
        ("a.png", None, "texts must be .* not a NoneType"),
        ("a.png", 5, "texts must be .* not an int"),
        ([np.zeros((4, 4, 3), np.uint8)], [], "no texts"),
        ([np.zeros((4, 4, 3), np.uint8)], ["a", " "], "text 1 is ' '"),
        ([np.zeros((4, 4, 3), np.uint8)], ["a", 3], "text 1 is 3"),
    ],
)
def test_bad_input_is_said_in_one_line(clip, images, texts, message):
    with pytest.raises(UserError, match=message):
        similarity.probabilities(*clip, images, texts)


@pytest.mark.parametrize("top", [0, 1.5, None, "2"])
def test_top_is_a_whole_number(clip, pictures, top):
    with pytest.raises(UserError, match="^top=.*: it must be a whole number, at least 1"):
        similarity.nearest_captions(*clip, pictures, TEXTS, top=top)


def test_a_model_without_texts_is_refused(pictures):
    with pytest.raises(UserError, match="a Swin has no text encoder"):
        similarity.probabilities(Swin(), {}, pictures, TEXTS)


def test_variables_and_functions_that_are_none_are_told(clip, pictures):
    model, variables = clip
    for wrong, message in ((None, "not None"), ({}, "'params' is not among"), (variables["params"], "not among")):
        for encode, what in ((similarity.encode_images, pictures), (similarity.encode_texts, TEXTS)):
            with pytest.raises(UserError, match=message):
                encode(model, wrong, what)
    larger = make_clip(**TINY | {"vision_width": 12})
    with pytest.raises(UserError, match="of another model: params/.* is of shape"):
        similarity.probabilities(larger, variables, pictures, TEXTS)
    with pytest.raises(UserError, match="preprocess='foo' is neither a preparation"):
        similarity.encode_images(model, variables, pictures, "foo")
    with pytest.raises(UserError, match="tokenize='foo' must be a function"):
        similarity.encode_texts(model, variables, TEXTS, "foo")
