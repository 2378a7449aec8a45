"""Semantic segmentation: sizes, training data, evaluation and prediction of pictures of several
sizes, and made-up scenes.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from experiments.common import run
from swin_jax.core.config import derived, spec
from swin_jax.core.sizes import per_axis, simplest
from swin_jax.data import fake, pipeline
from swin_jax.data.segmentation.ade20k import ade20k
from swin_jax.data.segmentation.folder import label_folder
from swin_jax.data.segmentation.several_sizes import SeveralSizes
from swin_jax.data.segmentation.transforms import eval_transform
from swin_jax.evals.mean_iou import MeanIoU
from swin_jax.ops.label_maps import Method


def sizes(**fields) -> ConfigDict:
    """A config with these fields, seed 0, `steps_per_epoch`, `data_dir`, to be given, and `scale`,
    the most pixels of both sides of a resized picture: four times the crop and the crop.

    Args:
        **fields: Numbers of the run; `num_train`, `batch_size` and `image_size` among them.
    """
    c = ConfigDict(dict(seed=0, data_dir=placeholder(str), **fields))
    run.count_steps(c)
    c.scale = derived(_scale, c.get_oneway_ref("image_size"))
    return c


def read(c: ConfigDict, folder: bool) -> tuple[ConfigDict, ConfigDict]:
    """Specs of the pictures to train on and to validate with, and of their labels.

    Args:
        c: Config whose `data_dir` holds.
        folder: True for a folder of one's own with a class list instead of ADE20K; it adds to the
            config what both parts have in common.
    """
    same, splits = dict(root=c.get_oneway_ref("data_dir")), ("train", "val")
    if not folder:
        return tuple(spec(ade20k, split=split, **same) for split in splits)
    own = dict(class_names="", palette="", reduce_zero_label=False, image_suffix="")
    c.update(own, label_suffix="")
    same |= run.refs(c, *own, "label_suffix")
    return tuple(spec(label_folder, split=split, **same) for split in splits)


def _scale(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """The most pixels of both sides of a resized picture, for crops of a size."""
    short = min(per_axis(image_size, 2))
    return 4 * short, short


def train_data(c: ConfigDict, source: ConfigDict, augment: ConfigDict) -> ConfigDict:
    """A spec of the training data, with 16 loader processes.

    Args:
        c: Config whose batch size, seed and numbers of classes and of pictures hold.
        source: Spec of the pictures and their labels.
        augment: Spec of the transform from a record and a generator to what a batch stacks.
    """
    return spec(
        pipeline.TrainData,
        source=source,
        transform=augment,
        **run.refs(c, "batch_size", "seed"),
        num_workers=16,
        expected_classes=c.get_oneway_ref("num_classes"),
        expected_examples=c.get_oneway_ref("num_train"),
    )


def validation(c: ConfigDict, source: ConfigDict, every: run.Updates, batch_size: int = 16) -> dict:
    """Mean IoU of whole pictures, each resized to fit `scale`, in batches of one size.

    Args:
        c: Config whose `scale` and number of classes hold.
        source: Spec of the pictures and their labels.
        every: Updates between two evaluations.
        batch_size: Pictures at a time on all devices together.
    """
    ref = c.get_oneway_ref
    transform = spec(eval_transform, scale=ref("scale"))
    loader = dict(batch_size=batch_size, num_workers=16, expected_classes=ref("num_classes"))
    data = spec(pipeline.EvalData, source=source, transform=transform, **loader)
    data = spec(SeveralSizes, data=data, scale=ref("scale"))
    return dict(every=every, run=spec(MeanIoU, data=data))


def predict(c: ConfigDict) -> ConfigDict:
    """A spec of the images of a folder for --predict, each resized to fit the config's `scale`."""
    return run.predict_images(spec(eval_transform, scale=c.get_oneway_ref("scale")), batch_size=8)


def predict_method(c: ConfigDict) -> ConfigDict:
    """A spec of the passes over a picture for --predict: one over the whole, unless flags ask for
    windows, which are as large as the config's crops and two thirds of them apart, or for ratios.
    """
    size = c.get_oneway_ref("image_size")
    windows = dict(mode="whole", crop=size, stride=derived(_two_thirds, size))
    return spec(Method, **windows, ratios=(1.0,), flip=False)


def _two_thirds(size: int | tuple[int, int]) -> int | tuple[int, int]:
    """Two thirds of a size, per axis, in whole pixels."""
    return simplest(tuple(2 * side // 3 for side in per_axis(size, 2)))


def use_fakes(c: ConfigDict) -> ConfigDict:
    """The config of an UPerNet without data, weights or time: a tiny model on made-up scenes."""
    c.update(total_steps=3, batch_size=8, num_train=24, num_classes=4, image_size=32)
    model = c.task.model
    model.update(embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4)
    model.update(channels=8, auxiliary_channels=8, pool_scales=(1, 2))
    c.task.tx.schedule.warmup_steps, c.init_from.required = 0, False
    tests = [item.run.data.data for item in c.evals.values()]
    for split, data in [("train", c.data), *(("test", data) for data in tests)]:
        scenes = dict(image_size=(40, 48), num_classes=c.get_oneway_ref("num_classes"))
        data.source = spec(fake.scenes, **scenes, num_examples=24, split=split)
        data.update(num_workers=0, batch_size=8)
    return c
