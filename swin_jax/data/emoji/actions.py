"""Animated emoji of people as videos of 16 or 60 actions, split by person, and as forward and
reversed playback.

Prepared by `python -m swin_jax.data.builders.emoji_actions`. Every action has one animation;
persons differ in hair and clothes, skin tones in color. A model is trained on some persons and
tested on another.
"""

import dataclasses
import functools
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.core.ranges import NonNegativeFloat, PositiveInt, Seed, checked
from swin_jax.data import tfds as tfds_directory
from swin_jax.data.emoji.animation import Frames
from swin_jax.data.image import picture

log = logging.getLogger(__name__)

TRAIN_WHO = ("man", "person")
TEST_WHO = ("woman",)
# Arguments of `animation.action_*_transform` for clips of 8 frames. The direction of playback can
# only be seen if no action is half over between two frames; motion is learned from few clips, so
# playback varies less.
ACTION_DRAWS = dict(frame_interval=8.0, speed=(0.7, 1.5))
PLAYBACK_DRAWS = dict(
    frame_interval=3.0, speed=(0.8, 1.2), scale=(1.0, 1.0), stretch=0.0, overhang=0.0
)


class EmojiActions:
    """Clips of some persons; each process decodes a clip when it is first read and caches it.

    Pickling leaves out the cache.
    """

    def __init__(self, directory: str, who: tuple[str, ...]):
        """Opens the data set in `directory`, which ends in its version; see `emoji_actions`."""
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._arguments = (directory, who)
        info = tfds_directory.open_builder(directory).info
        missing = [name for name in who if name not in info.splits]
        if missing or not who:
            known = ", ".join(info.splits)
            raise UserError(
                f"the actions have no person {', '.join(missing) or 'at all'}; they have {known}"
            )
        # Read below TFDS, which cannot leave the frames of a sequence encoded
        # (tensorflow-datasets 4.9.10).
        self._records = ArrayRecordDataSource(
            [file for name in who for file in info.splits[name].file_instructions]
        )
        self._examples = [None] * len(self._records)
        self.class_names = tuple(info.features["label"].names)
        self._who, self._tones = info.features["who"].names, info.features["tone"].names

    def __reduce__(self):
        return EmojiActions, self._arguments

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self._examples[index] is None:
            feature = self._read(index)
            video = Frames(_decode(feature["video"].bytes_list.value))
            # If threads race, they store equal examples.
            self._examples[index] = {"video": video, **self._describe(feature)}
        return {**self._examples[index], "record": index}

    def labels(self) -> np.ndarray:
        """Reads all labels without decoding: int (N,)."""
        return np.array(
            [int(self._read(index)["label"].int64_list.value[0]) for index in range(len(self))]
        )

    def record_name(self, index: int) -> str:
        found = self._describe(self._read(index))
        return f"emoji {found['who']} {self.class_names[found['label']]}, skin tone {found['tone']}"

    def _read(self, index: int):
        from tensorflow_datasets.proto import tf_example_pb2

        return tf_example_pb2.Example.FromString(self._records[index]).features.feature

    def _describe(self, feature) -> dict[str, Any]:
        label, who, tone = (
            int(feature[key].int64_list.value[0]) for key in ("label", "who", "tone")
        )
        return {"label": label, "who": self._who[who], "tone": self._tones[tone]}


def emoji_actions(
    data_dir: str | None, who: Sequence[str] = TRAIN_WHO, config: str = "anim_3"
) -> EmojiActions:
    """Opens the clips of some persons.

    Args:
        data_dir: Folder of data sets; None for the default of `sources.tfds`.
        who: Any of 'man', 'person' and 'woman'.
        config: 'anim_3' (16 actions, 6 clips per action and person), 'all' (60 actions),
            'anim_3_64px', ...

    Returns:
        A source of `video` (Frames, RGBA), `label`, `who`, `tone` and `record`, the number that
        seeds `animation.action_eval_transform`. Raises UserError if the data set or a person is
        missing.
    """
    return EmojiActions(tfds_directory.find(f"emoji_actions/{config}", data_dir), tuple(who))


def _decode(frames: Iterable[bytes]) -> np.ndarray:
    """Decodes PNG files to uint8 (N, H, W, 4)."""
    pixels = []
    for number, data in enumerate(frames):
        try:
            pixels.append(np.asarray(picture.open_image(bytes(data)).convert("RGBA")))
        except (
            UnreadableError,
            OSError,
            SyntaxError,
            ValueError,
        ) as error:  # PIL's, for damaged pixels
            raise UnreadableError(f"frame {number} is damaged ({error})") from error
    return np.stack(pixels)


@dataclasses.dataclass(frozen=True)
class Reversal:
    """The difference between an action and its reverse, as mean distances of pixels, 0 to 255.

    Attributes:
        action: Name of the action.
        motion: Distance between two frames of a clip.
        distance: Distance between a clip and its reverse at the shift where they agree best.
    """

    action: str
    motion: float
    distance: float

    @property
    def ratio(self) -> float:
        """Distance relative to motion: 0 if both directions look the same, 1 if the reverse agrees
        no better than arbitrary frames.
        """
        return self.distance / max(self.motion, 1e-9)

    def is_visible(self, min_ratio: float, min_distance: float) -> bool:
        """True if the action differs enough from its reverse for `emoji_playback`."""
        return self.ratio >= min_ratio and self.distance >= min_distance


def reversal(pixels: np.ndarray, size: int = 20) -> tuple[float, float]:
    """Compares a clip with its reverse.

    Args:
        pixels: uint8 (N, H, W, 4).
        size: Height and width in pixels at which frames are compared, by alpha and colors times
            alpha.

    Returns:
        (mean distance of two frames; least mean distance to the reversed clip over
        its N circular shifts).
    """
    from PIL import Image
    from scipy.spatial.distance import cdist

    small = [
        np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BOX))
        for frame in pixels
    ]
    small = np.stack(small).astype(np.float64)
    small[..., :3] *= small[..., 3:] / 255
    flat = small.reshape(len(small), -1)
    distances = cdist(flat, flat, "cityblock") / flat.shape[1]
    time = np.arange(len(flat))
    # Row s: the frame of the reversed clip that is compared with each frame at shift s.
    shifts = (time[:, None] - time) % len(flat)
    return float(distances.mean()), float(distances[time, shifts].mean(1).min())


def measure_reversals(source: Any) -> list[Reversal]:
    """Averages `reversal` over the clips of each class, in label order; decodes all clips."""
    found: dict[int, list[tuple[float, float]]] = {}
    for index in range(len(source)):
        example = source[index]
        found.setdefault(example["label"], []).append(reversal(example["video"].pixels))
    return [
        Reversal(source.class_names[label], *np.mean(found[label], 0).tolist())
        for label in sorted(found)
    ]


@dataclasses.dataclass(frozen=True)
class Playback:
    """Every chosen clip twice, forward (label 0) and reversed (label 1), with the same `record`.

    Attributes:
        source: An EmojiActions.
        indices: Numbers of the chosen clips.
    """

    source: Any
    indices: tuple[int, ...]
    class_names: tuple[str, ...] = ("forward", "reversed")

    def __len__(self) -> int:
        return 2 * len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip, label = divmod(index, 2)
        example = self.source[self.indices[clip]]
        return {
            **example,
            "video": example["video"].reversed() if label else example["video"],
            "label": label,
        }

    def record_name(self, index: int) -> str:
        return f"{self.source.record_name(self.indices[index // 2])}, {self.class_names[index % 2]}"


@checked
def emoji_playback(
    data_dir: str | None,
    who: Sequence[str] = TRAIN_WHO,
    config: str = "anim_3",
    measured_on: Sequence[str] = TRAIN_WHO,
    min_ratio: NonNegativeFloat = 0.75,
    min_distance: NonNegativeFloat = 3.0,
) -> Playback:
    """Opens forward and reversed clips of the actions whose direction can be seen, and logs which
    these are.

    Args:
        data_dir, who, config: The same as in `emoji_actions`.
        measured_on: Persons whose clips decide on an action, the same for training and test.
        min_ratio: Smallest distance of a kept action from its reverse, relative to its motion.
        min_distance: Smallest distance from the reverse, 0 to 255; less is hard to see.

    Returns:
        A source of `video`, `label` (0 forward, 1 reversed) and `record`. Raises the errors of
        `emoji_actions`, and UserError if no action is kept.
    """
    directory = tfds_directory.find(f"emoji_actions/{config}", data_dir)
    measured = _measure(directory, tuple(measured_on))
    log.info("%s", reversal_table(measured, min_ratio, min_distance))
    kept = {found.action for found in measured if found.is_visible(min_ratio, min_distance)}
    if not kept:
        raise UserError(
            f"no action differs from its reverse by {min_ratio} of its motion and by {min_distance}"
        )
    source = EmojiActions(directory, tuple(who))
    return Playback(
        source,
        tuple(i for i, label in enumerate(source.labels()) if source.class_names[label] in kept),
    )


def measured_reversals(
    data_dir: str | None, config: str = "anim_3", who: Sequence[str] = TRAIN_WHO
) -> tuple[Reversal, ...]:
    """Applies `measure_reversals` to the clips of some persons, cached; see `emoji_actions`."""
    return _measure(tfds_directory.find(f"emoji_actions/{config}", data_dir), tuple(who))


@functools.lru_cache(maxsize=4)
def _measure(directory: str, who: tuple[str, ...]) -> tuple[Reversal, ...]:
    """The reversals of some persons' clips, cached because decoding takes seconds."""
    return tuple(measure_reversals(EmojiActions(directory, who)))


def reversal_table(
    measured: Iterable[Reversal], min_ratio: float = 0.75, min_distance: float = 3.0
) -> str:
    """A table with the measures of each action, and whether `emoji_playback` keeps it."""
    lines = [
        f"played backwards an action must differ from itself by {min_ratio} of its motion and by "
        f"{min_distance:g} of 255 (mean over pixels, best circular shift):"
    ]
    for found in sorted(measured, key=lambda found: -found.ratio):
        verdict = "kept" if found.is_visible(min_ratio, min_distance) else "excluded"
        lines.append(
            f"  {found.action:26} ratio {found.ratio:.2f} distance {found.distance:5.2f} "
            f"motion {found.motion:5.2f} {verdict}"
        )
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _FakeActions:
    num_examples: int
    num_classes: int
    num_frames: int
    image_size: int
    seed: int

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(f"action {label}" for label in range(self.num_classes))

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        label, size = index % self.num_classes, self.image_size
        color = np.random.default_rng([self.seed, index]).integers(0, 256, 3)
        time = np.arange(self.num_frames)[:, None, None] / self.num_frames
        y, x = (np.mgrid[:size, :size] + 0.5) / size
        center = 0.5 + 0.5j + 0.25 * np.exp(2j * np.pi * time)  # moves on a circle
        # In units of the radius, which grows and then starts again.
        distance = np.abs(x + 1j * y - center) / (0.12 + 0.13 * time)
        inside = (distance < 1) & (distance >= 0.9 * label / self.num_classes)
        pixels = np.empty((self.num_frames, size, size, 4), np.uint8)
        pixels[..., :3], pixels[..., 3] = color, 255 * inside
        return {"video": Frames(pixels), "label": label, "record": index}

    def record_name(self, index: int) -> str:
        return f"fake action {index}"


@checked
def fake_emoji_actions(
    num_examples: PositiveInt = 24,
    num_classes: PositiveInt = 4,
    num_frames: PositiveInt = 20,
    image_size: PositiveInt = 24,
    seed: Seed = 0,
) -> _FakeActions:
    """Makes animations of growing rings that move in a circle, one class per width, to try
    experiments without data.

    Args:
        num_examples: Length of the source; label i % num_classes belongs to record i.
        num_classes: Number of actions.
        num_frames, image_size: Length and size of each animation.
        seed: Seed of the colors.

    Returns:
        A source like that of `emoji_actions`.
    """
    return _FakeActions(num_examples, num_classes, num_frames, image_size, seed)


@checked
def fake_emoji_playback(
    num_examples: PositiveInt = 24,
    num_classes: PositiveInt = 4,
    num_frames: PositiveInt = 20,
    image_size: PositiveInt = 24,
    seed: Seed = 0,
) -> Playback:
    """Makes forward and reversed synthetic animations; see `fake_emoji_actions`."""
    source = fake_emoji_actions(num_examples, num_classes, num_frames, image_size, seed)
    return Playback(source, tuple(range(len(source))))
