"""Fine-tunes a Swin Transformer on ImageNet-1K:
from ImageNet-22K weights, or from 224 to 384 pixels.

    python -m swin_jax.launch \
        --config=experiments/swin/swin_in1k_finetune.py:variant=base,size=384 \
        --workdir=runs/swin_base_384 --config.data_dir=data \
        --config.init_from.path=swin_base_patch4_window7_224_22k.pth

`init_from.path` is a file of official weights or a workdir of `swin_in22k.py` or
`swin_in1k.py`. Bias tables are resized to the new window (bicubic, as the official code does);
the head becomes the 1,000 rows of the 22K head, which needs
`--config.init_from.convert.class_map=map22kto1k.txt` or timm installed.

`folder` as in swin_in1k.py.

Published top-1 / top-5 (the README of microsoft/Swin-Transformer), 30 epochs at batch size 1024:

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

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import imagenet, run
from swin_jax.data.image import transforms as image
from swin_jax.models.swin import VARIANTS, Swin, rules
from swin_jax.optim import adamw
from swin_jax.pretrained.swin import finetune
from swin_jax.tasks.classification import Classification

DROP_PATH = dict(tiny=0.1, small=0.2, base=0.2, large=0.2)
WINDOW = {224: 7, 384: 12}
PODS = run.read_pods("swin_in1k_finetune")


def get_config(arg=None):
    sizes, starts = ("224", "384"), ("22k", "1k")
    arg = parse_arg(arg, variant=tuple(DROP_PATH), size=sizes, start=starts, **run.ARGUMENTS)

    # Sizes
    size = int(arg.size)
    c = imagenet.sizes(epochs=30, batch_size=1024, image_size=size, **imagenet.IN1K)
    ref = c.get_oneway_ref

    # Model
    model = spec(
        Swin,
        **VARIANTS[arg.variant],
        **run.refs(c, "image_size", "num_classes"),
        window_size=WINDOW[size],
        drop_path_rate=0.5 if arg.start == "1k" else DROP_PATH[arg.variant],
        dtype="bfloat16",
    )

    # Optimizer
    c.update(warmup_epochs=5, base_lr=2e-5, warmup_lr=2e-8, min_lr=2e-7)
    schedule = run.warmup_cosine(c, 512, warmup_prefix=False, delay=1)
    tx = spec(adamw, schedule=schedule, weight_decay=1e-8, no_decay=rules.NO_DECAY, clip_norm=5.0)

    # Task
    mixing = dict(mixup=0.8, cutmix=1.0, mix_group=128, label_smoothing=0.1, erase_probability=0.25)
    same = run.refs(c, "image_size", "num_classes", "seed")
    c.task = spec(Classification, model=model, tx=tx, **same, **mixing)

    # Data
    train, val = imagenet.read_1k(c, arg.folder)
    augment = dict(size=ref("image_size"), auto_augment="rand-m9-mstd0.5-inc1")
    c.data = imagenet.train_data(c, train, spec(image.train_transform, **augment))

    # Evals
    crop = dict(size=ref("image_size"), crop=size == 224)
    c.evals = dict(val=imagenet.validation(c, val, crop))
    c.predict = imagenet.predict(c, crop)

    # Run
    convert = spec(finetune.pretrained, resize="bicubic")
    c.init_from = run.init_from(required=True, convert=convert)
    run.set_up(c, rules.PARTITION, every=ref("steps_per_epoch"))
    return imagenet.use_fakes(c) if arg.fake else run.use_pod(c, arg, PODS)
