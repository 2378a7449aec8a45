"""The tokenizer: published id vectors, lengths, cleaners, errors."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.data.image_text import tokenizer

VECTORS = {
    "": "",
    "   ": "",
    "\x00": "",
    "\n\n": "",
    "a": "320",
    "a diagram": "320 22697",
    "Hello World!": "3306 1002 256",
    "A person riding a motorcycle": "320 2533 6765 320 10297",
    "! !! !!!": "256 748 995",
    "test tokenization": "1628 32634 10847",
    "A  photo\tof\n a   CAT": "320 1125 539 320 2368",
    "a photo of a tench.": "320 1125 539 320 1149 634 269",
    'a photo of the number: "5".': "320 1125 539 518 2842 281 257 276 2811",
    "I'LL": "328 1342",
    "I'll don't we've you're I'm he'd": "328 1342 847 713 649 1200 592 982 328 880 797 1896",
    "don't 'stop'": "847 713 568 1253 262",
    "'sup 's": "568 705 568",
    "don’t": "847 713",
    "don''t": "847 8445 339",
    "x'ſ": "343 6 129 379",
    "“Hello” – world…": "257 3306 257 1224 1002 959",
    "â€œhiâ€\x9d": "257 1883 257",
    "hello,world": "3306 267 1002",
    "AT&amp;T": "536 261 339",
    "A&B": "320 261 321",
    "&amp;amp;lt;b&amp;amp;gt;": "283 321 285",
    "<b>bold</b>": "283 321 285 8911 34308 321 285",
    "1234567890": "272 273 274 275 276 277 278 279 280 271",
    "$5.00": "259 276 269 271 271",
    "１２３": "272 273 274",
    "a_b_c": "320 318 321 318 322",
    "http://www.example.com/?q=1&b=2": "15066 12441 9667 269 6228 269 2464 14 286 336 284 272 261 321 284 273",
    "<|startoftext|>a<|endoftext|>": "49406 320 49407",
    "a <|STARTOFTEXT|> b": "320 49406 321",
    "<start_of_text>": "283 1572 318 539 318 4160 285",
    "!<end_of_text>": "0 283 806 318 539 318 4160 285",
    "naïve café": "1097 35689 563 15304",
    "naïve cafe\u0301": "1097 35689 563 15304",
    "İstanbul": "328 16384 11231",
    "sIgMaΣ": "45075 139 480",
    "ǅ": "67 129 378",
    "ﬁne": "3797",
    "½ cup": "33613 1937",
    "x²": "343 41175",
    "ὀδυσσεύς": "157 121 222 138 112 139 227 139 225 139 225 138 113 139 235 139 480",
    "Москва": "38018 13506 23669 27152 39813 27080",
    "日本語": "39121 44353 34002 508",
    "한국어": "15197 250 31871 255 31625 368",
    "مرحبا": "12986 10948 25722 16378 22625",
    "👩‍👩‍👧": "26304 26304 964 356",
    "🇫🇷": "16223",
    "\ufeffabc": "5334",
    "a\u200bb": "320 9844 321",
    "a\xa0b": "320 321",
    "ﷺ": "171 115 374",
    "supercalifragilisticexpialidocious": "1642 2857 13093 2076 5868 26850 835 639 38466",
    "sÃ³": "82 27733",
}


@pytest.mark.parametrize("string", VECTORS, ids=ascii)
def test_vectors(string):
    expected = [int(number) for number in VECTORS[string].split()]
    row = tokenizer.tokenize(string)[0]
    assert row.tolist() == [tokenizer.START, *expected, tokenizer.END] + [0] * (75 - len(expected))


def test_special_literals_inside_punctuation_are_punctuation():
    # As the original's pattern reads them: a run of punctuation starts before the literal.
    assert tokenizer.END not in tokenizer.encode("!<|endoftext|>")
    assert tokenizer.encode("<|startoftext|><|endoftext|>") == [tokenizer.START, tokenizer.END]
    assert tokenizer.END in tokenizer.encode("a<|endoftext|>!")


def test_one_text_and_several():
    one = tokenizer.tokenize("a dog")
    assert one.shape == (1, 77) and one.dtype == np.int32
    several = tokenizer.tokenize(["a cat", "a dog"], context_length=8)
    assert several.shape == (2, 8)
    np.testing.assert_array_equal(several[1], one[0, :8])
    assert tokenizer.tokenize([]).shape == (0, 77)


def test_truncation_keeps_the_end_and_is_flagged():
    ids, too_long = tokenizer.tokenize_and_flag(["dog " * 75, "dog " * 76, "dog"])
    assert too_long.tolist() == [False, True, False]
    assert ids[1].tolist() == [tokenizer.START] + [1929] * 75 + [tokenizer.END]
    np.testing.assert_array_equal(ids[0], ids[1])
    np.testing.assert_array_equal(tokenizer.tokenize("dog " * 76, truncate=True)[0], ids[1])


def test_too_long_names_the_text_and_its_length():
    with pytest.raises(UserError, match=r"'dog dog .*\.\.\.' has 102 tokens .* 77.*truncate=True"):
        tokenizer.tokenize(["short", "dog " * 100])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tokenizer.tokenize("a", context_length=2), "context_length"),
        (lambda: tokenizer.tokenize("a", clean="lower"), "'openai'|openai, canonicalize, whitespace"),
        (lambda: tokenizer.tokenize([b"a dog"]), "must be a str, not bytes"),
        (lambda: tokenizer.tokenize(None), "a text or a list of texts, not a NoneType"),
        (lambda: tokenizer.tokenize(5), "not a int"),
        (lambda: tokenizer.tokenize({"a", "b"}), "not a set"),
        (lambda: tokenizer.tokenize({"a": "b"}), "not a dict"),
        (lambda: tokenizer.tokenize_and_flag(b"a dog"), "not a bytes"),
        (lambda: tokenizer.decode([49408]), "0 to 49407"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_cleaners():
    string = "A  photo_of: “it's” &amp; B"
    assert tokenizer.cleaner("openai")(string) == 'a photo_of: "it\'s" & b'
    assert tokenizer.cleaner("canonicalize")(string) == "a photo of its b"
    assert tokenizer.cleaner("whitespace")(string) == "A photo_of: “it's” &amp; B"
    assert tokenizer.encode("It's.", "canonicalize") == tokenizer.encode("its")


def test_plain_ascii_passes_through_ftfy_unchanged():
    import ftfy

    printable = "".join(map(chr, range(32, 127))).replace("&", "")
    assert ftfy.fix_text(printable) == printable


def test_decode_inverts_up_to_space_and_case():
    assert tokenizer.decode(tokenizer.tokenize("Hello   World!")[0]).split() == ["hello", "world", "!"]
    assert [row.strip() for row in tokenizer.decode(tokenizer.tokenize(["a dog", "Москва"]))] == ["a dog", "москва"]
    assert tokenizer.decode([320, tokenizer.END, 1929]) == "a <|endoftext|>dog "


def test_travels_to_workers_and_starts_light():
    assert pickle.loads(pickle.dumps(tokenizer.tokenize))("a").tolist() == tokenizer.tokenize("a").tolist()
    code = "import sys, swin_jax.data.image_text.tokenizer; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"instant_clip_tokenizer", "ftfy", "PIL", "grain", "tensorflow_datasets"} & set(loaded)
