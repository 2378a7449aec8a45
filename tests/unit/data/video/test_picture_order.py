"""The order of pictures: read from their bits it equals a full decode's, whatever times a container tells."""

import pathlib

import av
import numpy as np
import pytest

from swin_jax.core.errors import UnreadableError
from swin_jax.data.video.decode import Reader
from swin_jax.data.video.scan import check_file
from tests.unit.data.video import video_files

COUNT = 26
B_FRAMES = dict(b_adapt=0, bframes=3)
H264 = {
    "plain": {},
    "no_b_frames": dict(bframes=0),  # counts none: order type 2
    "pyramid": dict(b_adapt=0, bframes=7, b_pyramid="strict"),
    "open": dict(B_FRAMES, open_gop=1),
    "slices": dict(B_FRAMES, slices=4),
    "interlaced": dict(B_FRAMES, tff=1),
    "scaled": dict(B_FRAMES, cqm="jvt"),
    "refresh": dict(B_FRAMES, intra_refresh=1),
}
FORMATS = ("avi", "mp4", "mkv", "mov", "ts", "flv", "mpg", "vob", "3gp", "asf", "mxf", "h264", "nut")
WITHOUT_TIMES = ("avi", "asf", "mxf", "mpg", "vob", "h264")  # of display
OTHERS = {
    "mpeg4.avi": dict(codec="mpeg4"),
    "mpeg4.mkv": dict(codec="mpeg4"),
    "mpeg2.mpg": dict(codec="mpeg2video"),
    "mpeg2.ts": dict(codec="mpeg2video"),
    "mpeg1.vob": dict(codec="mpeg1video"),
    "wmv2.wmv": dict(codec="wmv2"),
    "wmv2.avi": dict(codec="wmv2"),
    "vp8.ogv": dict(codec="libvpx"),
    "vp9.avi": dict(codec="libvpx-vp9"),
    "vp9.ivf": dict(codec="libvpx-vp9"),
    "hevc.ts": dict(codec="libx265"),
    "hevc.hevc": dict(codec="libx265"),
    "jpeg.mov": dict(codec="mjpeg", pixels="yuvj420p"),
    "moving.gif": dict(codec="gif", pixels="rgb8"),
}


def assert_equals_full_decode(path, indexed):
    """Every frame alone, some together, and the scan; and whether packets were believed."""
    expected = video_files.decode(path)
    some = np.sort(np.random.default_rng(0).choice(len(expected), 5, replace=False))
    with Reader(path, variable_frame_rate=False) as reader:
        assert len(reader) == len(expected)
        for indices in (*([index] for index in range(0, len(expected), 3)), some, some[::-1], range(len(expected))):
            np.testing.assert_array_equal(reader.get(indices), expected[np.asarray(indices)])
        assert (reader._index is not None) == indexed
    assert check_file(path)["problem"] == ""


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("b_frames", [dict(B_FRAMES), dict(B_FRAMES, open_gop=1), dict(bframes=0)])
def test_frames_come_in_order_from_any_container(suffix, b_frames, tmp_path):
    path = video_files.make(tmp_path / f"film.{suffix}", COUNT, **b_frames)
    in_order = suffix in ("avi", "asf", "mxf") and not b_frames["bframes"]  # what is stored is displayed
    assert_equals_full_decode(path, suffix not in WITHOUT_TIMES or in_order)


@pytest.mark.parametrize("name", OTHERS)
def test_frames_come_in_order_from_any_codec(name, tmp_path):
    path = video_files.make(tmp_path / name, COUNT, **OTHERS[name])
    trusted = "vp9" in name or "jpeg" in name or name == "hevc.ts"
    assert_equals_full_decode(path, trusted)


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
@pytest.mark.parametrize("name", H264)
def test_bits_tell_the_order_of_h264(name, suffix, tmp_path):
    """In both ways of storing parameters; else every such file would be decoded in full."""
    assert_equals_full_decode(video_files.make(tmp_path / f"film.{suffix}", COUNT, **H264[name]), True)


def _as_stored(packets):
    return [packet.dts for packet in packets]


def _late(packets):
    return [packet.pts + 7 * (number > 14) * packet.duration for number, packet in enumerate(packets)]


def _two_swapped(packets):
    times = [packet.pts for packet in packets]
    times[17], times[19] = times[19], times[17]
    return times


def _shuffled(packets):
    return np.random.default_rng(0).permutation([packet.pts for packet in packets]).tolist()


def _one_twice(packets):
    times = [packet.pts for packet in packets]
    times[20] = times[16]
    return times


def _negative(packets):
    return [packet.pts - 10 * packet.duration for packet in packets]


WRONG = (_as_stored, _two_swapped, _shuffled, _one_twice)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("times", [*WRONG, _negative, _late])
def test_wrong_times_are_not_believed(codec, suffix, times, tmp_path):
    """As when a file that holds none was copied into a container that does."""
    right = video_files.make(tmp_path / "right.mp4", COUNT, codec=codec, **B_FRAMES)
    path = video_files.retime(right, tmp_path / f"wrong.{suffix}", times)
    expected = video_files.decode(path)
    with Reader(path) as reader:
        for index in range(len(expected)):
            np.testing.assert_array_equal(reader.get([index])[0], expected[index])
        assert times not in WRONG or reader._index is None


@pytest.mark.parametrize(
    "codec, pixels, b_frames",
    [("libvpx-vp9", "yuv420p", {}), ("mjpeg", "yuvj420p", {}), ("libx264", "yuv420p", dict(bframes=0))],
)
def test_pictures_of_one_time_are_told_apart(codec, pixels, b_frames, tmp_path):
    """As a screen recorder writes them: in a seek both have the name that the time is."""

    def by_pairs(packets):
        return [packet.pts - packet.duration * (number in (5, 7, 20)) for number, packet in enumerate(packets)]

    right = video_files.make(tmp_path / "right.mkv", COUNT, codec=codec, pixels=pixels, **b_frames)
    path = video_files.retime(right, tmp_path / "pairs.mkv", by_pairs)
    expected = video_files.decode(path)
    with Reader(path) as reader:
        single = [reader.get([index])[0] for index in range(len(reader))]
        np.testing.assert_array_equal(single, expected)
        np.testing.assert_array_equal(reader.get(range(len(reader))), expected)


@pytest.mark.parametrize("lost", [[6], [13], [20], [5, 6, 7]])
@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_lost_pictures_are_made_up_as_in_a_full_decode(lost, suffix, tmp_path):
    """From what the decoder has: a key frame that seeking starts at tells less than all that comes before."""
    whole = video_files.make(tmp_path / "whole.mp4", COUNT, open_gop=1, **B_FRAMES)
    path = video_files.remux(whole, tmp_path / f"lost.{suffix}", lost=lost)
    try:
        reader = Reader(path)
        single = [reader.get([index])[0] for index in range(len(reader))]
    except UnreadableError:
        assert check_file(path)["problem"]
        return
    np.testing.assert_array_equal(single, video_files.decode(path))


def _flipped(path, source, seed):
    """A copy with a few bytes of a picture changed; decoders notice no more than some of it."""
    rng = np.random.default_rng(seed)
    with av.open(source) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size > 40]
    data = bytearray(pathlib.Path(source).read_bytes())
    position, size = places[rng.integers(1, len(places))]
    start, count = position + int(rng.integers(8, size - 12)), int(rng.choice([1, 3, 10]))
    for place in range(start, start + count):
        data[place] ^= int(rng.integers(1, 256))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix, codec, pixels", [
    ("avi", "mjpeg", "yuvj420p"), ("mov", "mjpeg", "yuvj420p"), ("mp4", "libx265", "yuv420p"),
    ("mp4", "libx264", "yuv420p"),
])  # fmt: skip
def test_damage_that_goes_unnoticed_is_found_by_the_scan(suffix, codec, pixels, tmp_path):
    """Frames read by themselves are those of a full decode, or the file is bad."""
    source, found = video_files.make(tmp_path / f"a.{suffix}", 14, codec=codec, pixels=pixels, gop=5), []
    for seed in range(20):
        path = str(_flipped(tmp_path / f"b.{suffix}", source, seed))
        found.append(check_file(path)["problem"])
        if not found[-1]:
            expected = video_files.decode(path)
            single = [Reader(path).get([index])[0] for index in range(len(expected))]
            np.testing.assert_array_equal(single, expected)
    assert codec != "mjpeg" or any("read alone" in problem for problem in found)
    assert not all(found)


def test_a_table_of_contents_that_is_wrong_is_not_believed(tmp_path):
    """A chunk of an AVI that is lost, which its index still has: all later frames would be others."""
    source = video_files.make(tmp_path / "a.avi", COUNT, codec="mjpeg", pixels="yuvj420p")
    data, start = bytearray(pathlib.Path(source).read_bytes()), 0
    for _ in range(7):
        start = data.index(b"00dc", start + 1)
    data[start : start + 4] = b"JUNK"
    pathlib.Path(source).write_bytes(data)
    expected = video_files.decode(source)
    assert len(expected) == COUNT - 1
    with Reader(source) as reader:
        single = [reader.get([index])[0] for index in range(len(expected))]
    np.testing.assert_array_equal(single, expected)
    assert check_file(source)["problem"] == ""


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("edits", [[(400, 15), (400, 2)], [(400, 2), (400, 2)], [(400, 9)], [(500, None), (400, 2)]])
def test_edits_of_any_order_are_played_as_in_a_full_decode(codec, edits, tmp_path):
    """Parts that changed places, one that comes twice, one that begins between key frames, a wait before the first."""
    whole = video_files.make(tmp_path / "whole.mp4", COUNT, codec=codec, **B_FRAMES)
    edits = [(duration, -1 if frame is None else 512 * frame) for duration, frame in edits]
    path = video_files.edit(whole, tmp_path / "edited.mp4", edits)
    expected = video_files.decode(path)
    with Reader(path) as reader:
        assert len(reader) == len(expected) > 10
        single = [reader.get([index])[0] for index in range(len(expected))]
    np.testing.assert_array_equal(single, expected)
