"""Swin v1: official and timm state dicts <-> our parameters.

Official names and shapes are those of `SwinTransformer` of microsoft/Swin-Transformer. Linear weights are transposed,
convolutions go from (out, in, *patch) to (*patch, in, out), qkv becomes (C, 3, h, d) and attn.proj (h, d, C). Only the
fields of a model are looked at, so that no model is imported here.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

from swin_jax import names
from swin_jax.convert import rules
from swin_jax.errors import UserError


def official_shapes(model) -> dict[str, tuple[int, ...]]:
    """{official name: official shape} of a Swin's parameters, in the official order.

    Args:
        model: anything with the fields of `models.swin.Swin`.
    """
    grids, windows = _geometry(model)
    merge = math.prod(_per_axis(model.merge_size, len(grids[0])))
    shapes = {"absolute_pos_embed": (1, math.prod(grids[0]), model.embed_dim)} if model.ape else {}
    patch = _per_axis(model.patch_size, len(grids[0]))
    shapes["patch_embed.proj.weight"] = (model.embed_dim, model.in_channels, *patch)
    shapes["patch_embed.proj.bias"] = (model.embed_dim,)
    if model.patch_norm:
        shapes |= _norm_shapes("patch_embed.norm", model.embed_dim)
    for s, (depth, heads) in enumerate(zip(model.depths, model.num_heads)):
        dim = model.embed_dim * 2**s
        for i in range(depth):
            shapes |= _block_shapes(f"layers.{s}.blocks.{i}", dim, heads, windows[s], model)
        if s < len(model.depths) - 1:
            shapes[f"layers.{s}.downsample.reduction.weight"] = (2 * dim, merge * dim)
            shapes |= _norm_shapes(f"layers.{s}.downsample.norm", merge * dim)
    shapes |= _norm_shapes("norm", dim)
    if model.num_classes:
        shapes |= {"head.weight": (model.num_classes, dim), "head.bias": (model.num_classes,)}
    return shapes


def _norm_shapes(name: str, dim: int) -> dict:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _block_shapes(name: str, dim: int, heads: int, window: tuple[int, ...], model) -> dict:
    hidden = int(dim * model.mlp_ratio)
    shapes = _norm_shapes(f"{name}.norm1", dim)
    shapes[f"{name}.attn.relative_position_bias_table"] = (math.prod(2 * w - 1 for w in window), heads)
    shapes[f"{name}.attn.qkv.weight"] = (3 * dim, dim)
    if model.qkv_bias:
        shapes[f"{name}.attn.qkv.bias"] = (3 * dim,)
    shapes |= {f"{name}.attn.proj.weight": (dim, dim), f"{name}.attn.proj.bias": (dim,)}
    shapes |= _norm_shapes(f"{name}.norm2", dim)
    shapes |= {f"{name}.mlp.fc1.weight": (hidden, dim), f"{name}.mlp.fc1.bias": (hidden,)}
    return shapes | {f"{name}.mlp.fc2.weight": (dim, hidden), f"{name}.mlp.fc2.bias": (dim,)}


def _per_axis(value, axes: int) -> tuple[int, ...]:
    value = (value,) if isinstance(value, int) else tuple(value)
    return value * axes if len(value) == 1 else value


def _geometry(model) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """(grids, windows) of each stage at `image_size`; a test holds this against `models.swin.stage_geometry`."""
    given = (model.image_size, model.patch_size, model.window_size, model.merge_size)
    axes = max([2, *(len(value) for value in given if not isinstance(value, int))])
    image, patch, window, merge = (_per_axis(value, axes) for value in given)
    grid = tuple(-(-n // p) for n, p in zip(image, patch))
    grids, windows = [], []
    for _ in model.depths:
        shrinks = model.small == "shrink" and any(n <= w for n, w in zip(grid, window))
        grids.append(grid)
        windows.append((min(grid),) * axes if shrinks else window)
        grid = tuple(-(-n // m) for n, m in zip(grid, merge))
    return grids, windows


def from_timm(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames timm's layout (merging at the start of the next stage, `head.fc`) to the official one; others pass."""
    stages = [int(name.split(".")[1]) for name in state_dict if re.match(r"layers\.\d+\.downsample\.", name)]
    shift = bool(stages) and 0 not in stages and any(name.startswith("layers.0.") for name in state_dict)
    renamed = {}
    for name, value in state_dict.items():
        if shift:
            name = re.sub(r"^layers\.(\d+)(?=\.downsample\.)", lambda m: f"layers.{int(m[1]) - 1}", name)
        renamed[re.sub(r"^head\.fc\.", "head.", name)] = value
    return renamed


def normalise(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict in official names, whether it came from the official code or from timm, without buffers."""
    return rules.drop_buffers(from_timm(rules.strip_wrappers(state_dict)))


def from_official(state_dict: Mapping[str, np.ndarray], model) -> dict:
    """Converts a state dict to the variables of a Swin; every key must fit.

    Args:
        state_dict: {name: array} as `convert.read` gives it, in the official or in timm's layout. Buffers
            (`relative_position_index`, `attn_mask`, ...) may be there and are dropped.
        model: a `models.swin.Swin`.

    Returns:
        {'params': nested dict of float32 numpy arrays}, as `model.init` makes it.

    Raises:
        UserError: lists every missing, unexpected and mis-shaped key.
    """
    state_dict = normalise(state_dict)
    shapes = official_shapes(model)
    rules.check(state_dict, shapes, _describe(model))
    flat = {_path(name, shapes[name]): _to_ours(name, state_dict[name], model.num_heads) for name in shapes}
    return {"params": names.unflatten(flat)}


def to_official(variables: Mapping, model, buffers: bool = False) -> dict[str, np.ndarray]:
    """Converts the variables of a Swin to an official state dict; the inverse of `from_official`.

    Gradients, or anything else of the same structure, convert the same way.

    Args:
        variables: {'params': nested dict of arrays}.
        model: the `models.swin.Swin` that they belong to.
        buffers: whether to add `relative_position_index` and `attn_mask`, which the official `load_state_dict` wants
            when it is strict.

    Returns:
        {official name: float32 numpy array in PyTorch's layout} (int64 for the index), in the official order.

    Raises:
        UserError: the variables are not this model's.
    """
    shapes = official_shapes(model)
    state_dict = to_state_dict(variables)
    rules.check(state_dict, shapes, _describe(model))
    state_dict = {name: state_dict[name] for name in shapes}
    return state_dict | official_buffers(model) if buffers else state_dict


def to_state_dict(variables: Mapping) -> dict[str, np.ndarray]:
    """Official names and layouts of the variables of any Swin, whatever its shapes; nothing is checked."""
    flat = {names.official_name(path): value for path, value in names.flatten(variables["params"]).items()}
    return {name: _to_theirs(name, np.asarray(value, np.float32)) for name, value in flat.items()}


def _describe(model) -> str:
    return (
        f"Swin(embed_dim={model.embed_dim}, depths={tuple(model.depths)}, num_heads={tuple(model.num_heads)}, "
        f"window_size={model.window_size}, image_size={model.image_size}, num_classes={model.num_classes})"
    )


def _path(name: str, shape: tuple[int, ...]) -> str:
    """The path of an official name: the inverse of `names.official_name`."""
    *modules, leaf = re.sub(r"\b(layers|blocks)\.(\d+)", r"\1_\2", name).split(".")
    if leaf == "weight":
        leaf = "scale" if len(shape) == 1 else "kernel"
    return "/".join([*modules, leaf])


def _to_ours(name: str, value: np.ndarray, num_heads: tuple[int, ...]) -> np.ndarray:
    """One tensor from PyTorch's layout to ours."""
    value = np.asarray(value, np.float32)
    if name == "patch_embed.proj.weight":
        return np.ascontiguousarray(np.moveaxis(value, (1, 0), (-2, -1)))
    if ".attn.qkv." in name or name.endswith(".attn.proj.weight"):
        h = num_heads[int(name.split(".")[1])]
        if name.endswith("qkv.bias"):
            return value.reshape(3, h, -1)
        shape = (value.shape[1], 3, h, -1) if ".qkv." in name else (h, -1, value.shape[0])
        return np.ascontiguousarray(value.T).reshape(shape)
    if name.endswith(".weight") and value.ndim == 2:
        return np.ascontiguousarray(value.T)
    return value


def _to_theirs(name: str, value: np.ndarray) -> np.ndarray:
    """One tensor from our layout to PyTorch's."""
    if name == "patch_embed.proj.weight":
        return np.ascontiguousarray(np.moveaxis(value, (-2, -1), (1, 0)))
    if name.endswith(".attn.qkv.bias"):
        return value.reshape(-1)
    if name.endswith(".attn.qkv.weight"):
        return np.ascontiguousarray(value.reshape(value.shape[0], -1).T)
    if name.endswith(".attn.proj.weight"):
        return np.ascontiguousarray(value.reshape(-1, value.shape[-1]).T)
    if name.endswith(".weight") and value.ndim == 2:
        return np.ascontiguousarray(value.T)
    return value


def official_buffers(model) -> dict[str, np.ndarray]:
    """The tensors that the official classifier stores beside its parameters.

    Returns:
        {name: array}: per block `attn.relative_position_index` (N, N) int64, and `attn_mask` (nW, N, N) float32, 0 or
        -100, in the odd blocks of stages larger than the window.

    Raises:
        UserError: a window that does not divide a stage's grid, which the official classifier cannot have.
    """
    buffers = {}
    for s, (grid, window) in enumerate(zip(*_geometry(model))):
        index = _relative_position_index(window)
        for i in range(model.depths[s]):
            buffers[f"layers.{s}.blocks.{i}.attn.relative_position_index"] = index
            if i % 2 and all(n > w for n, w in zip(grid, window)):
                if any(n % w for n, w in zip(grid, window)):
                    raise UserError(f"no official buffers: a window of {window} does not divide a grid of {grid}")
                buffers[f"layers.{s}.blocks.{i}.attn_mask"] = _attention_mask(grid, window)
    return buffers


def _relative_position_index(window: tuple[int, ...]) -> np.ndarray:
    place = np.indices(window).reshape(len(window), -1)
    difference = place[:, :, None] - place[:, None, :] + np.array(window)[:, None, None] - 1
    return np.ravel_multi_index(tuple(difference), [2 * w - 1 for w in window]).astype(np.int64)


def _attention_mask(grid: tuple[int, ...], window: tuple[int, ...]) -> np.ndarray:
    """-100 between tokens of one window that the shift brought together from different sides."""
    regions = np.zeros(grid, np.int64)
    for axis, (n, w) in enumerate(zip(grid, window)):
        band = np.repeat([0, 1, 2], [n - w, w - w // 2, w // 2])
        regions = 3 * regions + band.reshape([-1 if a == axis else 1 for a in range(len(grid))])
    axes = len(grid)
    split = regions.reshape([size for n, w in zip(grid, window) for size in (n // w, w)])
    windows = split.transpose(*range(0, 2 * axes, 2), *range(1, 2 * axes, 2)).reshape(-1, math.prod(window))
    return np.where(windows[:, :, None] == windows[:, None, :], 0, -100).astype(np.float32)


def infer(state_dict: Mapping[str, np.ndarray]) -> dict:
    """The arguments of `models.swin.Swin` that a state dict was made with.

    `image_size` comes from absolute positions, from a mask buffer, or from a stage whose window shrank. Where none of
    them is there it is the smallest image whose every stage holds a window, which is the official size of every v1
    file: 224 for window 7, 256 for 8, 384 for 12. (It only fixes shapes; other images may be given.)

    Args:
        state_dict: in the official or in timm's layout, with or without buffers.

    Returns:
        Keyword arguments; `drop_path_rate` leaves no trace and is not among them.

    Raises:
        UserError: not a Swin v1 classifier, or one whose window is not square.
    """
    state_dict = from_timm(rules.strip_wrappers(state_dict))
    proj = state_dict.get("patch_embed.proj.weight")
    depths = _depths(state_dict)
    if proj is None or not depths:
        raise UserError("not a Swin state dict: it has no patch_embed.proj.weight or no layers.0.blocks.0")
    if any(name.endswith(("logit_scale", "cpb_mlp.0.weight", "rpe_mlp.0.weight")) for name in state_dict):
        raise UserError("a Swin v2 state dict, whose window_size cannot be inferred; only Swin v1 can be loaded by it")
    tables = [state_dict.get(f"layers.{s}.blocks.0.attn.relative_position_bias_table") for s in range(len(depths))]
    if proj.ndim != 4 or any(table is None or table.ndim != 2 for table in tables):
        raise UserError("cannot infer window_size and num_heads: a relative_position_bias_table is missing")
    windows = [(math.isqrt(len(table)) + 1) // 2 for table in tables]
    if any((2 * w - 1) ** 2 != len(table) for w, table in zip(windows, tables)):
        raise UserError("cannot infer window_size: a relative_position_bias_table is not of a square window")
    patch = proj.shape[2:]
    patch = patch[0] if patch[0] == patch[1] else patch
    embed_dim = proj.shape[0]
    fc1 = state_dict.get("layers.0.blocks.0.mlp.fc1.weight")
    head = state_dict.get("head.weight")
    return dict(
        num_classes=0 if head is None else len(head),
        image_size=_infer_image_size(state_dict, patch, windows),
        patch_size=patch,
        in_channels=proj.shape[1],
        embed_dim=embed_dim,
        depths=depths,
        num_heads=tuple(table.shape[1] for table in tables),
        window_size=max(windows),
        mlp_ratio=4.0 if fc1 is None else len(fc1) / embed_dim,
        qkv_bias="layers.0.blocks.0.attn.qkv.bias" in state_dict,
        ape="absolute_pos_embed" in state_dict,
        patch_norm="patch_embed.norm.weight" in state_dict,
    )


def _depths(state_dict: Mapping) -> tuple[int, ...]:
    """Blocks of each stage."""
    found = {(int(m[1]), int(m[2])) for name in state_dict if (m := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name))}
    stages = max((s for s, _ in found), default=-1) + 1
    return tuple(max((i for t, i in found if t == s), default=-1) + 1 for s in range(stages))


def _infer_image_size(state_dict: Mapping, patch, windows: list[int]) -> int:
    if not isinstance(patch, int):
        raise UserError(f"cannot infer image_size with patches of {patch}; give image_size")
    sides = []
    if "absolute_pos_embed" in state_dict:
        sides.append(math.isqrt(state_dict["absolute_pos_embed"].shape[1]))
    for s, window in enumerate(windows):
        mask = state_dict.get(f"layers.{s}.blocks.1.attn_mask")
        if mask is not None:
            sides.append(math.isqrt(len(mask)) * window * 2**s)
        if window < max(windows):
            sides.append(window * 2**s)
    return patch * (sides[0] if sides else windows[-1] * 2 ** (len(windows) - 1))
