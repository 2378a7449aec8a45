"""Overlap analysis: nearest neighbors against brute force, statistics against scipy."""

import numpy as np
import pytest
from scipy import stats

from swin_jax.core.errors import UserError
from swin_jax.evals.analysis import overlap


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("query_chunk, reference_chunk", [(1, 1), (7, 10), (31, 45), (100, 1000)])
def test_nearest_is_that_of_brute_force(query_chunk, reference_chunk):
    rng = np.random.default_rng(0)
    queries, reference = unit(rng.normal(size=(31, 5))), unit(rng.normal(size=(45, 5)))
    reference[20:25] = queries[3]  # ties: the first counts
    similarity, index = overlap.nearest(queries, reference, query_chunk, reference_chunk)
    scores = queries @ reference.T
    np.testing.assert_array_equal(index, scores.argmax(-1))
    np.testing.assert_allclose(similarity, scores.max(-1), atol=1e-6)
    assert index[3] == 20
    negative, _ = overlap.nearest(queries[:1], -queries[[0, 0, 0]], 4, 2)
    assert negative[0] == pytest.approx(-1)  # what fills up the last chunk never wins


def test_features_that_cannot_be_compared_are_told():
    for reference in (np.ones((3, 5)), np.ones((0, 4))):
        with pytest.raises(UserError, match="compared"):
            overlap.nearest(np.ones((2, 4)), reference)


def test_difference_hash_finds_changed_copies():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (40, 6, 6, 3))
    images = coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    copies = np.clip(images[::-1, ::2, ::2] * 0.8 + 20 + rng.normal(0, 4, (40, 24, 24, 3)), 0, 255).astype(np.uint8)
    hashes = overlap.difference_hash(images)
    assert hashes.shape == (40, 64) and hashes.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(hashes, axis=-1), 1, rtol=1e-6)
    similarity, index = overlap.nearest(overlap.difference_hash(copies), hashes)
    np.testing.assert_array_equal(index, np.arange(40)[::-1])
    others = np.sort(hashes @ hashes.T, axis=-1)[:, -2]
    assert np.median(similarity) > others.max()
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, None, :, None], (1, 30, 64, 3))
    assert (overlap.difference_hash(ramp) == 1 / 8).all()
    assert (overlap.difference_hash(ramp[:, :, ::-1]) == -1 / 8).all()
    with pytest.raises(UserError, match="8x8"):
        overlap.difference_hash(images[:, :8, :8])


def test_exact_duplicates():
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    changed = images.copy()
    changed[2, 0, 0, 0] ^= 1
    np.testing.assert_array_equal(overlap.exact_duplicates(changed[::-1], images), [True, True, False, True, True])


def test_the_threshold_keeps_its_precision_and_finds_the_most():
    similarity = np.array([0.9, 0.8, 0.8, 0.7, 0.6, 0.5])
    duplicate = np.array([1, 1, 0, 1, 1, 0])
    assert overlap.choose_threshold(similarity, duplicate, 1.0) == 0.9
    assert overlap.choose_threshold(similarity, duplicate, 0.8) == 0.6
    assert overlap.choose_threshold(similarity, duplicate, 0.7) == 0.6
    assert overlap.choose_threshold(similarity[::-1], duplicate[::-1], 0.6) == 0.6
    with pytest.raises(UserError, match="0.99"):
        overlap.choose_threshold(similarity, 1 - duplicate)


@pytest.mark.parametrize("successes, trials", [(0, 7), (7, 7), (3, 7), (120, 1000), (1, 1), (0, 1), (49_000, 50_000)])
@pytest.mark.parametrize("confidence", [0.95, 0.995])
def test_interval_and_test_are_those_of_scipy(successes, trials, confidence):
    expected = stats.binomtest(successes, trials).proportion_ci(confidence, "exact")
    np.testing.assert_allclose(overlap.clopper_pearson(successes, trials, confidence), expected, rtol=1e-9, atol=1e-12)
    for probability in (0.1, 0.5, 0.98):
        expected = stats.binomtest(successes, trials, probability, alternative="greater").pvalue
        assert overlap.binomial_test(successes, trials, probability) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_an_interval_of_nothing_is_everything():
    assert overlap.clopper_pearson(0, 0) == (0, 1) and overlap.binomial_test(0, 0, 0.3) == 1


def example(effect, count=1000, seed=0):
    rng = np.random.default_rng(seed)
    similarity = rng.random(count)
    correct = rng.random(count) < np.where(similarity >= 0.9, 0.6 + effect, 0.6)
    return correct, similarity


def test_analysis_of_one_data_set():
    correct, similarity = example(0.3)
    found = overlap.analyze("birds", correct, similarity, 0.9)
    over = similarity >= 0.9
    assert (found.count, found.overlap) == (1000, over.sum())
    assert found.accuracy == pytest.approx(correct.mean())
    assert found.clean == pytest.approx(correct[~over].mean())
    assert found.overlapped == pytest.approx(correct[over].mean())
    assert found.effect == pytest.approx(found.overlap / 1000 * (found.overlapped - found.clean))
    assert found.interval[0] > found.clean and found.p_value < 1e-4
    nothing = overlap.analyze("none", correct, similarity, 2.0)
    assert nothing.overlap == 0 and nothing.effect == 0 and nothing.p_value == 1 and np.isnan(nothing.overlapped)
    everything = overlap.analyze("all", correct, similarity, 0.0)
    assert everything.overlap == 1000 and np.isnan(everything.clean) and np.isnan(everything.p_value)
    with pytest.raises(UserError, match="same examples"):
        overlap.analyze("x", correct, similarity[1:], 0.5)


def test_bonferroni_decides_over_all_data_sets():
    np.testing.assert_allclose(overlap.bonferroni([0.01, 0.04, 0.5]), [0.03, 0.12, 1.0])
    results = [overlap.analyze(f"set {i}", *example(0.4 if i == 3 else 0.0, seed=i), 0.9) for i in range(5)]
    lines = overlap.table(results).splitlines()
    assert len(lines) == 7 and len({line.count("|") for line in lines}) == 1
    assert [line.split("|")[-2].strip() for line in lines[2:]] == ["no", "no", "no", "yes", "no"]


def test_pictures(tmp_path):
    results = [overlap.analyze(f"set {i}", *example(0.1, seed=i), 0.9) for i in range(3)]
    overlap.plot(results + [overlap.analyze("none", *example(0), 2.0)], tmp_path / "overlap.png")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 8, 8, 3), np.uint8)
    similarity, index = rng.random(30), rng.integers(0, 30, 30)
    shown = overlap.sheet(images, images, similarity, index, tmp_path / "sheet.png", threshold=0.5, pairs=5)
    assert (np.diff(similarity[shown]) < 0).all()
    assert set(shown) == set(np.argsort(np.abs(similarity - 0.5))[:5])
    spread = overlap.sheet(images, images, similarity, index, tmp_path / "spread.png", pairs=7)
    assert spread[0] == similarity.argmax() and spread[-1] == similarity.argmin() and len(spread) == 7
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("overlap.png", "sheet.png", "spread.png"))
