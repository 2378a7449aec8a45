"""CLIP's tokenizer: byte-pair ids exactly as OpenAI's `clip.tokenize` gives them.

Byte-pair encoding with the vocabulary that vocabulary.py finds; text is first repaired by ftfy, as
in the original. Reference: openai/CLIP, clip/clip.py and clip/simple_tokenizer.py. Everything here
runs in loader workers.
"""

import functools
import heapq
import html
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Annotated

import numpy as np

from swin_jax.core.errors import UserError, with_article
from swin_jax.core.ranges import Range, checked
from swin_jax.data.image_text.captions import MAX_NESTED, is_nested
from swin_jax.data.image_text.vocabulary import vocabulary

CONTEXT_LENGTH = 77
VOCAB_SIZE = 49408
START, END, PAD = 49406, 49407, 0
_SPECIAL = {"<|startoftext|>": START, "<|endoftext|>": END}
# Letters, one numeral, a special literal, a contraction, or other signs. `re` has no classes of
# Unicode, so that here letters come with some numerals. U+0345, a mark whose capital is a letter,
# is nothing of these to the original either.
ContextLength = Annotated[int, Range(low=3)]  # start and end, and something between
# Letters that are newer than the Unicode of this Python count as other signs.
_RUNS = re.compile(
    r"[^\W\d_]+|\d|(?i:<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d)"
    r"|(?:[^\w\s\u0345]|_)+"
)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def tokenize(
    texts: str | Sequence[str],
    context_length: int = CONTEXT_LENGTH,
    truncate: bool = False,
    clean: str = "openai",
) -> np.ndarray:
    """Turns texts into ids: start, the text's, end, then zeros.

    Args:
        texts: One text or several.
        context_length: L, the number of ids in a row.
        truncate: True to cut texts that are too long, keeping the end id last.
        clean: 'openai' (ftfy, HTML entities, white space, lower case), 'canonicalize' (that without
            ASCII punctuation, as SigLIP) or 'whitespace' (only white space; the ids are of
            lower-case text all the same).

    Returns:
        int32 (n, L), n = 1 for one text.

    Raises:
        UserError: A text that is too long unless `truncate`, an argument that is neither a text nor
            a list of texts, or an unknown cleaner.
    """
    texts = as_list(texts)
    ids, too_long = tokenize_and_flag(texts, context_length, clean)
    if too_long.any() and not truncate:
        text = texts[int(np.argmax(too_long))]
        raise UserError(
            f"the text {_start(text)!r} has {len(encode(text, clean)) + 2} tokens with start and "
            f"end, more than {context_length}: shorten it, or give truncate=True"
        )
    return ids


@checked
def tokenize_split(text: str, context_length: ContextLength = CONTEXT_LENGTH) -> np.ndarray:
    """The ids, int32 (n, context_length), of texts that are joined by |; raises as `tokenize`."""
    return tokenize([part.strip() for part in text.split("|")], context_length)


def tokenize_and_flag(
    texts: str | Sequence[str], context_length: int = CONTEXT_LENGTH, clean: str = "openai"
) -> tuple[np.ndarray, np.ndarray]:
    """Tokenizes like `tokenize` with truncate=True;
    returns (ids int32 (n, L), bool (n,), True for texts that were cut).
    """
    if context_length < 3:
        raise UserError(f"context_length must be at least 3, not {context_length}")
    texts = as_list(texts)
    ids = np.full((len(texts), context_length), PAD, np.int32)
    too_long = np.zeros(len(texts), bool)
    for row, text in enumerate(texts):
        found = encode(text, clean)
        too_long[row] = len(found) > context_length - 2
        found = [START, *found[: context_length - 2], END]
        ids[row, : len(found)] = found
    return ids, too_long


def as_list(texts: str | Iterable[str]) -> list[str]:
    """One text or several as a list; raises UserError for what is neither, or has no order."""
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, (bytes, Mapping, Set)) or not isinstance(texts, Iterable):
        raise UserError(
            f"texts must be a text or a list of texts, not {with_article(type(texts).__name__)}"
        )
    return list(texts)


def encode(text: str, clean: str = "openai") -> list[int]:
    """The ids of a text, cleaned, without start, end and padding;
    raises UserError if it is not a str.
    """
    if not isinstance(text, str):
        raise UserError(f"a text must be a str, not {type(text).__name__} ({_start(str(text))!r})")
    return _encode(cleaner(clean)(text).lower())  # the vocabulary has no upper case


def decode(ids: np.ndarray | Sequence[int]) -> str | list[str]:
    """The text of ids, for reading: pieces are apart, letters are lower case,
    and bytes that are not UTF-8 are marked.

    Args:
        ids: One row (L,) or several (n, L); of rows that begin with the start id,
            what lies between start and end.

    Returns:
        A text, or a list of n. Raises UserError for ids outside of the vocabulary.
    """
    ids = np.asarray(ids)
    if ids.ndim == 2:
        return [decode(row) for row in ids]
    if ids.size and not 0 <= ids.min() <= ids.max() < VOCAB_SIZE:
        raise UserError(f"ids must be 0 to {VOCAB_SIZE - 1}, not {ids.min()} to {ids.max()}")
    row = [int(number) for number in ids]
    if row[:1] == [START]:
        row = row[1 : row.index(END) if END in row else None]
    text = b"".join(vocabulary().pieces[number] for number in row)
    return text.decode("utf-8", errors="replace").replace("</w>", " ")


def cleaner(name: str) -> Callable[[str], str]:
    """The text cleaner 'openai', 'canonicalize' or 'whitespace';
    raises UserError for another name.
    """
    if name not in _CLEANERS:
        raise UserError(f"the cleaner {name!r} is not known: use one of {', '.join(_CLEANERS)}")
    return _CLEANERS[name]


def _whitespace(text: str) -> str:
    return " ".join(text.split())


def _openai(text: str) -> str:
    """Repairs the encoding, resolves HTML entities twice, makes white space single spaces,
    and lowers the case.
    """
    if is_nested(text):
        raise UserError(
            f"the text {_start(text)!r} has HTML entities nested more than {MAX_NESTED} deep"
        )
    # The others pass through ftfy as they are.
    if not text.isascii() or "&" in text or not text.isprintable():
        text = html.unescape(html.unescape(_ftfy().fix_text(text)))
    return _whitespace(text).lower()


def _canonicalize(text: str) -> str:
    return " ".join(_openai(text).replace("_", " ").translate(_PUNCTUATION).split())


_CLEANERS = {"openai": _openai, "canonicalize": _canonicalize, "whitespace": _whitespace}


def _encode(text: str) -> list[int]:
    ids = []
    for run in _RUNS.findall(text):
        ids += _encode_run(run)
    return ids


@functools.lru_cache(1 << 15)
def _encode_run(run: str) -> tuple[int, ...]:
    if run in _SPECIAL:
        return (_SPECIAL[run],)
    # With numerals such as ½, each of which stands alone.
    if len(run) > 1 and run.isalnum() and not run.isalpha():
        pieces = "".join(sign if sign.isalpha() else f" {sign} " for sign in run).split()
        return tuple(number for piece in pieces for number in _encode_run(piece))
    ids = list(run.encode().translate(vocabulary().byte_ids))
    ids[-1] += 256
    return tuple(_join(ids, vocabulary().joined))


def _join(ids: list[int], joined: Mapping[tuple[int, int], int]) -> list[int]:
    """Byte-pair encoding: joins the neighbors that become the lowest id, the leftmost first,
    until none can be joined.

    A heap and a linked list, since languages without spaces make long pieces.
    """
    end = len(ids)
    # None is joined with nothing: the end, which is before the first too, and what has been joined.
    ids = [*ids, None]
    before, after = [*range(-1, end)], [*range(1, end + 1), end]
    heap = []

    def consider(left):
        pair = ids[left], ids[after[left]]
        if pair in joined:
            heapq.heappush(heap, (joined[pair], left))

    for left in range(end):
        consider(left)
    while heap:
        new, left = heapq.heappop(heap)
        right = after[left]
        if joined.get((ids[left], ids[right])) != new:
            continue  # one of them was joined with another since
        ids[left], ids[right] = new, None
        after[left] = after[right]
        before[after[right]] = left
        consider(before[left])
        consider(left)
    return [number for number in ids if number is not None]


@functools.cache
def _ftfy():
    try:
        import ftfy
    except ImportError as error:
        raise UserError("CLIP's text cleaning needs ftfy: pip install ftfy") from error
    return ftfy


def _start(text: str, most: int = 40) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
