"""Swin Transformer V2 pretrained on ImageNet-22K (arXiv 2111.09883, appendix A2.1).

    python -m swin_jax.data.builders.imagenet22k --data_dir=data --source=fall11_whole.tar
    python -m swin_jax.launch --config=experiments/swin/swinv2_in22k.py:variant=base \
        --workdir=runs/swinv2_base_22k --config.data_dir=data

90 epochs at 192 x 192 with windows of 12 and batch size 4096; both sizes that `swinv2_finetune.py`
goes to start from the same weights. There is no published accuracy on ImageNet-22K itself; what is
published is the accuracy on ImageNet-1K after fine-tuning. Parameters with the head of 21,841
classes: base 109.3 M, large 228.8 M. The weight decay is 0.1, twice that of version 1. Needs a pod.
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

PODS = run.read_pods("swinv2_in22k")


def get_config(arg=None):
    arg = parse_arg(arg, variant=("base", "large"), pod=run.CHIPS, fake=False)

    # Sizes
    c = imagenet.sizes(epochs=90, batch_size=4096, image_size=192, **imagenet.IN22K)
    ref = c.get_oneway_ref

    # Model
    model = spec(
        Swin,
        **VARIANTS[arg.variant],
        **V2,
        **run.refs(c, "image_size", "num_classes"),
        window_size=12,
        drop_path_rate=0.2,
        dtype="bfloat16",
    )

    # Optimizer
    c.update(warmup_epochs=5, base_lr=1.25e-4, warmup_lr=1.25e-7, min_lr=1.25e-6)
    schedule = run.warmup_cosine(c, 512, warmup_prefix=False, delay=1)
    tx = spec(adamw, schedule=schedule, weight_decay=0.1, no_decay=rules.NO_DECAY, clip_norm=5.0)

    # Task
    mixing = dict(mixup=0.8, cutmix=1.0, mix_group=128, label_smoothing=0.1, erase_probability=0.25)
    same = run.refs(c, "image_size", "num_classes", "seed")
    c.task = spec(Classification, model=model, tx=tx, **same, **mixing)

    # Data
    train, train_part = imagenet.read_22k(c)
    augment = dict(size=ref("image_size"), auto_augment="rand-m9-mstd0.5-inc1")
    c.data = imagenet.train_data(c, train, spec(image.train_transform, **augment))

    # Evals
    crop = dict(size=ref("image_size"), crop=True)
    c.evals = dict(train_part=imagenet.validation(c, train_part, crop))
    c.predict = imagenet.predict(c, crop)

    # Run
    c.init_from = run.init_from(convert=spec(finetune.pretrained))
    run.set_up(c, rules.PARTITION, every=ref("steps_per_epoch"))
    return imagenet.use_fakes(c) if arg.fake else run.use_pod(c, arg, PODS)
