"""A classifier of Fashion-MNIST from 1 % or 10 % of the labels, from SimMIM's weights or from scratch.

    python -m swin_jax.launch --config=experiments/simmim/simmim_fashion_mnist_finetune.py:labels=1
    --workdir=runs/finetuned \
        --config.data_dir=data --config.init_from.path=runs/simmim

`labels` is 1 or 10, percent of the 60,000 training images, the same number of each class. Without `init_from.path` the
same network starts from scratch. `experiments/studies/simmim_fashion_mnist.py` compares the two.

The last 5,000 training images are held out, to choose settings by; the test set is looked at once, at the last step.
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
from swin_jax.pretrained.swin import finetune
from swin_jax.tasks.classification import Classification
from swin_jax.train import sharding
from swin_jax.train.init_from import InitFrom


def get_config(arg=None):
    arg = parse_arg(arg, labels=("1", "10"), fake=False)
    c = ConfigDict(dict(seed=0, total_steps=2000, batch_size=32, image_size=24, num_classes=10, max_bad_records=0))
    c.data_dir = placeholder(str)
    ref = c.get_oneway_ref
    depths = (1, 3)
    c.task = spec(
        Classification,
        model=spec(
            Swin,
            num_classes=ref("num_classes"),
            image_size=ref("image_size"),
            patch_size=4,
            in_channels=1,
            embed_dim=64,
            depths=depths,
            num_heads=(1, 2),
            window_size=6,
            drop_path_rate=0.0,
        ),
        tx=spec(
            optim.adamw,
            schedule=spec(
                schedules.warmup_cosine,
                base_lr=1e-3,
                total_steps=ref("total_steps"),
                warmup_steps=ref("total_steps") // 10,
                min_lr=1e-5,
                warmup_prefix=True,
            ),
            no_decay=rules.NO_DECAY,
            layer_scale=spec(rules.layer_decay, decay=1.0, depths=depths),
        ),
        image_size=ref("image_size"),
        channels=1,
        num_classes=ref("num_classes"),
        seed=ref("seed"),
        mean=(0.286,),
        std=(0.353,),
        label_smoothing=0.1,
        erase_probability=0.0,
        mixup=0.0,
        cutmix=0.0,
    )

    def images(split):
        return spec(sources.tfds, name="fashion_mnist", split=split, data_dir=ref("data_dir"), in_memory=True)

    c.data = spec(
        pipeline.TrainData,
        source=spec(sources.subset, source=images("train[:55000]"), per_class=60 * int(arg.labels), seed=0),
        transform=spec(small_image.small_train_transform, size=ref("image_size"), padding=1, hflip=0.5, channels=1),
        batch_size=ref("batch_size"),
        seed=ref("seed"),
        expected_classes=ref("num_classes"),
    )
    transform = spec(small_image.small_eval_transform, size=ref("image_size"), channels=1)
    c.evals = {
        name: dict(
            every=0,
            run=spec(Accuracy, data=spec(pipeline.EvalData, source=images(split), transform=transform, batch_size=500)),
        )
        for name, split in (("heldout", "train[55000:]"), ("test", "test"))
    }
    c.predict = spec(
        pipeline.EvalData,
        source=spec(sources.flat_folder, root=""),
        transform=transform.copy_and_resolve_references(),
        batch_size=64,
    )
    c.init_from = spec(InitFrom, backbone=True, convert=spec(finetune.simmim_pretrained))
    c.partition = spec(sharding.Partition, rules=rules.PARTITION)
    c.mesh = dict(data=-1, fsdp=1, tensor=1)
    c.checkpoint = dict(every=2000, keep=1)
    c.logs = dict(every=50, wandb="")
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No data and no time: a tiny model on made-up images."""
    c.total_steps, c.batch_size = 3, 8
    c.task.model.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2))
    c.task.tx.layer_scale.depths = (1, 1)
    c.data.source.source = spec(fake.images, image_size=28, num_examples=40, channels=1)
    c.data.source.per_class = 3
    for item in c.evals.values():
        item.run.data.source = spec(fake.images, image_size=28, num_examples=40, split="test", channels=1)
    return c


if __name__ == "__main__":
    refuse_as_script()
