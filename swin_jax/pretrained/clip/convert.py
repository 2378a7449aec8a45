"""Converts CLIP between official state dicts and our parameters.

Official names and shapes are those of openai/CLIP and of open_clip's `CLIP`;
`pretrained.clip.layouts` converts other layouts to them. Linear weights are transposed, and
convolutions go from (out, in, h, w) to (h, w, in, out). The packed in_proj becomes qkv
(C, 3, h, d) with biases (3, h, d), out_proj becomes proj (h, d, C), and the projections of the
attention pool also get an axis of heads. Running statistics are in 'batch_stats'. The functions
read only the fields of a model, so this module imports no model.
"""

import re
from collections.abc import Mapping

import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.core.params import flatten, unflatten
from swin_jax.core.sizes import Size, per_axis
from swin_jax.pretrained import compare, recognize
from swin_jax.pretrained.clip import resize as clip_resize
from swin_jax.pretrained.clip.infer import infer, told_image_size
from swin_jax.pretrained.clip.layouts import (
    is_clip,
    names_of_swin,
    own_part,
    preferred,
    to_official_names,
)
from swin_jax.pretrained.clip.shapes import is_resnet, is_swin, official_shapes, position_grid
from swin_jax.pretrained.files import choose
from swin_jax.pretrained.swin import convert as convert_swin

__all__ = [
    "from_official",
    "infer",
    "told_image_size",
    "is_clip",
    "to_official_names",
    "official_shapes",
    "to_official",
]

# Official name of a module or leaf inside a block -> ours.
_RENAMED = (
    (r"\.attn\.in_proj_weight$", ".attn.qkv.weight"),
    (r"\.attn\.in_proj_bias$", ".attn.qkv.bias"),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"\b(resblocks|layer[1-4]|downsample)\.(\d+)", r"\1_\2"),
)


def empty(model) -> dict[str, np.ndarray]:
    """A state dict with the shapes of a CLIP; all its values are zero."""
    return {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in official_shapes(model).items()
    }


def from_official(
    state_dict: Mapping[str, np.ndarray],
    model,
    resize: str | None = None,
    image_size: Size | None = None,
) -> dict:
    """Converts a state dict to the variables of a CLIP; every key must fit.

    Args:
        state_dict: {name: array} as `pretrained.files.read` gives it, in any layout of
            `pretrained.clip.layouts` and any dtype.
        model: A `models.clip.CLIP`, see `official_shapes`.
        resize: Method that resizes the positions if the model is for images of another size or
            for longer texts, see `pretrained.clip.resize`.
        image_size: Image size that the weights are for, an int or (H, W); None if unknown.

    Returns:
        {'params': ..., 'batch_stats': ... (ResNets)}, nested dicts of float32 numpy arrays, as
        `model.init` makes them.

    Raises:
        UserError: The weights do not fit. The message says in which fields weights and model
            differ, or which other family the weights belong to, or else lists every missing,
            unexpected and mis-shaped key.
    """
    _tell_what_is_left(state_dict)
    state_dict, shapes = to_official_names(state_dict), official_shapes(model)
    if other := recognize.recognize_not_clip(state_dict, swin_tower=is_swin(model.visual)):
        raise UserError(other)
    if difference(state_dict, model):
        resized = state_dict
    else:
        resized = fit_positions(state_dict, model, resize, image_size)
    _check(resized, shapes, model)
    variables: dict = {"params": {}, "batch_stats": {}}
    for name in shapes:
        if name.startswith("visual.") and is_swin(model.visual):
            continue
        collection, path = _path(name, shapes[name])
        value = _to_ours(name, np.asarray(resized[name], np.float32), _heads(name, model))
        variables[collection][path] = value
    variables = {collection: unflatten(flat) for collection, flat in variables.items() if flat}
    if is_swin(model.visual):
        visual = {n.removeprefix("visual."): resized[n] for n in shapes if n.startswith("visual.")}
        variables["params"]["visual"] = convert_swin.from_official(visual, model.visual)["params"]
    return variables


def _tell_what_is_left(state_dict: Mapping[str, np.ndarray]) -> None:
    """Warns about the arrays that `to_official_names` leaves out."""
    swin, names = names_of_swin(state_dict), compare.strip_wrappers(state_dict)
    prefix, others = preferred(names)
    if others:
        warn(
            choose.chosen(
                prefix.rstrip(".") or "no prefix", [other.rstrip(".") for other in others]
            )
        )
    left = [
        name
        for name in own_part(names)[1]
        if name not in swin and not (others and name.startswith(others))
    ]
    parts = [f"{len(swin)} arrays of a Swin"] if swin else []
    parts += [f"{len(left)} others, such as {left[0]}"] if left else []
    if parts:
        warn(f"ignored weights that do not belong to a CLIP: {', and '.join(parts)}")


def fit_positions(
    state_dict: Mapping[str, np.ndarray], model, resize: str | None, image_size: Size | None
) -> dict[str, np.ndarray]:
    """Fits the positions in a state dict with OpenAI's names to a model.

    The other arguments are those of `from_official`; see `clip_resize.resize_positions`.
    """
    grid, old = (0, 0), None
    if not is_swin(model.visual):
        grid = position_grid(model.visual)
        if image_size is not None:
            stride = [
                size // count for size, count in zip(per_axis(model.visual.image_size, 2), grid)
            ]
            old = tuple(size // pixels for size, pixels in zip(per_axis(image_size, 2), stride))
    return clip_resize.resize_positions(state_dict, grid, model.text.context_length, resize, old)


def to_official(variables: Mapping, model, buffers: bool = False) -> dict[str, np.ndarray]:
    """Converts the variables of a CLIP to an official state dict; the inverse of `from_official`.

    Gradients, or anything else of the same structure, convert the same way. Without 'batch_stats'
    the result has no running statistics.

    Args:
        variables: {'params': nested dict of arrays, 'batch_stats': the same (ResNets)}.
        model: The `models.clip.CLIP` that they belong to.
        buffers: True adds `num_batches_tracked`, which a strict `load_state_dict` requires.

    Returns:
        {official name: float32 numpy array in PyTorch's layout}, in the official order. The names
        are those of openai/CLIP, which open_clip reads too.

    Raises:
        UserError: The variables do not belong to this model.
    """
    shapes = official_shapes(model)
    flat = {collection: flatten(tree) for collection, tree in variables.items()}
    if not flat.get("batch_stats"):
        shapes = {name: shape for name, shape in shapes.items() if "running_" not in name}
    swin = {}
    if is_swin(model.visual):
        swin = convert_swin.to_official({"params": variables["params"]["visual"]}, model.visual)
    state_dict = {}
    for name, shape in shapes.items():
        if name.startswith("visual.") and swin:
            state_dict[name] = swin[name.removeprefix("visual.")]
            continue
        collection, path = _path(name, shape)
        if path in flat.get(collection, {}):
            state_dict[name] = _to_theirs(name, np.asarray(flat[collection][path], np.float32))
    _check(state_dict, shapes, model)
    if not swin and len(flat["params"]) != sum("running_" not in name for name in shapes):
        raise UserError("these variables hold more than the parameters of this CLIP")
    if buffers:
        norms = [name for name in shapes if name.endswith("running_var")]
        state_dict |= {
            name.replace("running_var", "num_batches_tracked"): np.zeros((), np.int64)
            for name in norms
        }
    return state_dict


def _check(state_dict: Mapping, shapes: Mapping, model) -> None:
    report = compare.compare(state_dict, shapes)
    if not report:
        return
    if differing := difference(state_dict, model):
        raise UserError(f"these weights are for another CLIP than the model: {differing}")
    if is_swin(model.visual):
        visual = {
            n.removeprefix("visual."): v for n, v in state_dict.items() if n.startswith("visual.")
        }
        convert_swin.check_sizes(visual, model.visual)
    raise report.error("these weights are not for this CLIP")


def difference(state_dict: Mapping, model) -> str:
    """A list of the fields in which weights and model differ, without the sizes that resizing can
    fit; '' if there are none, or if they are unknown.
    """
    if is_swin(model.visual):
        return ""
    try:
        found = infer(state_dict, model.visual.num_heads, model.text.num_heads)
    except UserError:
        return ""
    visual, text = model.visual, model.text
    wanted = dict(
        embed_dim=text.embed_dim,
        vision_layers=visual.layers,
        vision_width=visual.width,
        patch_size=None if is_resnet(visual) else visual.patch_size,
        vocab_size=text.vocab_size,
        text_width=text.width,
        text_layers=text.layers,
    )
    pairs = [(name, found[name], value) for name, value in wanted.items() if found[name] != value]
    if (found["logit_bias"] is None) != (model.logit_bias is None):
        pairs.append(("logit_bias", found["logit_bias"], model.logit_bias))
    return ", ".join(
        f"{name} is {theirs} in the weights and {ours} in the model" for name, theirs, ours in pairs
    )


def _heads(name: str, model) -> int:
    return model.visual.num_heads if name.startswith("visual.") else model.text.num_heads


def _path(name: str, shape: tuple[int, ...]) -> tuple[str, str]:
    """The collection and the path that an official name gets."""
    path = name
    for pattern, replacement in _RENAMED:
        path = re.sub(pattern, replacement, path)
    if not name.startswith(("visual.", "logit_")):
        path = f"text.{path}"
    *modules, leaf = path.split(".")
    if leaf in ("running_mean", "running_var"):
        return "batch_stats", "/".join([*modules, leaf.removeprefix("running_")])
    if leaf == "weight":
        leaf = "scale" if len(shape) == 1 else "kernel"
    if name == "token_embedding.weight":
        leaf = "embedding"
    return "params", "/".join([*modules, leaf])


def _to_ours(name: str, value: np.ndarray, heads: int) -> np.ndarray:
    """Converts one tensor from PyTorch's layout to ours."""
    if value.ndim == 4:
        return np.ascontiguousarray(value.transpose(2, 3, 1, 0))
    if name.endswith("in_proj_bias"):
        return value.reshape(3, heads, -1)
    if re.search(r"attnpool\.[qkv]_proj\.bias$", name):
        return value.reshape(heads, -1)
    if name == "token_embedding.weight" or value.ndim != 2 or not name.endswith("weight"):
        return value
    value = np.ascontiguousarray(value.T)  # (in, out)
    if name.endswith("in_proj_weight"):
        return value.reshape(len(value), 3, heads, -1)
    if re.search(r"attnpool\.[qkv]_proj\.weight$", name):
        return value.reshape(len(value), heads, -1)
    if name.endswith(("attn.out_proj.weight", "attnpool.c_proj.weight")):
        return value.reshape(heads, -1, value.shape[1])
    return value


def _to_theirs(name: str, value: np.ndarray) -> np.ndarray:
    """Converts one tensor from our layout to PyTorch's."""
    if re.search(r"(in_proj_bias|attnpool\.[qkv]_proj\.bias)$", name):
        return value.reshape(-1)
    if name.endswith("in_proj_weight") or re.search(r"attnpool\.[qkv]_proj\.weight$", name):
        return np.ascontiguousarray(value.reshape(len(value), -1).T)
    if name.endswith(("attn.out_proj.weight", "attnpool.c_proj.weight")):
        return np.ascontiguousarray(value.reshape(-1, value.shape[-1]).T)
    if value.ndim == 4:
        return np.ascontiguousarray(value.transpose(3, 2, 0, 1))
    if name == "token_embedding.weight" or value.ndim != 2 or not name.endswith("weight"):
        return value
    return np.ascontiguousarray(value.T)
