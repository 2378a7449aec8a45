"""Decoding: frames and their number equal a full decode for every kind of file; broken files say what is wrong."""

import gc
import os
import pathlib
import pickle

import av
import numpy as np
import pytest

from swin_jax.core.errors import UnreadableError
from swin_jax.data.video import container as video_container
from swin_jax.data.video.decode import Reader
from tests.unit.data.video import video_files

COUNT = 50
UNEVEN = np.cumsum([0, *np.random.default_rng(0).choice([10, 20, 35, 60], COUNT - 1)]).tolist()
TURNS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}  # clockwise

FILES = {
    "plain.mp4": lambda path: video_files.make(path, COUNT),
    "long_gop.mp4": lambda path: video_files.make(path, COUNT, gop=250, b_adapt=0, bframes=3),
    "no_b_frames.mp4": lambda path: video_files.make(path, COUNT, bframes=0),
    "open_gop.mp4": lambda path: video_files.make(path, COUNT, open_gop=1, b_adapt=0, bframes=3),
    "open_gop.mkv": lambda path: video_files.make(path, COUNT, open_gop=1, b_adapt=0, bframes=3),
    "open_gop.ts": lambda path: video_files.make(path, COUNT, open_gop=1, b_adapt=0, bframes=3),
    "intra_refresh.mkv": lambda path: video_files.make(path, COUNT, intra_refresh=1),
    "uneven.mp4": lambda path: video_files.make(path, COUNT, times=UNEVEN),
    "uneven.mkv": lambda path: video_files.make(path, COUNT, times=UNEVEN),
    "odd.mp4": lambda path: video_files.make(path, COUNT, width=65, height=47, pixels="yuv444p"),
    "odd.avi": lambda path: video_files.make(path, COUNT, width=65, height=47, codec="mpeg4"),
    "stream.ts": lambda path: video_files.make(path, COUNT),
    "flash.flv": lambda path: video_files.make(path, COUNT),
    "fragments.mp4": lambda path: _remuxed(path, movflags="frag_keyframe+empty_moov"),
    "begins_later.mp4": lambda path: _begins_later(path),
    "cut_at_key.mkv": lambda path: _cut_at_key(path, 1),
    "cut_at_last_key.mkv": lambda path: _cut_at_key(path, -1),
    "cut_anywhere.mkv": lambda path: _remuxed(path, skip=17),
    "hevc.mp4": lambda path: video_files.make(path, COUNT, codec="libx265"),
    "vp8.webm": lambda path: video_files.make(path, COUNT, codec="libvpx"),
    "vp9.webm": lambda path: video_files.make(path, COUNT, codec="libvpx-vp9"),
    "mpeg2.mpg": lambda path: video_files.make(path, COUNT, codec="mpeg2video"),
    "motion_jpeg.avi": lambda path: video_files.make(path, COUNT, codec="mjpeg", pixels="yuvj420p"),
    "one_frame.mp4": lambda path: video_files.make(path, 1),
}
CUT = ("cut_at_key.mkv", "cut_at_last_key.mkv", "cut_anywhere.mkv")
COUNTED_BY_DECODING = (*CUT, "odd.avi", "vp8.webm", "mpeg2.mpg")
DECODED_IN_ORDER = (*COUNTED_BY_DECODING, "intra_refresh.mkv")  # whose key frames need more than themselves


def _remuxed(path, skip=0, movflags=None, **x264):
    original = video_files.make(path.with_name(f"original_{path.name}"), COUNT, **x264)
    return video_files.remux(original, path, skip, **({"movflags": movflags} if movflags else {}))


def _cut_at_key(path, which):
    """The frames that lead the first key frame cannot be decoded any more."""
    original = video_files.make(path.with_name(f"original_{path.name}"), COUNT, open_gop=1, b_adapt=0, bframes=3)
    with av.open(original) as container:
        keys = [number for number, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    return video_files.remux(original, path, keys[which])


def _begins_later(path):
    """The edit list hides 17 frames, so decoding must start with a hidden key frame."""
    return video_files.start_later(video_files.make(path.with_suffix(".whole.mp4"), COUNT), path, 17 * 512)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def plain(folder):
    return video_files.make(folder / "whole.mp4", COUNT)


def requests(count):
    """Frame numbers as training, testing and people ask for them."""
    rng = np.random.default_rng(count)
    yield from ([index] for index in range(count))
    yield from (np.sort(rng.choice(count, min(count, 6), replace=False)) for _ in range(8))
    yield from (np.arange(start, min(start + 30, count), 2) for start in range(0, count, 9))
    yield (start := np.arange(count) * 2) % count
    yield [count - 1, 0, count // 2, 0, count - 1]
    yield start // 2


@pytest.mark.parametrize("name", FILES)
def test_frames_equal_a_full_decode(name, folder, monkeypatch):
    path, in_order = FILES[name](folder / name), []
    decode = Reader._decode_in_order
    monkeypatch.setattr(Reader, "_decode_in_order", lambda *arguments: in_order.append(1) or decode(*arguments))
    expected = video_files.decode(path)
    with Reader(path) as reader:
        assert len(reader) == len(expected) == reader.count_by_decoding()
        for indices in requests(len(expected)):
            frames = reader.get(indices)
            assert frames.dtype == np.uint8
            np.testing.assert_array_equal(frames, expected[indices])
        assert (reader._index is None) == (name in COUNTED_BY_DECODING)
        assert bool(in_order) == (name in DECODED_IN_ORDER)


def test_files_are_what_they_are_named_for(folder):
    """Without this the test above could compare files without the trap."""

    def packets(name):
        with av.open(FILES[name](folder / f"look_{name}")) as container:
            return [(p.pts, p.is_keyframe, p.is_discard) for p in container.demux(video=0) if p.pts is not None]

    leading = 0
    for (pts, key, _), (following, _, _) in zip(packets("open_gop.mp4"), packets("open_gop.mp4")[1:]):
        leading += key and following < pts
    assert leading >= 3
    assert any(later < earlier for (earlier, *_), (later, *_) in zip(packets("plain.mp4"), packets("plain.mp4")[1:]))
    assert sum(discard for *_, discard in packets("begins_later.mp4")) == 5  # from the key frame before on
    assert sum(key for _, key, _ in packets("long_gop.mp4")) == 1


def test_only_needed_packets_are_decoded(plain, monkeypatch):
    """One frame near the end of a video with a key frame every 12 costs at most 12 packets, not 50."""
    stretches = []
    decode = Reader._decode_stretch
    monkeypatch.setattr(Reader, "_decode_in_order", lambda *_: pytest.fail("decoded from the start"))
    monkeypatch.setattr(
        Reader,
        "_decode_stretch",
        lambda self, first, last, *rest: stretches.append((first, last)) or decode(self, first, last, *rest),
    )
    reader = Reader(plain)
    reader.get([40])
    ((first, last),) = stretches
    assert first == 36 and last <= 43
    stretches.clear()
    reader.get([2, 40])
    assert len(stretches) == 2  # what lies between is not decoded
    stretches.clear()
    reader.get(np.arange(0, 50, 2))
    assert len(stretches) == 1


@pytest.mark.parametrize("clockwise", TURNS)
def test_rotation_is_applied(clockwise, plain, folder):
    path = video_files.rotate(plain, folder / f"turned_{clockwise}.mp4", TURNS[clockwise])
    frames = video_files.decode(plain)[[3, 20]]
    np.testing.assert_array_equal(Reader(path).get([3, 20]), np.rot90(frames, -clockwise // 90, axes=(1, 2)))
    np.testing.assert_array_equal(Reader(path, rotate=False).get([3, 20]), frames)


@pytest.mark.parametrize(
    "matrix, mirror",
    [
        ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
        ((1, 0, 0, -1), lambda x: x[::-1]),
        ((0, 1, 1, 0), lambda x: x.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda x: x[::-1, ::-1].transpose(1, 0, 2)),
    ],
)
def test_mirrors_are_applied(matrix, mirror, plain, folder):
    """As front cameras write them: FFmpeg tells all of these as turns, and the second one as none."""
    frames = Reader(plain).get([3, 20])
    path = video_files.rotate(plain, folder / "mirrored.mp4", matrix)
    np.testing.assert_array_equal(Reader(path).get([3, 20]), [mirror(frame) for frame in frames])
    np.testing.assert_array_equal(Reader(path, rotate=False).get([3, 20]), frames)


def test_each_frame_is_shown_by_its_own_matrix(folder):
    """A mirror and a turn, which FFmpeg tells as the same rotation, behind each other in one stream."""
    plain = video_files.make(folder / "plain.h264", 12)
    parts = [video_files.orient(plain, how) for how in ("flip=horizontal", "rotate=180")]
    (folder / "joined.h264").write_bytes(b"".join(parts))
    first = Reader(plain).get([0])[0]
    np.testing.assert_array_equal(Reader(folder / "joined.h264").get([0, 12]), [first[:, ::-1], first[::-1, ::-1]])


def test_rotation_equals_opencv(plain, folder):
    import cv2

    path = video_files.rotate(plain, folder / "turned.mp4", TURNS[90])
    read, frame = cv2.VideoCapture(path).read()
    assert read
    np.testing.assert_array_equal(Reader(path).get([0])[0], frame[..., ::-1])


def test_bytes_equal_a_file(plain):
    data = pathlib.Path(plain).read_bytes()
    np.testing.assert_array_equal(Reader(data).get([1, 30]), Reader(plain).get([1, 30]))
    assert len(Reader(data)) == COUNT


def test_a_fit_is_applied_to_each_frame(plain):
    halved = Reader(plain).get([5, 1, 5], lambda frame: frame[::2, ::2].astype(np.float32))
    np.testing.assert_array_equal(halved, video_files.decode(plain)[[5, 1, 5], ::2, ::2])


def test_variable_frame_rate_is_noticed(folder, plain):
    assert not Reader(plain).variable_frame_rate
    assert Reader(video_files.make(folder / "variable.mp4", COUNT, times=UNEVEN)).variable_frame_rate
    assert not video_container.is_variable(np.array([0, 33, 67, 100, 133]))  # milliseconds of 30 frames a second
    assert video_container.is_variable(np.array([0, 33, 67, 133, 167]))  # one frame is missing


BROKEN = {
    "empty.mp4": (lambda path: path.write_bytes(b"") and path, "not a video file"),
    "text.mp4": (lambda path: path.write_text("this is not a video\n" * 100) and path, "not a video file"),
    "audio.mp4": (video_files.make_audio, "no video stream, only audio"),
    "no_frames.mp4": (video_files.make_without_frames, "the video has no frames"),
    "no_block.mkv": (video_files.make_without_frames, "ends before its first frame"),
    "missing.mp4": (lambda path: path, "cannot be opened: No such file"),
    "index_at_end.mp4": (lambda path: video_files.cut(video_files.make(path.with_suffix(".a.mp4")), path), "cut off"),
    "index_in_front.mp4": (
        lambda path: video_files.cut(_remuxed(path.with_suffix(".b.mp4"), movflags="faststart"), path),
        "truncated: .* bytes of at least",
    ),
    "cut.mkv": (lambda path: video_files.cut(video_files.make(path.with_suffix(".a.mkv")), path), "truncated"),
    "cut.webm": (
        lambda path: video_files.cut(video_files.make(path.with_suffix(".a.webm"), codec="libvpx-vp9"), path),
        "truncated",
    ),
    "cut.avi": (
        lambda path: video_files.cut(
            video_files.make(path.with_suffix(".a.avi"), codec="mjpeg", pixels="yuvj420p"), path
        ),
        "truncated|cut off",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_say_what_is_wrong(name, folder):
    make, message = BROKEN[name]
    path = folder / name
    make(path)
    for file in (str(path), path.read_bytes()) if path.exists() else (str(path),):
        reader = Reader(file)
        with pytest.raises(UnreadableError, match=message):
            len(reader)
        with pytest.raises(UnreadableError, match=message):
            reader.get([0])


def test_a_damaged_frame_is_an_error_and_the_rest_is_read(folder, plain):
    path = video_files.damage(plain, folder / "damaged.mp4")
    reader = Reader(path)
    assert len(reader) == COUNT
    np.testing.assert_array_equal(reader.get([0, 5]), video_files.decode(plain)[[0, 5]])
    with pytest.raises(UnreadableError, match="damaged"):
        reader.get(np.arange(COUNT))
    with pytest.raises(UnreadableError):
        reader.count_by_decoding()


def test_a_cover_picture_is_not_a_video(folder):
    path = video_files.make_audio(folder / "song.m4a", cover=True)
    assert len(video_files.decode(path)) == 1  # what FFmpeg takes it for
    with pytest.raises(UnreadableError, match="no video stream"):
        len(Reader(path))


@pytest.mark.parametrize("indices", [[-1], [COUNT], [], [0, COUNT + 5]])
def test_numbers_outside_are_refused(plain, indices):
    with pytest.raises(IndexError, match=f"0 to {COUNT - 1}"):
        Reader(plain).get(indices)


def test_pickles_without_its_open_file(plain):
    reader = Reader(plain)
    frames = reader.get([7])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader)).get([7]), frames)


def test_closed_readers_leave_no_open_files_and_little_memory(plain):
    def open_files():
        return len(os.listdir("/proc/self/fd"))

    def resident():
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def read(times):
        for _ in range(times):
            with Reader(plain) as reader:
                reader.get(np.arange(0, COUNT, 2))

    read(20)
    gc.collect()
    files, memory = open_files(), resident()
    read(100)
    assert open_files() == files
    assert resident() - memory < 8 << 20
    reader = Reader(plain)
    reader.get([1])
    reader.close()
    np.testing.assert_array_equal(reader.get([1]), video_files.decode(plain)[[1]])  # opens again
