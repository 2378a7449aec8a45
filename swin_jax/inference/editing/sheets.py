"""Pictures of edits side by side, and a video along the strength of one."""

import importlib.util
import io
import os
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from swin_jax.core import storage
from swin_jax.inference import contact_sheet

_SHOWN = 128  # pixels that smaller frames are enlarged to, in whole steps
_FRAMES = 12  # per second


def draw_pairs(
    path: str | os.PathLike,
    names: Sequence[str],
    pairs: Sequence[Sequence[np.ndarray]],
    headings: Sequence[str],
    title: str,
) -> None:
    """Writes a sheet with a line for each edit.

    Args:
        path: A picture file.
        names: Of what was edited.
        pairs: For each the pictures uint8 (H, W, 3) beside each other: the original, before, after.
        headings: Of the columns.
        title: Above all.
    """
    cells = []
    for name, pictures in zip(names, pairs, strict=True):
        cells += [(picture, f"{contact_sheet.short(name)}  {heading}") for picture, heading in zip(pictures, headings)]
    contact_sheet.draw(path, cells, title, columns=len(headings) * max(1, 6 // len(headings)))


def draw_grid(path: str | os.PathLike, cells: Sequence[tuple[np.ndarray, str]], columns: int, title: str) -> None:
    """Writes a sheet of pictures and their texts, row by row."""
    contact_sheet.draw(path, cells, title, columns=columns)


def write_video(folder: os.PathLike, name: str, frames: Sequence[np.ndarray]) -> str:
    """Writes frames uint8 (H, W, 3) as NAME.mp4, or as NAME.gif where PyAV is not installed.

    Returns:
        The name of the file.
    """
    times = max(-(-_SHOWN // frames[0].shape[0]), 1)
    frames = [np.ascontiguousarray(frame.repeat(times, axis=0).repeat(times, axis=1)) for frame in frames]
    if importlib.util.find_spec("av") is None:
        storage.write(folder / f"{name}.gif", _gif(frames))
        return f"{name}.gif"
    storage.write(folder / f"{name}.mp4", _mp4(frames))
    return f"{name}.mp4"


def _gif(frames: Sequence[np.ndarray]) -> bytes:
    from PIL import Image

    first, *others = map(Image.fromarray, frames)
    first.save(file := io.BytesIO(), "gif", save_all=True, append_images=others, duration=1000 // _FRAMES, loop=0)
    return file.getvalue()


def _mp4(frames: Sequence[np.ndarray]) -> bytes:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=Fraction(_FRAMES))
        stream.height, stream.width = (size - size % 2 for size in frames[0].shape[:2])
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
        for frame in frames:
            shown = frame[: stream.height, : stream.width]
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    return file.getvalue()


def png(image: np.ndarray) -> bytes:
    """A picture uint8 (H, W, 3) as a PNG file."""
    from PIL import Image

    Image.fromarray(image).save(file := io.BytesIO(), "png")
    return file.getvalue()
