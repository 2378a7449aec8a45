"""Swin Transformer pretrained on ImageNet-22K, the official recipe (arXiv 2103.14030, appendix A2.1).

    python -m swin_jax.data.builders.imagenet22k --data_dir=data --source=fall11_whole.tar
    python -m swin_jax.launch --config=experiments/swin/swin_in22k.py:variant=base --workdir=runs/swin_base_22k \
        --config.data_dir=data

90 epochs at 224 x 224 and batch size 4096. There is no published accuracy on ImageNet-22K itself; what is published is
the accuracy on ImageNet-1K after `swin_in1k_finetune.py`. The paper states a weight decay of 0.01 and a linear decay of
the learning rate; the released code and this file have 0.05 and a cosine. Needs a pod.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from swin_jax import optim
from swin_jax.core.config import parse_arg, refuse_as_script, spec
from swin_jax.data import fake, pipeline, sources
from swin_jax.data.image import transforms as image
from swin_jax.evals.accuracy import Accuracy
from swin_jax.models import swin
from swin_jax.models.swin import rules
from swin_jax.optim import schedules
from swin_jax.plan import presets as pods
from swin_jax.pretrained.swin import finetune
from swin_jax.tasks.classification import Classification
from swin_jax.train import sharding
from swin_jax.train.init_from import InitFrom

DROP_PATH = dict(tiny=0.1, small=0.2, base=0.2, large=0.2)
# Sizes are chips of v5e, see `pods`; what the compiler says of them: README, Pod presets.
PODS = {
    "variant=tiny": pods.Pod(64),
    "variant=small": pods.Pod(64, h100={"task.accumulate": 2}),
    "variant=base": pods.Pod(128, h100={"task.accumulate": 2}),
    "variant=large": pods.Pod(128, h100={"task.accumulate": 4}),
}


def get_config(arg=None):
    arg = parse_arg(arg, variant=tuple(DROP_PATH), pod=pods.NAMES, fake=False)
    c = ConfigDict(dict(seed=0, epochs=90, warmup_epochs=5, batch_size=4096, num_train=14_197_122, num_classes=21841))
    c.update(image_size=224, base_lr=1.25e-4, warmup_lr=1.25e-7, min_lr=1.25e-6, max_bad_records=10_000)
    c.data_dir = placeholder(str)
    ref = c.get_oneway_ref
    c.steps_per_epoch = ref("num_train") // ref("batch_size")
    c.total_steps = ref("epochs") * ref("steps_per_epoch")
    c.task = spec(
        Classification,
        model=spec(
            swin.Swin,
            **swin.VARIANTS[arg.variant],
            num_classes=ref("num_classes"),
            image_size=ref("image_size"),
            window_size=7,
            drop_path_rate=DROP_PATH[arg.variant],
            dtype="bfloat16",
        ),
        tx=spec(
            optim.adamw,
            schedule=spec(
                schedules.warmup_cosine,
                base_lr=ref("base_lr") * ref("batch_size") / 512,
                total_steps=ref("total_steps"),
                warmup_steps=ref("warmup_epochs") * ref("steps_per_epoch"),
                warmup_lr=ref("warmup_lr") * ref("batch_size") / 512,
                min_lr=ref("min_lr") * ref("batch_size") / 512,
                warmup_prefix=False,
                delay=1,
            ),
            weight_decay=0.05,
            no_decay=rules.NO_DECAY,
            clip_norm=5.0,
        ),
        image_size=ref("image_size"),
        num_classes=ref("num_classes"),
        seed=ref("seed"),
        label_smoothing=0.1,
        mixup=0.8,
        cutmix=1.0,
        mix_group=128,
        erase_probability=0.25,
    )
    c.data = spec(
        pipeline.TrainData,
        source=spec(sources.tfds, name="imagenet22k", split="train", data_dir=ref("data_dir")),
        transform=spec(image.train_transform, size=ref("image_size"), auto_augment="rand-m9-mstd0.5-inc1"),
        batch_size=ref("batch_size"),
        seed=ref("seed"),
        num_workers=16,
        expected_classes=ref("num_classes"),
        expected_examples=ref("num_train"),
    )
    transform = dict(size=ref("image_size"), crop=True)
    # The release has no validation set: this watches the fit on a part of the training images.
    train_part = spec(
        pipeline.EvalData,
        source=spec(sources.tfds, name="imagenet22k", split="train[:50000]", data_dir=ref("data_dir")),
        transform=spec(image.eval_transform, **transform),
        batch_size=1024,
        num_workers=16,
        expected_classes=ref("num_classes"),
    )
    c.evals = dict(train_part=dict(every=ref("steps_per_epoch"), run=spec(Accuracy, data=train_part)))
    c.predict = spec(
        pipeline.EvalData,
        source=spec(sources.flat_folder, root=""),
        transform=spec(image.eval_transform, **transform),
        batch_size=64,
    )
    c.init_from = spec(InitFrom, convert=spec(finetune.pretrained))
    c.partition = spec(sharding.Partition, rules=rules.PARTITION)
    c.mesh = dict(data=-1, fsdp=1, tensor=1)
    c.checkpoint = dict(every=ref("steps_per_epoch"), keep=2)
    c.logs = dict(every=50, wandb="")
    pods.use(c, arg, PODS)
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No data and no time: a tiny model on made-up images."""
    c.update(epochs=1, warmup_epochs=0, batch_size=8, num_train=24, num_classes=10, image_size=32)
    c.task.model.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=4)
    for split, data in (("train", c.data), ("test", c.evals.train_part.run.data)):
        data.source = spec(fake.images, image_size=40, num_examples=24, split=split)
        data.update(num_workers=0, batch_size=8)
    return c


if __name__ == "__main__":
    refuse_as_script()
