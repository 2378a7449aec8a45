"""Swin Transformer on ImageNet-1K from scratch, the official recipe (arXiv 2103.14030,
appendix A2.1).

    python -m swin_jax.data.builders.imagenet2012 --data_dir=data --source=FOLDER
    python -m swin_jax.launch --config=experiments/swin/swin_in1k.py:variant=tiny \
        --workdir=runs/swin_tiny --config.data_dir=data

With `folder` the images lie in data/train/CLASS/ and data/val/CLASS/ instead; for classes of your
own give their number and that of the training images as well: `--config.num_classes=7
--config.num_train=2100`.

Published top-1 / top-5 at 224 x 224 (the README of microsoft/Swin-Transformer), 300 epochs:

    variant    top-1  top-5  parameters  GFLOPs  drop path
    tiny       81.2   95.5    28.3 M      4.5    0.2
    tiny_c24   81.6   95.7    28.3 M      5.9    0.2         256 x 256, window 8
    small      83.2   96.2    49.6 M      8.7    0.3
    base       83.5   96.5    87.8 M     15.4    0.5

Theirs ran on 8 V100 with 128 images each. The learning rate follows the batch size, base_lr *
batch_size / 512. Quirks of the published runs are the default: `warmup_prefix=False` (the cosine
spans the whole run and the rate drops at the end of the warm-up; the official default since October
2022 is True) and `delay=1` (update k uses the rate of k - 1).
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import imagenet, run
from swin_jax.data.image import transforms as image
from swin_jax.models.swin import VARIANTS, Swin, rules
from swin_jax.optim import adamw
from swin_jax.pretrained.swin import finetune
from swin_jax.tasks.classification import Classification

DROP_PATH = dict(tiny=0.2, tiny_c24=0.2, small=0.3, base=0.5)
PODS = run.read_pods("swin_in1k")


def get_config(arg=None):
    arg = parse_arg(arg, variant=tuple(DROP_PATH), **run.ARGUMENTS)
    c24 = arg.variant == "tiny_c24"

    # Sizes
    size = 256 if c24 else 224
    c = imagenet.sizes(epochs=300, batch_size=1024, image_size=size, **imagenet.IN1K)
    ref = c.get_oneway_ref

    # Model
    model = spec(
        Swin,
        **VARIANTS[arg.variant],
        **run.refs(c, "image_size", "num_classes"),
        window_size=8 if c24 else 7,
        drop_path_rate=DROP_PATH[arg.variant],
        dtype="bfloat16",
    )

    # Optimizer
    c.update(warmup_epochs=20, base_lr=5e-4, warmup_lr=5e-7, min_lr=5e-6)
    schedule = run.warmup_cosine(c, 512, warmup_prefix=False, delay=1)
    tx = spec(adamw, schedule=schedule, weight_decay=0.05, no_decay=rules.NO_DECAY, clip_norm=5.0)

    # Task
    mixing = dict(mixup=0.8, cutmix=1.0, mix_group=128, label_smoothing=0.1, erase_probability=0.25)
    same = run.refs(c, "image_size", "num_classes", "seed")
    c.task = spec(Classification, model=model, tx=tx, **same, **mixing)

    # Data
    train, val = imagenet.read_1k(c, arg.folder)
    augment = dict(size=ref("image_size"), auto_augment="rand-m9-mstd0.5-inc1")
    c.data = imagenet.train_data(c, train, spec(image.train_transform, **augment))

    # Evals
    crop = dict(size=ref("image_size"), crop=True)
    c.evals = dict(val=imagenet.validation(c, val, crop))
    c.predict = imagenet.predict(c, crop)

    # Run
    c.init_from = run.init_from(convert=spec(finetune.pretrained))
    run.set_up(c, rules.PARTITION, every=ref("steps_per_epoch"))
    return imagenet.use_fakes(c) if arg.fake else run.use_pod(c, arg, PODS)
