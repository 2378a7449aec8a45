"""The order in which pictures are displayed, read from the bits of their
packets without decoding them.

Times of packets cannot be believed alone: AVI, ASF and MXF store no times of display, and a file
made from one of them without decoding carries the wrong times into any other container. H.264 and
HEVC write the order into the first bytes of every picture, its picture order count; VP9 and Motion
JPEG display pictures as they are stored. References: ITU-T H.264 (7.3, 8.2.1), H.265 (7.3, 8.3.1).
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

_HEAD_BYTES = 24  # of a slice, more than the fields up to its order count take
_SEQUENCE = 1 << 40  # between the places of two coded sequences; counts have 32 bits
_START = b"\0\0\1"
_CHROMA_PROFILES = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 144, 244)
_IDR, _SPS, _PPS = 5, 7, 8  # of H.264
_HEVC_SPS, _HEVC_PPS = 33, 34
_SKIPPED_LEADING = (8, 9)  # refer to what is before the random access point


class UnknownOrder(Exception):
    """The order of pictures is not to be told: single fields, hidden pictures,
    unusual parameters.
    """


def reader(codec: str, extradata: bytes | None) -> Callable[[memoryview], int] | None:
    """A function that tells the place of one picture after the other.

    Args:
        codec: FFmpeg's name.
        extradata: The stream's parameter sets as its container stores them.

    Returns:
        A function of the bytes of packets, to be called in decoding order; pictures are displayed
        in the order of what it returns. It raises UnknownOrder where that is not to be told,
        IndexError or KeyError for parameters that are cut off or missing. None where packets of the
        codec may hold no picture or two.
    """
    if codec == "h264":
        return _H264(extradata or b"").place
    if codec == "hevc":
        return _Hevc(extradata or b"").place
    if codec in ("vp9", "mjpeg"):
        return _AsStored(codec == "vp9").place
    return None


def agree(places: Sequence[int], pts: np.ndarray) -> bool:
    """True if times of display (P,), all different, put P pictures in the order of their places,
    none twice.
    """
    places = np.array(places, np.int64)
    displayed = np.argsort(places)
    return bool(np.diff(places[displayed]).all()) and bool((np.diff(pts[displayed]) > 0).all())


class _Bits:
    """Reads numbers of some bits each from the front; raises UnknownOrder behind the end."""

    __slots__ = ("_value", "_left")

    def __init__(self, data: bytes):
        if b"\0\0\3" in data:  # a byte 3 is put in wherever two zeros would look like a start code
            data = data.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def u(self, count: int) -> int:
        """The next `count` bits."""
        self._left = left = self._left - count
        if left < 0:
            raise UnknownOrder
        value = self._value >> left
        self._value ^= value << left
        return value

    def ue(self) -> int:
        """A number of Exp-Golomb code: as many zeros as bits follow the first one."""
        self._left = left = 2 * self._value.bit_length() - self._left - 1
        if left < 0:
            raise UnknownOrder
        value = self._value >> left
        self._value ^= value << left
        return value - 1

    def se(self) -> int:
        """A number of Exp-Golomb code with a sign."""
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def _units(data: memoryview, length_size: int) -> Iterator[memoryview]:
    """The units of a packet: behind their lengths of some bytes, or (0) between start codes."""
    position = 0
    if length_size:
        while position + length_size < len(data):
            begin = position + length_size
            position = begin + int.from_bytes(data[position:begin], "big")
            yield data[begin:position]
        return
    whole = bytes(data)
    position = whole.find(_START)
    while position >= 0:
        following = whole.find(_START, position + 3)
        yield data[position + 3 : following if following >= 0 else len(data)]
        position = following


def _stored(extradata: bytes, position: int, count: int) -> tuple[list[memoryview], int]:
    """(`count` units, each behind 16 bits of length; the position after them)."""
    units = []
    for _ in range(count):
        begin = position + 2
        position = begin + int.from_bytes(extradata[position:begin], "big")
        units.append(memoryview(extradata)[begin:position])
    return units, position


class _Counter:
    """Order counts from their last bits: the nearest to that of the last picture referred to."""

    def __init__(self):
        self.sequence, self._before = 0, 0

    def begin(self) -> None:
        """A new coded sequence begins, whose pictures are all displayed after those before."""
        self.sequence, self._before = self.sequence + _SEQUENCE, 0

    def count(self, last_bits: int, bits: int, is_reference: bool) -> int:
        turn = 1 << bits
        step = (last_bits - self._before) % turn
        count = self._before + (step - turn if 2 * step > turn else step)
        if is_reference:
            self._before = count
        return self.sequence + count


@dataclasses.dataclass(frozen=True)
class _Sps:
    """The fields of a sequence that are needed to find the order count in a slice."""

    number: int
    planes: bool
    frame_num_bits: int
    count_bits: int  # 0: pictures are displayed as they are stored
    frames_only: bool
    has_gaps: bool  # whether pictures may be left out on purpose


class _H264:
    def __init__(self, extradata: bytes):
        self._counter, self._sps, self._pps, self._stored = _Counter(), {}, {}, 0
        self._frame_num = None  # of the last picture that others refer to
        self._length_size = 0
        if extradata[:1] == b"\1":  # avcC: parameter sets behind 16 bits of length
            self._length_size = (extradata[4] & 3) + 1
            sequences, position = _stored(extradata, 6, extradata[5] & 31)
            pictures, _ = _stored(extradata, position + 1, extradata[position])
            units = [*sequences, *pictures]
        else:
            units = _units(memoryview(extradata), 0)
        for unit in units:
            self._learn(unit)

    def place(self, packet: memoryview) -> int:
        for unit in _units(packet, self._length_size):
            kind = unit[0] & 31 if len(unit) else 0
            if kind in (1, 2, _IDR):
                return self._slice(unit[0] >> 5 & 3, kind == _IDR, bytes(unit[1:_HEAD_BYTES]))
            self._learn(unit)
        raise UnknownOrder  # no picture

    def _slice(self, is_reference: int, is_idr: bool, head: bytes) -> int:
        bits = _Bits(head)
        if bits.ue() != 0:  # the first macroblock
            raise UnknownOrder
        bits.ue()
        sps = self._sps[self._pps[bits.ue()]]
        bits.u(2 * sps.planes)
        self._follow(bits.u(sps.frame_num_bits), sps, is_reference, is_idr)
        if not sps.frames_only and bits.u(1):
            raise UnknownOrder  # one field: a packet need not be a picture
        self._stored += 1
        if is_idr:
            bits.ue()
            self._counter.begin()
        if not sps.count_bits:
            return self._counter.sequence + self._stored
        return self._counter.count(bits.u(sps.count_bits), sps.count_bits, is_reference > 0)

    def _follow(self, frame_num: int, sps: _Sps, is_reference: int, is_idr: bool) -> None:
        """Raises UnknownOrder where a picture was lost,
        for which a decoder makes one up from what it has.
        """
        if self._frame_num is not None and not is_idr and not sps.has_gaps:
            if frame_num != self._frame_num + 1 & (1 << sps.frame_num_bits) - 1:
                raise UnknownOrder
        if is_reference:
            self._frame_num = frame_num

    def _learn(self, unit: memoryview) -> None:
        kind = unit[0] & 31 if len(unit) else 0
        if kind == _SPS:
            sps = _h264_sps(_Bits(bytes(unit[1:])))
            self._sps[sps.number] = sps
        elif kind == _PPS:
            bits = _Bits(bytes(unit[1:_HEAD_BYTES]))
            number = bits.ue()
            self._pps[number] = bits.ue()


def _h264_sps(bits: _Bits) -> _Sps:
    profile = bits.u(8)
    bits.u(16)
    number, planes = bits.ue(), False
    if profile in _CHROMA_PROFILES:
        chroma = bits.ue()
        planes = chroma == 3 and bits.u(1) == 1
        bits.ue(), bits.ue(), bits.u(1)
        if bits.u(1):
            for table in range(12 if chroma == 3 else 8):
                if bits.u(1):
                    _skip_scaling(bits, 16 if table < 6 else 64)
    frame_num_bits, kind, count_bits = bits.ue() + 4, bits.ue(), 0
    if kind == 0:
        count_bits = bits.ue() + 4
    elif kind != 2:
        raise UnknownOrder
    bits.ue()
    has_gaps = bits.u(1) == 1
    bits.ue(), bits.ue()
    return _Sps(number, planes, frame_num_bits, count_bits, bits.u(1) == 1, has_gaps)


def _skip_scaling(bits: _Bits, size: int) -> None:
    scale = 8
    for _ in range(size):
        scale = (scale + bits.se()) % 256
        if scale == 0:
            return


class _Hevc:
    def __init__(self, extradata: bytes):
        self._counter, self._sps, self._pps = _Counter(), {}, {}
        self._length_size, self._skips_leading = 0, False
        if extradata[:1] == b"\1":  # hvcC: arrays of parameter sets
            self._length_size = (extradata[21] & 3) + 1
            units, position = [], 23
            for _ in range(extradata[22]):
                count = int.from_bytes(extradata[position + 1 : position + 3], "big")
                found, position = _stored(extradata, position + 3, count)
                units += found
        else:
            units = _units(memoryview(extradata), 0)
        for unit in units:
            self._learn(unit)

    def place(self, packet: memoryview) -> int:
        for unit in _units(packet, self._length_size):
            if len(unit) < 3 or (unit[0] & 1) << 5 | unit[1] >> 3:  # another layer
                continue
            if unit[0] >> 1 < 32:
                return self._slice(unit[0] >> 1, unit[1] & 7, bytes(unit[2:_HEAD_BYTES]))
            self._learn(unit)
        raise UnknownOrder

    def _slice(self, kind: int, temporal: int, head: bytes) -> int:
        bits = _Bits(head)
        if not bits.u(1):  # the first of the picture
            raise UnknownOrder
        is_random_access, is_idr = 16 <= kind < 24, kind in (19, 20)
        if bits.u(is_random_access) and self._counter.sequence:
            raise UnknownOrder  # drops pictures before it that are not displayed yet
        number, has_output_flag, extra_bits = self._pps[bits.ue()]
        planes, count_bits = self._sps[number]
        bits.u(extra_bits)
        bits.ue()
        if has_output_flag and not bits.u(1):
            raise UnknownOrder  # never displayed
        bits.u(2 * planes)
        if is_random_access:
            self._skips_leading = kind < 19  # those of a broken link refer to what is not there
        if kind in _SKIPPED_LEADING and self._skips_leading:
            raise UnknownOrder
        if is_random_access and kind < 21:
            self._counter.begin()
        if is_idr:
            return self._counter.sequence
        is_reference = temporal == 1 and not 6 <= kind < 10 and not (kind < 16 and kind % 2 == 0)
        return self._counter.count(bits.u(count_bits), count_bits, is_reference)

    def _learn(self, unit: memoryview) -> None:
        kind = unit[0] >> 1 if len(unit) else 0
        if kind == _HEVC_SPS:
            number, planes, count_bits = _hevc_sps(_Bits(bytes(unit[2:])))
            self._sps[number] = planes, count_bits
        elif kind == _HEVC_PPS:
            bits = _Bits(bytes(unit[2:_HEAD_BYTES]))
            number, sps = bits.ue(), bits.ue()
            bits.u(1)
            self._pps[number] = sps, bits.u(1), bits.u(3)


def _hevc_sps(bits: _Bits) -> tuple[int, bool, int]:
    """(its number, whether color planes are coded apart, bits of the order count)."""
    bits.u(4)
    layers = bits.u(3)
    bits.u(1)
    bits.u(96)  # profile and level
    present = [(bits.u(1), bits.u(1)) for _ in range(layers)]
    if layers:
        bits.u(2 * (8 - layers))
    for profile, level in present:
        bits.u(88 * profile + 8 * level)
    number, chroma = bits.ue(), bits.ue()
    planes = chroma == 3 and bits.u(1) == 1
    bits.ue(), bits.ue()
    if bits.u(1):  # a window of the picture
        for _ in range(4):
            bits.ue()
    bits.ue(), bits.ue()
    return number, planes, bits.ue() + 4


class _AsStored:
    """Counts pictures; those of VP9 are looked at, whether each packet shows one and one only."""

    def __init__(self, is_vp9: bool):
        self._is_vp9, self._count = is_vp9, 0

    def place(self, packet: memoryview) -> int:
        if self._is_vp9 and sum(map(_is_shown, _vp9_frames(packet))) != 1:
            raise UnknownOrder
        self._count += 1
        return self._count


def _vp9_frames(packet: memoryview) -> list[memoryview]:
    """The frames of a packet: one, or those that the index at its end tells."""
    last = packet[-1]
    count, width = (last & 7) + 1, (last >> 3 & 3) + 1
    index = packet[-2 - count * width :]
    if last >> 5 != 6 or len(index) != 2 + count * width or index[0] != last:
        return [packet]
    frames, position = [], 0
    for number in range(count):
        size = int.from_bytes(index[1 + number * width : 1 + (number + 1) * width], "little")
        frames.append(packet[position : position + size])
        position += size
    return [frame for frame in frames if len(frame)]


def _is_shown(frame: memoryview) -> bool:
    """Reads the first byte: 2 bits of marker, profile (a bit more for 3), existing, kind, shown."""
    first = frame[0] << 8 | (frame[1] if len(frame) > 1 else 0)
    first = first << (5 if first >> 12 & 3 == 3 else 4) & 0xFFFF
    return bool(first >> 15 or first >> 13 & 1)
