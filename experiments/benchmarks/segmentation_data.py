"""Milliseconds per image of the transforms of the 160k recipe, on one core and files that it
makes itself.

    python experiments/benchmarks/segmentation_data.py
    python experiments/benchmarks/segmentation_data.py --images=100 --crop=640

The files are the two photographs that scikit-learn ships, at 683 x 512 pixels, the usual size in
ADE20K, as JPEG, with labels of 20 stripes as PNG. Each step is timed on the same images and random
choices; times are CPU seconds of this process, of which the median counts.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from swin_jax.data.segmentation import photometric, resizing, transforms
from swin_jax.data.segmentation.source import LabeledFiles

SIZE, CLASSES = (512, 683), 20
SCALE, RATIO = (2048, 512), (0.5, 2.0)


def write_files(folder: Path) -> LabeledFiles:
    """Two images with their labels, as a source."""
    stripes = np.broadcast_to(np.arange(SIZE[1]) * CLASSES // SIZE[1], SIZE).astype(np.uint8)
    images, labels = ("china.jpg", "flower.jpg"), ("china.png", "flower.png")
    for image, label in zip(images, labels):
        photo = Image.fromarray(load_sample_image(image)).resize(SIZE[::-1])
        photo.save(folder / image, quality=90)
        Image.fromarray(stripes).save(folder / label)
    names = tuple(f"stripe {number}" for number in range(CLASSES))
    return LabeledFiles(str(folder), images, labels, names)


def measure(source: LabeledFiles, count: int, crop: int) -> dict[str, float]:
    """{step: median CPU milliseconds of an image}."""
    whole = transforms.train_transform(crop, SCALE, RATIO)
    times = {name: [] for name in ("read", "resize and crop", "distort", "all but reading", "all")}
    for index in range(count):
        start = time.process_time()
        record = source[index % len(source)]
        image, label = np.asarray(record["image"]), record["label"]
        read = time.process_time()
        rng = np.random.default_rng(index)
        scale = transforms.random_scale(SCALE, RATIO, rng)
        resized = resizing.fitted_size(label.shape, scale)
        box = transforms.random_crop(label, resized, (crop, crop), 0.75, rng)
        image = resizing.resize_image(image, resized, box)
        resizing.resize_labels(label, resized, box)
        cropped = time.process_time()
        photometric.distort(image, photometric.draw(rng))
        distorted = time.process_time()
        whole(record, np.random.default_rng(index))
        end = time.process_time()
        steps = (read - start, cropped - read, distorted - cropped, end - distorted)
        for name, seconds in zip(times, (*steps, read - start + end - distorted)):
            times[name].append(1000 * seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100, help="images that are transformed")
    parser.add_argument("--crop", type=int, default=512, help="side of the crop in pixels")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(write_files(Path(folder)), flags.images, flags.crop)
    for name, milliseconds in found.items():
        print(f"{name:16} {milliseconds:6.1f} ms")
    print(f"{1000 / found['all']:.0f} images/s of one core")


if __name__ == "__main__":
    main()
