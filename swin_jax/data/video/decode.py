"""Random access to the frames of a video file:
seeks to the right key frame and decodes only what is needed.

The frames equal those of decoding the whole file in order, also with a variable frame rate,
B-frames, open groups of pictures and edit lists: a frame is found by its time of display, which the
packets tell before anything is decoded and which is believed only where the order of the pictures
agrees (picture_order.py); other files are decoded in full. Of a damaged file they may be others
without an error, where FFmpeg does not notice the damage: scan.py finds such files. Three things
save time. Decoding starts at the last key frame before a wanted frame and stops at the last wanted
one; H.264 frames that are neither wanted nor referred to by others are not decoded; only wanted
frames are converted to RGB. Reference: a full decode with PyAV, whose pixels equal those of decord
and OpenCV.
"""

import itertools
import os
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from swin_jax.core.errors import UnreadableError
from swin_jax.data.video import container as video_container

_SEEK_PAYS = 8  # packets; fewer are decoded through
# The standard forbids that any frame refers to these;
# the like of HEVC and VP9 may be referred to or adapt the coder.
_SKIPS_UNREFERENCED = ("h264",)


class Reader:
    """The frames of one video; opens its file when first used, and pickles without it."""

    def __init__(
        self,
        file: str | os.PathLike | bytes,
        rotate: bool = True,
        variable_frame_rate: bool = True,
        limits: video_container.Limits = video_container.DEFAULT_LIMITS,
    ):
        """Makes a reader.

        Args:
            file: Path of a video file, or its encoded bytes.
            rotate: True to turn frames as the file's rotation metadata say (phones store upright
                films lying), as OpenCV does.
            variable_frame_rate: True if a file with a variable frame rate is read (exactly, by time
                stamps) rather than an unreadable record: clips count frames, so its motion changes
                speed.
            limits: The most that the file may take.
        """
        self._file, self._rotate, self._accepts_variable = file, rotate, variable_frame_rate
        self._limits = limits
        self._container = None
        self._times = None  # of display of each frame

    def __reduce__(self):
        return Reader, (self._file, self._rotate, self._accepts_variable, self._limits)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        if self._container is not None:
            self._container.close()
        self._container = None

    def __len__(self) -> int:
        """Frames that a full decode gives. Raises UnreadableError where the file is not a video,
        truncated or empty.
        """
        self._open()
        return len(self._times)

    @property
    def variable_frame_rate(self) -> bool:
        """True if frames are unevenly spaced in time; they are counted as they come."""
        self._open()
        return video_container.is_variable(self._times)

    def get(
        self,
        indices: Sequence[int] | np.ndarray,
        fit: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Decodes frames.

        Args:
            indices: n frame numbers from 0 to len - 1, in any order, possibly repeated;
                n is at least 1.
            fit: Applied to every frame (H, W, 3) as it is decoded, for example a resize;
                large frames then never lie in memory together. It must give equal shapes and
                may not keep its argument.

        Returns:
            RGB uint8 (n, H, W, 3), or what `fit` made of it. Raises IndexError for an index
            outside, UnreadableError where a frame cannot be decoded.
        """
        indices = np.asarray(indices, np.int64).reshape(-1)
        count = len(self)
        if not len(indices) or indices.min() < 0 or indices.max() >= count:
            raise IndexError(f"frame numbers must be 0 to {count - 1}, got {indices.tolist()}")
        wanted, rows = np.unique(indices, return_inverse=True)
        names = wanted if self._index is None else self._times[wanted]
        frames = _Frames(names, fit, self._rotate)
        if self._index is not None:
            self._decode_by_seeking(wanted, frames)
        if frames.missing and not self._decode_in_order(frames):
            self._distrust_packets(count)
            return self.get(indices, fit)
        if frames.missing:
            raise UnreadableError(
                f"{frames.missing} of {len(wanted)} frames cannot be decoded: the file is damaged"
            )
        return frames.pixels if np.array_equal(wanted, indices) else frames.pixels[rows]

    def count_by_decoding(self) -> int:
        """Decodes the whole file and counts its frames; for checks.

        Where frames are read by seeking, the file is decoded once more, from every key frame to the
        next: decoders take from earlier frames what damage has left out, without a word. What is
        compared is 4 bytes of each frame.

        Returns:
            The number of frames. Raises UnreadableError where a frame is damaged,
            or not the same by seeking.
        """
        self._open()
        if self._index is None:
            return len(self._decoded_times())
        whole, sought = (_Frames(self._times, _checksum, self._rotate) for _ in range(2))
        count = len(self._decoded_times(whole))
        starts = self._index.starts(self._index.frames)
        stretches = np.split(np.arange(len(starts)), np.flatnonzero(np.diff(starts)) + 1)
        # Backwards, and the last with empty buffers, so that what is left in them from other
        # frames is not the same.
        if len(stretches) > 1:
            self._rewind()
        for wanted in reversed(stretches):
            self._decode_by_seeking(wanted, sought)
        if differing := sought.differing(whole):
            raise UnreadableError(
                f"damaged: {differing} of {count} frames differ when they are read alone"
            )
        return count

    def _open(self) -> None:
        if self._container is not None:
            return
        self._container, self._stream = video_container.open_video(self._file, self._limits)
        try:
            if self._times is None:
                self._find_frames()
        except BaseException:
            self.close()
            raise

    def _find_frames(self) -> None:
        with video_container.unreadable_errors():
            self._index = video_container.read_index(
                self._container, self._stream, self._limits.frames
            )
        times = (
            self._decoded_times() if self._index is None else self._index.pts[self._index.frames]
        )
        if not len(times):
            raise UnreadableError("the video has no frames")
        if not self._accepts_variable and video_container.is_variable(times):
            raise UnreadableError(
                "has a variable frame rate; variable_frame_rate=True reads "
                "it exactly, by time stamps"
            )
        self._times = times

    def _rewind(self) -> None:
        """Opens the file anew: not every format can seek to its start."""
        self.close()
        self._container, self._stream = video_container.open_video(self._file, self._limits)

    def _decoded_times(self, frames: "_Frames | None" = None) -> np.ndarray:
        """The times of all frames; `frames` gets those that it wants, by their times."""
        found = []
        for frame in self._all_frames():
            if frame.is_corrupt:
                raise UnreadableError("a frame is damaged")
            found.append((frame.pts, frame.width, frame.height))
            if found[-1][1:] != found[0][1:]:
                raise UnreadableError("the size of frames changes")
            video_container.check_size(frame.width, frame.height, self._limits.pixels)
            if len(found) > self._limits.frames:
                raise UnreadableError(f"has more than max_frames={self._limits.frames} frames")
            if frames is not None:
                frames.put(frame.pts, frame)
        return video_container.display_times([time for time, _, _ in found])

    def _all_frames(self) -> Iterator:
        self._rewind()
        return video_container.decoded(self._container.decode(self._stream))

    def _decode_in_order(self, frames: "_Frames") -> bool:
        """Decodes from the start on; False where a frame comes at another time
        than its packet said.
        """
        for number, frame in enumerate(self._all_frames()):
            if self._index is None:
                frames.put(number, frame)
            elif number < len(self._times) and frame.pts == self._times[number]:
                frames.put(frame.pts, frame)
            else:
                return False
            if not frames.missing:
                break
        return True

    def _distrust_packets(self, count: int) -> None:
        """Takes frames in order from now on, as a full decode gives them."""
        times = self._decoded_times()
        if len(times) != count:
            raise UnreadableError(f"damaged: of {count} frames {len(times)} can be decoded")
        self._index, self._times = None, times

    def _decode_by_seeking(self, wanted: np.ndarray, frames: "_Frames") -> None:
        """Decodes what it can; `frames` knows what is missing."""
        packets = self._index.frames[wanted]
        starts = self._index.starts(packets).tolist()
        needed = set(packets.tolist())
        stretches = []  # [first, last] packet, inclusive; B-frames make `packets` go up and down
        for start, packet in zip(starts, packets.tolist()):
            if stretches and start <= stretches[-1][1] + _SEEK_PAYS:
                stretches[-1][1] = max(stretches[-1][1], packet)
            else:
                stretches.append([start, packet])
        try:
            for first, last in stretches:
                self._decode_stretch(first, last, needed, frames)
        except UnreadableError:
            return
        finally:
            self._stream.codec_context.skip_frame = "DEFAULT"

    def _decode_stretch(self, first: int, last: int, needed: set[int], frames: "_Frames") -> None:
        """Decodes packets `first` (a key packet) to `last`,
        sparing unneeded ones to which no other refers.
        """
        context, pts = self._stream.codec_context, self._index.pts
        spare = "NONREF" if context.name in _SKIPS_UNREFERENCED else "DEFAULT"
        with video_container.unreadable_errors():
            # Flushes the decoder, too.
            self._container.seek(int(self._index.seek[first]), stream=self._stream)
        packets = video_container.decoded(self._container.demux(self._stream))
        packets = itertools.dropwhile(lambda packet: packet.pts != pts[first], packets)
        for position, packet in zip(range(first, last + 1), packets):
            if packet.pts != pts[position] or packet.size != self._index.sizes[position]:
                # the demuxer went elsewhere; where a table of contents is wrong,
                # times alone don't tell
                return
            context.skip_frame = "DEFAULT" if position in needed else spare
            with video_container.unreadable_errors():
                found = packet.decode()
            for frame in found:
                frames.put(frame.pts, frame)
        with video_container.unreadable_errors():
            found = context.decode(None)
        for frame in found:
            frames.put(frame.pts, frame)


class _Frames:
    """The rows of the result, filled in any order;
    the array is made when the first frame tells its size.
    """

    def __init__(self, names: np.ndarray, fit: Callable | None, rotate: bool):
        """`names` (n,): by what put() knows the frame of each row."""
        from av.video.reformatter import VideoReformatter

        self._row = {name: row for row, name in enumerate(names.tolist())}
        self._count, self._fit, self._rotate = len(names), fit, rotate
        # Keeps the conversion's tables, which cost as much as a conversion.
        self._reformatter = VideoReformatter()
        self.pixels = None

    @property
    def missing(self) -> int:
        """The number of frames still to come."""
        return len(self._row)

    def differing(self, other: "_Frames") -> int:
        """The number of rows that are here and are missing or not the same in another that wants
        the same frames.
        """
        if self.pixels is None:
            return 0
        rows = np.setdiff1d(np.arange(self._count), list(self._row.values()))
        same = np.setdiff1d(rows, list(other._row.values()))
        if len(same):
            same = same[self.pixels[same] == other.pixels[same]]
        return len(rows) - len(same)

    def put(self, name: int, frame) -> None:
        """Copies the frame to its row if it is wanted."""
        # in part invented by the decoder; unwanted ones count, because later frames refer to them
        if frame.is_corrupt:
            raise UnreadableError("a frame is damaged")
        row = self._row.pop(name, None)
        if row is None:
            return
        with video_container.unreadable_errors():
            pixels = self._rgb(frame)
        if self._fit is not None:
            pixels = self._fit(pixels)
        if self.pixels is None:
            self.pixels = np.empty((self._count, *pixels.shape), pixels.dtype)
        if pixels.shape != self.pixels.shape[1:]:
            raise UnreadableError(
                f"the size of frames changes from {self.pixels.shape[1:3]} to {pixels.shape[:2]}"
            )
        self.pixels[row] = pixels

    def _rgb(self, frame) -> np.ndarray:
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
        plane = rgb.planes[0]
        pixels = np.frombuffer(plane, np.uint8).reshape(rgb.height, plane.line_size)
        pixels = pixels[:, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
        return _upright(pixels, _matrix(frame)) if self._rotate else pixels


def _matrix(frame) -> list[int]:
    """The first entries of the display matrix of a frame, none where there is none."""
    from av.sidedata.sidedata import SideDataContainer

    # Not frame.side_data: these and their frame would hold each other until garbage is collected,
    # so that memory grows and the decoder finds no buffer to use again.
    matrix = SideDataContainer(frame).get("DISPLAYMATRIX")
    return [] if matrix is None else np.frombuffer(matrix, np.int32)[:5].tolist()


def _upright(pixels: np.ndarray, matrix: Sequence[int]) -> np.ndarray:
    """A frame as its display matrix shows it, turned and mirrored, as by FFmpeg's autorotate."""
    if not matrix:
        return pixels
    a, b, _, c, d = matrix  # (ax + cy, bx + dy) of (x, y)
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _checksum(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(zlib.crc32(np.ascontiguousarray(pixels)), np.uint32)
