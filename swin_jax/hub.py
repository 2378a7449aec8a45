"""Models with weights in one line: `load` and `preprocess`.

model, variables = swin_jax.load("swin_tiny_patch4_window7_224", weights="official")
logits = model.apply(variables, swin_jax.preprocess("swin_tiny_patch4_window7_224")("cat.jpg"))
"""

import dataclasses
import difflib
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from swin_jax.convert import finetune, imagenet22k, official, read
from swin_jax.convert import swin as convert_swin
from swin_jax.errors import UserError
from swin_jax.models import swin
from swin_jax.ops.mixing import IMAGENET_MEAN, IMAGENET_STD

_FIELDS = {field.name for field in dataclasses.fields(swin.Swin)} - {"parent", "name"}


def load(name: str | None = None, weights: str | Path | None = None, **overrides) -> tuple[swin.Swin, dict]:
    """Makes a model and its variables.

    Args:
        name: an architecture of `models.swin.PRESETS`; None infers it from the weights.
        weights: 'official' (those called `name`), the name of other official weights or of their hub repository, a file
            (.pth, .pt, .safetensors, .npz), the workdir of a run (its newest checkpoint; the averaged weights if it
            keeps an average), or None for random ones.
        **overrides: arguments of `models.swin.Swin` that replace the preset's. For another `num_classes` the head is
            zero (or the 1,000 rows of a 22K head), for another window or image size position tables are resized; a
            warning says so.

    Returns:
        (model, {'params': ...}): float32 arrays on the default device. `model.apply(variables, images)` gives
        (B, num_classes) logits of (B, H, W, 3) normalised float images; wrap it in `jax.jit` to call it more than once.

    Raises:
        UserError: unknown names or arguments, an unreadable file, weights that do not fit (every key is listed).
    """
    unknown = sorted(overrides.keys() - _FIELDS)
    if unknown:
        raise UserError(f"Swin has no argument {unknown[0]!r}; did you mean {_nearest(unknown[0], _FIELDS)!r}?")
    if weights is None:
        return _load_random(name, overrides)
    if (Path(weights) / "config.json").is_file():
        return _load_workdir(Path(weights), name, overrides)
    found = _read(name, weights)
    model = swin.Swin(**(convert_swin.infer(found) if name is None else _preset(name)) | overrides)
    state_dict = convert_swin.normalise(found)
    variables = convert_swin.from_official(finetune.remap(state_dict, model, _rows(state_dict, model)), model)
    return model, jax.device_put(variables)


def _load_random(name: str | None, overrides: dict) -> tuple[swin.Swin, dict]:
    if name is None:
        raise UserError("give load() a name or weights")
    model = swin.Swin(**_preset(name) | overrides)
    warnings.warn(f"{name} has random weights; weights='official' downloads the published ones", stacklevel=3)
    axes = len(swin.stage_geometry(model)[0][0])
    image = np.zeros((1, *swin.per_axis(model.image_size, axes), model.in_channels), np.float32)
    # jax 0.10 takes 0.4 s to optimise each draw for the CPU; level 0 compiles a whole model ten times faster.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return model, jax.jit(model.init, compiler_options=options)(jax.random.key(0), image)


def _load_workdir(workdir: Path, name: str | None, overrides: dict) -> tuple[swin.Swin, dict]:
    from swin_jax import checkpoint

    if name is not None:
        raise UserError(f"{workdir} says itself what model it holds; leave out the name {name!r}")
    config = _read_config(workdir)
    fields = {key.removeprefix("task.model."): value for key, value in config.items() if key.startswith("task.model.")}
    if fields.pop("fn", None) != f"{swin.Swin.__module__}.{swin.Swin.__qualname__}":
        raise UserError(f"{workdir} does not hold a Swin classifier (task.model in its config.json)")
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    params, average, _ = checkpoint.load_params(workdir)
    variables = {"params": params if average is None else average}
    if not overrides:
        return swin.Swin(**fields), jax.device_put(variables)
    model = swin.Swin(**fields | overrides)
    state_dict = convert_swin.to_state_dict(variables)
    variables = convert_swin.from_official(finetune.remap(state_dict, model, _rows(state_dict, model)), model)
    return model, jax.device_put(variables)


def _read_config(workdir: Path) -> dict:
    """The resolved config of a run: a flat dict of dotted keys."""
    try:
        return json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir / 'config.json'} cannot be read: {error}") from error


def _read(name: str | None, weights: str | Path) -> dict:
    """The state dict that `weights` means: a file, or official weights."""
    if weights == "official":
        if name is None:
            raise UserError("weights='official' needs a name")
        return read(official.fetch(name))
    path = Path(weights)
    if path.is_dir():
        raise UserError(f"{path} is a directory without a config.json, so not the workdir of a run")
    if path.is_file():
        return read(path)
    if official.canonical_name(str(weights)) is None and "://" not in str(weights):
        nearest = _nearest(str(weights), official.WEIGHTS)
        raise UserError(f"{weights} is no file, no workdir and no official weights; the nearest name is {nearest!r}")
    return read(official.fetch(str(weights)))


def _rows(state_dict: dict, model: swin.Swin) -> np.ndarray | None:
    """The 1K rows of a 22K head where the model wants them and an installed package tells which they are."""
    if model.num_classes != 1000 or len(state_dict.get("head.weight", ())) != 21841:
        return None
    try:
        return imagenet22k.derive_map()
    except UserError as error:
        warnings.warn(f"the 22K head cannot be cut to 1,000 classes: {error}", stacklevel=3)
        return None


def _preset(name: str) -> dict:
    name = official.canonical_name(name) or name
    if name not in swin.PRESETS:
        raise UserError(f"no model is called {name!r}; the nearest name is {_nearest(name, swin.PRESETS)!r}")
    return swin.PRESETS[name]


def _nearest(word: str, words) -> str:
    return difflib.get_close_matches(word, words, 1, 0)[0]


def preprocess(name: str | Path) -> Callable[..., np.ndarray]:
    """What turns pictures into the input of a model.

    Args:
        name: an architecture of `models.swin.PRESETS`, or the workdir of a run. Official models of 384 pixels take the
            whole picture, resized to a square; the others its centre, after a resize of the short side.

    Returns:
        A function of one picture or a list of them (a path, a PIL image, or a uint8 array (H, W) or (H, W, 3)), or of a
        uint8 array (B, H, W, 3), that gives normalised float32 (B, size, size, 3).

    Raises:
        UserError: an unknown name; the function raises it for what is not a picture.
    """
    # PIL comes in with these; models do not need it.
    from swin_jax.data.image import eval_transform

    if (Path(name) / "config.json").is_file():
        transform, mean, std = _workdir_transform(Path(name))
    else:
        size = _preset(str(name))["image_size"]
        transform, mean, std = eval_transform(size, crop=size != 384), IMAGENET_MEAN, IMAGENET_STD

    def apply(images) -> np.ndarray:
        single = isinstance(images, (str, Path)) or hasattr(images, "convert") or getattr(images, "ndim", 0) in (2, 3)
        pictures = [transform({"image": _open(image)})["image"] for image in ([images] if single else images)]
        if not pictures:
            raise UserError("preprocess was given no pictures")
        return (np.stack(pictures).astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)

    return apply


def _workdir_transform(workdir: Path) -> tuple[Callable, tuple, tuple]:
    """(transform, mean, std) of a run's prediction data."""
    from swin_jax.data.image import eval_transform, to_rgb
    from swin_jax.data.small_image import small_eval_transform

    config = _read_config(workdir)
    arguments = {key.split(".")[-1]: value for key, value in config.items() if key.startswith("predict.transform.")}
    fn = arguments.pop("fn", None)
    known = {f"{f.__module__}.{f.__qualname__}": f for f in (eval_transform, small_eval_transform)}
    if fn not in known or "task.mean" not in config:
        raise UserError(f"{workdir}/config.json does not tell how pictures are prepared (predict.transform, task.mean)")
    transform = known[fn](**arguments)
    if arguments.get("channels") == 1:
        return lambda e: transform({"image": to_rgb(e["image"]).convert("L")}), config["task.mean"], config["task.std"]
    return transform, config["task.mean"], config["task.std"]


def _open(image):
    """A PIL image, or a uint8 array, of one picture in any accepted form."""
    from swin_jax.data.image import decode

    if isinstance(image, (str, Path)):
        try:
            return decode(str(image))
        except OSError as error:
            raise UserError(f"{image}: not a picture that can be read ({error})") from error
    if hasattr(image, "convert"):
        return image
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,)):
        raise UserError(
            f"a picture is a uint8 array (H, W), (H, W, 1) or (H, W, 3), not {image.dtype} of shape {image.shape}"
        )
    return image
