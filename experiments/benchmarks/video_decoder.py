"""Clips per second and core of the video decoder, beside OpenCV and decoding in order,
on files that it makes itself.

    python experiments/benchmarks/video_decoder.py
    python experiments/benchmarks/video_decoder.py --clips=20 --folder=/tmp/decoder_benchmark

Three H.264 files of 340 x 256 pixels: 300 frames with a key frame every 12, 300 with one every 250,
and 60 seconds with one every 250. A clip is 32 frames, every second one, from a random start. For
every clip each contender opens the file, as training does, decodes in one thread and gives RGB
arrays, which are compared. Contenders take turns clip by clip on one core, so that what else the
machine does hits all alike; times are CPU seconds, of which the median counts.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tqdm

from swin_jax.core.errors import UserError, extra
from swin_jax.data.video.decode import Reader
from swin_jax.data.video.frame_indices import dense_train_indices

WIDTH, HEIGHT, RATE = 340, 256, 30
FILES = {
    "10 s, key frame every 12": (300, 12),
    "10 s, every 250": (300, 250),
    "60 s, every 250": (1800, 250),
}
BARS = {"10 s, key frame every 12": 1.5, "10 s, every 250": 1.0, "60 s, every 250": 1.5}
OURS = "swin_jax"
PEERS = ("OpenCV in order", "PyAV in order")  # what the bars are measured against


def write_video(path: Path, count: int, gop: int) -> None:
    """Writes a film of a camera that wanders over a textured wall,
    with a moving disc and sensor noise.
    """
    import av
    import cv2

    rng = np.random.default_rng(0)
    wall = cv2.GaussianBlur(
        rng.integers(0, 256, (2 * HEIGHT, 2 * WIDTH, 3)).astype(np.uint8), (0, 0), 3
    )
    wall = cv2.normalize(wall, None, 0, 255, cv2.NORM_MINMAX)
    part = path.with_suffix(".part")
    with av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"g": str(gop), "crf": "23", "preset": "medium", "threads": "1"}
        for index in tqdm.trange(count, desc=f"encoding {path.name}"):
            top = int(HEIGHT / 2 * (1 + np.sin(index / 40)))
            left = int(WIDTH / 2 * (1 + np.cos(index / 31)))
            frame = wall[top : top + HEIGHT, left : left + WIDTH].copy()
            center = (int(WIDTH * (index * 0.013 % 1)), int(HEIGHT * (index * 0.007 % 1)))
            cv2.circle(frame, center, HEIGHT // 6, (index % 256, 40, 200), -1)
            frame = cv2.add(frame, rng.integers(0, 6, frame.shape).astype(np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    part.replace(path)


def ours(path: str, indices: np.ndarray) -> np.ndarray:
    """Seeks, and decodes what is needed."""
    with Reader(path) as reader:
        len(reader)  # training needs the number of frames to draw a start
        return reader.get(indices)


def pyav_in_order(path: str, indices: np.ndarray) -> np.ndarray:
    """Decodes from the first frame to the last wanted one."""
    return _pyav(path, indices, whole=False)


def pyav_whole(path: str, indices: np.ndarray) -> np.ndarray:
    """Decodes the whole file."""
    return _pyav(path, indices, whole=True)


def opencv_in_order(path: str, indices: np.ndarray) -> np.ndarray:
    """Grabs from the first frame on, and retrieves the wanted ones."""
    return _opencv(path, indices, seek=False)


def opencv_seek(path: str, indices: np.ndarray) -> np.ndarray:
    """Sets the position, which OpenCV estimates from the frame rate:
    right for these files, wrong for uneven ones.
    """
    return _opencv(path, indices, seek=True)


CONTENDERS: dict[str, Callable[[str, np.ndarray], np.ndarray]] = {
    OURS: ours,
    "PyAV in order": pyav_in_order,
    "PyAV whole file": pyav_whole,
    "OpenCV in order": opencv_in_order,
    "OpenCV seek": opencv_seek,
}


def measure(path: str, count: int, clips: int) -> dict[str, float]:
    """Median CPU seconds of a clip by contender; fails where a contender's frames differ
    from a full decode.
    """
    rng = np.random.default_rng(0)
    seconds = {name: [] for name in CONTENDERS}
    names = list(CONTENDERS)
    for clip in tqdm.trange(clips, desc=Path(path).name):
        indices = dense_train_indices(count, rng)[0]
        frames = {}
        for name in names[clip % len(names) :] + names[: clip % len(names)]:
            start = time.process_time()
            frames[name] = CONTENDERS[name](path, indices)
            seconds[name].append(time.process_time() - start)
        for name in names:
            assert np.array_equal(frames[name], frames["PyAV whole file"]), (
                f"the frames of {name} differ"
            )
    return {name: statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=25, help="clips of each file")
    parser.add_argument("--folder", help="folder of the files (default: a temporary one)")
    flags = parser.parse_args()
    if flags.clips < 1:
        parser.error("--clips must be at least 1")
    try:
        with extra("video", "this decodes with PyAV and OpenCV"):
            import av  # noqa: F401
            import cv2
    except UserError as error:
        parser.error(str(error))
    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(flags.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(
            f"| file | {' | '.join(CONTENDERS)} | times faster than the faster "
            f"of {' and '.join(PEERS)} |"
        )
        print("| --- |" + " --- |" * (len(CONTENDERS) + 1), flush=True)
        for name, (count, gop) in FILES.items():
            path = folder / f"frames_{count}_key_{gop}.mp4"
            if not path.is_file():
                write_video(path, count, gop)
            seconds = measure(str(path), count, flags.clips)
            ratio = min(seconds[peer] for peer in PEERS) / seconds[OURS]
            rates = " | ".join(f"{1 / seconds[contender]:.1f}" for contender in CONTENDERS)
            print(f"| {name} | {rates} | {ratio:.2f} (bar: {BARS[name]}) |", flush=True)


def _pyav(path: str, indices: np.ndarray, whole: bool) -> np.ndarray:
    import av

    frames, wanted = [], set(indices.tolist())
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                frames.append(frame.to_ndarray(format="rgb24"))
            if number == indices[-1] and not whole:
                break
    return np.stack(frames)


def _opencv(path: str, indices: np.ndarray, seek: bool) -> np.ndarray:
    import cv2

    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    number, frames, wanted = 0, [], set(indices.tolist())
    if seek:
        number = int(indices[0])
        capture.set(cv2.CAP_PROP_POS_FRAMES, number)
    for position in range(number, indices[-1] + 1):
        capture.grab()
        if position in wanted:
            frames.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(frames)


if __name__ == "__main__":
    main()
