"""Multiply-accumulates of a Swin, by the formulas of the official code."""

import math

from swin_jax.core.sizes import per_axis
from swin_jax.models.swin.fields import stage_dims
from swin_jax.ops import window_geometry
from swin_jax.ops.attention_variants import performer


def count(model) -> int:
    """Multiply-accumulates per image at `image_size`.

    Args:
        model: Anything with the fields of `models.swin.Swin`.
    """
    grids, windows = window_geometry.stage_geometry(model)
    rules, dims = window_geometry.stage_rules(model), stage_dims(model)
    patch = math.prod(per_axis(model.patch_size, len(grids[0])))
    total = math.prod(grids[0]) * dims[0] * (patch * model.in_channels + model.patch_norm)
    for s, (grid, size, d) in enumerate(zip(grids, windows, dims)):
        tokens = math.prod(grid)
        shift = window_geometry.fit(grid, size, rules[s])[1]
        for block in range(model.depths[s]):
            shifted = block % 2 == 1 and any(shift) and model.shift == "pad"
            mixed = _mixing(model, grid, size, shift if shifted else (0,) * len(shift), s)
            total += int(2 * tokens * d + mixed + 2 * tokens * d * d * model.mlp_ratio)
        if model.temporal_window:
            frames = min(model.temporal_window, grid[0])
            total += model.depths[s] * tokens * d * (1 + 4 * d + 2 * frames)
        if s < len(dims) - 1:
            merged = math.prod(per_axis(model.merge_size, len(grid)))
            normed = tokens // merged * 2 * d if model.post_norm else tokens * d
            total += normed + tokens // merged * merged * d * 2 * d
    # The official formula divides the first grid by 2^stages, not by 4^(stages - 1),
    # for the final norm.
    return total + dims[-1] * math.prod(grids[0]) // 2 ** len(dims) + dims[-1] * model.num_classes


def _mixing(
    model, grid: tuple[int, ...], size: tuple[int, ...], shift: tuple[int, ...], stage: int
) -> float:
    """Multiply-accumulates of mixing the tokens of a map in one block; `shift` is not 0 where the
    map is padded by further windows.
    """
    d, n = stage_dims(model)[stage], math.prod(size)
    windows = math.prod(g / w + (s > 0) for g, w, s in zip(grid, size, shift, strict=True))
    if model.token_mixer == "mlp":
        return windows * n * n * d
    if model.token_mixer == "performer":
        features = performer.num_features(d // model.num_heads[stage])
        return math.prod(grid) * (4 * d * d + 4 * features * d)
    return windows * (4 * n * d * d + 2 * n * n * d)
