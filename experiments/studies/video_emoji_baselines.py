"""Nearest neighbors in pixels on the animated emoji:
what a single frame, and a clip, say without any learning.

    python experiments/studies/video_emoji_baselines.py --data_dir=data \
        [--out=runs/video_emoji_baselines.json]

Training clips are those of a man and a person, test clips those of a woman; both over random
backgrounds, with random start, speed, scale and place, the test ones from a fixed seed
(data/emoji/animation.py). Pictures are reduced to 16 x 16 pixels, their mean is removed, and the
training clip with the largest cosine gives its label. There are several draws of every training
clip. A test clip has several views: `one view` is the share of views that are right, `all views`
counts the label of the most views.

actions: which of 16. playback: forward or reversed, of the actions that look different (printed).
`whole pictures` has no augmentation: all frames over white on both sides, to say how much of the
difficulty is augmentation.
"""

import argparse
import json
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import tqdm

from swin_jax.core.errors import UserError
from swin_jax.data import tfds as tfds_directory
from swin_jax.data.emoji import actions as emoji_actions
from swin_jax.data.emoji import animation

NUM_FRAMES = 8  # of a clip that is compared as a whole
# What both sides draw, and how often training clips are mirrored.
DRAWS = {
    "actions": (emoji_actions.ACTION_DRAWS, 0.5),
    "playback": (emoji_actions.PLAYBACK_DRAWS, 0.0),
}


def reduced(video: np.ndarray, pixels: int) -> np.ndarray:
    """Means over squares of clips (..., T, size, size, 3):
    unit vectors without mean, (..., T * pixels**2 * 3).
    """
    *lead, length, size, _, channels = video.shape
    side = size // pixels
    cells = video.reshape(*lead, length, pixels, side, pixels, side, channels).mean(
        (-4, -2), dtype=np.float32
    )
    flat = cells.reshape(*lead, -1)
    flat = flat - flat.mean(-1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-6)


def nearest(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Labels of the nearest of `train` (N, D) for `test` (M, V, D): (M, V)."""
    return np.stack([labels[np.argmax(clips @ train.T, -1)] for clips in test])


def accuracies(found: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Shares of right views and of right records, of labels `found` (M, V);
    ties go to the smaller label.
    """
    votes = np.array([np.argmax(np.bincount(row)) for row in found])
    return float((found == labels[:, None]).mean()), float((votes == labels).mean())


def compare(
    train, test, options: argparse.Namespace, num_frames: int, task: str
) -> tuple[float, float]:
    """Nearest neighbors on augmented clips of two sources."""
    draws, hflip = DRAWS[task]
    choice = dict(draws, size=options.size, num_frames=num_frames, single_frame=num_frames == 1)
    draw = animation.action_train_transform(**choice, hflip=hflip)
    view = animation.action_eval_transform(**choice, views=options.views)
    rng = np.random.default_rng(options.seed)
    drawn = [
        draw(example, rng)
        for example in _progress(train, f"{num_frames} frames")
        for _ in range(options.draws)
    ]
    gallery = np.stack([reduced(example["video"], options.pixels) for example in drawn])
    viewed = [view(test[index]) for index in range(len(test))]
    views = np.stack([reduced(example["video"], options.pixels) for example in viewed])
    labels = np.array([example["label"] for example in drawn])
    return accuracies(
        nearest(gallery, labels, views), np.array([example["label"] for example in viewed])
    )


def whole_pictures(train, test, options: argparse.Namespace) -> tuple[float, float]:
    """Nearest neighbors among all frames over white, without augmentation."""

    def frames(source) -> Iterator[tuple[np.ndarray, int]]:
        for example in _progress(source, "whole pictures"):
            pixels = example["video"].pixels.astype(np.float32)
            alpha = pixels[..., 3:] / 255
            white = pixels[..., :3] * alpha + 255 * (1 - alpha)
            side = white.shape[1] - white.shape[1] % options.pixels
            yield reduced(white[:, None, :side, :side], options.pixels), example["label"]

    found, labels = zip(*frames(train))
    gallery, of_frame = (
        np.concatenate(found),
        np.repeat(labels, [len(frames_) for frames_ in found]),
    )
    results = []
    for pictures, label in frames(test):
        results.append(accuracies(nearest(gallery, of_frame, pictures[None]), np.array([label])))
    return tuple(np.mean(results, 0).tolist())


def _progress(source, title: str) -> Iterator[dict]:
    return (source[index] for index in tqdm.tqdm(range(len(source)), desc=title, mininterval=1.0))


def run(
    options: argparse.Namespace, load: Callable, load_playback: Callable
) -> dict[str, tuple[float, float]]:
    """All rows of the table: (share of right views, share of right records)."""
    results = {}
    train, test = load(emoji_actions.TRAIN_WHO), load(emoji_actions.TEST_WHO)
    results["actions, single frame, whole pictures"] = whole_pictures(train, test, options)
    playback = load_playback(emoji_actions.TRAIN_WHO), load_playback(emoji_actions.TEST_WHO)
    for task, pair in (("actions", (train, test)), ("playback", playback)):
        results[f"{task}, single frame"] = compare(*pair, options, 1, task)
        results[f"{task}, clip of {NUM_FRAMES} frames"] = compare(*pair, options, NUM_FRAMES, task)
    return results


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data_dir", default=tfds_directory.default_data_dir(), help="folder of the data sets"
    )
    parser.add_argument("--config", default="anim_3", help="config of the data set emoji_actions")
    parser.add_argument("--draws", type=int, default=50, help="draws of every training clip")
    parser.add_argument("--views", type=int, default=4, help="views of every test clip")
    parser.add_argument("--size", type=int, default=64, help="size of the clips in pixels")
    parser.add_argument(
        "--pixels", type=int, default=16, help="side of the compared pictures, a divisor of --size"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the training draws")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file for the numbers")
    parser.add_argument(
        "--fake", action="store_true", help="made-up animations instead of the data set"
    )
    options = parser.parse_args()
    if options.size % options.pixels:
        parser.error(f"--pixels={options.pixels} does not divide --size={options.size}")
    if options.fake:

        def load(who):
            return emoji_actions.fake_emoji_actions(seed=len(who))

        def load_playback(who):
            return emoji_actions.fake_emoji_playback(seed=len(who))

    else:

        def load(who):
            return emoji_actions.emoji_actions(options.data_dir, who, options.config)

        def load_playback(who):
            return emoji_actions.emoji_playback(options.data_dir, who, options.config)

        measured = emoji_actions.measured_reversals(options.data_dir, options.config)
        print(emoji_actions.reversal_table(measured))
    results = run(options, load, load_playback)
    print(f"\n{'nearest neighbor in pixels':42} one view  all views")
    for name, (one, voted) in results.items():
        print(f"{name:42} {one:8.3f}  {voted:9.3f}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            json.dumps({name: dict(one=one, all=voted) for name, (one, voted) in results.items()})
        )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
