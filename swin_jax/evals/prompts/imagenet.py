"""Zero-shot classification of ImageNet with OpenAI's class names and prompts."""

from collections.abc import Sequence
from typing import Any

from swin_jax.core.ranges import checked
from swin_jax.data.image_text.tokenizer import ContextLength, tokenize
from swin_jax.evals.prompts import class_names
from swin_jax.evals.prompts import templates as prompts
from swin_jax.evals.zero_shot import ZeroShot


@checked
def imagenet_zero_shot(
    data: Any,
    context_length: ContextLength = 77,
    templates: Sequence[str] = prompts.IMAGENET_80,
    names: str = "",
    clean: str = "openai",
) -> ZeroShot:
    """The evaluation of ImageNet-1K.

    Args:
        data: A `data.pipeline.EvalData` whose classes are WordNet ids.
        context_length: Tokens.
        templates: `prompts.IMAGENET_80` (the paper's figures) or `prompts.IMAGENET_7`.
        names: File of the 1000 curated names in the order of sorted WordNet ids; '' takes those of
            an installed clip-benchmark.
        clean: Cleaning of texts, as in training, see `data.image_text.tokenizer.tokenize`.

    Returns:
        A `ZeroShot`. Raises UserError where there are no names.
    """
    curated = class_names.read(names) if names else class_names.curated("imagenet")
    bound = class_names.bind_imagenet(data.class_names, curated)
    return ZeroShot(
        data=data,
        tokenize=lambda texts: tokenize(texts, context_length, truncate=True, clean=clean),
        templates=tuple(templates),
        names=dict(zip(data.class_names, bound)),
        batch_size=1024,
    )
