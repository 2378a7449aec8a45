"""Clips per second of the loader of videos, from H.264 files to batches of uint8, beside PyTorch's
DataLoader with PyAV and the transforms of torchvision.

    pip install -e '.[video,peers]'
    python experiments/benchmarks/video_loader.py

The files are those of `video_decoder.py` with 300 frames. A clip is 32 frames, every second one: in
training from a random start, its short side resized to 256 pixels, cropped at random to 224 x 224
and flipped at random; in evaluation from the middle, and cropped there. PyTorch's side decodes each
file from its first frame, as torchvision's reader of videos did. Both work in one thread of this
process and take turns batch by batch; times are CPU seconds, a ratio is the median over the turns.
"""

import argparse
import dataclasses
import functools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks import loader
from experiments.benchmarks.video_decoder import FILES, pyav_in_order, write_video
from swin_jax.core.errors import UserError, extra
from swin_jax.data.pipeline import EvalData, TrainData
from swin_jax.data.video import frame_indices, sources, transforms

SIZE, SHORT_SIDE, RECORDS = 224, 256, 2**14
RECIPES = ("training", "evaluation")
OURS, PEER = "swin_jax", "PyAV and torchvision"


def write_files(folder: Path, copies: int) -> int:
    """Writes the videos of 300 frames into two classes of a folder, each several times.

    Returns:
        The number of frames of each.
    """
    (count, *_), gops = zip(*(sizes for sizes in FILES.values() if sizes[0] == 300))
    for gop in gops:
        path = folder / f"key_{gop}" / "0.mp4"
        path.parent.mkdir(parents=True)
        write_video(path, count, gop)
        for copy in range(1, copies):
            path.with_stem(str(copy)).write_bytes(path.read_bytes())
    return count


def ours(folder: Path, recipe: str, batch: int) -> Iterator[np.ndarray]:
    """Our batches without end, uint8 (batch, 32, 224, 224, 3)."""
    source = sources.video_folder(str(folder))
    here = dict(num_workers=0, num_threads=0, prefetch=0)
    if recipe == "evaluation":
        data = EvalData(source, transforms.video_eval_transform(SIZE), batch, **here)
        while True:
            for found in data.batches(batch, range(batch)):
                yield found["video"]
    repeats = RECORDS // len(source)
    source = dataclasses.replace(
        source, paths=source.paths * repeats, labels=source.labels * repeats
    )
    data = TrainData(source, transforms.video_train_transform(SIZE), batch, **here)
    for found in data.batches(0, range(batch)):
        yield found["video"]


class Clips:
    """A data set of PyTorch: clips of files, uint8 (32, 3, 224, 224)."""

    def __init__(self, folder: Path, recipe: str, count: int):
        from torchvision.transforms import v2

        self.paths, self.count = [str(path) for path in sorted(folder.glob("*/*.mp4"))], count
        self.trains, self.rng = recipe == "training", np.random.default_rng(0)
        crop = [v2.CenterCrop(SIZE)]
        if self.trains:
            crop = [v2.RandomResizedCrop(SIZE, scale=(0.08, 1.0)), v2.RandomHorizontalFlip()]
        self.transform = v2.Compose([v2.Resize(SHORT_SIDE), *crop])

    def __len__(self) -> int:
        return RECORDS if self.trains else len(self.paths)

    def __getitem__(self, index: int):
        import torch

        if self.trains:
            indices = frame_indices.dense_train_indices(self.count, self.rng)[0]
        else:
            indices = frame_indices.dense_test_indices(self.count, 1)[0]
        frames = pyav_in_order(self.paths[index % len(self.paths)], indices)
        return self.transform(torch.from_numpy(frames).permute(0, 3, 1, 2))


def peer(folder: Path, recipe: str, batch: int, count: int) -> Iterator[Any]:
    """Batches of PyTorch's DataLoader without end, uint8 (batch, 32, 3, 224, 224)."""
    from torch.utils.data import DataLoader

    clips = Clips(folder, recipe, count)
    batches = DataLoader(clips, batch, shuffle=clips.trains, drop_last=clips.trains)
    while True:
        yield from batches


def parse_flags(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4, help="clips of a batch")
    parser.add_argument("--turns", type=int, default=15, help="batches of each contender")
    parser.add_argument("--json", help="file that the results are written to")
    parser.add_argument("--chart", help="PNG that the bars are drawn in")
    flags = parser.parse_args(arguments)
    if min(flags.batch, flags.turns) < 1:
        parser.error("--batch and --turns must be at least 1")
    try:
        with extra("video", "this decodes with PyAV and OpenCV"):
            import av  # noqa: F401
            import cv2
    except UserError as error:
        parser.error(str(error))
    cv2.setNumThreads(1)
    return flags


def main(arguments: list[str] | None = None) -> dict[str, dict[str, dict[str, float]]]:
    """Measures and prints; returns {recipe: {loader: numbers}}."""
    flags = parse_flags(arguments)
    lacking = loader.missing_peers()
    if lacking:
        print(f"{PEER} are left out: {lacking}")
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = write_files(folder, flags.batch)
        for recipe in RECIPES:
            rows = (folder, recipe, flags.batch)
            makers = {OURS: functools.partial(ours, *rows)}
            if not lacking:
                makers[PEER] = functools.partial(peer, *rows, count)
            results[recipe] = loader.measure(
                makers, flags.batch, flags.turns, time.process_time, reference=PEER
            )
    print(loader.table(results, "clip", PEER))
    if flags.json:
        about = {"versions": loader.versions(), "results": results}
        Path(flags.json).write_text(json.dumps(about, indent=1) + "\n")
    if flags.chart:
        loader.draw(results, flags.chart, "clip")
    return results


if __name__ == "__main__":
    main()
