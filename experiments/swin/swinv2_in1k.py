"""Swin Transformer V2 on ImageNet-1K from scratch (arXiv 2111.09883, appendix A2.1).

    python -m swin_jax.data.builders.imagenet2012 --data_dir=data --source=FOLDER
    python -m swin_jax.launch --config=experiments/swin/swinv2_in1k.py:variant=tiny,window=8 \
        --workdir=runs/swinv2_tiny --config.data_dir=data

`folder` as in swin_in1k.py.

Published top-1 / top-5 at 256 x 256 (the README of microsoft/Swin-Transformer;
theirs, not ours), 300 epochs:

    arguments                  top-1  top-5  parameters  GFLOPs  drop path
    variant=tiny               81.8   95.9    28.3 M      5.9    0.2
    variant=small              83.7   96.6    49.7 M     11.5    0.3
    variant=base               84.2   96.9    87.9 M     20.3    0.5
    variant=tiny,window=16     82.8   96.2    28.3 M      6.6    0.2
    variant=small,window=16    84.1   96.8    49.7 M     12.6    0.3
    variant=base,window=16     84.6   97.0    87.9 M     21.8    0.5

What each of the three changes brings (the paper's ablation, top-1 at window 8; theirs, not ours):

    tiny   small  base   overrides
    81.5   83.2   83.6   $V.post_norm=false $V.cosine_attention=false $V.continuous_bias=false
    81.6   83.3   83.8   $V.cosine_attention=false $V.continuous_bias=false
    81.7   83.6   84.1   $V.continuous_bias=false
    81.8   83.7   84.2

where `V=--config.task.model`. The first row is version 1, the last is version 2 (small and base:
the README's numbers). Any other combination of the three works as well.

Quirks of the published runs are the default: `warmup_prefix=False` (the cosine spans the whole run
and the rate drops at the end of the warm-up; the official default since October 2022 is True) and
`delay=1` (update k uses the rate of k - 1).
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

DROP_PATH = dict(tiny=0.2, small=0.3, base=0.5)
PODS = run.read_pods("swinv2_in1k")


def get_config(arg=None):
    arg = parse_arg(arg, variant=tuple(DROP_PATH), window=("8", "16"), **run.ARGUMENTS)

    # Sizes
    c = imagenet.sizes(epochs=300, batch_size=1024, image_size=256, **imagenet.IN1K)
    ref = c.get_oneway_ref

    # Model
    model = spec(
        Swin,
        **VARIANTS[arg.variant],
        **V2,
        **run.refs(c, "image_size", "num_classes"),
        window_size=int(arg.window),
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
