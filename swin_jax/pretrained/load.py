"""Models with weights in one line: `load` and `preprocess`; the door, and what is behind it for image Swins.

CLIP is in `hub_clip`, Video Swin in `hub_video`.

model, variables = swin_jax.load("swin_tiny_patch4_window7_224", weights="official")
logits = model.apply(variables, swin_jax.preprocess("swin_tiny_patch4_window7_224")("cat.jpg"))

model, variables = swin_jax.load("ViT-B/32", weights="official")
features = model.apply(variables, swin_jax.preprocess("ViT-B/32")("cat.jpg"), method="encode_image")

name = "swin_tiny_patch244_window877_kinetics400_1k"
model, variables = swin_jax.load(name, weights="official")
logits = model.apply(variables, swin_jax.preprocess(name)("jump.mp4"))
"""

import dataclasses
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax
import numpy as np

from swin_jax.core import stacking
from swin_jax.core.constants import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from swin_jax.core.errors import UserError
from swin_jax.core.public_names import check_names, name_of
from swin_jax.models import clip, simmim, swin, video_swin
from swin_jax.models.clip import presets as clip_presets
from swin_jax.models.video_swin import presets as video_swin_presets
from swin_jax.ops.window_geometry import num_axes, per_axis
from swin_jax.pretrained import run_config
from swin_jax.pretrained.arguments import check_arguments, has_config, nearest, random_variables, read_config
from swin_jax.pretrained.clip import convert as convert_clip
from swin_jax.pretrained.clip import loader as hub_clip
from swin_jax.pretrained.files.read import read
from swin_jax.pretrained.swin import buffers, finetune, imagenet22k, infer, urls
from swin_jax.pretrained.swin import convert as convert_swin
from swin_jax.pretrained.video_swin import convert as convert_video
from swin_jax.pretrained.video_swin import loader as hub_video

_FIELDS = {field.name for field in dataclasses.fields(swin.Swin)} - {"parent", "name"}


def load(
    name: str | None = None, weights: str | Path | None = None, resize: str | None = None, **overrides
) -> tuple[swin.Swin | clip.CLIP | video_swin.VideoSwin, dict]:
    """Makes a model and its variables.

    Args:
        name: an architecture of `models.swin.PRESETS`, `models.clip.PRESETS` ('-' may stand for '/') or
            `models.video_swin.PRESETS` (or torchvision's swin3d_*), or any name in `pretrained.swin.urls.WEIGHTS`;
            None infers it from the weights. SimMIM's pretrained names give the encoder, a backbone with num_classes=0
            whose `features` are maps (`pretrained.swin.simmim` reads the decoder too); its fine-tuned names give
            classifiers.
        weights: 'official' (those called `name`), the name of other official weights or of their hub repository, a file
            (.pth, .pt, .safetensors, .npz), the folder of a CLIP of transformers, the workdir of a run (its newest
            checkpoint; the averaged weights if it keeps an average; of a SimMIM the encoder), or None for random ones.
            Those of an image Swin may be given for a Video Swin: they are inflated, which a warning says.
        resize: how positions are resized. Swin, for bias tables and absolute positions of another window or image size:
            'bicubic' or 'geometric', see `pretrained.swin.resize`; a continuous bias (Swin V2) is computed again
            instead. CLIP, for another image size or longer texts: 'bilinear' or 'bicubic', see
            `pretrained.clip.resize`. Video Swin, for another window: 'bicubic', see `pretrained.video_swin.finetune`.
        **overrides: arguments of `models.swin.Swin`, `models.clip.make_clip` or `models.video_swin.make_video_swin`
            that replace the preset's. For another `num_classes` the head is zero (or the 1,000 rows of a 22K head);
            with `out_norms` the norms of the maps are fresh; a warning says so, and says where a continuous bias
            changes its scale (give `pretrained_window_sizes`), and where the activation of a CLIP had to be assumed
            (give `act`).

    Returns:
        (model, {'params': ..., 'batch_stats': ... (CLIP's ResNets)}): arrays of the model's `param_dtype` on the
        default device. A Swin's `model.apply(variables, images)` gives (B, num_classes) logits of (B, H, W, 3)
        normalised float images, a Video Swin's of (B, T, H, W, 3) clips; a CLIP's gives the logits of images and token
        ids, and its methods `encode_image` and `encode_text` the features of either. Wrap it in `jax.jit` to call it
        more than once.

    Raises:
        UserError: unknown names or arguments, arguments that make no model, an unreadable file, weights that do not fit
            (every key is listed), a window or image size that needs `resize` or cannot be inferred.
    """
    if not overrides:
        return _load(name, weights, resize, {})
    try:
        model, variables = _load(name, weights, resize, overrides)
        shapes(model)
    except (ValueError, TypeError, ArithmeticError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in overrides.items())
        raise UserError(f"{given} makes no model: {' '.join(str(error).split())}") from error
    return model, variables


def shapes(model: swin.Swin | clip.CLIP | video_swin.VideoSwin) -> dict:
    """The shapes of a model's variables, by tracing it: raises what the model raises where its fields don't fit."""
    if isinstance(model, clip.CLIP):
        image = jax.ShapeDtypeStruct((1, *per_axis(model.visual.image_size, 2), 3), np.float32)
        text = jax.ShapeDtypeStruct((1, model.text.context_length), np.int32)
        return jax.eval_shape(model.init, jax.random.key(0), image, text)
    return (video_swin if isinstance(model, video_swin.VideoSwin) else swin).param_shapes(model)


def _load(
    name: str | None, weights: str | Path | None, resize: str | None, overrides: dict
) -> tuple[swin.Swin | clip.CLIP | video_swin.VideoSwin, dict]:
    word = weights if name is None else name
    if known := hub_clip.canonical_name(word):
        return hub_clip.load(known, word, weights, resize, overrides)
    if known := hub_video.canonical_name(word):
        return hub_video.load(known, word, weights, resize, overrides)
    if name is not None and not has_config(str(weights)):
        _preset(name)  # a wrong name is told before a wrong argument
    check_arguments("Swin", overrides, _FIELDS if name else _FIELDS | hub_clip.FIELDS | hub_video.FIELDS)
    if weights is None:
        return _load_random(name, overrides)
    if name is None and (path := hub_clip.transformers_file(weights)):
        return hub_clip.fit(None, read(path), path, (), resize, overrides)
    if has_config(weights):
        return _load_workdir(weights, name, resize, overrides)
    found = _read(name, weights)
    if name is None and convert_clip.is_clip(found):
        path = Path(weights) if Path(weights).is_file() else None
        return hub_clip.fit(None, found, path, (str(weights),) if path is None else (), resize, overrides)
    if name is None and convert_video.is_video(found):
        return hub_video.fit(found, None, resize, overrides)
    check_arguments("Swin", overrides, _FIELDS)
    if name is None and not Path(weights).is_file():
        name = urls.canonical_name(str(weights))
    if name is None:
        fields = convert_swin.infer(found, overrides.get("window_size"), overrides.get("image_size"))
    else:
        fields = _preset(name)
        if name.startswith("simmim_"):  # whether the largest have the main-branch norm is not documented
            fields = fields | dict(main_norm_every=infer.main_norm_every(found))
    return _fit(found, swin.Swin(**fields), resize, overrides, infer.trained_scales(found))


def _fit(
    found: dict, made_for: swin.Swin, resize: str | None, overrides: dict, trained: tuple | None = None
) -> tuple[swin.Swin, dict]:
    """A model like `made_for` but for the overrides, and the weights made to fit it."""
    model = made_for.clone(**overrides)
    if "pretrained_window_sizes" not in overrides:
        finetune.tell_scales(trained or buffers.coordinate_windows(made_for), model)
    rows = _rows(found, model)
    return model, _put(convert_swin.from_official(finetune.remap(found, model, resize, rows), model), model)


def _put(variables: dict, model: swin.Swin) -> dict:
    return jax.device_put(jax.tree.map(lambda leaf: leaf.astype(model.param_dtype), variables))


def _load_random(name: str | None, overrides: dict) -> tuple[swin.Swin, dict]:
    if name is None:
        raise UserError("give load() a name or weights")
    model = swin.Swin(**_preset(name) | overrides)
    warnings.warn(f"{name} has random weights; weights='official' downloads the published ones", stacklevel=4)
    image = np.zeros((1, *per_axis(model.image_size, num_axes(model)), model.in_channels), np.float32)
    return model, random_variables(model, image)


def _load_workdir(workdir: str | Path, name: str | None, resize: str | None, overrides: dict) -> tuple[swin.Swin, dict]:
    from swin_jax.train import checkpoint

    if name is not None:
        raise UserError(f"{workdir} says itself what model it holds; leave out the name {name!r}")
    config = read_config(workdir)
    check_names(config, "task.model.", f"{workdir}/config.json")
    if run_config.is_clip(config):
        return hub_clip.load_workdir(workdir, config, resize, overrides)
    if hub_video.is_video(config):
        return hub_video.load_workdir(workdir, config, resize, overrides)
    inside = "encoder." if config.get("task.model.fn") == name_of(simmim.SimMIM) else ""
    check_arguments("Swin", overrides, _FIELDS)
    prefix = f"task.model.{inside}"
    keys = [key for key in config if key.startswith(prefix)]
    fields = {key.removeprefix(prefix): run_config.tuples(config[key]) for key in keys}
    if fields.pop("fn", None) != name_of(swin.Swin):
        raise UserError(
            f"{workdir}: its task.model is neither a Swin classifier nor a SimMIM nor a CLIP nor a Video Swin"
        )
    params, average, _ = checkpoint.load_params(workdir)
    params = params if average is None else average
    variables = {"params": params["encoder"] if inside else params}
    model = swin.Swin(**fields)
    if not overrides:
        return model, jax.device_put({"params": stacking.stack_as(variables["params"], model)})
    return _fit(convert_swin.to_state_dict(variables), model, resize, overrides)


def _read(name: str | None, weights: str | Path) -> dict:
    """The state dict that `weights` means: a file, or official weights."""
    if weights == "official":
        if name is None:
            raise UserError("weights='official' needs a name")
        return read(urls.fetch(name))
    path = Path(weights)
    if path.is_dir():
        raise UserError(f"{path} is a directory without a config.json, so not the workdir of a run")
    if path.is_file():
        return read(path)
    if urls.canonical_name(str(weights)) is None and "://" not in str(weights):
        known = [*urls.WEIGHTS, *clip_presets.PRESETS, *video_swin_presets.PRESETS]
        close = hub_video.nearest_name(str(weights)) or nearest(str(weights), known)
        raise UserError(f"{weights} is no file, no workdir and no official weights; the nearest name is {close!r}")
    return read(urls.fetch(str(weights)))


def _rows(state_dict: dict, model: swin.Swin) -> np.ndarray | None:
    """The 1K rows of a 22K head where the model wants them and an installed package tells which they are."""
    head = state_dict.get("head.weight", state_dict.get("head.fc.weight", ()))
    if model.num_classes != 1000 or model.out_norms or len(head) != 21841:
        return None
    try:
        return imagenet22k.derive_map()
    except UserError as error:
        warnings.warn(f"the 22K head cannot be cut to 1,000 classes: {error}", stacklevel=4)
        return None


def _preset(name: str) -> dict:
    """Arguments of the Swin that a name means."""
    name = urls.canonical_name(name) or name
    if name in swin.PRESETS:
        return swin.PRESETS[name]
    if name in urls.WEIGHTS:
        return _simmim_preset(name)
    known = [*swin.PRESETS, *urls.WEIGHTS, *clip_presets.PRESETS, *video_swin_presets.PRESETS]
    close = hub_video.nearest_name(name) or nearest(name, known)
    raise UserError(f"no model is called {name!r}; the nearest name is {close!r}")


def _simmim_preset(name: str) -> dict:
    """Arguments of the encoder (pretrained) or classifier (fine-tuned) that a file of SimMIM holds."""
    classes = 1000 if name.startswith("simmim_finetune") else 0
    if found := re.match(r"simmim_[a-z]+__swin_([a-z]+)__img(\d+)_window(\d+)__", name):
        variant, size, window = found[1], int(found[2]), int(found[3])
        return dict(swin.VARIANTS[variant], window_size=window, image_size=size, num_classes=classes)
    variant = re.match(r"simmim_[a-z]+_swinv2_([a-z]+)_", name)[1]
    arguments = dict(swin.VARIANTS["giant_1b" if variant == "giant" else variant], **swin.V2, num_classes=classes)
    if classes:
        return dict(arguments, window_size=14, image_size=224, pretrained_window_sizes=(12, 12, 12, 6))
    return dict(arguments, window_size=12, image_size=192)


def preprocess(name: str | Path | clip.CLIP | video_swin.VideoSwin) -> Callable[..., np.ndarray]:
    """What turns pictures, or videos, into the input of a model.

    Args:
        name: an architecture of `models.swin.PRESETS`, `models.clip.PRESETS` or `models.video_swin.PRESETS`, or the
            workdir of a run; or a CLIP itself, for pictures as OpenAI prepares them, or a VideoSwin. Official Swins of
            384 pixels take the whole picture, resized to a square; all others its centre, after a resize of the short
            side.

    Returns:
        A function of one picture or a list of them (a path, a PIL image, or a uint8 array (H, W) or (H, W, 3)), or of a
        uint8 array (B, H, W, 3), that gives normalised float32 (B, size, size, 3). For a Video Swin a function of one
        video or a list of them (a path, encoded bytes, or a uint8 array (T, H, W, 3)), or of a uint8 array
        (B, T, H, W, 3), that gives normalised float32 (B, T, size, size, 3): of each video one clip, its middle.

    Raises:
        UserError: an unknown name; the function raises it for what is not a picture, or not a video.
    """
    if not isinstance(name, (str, Path, clip.CLIP, video_swin.VideoSwin)) or name == "":
        raise UserError(
            f"preprocess takes a model's name, the workdir of a run, a CLIP or a VideoSwin, not {_shown(name)}"
        )
    if hub_video.is_prepared_here(name):
        return hub_video.preprocess(name)
    # PIL comes in with these; models do not need it.
    from swin_jax.data.image.transforms import clip_eval_transform, eval_transform

    if isinstance(name, clip.CLIP):
        transform, mean, std = clip_eval_transform(_square(name.visual)), CLIP_MEAN, CLIP_STD
    elif has_config(name):
        transform, mean, std = _workdir_transform(name)
    elif clip_name := hub_clip.canonical_name(name):
        transform = clip_eval_transform(clip_presets.PRESETS[clip_name]["image_size"])
        mean, std = CLIP_MEAN, CLIP_STD
    else:
        size = _preset(str(name))["image_size"]
        transform, mean, std = eval_transform(size, crop=size != 384), IMAGENET_MEAN, IMAGENET_STD

    def apply(images) -> np.ndarray:
        several = isinstance(images, Iterable) and not isinstance(images, (str, Path, bytes, Mapping))
        if hasattr(images, "ndim"):
            several = images.ndim > 3
        several = several and not hasattr(images, "convert")
        examples = ({"image": _open(image), "label": 0} for image in (images if several else [images]))
        pictures = [transform(example)["image"] for example in examples]
        if not pictures:
            raise UserError("preprocess was given no pictures")
        return (np.stack(pictures).astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)

    return apply


def _square(tower) -> int:
    """Height and width of the images that a tower is made for."""
    sizes = per_axis(tower.image_size, 2) if hasattr(tower, "image_size") else ()
    if len(set(sizes)) != 1:
        raise UserError(f"a {type(tower).__name__} does not tell the one size of its images; give your own preprocess")
    return sizes[0]


def _workdir_transform(workdir: str | Path) -> tuple[Callable, tuple, tuple]:
    """(transform, mean, std) of a run's prediction data."""
    from swin_jax.data.emoji.images import image_eval_transform
    from swin_jax.data.image.small import small_eval_transform
    from swin_jax.data.image.transforms import clip_eval_transform, eval_transform, to_rgb

    transforms = (clip_eval_transform, eval_transform, image_eval_transform, small_eval_transform)
    config = read_config(workdir)
    check_names(config, "predict.transform.", f"{workdir}/config.json")
    arguments = {key.split(".")[-1]: value for key, value in config.items() if key.startswith("predict.transform.")}
    fn = arguments.pop("fn", None)
    known = {name_of(transform): transform for transform in transforms}
    if fn not in known or "task.mean" not in config:
        raise UserError(f"{workdir}/config.json does not tell how pictures are prepared (predict.transform, task.mean)")
    transform = known[fn](**arguments)
    if arguments.get("channels") == 1:
        return lambda e: transform({"image": to_rgb(e["image"]).convert("L")}), config["task.mean"], config["task.std"]
    return transform, config["task.mean"], config["task.std"]


def open_picture(image):
    """A PIL image of mode 'RGB' of one picture, a path, a PIL image or an array; raises UserError where it is none."""
    from swin_jax.data.image.transforms import to_rgb

    return to_rgb(_open(image))


def _shown(value) -> str:
    """A value in a message; of what needs several lines only the type."""
    text = repr(value)
    return f"a {type(value).__name__}" if "\n" in text else text[:100]


def _open(image):
    """A PIL image, or a uint8 array, of one picture in any accepted form."""
    from swin_jax.data.image.transforms import decode, to_8_bit

    if isinstance(image, (str, Path)) and image != "":
        try:
            return decode(str(image))
        except (OSError, ValueError) as error:
            raise UserError(f"{image}: not a picture that can be read ({error})") from error
    if hasattr(image, "convert"):
        return to_8_bit(image)
    if not hasattr(image, "ndim"):
        raise UserError(f"a picture is a file, a PIL image or a uint8 array (H, W, 3), not {_shown(image)}")
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,)):
        raise UserError(
            f"a picture is a uint8 array (H, W), (H, W, 1) or (H, W, 3), not {image.dtype} of shape {image.shape}"
        )
    return image
