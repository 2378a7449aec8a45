"""Clips: the sizes and crops of the published protocol, and batches that survive unreadable videos."""

import pickle

import cv2
import numpy as np
import pytest

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data.pipeline import EvalData, TrainData
from swin_jax.data.video import frame_indices
from swin_jax.data.video import transforms as video
from swin_jax.data.video.decode import Reader
from swin_jax.data.video.sources import video_folder
from tests.unit.data.video import video_files

TRANSFORMS = (video.video_train_transform, video.video_eval_transform, video.video_views_transform)


class Frames:
    """A video in memory."""

    def __init__(self, frames):
        self.frames = frames

    def __len__(self):
        return len(self.frames)

    def get(self, indices):
        return self.frames[indices]


class Broken(Frames):
    def get(self, indices):
        raise UnreadableError("damaged")


def numbered(count, height=20, width=30):
    """A video whose every pixel is the number of its frame."""
    return Frames(np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, height, width, 3)))


def noise(count=12, height=48, width=70, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "height, width, short_side, expected",
    [
        (240, 320, 256, (256, 341)),
        (320, 240, 256, (341, 256)),
        (256, 340, 224, (224, 298)),
        (90, 91, 60, (60, 61)),
        (91, 90, 60, (61, 60)),
    ],
)
def test_the_short_side_is_resized_as_opencv_does(height, width, short_side, expected):
    frame = noise(1, height, width)[0]
    resized = video.resize_short_side(frame, short_side)
    assert resized.shape == (*expected, 3)
    np.testing.assert_array_equal(resized, cv2.resize(frame, expected[::-1], interpolation=cv2.INTER_LINEAR))


def test_resizing_is_half_pixel_bilinear_without_antialiasing():
    frame = cv2.GaussianBlur(noise(1, 40, 60)[0], (0, 0), 2)
    resized = video.resize(frame, 17, 23)
    rows, columns = (np.arange(17) + 0.5) * 40 / 17 - 0.5, (np.arange(23) + 0.5) * 60 / 23 - 0.5
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (rows - top)[:, None, None], (columns - left)[None, :, None]
    at = lambda y, x: frame[np.ix_(top + y, left + x)].astype(float)  # noqa: E731
    expected = (at(0, 0) * (1 - right) + at(0, 1) * right) * (1 - down)
    expected += (at(1, 0) * (1 - right) + at(1, 1) * right) * down
    assert np.abs(resized - np.round(expected)).max() <= 1


@pytest.mark.parametrize(
    "long_side, size, crops, expected",
    [
        (298, 224, 3, [0, 74, 37]),
        (299, 224, 3, [0, 74, 37]),  # the right crop is a pixel short of the edge
        (224, 224, 3, [0, 0, 0]),
        (341, 224, 1, [58]),
        (300, 224, 5, [0, 19, 38, 57, 76]),
    ],
)
def test_crop_offsets(long_side, size, crops, expected):
    assert video.crop_offsets(long_side, size, crops) == expected


def test_random_crop_boxes_have_the_asked_area_and_aspect():
    rng = np.random.default_rng(0)
    boxes = np.array([video.random_crop_box(256, 340, (0.08, 1.0), (3 / 4, 4 / 3), rng) for _ in range(2000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 256).all() and (left + width <= 340).all()
    share, aspect = height * width / (256 * 340), width / height
    assert share.min() > 0.078 and share.max() > 0.85 and 0.4 < share.mean() < 0.55
    assert aspect.min() > 0.72 and aspect.max() < 1.36
    assert abs(np.log(aspect[share < 0.3]).mean()) < 0.02  # not all of the larger ones fit
    assert (top + height == 256).any() and (left + width == 340).any() and (top == 0).any()


def test_a_box_that_never_fits_is_the_centered_square():
    rng = np.random.default_rng(0)
    assert video.random_crop_box(20, 100, (0.9, 1.0), (3 / 4, 4 / 3), rng) == (0, 40, 20, 20)


def test_the_training_crop_and_flip_are_shared_by_all_frames():
    """A video of equal frames stays one, whatever is drawn."""
    frame = noise(1)[0]
    still = Frames(np.stack([frame] * 12))
    transform = video.video_train_transform(size=16, length=4, stride=2, short_side=32)
    clips = [transform({"video": still, "label": 1}, np.random.default_rng(seed))["video"] for seed in range(20)]
    for clip in clips:
        assert clip.shape == (4, 16, 16, 3) and clip.dtype == np.uint8 and clip.flags.c_contiguous
        assert (clip == clip[:1]).all()
    assert len({clip.tobytes() for clip in clips}) == 20


def test_training_without_chance_is_two_resizes():
    frames = noise()
    transform = video.video_train_transform(16, 3, 4, short_side=32, scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=1.0)
    clip = transform({"video": Frames(frames)}, np.random.default_rng(0))["video"]
    for frame, result in zip(frames[[0, 4, 8]], clip):  # 12 frames are the span: only start 0
        resized = cv2.resize(frame, (47, 32))
        square = np.ascontiguousarray(resized[:, 7:39])  # a square of the full area never fits: the centered one
        np.testing.assert_array_equal(result, cv2.resize(square, (16, 16))[:, ::-1])


def test_the_flip_has_its_probability():
    ramp = Frames(np.broadcast_to(np.arange(48, dtype=np.uint8)[:, None], (4, 48, 48, 3)))

    def flipped(hflip):
        transform = video.video_train_transform(8, 2, 1, short_side=48, hflip=hflip)
        clips = (transform({"video": ramp}, np.random.default_rng(seed))["video"] for seed in range(200))
        return sum(clip[0, 0, 0, 0] > clip[0, 0, -1, 0] for clip in clips)

    assert flipped(0.0) == 0 and flipped(1.0) == 200 and 70 < flipped(0.5) < 130


def test_the_evaluation_view_is_the_middle_clip_and_the_center():
    frames = noise(20)
    example = video.video_eval_transform(size=24, length=4, stride=2, short_side=32)({"video": Frames(frames)})
    indices = frame_indices.dense_test_indices(20, 4, 2)[0]
    expected = [cv2.resize(frames[index], (47, 32))[4:28, 11:35] for index in indices]
    np.testing.assert_array_equal(example["video"], expected)


def test_views_come_crop_by_crop_and_clip_by_clip():
    clips = video.video_views_transform(clips=4, crops=3, size=20, length=8, stride=2)({"video": numbered(60)})["video"]
    assert clips.shape == (12, 8, 20, 20, 3)
    expected = frame_indices.dense_test_indices(60, 8, 2, 4)
    np.testing.assert_array_equal(clips[:, :, 0, 0, 0], np.tile(expected, (3, 1)))


@pytest.mark.parametrize("tall", [False, True])
def test_views_are_the_three_crops_along_the_long_side(tall):
    frames = noise(8, 20, 33)
    frames = np.ascontiguousarray(frames.transpose(0, 2, 1, 3)) if tall else frames
    transform = video.video_views_transform(clips=1, crops=3, size=20, length=4, sampling="uniform")
    views = transform({"video": Frames(frames)})["video"]
    chosen = frames[frame_indices.uniform_test_indices(8, 4)[0]]
    chosen = chosen.transpose(0, 2, 1, 3) if tall else chosen
    for view, left in zip(views.transpose(0, 1, 3, 2, 4) if tall else views, (0, 12, 6)):
        np.testing.assert_array_equal(view, chosen[:, :, left : left + 20])


def test_views_of_a_larger_short_side_are_centered_across_it():
    frames = noise(4, 24, 40)
    transform = video.video_views_transform(clips=1, crops=3, size=20, length=2, stride=1, short_side=24)
    views = transform({"video": Frames(frames)})["video"]
    np.testing.assert_array_equal(views[:, 0], [frames[1, 2:22, left : left + 20] for left in (0, 20, 10)])


def test_one_view_equals_the_evaluation_view():
    example = {"video": Frames(noise(20)), "label": 3}
    one = video.video_views_transform(1, 1, 24, 4, 2, short_side=32)(example)
    alone = video.video_eval_transform(24, 4, 2, short_side=32)(example)
    np.testing.assert_array_equal(one["video"][0], alone["video"])
    assert one["label"] == 3


def test_randaugment_changes_clips_and_is_the_same_for_all_frames():
    still = {"video": Frames(np.stack([noise(1)[0]] * 6))}
    plain = video.video_train_transform(16, 3, 2, short_side=32, hflip=0.0)
    augmented = video.video_train_transform(16, 3, 2, short_side=32, hflip=0.0, randaugment_ops=4)
    changed = 0
    for seed in range(10):
        clip = augmented(still, np.random.default_rng(seed))["video"]
        assert (clip == clip[:1]).all()
        changed += not np.array_equal(clip, plain(still, np.random.default_rng(seed))["video"])
    assert changed >= 9


def test_files_are_closed_and_frames_are_those_of_the_file(tmp_path):
    path = video_files.make(tmp_path / "a.mp4", 20)
    frames = video_files.decode(path)
    reader = Reader(path)
    transform = video.video_views_transform(2, 3, 32, 4, 2)
    views = transform({"video": reader})["video"]
    assert reader._container is None
    np.testing.assert_array_equal(views, transform({"video": Frames(frames)})["video"])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: video.video_train_transform(sampling="dens"), "dense, uniform"),
        (lambda: video.video_views_transform(clips=4, sampling="uniform"), "clips must be 1"),
        (lambda: video.video_views_transform(clips=0), "clips=0: it must be a whole number, at least 1"),
        (lambda: video.video_views_transform(crops=0), "crops=0: it must be a whole number, at least 1"),
        (lambda: video.video_train_transform(scale=(0.5, 0.1)), "scale=.* the smaller one first"),
        (lambda: video.video_train_transform(ratio=(0.0, 1.0)), "ratio=.* the smaller one first"),
        (lambda: video.video_train_transform(short_side=0), "short_side=0: it must be a whole number, at least 1"),
        (lambda: video.video_views_transform(short_side=200), "at least the size of a view, 224"),
        (lambda: video.video_eval_transform(size=384), "at least the size of a view, 384"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("name", ["size", "length", "stride"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "4", True])
@pytest.mark.parametrize("make", TRANSFORMS)
def test_sizes_are_whole_numbers_from_1_on(make, name, value):
    with pytest.raises(UserError, match=f"^{name}={value!r}: it must be a whole number, at least 1"):
        make(**{name: value})
    make(**{name: np.int64(2)})


@pytest.mark.parametrize("make", TRANSFORMS[1:])
def test_the_text_of_a_transform_is_the_same_in_another_process(make):
    assert "0x" not in str(make().keywords) != str(make(stride=3).keywords)  # an address


def test_transforms_pickle():
    video_at_hand = {"video": Frames(noise())}
    transform = video.video_train_transform(16, 3, 2, short_side=32, randaugment_ops=4)
    copy = pickle.loads(pickle.dumps(transform))
    first, second = (t(video_at_hand, np.random.default_rng(1))["video"] for t in (transform, copy))
    np.testing.assert_array_equal(first, second)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Six good videos, and one of each kind that is broken."""
    folder = tmp_path_factory.mktemp("mixed")
    for name in ("a", "b"):
        (folder / name).mkdir()
        for index in range(3):
            video_files.make(folder / name / f"good_{index}.mp4", 20 + index, seed=index)
    video_files.make(folder / "a" / "short.mp4", 3)
    video_files.cut(folder / "a" / "good_0.mp4", folder / "a" / "cut.mp4")
    video_files.make_audio(folder / "b" / "audio.mp4")
    video_files.make_without_frames(folder / "b" / "none.mp4")
    video_files.damage(folder / "b" / "good_0.mp4", folder / "b" / "damaged.mp4", share=0.3)
    video_files.make(folder / "b" / "uneven.mp4", 4, times=[0, 20, 100, 110])
    return folder


def test_broken_videos_are_replaced_counted_and_named(mixed, caplog):
    source = video_folder(str(mixed))
    transform = video.video_train_transform(16, 8, 2, short_side=32)
    data = TrainData(source, transform, batch_size=len(source), num_threads=0)
    batches = data.batches(0, range(len(source)))
    batch = next(batches)
    batches.close()
    assert batch["video"].shape == (12, 8, 16, 16, 3) and batch["video"].dtype == np.uint8
    assert batch["bad"].sum() == 5
    for name in ("cut.mp4", "audio.mp4", "none.mp4", "damaged.mp4", "uneven.mp4"):
        assert f"{name} (UnreadableError: " in caplog.text
    assert "good" not in caplog.text and "short.mp4" not in caplog.text


def test_an_evaluation_names_the_broken_video(mixed):
    data = EvalData(video_folder(str(mixed)), video.video_eval_transform(16, 8, 2, short_side=32), 4, num_threads=0)
    with pytest.raises(UserError, match="cut.mp4 cannot be read"):
        list(data.batches(4, range(4)))


def test_workers_read_the_same_batches(mixed):
    source = video_folder(str(mixed))
    transform = video.video_train_transform(16, 4, 2, short_side=32)

    def first_batch(num_workers):
        batches = TrainData(source, transform, 4, seed=3, num_workers=num_workers, num_threads=0).batches(0, range(4))
        batch = next(batches)
        batches.close()
        return batch

    alone, workers = first_batch(0), first_batch(1)
    np.testing.assert_array_equal(alone["video"], workers["video"])
    np.testing.assert_array_equal(alone["label"], workers["label"])


@pytest.mark.parametrize("size", [(100_000, 100_000), (8, 10**8)])
def test_no_frame_is_made_beyond_the_limit(size, monkeypatch):
    monkeypatch.setattr(cv2, "resize", lambda *args, **kwargs: pytest.fail("was resized"))
    with pytest.raises(UnreadableError, match="would be resized to .* more than the limit"):
        video.resize(np.zeros((40, 50, 3), np.uint8), *size)
