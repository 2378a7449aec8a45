"""Swin, Swin V2 and their dense backbones: official state dicts <-> our parameters.

Official names and shapes are those of `SwinTransformer` and `SwinTransformerV2` of
microsoft/Swin-Transformer and of the backbone of Swin-Transformer-Semantic-Segmentation;
`pretrained.swin.layouts` brings other layouts to them. Linear weights are transposed, convolutions
go from (out, in, *patch) to (*patch, in, out), qkv becomes (C, 3, h, d), its biases (h, d),
attn.proj (h, d, C), and Swin-MLP's spatial_mlp (h, from, to). Only the fields of a model are looked
at, so that no model is imported here.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

from swin_jax.core import stacking
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten, official_name, unflatten
from swin_jax.core.sizes import per_axis
from swin_jax.ops import window_geometry
from swin_jax.pretrained import compare, recognize
from swin_jax.pretrained.swin import windows
from swin_jax.pretrained.swin.buffers import official_buffers
from swin_jax.pretrained.swin.infer import choices, infer, sizes
from swin_jax.pretrained.swin.layouts import from_timm, to_official_names, to_timm

__all__ = [
    "check_sizes",
    "from_official",
    "from_timm",
    "infer",
    "to_official_names",
    "official_buffers",
    "official_shapes",
    "to_official",
    "to_state_dict",
    "to_timm",
]


def official_shapes(model) -> dict[str, tuple[int, ...]]:
    """{official name: official shape} of a Swin's parameters, in the official order.

    Args:
        model: Anything with the fields of `models.swin.Swin`. Absolute positions are (1, L, C) as
            in the classifier, for a dense backbone too.
    """
    grids, windows = window_geometry.stage_geometry(model)
    axes = len(grids[0])
    merge = math.prod(per_axis(model.merge_size, axes))
    shapes = {"absolute_pos_embed": (1, math.prod(grids[0]), model.embed_dim)} if model.ape else {}
    patch = per_axis(model.patch_size, axes)
    shapes["patch_embed.proj.weight"] = (model.embed_dim, model.in_channels, *patch)
    shapes["patch_embed.proj.bias"] = (model.embed_dim,)
    if model.patch_norm:
        shapes |= _norm_shapes("patch_embed.norm", model.embed_dim)
    for s, (depth, heads) in enumerate(zip(model.depths, model.num_heads)):
        dim = model.embed_dim * 2**s
        for i in range(depth):
            block = f"layers.{s}.blocks.{i}"
            shapes |= _block_shapes(block, dim, heads, windows[s], model)
            if model.main_norm_every and (i + 1) % model.main_norm_every == 0:
                shapes |= _norm_shapes(f"{block}.enorm", dim)
        if s < len(model.depths) - 1:
            shapes[f"layers.{s}.downsample.reduction.weight"] = (2 * dim, merge * dim)
            shapes |= _norm_shapes(
                f"layers.{s}.downsample.norm", 2 * dim if model.post_norm else merge * dim
            )
    if model.out_norms:
        for s in model.out_norms:
            shapes |= _norm_shapes(f"norm{s}", model.embed_dim * 2**s)
        return shapes
    shapes |= _norm_shapes("norm", dim)
    if model.num_classes:
        shapes |= {"head.weight": (model.num_classes, dim), "head.bias": (model.num_classes,)}
    return shapes


def _norm_shapes(name: str, dim: int) -> dict:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _block_shapes(name: str, dim: int, heads: int, window: tuple[int, ...], model) -> dict:
    hidden = int(dim * model.mlp_ratio)
    shapes = _norm_shapes(f"{name}.norm1", dim)
    if model.token_mixer == "mlp":
        tokens = math.prod(window)
        shapes[f"{name}.spatial_mlp.weight"] = (heads * tokens, tokens, 1)
        shapes[f"{name}.spatial_mlp.bias"] = (heads * tokens,)
    else:
        shapes |= _attention_shapes(name, dim, heads, window, model)
    shapes |= _norm_shapes(f"{name}.norm2", dim)
    shapes |= {f"{name}.mlp.fc1.weight": (hidden, dim), f"{name}.mlp.fc1.bias": (hidden,)}
    return shapes | {f"{name}.mlp.fc2.weight": (dim, hidden), f"{name}.mlp.fc2.bias": (dim,)}


def _attention_shapes(name: str, dim: int, heads: int, window: tuple[int, ...], model) -> dict:
    shapes = {}
    if model.cosine_attention:
        shapes[f"{name}.attn.logit_scale"] = (heads, 1, 1)
        if model.qkv_bias:
            shapes |= {f"{name}.attn.q_bias": (dim,), f"{name}.attn.v_bias": (dim,)}
    if model.continuous_bias:
        shapes[f"{name}.attn.cpb_mlp.0.weight"] = (window_geometry.CPB_HIDDEN, len(window))
        shapes[f"{name}.attn.cpb_mlp.0.bias"] = (window_geometry.CPB_HIDDEN,)
        shapes[f"{name}.attn.cpb_mlp.2.weight"] = (heads, window_geometry.CPB_HIDDEN)
    elif model.relative_position:
        shapes[f"{name}.attn.relative_position_bias_table"] = (
            math.prod(2 * w - 1 for w in window),
            heads,
        )
    shapes[f"{name}.attn.qkv.weight"] = (3 * dim, dim)
    if model.qkv_bias and not model.cosine_attention:
        shapes[f"{name}.attn.qkv.bias"] = (3 * dim,)
    return shapes | {f"{name}.attn.proj.weight": (dim, dim), f"{name}.attn.proj.bias": (dim,)}


def from_official(state_dict: Mapping[str, np.ndarray], model) -> dict:
    """Converts a state dict to the variables of a Swin; every key must fit.

    Args:
        state_dict: {name: array} as `pretrained.files.read` gives it, in any layout of
            `pretrained.swin.layouts`. Buffers (`relative_position_index`, `relative_coords_table`,
            `attn_mask`) may be there and are dropped; so is, with a warning, what is not part of a
            Swin (SimMIM's decoder, a detector's neck and heads).
        model: A `models.swin.Swin`.

    Returns:
        {'params': nested dict of float32 numpy arrays}, as `model.init` makes it.

    Raises:
        UserError: Lists every missing, unexpected and mis-shaped key; or tells which other size or
            family the weights are of.
    """
    state_dict = to_official_names(state_dict)
    _check(state_dict, model)
    shapes = official_shapes(model)
    flat = {
        _path(name, shapes[name]): _to_ours(name, state_dict[name], model.num_heads)
        for name in shapes
    }
    return {"params": stacking.stack_as(unflatten(flat), model)}


def to_official(variables: Mapping, model, buffers: bool = False) -> dict[str, np.ndarray]:
    """Converts the variables of a Swin to an official state dict; the inverse of `from_official`.

    Gradients, or anything else of the same structure, convert the same way.

    Args:
        variables: {'params': nested dict of arrays}.
        model: The `models.swin.Swin` that they belong to.
        buffers: True to add `official_buffers`, which the official `load_state_dict` wants when it
            is strict.

    Returns:
        {official name: float32 numpy array in PyTorch's layout} (int64 for the index), in the
        official order. Absolute positions are (1, L, C), those of a dense backbone (one with
        `out_norms`) a map (1, C, *grid).

    Raises:
        UserError: The variables are not this model's.
    """
    state_dict = to_state_dict(variables)
    _check(state_dict, model)
    state_dict = {name: state_dict[name] for name in official_shapes(model)}
    if model.ape and model.out_norms:
        grid = window_geometry.stage_geometry(model)[0][0]
        positions = state_dict["absolute_pos_embed"][0].T.reshape(1, model.embed_dim, *grid)
        state_dict["absolute_pos_embed"] = np.ascontiguousarray(positions)
    return state_dict | official_buffers(model) if buffers else state_dict


def to_state_dict(variables: Mapping) -> dict[str, np.ndarray]:
    """Official names and layouts of the variables of any Swin, whatever its shapes;
    nothing is checked.
    """
    params = stacking.unstack(variables["params"])
    flat = {official_name(path): value for path, value in flatten(params).items()}
    return {name: _to_theirs(name, np.asarray(value, np.float32)) for name, value in flat.items()}


def _check(state_dict: Mapping, model) -> None:
    """Raises what `from_official` raises for a state dict in official names."""
    report = compare.compare(state_dict, official_shapes(model))
    if not report:
        return
    axes = window_geometry.num_axes(model)
    if other := recognize.recognize(state_dict, axes):
        raise UserError(other)
    check_sizes(state_dict, model)
    advice = ""
    if "layers.0.blocks.0.norm1.weight" in state_dict:
        told = choices(state_dict)
        if model.token_mixer == "mlp":
            told = dict(token_mixer="attention") | told
        fields = {name: value for name, value in told.items() if value != _plain(model, name)}
        arguments = ", ".join(f"{name}={value!r}" for name, value in fields.items())
        advice = f"; make the model with {arguments}" if fields else ""
    raise report.error(f"these weights are not for {_describe(model)}{advice}")


def check_sizes(state_dict: Mapping[str, np.ndarray], model) -> None:
    """Raises UserError, in one line, where weights are of a Swin of another size than the model.

    Args:
        state_dict: State dict in official names, of a Swin over any axes; one that does not tell
            its size passes.
        model: The `models.swin.Swin` to fill.
    """
    found = sizes(state_dict)
    wrong = {
        name: _plain(model, name) for name, size in found.items() if size != _plain(model, name)
    }
    if wrong:
        theirs = ", ".join(f"{name}={found[name]}" for name in wrong)
        ours = ", ".join(f"{name}={size}" for name, size in wrong.items())
        raise UserError(f"these weights are of a Swin of {theirs}, the model is one of {ours}")
    _check_matrices(state_dict, model)


def _check_matrices(state_dict: Mapping[str, np.ndarray], model) -> None:
    """Raises UserError where the windows of a Swin-MLP's weights are not the model's."""
    theirs = [windows.mlp_tokens(state_dict, s) for s in range(len(model.depths))]
    if model.token_mixer != "mlp" or None in theirs:
        return
    sizes = window_geometry.stage_geometry(model)[1]
    if theirs != [math.prod(size) for size in sizes]:
        raise UserError(
            f"these weights of a Swin-MLP are for windows of {theirs} tokens in its stages, the "
            f"model has windows of {sizes}: the matrices fit one size only, keep window_size and "
            "image_size"
        )


def _plain(model, name: str):
    value = vars(model)[name]
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _describe(model) -> str:
    return (
        f"Swin(embed_dim={model.embed_dim}, depths={tuple(model.depths)}, "
        f"num_heads={tuple(model.num_heads)}, window_size={model.window_size}, "
        f"image_size={model.image_size}, num_classes={model.num_classes})"
    )


def _path(name: str, shape: tuple[int, ...]) -> str:
    """The path of an official name: the inverse of `official_name`."""
    *modules, leaf = re.sub(r"\b(layers|blocks|cpb_mlp)\.(\d+)", r"\1_\2", name).split(".")
    if leaf == "weight":
        leaf = "scale" if len(shape) == 1 else "kernel"
    return "/".join([*modules, leaf])


def _to_ours(name: str, value: np.ndarray, num_heads: tuple[int, ...]) -> np.ndarray:
    """One tensor from PyTorch's layout to ours."""
    value = np.asarray(value, np.float32)
    if name == "patch_embed.proj.weight":
        return np.ascontiguousarray(np.moveaxis(value, (1, 0), (-2, -1)))
    if ".spatial_mlp." in name:
        h = num_heads[int(name.split(".")[1])]
        if name.endswith(".bias"):
            return value.reshape(h, -1)
        return np.ascontiguousarray(value.reshape(h, -1, value.shape[1]).transpose(0, 2, 1))
    if ".attn.qkv." in name or name.endswith((".attn.proj.weight", ".attn.q_bias", ".attn.v_bias")):
        h = num_heads[int(name.split(".")[1])]
        if name.endswith("qkv.bias"):
            return value.reshape(3, h, -1)
        if name.endswith("_bias"):
            return value.reshape(h, -1)
        shape = (value.shape[1], 3, h, -1) if ".qkv." in name else (h, -1, value.shape[0])
        return np.ascontiguousarray(value.T).reshape(shape)
    if name.endswith(".weight") and value.ndim == 2:
        return np.ascontiguousarray(value.T)
    return value


def _to_theirs(name: str, value: np.ndarray) -> np.ndarray:
    """One tensor from our layout to PyTorch's."""
    if name == "patch_embed.proj.weight":
        return np.ascontiguousarray(np.moveaxis(value, (-2, -1), (1, 0)))
    if name.endswith((".attn.qkv.bias", ".attn.q_bias", ".attn.v_bias", ".spatial_mlp.bias")):
        return value.reshape(-1)
    if name.endswith(".spatial_mlp.weight"):
        return np.ascontiguousarray(value.transpose(0, 2, 1)).reshape(-1, value.shape[1], 1)
    if name.endswith(".attn.qkv.weight"):
        return np.ascontiguousarray(value.reshape(value.shape[0], -1).T)
    if name.endswith(".attn.proj.weight"):
        return np.ascontiguousarray(value.reshape(-1, value.shape[-1]).T)
    if name.endswith(".weight") and value.ndim == 2:
        return np.ascontiguousarray(value.T)
    return value
