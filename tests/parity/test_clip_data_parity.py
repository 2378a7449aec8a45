"""CLIP's tokenizer and image preprocessing against the official code: the cases in tests/golden/clip."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data.image import transforms as image_lib
from swin_jax.data.image_text import tokenizer

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

PREPROCESS = sorted(GOLDEN.glob("clip/clip_preprocess_*.json"))


@pytest.fixture(scope="module")
def tokenizer_case():
    return golden.load(GOLDEN / "clip" / "clip_tokenizer.json")


def test_there_are_cases():
    assert len(PREPROCESS) >= 2


def test_tokens(tokenizer_case):
    expected = tokenizer_case.expected("tokens")
    actual = tokenizer.tokenize(
        tokenizer_case.manifest["texts"], tokenizer_case.config["context_length"], truncate=True
    )
    np.testing.assert_array_equal(actual, expected)


def test_encodings_and_back(tokenizer_case):
    manifest = tokenizer_case.manifest
    for string, ids, decoded in zip(manifest["texts"], manifest["encodings"], manifest["decoded"], strict=True):
        assert tokenizer.encode(string) == ids
        if ids[:1] != [tokenizer.START]:  # such ids look like a row
            assert tokenizer.decode(ids) == decoded


def test_too_long_texts_raise(tokenizer_case):
    too_long = set(tokenizer_case.manifest["too_long"])
    assert too_long
    for index, string in enumerate(tokenizer_case.manifest["texts"]):
        if index in too_long:
            with pytest.raises(UserError, match="truncate=True"):
                tokenizer.tokenize(string)
        else:
            tokenizer.tokenize(string)


@pytest.mark.parametrize("path", PREPROCESS, ids=lambda path: path.stem)
def test_preprocess(path):
    case = golden.load(path)
    preprocess = image_lib.clip_preprocess(case.config["n_px"])
    for name in case.manifest["outputs"]:
        array = case.input(name)
        for picture in (array, Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)):
            actual = preprocess(picture).transpose(2, 0, 1)
            assert actual.dtype == np.float32
            assert case.error(name, actual) < case.tolerance(name), name
