"""The preparations that the authors of published models use."""

from swin_jax.core.constants import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from swin_jax.core.errors import UserError
from swin_jax.core.sizes import Size, simplest
from swin_jax.pretrained.preparation import CLIP, CLIPS, FACE, FIT, RESIZED, WHOLE, Preparation


def _check_channels(channels: int) -> None:
    if channels != 3:
        raise UserError(
            f"a model of {channels} channels has no preparation: it is unknown how pictures get "
            f"{channels} channels, and with which mean and std; give your own function"
        )


def of_pictures(image_size: Size, channels: int, assumed: bool) -> Preparation:
    """The preparation of the official Swins, ImageNet's.

    Args:
        image_size: (H, W) of the model's pictures in pixels, or one int for both;
            384 takes the whole picture.
        channels: Number of channels that the model takes.
        assumed: True if the preparation is only assumed, for weights without a name.

    Raises:
        UserError: No published model has so many channels, so mean and std are unknown.
    """
    _check_channels(channels)
    arguments = dict(size=image_size, crop=image_size != WHOLE, interpolation="bicubic")
    names = ("size", "crop", "interpolation", "mean", "std") if assumed else ()
    return Preparation("image", RESIZED, arguments, IMAGENET_MEAN, IMAGENET_STD, assumed=names)


def of_scenes(short_side: int, channels: int, assumed: bool) -> Preparation:
    """The preparation of the official segmenters: the whole picture, resized to fit into
    `short_side` by 4 * `short_side` pixels, with its aspect kept.

    Args:
        short_side: Height of a picture that is at most four times as wide.
        channels, assumed: The same as in `of_pictures`.

    Raises:
        UserError: No published model has so many channels.
    """
    _check_channels(channels)
    names = ("scale", "mean", "std") if assumed else ()
    arguments = dict(scale=(4 * short_side, short_side))
    return Preparation("image", FIT, arguments, IMAGENET_MEAN, IMAGENET_STD, assumed=names)


def of_pairs(image_size: Size, context_length: int, assumed: bool) -> Preparation:
    """The preparation of OpenAI's CLIPs.

    Args:
        image_size, assumed: The same as in `of_pictures`.
        context_length: Number of tokens of a text.
    """
    arguments = dict(size=image_size, mode="shortest", interpolation="bicubic", fill=0)
    names = ("mode", "interpolation", "mean", "std", "clean") if assumed else ()
    return Preparation(
        "image", CLIP, arguments, CLIP_MEAN, CLIP_STD, context_length=context_length, assumed=names
    )


def of_faces(image_size: int) -> Preparation:
    """The preparation of networks for aligned faces: the whole picture, its values in -1..1."""
    half = (0.5, 0.5, 0.5)
    return Preparation("image", FACE, dict(size=image_size, interpolation="bilinear"), half, half)


def of_videos(image_size: tuple[int, int, int], uniform: bool, assumed: bool) -> Preparation:
    """The preparation of the published Video Swins: one clip, the middle one.

    Args:
        image_size: (T, H, W) of a clip.
        uniform: True spreads the frames over the whole video, for Something-Something; False takes
            every second frame.
        assumed: True if the preparation is only assumed.
    """
    frames, *sides = image_size
    sampling = "uniform" if uniform else "dense"
    short_side = round(min(sides) * 256 / 224)
    arguments = dict(
        size=simplest(tuple(sides)),
        length=frames,
        stride=2,
        sampling=sampling,
        short_side=short_side,
    )
    names = ("size", "length", "sampling", "stride", "short_side", "mean", "std") if assumed else ()
    return Preparation("video", CLIPS, arguments, IMAGENET_MEAN, IMAGENET_STD, assumed=names)
