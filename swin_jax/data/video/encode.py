"""Frames and pictures as files."""

import importlib.util
import io
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from PIL import Image

_RATE = 12  # frames per second


def encode_png(image: np.ndarray) -> bytes:
    """A picture uint8 (H, W, 3) as a PNG file."""
    Image.fromarray(image).save(file := io.BytesIO(), "png")
    return file.getvalue()


def encode_video(frames: Sequence[np.ndarray]) -> tuple[str, bytes]:
    """Frames uint8 (H, W, 3) as a file: H.264 in MP4, or a GIF where PyAV is not installed.

    Returns:
        (suffix, bytes): '.mp4' or '.gif', and the file.
        An odd last row or column is left out of an MP4.
    """
    if importlib.util.find_spec("av") is None:
        return ".gif", _gif(frames)
    return ".mp4", _mp4(frames)


def _gif(frames: Sequence[np.ndarray]) -> bytes:
    first, *others = map(Image.fromarray, frames)
    first.save(
        file := io.BytesIO(),
        "gif",
        save_all=True,
        append_images=others,
        duration=1000 // _RATE,
        loop=0,
    )
    return file.getvalue()


def _mp4(frames: Sequence[np.ndarray]) -> bytes:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=Fraction(_RATE))
        stream.height, stream.width = (size - size % 2 for size in frames[0].shape[:2])
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
        for frame in frames:
            shown = np.ascontiguousarray(frame[: stream.height, : stream.width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()
