"""Video Swin's part of `load`: by name, from a file of video or image weights, from the workdir of a run."""

import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax
import numpy as np

from swin_jax.core import stacking
from swin_jax.core.errors import UnreadableError, UserError, warn
from swin_jax.core.params import flatten, unflatten
from swin_jax.core.public_names import check_names, name_of
from swin_jax.models import video_swin
from swin_jax.models.video_swin import presets as video_swin_presets
from swin_jax.ops.augmentation import IMAGENET_MEAN, IMAGENET_STD
from swin_jax.pretrained.arguments import check_arguments, has_config, nearest, random_variables, read_config
from swin_jax.pretrained.files.read import read
from swin_jax.pretrained.swin import buffers, finetune, urls
from swin_jax.pretrained.video_swin import convert
from swin_jax.pretrained.video_swin import finetune as video_swin_finetune
from swin_jax.pretrained.video_swin import urls as video_swin_official

FIELDS = set(inspect.signature(video_swin.make_video_swin).parameters)


def canonical_name(word: str | Path | None) -> str | None:
    """The key of `models.video_swin.PRESETS` that a name means; None for others and for files that are there."""
    return None if word is None or Path(word).is_file() else video_swin_presets.canonical_name(str(word))


def nearest_name(word: str) -> str | None:
    """The nearest name of a Video Swin, or None for a word that does not sound like one."""
    word = word.lower()
    if not re.search(r"video|3d|kinetics|sthv2|patch2\d\d|k[467]00|ssv2", word):
        return None
    if "3d" in word:
        return nearest(word, video_swin_presets.TORCHVISION)
    word = word.replace("ssv2", "sthv2")
    second = "v2" in word.replace("sthv2", "")
    names = [name for name in video_swin_presets.PRESETS if name.startswith("video_swinv2") == second]
    shared = [len(set(word.split("_")) & set(name.split("_"))) for name in names]
    return nearest(word, [name for name, count in zip(names, shared) if count == max(shared)])


def load(
    name: str, spelling: str | Path, weights: str | Path | None, resize: str | None, overrides: dict
) -> tuple[video_swin.VideoSwin, dict]:
    """A Video Swin by name; `spelling` is the name as it was given, which may be torchvision's."""
    fields = video_swin_presets.PRESETS[name]
    if weights is None:
        check_arguments("make_video_swin", overrides, FIELDS)
        warn(f"{name} has random weights; weights='official' downloads the published ones")
        model = video_swin.make_video_swin(**fields | overrides)
        return model, _random(model)
    return fit(_read(str(spelling), weights), fields, resize, overrides)


def _read(spelling: str, weights: str | Path) -> dict:
    """The state dict that `weights` means: a file, published weights of a Video Swin or of an image Swin."""
    path, word = Path(weights), str(weights)
    if path.is_dir():
        raise UserError(
            f"{path} is a directory: a run says itself what model it holds, leave out the name {spelling!r}"
        )
    if path.is_file():
        return read(path)
    if word == "official" or canonical_name(word):
        return read(video_swin_official.fetch(spelling if word == "official" else word))
    if "://" not in word and urls.canonical_name(word) is None:
        known = [*video_swin_official.URLS, *video_swin_official.TORCHVISION_URLS, *urls.WEIGHTS]
        raise UserError(f"{word} is no file and no published weights; the nearest name is {nearest(word, known)!r}")
    return read(urls.fetch(word))


def fit(found: dict, fields: dict | None, resize: str | None, overrides: dict) -> tuple[video_swin.VideoSwin, dict]:
    """A Video Swin with these weights.

    Args:
        found: state dict of a Video Swin, or of an image Swin, which is inflated.
        fields: of the model that the weights were made for; None infers them.
        resize: of position tables, see `pretrained.video_swin.finetune.remap`.
        overrides: fields that replace those.
    """
    check_arguments("make_video_swin", overrides, FIELDS)
    fields = fields or convert.infer(found, overrides.get("window_size"))
    model = video_swin.make_video_swin(**fields | overrides)
    if convert.is_video(found):
        if "pretrained_window_sizes" not in overrides:
            trained = buffers.coordinate_windows(video_swin.make_video_swin(**fields).backbone)
            finetune.tell_scales(trained, model.backbone)
        fitted = video_swin_finetune.remap(found, model, resize, fields.get("window_size"))
        return model, _put(convert.from_official(fitted, model), model)
    params = flatten(_random(model)["params"]) | flatten(convert.inflate(found, model)["params"])
    fresh = "the head starts from zeros" if model.num_classes else "there is no head"
    if model.temporal_layers or model.backbone.temporal_window:
        fresh += ", attention along time from random weights"
    warn(f"weights of an image Swin were inflated; {fresh}, and the model must be trained")
    heads = {path: np.zeros_like(leaf) for path, leaf in params.items() if path.startswith("cls_head/")}
    return model, _put({"params": unflatten(params | heads)}, model)


def _random(model: video_swin.VideoSwin) -> dict:
    swin = model.backbone
    return random_variables(model, np.zeros((1, *swin.image_size, swin.in_channels), np.float32))


def _put(variables: dict, model: video_swin.VideoSwin) -> dict:
    return jax.device_put(jax.tree.map(lambda leaf: leaf.astype(model.backbone.param_dtype), variables))


def is_video(config: dict) -> bool:
    """Whether a run's config is that of a Video Swin."""
    return config.get("task.model.fn") == name_of(video_swin.make_video_swin)


def load_workdir(
    workdir: str | Path, config: dict, resize: str | None, overrides: dict
) -> tuple[video_swin.VideoSwin, dict]:
    """The model that a run trained, its average if it kept one; `config` is the run's."""
    from swin_jax.train import checkpoint

    check_arguments("make_video_swin", overrides, FIELDS)
    fields = video_swin_finetune.fields_of(config)
    params, average, _ = checkpoint.load_params(workdir)
    params = params if average is None else average
    if overrides:
        return fit(convert.to_state_dict({"params": params}), fields, resize, overrides)
    model = video_swin.make_video_swin(**fields)
    return model, jax.device_put({"params": stacking.stack_as(params, model.backbone)})


def is_prepared_here(name) -> bool:
    """Whether what `preprocess` was given is a Video Swin, its name, or the workdir of one."""
    if not isinstance(name, (str, Path)):
        return isinstance(name, video_swin.VideoSwin)
    if has_config(name):
        return is_video(read_config(name))
    return canonical_name(name) is not None


def preprocess(name: str | Path | video_swin.VideoSwin) -> Callable[..., np.ndarray]:
    """What `preprocess` gives for a Video Swin, its name, or the workdir of one."""
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if isinstance(name, video_swin.VideoSwin):
        transform = _preparation(name.backbone.image_size)
    elif has_config(name):
        config = read_config(name)
        transform, mean, std = _transform_of(config, name), config["task.mean"], config["task.std"]
    else:
        preset = canonical_name(name)
        transform = _preparation(video_swin.PRESETS[preset]["image_size"], preset.endswith("_sthv2"))

    def apply(videos) -> np.ndarray:
        return (_clips(transform, videos).astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)

    return apply


def _preparation(image_size: tuple[int, int, int], uniform: bool = False) -> Callable[[dict], dict]:
    """The clips of the published models: every second frame, or for Something-Something frames of the whole video."""
    from swin_jax.data.video.transforms import video_eval_transform

    frames, height, width = image_size
    if height != width:
        raise UserError(f"clips of {height} x {width} pixels are not square; give your own preprocess")
    sampling = "uniform" if uniform else "dense"
    return video_eval_transform(height, frames, sampling=sampling, short_side=round(height * 256 / 224))


def _transform_of(config: dict, workdir: str | Path) -> Callable[[dict], dict]:
    """How a run prepares the videos that it predicts."""
    from swin_jax.data.video.transforms import video_eval_transform, video_views_transform

    check_names(config, "predict.transform.", f"{workdir}/config.json")
    known = {name_of(fn): fn for fn in (video_eval_transform, video_views_transform)}
    arguments = {key.split(".")[-1]: value for key, value in config.items() if key.startswith("predict.transform.")}
    fn = arguments.pop("fn", None)
    if fn not in known or "task.mean" not in config:
        raise UserError(f"{workdir}/config.json does not tell how videos are prepared (predict.transform, task.mean)")
    return known[fn](**arguments)


def _clips(transform: Callable[[dict], dict], videos) -> np.ndarray:
    """The clips of one video or several.

    Args:
        transform: of {'video': what has `len` and `get`, 'label'}.
        videos: a path, encoded bytes, a uint8 array (T, H, W, 3), or a list of them; or a uint8 array (B, T, H, W, 3).

    Returns:
        (B, T, H, W, 3) uint8.

    Raises:
        UserError: none, or one that is no video. A video of one frame, such as a picture, is told in a warning.
    """
    several = isinstance(videos, Iterable) and not isinstance(videos, (str, os.PathLike, bytes, Mapping))
    if hasattr(videos, "ndim"):
        several = videos.ndim > 4
    found = []
    for video in videos if several else [videos]:
        reader, name = _reader(video), video if isinstance(video, (str, os.PathLike)) else "the video"
        try:
            if len(reader) == 1:
                warn(f"{name} has one frame only, which the whole clip repeats")
            found.append(transform({"video": reader, "label": 0})["video"])
        except UnreadableError as error:
            raise UserError(f"{name}: {error}") from error
    if not found:
        raise UserError("preprocess was given no videos")
    return np.concatenate([clip.reshape(-1, *clip.shape[-4:]) for clip in found])


class _Frames:
    """An array of frames (T, H, W, 3) as a reader."""

    def __init__(self, frames: np.ndarray):
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def get(self, indices, fit: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
        frames = self.frames[np.asarray(indices)]
        return np.stack([fit(frame) for frame in frames]) if fit else frames


def _reader(video):
    from swin_jax.data.video.decode import Reader

    if isinstance(video, (str, os.PathLike, bytes)) and video:
        return Reader(video)
    if not hasattr(video, "ndim"):
        raise UserError(f"a video is a file or a uint8 array (T, H, W, 3), not {repr(video)[:100]}")
    video = np.asarray(video)
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3:
        hint = ": a single image? np.repeat(image[None], 32, axis=0) shows it 32 times" if video.ndim == 3 else ""
        axis = next((axis for axis in (0, 1) if video.ndim == 4 and video.shape[axis] == 3), None)
        if axis is not None and video.shape[-1] != 3:
            hint = f": channels first? np.moveaxis(video, {axis}, -1) puts them last"
        raise UserError(
            f"a video is a file or a uint8 array (T, H, W, 3), not {video.dtype} of shape {video.shape}{hint}"
        )
    if 0 in video.shape:
        raise UserError(f"a video of shape {video.shape} has no frames or no pixels")
    return _Frames(video)
