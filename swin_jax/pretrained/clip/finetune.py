"""Fits CLIP's weights to a model for other image sizes or longer texts, before fine-tuning.

The references are the last epoch of OpenAI's ViT-L/14@336px (arXiv 2103.00020, section 2.5) and
`resize_pos_embed` of mlfoundations/open_clip.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

from swin_jax.core.errors import UserError, warn
from swin_jax.core.sizes import Size
from swin_jax.pretrained import beside, run_config
from swin_jax.pretrained.clip import convert as clip
from swin_jax.pretrained.clip.activation import activation
from swin_jax.pretrained.clip.config import arguments_of, declared_image_size
from swin_jax.pretrained.clip.texts import texts_beside
from swin_jax.pretrained.swin import finetune

VISUAL_ONLY = r"^(text/|logit_)"  # parameters that the weights of an image tower do not have


def load_pretrained(source, model, resize: str | None = None, key: str | None = None) -> dict:
    """Fits weights of a CLIP into a CLIP.

    Args:
        source: A file that `pretrained.files.read` can read, in any layout of
            `pretrained.clip.layouts`; or a folder of a hub, or the variables of a CLIP.
        model: The `models.clip.CLIP` to fill.
        resize: 'bilinear' or 'bicubic', required if the image size differs or texts are longer;
            see `pretrained.clip.resize`.
        key: The weights to take from a file that holds several, see `pretrained.files.read`.

    Returns:
        {'params': ..., 'batch_stats': ... (ResNets)}.

    Raises:
        UserError: The file cannot be read, or its weights do not fit or were trained with another
            activation or another number of heads.
    """
    if not isinstance(source, Mapping):
        path = beside.locate(source)
        found = beside.read(path, key)
        if clip.is_swin(model.visual):
            _tell_untold(model, path)
            return clip.from_official(found, model, resize)
        _check_told(model, found, path)
        told = declared_image_size(beside.config_beside(path))
        return clip.from_official(found, model, resize, clip.told_image_size(found, told))
    _check_run(model, source.get("config") or {})
    params = {
        name: dict(tower) if isinstance(tower, Mapping) else tower
        for name, tower in source["params"].items()
    }
    visual = {} if clip.is_swin(model.visual) else params["visual"]
    tables = {"positional_embedding": params["text"]["positional_embedding"]}
    if "positional_embedding" in visual:
        tables["visual.positional_embedding"] = visual["positional_embedding"]
    if "attnpool" in visual:
        tables["visual.attnpool.positional_embedding"] = visual["attnpool"]["positional_embedding"]
    fitted = clip.fit_positions(tables, model, resize, _image_size_of(source.get("config") or {}))
    params["text"]["positional_embedding"] = fitted["positional_embedding"]
    if "positional_embedding" in visual:
        visual["positional_embedding"] = fitted["visual.positional_embedding"]
    if "attnpool" in visual:
        table = fitted["visual.attnpool.positional_embedding"]
        visual["attnpool"] = {**visual["attnpool"], "positional_embedding": table}
    return {"params": params, **{name: source[name] for name in ("batch_stats",) if name in source}}


def _check_run(model, config: Mapping) -> None:
    """Raises UserError, in one line, if a run's flat config describes another CLIP than `model`."""
    if not run_config.is_clip(config):
        _check_activation(
            model, config.get("task.model.act", model.text.act), "the workdir's model"
        )
        return
    try:
        trained = run_config.clip_of(config)
    except UserError:  # the user's own towers: only shapes can be compared, later
        return
    _check_activation(model, trained.text.act, "the workdir's model")
    parts = [clip.difference(clip.empty(trained), model)]
    for tower in ("visual", "text"):
        theirs, ours = (getattr(getattr(one, tower), "num_heads", None) for one in (trained, model))
        if theirs != ours:
            name = "vision_heads" if tower == "visual" else "text_heads"
            parts.append(f"{name} is {theirs} in the weights and {ours} in the model")
    if any(parts):
        raise UserError(
            "the workdir's weights are for another CLIP than the model: "
            f"{', '.join(filter(None, parts))}"
        )


def _image_size_of(config: Mapping) -> Size | None:
    """The image size of a run's image tower; `config` is flat."""
    found = config.get("task.model.image_size", config.get("task.model.visual.image_size"))
    return tuple(found) if isinstance(found, list) else found


def _check_told(model, found: Mapping, path: Path) -> None:
    """Raises UserError if a model contradicts the config or the activation that belongs to a file;
    warns if the activation is unknown or the vocabulary is another one.
    """
    if config := beside.config_beside(path):
        told = arguments_of(config, clip.infer(found, 1, 1, declared_image_size(config)))
        for key, tower in (("vision_heads", model.visual), ("text_heads", model.text)):
            if told.get(key, tower.num_heads) != tower.num_heads:
                raise UserError(
                    f"{config.path}: these weights have {key}={told[key]}, but the model has "
                    f"{tower.num_heads}: give --config.task.model.{key}={told[key]}"
                )
        texts = texts_beside(config) if config.kind == beside.TRANSFORMERS else {}
        if "vocabulary" in texts:
            warn(
                f"{path}: the vocabulary of these weights is {texts['vocabulary']}, but texts are "
                "tokenized with CLIP's"
            )
    trained = activation(found, (), path)
    if trained.known:
        _check_activation(model, trained.act, f"{path} ({trained.source})")
    else:
        warn(
            f"it is unknown which activation {path} was trained with; "
            f"the model's, {model.text.act}, is used"
        )


def _tell_untold(model, path: Path) -> None:
    """Warns that activation and heads of a CLIP with a Swin are unknown: no library writes a config
    of such a model.
    """
    config = beside.config_beside(path)
    unread = ""
    if config:
        unread = f"{config.path} is ignored, because it does not describe a CLIP with a Swin; "
    warn(
        f"{unread}it is unknown which activation and how many heads the text tower of {path} was "
        f"trained with; the model's, {model.text.act} and {model.text.num_heads}, are used"
    )


def _check_activation(model, trained: str, what: str) -> None:
    """Raises UserError if weights were trained with another activation than the model's.

    The activation leaves no trace in the weights: the wrong one works, a few points worse.
    """
    if trained != model.text.act:
        raise UserError(
            f"{what} was trained with the activation {trained}, but the model has "
            f"{model.text.act}: give --config.task.model.act={trained}"
        )


def pretrained(resize: str | None = None) -> Callable:
    """`load_pretrained` as a function of (source, model), for an experiment file."""
    return functools.partial(load_pretrained, resize=resize)


def load_visual(source, model, resize: str | None = None, key: str | None = None) -> dict:
    """Fits weights of a Swin into the image tower of a CLIP; the rest keeps its random weights.

    Args:
        source: The same as in `finetune.load_pretrained`.
        model: The `models.clip.CLIP`, whose `visual` is a `models.swin.Swin`.
        resize, key: The same as in `finetune.load_pretrained`.

    Returns:
        {'params': {'visual': ...}}, for `InitFrom(backbone=True, head=VISUAL_ONLY)`.
    """
    return {
        "params": {
            "visual": finetune.load_pretrained(source, model.visual, resize, key=key)["params"]
        }
    }


def visual_pretrained(resize: str | None = None) -> Callable:
    """`load_visual` as a function of (source, model), for an experiment file."""
    return functools.partial(load_visual, resize=resize)
