"""Image and text features of whole sets: what zero-shot classification, retrieval and the probes start from."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.tasks.base import Task, TrainState

Encode = Callable[[np.ndarray], jax.Array]  # (B, L) int32 tokens -> (B, E) floating point
Tokenize = Callable[[Sequence[str]], np.ndarray]  # texts -> (n, L) int32


def normalize(features: np.ndarray) -> np.ndarray:
    """Features of unit length: (..., E) -> (..., E) float32; a zero vector stays zero."""
    features = np.asarray(features, np.float32)
    length = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.where(length > 0, length, 1)


def extractor(
    task: Task,
    placement: Any,
    data: Any,
    outputs: Sequence[str] = ("image_features",),
    inputs: Sequence[str] = ("image",),
    kept: Sequence[str] = ("label",),
) -> Callable[[TrainState, Any], dict[str, np.ndarray]]:
    """Compiles the features of a data set.

    Args:
        task: its `predict` gets the `inputs` and returns the `outputs`, (B, E) each.
        placement: a `sharding.Placement`.
        data: a `data.pipeline.EvalData`.
        outputs: keys of what `predict` returns.
        inputs: keys of the batch that `predict` gets.
        kept: keys of the batch that are returned as they are.

    Returns:
        run(state, frozen) -> {key of outputs and kept: (N, ...)} for the N records in order, without padding, on every
        process; outputs are float32.
    """

    def predict(state, batch, frozen):
        found = task.predict(state, {key: batch[key] for key in inputs}, frozen)
        features = {key: found[key].astype(jnp.float32) for key in outputs}
        return features | {key: batch[key] for key in (*kept, "weight")}

    predict = jax.jit(predict, out_shardings=jax.sharding.NamedSharding(placement.mesh, jax.sharding.PartitionSpec()))

    def run(state: TrainState, frozen: Any) -> dict[str, np.ndarray]:
        batch_size = placement.round_up(data.batch_size)
        rows: list[dict[str, np.ndarray]] = []
        pending = None
        for batch in data.batches(batch_size, placement.rows(batch_size)):
            batch = placement.to_global({key: batch[key] for key in (*inputs, *kept, "weight")}, batch_size)
            pending, previous = predict(state, batch, frozen), pending
            _append(rows, previous)
        _append(rows, pending)
        return {key: np.concatenate([row[key] for row in rows]) for key in (*outputs, *kept)}

    return run


def _append(rows: list[dict[str, np.ndarray]], found: dict[str, jax.Array] | None) -> None:
    if found is not None:
        arrays = {key: np.asarray(value) for key, value in found.items()}
        rows.append({key: value[arrays["weight"] > 0] for key, value in arrays.items()})


def text_encoder(task: Task, placement: Any) -> Callable[[TrainState, Any], Encode]:
    """Compiles the text tower of a task.

    Returns:
        bind(state, frozen) -> encode, which takes (B, L) int32 tokens that every process holds whole, B a multiple of
        the mesh's batch shards, and returns (B, E) on every process.
    """
    everywhere = jax.sharding.NamedSharding(placement.mesh, jax.sharding.PartitionSpec())

    @jax.jit(out_shardings=everywhere)
    def predict(state, text, frozen):
        return task.predict(state, {"text": text}, frozen)["text_features"].astype(jnp.float32)

    def bind(state: TrainState, frozen: Any) -> Encode:
        def encode(text: np.ndarray) -> jax.Array:
            own = {"text": text[placement.rows(len(text))]}
            return predict(state, placement.to_global(own, len(text))["text"], frozen)

        return encode

    return bind


def text_batches(
    encode: Encode, tokenize: Tokenize, texts: Sequence[str], batch_size: int, progress: str = ""
) -> Iterator[tuple[slice, np.ndarray]]:
    """Encodes texts in batches of one fixed size, so that one program is compiled; the next one is tokenised meanwhile.

    Args:
        encode: tokens (batch_size, L) -> (batch_size, E).
        tokenize: texts -> (n, L) int32.
        texts: N of them.
        batch_size: texts at a time; the last batch is filled up with copies of its last text.
        progress: title of a progress bar; '' shows none.

    Yields:
        (which texts, their features (n, E) float32 of unit length).
    """
    from tqdm import tqdm

    pending = None
    with tqdm(total=len(texts), desc=progress, unit="text", disable=not progress) as bar:
        for start in range(0, len(texts), batch_size):
            part = slice(start, min(start + batch_size, len(texts)))
            tokens = np.asarray(tokenize(list(texts[part])), np.int32)
            filled = np.concatenate([tokens, np.repeat(tokens[-1:], batch_size - len(tokens), axis=0)])
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


def encode_texts(
    encode: Encode, tokenize: Tokenize, texts: Sequence[str], batch_size: int = 256, progress: str = ""
) -> np.ndarray:
    """Features of N texts: (N, E) float32 of unit length. The arguments are those of `text_batches`."""
    return np.concatenate([found for _, found in text_batches(encode, tokenize, texts, batch_size, progress)])
