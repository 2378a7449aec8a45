"""Latents of held-out avatars: which attributes their pictures keep, and how long it takes.

    python experiments/studies/avatar_inversion.py --data_dir=data --generator=runs/avatars \
        --classifier=runs/attributes --out=runs/avatar_inversion

The first 50 avatars of the test split are inverted by StyleGAN2's projector with pixels and the
features of the attribute classifier, as the experiments styleclip_*.py do with `:avatars`. An
attribute is kept if the classifier finds in the inverted picture what the avatar was drawn with;
those that a hat hides do not count. Beside it stand the same rate of the pictures themselves,
which the classifier may get wrong, and of the generator's mean picture, which is what no inversion
at all would keep.

It writes attributes.csv (a line for each attribute), avatars.csv (a line for each avatar) and
inverted.png, avatars above what was found.
"""

import argparse
import csv
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import swin_jax
from swin_jax.data.avatars import attributes as avatars
from swin_jax.data.avatars import images
from swin_jax.data.labels import UNKNOWN
from swin_jax.evals.samples import tile, to_bytes
from swin_jax.inference.attribute_judge import AttributeJudge
from swin_jax.inference.editing.distances import FeatureDistance
from swin_jax.inference.editing.inversion import OptimizationInversion
from swin_jax.train.init_from import Frozen

COLUMNS = 10


def kept(marks: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The attributes that are as an avatar was drawn, and the visible ones: bool (N, 8) both."""
    seen = labels != UNKNOWN
    return (marks == (labels > 0)) & seen, seen


def write_tables(out: pathlib.Path, right: dict, seen: np.ndarray, distances: np.ndarray) -> None:
    """Writes attributes.csv and avatars.csv.

    Args:
        out: The folder.
        right: {what was judged: which attributes are as drawn, bool (N, 8)}.
        seen: Visible attributes, bool (N, 8).
        distances: Distances of the inverted pictures, (N,).
    """
    with open(out / "attributes.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["attribute", "visible", *right])
        for i, name in enumerate(avatars.ATTRIBUTES):
            rates = [
                f"{value[:, i].sum() / max(seen[:, i].sum(), 1):.4f}" for value in right.values()
            ]
            writer.writerow([name, seen[:, i].sum(), *rates])
        writer.writerow(
            ["all", seen.sum(), *(f"{value.sum() / seen.sum():.4f}" for value in right.values())]
        )
    with open(out / "avatars.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["avatar", "distance", "visible", "kept", *avatars.ATTRIBUTES])
        for i, (kept_here, seen_here) in enumerate(zip(right["inverted"], seen)):
            state = np.where(seen_here, np.where(kept_here, "kept", "lost"), "hidden")
            writer.writerow([i, f"{distances[i]:.5f}", seen_here.sum(), kept_here.sum(), *state])


def draw_pairs(path: pathlib.Path, pictures: np.ndarray, inverted: np.ndarray) -> None:
    """Draws lines of pictures, uint8 (N, H, W, 3), each above a line of those that were found."""
    rows = []
    for start in range(0, len(pictures), COLUMNS):
        for row in (pictures, inverted):
            part = row[start : start + COLUMNS]
            rows += [part, np.zeros((COLUMNS - len(part), *row.shape[1:]), np.uint8)]
    picture = tile(np.concatenate(rows), COLUMNS)
    Image.fromarray(picture.repeat(3, axis=0).repeat(3, axis=1)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("data_dir", "generator", "classifier", "out"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--space", default="w+")
    parser.add_argument("--batch_size", type=int, default=10)
    args = parser.parse_args()
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)

    faces = images.faces(args.data_dir, "test")
    records = [faces[i] for i in range(args.count)]
    pictures, labels = (np.stack([record[key] for record in records]) for key in ("image", "label"))
    generator, variables = swin_jax.load(weights=args.generator)
    classifier, _ = swin_jax.load(weights=args.classifier)
    distance = FeatureDistance(Frozen(classifier, args.classifier))
    fields = dict(
        space=args.space, num_steps=args.steps, batch_size=args.batch_size, optimize_noise=False
    )
    projector = OptimizationInversion(distance, **fields).load(generator, variables)
    projector.project(pictures[: args.batch_size])  # compiles
    started = time.perf_counter()
    found = projector.project(pictures)
    seconds = (time.perf_counter() - started) / args.count

    draw = jax.jit(lambda ws: to_bytes(generator.apply(variables, ws, method="synthesize")))
    judge = AttributeJudge(args.classifier)
    inverted = np.asarray(draw(found.ws))
    mean = np.asarray(draw(jnp.broadcast_to(projector.mean, found.ws.shape)))
    right = {
        name: kept(judge(image)[0], labels)[0]
        for name, image in (("inverted", inverted), ("pictures", pictures), ("mean picture", mean))
    }
    _, seen = kept(labels > 0, labels)
    write_tables(out, right, seen, found.distances)
    draw_pairs(out / "inverted.png", pictures, inverted)
    print((out / "attributes.csv").read_text(), end="")
    print(f"{seconds:.2f} seconds per avatar ({args.steps} steps, {args.batch_size} at a time)")


if __name__ == "__main__":
    main()
