"""Fine-tunes a Swin Transformer on ImageNet-1K: from ImageNet-22K weights, or from 224 to 384 pixels.

    python -m swin_jax.launch --config=experiments/swin/swin_in1k_finetune.py:variant=base,size=384 \
        --workdir=runs/swin_base_384 --config.data_dir=data --config.init_from.path=swin_base_patch4_window7_224_22k.pth

`init_from.path` is a file of official weights or a workdir of `swin_in22k.py` or `swin_in1k.py`. Bias tables are
resized to the new window (bicubic, as the official code does); the head becomes the 1,000 rows of the 22K head, which
needs `--config.init_from.convert.class_map=map22kto1k.txt` or timm installed.

`folder` as in swin_in1k.py.

Published top-1 / top-5 (the README of microsoft/Swin-Transformer; theirs, not ours), 30 epochs at batch size 1024:

    arguments                        top-1  top-5  drop path
    variant=tiny                     80.9   96.0   0.1
    variant=small                    83.2   97.0   0.2
    variant=base                     85.2   97.5   0.2
    variant=large                    86.3   97.9   0.2
    variant=base,size=384            86.4   98.0   0.2
    variant=large,size=384           87.3   98.2   0.2
    variant=base,size=384,start=1k   84.5   97.0   0.5       from swin_base_patch4_window7_224

At 384 pixels the evaluation resizes the whole picture, without a crop, as the official configs do.
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
    "variant=tiny": pods.Pod(16),
    "variant=small": pods.Pod(16),
    "variant=base": pods.Pod(32),
    "variant=large": pods.Pod(32),
    "variant=base,size=384": pods.Pod(64, h100={"task.accumulate": 2}),
    "variant=large,size=384": pods.Pod(128, h100={"task.accumulate": 4}),
}


def get_config(arg=None):
    arg = parse_arg(
        arg,
        variant=tuple(DROP_PATH),
        size=("224", "384"),
        start=("22k", "1k"),
        pod=pods.NAMES,
        folder=False,
        fake=False,
    )
    size, drop_path = int(arg.size), 0.5 if arg.start == "1k" else DROP_PATH[arg.variant]
    c = ConfigDict(dict(seed=0, epochs=30, warmup_epochs=5, batch_size=1024, num_train=1_281_167, num_classes=1000))
    c.update(image_size=size, base_lr=2e-5, warmup_lr=2e-8, min_lr=2e-7, max_bad_records=1000)
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
            window_size=12 if size == 384 else 7,
            drop_path_rate=drop_path,
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
            weight_decay=1e-8,
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
    if arg.folder:
        train = spec(sources.image_folder, root=ref("data_dir"), split="train")
        validation = spec(sources.image_folder, root=ref("data_dir"), split="val")
    else:
        train = spec(sources.tfds, name="imagenet2012", split="train", data_dir=ref("data_dir"))
        validation = spec(sources.tfds, name="imagenet2012", split="validation", data_dir=ref("data_dir"))
    c.data = spec(
        pipeline.TrainData,
        source=train,
        transform=spec(image.train_transform, size=ref("image_size"), auto_augment="rand-m9-mstd0.5-inc1"),
        batch_size=ref("batch_size"),
        seed=ref("seed"),
        num_workers=16,
        expected_classes=ref("num_classes"),
        expected_examples=ref("num_train"),
    )
    transform = dict(size=ref("image_size"), crop=size == 224)
    val = spec(
        pipeline.EvalData,
        source=validation,
        transform=spec(image.eval_transform, **transform),
        batch_size=1024,
        num_workers=16,
        expected_classes=ref("num_classes"),
    )
    c.evals = dict(val=dict(every=ref("steps_per_epoch"), run=spec(Accuracy, data=val)))
    c.predict = spec(
        pipeline.EvalData,
        source=spec(sources.flat_folder, root=""),
        transform=spec(image.eval_transform, **transform),
        batch_size=64,
    )
    c.init_from = spec(InitFrom, required=True, convert=spec(finetune.pretrained, resize="bicubic"))
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
    c.init_from.required = False
    for split, data in (("train", c.data), ("test", c.evals.val.run.data)):
        data.source = spec(fake.images, image_size=40, num_examples=24, split=split)
        data.update(num_workers=0, batch_size=8)
    return c


if __name__ == "__main__":
    refuse_as_script()
