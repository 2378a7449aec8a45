"""What turns pictures, or videos, into the input of a model: `preprocess`."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from swin_jax.core.constants import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from swin_jax.core.errors import UserError
from swin_jax.core.public_names import check_names, name_of
from swin_jax.models import clip, video_swin
from swin_jax.models.clip import presets as clip_presets
from swin_jax.ops.window_geometry import per_axis
from swin_jax.pretrained.arguments import has_config, read_config
from swin_jax.pretrained.clip import loader as clip_loader
from swin_jax.pretrained.load import known_preset
from swin_jax.pretrained.video_swin import loader as video_loader


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
    if video_loader.is_prepared_here(name):
        return video_loader.preprocess(name)
    # PIL comes in with these; models do not need it.
    from swin_jax.data.image.transforms import clip_eval_transform, eval_transform

    if isinstance(name, clip.CLIP):
        transform, mean, std = clip_eval_transform(_square(name.visual)), CLIP_MEAN, CLIP_STD
    elif has_config(name):
        transform, mean, std = _workdir_transform(name)
    elif clip_name := clip_loader.canonical_name(name):
        transform = clip_eval_transform(clip_presets.PRESETS[clip_name]["image_size"])
        mean, std = CLIP_MEAN, CLIP_STD
    else:
        size = known_preset(str(name))["image_size"]
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
