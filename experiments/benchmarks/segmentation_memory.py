"""Peak memory of labels of a large picture by sliding windows, of a Swin-T with 150 classes.

    python experiments/benchmarks/segmentation_memory.py --height=1500 --width=2000

Weights and picture are random, and the picture is not resized. The memory is that of the process.
"""

import argparse
import resource
import time

import numpy as np

import swin_jax
from swin_jax.inference.segmentation import Method, segment


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--height", type=int, default=1500)
    parser.add_argument("--width", type=int, default=2000)
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--stride", type=int, default=341)
    arguments = parser.parse_args()
    model, variables = swin_jax.load("upernet_swin_tiny_patch4_window7_512x512")
    method = Method(mode="slide", crop=arguments.crop, stride=arguments.stride)
    size = arguments.height, arguments.width
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    start, work = time.time(), time.process_time()
    found = segment(model, variables, picture, method, swin_jax.preprocess(model, scale=None))
    assert found.shape == size
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    windows = len(method.boxes(size))
    seconds, work = time.time() - start, time.process_time() - work
    print(f"{windows} windows: {used:.2f} GiB, {seconds:.0f} s, {work:.0f} s of CPU time")


if __name__ == "__main__":
    main()
