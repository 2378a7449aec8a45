"""Image and text features of whole sets: what zero-shot classification,
retrieval and the probes start from.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.core.output.progress import Progress
from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.data import unreadable
from swin_jax.tasks.base import Task, TrainState

Encode = Callable[[np.ndarray], jax.Array]  # (B, L) int32 tokens -> (B, E) floating point
Tokenize = Callable[[Sequence[str]], np.ndarray]  # texts -> (n, L) int32

_ROUNDING = 1e-6  # of the length of a vector that a model has normalized


def normalize(features: np.ndarray) -> np.ndarray:
    """Features of unit length: (..., E) -> (..., E) float32;
    zeros, and what has that length, keep their bits.
    """
    features = np.asarray(features, np.float32)
    length = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.where((length > 0) & (np.abs(length - 1) > _ROUNDING), length, 1)


def feature_batches(
    task: Task,
    placement: Any,
    outputs: Sequence[str] = ("image_features",),
    inputs: Sequence[str] = ("image",),
    kept: Sequence[str] = ("label",),
) -> Callable[[TrainState, Any, Any], Iterator[dict[str, np.ndarray]]]:
    """Compiles the features of pictures: whoever needs some takes them from here.

    Args:
        task: A task whose `predict` gets the `inputs` and returns the `outputs`, (B, E) each.
        placement: A `sharding.Placement`.
        outputs: Keys of what `predict` returns.
        inputs: Keys of the batch that `predict` gets.
        kept: Keys of the batch that are returned as they are.

    Returns:
        batches(state, frozen, data), which yields {key of outputs and kept: (n, ...)} for the
        records of a `data.pipeline.EvalData` in order, without padding and what is left out, on
        every process; outputs are float32.
    """

    @functools.partial(jax.jit, **_everywhere(placement))
    def predict(state, batch, frozen):
        found = task.predict(state, {key: batch[key] for key in inputs}, frozen)
        features = {key: found[key].astype(jnp.float32) for key in outputs}
        return features | {key: batch[key] for key in (*kept, "weight")}

    def batches(state: TrainState, frozen: Any, data: Any) -> Iterator[dict[str, np.ndarray]]:
        batch_size = placement.round_up(data.batch_size)
        pending = None
        for batch in data.batches(batch_size, placement.rows(batch_size)):
            batch = placement.to_global(
                {key: batch[key] for key in (*inputs, *kept, "weight")}, batch_size
            )
            pending, previous = predict(state, batch, frozen), pending
            if previous is not None:
                yield _real_rows(previous)
        yield _real_rows(pending)

    return batches


def _everywhere(placement: Any) -> dict[str, Any]:
    """The argument of `jax.jit` that gives every process the whole result."""
    if placement.mesh is None:
        return {}
    return {
        "out_shardings": jax.sharding.NamedSharding(placement.mesh, jax.sharding.PartitionSpec())
    }


def _real_rows(found: dict[str, jax.Array]) -> dict[str, np.ndarray]:
    arrays = {key: np.asarray(value) for key, value in found.items()}
    real = arrays.pop("weight") > 0
    return {key: value[real] for key, value in arrays.items()}


def extractor(
    task: Task,
    placement: Any,
    data: Any,
    outputs: Sequence[str] = ("image_features",),
    inputs: Sequence[str] = ("image",),
    kept: Sequence[str] = ("label",),
) -> Callable[[TrainState, Any], dict[str, np.ndarray]]:
    """Compiles the features of a whole data set: a `data.pipeline.EvalData`. Other arguments
    as of `feature_batches`.

    Returns:
        run(state, frozen) -> {key of outputs and kept: (N, ...)} for the N records in order.
    """
    batches = feature_batches(task, placement, outputs, inputs, kept)

    def run(state: TrainState, frozen: Any) -> dict[str, np.ndarray]:
        rows = list(batches(state, frozen, data))
        return {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}

    return run


def left_out(sets: Iterable[Any], found: Iterable[dict[str, np.ndarray]]) -> dict[str, int]:
    """{'left_out': unreadable records of several data sets}, from what `extractor` found of each;
    {} if none may be.
    """
    parts = [unreadable.left_out(data, len(arrays["label"])) for data, arrays in zip(sets, found)]
    counts = [part["left_out"] for part in parts if part]
    return {"left_out": sum(counts)} if counts else {}


def text_encoder(task: Task, placement: Any) -> Callable[[TrainState, Any], Encode]:
    """Compiles the text tower of a task.

    Returns:
        bind(state, frozen) -> encode, which takes (B, L) int32 tokens that every process holds
        whole, B a multiple of the mesh's batch shards, and returns (B, E) on every process.
    """

    @functools.partial(jax.jit, **_everywhere(placement))
    def predict(state, text, frozen):
        return task.predict(state, {"text": text}, frozen)["text_features"].astype(jnp.float32)

    def bind(state: TrainState, frozen: Any) -> Encode:
        def encode(text: np.ndarray) -> jax.Array:
            check_tokens(text, task)
            own = {"text": text[placement.rows(len(text))]}
            return predict(state, placement.to_global(own, len(text))["text"], frozen)

        return encode

    return bind


def check_tokens(text: np.ndarray, task: Task) -> None:
    """Raises UserError for tokens that the text tower of a task does not know:
    their features would be NaN.
    """
    known = getattr(getattr(getattr(task, "model", None), "text", None), "vocab_size", None)
    if known is not None and text.size and not 0 <= text.min() <= text.max() < known:
        raise UserError(
            f"the texts have tokens up to {text.max()}, the model knows 0 to {known - 1}: "
            "give it those of its own tokenizer"
        )


@checked
def text_batches(
    encode: Encode,
    tokenize: Tokenize,
    texts: Sequence[str],
    batch_size: PositiveInt,
    progress: str = "",
) -> Iterator[tuple[slice, np.ndarray]]:
    """Encodes texts in batches of one fixed size, so that one program is compiled;
    the next one is tokenized meanwhile.

    Args:
        encode: Tokens (batch_size, L) -> (batch_size, E).
        tokenize: Texts -> (n, L) int32.
        texts: N of them.
        batch_size: Texts at a time; the last batch is filled up with copies of its last text.
        progress: Title of a progress bar; '' shows none.

    Yields:
        (which texts, their features (n, E) float32 of unit length).
    """
    pending = None
    with Progress(total=len(texts), unit="texts", name=progress, show=bool(progress)) as bar:
        for start in range(0, len(texts), batch_size):
            part = slice(start, min(start + batch_size, len(texts)))
            tokens = np.asarray(tokenize(list(texts[part])), np.int32)
            filled = np.concatenate(
                [tokens, np.repeat(tokens[-1:], batch_size - len(tokens), axis=0)]
            )
            pending, previous = (part, encode(filled)), pending
            if previous is not None:
                yield _finish(previous, bar)
        if pending is not None:
            yield _finish(pending, bar)


def _finish(found: tuple[slice, jax.Array], bar) -> tuple[slice, np.ndarray]:
    part, encoded = found
    count = part.stop - part.start
    bar.update(count)
    return part, normalize(np.asarray(encoded, np.float32)[:count])


@checked
def encode_texts(
    encode: Encode,
    tokenize: Tokenize,
    texts: Sequence[str],
    batch_size: PositiveInt = 256,
    progress: str = "",
) -> np.ndarray:
    """Features of N texts: (N, E) float32 of unit length.
    The arguments are those of `text_batches`.
    """
    return np.concatenate(
        [found for _, found in text_batches(encode, tokenize, texts, batch_size, progress)]
    )


def text_of_task(task: Task) -> str:
    """The text of all that a task predicts with beside its weights,
    for the keys of caches: all of its fields but the optimizer.
    """
    if not dataclasses.is_dataclass(task):
        return _without_addresses(task)
    fields = [field.name for field in dataclasses.fields(task) if field.name != "tx"]
    return ", ".join(f"{name}={_without_addresses(getattr(task, name))}" for name in fields)


def _without_addresses(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
