"""Opens video files and learns from packet headers alone which frames they hold and
where decoding can start.

Container headers are not believed: `nb_frames` and duration times rate are estimates in many
formats. The number of frames is the number of video packets that a demuxer delivers and does not
mark as outside of the edit list, which takes about 8 us a packet and decodes nothing. Where
packets cannot tell (see read_index) frames must be decoded to be counted. Uses PyAV
(`pip install av`), which brings FFmpeg.
"""

import contextlib
import dataclasses
import io
import os
from collections.abc import Iterator, Sequence

import numpy as np

from swin_jax.core.errors import UnreadableError, UserError, extra
from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.data.video import picture_order
from swin_jax.data.video.announced import check_announced
from swin_jax.data.video.tags import EBML, SEGMENT, ebml_size

# Of parameter sets that are cut off or missing, too.
_NOT_TOLD = (picture_order.UnknownOrder, IndexError, KeyError)
_HEAD_BYTES = 4096
# Containers and single pictures: no playlists (hls, concat) and patterns (image2),
# which open other files.
_FORMATS = (
    "3g2,3gp,apng,asf,asf_o,av1,avi,avs,avs2,avs3,cavsvideo,dhav,dirac,dnxhd,dv,evc,flic,flv,"
    "gif,gxf,h261,h263,h264,hevc,iff,ipu,ivf,ivr,jpegxl_anim,kux,live_flv,lvf,lxf,m4v,"
    "matroska,mgsts,mjpeg,mjpeg_2000,moflex,mov,mp4,mpeg,mpegts,mpegtsraw,mpegvideo,mpjpeg,"
    "mxf,mxg,nsv,nut,nuv,obu,ogg,pmp,r3d,rm,rpl,smjpeg,smk,swf,ty,vc1,vc1test,vvc,webm,wtv,"
    "xmv,yuv4mpegpipe,bmp_pipe,gif_pipe,jpeg_pipe,png_pipe,tiff_pipe,webp_pipe"
)
_SAME_RATE = 0.05  # share by which the time between two frames may differ from the usual one


@checked
@dataclasses.dataclass(frozen=True)
class Limits:
    """The most that a file may take; one that announces or holds more is unreadable.

    Attributes:
        pixels: Most pixels of a frame; by default those of 8K video and a little more.
        frames: Most frames of a file; by default more than four hours at 60 a second.
    """

    pixels: PositiveInt = 2**25
    frames: PositiveInt = 10**6


DEFAULT_LIMITS = Limits()


@dataclasses.dataclass(frozen=True)
class PacketIndex:
    """The places of a video's frames.

    Attributes:
        pts: int64 (P,), time of display of every packet in decoding order,
            in the stream's time base; no two are equal.
        seek: int64 (P,), the time by which a demuxer finds the packet.
        sizes: int64 (P,), bytes of each packet.
        keys: int64 (K,), packets at which decoding can start; their pts increase.
        frames: int64 (N,), the packet of each frame in the order of display.
    """

    pts: np.ndarray
    seek: np.ndarray
    sizes: np.ndarray
    keys: np.ndarray
    frames: np.ndarray

    def starts(self, packets: np.ndarray) -> np.ndarray:
        """The key packets from which packets (n,) must be decoded, (n,): for each packet the last
        key packet that is displayed no later than it.
        """
        return self.keys[np.searchsorted(self.pts[self.keys], self.pts[packets], side="right") - 1]


@contextlib.contextmanager
def unreadable_errors(what: str = "cannot be decoded"):
    """Turns whatever PyAV and the file system raise into UnreadableError:
    they have no class in common.
    """
    try:
        yield
    except (UnreadableError, UserError):
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or error
        raise UnreadableError(f"{what}: {reason}") from error


def decoded(frames: Iterator) -> Iterator:
    """Passes frames on; what decoding raises becomes UnreadableError,
    what their user raises does not.
    """
    with unreadable_errors():
        yield from frames


def open_video(file: str | os.PathLike | bytes, limits: Limits = DEFAULT_LIMITS):
    """Opens a file for decoding in one thread: loader processes and threads are the parallelism.

    Args:
        file: Path of the file, or its encoded bytes. Nothing in a path is a pattern or a protocol,
            and no file opens another.
        limits: The most that it may take.

    Returns:
        (container, video stream) of PyAV; close the container. Raises UnreadableError where the
        file is missing, is not a file or not a video, has no video stream (a cover picture does not
        count), ends before its last frame, or exceeds a limit; UserError where PyAV is not
        installed.
    """
    with extra("video", "video files are read with PyAV"):
        import av
    with unreadable_errors("cannot be opened"):
        check_announced(file, limits.frames)
    try:
        container = av.open(
            io.BytesIO(file) if isinstance(file, bytes) else f"file:{os.fspath(file)}",
            metadata_errors="replace",
            options={"format_whitelist": _FORMATS, "max_pixels": str(_allocated(limits.pixels))},
        )
    except (av.error.InvalidDataError, av.error.ArgumentError) as error:
        raise UnreadableError("not a video file, or cut off before its index") from error
    except av.error.EOFError as error:
        raise UnreadableError("ends before its first frame") from error
    except Exception as error:
        raise UnreadableError(
            f"cannot be opened: {getattr(error, 'strerror', None) or error}"
        ) from error
    try:
        with unreadable_errors():
            stream = _video_stream(container)
            _check_whole(container, stream, file)
            check_size(stream.codec_context.width, stream.codec_context.height, limits.pixels)
            stream.codec_context.options = {"max_pixels": str(_allocated(limits.pixels))}
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        return container, stream
    except BaseException:
        container.close()
        raise


def check_size(width: int, height: int, pixels: int) -> None:
    """Raises UnreadableError where frames have more than `pixels` pixels, or no size."""
    if not width or not height:
        raise UnreadableError(f"the size of its frames is unknown, or above max_pixels={pixels}")
    if width * height > pixels:
        raise UnreadableError(f"its frames of {width} x {height} are above max_pixels={pixels}")


def _allocated(pixels: int) -> int:
    """Pixels that FFmpeg may take for a frame: decoders make room for a margin around it."""
    return 2 * pixels + 2**16


def read_index(container, stream, max_frames: int) -> PacketIndex | None:
    """Reads the headers of all packets.

    Args:
        container: A container that has just been opened.
        stream: Video stream of the container.
        max_frames: Packets above which the file is unreadable.

    Returns:
        The index, or None where packets do not tell the frames: a codec whose packets may hold no
        frame or two, packets without times, with equal ones or with times in another order than
        that of their pictures, damaged ones, or a start that cannot be decoded (cut without
        re-encoding).
    """
    place = _reader(stream)
    found, places = [], []
    for packet in container.demux(stream):
        if not packet.size and packet.pts is None:  # the last one only flushes the decoder
            continue
        found.append((packet.pts, packet.dts, packet.size, packet.is_keyframe, packet.is_discard))
        if len(found) > max_frames:
            raise UnreadableError(f"has more than max_frames={max_frames} frames")
        if packet.is_corrupt or found[-1][0] is None or not packet.size:
            place = None
        if place is not None:
            try:
                places.append(place(memoryview(packet)))
            except _NOT_TOLD:
                place = None
    if not found:
        raise UnreadableError("the video has no frames, or its index is cut off")
    if place is None:
        return None
    pts, dts, sizes, is_key, is_hidden = zip(*found)
    seek = np.array([p if d is None else d for p, d in zip(pts, dts)], np.int64)
    pts, keys, shown = (
        np.array(pts, np.int64),
        np.flatnonzero(is_key),
        np.flatnonzero(np.logical_not(is_hidden)),
    )
    if not picture_order.agree(places, pts) or not len(keys) or (np.diff(pts[keys]) < 0).any():
        return None
    if (pts[shown] < pts[keys[0]]).any():
        return None
    return PacketIndex(pts, seek, np.array(sizes, np.int64), keys, shown[np.argsort(pts[shown])])


def _reader(stream):
    """Tells the places of a stream's pictures, see picture_order;
    None where that cannot be done.
    """
    context = stream.codec_context
    try:
        return picture_order.reader(context.name, context.extradata)
    except _NOT_TOLD:
        return None


def display_times(pts: Sequence[int | None]) -> np.ndarray:
    """Times of display, float64 (n,) and ascending,
    of frames in the order in which they were decoded.

    Args:
        pts: The decoder's times, n of them. Some containers store few or none, others those of
            decoding, which come in the wrong order; frames without are spaced evenly.
    """
    numbers = np.arange(len(pts), dtype=np.float64)
    told = np.flatnonzero([time is not None for time in pts])
    if len(told) < 2:
        return numbers
    times = np.sort(np.array([pts[number] for number in told], np.float64))
    step = np.median(np.diff(times) / np.diff(told))
    before, after = np.minimum(numbers - told[0], 0), np.maximum(numbers - told[-1], 0)
    return np.interp(numbers, told, times) + step * (before + after)


def is_variable(times: np.ndarray) -> bool:
    """True if times of display (n,), ascending and in ticks,
    are unevenly spaced by more than 5 % and a tick.
    """
    if len(times) < 3:
        return False
    gaps = np.diff(times)
    usual = np.median(gaps)
    return bool((np.abs(gaps - usual) > max(_SAME_RATE * usual, 1)).any())


def _video_stream(container):
    import av

    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        kinds = sorted({stream.type for stream in container.streams})
        raise UnreadableError(
            f"has no video stream{', only ' if kinds else ''}{' and '.join(kinds)}"
        )
    if streams[0].codec_context is None:
        raise UnreadableError("its video codec is not known to FFmpeg")
    return streams[0]


def _check_whole(container, stream, file) -> None:
    """Raises UnreadableError where the container says that the file should be longer than it is."""
    if "mp4" in container.format.name.split(","):
        needed = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    else:
        head = file[:_HEAD_BYTES] if isinstance(file, bytes) else _head(file)
        if head[8:16] == b"WEBPVP8X" and head[20] & 2:  # its flag of an animation
            raise UnreadableError(
                "an animated WebP, which FFmpeg does not decode: make it a GIF or a video"
            )
        needed = _declared_size(head)
    if container.size > 0 and needed > container.size:
        raise UnreadableError(f"truncated: {container.size} bytes of at least {needed}")


def _head(path: str | os.PathLike) -> bytes:
    with open(path, "rb") as file:
        return file.read(_HEAD_BYTES)


def _declared_size(head: bytes) -> int:
    """The size in bytes that the head of a Matroska, WebM or AVI file declares;
    0 for others and for streams.
    """
    if head.startswith(b"RIFF"):
        return int.from_bytes(head[4:8], "little") + 8
    if not head.startswith(EBML):
        return 0
    size, after = ebml_size(head, len(EBML))
    start = after + (size or 0)
    if head[start : start + len(SEGMENT)] != SEGMENT:
        return 0
    size, after = ebml_size(head, start + len(SEGMENT))
    return 0 if size is None else after + size
