"""Animated emoji as videos: what the augmentation draws and keeps, and forward against reversed playback."""

import pickle

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.data.emoji import actions as emoji_actions
from swin_jax.data.emoji import animation
from swin_jax.data.pipeline import EvalData, TrainData

STILL = dict(speed=(1, 1), scale=(1, 1), stretch=0.0, overhang=0.0)  # the place is then fixed


def numbered(length=12, size=16, alpha=255):
    """An animation whose frame t has the gray value 10 * t everywhere."""
    pixels = np.full((length, size, size, 4), alpha, np.uint8)
    pixels[..., :3] = 10 * np.arange(length)[:, None, None, None]
    return {"video": animation.Frames(pixels), "label": 3, "record": 5, "who": "man"}


def times(video):
    """Frame numbers of a clip (..., T, H, W, 3) of `numbered`."""
    assert (video == video[..., :1, :1, :1]).all()
    return video[..., 0, 0, 0] // 10


def disc(size=32):
    """A still red disc, off the center, over nothing."""
    y, x = np.mgrid[:size, :size]
    pixels = np.zeros((4, size, size, 4), np.uint8)
    pixels[:, (y - 12) ** 2 + (x - 10) ** 2 < 36] = (255, 0, 0, 255)
    return {"video": animation.Frames(pixels), "label": 0, "record": 0}


def train(example, seed=0, **options):
    return animation.action_train_transform(**options)(example, np.random.default_rng(seed))["video"]


def test_frames_go_round_at_the_speed_that_is_drawn():
    starts = set()
    for seed in range(40):
        found = times(train(numbered(), seed, size=16, num_frames=6, frame_interval=3, **STILL))
        starts.add(found[0])
        np.testing.assert_array_equal(np.diff(found.astype(int)) % 12, 3)
    assert starts == set(range(12))
    steps = [
        np.diff(
            times(
                train(numbered(), s, **{**STILL, "size": 16, "num_frames": 2, "frame_interval": 4, "speed": (0.5, 1.5)})
            ).astype(int)
        )[0]
        % 12
        for s in range(60)
    ]
    assert set(steps) == {2, 3, 4, 5, 6}


def test_a_single_frame_is_repeated():
    found = [times(train(numbered(), seed, size=16, num_frames=5, single_frame=True, **STILL)) for seed in range(40)]
    assert all((clip == clip[0]).all() for clip in found) and {clip[0] for clip in found} == set(range(12))


def test_all_frames_of_a_clip_share_the_draws():
    for seed in range(20):
        video = train(disc(), seed, size=24, num_frames=4)
        assert video.shape == (4, 24, 24, 3) and video.dtype == np.uint8 and video.flags.c_contiguous
        assert (video == video[0]).all()
    assert not (train(disc(), 0, size=24) == train(disc(), 1, size=24)).all()


def test_transparency_shows_the_background_and_hides_its_own_color():
    for seed in range(10):
        clear = numbered(alpha=0)
        video = train(clear, seed, size=20, num_frames=3)
        clear["video"].pixels[..., :3] = 77
        np.testing.assert_array_equal(video, train(clear, seed, size=20, num_frames=3))
    half = numbered(length=1, alpha=128)
    half["video"].pixels[..., :3] = 200
    opaque, empty = numbered(length=1), numbered(length=1, alpha=0)
    opaque["video"].pixels[..., :3] = 200
    mixed, over, under = (train(e, 3, size=16, num_frames=1, **STILL)[0] for e in (half, opaque, empty))
    np.testing.assert_allclose(mixed, (128 * over.astype(float) + 127 * under.astype(float)) / 255, atol=0.5)


def test_backgrounds_are_of_several_kinds():
    rng = np.random.default_rng(0)
    found = np.stack([animation.random_background(24, rng) for _ in range(120)])
    assert found.shape == (120, 24, 24, 3) and found.dtype == np.uint8
    plain = (found == found[:, :1, :1]).all((1, 2, 3))
    slopes = np.abs(np.diff(found.astype(int), 2, axis=2)).max((1, 2, 3)) <= 1  # linear but for rounding
    for share in (plain.mean(), (slopes & ~plain).mean(), (~slopes & ~plain).mean()):
        assert 0.2 < share < 0.5
    assert found[plain][:, 0, 0].std(0).min() > 40


def test_scale_and_place_stay_in_their_ranges():
    square = {"video": animation.Frames(np.full((1, 20, 20, 4), 255, np.uint8)), "label": 0, "record": 0}
    extents, corners = [], []
    for seed in range(200):
        options = dict(size=64, num_frames=1, scale=(0.5, 0.75), stretch=0.0, overhang=0.0)
        frame = train(square, seed, **options)[0]
        empty = train({**square, "video": animation.Frames(square["video"].pixels * 0)}, seed, **options)[0]
        rows, columns = np.nonzero((frame != empty).any(-1))
        if (empty == 255).any():  # a white background hides the square's edge
            continue
        assert np.ptp(rows) == np.ptp(columns)
        extents.append(np.ptp(rows) + 1)
        corners.append((rows.min(), columns.min()))
    assert min(extents) in (32, 33) and max(extents) in (47, 48)
    assert np.min(corners, 0).max() <= 1 and np.max(np.array(corners) + np.array(extents)[:, None], 0).min() >= 63
    sizes = [train(square, s, size=64, num_frames=1, scale=(1, 1), stretch=0.0, overhang=0.25) for s in range(80)]
    shown = [(clip[0] == 255).all(-1) for clip in sizes]
    assert 0.74**2 < np.min([part.mean() for part in shown]) < 0.65


def test_mirror_images_are_for_training_only():
    choice = dict(size=32, num_frames=2)
    for seed in range(5):
        plain, mirrored = train(disc(), seed, hflip=0, **choice), train(disc(), seed, hflip=1, **choice)
        np.testing.assert_array_equal(plain, mirrored[:, :, ::-1])
        assert (plain != mirrored).any()


def test_new_colors_are_for_the_figure_and_the_same_in_all_frames():
    square = np.zeros((4, 16, 16, 4), np.uint8)
    square[:, 4:12, 4:12] = 90, 160, 230, 255
    colors = {0.0: set(), 1.0: set()}
    for recolor, found in colors.items():
        draw = animation.action_train_transform(32, 4, hflip=0.0, recolor=recolor, **STILL)
        for seed in range(20):
            video = draw({"video": animation.Frames(square), "label": 3}, np.random.default_rng(seed))["video"]
            assert (video[:, 16, 16] == video[0, 16, 16]).all() and (video == video[:1]).all()
            found.add(tuple(video[0, 16, 16]))
    assert colors[0.0] == {(90, 160, 230)} and len(colors[1.0]) == 20


def test_the_test_side_depends_on_the_record_and_the_seed_only():
    transform = animation.action_eval_transform(size=24, num_frames=4)
    first = transform(disc())
    assert set(first) == {"video", "label"} and first["video"].shape == (4, 24, 24, 3)
    np.testing.assert_array_equal(first["video"], transform(disc())["video"])
    assert (first["video"] != transform({**disc(), "record": 1})["video"]).any()
    other = animation.action_eval_transform(size=24, num_frames=4, seed=1)
    assert (first["video"] != other(disc())["video"]).any()
    np.testing.assert_array_equal(  # the draws are those of training without mirror images
        first["video"],
        animation.action_train_transform(size=24, num_frames=4, hflip=0)(disc(), np.random.default_rng((0, 0)))[
            "video"
        ],
    )


def test_views_differ_in_their_start_only():
    choice = dict(size=16, num_frames=3, frame_interval=2, **STILL)
    one = animation.action_eval_transform(**choice)(numbered())["video"]
    views = animation.action_eval_transform(**choice, views=4)(numbered())["video"]
    assert views.shape == (4, 3, 16, 16, 3)
    np.testing.assert_array_equal(views[0], one)
    found = times(views).astype(int)
    np.testing.assert_array_equal((found - found[0]) % 12, [[0] * 3, [3] * 3, [6] * 3, [9] * 3])
    still = animation.action_eval_transform(size=24, num_frames=2, views=3)(disc())["video"]
    assert (still == still[0]).all()
    assert animation.action_eval_transform(views=1)(numbered())["video"].shape == (1, 16, 64, 64, 3)


def test_videos_without_transparency_and_impossible_arguments():
    frames = np.full((3, 8, 8, 3), 90, np.uint8)
    video = train({**disc(), "video": animation.Frames(frames)}, size=8, num_frames=2, **STILL)
    assert (video == 90).all()
    for options in ({"size": 0}, {"num_frames": 0}, {"speed": (2, 1)}, {"scale": (0, 1)}, {"overhang": 1.0}):
        with pytest.raises(UserError):
            animation.action_train_transform(**options)
    with pytest.raises(UserError, match="views"):
        animation.action_eval_transform(views=-1)


def cycle(order, size=20):
    """An animation of 24 frames: a block at one of 12 places on a circle, at the places of `order`."""
    pixels = np.zeros((len(order), size, size, 4), np.uint8)
    for frame, place in zip(pixels, order):
        y, x = (np.array([np.sin(place * np.pi / 6), np.cos(place * np.pi / 6)]) * 7 + 9).astype(int)
        frame[y : y + 3, x : x + 3] = 255
    return pixels


def test_what_looks_the_same_both_ways_is_recognized():
    swing = cycle([*range(12), *range(12)[::-1]])
    motion, distance = emoji_actions.reversal(swing)
    assert motion > 1 and distance == 0
    assert emoji_actions.reversal(np.roll(swing, 5, axis=0))[1] == 0  # wherever it starts
    motion, distance = emoji_actions.reversal(cycle([*range(12), *range(12)]))
    assert distance > 0.5 * motion
    noise = np.random.default_rng(0).integers(0, 256, (*swing.shape[:3], 3)).astype(np.uint8)
    hidden = np.concatenate([np.where(swing[..., 3:] == 0, noise, swing[..., :3]), swing[..., 3:]], -1)
    assert emoji_actions.reversal(hidden, size=20)[1] == 0  # colors that transparency hides do not count
    assert emoji_actions.reversal(swing[:1]) == (0.0, 0.0)


class Clips:
    """Two clips of 'swing', which is symmetric, and two of 'turn'."""

    class_names = ("swing", "turn")

    def __init__(self):
        self.pixels = [cycle([*range(12), *range(12)[::-1]]), cycle([*range(12)] * 2)]

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"video": animation.Frames(self.pixels[index % 2]), "label": index % 2, "record": index}


def test_the_rule_is_printed():
    measured = emoji_actions.measure_reversals(Clips())
    assert [found.action for found in measured] == ["swing", "turn"]
    table = emoji_actions.reversal_table(measured, min_ratio=0.45, min_distance=0.5).splitlines()
    assert "0.45 of its motion and by 0.5 of 255" in table[0]
    assert table[1].split()[0] == "turn" and table[1].endswith(" kept")
    assert table[2].split()[0] == "swing" and table[2].endswith(" excluded")
    assert not measured[1].is_visible(0.45, 200) and not measured[0].is_visible(0.45, 0)


def test_playback_has_every_clip_both_ways():
    source = emoji_actions.fake_emoji_actions(6)
    playback = emoji_actions.Playback(source, (1, 4))
    assert len(playback) == 4 and playback.class_names == ("forward", "reversed")
    for index, clip, label in ((0, 1, 0), (1, 1, 1), (2, 4, 0), (3, 4, 1)):
        example = playback[index]
        pixels = source[clip]["video"].pixels
        np.testing.assert_array_equal(example["video"].pixels, pixels[::-1] if label else pixels)
        assert (example["label"], example["record"]) == (label, clip)
    assert playback.record_name(3) == "fake action 4, reversed"


def test_fakes_run_through_the_pipeline():
    source = emoji_actions.fake_emoji_actions(8, num_frames=6)
    data = TrainData(source, animation.action_train_transform(size=16, num_frames=3), batch_size=4, num_threads=0)
    batches = data.batches(0, range(4))
    batch = next(batches)
    batches.close()
    assert set(batch) == {"video", "label", "bad"} and batch["video"].shape == (4, 3, 16, 16, 3)
    playback = emoji_actions.fake_emoji_playback(num_examples=3, num_frames=6)
    data = EvalData(playback, animation.action_eval_transform(size=16, num_frames=3, views=2), 6, num_threads=0)
    batches = data.batches(6, range(6))
    batch = next(batches)
    batches.close()
    assert batch["video"].shape == (6, 2, 3, 16, 16, 3) and batch["label"].tolist() == [0, 1] * 3
    assert emoji_actions.reversal(source[0]["video"].pixels)[1] > 1  # its direction can be seen


@pytest.fixture
def data_dir(tmp_path):
    """A data set of two actions, 'blink' (which is symmetric) and 'turn', by a man and a woman; one frame is broken."""
    import io

    import tensorflow_datasets as tfds
    from PIL import Image

    from swin_jax.data.builders import write

    def encoded(pixels):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        return file.getvalue()

    def example(action, who, broken=False):
        frames = [encoded(frame) for frame in Clips().pixels[action == "turn"]]
        return {
            "video": frames[:3] + [b"no picture"] if broken else frames,
            "label": action,
            "who": who,
            "tone": "dark",
        }

    features = {
        "video": tfds.features.Sequence(tfds.features.Image(shape=(20, 20, 4), encoding_format="png")),
        "label": tfds.features.ClassLabel(names=["blink", "turn"]),
        "who": tfds.features.ClassLabel(names=["man", "woman"]),
        "tone": tfds.features.ClassLabel(names=["none", "dark"]),
    }
    splits = {
        "man": write.Split([example("turn", "man"), example("blink", "man")]),
        "woman": write.Split([example("blink", "woman"), example("turn", "woman"), example("turn", "woman", True)]),
    }
    write.write(str(tmp_path / "emoji_actions"), "anim_3", "1.0.0", features, splits)
    return str(tmp_path)


def test_the_source_decodes_once_and_pickles_small(data_dir):
    source = emoji_actions.emoji_actions(data_dir, ("woman", "man"))
    assert len(source) == 5 and source.class_names == ("blink", "turn") and source.labels().tolist() == [0, 1, 1, 1, 0]
    example = source[1]
    np.testing.assert_array_equal(example["video"].pixels, Clips().pixels[1])
    assert {key: example[key] for key in ("label", "record", "who", "tone")} == {
        "label": 1,
        "record": 1,
        "who": "woman",
        "tone": "dark",
    }
    assert source[1]["video"] is example["video"]
    copy = pickle.loads(pickle.dumps(source))
    assert len(pickle.dumps(source)) < 1000 and copy[4]["who"] == "man"
    assert source.record_name(3) == "emoji man turn, skin tone dark"


def test_a_damaged_clip_is_replaced_in_training_and_named(data_dir, caplog):
    source = emoji_actions.emoji_actions(data_dir, ("woman",))
    with pytest.raises(Exception, match="frame 3 is damaged"):
        source[2]
    data = TrainData(source, animation.action_train_transform(size=16, num_frames=2), batch_size=3, num_threads=0)
    batches = data.batches(0, range(3))
    batch = next(batches)
    batches.close()
    assert batch["bad"].sum() == 1 and "emoji woman turn, skin tone dark" in caplog.text


def test_playback_keeps_the_same_actions_for_everybody(data_dir):
    rule = dict(measured_on=("man",), min_distance=0.5)
    for who, kept in ((("man",), (0,)), (("woman",), (1, 2))):
        assert emoji_actions.emoji_playback(data_dir, who, **rule).indices == kept
    with pytest.raises(UserError, match="no action differs from its reverse"):
        emoji_actions.emoji_playback(data_dir, ("man",), measured_on=("man",), min_distance=200)


def test_unknown_persons_and_missing_sets(data_dir):
    with pytest.raises(UserError, match="no person child; they have man, woman"):
        emoji_actions.emoji_actions(data_dir, ("child",))
    with pytest.raises(UserError, match="no data set emoji_actions/all"):
        emoji_actions.emoji_actions(data_dir, config="all")
