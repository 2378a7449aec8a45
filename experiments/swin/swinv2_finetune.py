"""Fine-tunes a Swin Transformer V2 on ImageNet-1K at a larger window, from ImageNet-22K weights.

    python -m swin_jax.launch --config=experiments/swin/swinv2_finetune.py:variant=base,size=384 \
        --workdir=runs/swinv2_base_384 --config.data_dir=data \
        --config.init_from.path=swinv2_base_patch4_window12_192_22k.pth

`init_from.path` is a file of official weights or a workdir of `swinv2_in22k.py`. The position bias
of version 2 is a function of coordinates and is evaluated anew at the larger window;
`pretrained_window_sizes` keeps the coordinates of the pretraining (192 pixels: windows of 12, and
of 6 in the last stage). The head becomes the 1,000 rows of the 22K head, which needs
`--config.init_from.convert.class_map=map22kto1k.txt` or timm installed.

`folder` as in swin_in1k.py.

Published top-1 / top-5 (the README of microsoft/Swin-Transformer), 30 epochs at batch size 1024:

    arguments                  window   top-1  top-5  GFLOPs
    variant=base               12 to 16  86.2   97.9    21.8
    variant=base,size=384      12 to 24  87.1   98.2    54.7
    variant=large              12 to 16  86.9   98.0    47.5
    variant=large,size=384     12 to 24  87.6   98.3   115.4      the paper: 87.7

At 384 pixels the evaluation resizes the whole picture, without a crop, as the official configs do.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import imagenet, run
from swin_jax.data.image import transforms as image
from swin_jax.models.swin import V2, VARIANTS, Swin, rules
from swin_jax.optim import adamw
from swin_jax.pretrained.swin import finetune
from swin_jax.tasks.classification import Classification

WINDOW = {256: 16, 384: 24}
PODS = run.read_pods("swinv2_finetune")


def get_config(arg=None):
    arg = parse_arg(arg, variant=("base", "large"), size=("256", "384"), **run.ARGUMENTS)

    # Sizes
    size = int(arg.size)
    c = imagenet.sizes(epochs=30, batch_size=1024, image_size=size, **imagenet.IN1K)
    ref = c.get_oneway_ref

    # Model
    model = spec(
        Swin,
        **VARIANTS[arg.variant],
        **V2,
        **run.refs(c, "image_size", "num_classes"),
        window_size=WINDOW[size],
        pretrained_window_sizes=(12, 12, 12, 6),
        drop_path_rate=0.2,
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
    crop = dict(size=ref("image_size"), crop=size == 256)
    c.evals = dict(val=imagenet.validation(c, val, crop))
    c.predict = imagenet.predict(c, crop)

    # Run
    c.init_from = run.init_from(required=True, convert=spec(finetune.pretrained))
    run.set_up(c, rules.PARTITION, every=ref("steps_per_epoch"))
    return imagenet.use_fakes(c) if arg.fake else run.use_pod(c, arg, PODS)
