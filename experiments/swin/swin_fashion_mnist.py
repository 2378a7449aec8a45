"""A Swin Transformer on Fashion-MNIST: a real run of half an hour on two CPU cores.

    python -m swin_jax.data.builders.fashion_mnist --data_dir=data [--download]
    python -m swin_jax.launch --config=experiments/swin/swin_fashion_mnist.py --workdir=runs/fashion \
        --config.data_dir=data

Expected: 88.4 % test accuracy at the last step.

Data: 60,000 training and 10,000 test images, 28 x 28 grey, resized to 32 x 32 for a grid of 8 x 8 patches.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from swin_jax import optim
from swin_jax.core.config import parse_arg, refuse_as_script, spec
from swin_jax.data import fake, pipeline, sources
from swin_jax.data.image import small as small_image
from swin_jax.evals.accuracy import Accuracy
from swin_jax.models.swin import Swin, rules
from swin_jax.optim import schedules
from swin_jax.tasks.classification import Classification
from swin_jax.train import sharding
from swin_jax.train.init_from import InitFrom


def get_config(arg=None):
    arg = parse_arg(arg, fake=False)
    c = ConfigDict(dict(seed=0, total_steps=8000, batch_size=64, image_size=32, num_classes=10, max_bad_records=0))
    c.data_dir = placeholder(str)
    size, seed = c.get_oneway_ref("image_size"), c.get_oneway_ref("seed")
    c.task = spec(
        Classification,
        model=spec(
            Swin,
            num_classes=c.get_oneway_ref("num_classes"),
            image_size=size,
            patch_size=4,
            in_channels=1,
            embed_dim=64,
            depths=(2, 2),
            num_heads=(1, 2),
            window_size=4,
            drop_path_rate=0.0,
        ),
        tx=spec(
            optim.adamw,
            schedule=spec(
                schedules.warmup_cosine,
                base_lr=1.5e-3,
                total_steps=c.get_oneway_ref("total_steps"),
                warmup_steps=500,
                min_lr=1e-5,
                warmup_prefix=True,
            ),
            no_decay=rules.NO_DECAY,
        ),
        image_size=size,
        channels=1,
        num_classes=c.get_oneway_ref("num_classes"),
        seed=seed,
        mean=(0.286,),
        std=(0.353,),
        label_smoothing=0.1,
        erase_probability=0.0,
        mixup=0.0,
        cutmix=0.0,
    )
    c.data = spec(
        pipeline.TrainData,
        source=spec(
            sources.tfds, name="fashion_mnist", split="train", data_dir=c.get_oneway_ref("data_dir"), in_memory=True
        ),
        transform=spec(small_image.small_train_transform, size=size, padding=1, hflip=0.5, channels=1),
        batch_size=c.get_oneway_ref("batch_size"),
        seed=seed,
        expected_classes=c.get_oneway_ref("num_classes"),
    )
    transform = spec(small_image.small_eval_transform, size=size, channels=1)
    test = spec(
        pipeline.EvalData,
        source=spec(
            sources.tfds, name="fashion_mnist", split="test", data_dir=c.get_oneway_ref("data_dir"), in_memory=True
        ),
        transform=transform,
        batch_size=500,
    )
    c.evals = dict(test=dict(every=1000, run=spec(Accuracy, data=test)))
    c.predict = spec(
        pipeline.EvalData,
        source=spec(sources.flat_folder, root=""),
        transform=transform.copy_and_resolve_references(),
        batch_size=64,
    )
    c.init_from = spec(InitFrom)
    c.partition = spec(sharding.Partition, rules=rules.PARTITION)
    c.mesh = dict(data=-1, fsdp=1, tensor=1)
    c.checkpoint = dict(every=1000, keep=2)
    c.logs = dict(every=50, wandb="")
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No data and no time: a tiny model on made-up images."""
    c.total_steps, c.batch_size = 3, 8
    c.task.model.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2))
    for split, data in (("train", c.data), ("test", c.evals.test.run.data)):
        data.source = spec(fake.images, image_size=28, num_examples=40, split=split, channels=1)
    return c


if __name__ == "__main__":
    refuse_as_script()
