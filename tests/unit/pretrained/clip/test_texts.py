"""A tokenizer beside the weights of a CLIP: another vocabulary than CLIP's gives no features without a word."""

import json
import warnings

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.data.image_text.tokenizer import VOCAB_SIZE
from swin_jax.data.image_text.vocabulary import _merges
from swin_jax.inference import similarity
from swin_jax.pretrained import beside
from swin_jax.pretrained.clip import finetune
from swin_jax.pretrained.clip.texts import texts_beside
from swin_jax.pretrained.load import load
from swin_jax.pretrained.preparation import VOCABULARY
from swin_jax.pretrained.preprocess import preprocess
from tests.unit.pretrained.clip.test_config import HUGGING, folder


def clips_pieces():
    """{piece: id} as transformers writes it."""
    letters = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = [chr(byte) for byte in letters] + [chr(256 + index) for index in range(256 - len(letters))]
    names += [f"{name}</w>" for name in names]
    names += [line.replace(" ", "") for line in _merges().decode().split("\n")]
    return {name: number for number, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}


def told(path, **files):
    for name, value in files.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    return texts_beside(beside.Config(beside.TRANSFORMERS, path / "config.json", {"model_type": "clip"}))


def of_json(pieces, kind="BPE"):
    return {"model": {"type": kind, "vocab": pieces}}


OTHERS = {
    "vocab.json": dict(vocab={"a</w>": 0, "b</w>": 1}),
    "tokenizer.json": dict(tokenizer=of_json({"a</w>": 0})),
    "a list of pieces": dict(tokenizer=of_json([["<s>", 0.0], ["a", -1.5]], "Unigram")),
    "no pieces": dict(tokenizer={"version": "1.0"}),
    "tokenizer_class='BertTokenizer'": dict(tokenizer_config={"tokenizer_class": "BertTokenizer"}),
    "eos_token='</s>'": dict(tokenizer_config={"tokenizer_class": "CLIPTokenizer", "eos_token": "</s>"}),
    "bos_token='<s>'": dict(tokenizer_config={"bos_token": {"content": "<s>", "lstrip": False}}),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_vocabulary_is_told(case, tmp_path):
    assert "that of" in told(tmp_path, **OTHERS[case])["vocabulary"]


def test_the_config_of_the_model_names_its_tokenizer(tmp_path):
    for kind, told in (("XLMRobertaTokenizer", True), ("CLIPTokenizer", False), (None, False)):
        fields = {"model_type": "clip", "tokenizer_class": kind}
        found = texts_beside(beside.Config(beside.TRANSFORMERS, tmp_path / "config.json", fields))
        assert ("tokenizer_class='XLMRobertaTokenizer'" in found.get("vocabulary", "")) == told


def test_two_pieces_that_changed_places_are_another_vocabulary(tmp_path):
    pieces = clips_pieces()
    pieces["cat</w>"], pieces["dog</w>"] = pieces["dog</w>"], pieces["cat</w>"]
    assert str(tmp_path / "vocab.json") in told(tmp_path, vocab=pieces)["vocabulary"]


def test_clips_own_tokenizer_is_known(tmp_path):
    pieces = clips_pieces()
    assert len(pieces) == VOCAB_SIZE
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "eos_token": "<|endoftext|>"}
    files = dict(tokenizer_config=settings, tokenizer=of_json(pieces), vocab=pieces)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert told(tmp_path, **files) == {}
    with pytest.warns(UserWarning, match="1 more tokens than CLIP's vocabulary, such as '<sks>'"):
        assert told(tmp_path, vocab=pieces | {"<sks>": VOCAB_SIZE}, tokenizer=of_json(pieces)) == {}


@pytest.mark.parametrize("length, context", [(5, 5), (5.0, 5), (77, None), (10**30, None), (None, None)])
def test_texts_are_cut_where_the_tokenizer_cuts_them(length, context, tmp_path):
    assert told(tmp_path, tokenizer_config={"model_max_length": length}).get("context_length") == context


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("tokenizer_config", '{"model_max_length": "77"}', "model_max_length='77' is not a number of tokens"),
        ("tokenizer_config", '{"model_max_length": 2}', "model_max_length=2 must be a whole number, at least 3"),
        ("tokenizer_config", "{", "cannot be read"),
        ("tokenizer", "[]", "holds a list"),
        ("vocab", '{"a": "b"}', "values that are not ids"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_named(name, text, message, tmp_path):
    (tmp_path / f"{name}.json").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        told(tmp_path)
    assert str(error.value).startswith(str(tmp_path / name)) and "\n" not in str(error.value)


def test_a_model_of_another_vocabulary_takes_pictures_and_its_own_tokens(tmp_path):
    folder(tmp_path, HUGGING)
    (tmp_path / "vocab.json").write_text(json.dumps({"a</w>": 0}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 4}))
    model, variables = load(weights=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for prepared in (preprocess(model), preprocess(tmp_path)):
            assert prepared.pixels(np.zeros((9, 9, 3), np.uint8)).shape == (1, 16, 16, 3)
            assert prepared.context_length == 4 and prepared.texts()["vocabulary"].endswith("vocab.json")
            with pytest.raises(UserError, match="vocabulary is that of .*vocab.json, not CLIP's: give tokenize="):
                prepared.tokenize_and_flag("a cat")
        with pytest.raises(UserError, match="not CLIP's: give tokenize="):
            similarity.encode_texts(model, variables, ["a cat"])
    ids = np.array([[28, 3, 29, 0, 0, 0]], np.int32)
    assert np.isfinite(similarity.encode_texts(model, variables, ["a cat"], lambda texts: ids)).all()
    with pytest.raises(UserError, match="tokens up to 30, the model knows 0 to 29"):
        similarity.encode_texts(model, variables, ["a cat"], lambda texts: ids + 1)


def test_first_weights_of_another_vocabulary_are_told(tmp_path):
    model, _ = load(weights=folder(tmp_path, HUGGING))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finetune.load_pretrained(tmp_path, model)
    (tmp_path / "vocab.json").write_text(json.dumps({"a</w>": 0}))
    with pytest.warns(UserWarning, match="of these weights is that of .*vocab.json, but texts are tokenized"):
        finetune.load_pretrained(tmp_path, model)


def test_tokens_beyond_the_models_are_refused_where_nothing_tells_the_vocabulary(tmp_path):
    model, variables = load(weights=folder(tmp_path, HUGGING))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert preprocess(model).vocabulary == VOCABULARY
        with pytest.raises(UserError, match="tokens up to 49407, the model knows 0 to 29"):
            similarity.encode_texts(model, variables, ["a cat"])


def test_a_larger_vocabulary_is_said(tmp_path):
    """The config tells how many tokens there are, and not whose."""
    case = json.loads(json.dumps(HUGGING))
    case["shapes"]["text_model.embeddings.token_embedding.weight"][0] = VOCAB_SIZE + 2
    case["config"]["text_config"] |= {"vocab_size": VOCAB_SIZE + 2, "eos_token_id": 2}
    with pytest.warns(UserWarning, match="has 49410 tokens, not the 49408 of CLIP's vocabulary"):
        load(weights=folder(tmp_path, case))
