"""The fields of a Swin: what they must not contradict, and what follows from them for its stages.

Only the fields of a model are looked at, so that its class need not be known here.
"""

from collections.abc import Sequence
from typing import Any

from swin_jax.core.errors import UserError
from swin_jax.models.swin.blocks import REMAT
from swin_jax.ops import attention, window_geometry

TOKEN_MIXERS = ("attention", "mlp", "sliding", "performer")
SHIFTS = ("roll", "pad", "none")


def check(model) -> None:
    """Raises UserError where fields contradict each other."""
    for name in ("dtype", "param_dtype"):
        if getattr(model, name) not in ("float32", "bfloat16", "float16"):
            raise UserError(
                f"{name}={getattr(model, name)!r} is not one of 'float32', 'bfloat16', 'float16'"
            )
    stages = len(model.depths)
    if stages != len(model.num_heads):
        raise UserError(
            f"depths={model.depths} and num_heads={model.num_heads} are of different lengths"
        )
    if model.remat not in ("none", *REMAT):
        raise UserError(f"remat={model.remat!r} is not one of {('none', *REMAT)}")
    if any(name not in attention.IMPLEMENTATIONS for name in _implementations(model)):
        raise UserError(
            f"attention={model.attention} has entries other than {attention.IMPLEMENTATIONS}"
        )
    if model.small not in window_geometry.SMALL:
        raise UserError(f"small={model.small!r} is not one of {window_geometry.SMALL}")
    _check_sizes(model)
    _check_mixer(model)
    if any(not 0 <= s < stages for s in model.out_norms):
        raise UserError(
            f"out_norms={model.out_norms} names stages that do not exist; "
            f"they are 0 to {stages - 1}"
        )
    for dim, heads in zip(stage_dims(model), model.num_heads, strict=True):
        if dim % heads:
            raise UserError(f"{heads} heads do not divide {dim} channels")


def _check_sizes(model) -> None:
    for name in ("image_size", "patch_size", "window_size", "merge_size"):
        value = getattr(model, name)
        if (
            not isinstance(value, int)
            and len(value) > 3
            and all(isinstance(entry, int) for entry in value)
        ):
            raise UserError(
                f"{name}={value} has one entry per axis; one per stage is written ((12, "
                "12), (12, 12), ...)"
            )


def _check_mixer(model) -> None:
    """Raises UserError where a way to mix tokens cannot do what other fields ask for."""
    mixer, shift = model.token_mixer, model.shift
    if mixer not in TOKEN_MIXERS:
        raise UserError(f"token_mixer={mixer!r} is not one of {TOKEN_MIXERS}")
    if shift not in SHIFTS:
        raise UserError(f"shift={shift!r} is not one of {SHIFTS}")
    if model.continuous_bias and not model.relative_position:
        raise UserError("continuous_bias=True is a bias, which relative_position=False takes away")
    if mixer == "attention":
        return
    shifts = ("pad", "none") if mixer == "mlp" else ("none",)
    if shift not in shifts:
        ways = " or ".join(f"shift={way!r}" for way in shifts)
        raise UserError(f"token_mixer={mixer!r} cannot have shift={shift!r}: give {ways}")
    if set(_implementations(model)) - {"auto", "xla"} or model.temporal_window:
        raise UserError(
            f"token_mixer={mixer!r} goes with attention=('auto',) and temporal_window=0 only"
        )
    if mixer == "mlp" and (model.cosine_attention or model.continuous_bias):
        raise UserError(
            "token_mixer='mlp' has no attention: cosine_attention and continuous_bias are False"
        )
    if mixer == "mlp" and model.small == "axis":
        raise UserError("token_mixer='mlp' cannot use a corner of its matrices: small='axis'")
    if mixer == "performer" and model.relative_position:
        raise UserError(
            "token_mixer='performer' forms no weights that a bias could be added to: give "
            "relative_position=False (ape=True adds absolute positions)"
        )


def _implementations(model) -> tuple[str, ...]:
    stages = len(model.depths)
    given = (model.attention,) if isinstance(model.attention, str) else tuple(model.attention)
    if len(given) not in (1, stages):
        raise UserError(
            f"attention={model.attention} is neither one implementation nor one per stage"
        )
    return given * stages if len(given) == 1 else given


def attention_fields(model, windows: Sequence[tuple[int, ...]]) -> list[dict[str, Any]]:
    """The fields of the `WindowAttention` of each stage, whose windows are given."""
    dims, implementations = stage_dims(model), _implementations(model)
    pretrained = window_geometry.per_stage(
        model.pretrained_window_sizes or (0,), len(dims), len(windows[0]), one_each=True
    )
    return [
        dict(
            dim=dims[s],
            num_heads=model.num_heads[s],
            window=windows[s],
            pretrained_window=pretrained[s],
            cosine=model.cosine_attention,
            continuous_bias=model.continuous_bias,
            qkv_bias=model.qkv_bias,
            relative_position=model.relative_position,
            implementation=implementations[s],
        )
        for s in range(len(dims))
    ]


def stage_dims(model) -> list[int]:
    """Channels of each stage."""
    return [model.embed_dim * 2**s for s in range(len(model.depths))]
