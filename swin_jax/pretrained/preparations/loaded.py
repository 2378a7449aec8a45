"""The preparation of a model that was loaded by a name or a file."""

from typing import Any

from swin_jax.core.errors import UserError
from swin_jax.core.sizes import simplest
from swin_jax.pretrained import (
    processors,
)
from swin_jax.pretrained.family import Family, Weights
from swin_jax.pretrained.preparation import FIT, Preparation


def prepare(
    family: Family,
    model: Any,
    word: str | None,
    weights: Weights | None = None,
    is_sized: bool = False,
) -> Preparation | None:
    """The preparation of a model that was loaded by a name or a file; a config beside the file
    takes precedence.

    Args:
        family: The model's family.
        model: The model.
        word: The name that it was loaded by, or None.
        weights: The weights that it was loaded from, or None.
        is_sized: True if the user gave the model's image size, which then replaces the config's.

    Returns:
        None if the model has none.

    Raises:
        UserError: A config has fields that are not supported, or is for pictures of another size.
    """
    try:
        found = family.preprocess(model, word)
    except UserError:  # `preprocess` raises it when asked
        return None
    told = None
    if weights is not None and weights.path is not None and not weights.published:
        told = processors.preparation_beside(weights.path)
    if told is None:
        return found
    # A config beside an image Swin that was inflated does not say how clips are cut, and one beside
    # a segmenter how training pictures are squeezed into a square.
    if found.input == "video" or found.transform == FIT:
        told = {name: told[name] for name in ("mean", "std") if name in told}
    size = found.image_size
    found = found.replace(**told, **({"assumed": ()} if "transform" in told else {}))
    if found.image_size == size:
        return found
    if not is_sized:
        raise UserError(
            f"the config beside {weights.path} is for pictures of {simplest(found.image_size)} "
            f"pixels, but the model is for {simplest(size)}: give image_size="
        )
    return found.replace(image_size=size)
