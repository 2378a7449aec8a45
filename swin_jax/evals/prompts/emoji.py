"""Zero-shot classification of emoji by their names:
seen and unseen concepts, groups and sub-groups.
"""

from typing import Any

from swin_jax.core.ranges import checked
from swin_jax.data.emoji.images import TEMPLATES
from swin_jax.data.image_text.tokenizer import ContextLength, tokenize
from swin_jax.evals.zero_shot import Subset, ZeroShot


@checked
def zero_shot(data: Any, context_length: ContextLength = 20) -> ZeroShot:
    """The evaluation of one drawing style.

    Args:
        data: A `data.pipeline.EvalData` of a `data.emoji.images.Emoji` of common concepts.
        context_length: Tokens.

    Returns:
        A `ZeroShot` with the figures 'seen/...' (seen concepts among all common names),
        'unseen/...' (unseen concepts among all common names) and 'unseen_only/...' (unseen
        concepts among their own names).
    """
    source = data.source
    names = source.class_names
    common = [name for name, is_common in zip(names, source.common) if is_common]
    unseen = [
        name
        for name, held_out, is_common in zip(names, source.unseen, source.common)
        if held_out and is_common
    ]
    seen = [name for name in common if name not in set(unseen)]
    return ZeroShot(
        data=data,
        tokenize=lambda texts: tokenize(texts, context_length, truncate=True),
        templates=TEMPLATES[:2],
        subsets={
            "seen": Subset(seen, common),
            "unseen": Subset(unseen, common),
            "unseen_only": Subset(unseen, unseen),
        },
        groups=dict(zip(names, source.groups)),
    )
