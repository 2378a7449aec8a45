"""How a run prepares texts: cleaned, cut, and what its config does not tell; and pictures of another size."""

import numpy as np
import pytest
from experiments.clip import siglip

from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from swin_jax.data.image_text.tokenizer import tokenize
from swin_jax.data.segmentation.transforms import eval_transform
from swin_jax.pretrained import preparation, run_preparation
from swin_jax.pretrained.preparations import published


def test_texts_are_cleaned_and_cut_as_the_run_did():
    config = siglip.get_config("fake")
    found = run_preparation.of_run(configs.flatten(config), "runs/siglip")
    length = config.context_length
    assert (found.clean, found.context_length) == ("canonicalize", length)
    assert found.mean == found.std == (0.5,) * 3
    texts = ["A boat!", "a, boat."]
    ids, cut = found.tokenize_and_flag(texts)
    np.testing.assert_array_equal(ids, tokenize(texts, length, truncate=True, clean="canonicalize"))
    np.testing.assert_array_equal(ids[0], ids[1])
    assert not cut.any() and found.tokenize_and_flag("a " * 99)[1].all()
    with pytest.raises(UserError, match="reads no texts"):
        published.of_pictures(16, 3, assumed=False).tokenize_and_flag(texts)


def test_the_cleaning_of_a_run_is_found_wherever_its_data_tell_it():
    resolved = configs.flatten(siglip.get_config("fake"))
    plain = {key: value for key, value in resolved.items() if not key.endswith(".clean")}
    for told, clean, assumed in (
        ({"data.transform.inner.clean": "whitespace"}, "whitespace", ()),
        ({"data.source.clean": "canonicalize", "data.transform.clean": "canonicalize"}, "canonicalize", ()),
        ({"data.transform.fn": "swin_jax.data.emoji.images.pair_train_transform"}, "openai", ()),
        ({"data.transform.fn": "mine.transform"}, "openai", ("clean",)),
        ({"evals.validation.run.data.transform.clean": "canonicalize"}, "openai", ("clean",)),
    ):
        found = run_preparation.of_run(plain | told, "runs/mine")
        assert (found.clean, found.assumed) == (clean, assumed), told
    several = plain | {"data.a.clean": "openai", "data.b.clean": "whitespace"}
    with pytest.raises(UserError, match="several ways, 'openai', 'whitespace': give clean= to preprocess"):
        run_preparation.of_run(several, "runs/mine")
    assert run_preparation.of_run(several, "runs/mine", given={"clean": "openai"}).clean == "openai"
    length = run_preparation.of_run(resolved | {"data.transform.context_length": 9}, "runs/mine").context_length
    assert length == 9  # what the text tower was trained with


def test_a_changed_argument_reaches_a_transform_that_came_with_an_experiment():
    transform = eval_transform(scale=(64, 16))
    pixels = dict(mean=(0.5,) * 3, std=(0.5,) * 3)
    prepared = preparation.Preparation(
        "image", preparation.FIT, {"scale": (64, 16)}, **pixels, function=transform
    )
    assert prepared.replace(conversion="reference").function is transform
    image = np.zeros((32, 32, 3), np.uint8)
    assert prepared(image).shape == (1, 16, 16, 3) and prepared.replace(scale=(32, 8))(image).shape == (1, 8, 8, 3)
