"""The two-tower model that the saved config of a run describes."""

from typing import Any

from swin_jax.core.errors import UserError
from swin_jax.core.public_names import name_of
from swin_jax.core.saved_config import tuples
from swin_jax.models.clip import CLIP, ModifiedResNet, TextTransformer, VisionTransformer, make_clip
from swin_jax.models.swin import Swin

_MODELS = {name_of(fn): fn for fn in (CLIP, make_clip)}
_TOWERS = {name_of(fn): fn for fn in (ModifiedResNet, Swin, TextTransformer, VisionTransformer)}


def is_clip(config: dict) -> bool:
    """True if a saved config, a flat dict of dotted keys, describes a CLIP."""
    return config.get("task.model.fn") in _MODELS


def clip_of(config: dict) -> CLIP:
    """The model of a contrastive run.

    Args:
        config: A config that `is_clip` accepts.

    Raises:
        UserError: A tower is not one of this package's.
    """
    return _build(config, "task.model.", _MODELS)


def _build(config: dict, prefix: str, known: dict) -> Any:
    own = {
        key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)
    }
    fn = own.pop("fn", None)
    if fn not in known:
        raise UserError(
            f"{prefix}fn is {fn}, which load() does not support; build the model yourself and take "
            "its parameters from swin_jax.train.checkpoint.load_variables(WORKDIR)"
        )
    fields = {key: tuples(value) for key, value in own.items() if "." not in key}
    inner = dict.fromkeys(key.partition(".")[0] for key in own if "." in key)
    return known[fn](
        **fields, **{name: _build(config, f"{prefix}{name}.", _TOWERS) for name in inner}
    )
