"""Makes the small video files that the tests of video data read, whole and damaged, and decodes them in full."""

import pathlib
import struct
from fractions import Fraction

import av
import numpy as np


def pictures(count: int, width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    """Noise that moves, uint8 (count, height, width, 3): no two frames are alike after compression."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 4 + 1, width // 4 + 1 + count, 3)).astype(np.uint8)
    picture = coarse.repeat(4, 0).repeat(4, 1)
    return np.stack([picture[:height, 3 * i : 3 * i + width] for i in range(count)])


def make(path, count=30, gop=12, width=64, height=48, codec="libx264", pixels="yuv420p", times=None, seed=0, **x264):
    """Writes a video; `times`, in 1/600 s, makes its frame rate variable; returns the path as a string."""
    path = str(path)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, pixels, gop
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 600)
        parameters = ":".join(f"{key.replace('_', '-')}={value}" for key, value in x264.items())
        if codec == "libx264":
            stream.options = {"x264-params": f"scenecut=0:keyint={gop}:{parameters}"}
        elif codec == "libx265":
            stream.options = {"x265-params": f"log-level=none:keyint={gop}:open-gop=1:pools=none"}
        for index, picture in enumerate(pictures(count, width, height, seed)):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 600)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def make_audio(path, cover=False) -> str:
    """Writes a second of noise, on demand with a cover picture, which containers store as a video stream."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        noise = np.random.default_rng(0).normal(size=(1, 16000)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, "fltp", "mono")
        frame.sample_rate = 16000
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pictures(1)[0], "rgb24")))
            container.mux(picture.encode())
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def make_without_frames(path) -> str:
    """Writes an mp4 whose video track has no frame."""
    with av.open(str(path), "w", options={"movflags": "empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    return str(path)


def remux(source, target, skip=0, lost=(), **options) -> str:
    """Copies packets from number `skip` on, without those in `lost`, into a new file; nothing is encoded again."""
    with av.open(str(source)) as original, av.open(str(target), "w", options=options) as container:
        stream = container.add_stream_from_template(original.streams.video[0])
        for number, packet in enumerate(original.demux(video=0)):
            if number >= skip and number not in lost and packet.size:
                packet.stream = stream
                container.mux(packet)
    return str(target)


def retime(source, target, times) -> str:
    """Copies a video whose packets are displayed at `times(packets)`, one for each in decoding order."""
    with av.open(str(source)) as original, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(original.streams.video[0])
        packets = [packet for packet in original.demux(video=0) if packet.size]
        early = 40 * packets[0].duration  # muxers want no packet to be displayed before it is decoded
        for packet, time in zip(packets, times(packets)):
            packet.pts, packet.dts, packet.stream = time, packet.dts - early, stream
            container.mux(packet)
    return str(target)


def cut(source, target, share=0.6) -> str:
    """Copies the first bytes only."""
    data = pathlib.Path(source).read_bytes()
    pathlib.Path(target).write_bytes(data[: int(share * len(data))])
    return str(target)


def damage(source, target, share=0.5, count=200) -> str:
    """Copies a file with some bytes changed."""
    data = bytearray(pathlib.Path(source).read_bytes())
    for position in range(int(share * len(data)), int(share * len(data)) + count):
        data[position] ^= 0x5A
    pathlib.Path(target).write_bytes(data)
    return str(target)


def damage_picture(source, target) -> str:
    """Copies a file with the last third of its largest packet changed, which is not a header."""
    with av.open(str(source)) as container:
        packet = max(container.demux(video=0), key=lambda packet: packet.size)
        start, third = packet.pos + 2 * packet.size // 3, packet.size // 3
    data = bytearray(pathlib.Path(source).read_bytes())
    data[start : start + third] = bytes(byte ^ 0x5A for byte in data[start : start + third])
    pathlib.Path(target).write_bytes(data)
    return str(target)


def rotate(source, target, matrix) -> str:
    """Copies an mp4 with another (a, b, c, d) in its track's transformation matrix."""
    data = bytearray(pathlib.Path(source).read_bytes())
    start = data.index(b"tkhd") + 44  # version 0
    a, b, c, d = (value << 16 for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    pathlib.Path(target).write_bytes(data)
    return str(target)


def orient(source, how) -> bytes:
    """A raw stream of H.264 whose key frames tell how they are to be turned, as options of h264_metadata."""
    from av.bitstream import BitStreamFilterContext

    found = b""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        told = BitStreamFilterContext(f"h264_metadata=display_orientation=insert:{how}", stream)
        for packet in container.demux(stream):
            for changed in told.filter(packet if packet.size else None):
                found += bytes(changed)
    return found


def start_later(source, target, ticks) -> str:
    """Copies an mp4 with an edit list that begins `ticks` of the track's time later."""
    data = bytearray(pathlib.Path(source).read_bytes())
    entry = data.index(b"elst") + 12  # version 0, one entry: duration, time
    duration, time = struct.unpack(">Ii", data[entry : entry + 8])
    data[entry : entry + 8] = struct.pack(">Ii", duration, time + ticks)
    pathlib.Path(target).write_bytes(data)
    return str(target)


def edit(source, target, edits) -> str:
    """Copies an mp4 with another edit list: (duration in the movie's time, begin in the track's) of each edit."""
    data = bytearray(pathlib.Path(source).read_bytes())
    begin = data.index(b"elst") - 4
    old = struct.unpack_from(">I", data, begin)[0]
    new = struct.pack(">I4sII", 16 + 12 * len(edits), b"elst", 0, len(edits))
    data[begin : begin + old] = new + b"".join(struct.pack(">IiHH", *times, 1, 0) for times in edits)
    for box in (b"edts", b"trak", b"moov"):  # which lie behind the pictures, so that these stay where they were
        place = data.rindex(box, 0, begin) - 4
        struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] + 16 + 12 * len(edits) - old)
    pathlib.Path(target).write_bytes(data)
    return str(target)


def decode(path) -> np.ndarray:
    """Every frame by PyAV's plain decoding in order, uint8 (n, H, W, 3)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
