"""ImageNet-1K and ImageNet-22K: sizes, sources, loaders, validation, and made-up images."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from experiments.common import run
from swin_jax.core.config import derived, spec
from swin_jax.data import fake, pipeline, sources
from swin_jax.data.image import masking
from swin_jax.data.image import transforms as image
from swin_jax.evals.accuracy import Accuracy

IN1K = dict(num_train=1_281_167, num_classes=1000, max_bad_records=1000)
IN22K = dict(num_train=14_197_122, num_classes=21841, max_bad_records=10_000)


def sizes(examples: str = "num_train", **fields) -> ConfigDict:
    """A config with these fields, seed 0, its steps (`run.count_steps`), and `data_dir`,
    to be given.

    Args:
        examples: Key of the number of images in an epoch.
        **fields: Numbers of the run; at least that one and `batch_size`.
    """
    c = ConfigDict(dict(seed=0, data_dir=placeholder(str), **fields))
    run.count_steps(c, examples)
    return c


def read_1k(c: ConfigDict, folder: bool) -> tuple[ConfigDict, ConfigDict]:
    """Specs of the training and the validation images of ImageNet-1K.

    Args:
        c: Config with `data_dir`, where the builder `imagenet2012` wrote.
        folder: True if the images lie in data_dir/train/CLASS/ and data_dir/val/CLASS/ instead. It
            adds `conversion` to the config, how their pixels are taken: 'reference' for ImageNet-1K
            (`_is_imagenet`), as the published recipes do, and 'display' for a folder of one's own
            (swin_jax/data/image/picture.py says what they do).
    """
    ref = c.get_oneway_ref
    if folder:
        c.conversion = derived(_conversion, ref("num_train"), ref("data_dir"))
        same = dict(root=ref("data_dir"), conversion=ref("conversion"))
        return tuple(spec(sources.image_folder, split=split, **same) for split in ("train", "val"))
    splits = [dict(split=split, data_dir=ref("data_dir")) for split in ("train", "validation")]
    return tuple(spec(sources.tfds, name="imagenet2012", **split) for split in splits)


def read_22k(c: ConfigDict) -> tuple[ConfigDict, ConfigDict]:
    """Specs of the images of ImageNet-22K and of 50,000 of them.

    The release has no validation set; those are to watch the fit with. `c.data_dir` is where the
    builder `imagenet22k` wrote.
    """
    ref = c.get_oneway_ref
    splits = [dict(split=split, data_dir=ref("data_dir")) for split in ("train", "train[:50000]")]
    return tuple(spec(sources.tfds, name="imagenet22k", **split) for split in splits)


def train_data(c: ConfigDict, source: ConfigDict, augment: ConfigDict) -> ConfigDict:
    """A spec of the training data, with 16 loader processes.

    Args:
        c: Config whose batch size, seed, number of images and, if it has one, number of classes
            hold.
        source: Spec of the images.
        augment: Spec of the transform from a record and a generator to what a batch stacks.
    """
    return spec(
        pipeline.TrainData,
        source=source,
        transform=augment,
        **run.refs(c, "batch_size", "seed"),
        num_workers=16,
        expected_classes=c.get_oneway_ref("num_classes") if "num_classes" in c else 0,
        expected_examples=c.get_oneway_ref("num_train"),
    )


def validation(c: ConfigDict, source: ConfigDict, crop: dict, batch_size: int = 1024) -> dict:
    """Top-1 and top-5 accuracy after every epoch.

    Args:
        c: Config whose number of classes and steps in an epoch hold.
        source: Spec of the images.
        crop: Arguments of `image.eval_transform`.
        batch_size: Images at a time on all devices together.
    """
    ref, crop = c.get_oneway_ref, spec(image.eval_transform, **crop)
    loader = dict(batch_size=batch_size, num_workers=16, expected_classes=ref("num_classes"))
    data = spec(pipeline.EvalData, source=source, transform=crop, **loader)
    return dict(every=ref("steps_per_epoch"), run=spec(Accuracy, data=data))


def predict(c: ConfigDict, crop: dict) -> ConfigDict:
    """A spec of the images of a folder for --predict.

    They are displayed, as a person's are, unless a folder of one's own was trained on otherwise.

    Args:
        c: Config; of a folder with its `conversion`.
        crop: Arguments of `image.eval_transform`.
    """
    found = run.predict_images(spec(image.eval_transform, **crop))
    if "conversion" in c:
        keys = ("conversion", "num_train", "data_dir")
        followed = derived(_own_conversion, *map(c.get_oneway_ref, keys))
        found.source.conversion = followed
    return found


def _conversion(num_train: int, data_dir: str | None) -> str:
    """The conversion of pixels for the images of a folder."""
    return "reference" if _is_imagenet(num_train, data_dir) else "display"


def _own_conversion(conversion: str, num_train: int, data_dir: str | None) -> str:
    """The conversion of a person's pictures, which those of ImageNet-1K do not decide."""
    return "display" if _is_imagenet(num_train, data_dir) else conversion


def _is_imagenet(num_train: int, data_dir: str | None) -> bool:
    """True for ImageNet-1K, by the number of its images, unless the folder has other classes: an
    evaluation doesn't count the images for training.
    """
    return num_train == IN1K["num_train"] and sources.may_be_imagenet(data_dir)


def mask(c: ConfigDict, augment: ConfigDict, crop: ConfigDict) -> tuple[ConfigDict, ConfigDict]:
    """The two transforms with masks for SimMIM: random ones in training, fixed ones in evaluation.

    Args:
        c: Config with `image_size` and `mask_cell` (pixels), `mask_ratio` and a task with an
            encoder.
        augment: Spec of the transform in training.
        crop: Spec of the transform in evaluation.
    """
    fields = dict(size="image_size", cell="mask_cell", ratio="mask_ratio")
    masks = {field: c.get_oneway_ref(key) for field, key in fields.items()}
    masks["patch"] = c.task.model.encoder.get_oneway_ref("patch_size")
    masked = spec(masking.mask_train_transform, transform=augment, **masks)
    return masked, spec(masking.mask_eval_transform, transform=crop, **masks)


def use_fake_images(c: ConfigDict) -> None:
    """Replaces the images by 24 made-up ones of 10 classes, 40 x 40 pixels, in batches of 8."""
    tests = [item.run.data for item in c.evals.values()]
    for split, data in [("train", c.data), *(("test", data) for data in tests)]:
        data.source = spec(fake.images, image_size=40, num_examples=24, split=split)
        data.update(num_workers=0, batch_size=8)


def use_fakes(c: ConfigDict) -> ConfigDict:
    """The config of a classifier without data, weights or time: a tiny model on made-up images."""
    c.update(epochs=1, warmup_epochs=0, batch_size=8, num_train=24, num_classes=10, image_size=32)
    model = c.task.model
    model.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=4)
    model.pretrained_window_sizes = (3, 3) if model.pretrained_window_sizes else ()
    c.init_from.required = False
    use_fake_images(c)
    return c
