"""Fits CLIP's weights to a model before fine-tuning: another image size, longer texts.

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
        source: A file of `pretrained.files.read` in any layout of `pretrained.clip.layouts`, a
            folder of a hub, or the variables of a CLIP.
        model: The `models.clip.CLIP` to fill.
        resize: 'bilinear' or 'bicubic' where the image size differs, see `pretrained.clip.resize`.
        key: The weights to take from a file that holds several, see `pretrained.files.read`.

    Returns:
        {'params': ..., 'batch_stats': ... (ResNets)}.

    Raises:
        UserError: An unreadable file, weights that do not fit, or that were trained with another
            activation or other heads.
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
    """Raises UserError, in one line, where the model of a run's flat config is another
    CLIP than this one.
    """
    if not run_config.is_clip(config):
        _check_activation(
            model, config.get("task.model.act", model.text.act), "the workdir's model"
        )
        return
    try:
        trained = run_config.clip_of(config)
    except UserError:  # towers of the user's own: the shapes must tell
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
            "the workdir's weights are of another CLIP than the model: "
            f"{', '.join(filter(None, parts))}"
        )


def _image_size_of(config: Mapping) -> Size | None:
    """The size of the images that a run's image tower is for; `config` is flat."""
    found = config.get("task.model.image_size", config.get("task.model.visual.image_size"))
    return tuple(found) if isinstance(found, list) else found


def _check_told(model, found: Mapping, path: Path) -> None:
    """Raises UserError where a model computes in another way than what is known of a file's;
    warns of what is not.
    """
    if config := beside.config_beside(path):
        told = arguments_of(config, clip.infer(found, 1, 1, declared_image_size(config)))
        for key, tower in (("vision_heads", model.visual), ("text_heads", model.text)):
            if told.get(key, tower.num_heads) != tower.num_heads:
                raise UserError(
                    f"{config.path}: these weights have {key}={told[key]}, "
                    f"the model has {tower.num_heads}: give --config.task.model.{key}={told[key]}"
                )
        texts = texts_beside(config) if config.kind == beside.TRANSFORMERS else {}
        if "vocabulary" in texts:
            warn(
                f"{path}: the vocabulary of these weights is {texts['vocabulary']}; "
                "texts are given to it in CLIP's"
            )
    trained = activation(found, (), path)
    if trained.known:
        _check_activation(model, trained.act, f"{path} ({trained.source})")
    else:
        warn(
            f"it is unknown which activation {path} was trained with; "
            f"the model's, {model.text.act}, is taken"
        )


def _tell_untold(model, path: Path) -> None:
    """Warns of what nothing tells of a CLIP with a Swin: no library writes a config of one."""
    config = beside.config_beside(path)
    unread = f"{config.path} is not read, it describes no CLIP with a Swin; " if config else ""
    warn(
        f"{unread}it is unknown which activation and how many heads the text tower of {path} was "
        f"trained with; the model's, {model.text.act} and {model.text.num_heads}, are taken"
    )


def _check_activation(model, trained: str, what: str) -> None:
    """The activation leaves no trace in the weights: the wrong one works, a few points worse."""
    if trained != model.text.act:
        raise UserError(
            f"{what} was trained with the activation {trained}, the model has {model.text.act}: "
            f"give --config.task.model.act={trained}"
        )


def pretrained(resize: str | None = None) -> Callable:
    """`load_pretrained` as a function of (source, model), for an experiment file."""
    return functools.partial(load_pretrained, resize=resize)


def load_visual(source, model, resize: str | None = None, key: str | None = None) -> dict:
    """Fits weights of a Swin into the image tower of a CLIP; the rest of it keeps its random start.

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
