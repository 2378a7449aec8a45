"""Image-text retrieval: the share of queries with a match among the first k, both ways.

CLIP (arXiv 2103.00020, Table 13) on Flickr30k and COCO with five captions per image. The reference
is CLIP_benchmark: a query counts if at least one of its matches is among the first k.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.data.image_text.by_image import by_image
from swin_jax.data.image_text.pairs import EvalTransform
from swin_jax.data.unreadable import left_out, may_leave_out
from swin_jax.evals import features
from swin_jax.evals.features import Encode, Tokenize
from swin_jax.tasks.base import Task, TrainState, check_predicts


@checked
def caption_features(
    encode: Encode,
    tokenize: Tokenize,
    captions: Sequence[Sequence[str]],
    prefix: str = "",
    batch_size: PositiveInt = 256,
) -> tuple[np.ndarray, np.ndarray]:
    """Features of the captions of N images.

    Args:
        encode: (batch_size, L) int32 tokens -> (batch_size, E).
        tokenize: Texts -> (n, L) int32.
        captions: N entries, each the one or more captions of an image.
        prefix: Text before every caption; 'a photo of ' is worth 1 to 2 points of R@1 to CLIP.
        batch_size: Captions at a time.

    Returns:
        (features (M, E) float32 of unit length, number of the image (M,) int) of all M captions.

    Raises:
        UserError: An image without captions, or a caption instead of a list of them.
    """
    wrong = [number for number, own in enumerate(captions) if isinstance(own, str) or not own]
    if wrong:
        raise UserError(
            f"captions must be a list for every image; image {wrong[0]} has {captions[wrong[0]]!r}"
        )
    texts = [prefix + caption for own in captions for caption in own]
    owner = np.repeat(np.arange(len(captions)), [len(own) for own in captions])
    return features.encode_texts(encode, tokenize, texts, batch_size), owner


@jax.jit
def _first_match(
    queries: jax.Array, query_ids: jax.Array, candidates: jax.Array, ids: jax.Array
) -> jax.Array:
    """Rank of the best match of each query; ties go to the lower candidate,
    NaN counts as larger than everything.
    """
    scores = jnp.matmul(queries, candidates.T, precision=jax.lax.Precision.HIGHEST)  # (c, M)
    match = query_ids[:, None] == ids[None, :]
    best = jnp.where(match, scores, -jnp.inf).max(axis=-1, keepdims=True)
    number = jnp.arange(scores.shape[-1])[None, :]
    place = jnp.where(match & (scores == best), number, scores.shape[-1]).min(
        axis=-1, keepdims=True
    )
    return (~(scores <= best) | ((scores == best) & (number < place))).sum(axis=-1)


@checked
def ranks(
    queries: np.ndarray,
    query_ids: np.ndarray,
    candidates: np.ndarray,
    candidate_ids: np.ndarray,
    chunk: PositiveInt = 256,
    pause: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """The number of candidates before the best match of each query;
    only (chunk, M) similarities exist at a time.

    Args:
        queries: (N, E).
        query_ids: (N,) int; a candidate with the same number is a match.
        candidates: (M, E).
        candidate_ids: (M,) int.
        chunk: Queries at a time.
        pause: A function that is called before each chunk; it may raise.

    Returns:
        (N,) int; rank < k means found among the first k.

    Raises:
        UserError: Widths that differ, or queries without any match.
    """
    if queries.shape[-1] != candidates.shape[-1]:
        raise UserError(
            "image and text features differ in width: "
            f"{queries.shape[-1]} and {candidates.shape[-1]}"
        )
    _, query_numbers = np.unique(np.concatenate([query_ids, candidate_ids]), return_inverse=True)
    query_numbers, numbers = np.split(query_numbers.astype(np.int32), [len(query_ids)])
    alone = np.flatnonzero(~np.isin(query_numbers, numbers))
    if len(alone) or not len(queries):
        raise UserError(
            f"{len(alone)} of {len(queries)} queries have no match to find, "
            f"the first is {alone[:1]}"
        )
    candidates, found = jnp.asarray(candidates), []
    for start in range(0, len(queries), chunk):
        pause()
        # One shape, so that one program does.
        index = np.minimum(np.arange(start, start + chunk), len(queries) - 1)
        rank = _first_match(queries[index], query_numbers[index], candidates, numbers)
        found.append(np.asarray(rank)[: len(queries) - start])
    return np.concatenate(found)


@checked
def recall(
    image_features: np.ndarray,
    text_features: np.ndarray,
    image_ids: np.ndarray | None = None,
    text_ids: np.ndarray | None = None,
    ks: Sequence[PositiveInt] = (1, 5, 10),
    chunk: PositiveInt = 256,
    pause: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """R@k both ways, any number of captions per image and of images per caption.

    Args:
        image_features: (N, E) of unit length.
        text_features: (M, E) of unit length.
        image_ids: (N,) int; None numbers the images.
        text_ids: (M,) int: the image that a text belongs to; None where text i belongs to image i.
        ks: Numbers of candidates, the first ones, among which a match counts.
        chunk: Queries at a time.
        pause: The same as in `ranks`.

    Returns:
        'image_to_text_r<k>' (papers call it text retrieval) and 'text_to_image_r<k>', in 0..1.
    """
    image_ids = np.arange(len(image_features)) if image_ids is None else np.asarray(image_ids)
    text_ids = np.arange(len(text_features)) if text_ids is None else np.asarray(text_ids)
    directions = {
        "image_to_text": ranks(image_features, image_ids, text_features, text_ids, chunk, pause),
        "text_to_image": ranks(text_features, text_ids, image_features, image_ids, chunk, pause),
    }
    return {f"{way}_r{k}": float((rank < k).mean()) for way, rank in directions.items() for k in ks}


@checked
@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Evaluates an image-text task on pairs during training.

    The protocol is that of several captions per image: every image once, though several records may
    name its file, and every caption of it. An image finds its text with any of its captions, each
    caption has to find its image.

    Attributes:
        data: A `data.pipeline.EvalData` of a pair source with `pairs.eval_transform`. With
            another transform it has `image`, and unless `captions` are given `text`, the
            tokens of one caption.
        captions: One or more captions of each record, in order; None takes those of the source.
        tokenize: Texts -> (n, L) int32, for `captions`; None takes that of `pairs.eval_transform`.
        prefix: Text before each of the captions.
        ids: Batch key of an integer that pairs with the same content share ('label' for several
            pictures of one concept); '' makes every image its own.
        ks: Numbers of candidates, the first ones, among which a match counts.
        batch_size: Captions at a time.
    """

    data: Any
    captions: Sequence[Sequence[str]] | None = None
    tokenize: Tokenize | None = None
    prefix: str = ""
    ids: str = ""
    ks: Sequence[PositiveInt] = (1, 5, 10)
    batch_size: PositiveInt = 256

    def bind(self, task: Task, placement: Any) -> Callable[[TrainState, Any], dict[str, float]]:
        """Compiles for a task and a `sharding.Placement`; returns run(state,
        frozen) -> {name: value}.
        """
        check_predicts(task, "features", type(self).__name__)
        kept = (self.ids,) if self.ids else ()
        transform = getattr(self.data, "transform", None)
        if self.captions is None and not isinstance(transform, EvalTransform):
            return self._bind_tokens(task, placement, kept)
        data, captions = self.data, self.captions
        if captions is None:
            images = by_image(data.source)
            data = dataclasses.replace(data, source=images)
        if captions is None or may_leave_out(data):
            kept = (*kept, "record")
        tokenize = self.tokenize or getattr(transform, "tokenize", None)
        if tokenize is None:
            raise UserError(
                "captions need tokenize, texts -> (n, L) int32, as their model reads them"
            )
        extract = features.extractor(task, placement, data, kept=kept)
        text_encoder = features.text_encoder(task, placement)
        batch_size = placement.round_up(self.batch_size)

        def run(state: TrainState, frozen: Any) -> dict[str, float]:
            found = extract(state, frozen)
            image_features = found["image_features"]
            missing = left_out(data, len(image_features))
            count = len(image_features) + missing.get("left_out", 0)
            if captions is None:
                own = []
                for row, number in enumerate(found["record"]):
                    if row % batch_size == 0:
                        placement.pause()
                    own.append(transform.captions(images.record(int(number))))
                _warn_of_lines(own)
            elif len(captions) != count:
                raise UserError(f"there are captions of {len(captions)} images for {count} images")
            else:
                own = [captions[record] for record in found.get("record", range(count))]
            ids = found[self.ids] if self.ids else np.arange(len(image_features))
            encode = text_encoder(state, frozen)
            texts, owner = caption_features(encode, tokenize, own, self.prefix, batch_size)
            return (
                recall(image_features, texts, ids, ids[owner], self.ks, pause=placement.pause)
                | missing
            )

        return run

    def _bind_tokens(self, task: Task, placement: Any, kept: tuple[str, ...]):
        """Compiles as `bind` does, for the tokens in the batches, one caption per image."""
        if self.prefix:
            raise UserError("a prefix needs captions: the data set's texts are tokens already")
        outputs = ("image_features", "text_features")
        extract = features.extractor(task, placement, self.data, outputs, ("image", "text"), kept)

        def run(state: TrainState, frozen: Any) -> dict[str, float]:
            found = extract(state, frozen)
            ids = found[self.ids] if self.ids else np.arange(len(found["image_features"]))
            values = recall(
                found["image_features"],
                found["text_features"],
                ids,
                ids,
                self.ks,
                pause=placement.pause,
            )
            return values | left_out(self.data, len(ids))

        return run


def _warn_of_lines(captions: Sequence[Sequence[str]]) -> None:
    found = [text for own in captions for text in own if len(text.splitlines()) > 1]
    if found:
        warn(
            f"{len(found)} captions have several lines and are searched as one text each, as "
            f"{found[0][:80]!r}; if each line is a caption, give (for shards and folders) "
            "--config.evals.validation.run.data.source.caption_lines=True"
        )
