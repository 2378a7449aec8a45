"""Images per second of the loader, from JPEG files to batches of uint8, beside PyTorch's
DataLoader with the transforms of timm and torchvision.

    pip install -e '.[loader,peers]'
    python experiments/benchmarks/loader.py
    python experiments/benchmarks/loader.py --workers=2 --turns=5    # with processes, by the clock
    python experiments/benchmarks/loader.py --plain        # without the extra `loader`

The files are made here: cuts of the two photographs that scikit-learn ships, 500 x 375 pixels,
quality 90, with noise for files of the size of ImageNet's, about 110 kB. The loaders are whole
ones: they read files, decode, augment and make batches. Contenders take turns batch by batch, so
that what else the machine does hits all alike. Without workers, times are CPU seconds of this
process, in one thread; a ratio is the median over the turns. `fast` is the switch of our transforms
(`--config.data.transform.fast=True`), which changes pixels.

timm's is the form of its prefetcher, in which batches are uint8 and the device normalizes, as ours
do.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from swin_jax.core.errors import install
from swin_jax.data import sources
from swin_jax.data.image import transforms
from swin_jax.data.pipeline import EvalData, TrainData

SIZE, WIDTH, HEIGHT, QUALITY, NOISE = 224, 500, 375, 90, 17.0
RECORDS = 2**17  # that the files stand for: shuffling a few takes grain longer than a million
AUGMENT = "rand-m9-mstd0.5-inc1"
RECIPES = ("training with RandAugment", "training", "evaluation")
OURS, FAST = "swin_jax", "swin_jax, fast"
TIMM, TORCHVISION = "timm", "torchvision"
PEERS = (TIMM, TORCHVISION)
EXTRA = ("simplejpeg", "cykooz_resizer")
PACKAGES = ("pillow", "simplejpeg", "cykooz-resizer", "grain", "torch", "timm", "torchvision")


def write_files(folder: Path, count: int) -> float:
    """Writes photographs into two classes of a folder.

    Returns:
        The mean size of the files in bytes.
    """
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    sizes = []
    for index in range(count):
        whole = photographs[index % 2]
        high = int(whole.height * rng.uniform(0.78, 1))
        wide = high * WIDTH // HEIGHT
        left = int(rng.integers(0, whole.width - wide + 1))
        top = int(rng.integers(0, whole.height - high + 1))
        box = (left, top, left + wide, top + high)
        cut = whole.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box)
        noisy = np.asarray(cut, np.float32) + rng.normal(0, NOISE, (HEIGHT, WIDTH, 1))
        path = folder / f"class{index % 2}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path, quality=QUALITY)
        sizes.append(path.stat().st_size)
    return statistics.mean(sizes)


def ours(folder: Path, recipe: str, batch: int, workers: int, fast: bool) -> Iterator[np.ndarray]:
    """Our batches without end, uint8 (batch, 224, 224, 3)."""
    source = sources.image_folder(str(folder), conversion="reference")
    repeats = RECORDS // len(source)
    source = dataclasses.replace(
        source, paths=source.paths * repeats, labels=source.labels * repeats
    )
    read_ahead = dict(num_workers=workers, num_threads=0, prefetch=2 if workers else 0)
    if recipe == "evaluation":
        data = EvalData(source, transforms.eval_transform(SIZE, fast=fast), batch, **read_ahead)
        while True:
            for found in data.batches(batch, range(batch)):
                yield found["image"]
    augment = AUGMENT if "RandAugment" in recipe else ""
    transform = transforms.train_transform(SIZE, auto_augment=augment, fast=fast)
    for found in TrainData(source, transform, batch, **read_ahead).batches(0, range(batch)):
        yield found["image"]


def timm_transform(recipe: str) -> Callable[[Image.Image], Any]:
    """timm's transform with the settings of Swin's recipe."""
    from timm.data import auto_augment, create_transform

    # timm 1.0.31 asks for 0 bits at the strongest magnitude, which Pillow 13 refuses.
    auto_augment.NAME_TO_OP["PosterizeIncreasing"] = _posterize
    shared = dict(input_size=SIZE, interpolation="bicubic", use_prefetcher=True)
    if recipe == "evaluation":
        return create_transform(**shared, crop_pct=224 / 256)
    augment = AUGMENT if "RandAugment" in recipe else None
    return create_transform(**shared, is_training=True, auto_augment=augment, color_jitter=None)


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    return ImageOps.posterize(image, max(bits, 1))


def torchvision_transform(recipe: str) -> Callable[[Image.Image], Any]:
    """torchvision's own transforms, with its form of RandAugment."""
    from torchvision import transforms as t

    bicubic = t.InterpolationMode.BICUBIC
    if recipe == "evaluation":
        steps = [t.Resize(256, bicubic), t.CenterCrop(SIZE)]
    else:
        steps = [t.RandomResizedCrop(SIZE, interpolation=bicubic), t.RandomHorizontalFlip()]
    if "RandAugment" in recipe:
        steps.append(t.RandAugment(interpolation=bicubic))
    return t.Compose([*steps, t.PILToTensor()])


def peer(folder: Path, recipe: str, batch: int, workers: int, name: str) -> Iterator[Any]:
    """Batches of PyTorch's DataLoader without end, uint8 (batch, 3, 224, 224)."""
    from timm.data import ImageDataset
    from timm.data.loader import fast_collate
    from torch.utils.data import ConcatDataset, DataLoader

    make = timm_transform if name == TIMM else torchvision_transform
    files = ImageDataset(str(folder), transform=make(recipe))
    data = ConcatDataset([files] * (RECORDS // len(files)))
    options = dict(num_workers=workers, collate_fn=fast_collate, drop_last=True)
    loader = DataLoader(data, batch, shuffle=recipe != "evaluation", **options)
    while True:
        for images, _ in loader:
            yield images


def missing_peers() -> str:
    """Why the peers cannot be measured; '' if they can."""
    try:
        import torch
    except ImportError:
        return f"PyTorch is not installed: {install('peers')}"
    torch.set_num_threads(1)
    with contextlib.suppress(RuntimeError):
        # torchvision 0.29 beside an older PyTorch lacks its own operators, and only asks for these.
        torch.library.define("torchvision::nms", "(Tensor d, Tensor s, float t) -> Tensor")
        torch.library.define("torchvision::qnms", "(Tensor d, Tensor s, float t) -> Tensor")
    try:
        import timm  # noqa: F401
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:
        return f"timm and torchvision cannot be imported ({error}): {install('peers')}"
    return ""


def measure(
    makers: dict[str, Callable[[], Iterator]],
    batch: int,
    turns: int,
    clock: Callable[[], float],
    reference: str = TIMM,
) -> dict[str, dict[str, float]]:
    """Times batches in turns, in this process; returns the same as `summary`."""
    loaders = {name: make() for name, make in makers.items()}
    for loader in loaders.values():
        next(loader)
        next(loader)
    times: dict[str, list[float]] = {name: [] for name in loaders}
    for turn in range(turns):
        for name in _rotated(list(loaders), turn):
            start = clock()
            next(loaders[name])
            times[name].append((clock() - start) / batch)
    for loader in loaders.values():
        loader.close()
    return summary(times, reference)


def measure_workers(
    makers: dict[str, Callable[[], Iterator]], batch: int, turns: int, stretch: int
) -> dict[str, dict[str, float]]:
    """Times stretches of batches by the clock, of one loader at a time, whose workers would read
    ahead while others are timed; returns the same as `summary`.
    """
    times: dict[str, list[float]] = {name: [] for name in makers}
    for turn in range(turns):
        for name in _rotated(list(makers), turn):
            loader = makers[name]()
            for _ in range(stretch):  # until nothing that was read ahead is left
                next(loader)
            start = time.perf_counter()
            for _ in range(stretch):
                next(loader)
            times[name].append((time.perf_counter() - start) / (batch * stretch))
            loader.close()
    return summary(times)


def summary(times: dict[str, list[float]], reference: str = TIMM) -> dict[str, dict[str, float]]:
    """Sums up seconds per image, turn by turn.

    Returns:
        For each name 'ms' of an image, 'per_s' and, where the reference was measured,
        'ratio', the speed as a multiple of the reference's; medians.
    """
    found = {}
    for name, seconds in times.items():
        median = statistics.median(seconds)
        found[name] = dict(ms=1000 * median, per_s=1 / median)
        if reference in times:
            ratios = (theirs / mine for theirs, mine in zip(times[reference], seconds))
            found[name]["ratio"] = statistics.median(ratios)
    return found


def _rotated(names: list[str], turn: int) -> list[str]:
    start = turn % len(names)
    return names[start:] + names[:start]


def contenders(
    folder: Path, recipe: str, batch: int, workers: int, with_peers: bool
) -> dict[str, Callable[[], Iterator]]:
    """{name: a function that starts endless batches}."""
    rows = (folder, recipe, batch, workers)
    found = {
        OURS: functools.partial(ours, *rows, False),
        FAST: functools.partial(ours, *rows, True),
    }
    if with_peers:
        found |= {name: functools.partial(peer, *rows, name) for name in PEERS}
    return found


def versions() -> dict[str, str]:
    """Versions of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def table(
    results: dict[str, dict[str, dict[str, float]]], example: str = "image", reference: str = TIMM
) -> str:
    """The results as a table of Markdown."""
    columns = f"ms per {example} | {example}s/s | times {reference}"
    lines = [f"| | loader | {columns} |", "|---|---|---|---|---|"]
    for recipe, rows in results.items():
        for name, row in rows.items():
            ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
            numbers = f"{row['ms']:.2f} | {row['per_s']:.3g} | {ratio}"
            lines.append(f"| {recipe} | {name} | {numbers} |")
    return "\n".join(lines)


def draw(
    results: dict[str, dict[str, dict[str, float]]], path: str, example: str = "image"
) -> None:
    """Draws images or clips per second as bars."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    names = list(next(iter(results.values())))
    for place, name in enumerate(names):
        heights = [rows[name]["per_s"] for rows in results.values()]
        at = np.arange(len(results)) + 0.8 * place / len(names)
        axes.bar(at, heights, 0.8 / len(names), label=name)
    axes.set_xticks(np.arange(len(results)) + 0.4 - 0.4 / len(names), list(results))
    axes.set_ylabel(f"{example}s/s")
    axes.legend()
    figure.savefig(path, dpi=120)


def parse_flags(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=64, help="files that are made")
    parser.add_argument("--batch", type=int, default=16, help="images of a batch")
    parser.add_argument("--turns", type=int, default=40, help="batches of each contender")
    parser.add_argument("--workers", type=int, default=0, help="loader processes; 0: this one")
    parser.add_argument("--stretch", type=int, default=16, help="batches of a turn, with workers")
    parser.add_argument("--plain", action="store_true", help="do without the extra `loader`")
    parser.add_argument("--only", help="recipes whose name contains this")
    parser.add_argument("--json", help="file that the results are written to")
    parser.add_argument("--chart", help="PNG that the bars are drawn in")
    flags = parser.parse_args(arguments)
    if min(flags.images // 2, flags.batch, flags.turns, flags.stretch) < 1 or flags.workers < 0:
        parser.error("--images must be at least 2, --batch, --turns and --stretch at least 1")
    if flags.batch > flags.images:
        parser.error(f"--batch={flags.batch} must not be more than --images={flags.images}")
    return flags


def main(arguments: list[str] | None = None) -> dict[str, dict[str, dict[str, float]]]:
    """Measures and prints; returns {recipe: {loader: numbers}}."""
    flags = parse_flags(arguments)
    if flags.plain:
        sys.modules.update(dict.fromkeys(EXTRA))
    lacking = missing_peers()
    if lacking:
        print(f"{' and '.join(PEERS)} are left out: {lacking}")
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = write_files(folder, flags.images)
        for recipe in RECIPES:
            if flags.only and flags.only not in recipe:
                continue
            makers = contenders(folder, recipe, flags.batch, flags.workers, not lacking)
            if flags.workers:
                found = measure_workers(makers, flags.batch, flags.turns, flags.stretch)
            else:
                found = measure(makers, flags.batch, flags.turns, time.process_time)
            results[recipe] = found
    print(table(results))
    about = dict(
        machine=f"{os.cpu_count()} cores, {platform.machine()}",
        python=platform.python_version(),
        versions=versions(),
        workers=flags.workers,
        extra=not flags.plain,
        kilobytes_per_file=round(size / 1000),
    )
    print(json.dumps(about))
    if flags.json:
        Path(flags.json).write_text(json.dumps(about | {"results": results}, indent=1) + "\n")
    if flags.chart and results:
        draw(results, flags.chart)
    return results


if __name__ == "__main__":
    main()
