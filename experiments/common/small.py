"""Small images: loaders and evaluation, and Fashion-MNIST, with made-up images in its place."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from experiments.common import run
from swin_jax.core.config import spec
from swin_jax.data import fake, pipeline, sources
from swin_jax.data.image.small import small_eval_transform
from swin_jax.models.swin import Swin

# Mean and deviation of the training images, of values in 0..1.
PIXELS = dict(channels=1, mean=(0.286,), std=(0.353,))


def sizes(**fields) -> ConfigDict:
    """A config with these fields, seed 0, `data_dir`, to be given,
    and no unreadable record allowed.
    """
    return ConfigDict(dict(seed=0, max_bad_records=0, data_dir=placeholder(str), **fields))


def read(c: ConfigDict, split: str) -> ConfigDict:
    """A spec of the 28 x 28 gray images of a split of TFDS's syntax, which are read into memory."""
    root = c.get_oneway_ref("data_dir")
    return spec(sources.tfds, name="fashion_mnist", split=split, data_dir=root, in_memory=True)


def train_data(c: ConfigDict, source: ConfigDict, augment: ConfigDict) -> ConfigDict:
    """A spec of the training data.

    Args:
        c: Config whose batch size, seed and, if it has one, number of classes hold.
        source: Spec of the images.
        augment: Spec of the transform from a record and a generator to what a batch stacks.
    """
    loader = run.refs(c, "batch_size", "seed")
    loader["expected_classes"] = c.get_oneway_ref("num_classes") if "num_classes" in c else 0
    return spec(pipeline.TrainData, source=source, transform=augment, **loader)


def crop(c: ConfigDict, channels: int = 1) -> ConfigDict:
    """A spec of the evaluation transform: the whole image, scaled to `image_size` pixels.

    Args:
        c: Config whose `image_size` holds.
        channels: 1 for gray images, 3 for colors.
    """
    return spec(small_eval_transform, size=c.get_oneway_ref("image_size"), channels=channels)


def evaluation(source: ConfigDict, crop: ConfigDict, measure: type, every: run.Updates) -> dict:
    """An evaluation of the images of `source`, prepared by `crop` (specs), in batches of 500.

    Args:
        source: Spec of the images.
        crop: Spec of the transform.
        measure: Evaluation whose argument `data` they are.
        every: Updates between two evaluations, a number or a reference; 0 for the last update only.
    """
    data = spec(pipeline.EvalData, source=source, transform=crop, batch_size=500)
    return dict(every=every, run=spec(measure, data=data))


def avatar_attributes(c: ConfigDict, **fields) -> ConfigDict:
    """A spec of the network that tells the attributes of avatars:
    those who read its weights need it.

    Args:
        c: Config whose `image_size` holds.
        **fields: Further arguments of `Swin`.
    """
    network = dict(patch_size=4, embed_dim=48, depths=(2, 2), num_heads=(2, 4), window_size=4)
    return spec(Swin, **run.refs(c, "image_size"), **network, drop_path_rate=0.0, **fields)


def use_fakes(c: ConfigDict) -> ConfigDict:
    """The config without data or time: three updates on 40 made-up images.

    It leaves the model to the caller.
    """
    c.update(total_steps=3, batch_size=8)
    tests = [item.run.data for item in c.evals.values()]
    for split, data in [("train", c.data), *(("test", data) for data in tests)]:
        data.source = spec(fake.images, image_size=28, num_examples=40, split=split, channels=1)
    return c
