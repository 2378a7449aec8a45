"""Models with weights in one line: `load` asks the loader of each family, `swin.loader`, `clip.loader` and the others.

model, variables = swin_jax.load("swin_tiny_patch4_window7_224", weights="official")
logits = model.apply(variables, swin_jax.preprocess("swin_tiny_patch4_window7_224")("cat.jpg"))

model, variables = swin_jax.load("ViT-B/32", weights="official")
features = model.apply(variables, swin_jax.preprocess("ViT-B/32")("cat.jpg"), method="encode_image")

name = "swin_tiny_patch244_window877_kinetics400_1k"
model, variables = swin_jax.load(name, weights="official")
logits = model.apply(variables, swin_jax.preprocess(name)("jump.mp4"))
"""

from pathlib import Path

import jax
import numpy as np

from swin_jax.core import stacking
from swin_jax.core.errors import UserError
from swin_jax.core.public_names import check_names, name_of
from swin_jax.models import clip, simmim, swin, video_swin
from swin_jax.models.clip import presets as clip_presets
from swin_jax.models.video_swin import presets as video_swin_presets
from swin_jax.ops.window_geometry import per_axis
from swin_jax.pretrained import run_config
from swin_jax.pretrained.arguments import check_arguments, has_config, nearest, read_config
from swin_jax.pretrained.clip import convert as convert_clip
from swin_jax.pretrained.clip import loader as clip_loader
from swin_jax.pretrained.files.read import read
from swin_jax.pretrained.swin import convert as convert_swin
from swin_jax.pretrained.swin import infer, urls
from swin_jax.pretrained.swin import loader as swin_loader
from swin_jax.pretrained.video_swin import convert as convert_video
from swin_jax.pretrained.video_swin import loader as video_loader


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
    except UserError:
        raise
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
    if known := clip_loader.canonical_name(word):
        return clip_loader.load(known, word, weights, resize, overrides)
    if known := video_loader.canonical_name(word):
        return video_loader.load(known, word, weights, resize, overrides)
    if name is not None and not has_config(str(weights)):
        known_preset(name)  # a wrong name is told before a wrong argument
    check_arguments(
        "Swin", overrides, swin_loader.FIELDS if name else swin_loader.FIELDS | clip_loader.FIELDS | video_loader.FIELDS
    )
    if weights is None:
        if name is None:
            raise UserError("give load() a name or weights")
        return swin_loader.load_random(name, known_preset(name) | overrides)
    if name is None and (path := clip_loader.transformers_file(weights)):
        return clip_loader.fit(None, read(path), path, (), resize, overrides)
    if has_config(weights):
        return _load_workdir(weights, name, resize, overrides)
    found = _read(name, weights)
    if name is None and convert_clip.is_clip(found):
        path = Path(weights) if Path(weights).is_file() else None
        return clip_loader.fit(None, found, path, (str(weights),) if path is None else (), resize, overrides)
    if name is None and convert_video.is_video(found):
        return video_loader.fit(found, None, resize, overrides)
    check_arguments("Swin", overrides, swin_loader.FIELDS)
    if name is None and not Path(weights).is_file():
        name = urls.canonical_name(str(weights))
    if name is None:
        fields = convert_swin.infer(found, overrides.get("window_size"), overrides.get("image_size"))
    else:
        fields = known_preset(name)
        if name.startswith("simmim_"):  # whether the largest have the main-branch norm is not documented
            fields = fields | dict(main_norm_every=infer.main_norm_every(found))
    return swin_loader.fit(found, swin.Swin(**fields), resize, overrides, infer.trained_scales(found))


def _load_workdir(workdir: str | Path, name: str | None, resize: str | None, overrides: dict) -> tuple[swin.Swin, dict]:
    from swin_jax.train import checkpoint

    if name is not None:
        raise UserError(f"{workdir} says itself what model it holds; leave out the name {name!r}")
    config = read_config(workdir)
    check_names(config, "task.model.", f"{workdir}/config.json")
    if run_config.is_clip(config):
        return clip_loader.load_workdir(workdir, config, resize, overrides)
    if video_loader.is_video(config):
        return video_loader.load_workdir(workdir, config, resize, overrides)
    inside = "encoder." if config.get("task.model.fn") == name_of(simmim.SimMIM) else ""
    check_arguments("Swin", overrides, swin_loader.FIELDS)
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
    return swin_loader.fit(convert_swin.to_state_dict(variables), model, resize, overrides)


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
        close = video_loader.nearest_name(str(weights)) or nearest(str(weights), known)
        raise UserError(f"{weights} is no file, no workdir and no official weights; the nearest name is {close!r}")
    return read(urls.fetch(str(weights)))


def known_preset(name: str) -> dict:
    """Arguments of the Swin that a name means; raises UserError, with the nearest name of all families, for others."""
    found = swin_loader.preset(name)
    if found is not None:
        return found
    known = [*swin.PRESETS, *urls.WEIGHTS, *clip_presets.PRESETS, *video_swin_presets.PRESETS]
    close = video_loader.nearest_name(name) or nearest(name, known)
    raise UserError(f"no model is called {name!r}; the nearest name is {close!r}")
