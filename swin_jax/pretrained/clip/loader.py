"""CLIP's part of `load`: by name, from a file, from a folder of transformers, from the workdir of a run."""

import inspect
import logging
from pathlib import Path

import jax
import numpy as np

from swin_jax.core import stacking
from swin_jax.core.errors import UserError, warn
from swin_jax.models import clip, swin
from swin_jax.models.clip import presets as clip_presets
from swin_jax.pretrained import run_config
from swin_jax.pretrained.arguments import check_arguments, random_variables, read_config
from swin_jax.pretrained.clip import convert as convert_clip
from swin_jax.pretrained.clip import urls as clip_official
from swin_jax.pretrained.files import download
from swin_jax.pretrained.files.read import read

log = logging.getLogger(__name__)

FIELDS = set(inspect.signature(clip.make_clip).parameters)


def canonical_name(word: str | Path | None) -> str | None:
    """The key of `models.clip.PRESETS` that a name, or the hub repository of OpenAI's weights, means."""
    hub = {repository: name for name, repository in clip_official.HUB.items()}
    return hub.get(str(word)) or clip_presets.canonical_name(str(word))


def load(
    name: str, spelling: str | Path, weights: str | Path | None, resize: str | None, overrides: dict
) -> tuple[clip.CLIP, dict]:
    """A CLIP by name; `spelling` is the name as it was given, which may say more."""
    check_arguments("make_clip", overrides, FIELDS)
    if weights is None:
        warn(f"{name} has random weights; weights='official' downloads the published ones")
        fields = clip_presets.PRESETS[name]
        act = "quick_gelu" if "quickgelu" in str(spelling).lower() else fields["act"]
        model = clip.make_clip(**fields | {"act": act} | overrides)
        image = np.zeros((1, model.visual.image_size, model.visual.image_size, 3), np.float32)
        return model, random_variables(model, image, np.zeros((1, model.text.context_length), np.int32))
    path, names = Path(weights), (str(spelling),)
    if inside := transformers_file(path):
        path = inside
    elif (path / "config.json").is_file():
        raise UserError(f"{path} says itself what model it holds; leave out the name {str(spelling)!r}")
    elif path.is_dir():
        raise UserError(f"{path} is a directory without a transformers model (config.json and model.safetensors)")
    elif not path.is_file() and "://" in str(weights):
        path, names = download.fetch(str(weights)), (*names, str(weights))
    elif not path.is_file():
        other = name if str(weights) == "official" else canonical_name(weights)
        if other is None:
            raise UserError(f"{weights} is no file and no official weights; those are {', '.join(clip_official.URLS)}")
        path, names = clip_official.fetch(str(weights) if "timm/" in str(weights) else other), ("openai",)
    return fit(name, read(path), path, names, resize, overrides)


def transformers_file(folder: str | Path) -> Path | None:
    """The weights in a folder that transformers wrote, if it is one of a CLIP."""
    folder = Path(folder)
    if not (folder / "config.json").is_file() or "model_type" not in read_config(folder):
        return None
    files = [folder / file for file in ("model.safetensors", "pytorch_model.bin")]
    if found := next((file for file in files if file.is_file()), None):
        return found
    raise UserError(f"{folder} holds neither model.safetensors nor pytorch_model.bin")


def fit(
    name: str | None, found: dict, path: Path | None, names: tuple[str, ...], resize: str | None, overrides: dict
) -> tuple[clip.CLIP, dict]:
    """A CLIP of a name, or as the weights tell, with these weights; says where its activation comes from."""
    check_arguments("make_clip", overrides, FIELDS)
    heads = {key: overrides[key] for key in ("vision_heads", "text_heads") if key in overrides}
    fields = clip_presets.PRESETS[name] if name else convert_clip.infer(found, **heads)
    evidence = convert_clip.activation(found, names, path)
    model = clip.make_clip(**fields | {"act": evidence.act} | overrides)
    act = model.text.act
    if "act" not in overrides and not evidence.known:
        warn(
            f"act={act!r} is assumed, since {evidence.source}; weights of the same shape exist with the other "
            "activation and would silently lose accuracy: give act='quick_gelu' (OpenAI, DFN, MetaCLIP) or act='gelu' "
            "(LAION, DataComp)"
        )
    elif act != evidence.act and evidence.known:
        warn(f"act={act!r}, but the weights are of {evidence.act!r}: {evidence.source}")
    log.info("act=%r: %s", act, "as asked for" if "act" in overrides else evidence.source)
    return model, _put(convert_clip.from_official(found, model, resize), model)


def _put(variables: dict, model: clip.CLIP) -> dict:
    """Towers in their `param_dtype`; the scale and running statistics stay float32."""
    params = dict(variables["params"])
    for name, tower in (("visual", model.visual), ("text", model.text)):
        params[name] = jax.tree.map(lambda leaf, dtype=tower.param_dtype: leaf.astype(dtype), params[name])
    return jax.device_put({**variables, "params": params})


def load_workdir(workdir: str | Path, config: dict, resize: str | None, overrides: dict) -> tuple[clip.CLIP, dict]:
    """The model of images and texts that a run trained; `config` is the run's."""
    from swin_jax.train import checkpoint

    if given := ", ".join([*overrides, *(["resize"] if resize else [])]):
        raise UserError(f"{workdir} holds a CLIP, which is loaded as it was trained; leave out {given}")
    model, variables = run_config.clip_of(config), checkpoint.load_variables(workdir)
    if isinstance(model.visual, swin.Swin):
        visual = stacking.stack_as(variables["params"]["visual"], model.visual)
        variables = {**variables, "params": {**variables["params"], "visual": visual}}
    return model, jax.device_put(variables)
