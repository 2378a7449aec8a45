"""Pictures against texts with a CLIP: probabilities, nearest captions,
a matrix of similarities as a picture.

    model, variables = swin_jax.load("ViT-B/32", weights="official")
    similarity.probabilities(model, variables, "cat.jpg", ["a cat", "a dog"])
    matrix = similarity.cosines(model, variables, pictures, captions)
    similarity.draw(pictures, captions, matrix, path="similarities.png")

CLIP (arXiv 2103.00020). Pictures and texts are prepared as the model's own preparation says: that
of its name, of what lies beside its weights, or of its run.
"""

import dataclasses
import math
import os
import textwrap
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from swin_jax.core.errors import UserError, warn, with_article
from swin_jax.core.output import plots
from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.data.image_text import tokenizer as text_lib
from swin_jax.data.pipeline import EvalData
from swin_jax.evals import features
from swin_jax.evals.features import Tokenize
from swin_jax.inference import loaded_model
from swin_jax.inference.loaded_model import Preprocess
from swin_jax.pretrained import preprocess as preparing
from swin_jax.pretrained.media import open_picture, shown
from swin_jax.pretrained.preparation import Preparation

MOST_NUMBERS = 900  # cells of a drawn matrix that still have their numbers
_THUMBNAIL = 256  # pixels of the longer side of a drawn picture: all are in memory together
_MOST_PIXELS = 2**26  # of a drawn matrix; larger ones are drawn with fewer dots an inch


def probabilities(
    model: nn.Module,
    variables: dict,
    images: Any,
    texts: str | Sequence[str],
    preprocess: Preparation | Preprocess | None = None,
    tokenize: Tokenize | None = None,
) -> np.ndarray:
    """The probability of each text for each picture.

    Args:
        model, variables: A CLIP of `swin_jax.load`.
        images: N pictures, or one, in any form that the model's preparation takes.
        texts: M texts, or one.
        preprocess: Preparation or function for the pictures;
            None takes the preparation that the model carries.
        tokenize: Function of texts that gives (n, L) int32; None takes the model's own tokens, and
            cuts texts that are too long, with a warning.

    Returns:
        (N, M) float32. Each row sums to 1: one of the texts is taken to be right. For a model with
        a bias on its logits (SigLIP), every entry is a probability of its own.

    Raises:
        UserError: A model without a text encoder, no pictures or no texts, an empty text,
            a file that is not a picture.
    """
    found = cosines(model, variables, images, texts, preprocess, tokenize)
    logits = np.exp(np.float32(variables["params"]["logit_scale"])) * found
    if model.logit_bias is not None:
        return 1 / (1 + np.exp(-(logits + np.float32(variables["params"]["logit_bias"]))))
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def cosines(
    model: nn.Module,
    variables: dict,
    images: Any,
    texts: str | Sequence[str],
    preprocess: Preparation | Preprocess | None = None,
    tokenize: Tokenize | None = None,
) -> np.ndarray:
    """The similarity of every picture and every text, -1 to 1:
    (N, M) float32. Arguments as for `probabilities`.
    """
    texts = _checked(texts)  # before the pictures, which take longer
    found = encode_images(model, variables, images, preprocess)
    return found @ encode_texts(model, variables, texts, tokenizer_of(preprocess, tokenize)).T


@checked
def nearest_captions(
    model: nn.Module,
    variables: dict,
    images: Any,
    captions: Sequence[str],
    top: PositiveInt = 5,
    preprocess: Preparation | Preprocess | None = None,
    tokenize: Tokenize | None = None,
) -> list[list[tuple[str, float]]]:
    """The captions that fit each picture best.

    Args:
        captions: Texts to choose among.
        top: Number of captions per picture; at most all.
        model, variables, images, preprocess, tokenize: The same as in `probabilities`.

    Returns:
        For each picture [(caption, cosine), ...], the best first.
        Raises what `probabilities` raises.
    """
    captions = _checked(captions)
    found = cosines(model, variables, images, captions, preprocess, tokenize)
    order = np.argsort(-found, axis=-1, kind="stable")[:, :top]
    return [[(captions[k], float(row[k])) for k in ranks] for row, ranks in zip(found, order)]


@checked
def encode_images(
    model: nn.Module,
    variables: dict,
    images: Any,
    preprocess: Preparation | Preprocess | None = None,
    batch_size: PositiveInt = 64,
) -> np.ndarray:
    """Features of N pictures: (N, E) float32 of unit length;
    at most `batch_size` are in memory at a time.
    """
    loaded_model.check_features(model, variables)
    prepare = loaded_model.preparation_of(model, preprocess)
    images = several(images)
    if not len(images):
        raise UserError("there are no pictures")
    rows = min(batch_size, _power(len(images)))
    data = EvalData(_Pictures(images), loaded_model.example_transform(prepare), rows, num_threads=0)
    return np.concatenate(
        [found for _, found in loaded_model.image_batches(model, variables, prepare, data)]
    )


@dataclasses.dataclass(frozen=True)
class _Pictures:
    """Pictures in memory, or their paths, as a source."""

    images: Any
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": 0}

    def record_name(self, index: int) -> str:
        return f"picture {index}"


@checked
def encode_texts(
    model: nn.Module,
    variables: dict,
    texts: str | Sequence[str],
    tokenize: Tokenize | None = None,
    batch_size: PositiveInt = 256,
) -> np.ndarray:
    """Features of M texts: (M, E) float32 of unit length."""
    loaded_model.check_features(model, variables)
    texts = _checked(texts)
    if tokenize is None:
        tokenize = _tokenizer(preparing.preprocess(model))
    if not callable(tokenize):
        raise UserError(
            f"tokenize={shown(tokenize)} must be a function of texts that gives tokens (n, L) int32"
        )
    encode = loaded_model.text_encoder(model, variables)
    return features.encode_texts(encode, tokenize, texts, min(batch_size, _power(len(texts))))


def tokenizer_of(
    preprocess: Preparation | Preprocess | None, tokenize: Tokenize | None
) -> Tokenize | None:
    """The tokenizer that is given, or that of a given preparation; None for the model's own."""
    if tokenize is None and isinstance(preprocess, Preparation) and preprocess.context_length:
        return _tokenizer(preprocess)
    return tokenize


def _tokenizer(preparation: Preparation) -> Tokenize:
    """A function of texts of any length: what is too long is cut,
    and a warning names the first such text.
    """

    def tokenize(texts: Sequence[str]) -> np.ndarray:
        ids, cut = preparation.tokenize_and_flag(texts)
        if cut.any():
            first = textwrap.shorten(texts[int(cut.argmax())], 60)
            warn(
                f"{cut.sum()} texts are cut to {preparation.context_length} tokens, {first!r} first"
            )
        return ids

    return tokenize


def several(images: Any) -> Any:
    """Pictures as a list or an array, for one picture too;
    raises UserError for what has no order or no pixels.
    """
    axes = getattr(images, "ndim", 0)
    if isinstance(images, (str, os.PathLike)) or hasattr(images, "convert") or axes in (2, 3):
        images = [images]
    elif axes == 1 or (isinstance(images, Sequence) and not isinstance(images, bytes)):
        images = list(images)
    elif axes != 4:
        raise UserError(
            "pictures must be a path, a PIL image, an array, or a list of these, "
            f"not {with_article(type(images).__name__)}"
        )
    for number, image in enumerate(images):
        if 0 in (image.size if hasattr(image, "convert") else getattr(image, "shape", ())):
            raise UserError(f"picture {number} has no pixels")
    return images


def _power(count: int) -> int:
    """The next power of two, so that few batch sizes are compiled."""
    return 1 << (count - 1).bit_length() if count else 0


def _checked(texts: str | Sequence[str]) -> list[str]:
    texts = text_lib.as_list(texts)
    if not texts:
        raise UserError("there are no texts")
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"text {number} is {text!r}; give texts that say something")
    return texts


def draw(
    images: Any,
    texts: str | Sequence[str],
    similarities: np.ndarray,
    path: str | os.PathLike | None = None,
    title: str = "",
):
    """Draws a matrix of similarities: a row for each text, a column below each picture,
    the values in the cells.

    Args:
        images: N pictures: paths, PIL images, or uint8 arrays (H, W) or (H, W, 3).
        texts: M texts, or one.
        similarities: (N, M), from `cosines` or `probabilities`.
        path: Picture file to write, .png or another kind that matplotlib writes, or None.
        title: Text above the matrix.

    Returns:
        The matplotlib figure.

    Raises:
        UserError: A matrix of another shape, a file that is not a picture, an empty text,
            a `path` that cannot be written.
    """
    from matplotlib.figure import Figure

    images, texts, values = several(images), _checked(texts), np.asarray(similarities, np.float32)
    if values.shape != (len(images), len(texts)) or not values.size:
        raise UserError(
            f"{len(images)} pictures and {len(texts)} texts have a matrix ({len(images)}, "
            f"{len(texts)}), not {values.shape}"
        )
    labels = [textwrap.fill(text, 40) for text in texts]
    cell = 0.75  # inches
    figure = Figure(
        figsize=(3.2 + cell * len(images), 0.8 + cell * (len(texts) + 1.1)), layout="constrained"
    )
    kinds = figure.canvas.get_supported_filetypes()
    if path is not None and (kind := os.path.splitext(path)[1][1:].lower()) and kind not in kinds:
        raise UserError(
            f"path={path}: a matrix cannot be drawn as .{kind}, only as {', '.join(sorted(kinds))}"
        )
    axes = figure.add_subplot()
    axes.imshow(values.T, cmap="viridis")
    for i, image in enumerate(images):
        picture = open_picture(image).copy()
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        width, height = picture.size
        right, down = 0.46 * np.array([width, height]) / max(width, height)
        axes.imshow(np.asarray(picture), extent=(i - right, i + right, -1.05 + down, -1.05 - down))
    low, high = float(values.min()), float(values.max())
    for i, k in np.ndindex(values.shape) if values.size <= MOST_NUMBERS else ():
        dark = values[i, k] < (low + high) / 2
        axes.text(
            i,
            k,
            f"{values[i, k]:.2f}",
            ha="center",
            va="center",
            fontsize=9,
            color="w" if dark else "k",
        )
    axes.set_yticks(range(len(texts)), labels, fontsize=9, parse_math=False)
    axes.set_xticks([])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set(xlim=(-0.5, len(images) - 0.5), ylim=(len(texts) - 0.5, -1.6), aspect="equal")
    figure.suptitle(title, fontsize=11, parse_math=False)
    if path is not None:
        try:
            dots = min(120, math.sqrt(_MOST_PIXELS / math.prod(figure.get_size_inches())))
            with plots.quiet_glyphs():
                figure.savefig(path, dpi=dots, bbox_inches="tight")
        except OSError as error:
            raise UserError(f"path={path} cannot be written: {error.strerror}") from error
    return figure
