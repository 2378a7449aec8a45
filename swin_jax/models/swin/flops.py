"""Multiply-accumulates of a Swin, by the formula of the official code."""

import math

from swin_jax.core.sizes import per_axis
from swin_jax.models.swin.fields import stage_dims
from swin_jax.ops.window_geometry import stage_geometry


def count(model) -> int:
    """Multiply-accumulates per image at `image_size`.

    Args:
        model: Anything with the fields of `models.swin.Swin`.
    """
    grids, windows = stage_geometry(model)
    dims = stage_dims(model)
    patch = math.prod(per_axis(model.patch_size, len(grids[0])))
    total = math.prod(grids[0]) * dims[0] * (patch * model.in_channels + model.patch_norm)
    for s, (grid, size, d) in enumerate(zip(grids, windows, dims)):
        tokens, n = math.prod(grid), math.prod(size)
        attend = (4 * n * d * d + 2 * n * n * d) * tokens / n
        total += model.depths[s] * int(
            2 * tokens * d + attend + 2 * tokens * d * d * model.mlp_ratio
        )
        if model.temporal_window:
            total += (
                model.depths[s] * tokens * d * (1 + 4 * d + 2 * min(model.temporal_window, grid[0]))
            )
        if s < len(dims) - 1:
            merged = math.prod(per_axis(model.merge_size, len(grid)))
            normed = tokens // merged * 2 * d if model.post_norm else tokens * d
            total += normed + tokens // merged * merged * d * 2 * d
    # The official formula divides the first grid by 2^stages, not by 4^(stages - 1),
    # for the final norm.
    return total + dims[-1] * math.prod(grids[0]) // 2 ** len(dims) + dims[-1] * model.num_classes
