"""Hierarchical vision transformers in JAX: `load` makes a model, `preprocess` its input."""

from __future__ import annotations

import sys
import typing


def _refuse(needed: str, found: str) -> None:
    """Ends `python -m swin_jax...` and the command `swin_jax` with one line and status 2;
    elsewhere raises ImportError.
    """
    import os

    text = f"swin_jax needs {needed}; this is {found}"
    command = os.path.basename(sys.argv[0]) if sys.argv else ""
    if command in ("-m", "swin_jax"):  # '-m' while Python looks for the module to run
        print(f"error: {text}", file=sys.stderr)
        raise SystemExit(2)
    raise ImportError(text)


# pip looks at the versions that setup.py demands, but a folder can be copied to any Python. Python
# 3.7 and later can read this file.
if sys.version_info < (3, 11):  # noqa: UP036
    _refuse("Python 3.11 or later", f"Python {sys.version.split()[0]}, {sys.executable}")


def _check_jax() -> None:
    """Refuses an old JAX, without importing it."""
    import importlib.metadata
    import re

    try:
        found = getattr(sys.modules.get("jax"), "__version__", None)
        found = found or importlib.metadata.version("jax")
    except importlib.metadata.PackageNotFoundError:
        return
    numbers = re.match(r"(\d+)\.(\d+)", found)
    if numbers and tuple(map(int, numbers.groups())) < (0, 10):
        _refuse("JAX 0.10 or later", f"JAX {found}: pip install --upgrade 'jax>=0.10'")


_check_jax()

if typing.TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import flax.linen as nn

    from swin_jax.pretrained.preparation import Preparation

__version__ = "0.1.0"
__all__ = ["class_names", "export", "list_models", "load", "preprocess"]


def load(
    name: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    resize: str | None = None,
    key: str | None = None,
    **overrides: typing.Any,
) -> tuple[nn.Module, dict[str, typing.Any]]:
    """Makes a model and its variables.

    Args:
        name: A name of `list_models()`; other spellings, timm's names and repositories of the hub
            are understood. None infers the model from the weights. SimMIM's pretrained names give
            the encoder, a backbone with num_classes=0 whose `features` are maps; its fine-tuned
            names give classifiers.
        weights: 'official' (those called `name`), the name of other published weights, a file
            (.pth, .pt, .pkl, .safetensors, .npz), a folder downloaded from the hub, the workdir of
            a run (its newest checkpoint; the averaged weights if it keeps an average; of a SimMIM
            the encoder, of a GAN the generator), a URL, or None for random ones. Those of an image
            Swin may be given for a Video Swin: they are inflated, with a warning.
        resize: The method that resizes position tables. For a Swin, bias tables and absolute
            positions of another window or image size: 'bicubic' or 'geometric', see
            `swin_jax.pretrained.swin.resize`; a continuous bias (Swin V2) is computed again
            instead. For a CLIP, another image size or longer texts: 'bilinear' or 'bicubic', see
            `swin_jax.pretrained.clip.resize`. For a Video Swin, another window: 'bicubic'; for an
            UPerNet the same as for a Swin. Any other word is refused; one of these has no effect
            where everything fits.
        key: The weights to take from a file that holds several: an entry of a checkpoint such as
            'model_ema', or the first part of names such as 'teacher' or 'student.backbone'. By
            default trained weights are preferred to their average and a teacher to its student, but
            the average of a generator to both networks (key='d' or 'D' takes its discriminator),
            with a warning; if several are left, the error lists them.
        **overrides: Arguments of `models.swin.Swin`, `models.clip.make_clip`,
            `models.video_swin.make_video_swin` or `models.segmentation.make_upernet` that replace
            the model's. For another `num_classes` the head is zero (or the 1,000 rows of a 22K
            head); with `out_norms` the norms of the maps are fresh; a warning says so, and says
            where a continuous bias changes its scale (give `pretrained_window_sizes`), and where
            the activation of a CLIP had to be assumed (give `act`). Those of
            `models.stylegan2.Generator` and `Discriminator` that are not part of their weights,
            such as `dtype` and `remat`. `models.arcface.IRSE`, `models.e4e.E4E` and the mappers of
            `models.styleclip` have no arguments in which weights can be made to fit.

    Returns:
        (model, {'params': ..., 'batch_stats': ... (networks with batch norms)}): arrays of the
        model's `param_dtype` on the default device. A Swin's `model.apply(variables, images)` gives
        logits (B, num_classes) of normalized float images (B, H, W, 3), a Video Swin's of clips (B,
        T, H, W, 3); a CLIP's gives the logits of images and token ids, and its methods
        `encode_image` and `encode_text` the features of either; an UPerNet's gives `logits` of
        every fourth pixel, of which `inference.segmentation.segment` makes labels of a picture; an
        ArcFace's embeds aligned faces, an e4e's gives their W+ latents, which its `averages` are
        added to; a generator's makes images of z, with its fixed `noise` and the mean latent in
        `averages`, and has `map`, `styles`, `synthesize` and `synthesize_styles`; a discriminator's
        judges images; a latent mapper's gives the step of latents W+, or of styles, toward its
        text. The model carries its preparation: `preprocess(model)`. Wrap `model.apply` in
        `jax.jit` to call it more than once.

    Raises:
        UserError: Unknown names or arguments, arguments that fit no model, an unreadable file,
            weights of another model or of none (the error says what they look like), weights that
            do not fit (every key is listed), a window or image size that needs `resize` or cannot
            be inferred.
    """
    from swin_jax.pretrained.load import load

    return load(name, weights, resize, key, **overrides)


def preprocess(
    model: nn.Module | str | os.PathLike[str], key: str | None = None, **overrides: typing.Any
) -> Preparation:
    """Returns the preparation of a model: how pictures or videos, and texts, become its input.

    Args:
        model: A model of `load`, a name of `list_models()`, a file of weights or a folder
            downloaded from the hub (a config beside the weights is obeyed), or the workdir of a
            run. Official Swins of 384 pixels take the whole picture, resized to a square; all
            others its center, after a resize of the short side.
        key: The weights that are meant where `model` is a file that holds several, as in `load`.
        **overrides: Fields and arguments of `swin_jax.pretrained.preparation.Preparation` to
            change: `image_size`, `mean`, `std`, `interpolation`, `crop` and others. Where `model`
            is a name or a file, arguments of the model too.

    Returns:
        The `Preparation`. Called with one picture or several, it gives normalized float32
        (B, size, size, 3); for a Video Swin, called with one video or several,
        (B, T, size, size, 3): one clip of each video, its middle. Where no source tells how a
        model's pictures were prepared, a warning says, once per load, what was assumed.

    Raises:
        UserError: An unknown name, or a model that has no preparation (the error names the missing
            fields). The preparation raises it for anything but pictures or videos.
    """
    from swin_jax.pretrained.preprocess import preprocess

    return preprocess(model, key, **overrides)


def class_names(model: nn.Module, names: str | os.PathLike[str] | None = None) -> tuple[str, ...]:
    """Returns the names of the classes that the logits of a model stand for, in their order.

    Args:
        model: A classifier of `load`.
        names: A file of names: one on each line, or JSON such as a config.json of the hub. By
            default they are those of the run that trained the model, of a segmenter's file, of a
            config beside the weights, or, for a model with as many classes as ImageNet-1K or
            Kinetics-400, those that an installed package lists: clip-benchmark, timm or
            torchvision. Unless published weights were loaded by their name, a warning says that
            these names are assumed.

    Returns:
        A name for each logit.

    Raises:
        UserError: A model without classes, a list of another length, no package that lists them
            (the error says what to install).
    """
    from swin_jax.inference.class_names import class_names

    return class_names(model, names)


def export(
    model: nn.Module,
    variables: dict[str, typing.Any],
    path: str | os.PathLike[str],
    image_size: int | tuple[int, ...] | None = None,
    weights: str | None = None,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> dict[str, typing.Any]:
    """Writes a model of `load` as one file that runs without this package.

    The file is called with what `preprocess` gives: normalized floats.

    Args:
        model: A model of `load`.
        variables: Variables of the model, as `load` gives them.
        path: The file to write. PATH.json beside it describes inputs and outputs.
        image_size: Size of the images, or (T, H, W) of the clips, that the file takes; the model's
            own by default.
        weights: 'bfloat16' or 'float16' halves the file: weights are rounded once, and the
            computation stays as it is.
        platforms: Platforms on which the file can run: any of 'cpu', 'cuda', 'tpu' and 'rocm'.

    Returns:
        The content of PATH.json: `inputs` and `outputs`, {name: 'float32 (b, 224, 224, 3)'}, b
        being any number of rows, `preparation`, and more. A Swin takes `image`, a Video Swin
        or another Swin over three axes `video`; they give `logits`, or pooled `features` where
        there is no head, or the maps `features_0`, ... of `out_norms`. A CLIP takes `image` and
        `text`, as many as you like of each, and gives `image_features` and `text_features` of
        length 1, and `logit_scale`.

    Raises:
        UserError: Another kind of model, a path that cannot be written, a model that is too large,
            sizes that it does not take.
    """
    from swin_jax.inference.export import export

    return export(model, variables, path, image_size, weights, platforms)


def list_models(pattern: str = "*") -> list[str]:
    """Lists the names that `load` takes.

    Args:
        pattern: Pattern of names, as of file names: 'swinv2_*', '*kinetics*'. Case does not matter.

    Returns:
        Every name once, sorted.
    """
    from swin_jax.pretrained.load import list_models

    return list_models(pattern)
