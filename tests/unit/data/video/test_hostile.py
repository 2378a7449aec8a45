"""Files made to harm: every trouble is an unreadable record, none opens another file, memory stays small."""

import os
import pathlib
import struct

import av
import numpy as np
import pytest

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data.video import container as video_container
from swin_jax.data.video.announced import check_announced
from swin_jax.data.video.decode import Reader
from swin_jax.data.video.scan import check_file
from tests.unit.data.video import video_files


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return video_files.make(tmp_path_factory.mktemp("videos") / "plain.mp4", 12)


def assert_unreadable(path, message):
    """By the reader, from bytes too, and by the scan, in one line."""
    for file in (str(path), pathlib.Path(path).read_bytes()) if os.path.isfile(path) else (str(path),):
        with pytest.raises(UnreadableError, match=message) as error:
            Reader(file).get([0])
        assert "\n" not in str(error.value)
    assert check_file(str(path))["problem"]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "flv", "asf"])
@pytest.mark.parametrize("text", [b"\xff\xfe\xfdcut", b"caf\xe9 \x80\x81"])
def test_metadata_that_are_no_utf_8_do_no_harm(suffix, text, tmp_path):
    """They raised UnicodeDecodeError, for which no record was replaced."""
    marker = "A" * len(text)
    path = tmp_path / f"film.{suffix}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = marker
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in video_files.pictures(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    coded, wanted = marker.encode(), text
    if suffix == "asf":  # UTF-16; half a surrogate pair
        coded, wanted = marker.encode("utf-16-le"), b"\x00\xd8" * len(text)
    assert coded in data
    path.write_bytes(data.replace(coded, wanted))
    with Reader(path) as reader:
        assert reader.get(range(4)).shape == (4, 48, 64, 3)


@pytest.mark.parametrize("error", [ValueError, RuntimeError, IndexError, OverflowError, AttributeError, MemoryError])
@pytest.mark.parametrize("name", ["open_video", "read_index"])
def test_any_error_of_the_library_is_an_unreadable_record(error, name, plain, monkeypatch):
    def fails(*_, **__):
        raise error("of the library")

    if name == "open_video":
        monkeypatch.setattr(av, "open", fails)
    else:
        monkeypatch.setattr(video_container, "read_index", fails)
    with pytest.raises(UnreadableError, match="of the library"):
        len(Reader(plain))


def test_an_error_of_a_fit_is_its_own(plain):
    def fit(frame):
        raise ValueError("of the user")

    for indices in ([0], [11], range(12)):
        with pytest.raises(ValueError, match="of the user"):
            Reader(plain).get(indices, fit)


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("suffix", ["mp4", "m3u8", "ts", "avi"])
@pytest.mark.parametrize("text", [PLAYLIST, "ffconcat version 1.0\nfile '{}'\n"])
def test_a_file_opens_no_other(suffix, text, tmp_path):
    video_files.make(tmp_path / "secret.ts", 3)
    path = tmp_path / f"list.{suffix}"
    path.write_text(text.format("secret.ts"))
    assert_unreadable(path, "not a video file|cannot be opened|unless")


@pytest.mark.parametrize("name", ["12:30 a.mp4", "concat:a.mp4", "data:a.mp4", "a%03d.mp4", "http:a.mp4", "a?b#c.mp4"])
def test_a_path_is_literal(name, plain, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(pathlib.Path(plain).read_bytes())
    monkeypatch.chdir(tmp_path)
    assert len(Reader(name)) == 12
    assert_unreadable("concat:" + plain, "No such file")


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    for name, message in (("pipe", "is not a file"), ("folder", "is not a file"), ("loop", "symbolic links")):
        assert_unreadable(tmp_path / f"{name}.mp4", message)
    assert_unreadable("/dev/zero", "is not a file")
    assert_unreadable("nul\0.mp4", "null")


@pytest.mark.parametrize(
    "suffix, codec, pixels", [("mp4", "libx264", "yuv420p"), ("avi", "mpeg4", "yuv420p"), ("gif", "gif", "rgb8")]
)
def test_limits_are_stated_and_counted(suffix, codec, pixels, tmp_path):
    path = video_files.make(tmp_path / f"film.{suffix}", 12, codec=codec, pixels=pixels)
    Limits = video_container.Limits
    assert len(Reader(path, limits=Limits(64 * 48, 12))) == 12
    with pytest.raises(UnreadableError, match="max_pixels=3071"):
        len(Reader(path, limits=Limits(64 * 48 - 1, 12)))
    with pytest.raises(UnreadableError, match="max_frames=11"):
        len(Reader(path, limits=Limits(64 * 48, 11)))
    for limits in ((0, 1), (1, 0)):
        with pytest.raises(UserError, match="at least 1"):
            Limits(*limits)


@pytest.mark.parametrize("size", [(65535, 65535), (16384, 16384), (65535, 600)])
def test_frames_of_a_size_that_is_only_announced(size, tmp_path):
    """A GIF of 40 bytes may announce 12 GB of pixels."""
    path = tmp_path / "vast.gif"
    width, height = struct.pack("<H", size[0]), struct.pack("<H", size[1])
    screen = b"GIF89a" + width + height + b"\x80\0\0" + bytes(6)
    path.write_bytes(screen + b"\x2c\0\0\0\0" + width + height + b"\0\x02\x02\x4c\x01\0\x3b")
    assert_unreadable(path, "max_pixels|cannot be")


def _announce(plain, path, count, box=b"stsz"):
    data = bytearray(pathlib.Path(plain).read_bytes())
    position = data.index(box)
    struct.pack_into(
        ">II" if box == b"stsz" else ">I", data, position + 8, *([1, count] if box == b"stsz" else [count])
    )
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("box", [b"stsz", b"trun"])
@pytest.mark.parametrize("count", [10**6 + 1, 2**28, 2**32 - 1])
def test_frames_that_are_only_announced(box, count, plain, tmp_path, monkeypatch):
    """Of 50 million FFmpeg made a table of 3.4 GB, in a minute."""
    if box == b"trun":
        plain = video_files.remux(plain, tmp_path / "parts.mp4", movflags="frag_keyframe+empty_moov")
    path = _announce(plain, tmp_path / "many.mp4", count, box)
    monkeypatch.setattr(av, "open", lambda *_, **__: pytest.fail("opened"))
    assert_unreadable(path, "announces")


@pytest.mark.parametrize(
    "boxes",
    [
        b"",
        b"\0\0\0\1moov" + bytes(8),
        b"\0\0\0\x08moov" * 4,
        b"\0\0\0\0moov\0\0\0\0trak",
        b"\0\0\0\1moov" + b"\xff" * 8,
    ],
)
def test_odd_boxes_end_the_walk(boxes):
    check_announced(b"\0\0\0\x10ftypisom\0\0\0\0" + boxes, 10)


def test_whole_files_announce_what_they_hold(plain, tmp_path):
    check_announced(plain, 12)
    with pytest.raises(UnreadableError, match="announces 12 frames, more than max_frames=11"):
        check_announced(plain, 11)
    sound = video_files.make_audio(tmp_path / "sound.mp4")
    check_announced(sound, 1)
    np.testing.assert_array_equal(len(Reader(plain)), 12)


def test_edits_that_repeat_a_film_without_end(plain, tmp_path, monkeypatch):
    """FFmpeg makes a table of all frames of all edits: of 20,000 times 1,000 frames in a minute."""
    whole, sound = tmp_path / "sound.mp4", video_files.make_audio(tmp_path / "plain_sound.mp4")
    for source, target, count in ((plain, tmp_path / "film.mp4", 100_000), (sound, whole, 70_000)):
        path = video_files.edit(source, target, [(1000, 0)] * count)
        with pytest.raises(UnreadableError, match=f"announces {count} edits of [0-9]* samples"):
            check_announced(path, 10**6)
        check_announced(video_files.edit(source, tmp_path / "few.mp4", [(1000, 0)] * 3), 60)
    monkeypatch.setattr(av, "open", lambda *_, **__: pytest.fail("opened"))
    assert_unreadable(tmp_path / "film.mp4", "edits")
