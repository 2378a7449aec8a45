"""Converts pictures, videos and texts to the input of a model: pixels and token ids.

A model has one preparation, which all callers (`preprocess`, similarity, search, indices,
predictions, exports) share, so that they cannot differ.
"""

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from swin_jax.core import public_names, ranges
from swin_jax.core.errors import UserError, did_you_mean, warn
from swin_jax.core.ranges import FiniteFloat, PositiveFloat, PositiveInt, check_statistics, checked
from swin_jax.core.sizes import Size, per_axis, simplest
from swin_jax.pretrained import media

# The functions that a preparation may call, by public name, so that no file can choose the code.
_IMAGES = "swin_jax.data.image.transforms."
_VIDEOS = "swin_jax.data.video.transforms."
# The short side to 256 / 224 of the size, the center; or the whole picture.
RESIZED = _IMAGES + "eval_transform"
CLIP = _IMAGES + "clip_eval_transform"
FACE = "swin_jax.data.image.alignment.face_transform"  # a square picture, whole
# The whole picture in its own aspect, in as many pixels as fit into `scale`.
FIT = "swin_jax.data.segmentation.transforms.eval_transform"
CLIPS = _VIDEOS + "video_eval_transform"
TRANSFORMS = {
    "image": (
        RESIZED,
        CLIP,
        FACE,
        FIT,
        _IMAGES + "crop_transform",
        "swin_jax.data.image.small.small_eval_transform",
        "swin_jax.data.image.small.drawing_eval_transform",
        "swin_jax.data.emoji.images.image_eval_transform",
    ),
    "video": (CLIPS, _VIDEOS + "video_views_transform"),
}
VOCABULARY = "openai/CLIP, bpe_simple_vocab_16e6"
_CARRIED = "_preparation"
WHOLE = 384  # pixels; official Swins of this size take the whole picture


@checked
@dataclasses.dataclass(frozen=True)
class Preparation:
    """Converts pictures or videos to a model's input, and texts to its tokens.

    Called with one picture or several (a path, a PIL image, a uint8 array (H, W) or (H, W, 3), a
    list of them, or a uint8 array (B, H, W, 3)), it returns normalized float32 (B, H, W, C). For a
    video model, called with one video or several (a path, encoded bytes, a uint8 array
    (T, H, W, 3), a list of them, or a uint8 array (B, T, H, W, 3)), it returns (B, T, H, W, 3). It
    raises UserError for anything else.

    Attributes:
        input: 'image' or 'video': the key in a batch, and the kind of input.
        transform: Public name of the function of `data` that resizes, one of `TRANSFORMS`.
        arguments: Arguments of the transform: 'size' in pixels, 'interpolation', 'crop' and so on.
        mean: Mean of each channel, of pixels in 0..1.
        std: Standard deviation of each channel, of pixels in 0..1.
        channels: C, 3 for RGB or 1 for gray.
        context_length: L, number of tokens of a text; None for a model that reads no texts.
        clean: Cleaning of texts, see `data.image_text.tokenizer.tokenize`.
        vocabulary: Vocabulary of the tokens; None for a model that reads no texts. By default it is
            CLIP's, `VOCABULARY`; a model with another one needs its own tokenizer.
        conversion: Conversion of pictures in files: 'display' rotates them by their EXIF
            orientation and puts transparent pixels on white; 'reference' does neither, like the
            published recipes. See `data/image/picture.py`. Arrays are not converted.
        limits: Limits on files of pictures, a `data.image.picture.Limits`; None for `Limits()`.
        assumed: Names of the fields and arguments that were assumed because no source gives them.
        function: The transform itself, if an experiment file provides it; None makes it from its
            name.
    """

    input: str
    transform: str
    arguments: Mapping[str, Any]
    mean: tuple[FiniteFloat, ...]
    std: tuple[PositiveFloat, ...]
    channels: PositiveInt = 3
    context_length: PositiveInt | None = None
    clean: str = "openai"
    vocabulary: str | None = None
    conversion: str = "display"
    limits: Any = None
    assumed: tuple[str, ...] = ()
    function: Callable[[dict], dict] | None = None

    def __post_init__(self):
        if self.function is None and self.transform not in TRANSFORMS[self.input]:
            raise UserError(f"{self.transform} does not prepare a model's {self.input}")
        if self.conversion != "display":
            from swin_jax.data.image.picture import check_conversion

            check_conversion(self.conversion)
        if self.mean or self.std:  # a run whose task does not normalize has neither
            check_statistics(self.mean, self.std, self.channels)
        reads = self.context_length is not None
        object.__setattr__(self, "vocabulary", (self.vocabulary or VOCABULARY) if reads else None)
        for name in ("mean", "std"):
            values = getattr(self, name)
            if not isinstance(values, tuple):  # fields are compared
                object.__setattr__(self, name, tuple(np.asarray(values).tolist()))

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width in pixels of the model's input; None if pictures keep their aspect."""
        return per_axis(self.arguments["size"], 2) if "size" in self.arguments else None

    @property
    def frames(self) -> int | None:
        """Number of frames of a clip; None for pictures."""
        return self.arguments.get("length")

    def transform_example(self, example: dict[str, Any]) -> dict[str, Any]:
        """Replaces `image`, or `video`, of a record by uint8 (H, W, C), or (..., T, H, W, 3)."""
        transform = self.function or _made(self.transform, json.dumps(self.arguments))
        return transform(example)

    def pixels(self, media_: Any) -> np.ndarray:
        """Resizes and crops pictures or videos to uint8 (B, H, W, C) or (B, T, H, W, 3); accepts
        the same as a call.
        """
        if self.input == "video":
            return media.clips(media_, self.transform_example)
        return media.pictures(
            media_, self.transform_example, self.channels, self.conversion, self.limits
        )

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """Normalizes uint8 (..., C) to float32: (pixels / 255 - mean) / std."""
        return (pixels.astype(np.float32) / 255 - np.float32(self.mean)) / np.float32(self.std)

    def __call__(self, media_: Any) -> np.ndarray:
        return self.normalize(self.pixels(media_))

    def tokenize_and_flag(self, texts: str | Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids of texts, and a mask of the texts that were cut.

        Returns:
            (int32 (n, L), bool (n,)).

        Raises:
            UserError: The model reads no texts or has another vocabulary, or one of `texts` is not
                text.
        """
        from swin_jax.data.image_text.tokenizer import tokenize_and_flag

        if self.context_length is None:
            raise UserError("this model reads no texts")
        if self.vocabulary != VOCABULARY:
            raise UserError(
                f"this model's vocabulary is {self.vocabulary}, not CLIP's: "
                "give tokenize=, a function of its own tokenizer"
            )
        return tokenize_and_flag(texts, self.context_length, self.clean)

    def fingerprint(self) -> str:
        """Everything that affects pixels, as JSON; indices of features store it for comparison."""
        arguments = {
            "fn": self.transform,
            **self.arguments,
            "mean": list(self.mean),
            "std": list(self.std),
        }
        if self.input == "image":
            arguments["conversion"] = self.conversion
        return json.dumps(dict(sorted(arguments.items())))

    def texts(self) -> dict[str, Any] | None:
        """A description of how texts become tokens, for use of the model without this package; None
        if it reads no texts.
        """
        names = ("vocabulary", "context_length", "clean")
        return (
            None if self.context_length is None else {name: getattr(self, name) for name in names}
        )

    def replace(self, **changes: Any) -> "Preparation":
        """Makes a copy with other fields, or with other arguments of its transform.

        Args:
            **changes: Fields; arguments of the transform, such as 'crop' or 'interpolation'; or
                `image_size`, an int or (H, W), of videos also (T, H, W). Official Swins of 384
                pixels take the whole picture: a change from or to that size changes `crop`, unless
                that is given too.

        Raises:
            UserError: A name is unknown, or a size is invalid.
        """
        known = parameters_of(changes.get("transform", self.transform))
        fields = {field.name for field in dataclasses.fields(self)}
        given = dict(changes)
        told = {*changes, *(("size", "length") if "image_size" in changes else ())}
        arguments = {name: value for name, value in self.arguments.items() if name in known}
        if "image_size" in given:
            arguments |= self._resized(given.pop("image_size"))
        if "frames" in given and "length" in known:
            arguments["length"] = given.pop("frames")
        arguments |= {
            name: given.pop(name) for name in list(given) if name in known and name not in fields
        }
        if unknown := [name for name in given if name not in fields]:
            names = [*fields, *known, "image_size", *(("frames",) if self.frames else ())]
            raise UserError(f"a preparation has no {unknown[0]!r}{did_you_mean(unknown[0], names)}")
        if self.context_length is None and given.get("context_length") is not None:
            raise UserError("this model reads no texts: it has no context_length")
        kept = tuple(name for name in self.assumed if name not in told)
        same = given.get("transform", self.transform) == self.transform
        same = same and arguments == dict(self.arguments)
        # A given function already contains its arguments.
        function = self.function if same else None
        found = dataclasses.replace(
            self, **{"arguments": arguments, "assumed": kept, "function": function} | given
        )
        found.check()
        return found

    def check(self) -> None:
        """Raises UserError for arguments that the transform or the tokenizer would not accept."""
        from swin_jax.data.image_text.tokenizer import cleaner

        if self.function is None:
            _check_arguments(public_names.find(self.transform), self.arguments)
            _made(self.transform, json.dumps(self.arguments))
        if self.context_length is not None:
            if not isinstance(self.context_length, int) or self.context_length < 3:
                raise UserError(
                    f"context_length={self.context_length!r} must be a whole number, at least 3"
                )
            cleaner(self.clean)

    def assumptions(self) -> str:
        """The assumptions, for messages: 'crop=True, interpolation='bicubic', ...'."""
        values = {
            name: self.arguments.get(name, getattr(self, name, None)) for name in self.assumed
        }
        return ", ".join(f"{name}={value!r}" for name, value in values.items())

    def _resized(self, size: int | Sequence[int]) -> dict[str, Any]:
        """The arguments of the transform for a new size."""
        size = ranges.plain(Size, size)
        if isinstance(size, int):
            sizes = (size,)
        elif isinstance(size, Sequence):
            sizes = tuple(size)
        else:
            sizes = ()
        if not 1 <= len(sizes) <= 3 or not all(isinstance(side, int) for side in sizes):
            raise UserError(
                f"image_size={size!r} must be a whole number, (H, W), or (T, H, W) for videos"
            )
        frames, sides = (sizes[:1], sizes[1:]) if len(sizes) == 3 else ((), sizes)
        if frames and self.input == "image":
            raise UserError(
                f"image_size={size} has three numbers, but pictures have no frames: give (H, W)"
            )
        sides, before = per_axis(sides, 2), self.image_size
        if self.transform == FIT:
            scale = self.arguments.get("scale") or (4, 1)
            return {"scale": (max(scale) * min(sides) // min(scale), min(sides))}
        changed = {"size": simplest(sides)} | ({"length": frames[0]} if frames else {})
        if self.transform == RESIZED and (WHOLE, WHOLE) in (sides, before):
            changed["crop"] = sides != (WHOLE, WHOLE)
        if self.arguments.get("short_side") and self.input == "image":
            changed["short_side"] = self._short_side(sides)
        if self.transform == CLIPS:
            changed["short_side"] = round(min(sides) * 256 / 224)
        return changed

    def _short_side(self, sides: tuple[int, int]) -> int | tuple[int, int]:
        """The size to which a picture is resized before the crop to `sides`; keeps the original
        ratio of resizing to cropping.
        """
        before = zip(per_axis(self.arguments["short_side"], 2), self.image_size, sides)
        return simplest(tuple(short * side // size for short, size, side in before))


def _check_arguments(transform: Callable, arguments: Mapping[str, Any]) -> None:
    """Raises UserError for arguments of a transform that have the wrong type."""
    ranges.check(transform, arguments)
    for name, value in arguments.items():
        if inspect.signature(transform).parameters[name].annotation is bool and not isinstance(
            value, bool
        ):
            raise UserError(f"{name}={value!r} must be True or False")


@functools.lru_cache(maxsize=16)
def _made(name: str, arguments: str) -> Callable[[dict], dict]:
    """Makes the transform of a public name with arguments in JSON.

    It is imported only here, because loading a model needs no codecs.
    """
    return public_names.find(name)(**json.loads(arguments))


def same_pixels(one: str, other: str) -> bool:
    """True if two fingerprints agree in all fields that both have; older ones lack mean and std.

    A fingerprint without a conversion stands for 'reference', once the only one.
    """
    if not (one.startswith("{") and other.startswith("{")):
        return one == other != ""
    first, second = ({"conversion": "reference"} | json.loads(text) for text in (one, other))
    return all(first[key] == second[key] for key in first.keys() & second.keys())


def check_pixels(stored: str, prepared: Preparation, index: str) -> None:
    """Checks that the pictures of an index were prepared in the same way as a query.

    Args:
        stored: The fingerprint in the index.
        prepared: The preparation of the query.
        index: Name of the index in messages.

    Raises:
        UserError: The pictures were prepared differently. An older index without a conversion only
            causes a warning.
    """
    if same_pixels(stored, prepared.fingerprint()):
        return
    told = not stored.startswith("{") or "conversion" in json.loads(stored)
    if told or not same_pixels(stored, prepared.replace(conversion="reference").fingerprint()):
        raise UserError(
            f"{index} holds pictures that were prepared differently; "
            "rebuild it (for a run: --index=FOLDER)"
        )
    warn(
        f"{index} was made by an earlier version, which ignored transparency and the orientation "
        "that cameras record; rebuild it if it contains such pictures"
    )


def attach(model: Any, prepared: Preparation | UserError | None) -> Any:
    """Makes a model carry its preparation, or the reason why it has none.

    The preparation is not a field, so models that differ only in it are equal and compile once.
    """
    object.__setattr__(model, _CARRIED, prepared)
    return model


def carried(model: Any) -> Preparation | None:
    """The preparation that a model carries; None for a model that was made by hand, or cloned.

    Raises:
        UserError: The config of the model's run does not say how pictures are prepared.
    """
    found = vars(model).get(_CARRIED)
    if isinstance(found, UserError):
        raise UserError(str(found))
    return found


def parameters_of(transform: str | None) -> tuple[str, ...]:
    """Names of the arguments of a transform; () for a name that is not one of `TRANSFORMS`."""
    if not any(transform in names for names in TRANSFORMS.values()):
        return ()
    return tuple(inspect.signature(public_names.find(transform)).parameters)
