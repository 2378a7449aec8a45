"""Kinetics and Something-Something: lists of videos, loaders, evaluations, and made-up videos."""

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder

from experiments.common import run
from swin_jax.core.config import derived, spec
from swin_jax.core.sizes import per_axis
from swin_jax.data import fake, pipeline
from swin_jax.data.video import sources
from swin_jax.data.video import transforms as video
from swin_jax.evals.accuracy import Accuracy
from swin_jax.evals.multi_view import MultiView

WORKERS = dict(num_workers=32, prefetch=2)


def sizes(**fields) -> ConfigDict:
    """A config with these fields, seed 0, its steps (`run.count_steps`), and the paths of videos.

    The paths are to be given: `train_list` and `val_list` (see `sources.video_list`) with
    `train_prefix` and `val_prefix` before the paths in them, or `data_dir`.
    """
    lists = dict(train_list="", train_prefix="", val_list="", val_prefix="")
    c = ConfigDict(dict(seed=0, max_bad_records=1000, data_dir=placeholder(str), **lists, **fields))
    run.count_steps(c)
    return c


def clip_size(c: ConfigDict, frames: str = "frames") -> FieldReference:
    """A reference to (frames, height, width) of a config, in frames and pixels, which follows both.

    Args:
        c: The config, with `size`.
        frames: The key of its number of frames.
    """
    frames, size = c.get_oneway_ref(frames), c.get_oneway_ref("size")
    return derived(lambda frames, size: (frames, *per_axis(size, 2)), frames, size)


def read(c: ConfigDict, folder: bool, split: str) -> ConfigDict:
    """A spec of the videos of a split, 'train' or 'val'.

    They are those of its list, or with `folder` those in data_dir/SPLIT/CLASS/ or a list there, see
    `sources.video_folder`. Training replaces
    files of variable frame rate, whose motion changes speed; evaluation reads them exactly.
    """
    ref, exact = c.get_oneway_ref, split != "train"
    if folder:
        root = ref("data_dir")
        return spec(sources.video_folder, root=root, split=split, variable_frame_rate=exact)
    return spec(
        sources.video_list,
        annotation=ref(f"{split}_list"),
        data_prefix=ref(f"{split}_prefix"),
        num_classes=ref("num_classes"),
        variable_frame_rate=exact,
    )


def train_data(c: ConfigDict, folder: bool, augment: ConfigDict) -> ConfigDict:
    """A spec of the training videos, prepared by `augment` (a spec) in 32 loader processes."""
    return spec(
        pipeline.TrainData,
        source=read(c, folder, "train"),
        transform=augment,
        **run.refs(c, "batch_size", "seed"),
        **WORKERS,
        expected_classes=c.get_oneway_ref("num_classes"),
        expected_examples=c.get_oneway_ref("num_train"),
    )


def evaluations(c: ConfigDict, folder: bool, clip: dict, clips: int) -> dict[str, dict]:
    """Accuracy of one center view every five epochs (`val`), of `clips` x 3 at the end (`test`).

    Args:
        c: Config with `short_side`, to which frames are scaled for one view, in pixels.
        folder: True if the videos lie in data_dir/val/CLASS/, False if in a list.
        clip: Arguments of the transforms: size, length and sampling of a clip.
        clips: Clips of a video, each with three crops.
    """
    ref, source = c.get_oneway_ref, read(c, folder, "val")
    shared = dict(WORKERS, expected_classes=ref("num_classes"))
    one = spec(video.video_eval_transform, **clip, short_side=ref("short_side"))
    one = spec(pipeline.EvalData, source=source, transform=one, batch_size=64, **shared)
    val = spec(Accuracy, data=one)
    source = read(c, folder, "val")
    views = spec(video.video_views_transform, **clip, clips=clips, crops=3)
    views = spec(pipeline.EvalData, source=source, transform=views, batch_size=8, **shared)
    test = spec(MultiView, data=views, views_at_once=0)
    return dict(val=dict(every=5 * ref("steps_per_epoch"), run=val), test=dict(every=0, run=test))


def predict(clip: dict, clips: int) -> ConfigDict:
    """A spec of the videos of a folder for --predict, in the views of the test."""
    views = spec(video.video_views_transform, **clip, clips=clips, crops=3)
    source = spec(sources.flat_video_folder, root="")
    return spec(pipeline.EvalData, source=source, transform=views, batch_size=4)


def use_fakes(c: ConfigDict) -> ConfigDict:
    """The config without data, weights or time: three updates of a tiny model on made-up videos."""
    c.update(epochs=1, batch_size=8, num_train=24, num_classes=10, accumulate=1)
    c.update(frames=4, size=32, short_side=36)
    c.task.model.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=(2, 4, 4))
    c.task.tx.schedule.warmup_epochs = 0.0
    c.init_from.required = False
    tests = [item.run.data for item in c.evals.values()]
    for split, data in [("train", c.data), *(("test", data) for data in tests)]:
        data.source = spec(fake.videos, image_size=40, num_examples=24, split=split)
        data.update(num_workers=0, batch_size=8)
    return c
