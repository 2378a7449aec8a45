"""Takes what training puts around a model off the names of its weights,
wherever the Swin lies among them.

Its first convolution and its blocks tell where a Swin is; what comes before them, and is not part
of a larger model that is known here, belongs to a wrapper.
"""

import re
from collections import Counter
from collections.abc import Mapping

import numpy as np

from swin_jax.pretrained import compare
from swin_jax.pretrained.files import choose
from swin_jax.pretrained.swin import layouts

# The first convolution: the official and timm's, transformers', torchvision's.
_FIRST = (
    r"^((?:.*\.)?)"
    r"(?:patch_embed\.proj|(embeddings)\.patch_embeddings\.projection|(features)\.0\.0)\.weight$"
)
# Blocks in the same three: the name up to them.
_BLOCKS = r"^((?:.*?\.)?)(?:layers[._]\d+\.blocks\.\d+|features\.\d+\.\d+)\."
# Parts of models that are known here, whose other parts are wanted too:
# SimMIM's, a detector's, CLIP's.
_INSIDE = ("encoder.", "backbone.", "visual.trunk.", "visual.")
_INSIDE_TRANSFORMERS = ("swin.", "swinv2.")
_CLIP = r"(.*\.)?(token_embedding\.|text_model\.|class_embedding$)"


def unwrap(state_dict: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The weights of a model without what training put around them.

    Args:
        state_dict: {name: array}, names as in a file.

    Returns:
        ({name: array}, lines that say what was chosen and left out). Where no Swin lies under a
        wrapper, and of a whole segmenter, only the prefixes of all names are taken off.

    Raises:
        UserError: Several Swins, and the rule of `files.choose` does not tell which is meant.
    """
    names = compare.strip_wrappers(state_dict)
    swins = {} if layouts.is_segmenter(names) else _swins(names)
    if not swins or set(swins.values()) == {""} or any(re.match(_CLIP, name) for name in names):
        return names, ()
    chosen = choose.preferred(swins)
    if chosen is None:
        raise choose.several(swins)
    said = []
    if len(swins) > 1:
        said.append(choose.chosen(chosen or "no name", [name for name in swins if name != chosen]))
    root = swins[chosen]
    left = Counter(name.split(".")[0] for name in names if not name.startswith(root))
    others = [part for part in left if not any(f"{name}.".startswith(f"{part}.") for name in swins)]
    if others:
        parts = ", ".join(f"{part} ({left[part]})" for part in others[:8])
        said.append(f"ignored weights that do not belong to a Swin: {parts}")
    inside = {name[len(root) :]: value for name, value in names.items() if name.startswith(root)}
    return compare.strip_wrappers(inside), tuple(said)


def _swins(names: Mapping[str, np.ndarray]) -> dict[str, str]:
    """{what stands before a Swin's own names, without the last dot: the wrapper's part of it}."""
    blocks = {found[1] for name in names if (found := re.match(_BLOCKS, name))}
    blocks |= {prefix.removesuffix("encoder.") for prefix in blocks}
    swins = {}
    for place, is_transformers, is_torchvision in (
        found.groups() for name in names if (found := re.match(_FIRST, name))
    ):
        inside = _INSIDE
        if is_transformers:
            inside = _INSIDE_TRANSFORMERS
        elif is_torchvision:
            inside = ()
        if place in blocks:
            swins[place.removesuffix(".")] = _wrapper(place, inside)
    return swins


def _wrapper(place: str, inside: tuple[str, ...]) -> str:
    for part in inside:
        if f".{place}".endswith(f".{part}"):
            return place[: -len(part)]
    return place
