"""The frames of clips: the indices of the published protocol."""

import numpy as np
import pytest

from swin_jax.data.video import frame_indices

# Published worked examples: mmaction's test sampling, 32 frames, stride 2.
DENSE_STARTS = {
    300: ([29, 88, 148, 207], 118),
    250: ([23, 70, 116, 163], 93),
    100: ([4, 13, 23, 32], 18),
    64: ([0, 0, 0, 0], 0),
    63: ([0, 0, 0, 0], 0),
    40: ([0, 0, 0, 0], 0),
}
UNIFORM = {
    32: [*range(16), *range(16, 31)],
    48: [0, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20, 21, 23, 24, 25, 27, 28, 30, 31, 33, 34, 36, 37, 39, 40, 42]
    + [43, 45, 46],
    20: [
        0,
        1,
        1,
        2,
        2,
        3,
        4,
        4,
        5,
        5,
        6,
        7,
        7,
        8,
        8,
        9,
        10,
        10,
        11,
        11,
        12,
        12,
        13,
        14,
        14,
        15,
        15,
        16,
        17,
        17,
        18,
        18,
    ],
}
UNIFORM[32].insert(16, 16)  # 0, 1, ..., 15, 16, 16, 17, ..., 30


@pytest.mark.parametrize("num_frames", DENSE_STARTS)
def test_dense_test_indices_are_the_published_ones(num_frames):
    four, one = DENSE_STARTS[num_frames]
    for starts, clips in ((four, 4), ([one], 1)):
        expected = (np.array(starts)[:, None] + 2 * np.arange(32)) % num_frames
        np.testing.assert_array_equal(frame_indices.dense_test_indices(num_frames, clips=clips), expected)


def test_a_short_video_starts_again():
    np.testing.assert_array_equal(frame_indices.dense_test_indices(40)[0], [*range(0, 40, 2), *range(0, 24, 2)])
    np.testing.assert_array_equal(frame_indices.dense_test_indices(1), np.zeros((1, 32)))
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(frame_indices.dense_train_indices(40, rng)[0], [*range(0, 40, 2), *range(0, 24, 2)])


@pytest.mark.parametrize("num_frames", UNIFORM)
def test_uniform_test_indices_are_the_published_ones(num_frames):
    np.testing.assert_array_equal(frame_indices.uniform_test_indices(num_frames), [UNIFORM[num_frames]])


def test_uniform_indices_of_one_frame():
    assert not frame_indices.uniform_test_indices(1).any()
    assert not frame_indices.uniform_train_indices(1, np.random.default_rng(0)).any()


def test_dense_training_draws_every_start_equally():
    rng = np.random.default_rng(0)
    clips = np.stack([frame_indices.dense_train_indices(70, rng)[0] for _ in range(2000)])
    assert (np.diff(clips, axis=1) == 2).all()
    starts, counts = np.unique(clips[:, 0], return_counts=True)
    assert starts.tolist() == list(range(7))  # the span of 64 counts the last stride: 70 - 64 is the last start
    assert counts.min() > 0.8 * 2000 / 7


def test_dense_training_with_several_clips():
    rng = np.random.default_rng(0)
    starts = np.stack([frame_indices.dense_train_indices(300, rng, clips=3)[:, 0] for _ in range(500)])
    part = (300 - 63) // 3
    assert (starts // part == [0, 1, 2]).all() and starts.min() == 0 and starts.max() == 3 * part - 1
    crowded = np.stack([frame_indices.dense_train_indices(66, rng, clips=8)[:, 0] for _ in range(100)])
    assert (np.diff(crowded, axis=1) >= 0).all() and set(crowded.ravel()) == {0, 1, 2}
    spread = frame_indices.dense_train_indices(7, rng, length=2, stride=1, clips=8)[:, 0]
    np.testing.assert_array_equal(spread, np.round(np.arange(8) * 6 / 8))
    assert not frame_indices.dense_train_indices(20, rng, clips=3)[:, 0].any()


def test_uniform_training_stays_in_its_segments_and_reaches_both_ends():
    rng = np.random.default_rng(0)
    drawn = np.stack([frame_indices.uniform_train_indices(97, rng)[0] for _ in range(400)])
    low, high = 3 * np.arange(32), 3 * np.arange(1, 33)
    np.testing.assert_array_equal(drawn.min(0), low)
    np.testing.assert_array_equal(drawn.max(0), high)
