"""Cosines of pairs, against plain loops over them."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from swin_jax.evals.embedding import pair_scores

CHOICES = (3, 2, 4)


def problem(count=14):
    rng = np.random.default_rng(0)
    classes = np.stack([rng.integers(-1, n, count) for n in CHOICES], 1)
    classes[0] = -1
    marks = [[np.full(n, -1) if c < 0 else np.arange(n) == c for c, n in zip(row, CHOICES)] for row in classes]
    embedding = rng.normal(size=(count, 6))
    embedding /= np.linalg.norm(embedding, axis=-1, keepdims=True)
    return embedding.astype(np.float32), np.array([np.concatenate(row) for row in marks], np.int8), classes


def test_equal_to_loops_over_pairs():
    embedding, label, classes = problem()
    cosine, share, different = [], [], []
    for i, j in itertools.combinations(range(len(label)), 2):
        equal = [a == b for a, b in zip(classes[i], classes[j]) if a >= 0 and b >= 0]
        if equal:
            cosine.append(embedding[i] @ embedding[j])
            share.append(np.mean(equal))
            different.append(len(equal) - sum(equal))
    cosine, share, different = np.array(cosine), np.array(share), np.array(different)
    either = different <= 1
    assert pair_scores(embedding, label) == pytest.approx(
        {
            "cosine_same": cosine[different == 0].mean(),
            "cosine_one_differs": cosine[different == 1].mean(),
            "cosine_any": cosine.mean(),
            "rms_error": np.sqrt(np.mean((cosine - share) ** 2)),
            "auc": roc_auc_score(different[either] == 0, cosine[either]),
        },
        rel=1e-5,
    )


def test_embeddings_that_say_it_exactly_have_no_error():
    label = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0]], np.int8)
    found = pair_scores(label / np.sqrt(2).astype(np.float32), label)
    assert found["rms_error"] == pytest.approx(0, abs=1e-6) and found["cosine_one_differs"] == pytest.approx(0.5)
    assert "cosine_same" not in found and "auc" not in found
