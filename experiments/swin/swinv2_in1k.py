"""Swin Transformer V2 on ImageNet-1K from scratch (arXiv 2111.09883, appendix A2.1).

    python -m swin_jax.data.builders.imagenet2012 --data_dir=data --source=FOLDER
    python -m swin_jax.launch --config=experiments/swin/swinv2_in1k.py:variant=tiny,window=8 --workdir=runs/swinv2_tiny
    \
        --config.data_dir=data

`folder` as in swin_in1k.py.

Published top-1 / top-5 at 256 x 256 (the README of microsoft/Swin-Transformer; theirs, not ours), 300 epochs:

    arguments                  top-1  top-5  parameters  GFLOPs  drop path
    variant=tiny               81.8   95.9    28.3 M      5.9    0.2
    variant=small              83.7   96.6    49.7 M     11.5    0.3
    variant=base               84.2   96.9    87.9 M     20.3    0.5
    variant=tiny,window=16     82.8   96.2    28.3 M      6.6    0.2
    variant=small,window=16    84.1   96.8    49.7 M     12.6    0.3
    variant=base,window=16     84.6   97.0    87.9 M     21.8    0.5

What each of the three changes brings (the paper's ablation, top-1 at window 8; theirs, not ours):

    tiny   small  base   overrides
    81.5   83.2   83.6   $V.post_norm=false $V.cosine_attention=false $V.continuous_bias=false      version 1
    81.6   83.3   83.8   $V.cosine_attention=false $V.continuous_bias=false
    81.7   83.6   84.1   $V.continuous_bias=false
    81.8   83.7   84.2                                              version 2 (small, base: the README's)

where `V=--config.task.model`. Any other combination of the three works as well.

Quirks of the published runs are the default: `warmup_prefix=False` (the cosine spans the whole run and the rate drops
at the end of the warm-up; the official default since October 2022 is True) and `delay=1` (update k uses the rate of
k - 1).
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

DROP_PATH = dict(tiny=0.2, small=0.3, base=0.5)
# Sizes are chips of v5e, see `pods`; what the compiler says of them: README, Pod presets.
PODS = {
    "variant=tiny,window=8": pods.Pod(16),
    "variant=tiny,window=16": pods.Pod(32),
    "variant=small,window=8": pods.Pod(32),
    "variant=small,window=16": pods.Pod(32),
    "variant=base,window=8": pods.Pod(32),
    "variant=base,window=16": pods.Pod(64),
}


def get_config(arg=None):
    arg = parse_arg(arg, variant=tuple(DROP_PATH), window=("8", "16"), pod=pods.NAMES, folder=False, fake=False)
    c = ConfigDict(dict(seed=0, epochs=300, warmup_epochs=20, batch_size=1024, num_train=1_281_167, num_classes=1000))
    c.update(image_size=256, base_lr=5e-4, warmup_lr=5e-7, min_lr=5e-6, max_bad_records=1000)
    c.data_dir = placeholder(str)
    ref = c.get_oneway_ref
    c.steps_per_epoch = ref("num_train") // ref("batch_size")
    c.total_steps = ref("epochs") * ref("steps_per_epoch")
    c.task = spec(
        Classification,
        model=spec(
            swin.Swin,
            **swin.VARIANTS[arg.variant],
            **swin.V2,
            num_classes=ref("num_classes"),
            image_size=ref("image_size"),
            window_size=int(arg.window),
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
    transform = dict(size=ref("image_size"), crop=True)
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
    for split, data in (("train", c.data), ("test", c.evals.val.run.data)):
        data.source = spec(fake.images, image_size=40, num_examples=24, split=split)
        data.update(num_workers=0, batch_size=8)
    return c


if __name__ == "__main__":
    refuse_as_script()
