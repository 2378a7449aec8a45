"""The position bias that a block of a trained Swin adds to its attention,
for looking at it and for folding it.
"""

import jax

from swin_jax.core import stacking
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten, unflatten
from swin_jax.core.sizes import Size, per_axis
from swin_jax.models.swin.attention import window_and_shift
from swin_jax.models.swin.model import Swin
from swin_jax.ops import window_geometry
from swin_jax.ops.window_geometry import num_axes, stage_geometry


def block_geometry(
    model: Swin, image_size: Size, stage: int, block: int
) -> tuple[tuple[int, ...], ...]:
    """(grid, window, shift) of one block for images of a size, one int per axis each."""
    grid = window_geometry.stage_grids(model, per_axis(image_size, num_axes(model)))[stage]
    made_for = stage_geometry(model)[1][stage]
    small = window_geometry.stage_rules(model)[stage]
    shifted = block % 2 == 1 and model.shift != "none"
    return grid, *window_and_shift(grid, made_for, small, shifted)


def position_bias(model: Swin, variables: dict, block: str) -> jax.Array:
    """The relative position bias of a block, 'layers.2.blocks.3',
    for every difference of positions.

    Returns:
        (prod(2 * window - 1), h) float32; zeros where `relative_position` is False.

    Raises:
        UserError: A Swin-MLP, which has no attention.
    """
    if model.token_mixer == "mlp":
        raise UserError("a Swin-MLP has no attention, and no position bias")
    variables = {"params": stacking.unstack(variables["params"])}
    _, stage, _, number = block.split(".")
    return model.clone(scan=False).apply(
        variables, method=lambda m: m.layers[int(stage)].blocks[int(number)].attn.bias_table()
    )


def fold_bias(model: Swin, variables: dict) -> tuple[Swin, dict]:
    """Replaces the continuous bias by the table that it evaluates to:
    the same function, for inference.

    Returns:
        (model with `continuous_bias=False`, its variables).
    """
    params = flatten(stacking.unstack(variables["params"]))
    for s, depth in enumerate(model.depths):
        for i in range(depth):
            attn = f"layers_{s}/blocks_{i}/attn"
            params[f"{attn}/relative_position_bias_table"] = position_bias(
                model, variables, f"layers.{s}.blocks.{i}"
            )
    params = unflatten({path: leaf for path, leaf in params.items() if "/cpb_mlp_" not in path})
    folded = model.clone(continuous_bias=False, pretrained_window_sizes=())
    return folded, {"params": stacking.stack_as(params, folded)}
