"""Reads the preparation of texts from a tokenizer that transformers keeps beside the weights of a
CLIP.

Texts are always tokenized with CLIP's vocabulary here. If the tokenizer beside the weights has
another one, it is reported, because its ids stand for other rows of the embedding table.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swin_jax.core.errors import UserError, warn
from swin_jax.core.ranges import shown
from swin_jax.data.image_text.tokenizer import CONTEXT_LENGTH, VOCAB_SIZE
from swin_jax.pretrained import beside

# Checksum of the pieces of CLIP's vocabulary, one per line, in the order of their ids.
_SHA256 = "7cccc44d334555d1ff3c0ac5f0246b428fab2918383e77ee745cf30d41010b78"
# Classes of CLIP's own tokenizer, and generic ones whose vocabulary is in a file.
_CLASSES = ("CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend")
_MARKS = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}


def texts_beside(config: beside.Config) -> dict[str, Any]:
    """The fields of a `preparation.Preparation` that the files of a tokenizer set.

    Args:
        config: The config of transformers beside the weights of a CLIP.

    Returns:
        'vocabulary' if it is not CLIP's, and 'context_length' if texts are cut to fewer tokens
        than the model has positions.

    Raises:
        UserError: A file cannot be read, or has an unknown form.
    """
    own, whole, plain = (
        config.path.with_name(name)
        for name in ("tokenizer_config.json", "tokenizer.json", "vocab.json")
    )
    settings = beside.read_json(own) or {}
    found = _context(settings, own, config)
    # In transformers the config of the model may also name the class.
    named = {"tokenizer_class": config.fields.get("tokenizer_class")}
    for path, fields in ((own, settings), (config.path, named)):
        if other := _of_settings(fields, path):
            return found | {"vocabulary": other}
    for path, pieces in ((whole, _pieces(whole)), (plain, beside.read_json(plain))):
        if pieces is not None and not _is_of_clip(pieces, path):
            return found | {"vocabulary": f"that of {path}"}
    return found


def _of_settings(settings: Mapping[str, Any], path: Path) -> str:
    """A description of the tokenizer in a file if it is not CLIP's; '' if it may be CLIP's."""
    kind = settings.get("tokenizer_class")
    if kind is not None and kind not in _CLASSES:
        return f"that of tokenizer_class={shown(kind)} in {path}"
    for name, usual in _MARKS.items():
        value = settings.get(name)
        value = value.get("content") if isinstance(value, Mapping) else value
        if value not in (None, usual):
            return f"that of {name}={shown(value)} in {path}"
    return ""


def _context(settings: Mapping[str, Any], path: Path, config: beside.Config) -> dict[str, int]:
    length, text = settings.get("model_max_length"), config.fields.get("text_config")
    positions = text.get("max_position_embeddings") if isinstance(text, Mapping) else None
    if not isinstance(length, (int, float, type(None))) or isinstance(length, bool):
        raise UserError(f"{path}: model_max_length={shown(length)} is not a number of tokens")
    if length is None or length >= (positions or CONTEXT_LENGTH):
        return {}
    if not (length >= 3 and length == int(length)):  # NaN is neither
        raise UserError(
            f"{path}: model_max_length={shown(length)} must be a whole number, at least 3"
        )
    return {"context_length": int(length)}


def _pieces(path: Path) -> Mapping[str, Any] | None:
    """{piece: id} of a tokenizer.json; None if there is no such file."""
    found = beside.read_json(path)
    if found is None:
        return None
    model = found.get("model")
    pieces = model.get("vocab") if isinstance(model, Mapping) else None
    # Other kinds of tokenizers have a list here, which cannot be CLIP's.
    return pieces if isinstance(pieces, Mapping) else {}


def _is_of_clip(pieces: Mapping[str, Any], path: Path) -> bool:
    if not all(type(number) is int for number in pieces.values()):
        raise UserError(f"{path} maps its pieces to values that are not ids")
    names = sorted(pieces, key=pieces.get)
    ids = [pieces[name] for name in names[:VOCAB_SIZE]]
    text = "\n".join(names[:VOCAB_SIZE]).encode("utf-8", "surrogatepass")
    if ids != list(range(VOCAB_SIZE)) or hashlib.sha256(text).hexdigest() != _SHA256:
        return False
    if more := names[VOCAB_SIZE:]:
        warn(
            f"{path} has {len(more)} more tokens than CLIP's vocabulary, such as {shown(more[0])}; "
            "they are not used here"
        )
    return True
