"""Trains Video Swin on Kinetics-600 from image weights,
as arXiv 2106.13230 and its released config do.

    python -m swin_jax.launch --config=experiments/video_swin/video_swin_k600.py:variant=base \
        --workdir=runs/video_k600 \
        --config.train_list=lists/kinetics600_train_list.txt --config.train_prefix=videos/train \
        --config.val_list=lists/kinetics600_val_list.txt --config.val_prefix=videos/val \
        --config.num_train=370000 --config.init_from.path=swin_base_patch4_window7_224_22k.pth

`num_train` is what the list has (the paper says about 370,000). Lists, `folder`, `groups`, tests
and quirks are as in video_swin_k400.py, with whose variant=base,images=22k this recipe agrees.

Published top-1 / top-5 with 4 x 3 views (README of Video-Swin-Transformer and
arXiv 2106.13230):

    variant=base            84.0 / 96.5
    variant=large,size=384  85.9 / 97.1   (weights never released; values of base where none are)
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import run, video
from swin_jax.data.video import transforms
from swin_jax.models.swin import VARIANTS
from swin_jax.models.video_swin import make_video_swin, rules
from swin_jax.optim import adamw, scale_by_name
from swin_jax.pretrained.video_swin import finetune
from swin_jax.tasks.classification import Classification

SHORT_SIDE = {224: 256, 384: 438}
PODS = run.read_pods("video_swin_k600")


def get_config(arg=None):
    arg = parse_arg(
        arg,
        variant=("base", "large"),
        size=("224", "384"),
        groups=("released", "intended"),
        **run.ARGUMENTS,
    )

    # Sizes
    size = int(arg.size)
    c = video.sizes(epochs=30, batch_size=64, num_train=370_000, num_classes=600)
    c.update(frames=32, stride=2, size=size, short_side=SHORT_SIDE[size], accumulate=8)
    ref, clip_size = c.get_oneway_ref, video.clip_size(c)

    # Model
    model = spec(
        make_video_swin,
        **VARIANTS[arg.variant],
        num_classes=ref("num_classes"),
        image_size=clip_size,
        window_size=(8, size // 32, size // 32),
        drop_path_rate=0.2,
        dropout_rate=0.5,
        dtype="bfloat16",
    )

    # Optimizer
    c.update(base_lr=3e-4)
    schedule = run.epoch_cosine(c, 64, warmup_epochs=2.5)
    no_decay, scales = rules.GROUPS[arg.groups]
    groups = dict(no_decay=no_decay, layer_scale=spec(scale_by_name, rules=scales))
    tx = spec(adamw, schedule=schedule, weight_decay=0.05, clip_norm=0.0, **groups)

    # Task
    same = dict(image_size=clip_size, **run.refs(c, "num_classes", "seed", "accumulate"))
    mixing = dict(label_smoothing=0.0, mixup=0.0, cutmix=0.0, erase_probability=0.0)
    c.task = spec(Classification, model=model, tx=tx, input="video", **same, **mixing)

    # Data
    clip = dict(size=ref("size"), length=ref("frames"), stride=ref("stride"))
    short_side = ref("short_side")
    augment = spec(transforms.video_train_transform, **clip, short_side=short_side, hflip=0.5)
    c.data = video.train_data(c, arg.folder, augment)

    # Evals
    c.evals = video.evaluations(c, arg.folder, clip, clips=4)
    c.predict = video.predict(clip, clips=4)

    # Run
    convert = spec(finetune.pretrained, patch="inflate", bias="duplicate", head=False)
    c.init_from = run.init_from(required=True, backbone=True, head=finetune.FRESH, convert=convert)
    run.set_up(c, rules.PARTITION, every=ref("steps_per_epoch"))
    return video.use_fakes(c) if arg.fake else run.use_pod(c, arg, PODS)
