"""The pictures of a generator of avatars,
judged by the attribute classifier: rates, distances, nearest neighbors.

    python experiments/studies/avatar_samples.py --data_dir=data --generator=runs/avatars \
        --classifier=runs/attributes --out=runs/avatar_samples

rates: how often each attribute occurs in samples and in held-out avatars, by the same classifier;
an attribute that a hat hides counts where there is no hat. Their difference is the total variation.

distances: KID of the classifier's last features between samples and held-out avatars, beside
samples of the generator at its initialization and beside avatars of the training set. These are
features of our own classifier, so that no number is a FID.

neighbors: for some samples the nearest training avatars, by mean squares of pixels.
"""

import argparse
import csv
import pathlib

import jax
import numpy as np
from PIL import Image

import swin_jax
from swin_jax.data.avatars import attributes as avatars
from swin_jax.data.avatars import images
from swin_jax.evals.sample_quality import kernel_distance
from swin_jax.evals.samples import tile, to_bytes
from swin_jax.inference.attribute_judge import AttributeJudge

BATCH = 250
NEIGHBORS, SHOWN = 5, 16


def generate(model, variables, count: int, seed: int) -> np.ndarray:
    """Samples uint8 (count, H, W, 3) from z of a seed, not truncated, with the fixed noise."""
    draw = jax.jit(lambda z: to_bytes(model.apply(variables, z)))
    z = np.random.default_rng(seed).standard_normal((count, model.z_dim), np.float32)
    return np.concatenate([np.asarray(draw(z[i : i + BATCH])) for i in range(0, count, BATCH)])


def rates(marks: np.ndarray) -> np.ndarray:
    """The frequency of each attribute where it can be seen."""
    seen = avatars.visible(marks)
    return (marks & seen).sum(axis=0) / seen.sum(axis=0)


def shrink(pictures: np.ndarray, size: int) -> np.ndarray:
    """Pictures (N, H, W, 3) of `size` pixels, a part of H: means of squares."""
    count, side = pictures.shape[0], pictures.shape[1] // size
    squares = pictures.reshape(count, size, side, size, side, 3)
    return np.round(squares.mean(axis=(2, 4))).astype(np.uint8)


def nearest(samples: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The numbers (N, NEIGHBORS) of the nearest pictures, flipped ones too."""
    flat = (
        np.concatenate([others, others[:, :, ::-1]]).reshape(2 * len(others), -1).astype(np.float32)
    )
    x = samples.reshape(len(samples), -1).astype(np.float32)
    distance = (flat**2).sum(axis=1)[None] - 2 * x @ flat.T
    return np.argsort(distance, axis=1)[:, :NEIGHBORS]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--generator", required=True)
    parser.add_argument("--classifier", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)

    model, variables = swin_jax.load(weights=args.generator)
    samples = generate(model, variables, args.count, args.seed)
    start = jax.jit(model.init)(jax.random.key(0), np.zeros((1, model.z_dim), np.float32))
    before = generate(model, start, args.count, args.seed)
    held_out, training = (images.faces(args.data_dir, split).images for split in ("test", "train"))

    judge = AttributeJudge(args.classifier)
    marks, features = judge(samples)
    real_marks, real_features = judge(held_out)
    found, expected = rates(marks), rates(real_marks)
    with open(out / "rates.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["attribute", "samples", "held-out", "ratio", "total variation"])
        for name, ours, theirs in zip(avatars.ATTRIBUTES, found, expected):
            row = [
                f"{value:.4f}"
                for value in (ours, theirs, ours / max(theirs, 1e-6), abs(ours - theirs))
            ]
            writer.writerow([name, *row])
            print(
                f"{name:16} samples {row[0]}  held-out {row[1]}  ratio "
                f"{row[2]}  total variation {row[3]}"
            )
    distances = {
        "samples": kernel_distance(features, real_features),
        "at initialization": kernel_distance(judge(before)[1], real_features),
        "training set": kernel_distance(judge(training[: args.count])[1], real_features),
    }
    for name, value in distances.items():
        print(f"KID of avatar features, held-out against {name}: {value:.6f}")

    shown = samples[:SHOWN]
    training = shrink(training, model.resolution)
    both = np.concatenate([training, training[:, :, ::-1]])
    rows = [
        np.concatenate([[sample], both[near]])
        for sample, near in zip(shown, nearest(shown, training))
    ]
    for name, picture in (
        ("samples.png", tile(samples[:100], 10)),
        ("neighbors.png", tile(np.concatenate(rows), 2 * (NEIGHBORS + 1))),
    ):
        Image.fromarray(picture.repeat(3, axis=0).repeat(3, axis=1)).save(out / name)


if __name__ == "__main__":
    main()
