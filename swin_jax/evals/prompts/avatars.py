"""Attributes of avatars by pairs of texts, such as 'a face with glasses' and 'a face'."""

from typing import Any

from swin_jax.core.ranges import checked
from swin_jax.data.avatars.captions import TEXT_PAIRS
from swin_jax.data.image_text.tokenizer import ContextLength, tokenize
from swin_jax.evals.marks import TextPairs


@checked
def text_pairs(data: Any, context_length: ContextLength = 32) -> TextPairs:
    """The evaluation of `data.avatars.captions.TEXT_PAIRS`.

    Args:
        data: A `data.pipeline.EvalData` of avatars with their attributes.
        context_length: Tokens.
    """
    return TextPairs(data, lambda texts: tokenize(texts, context_length), TEXT_PAIRS)
