"""Trains Video Swin-B on Something-Something v2 from Kinetics-400,
as arXiv 2106.13230 and its released config do.

    python -m swin_jax.launch --config=experiments/video_swin/video_swin_ssv2.py \
        --workdir=runs/video_ssv2 \
        --config.train_list=lists/sthv2_train_list_videos.txt --config.train_prefix=videos \
        --config.val_list=lists/sthv2_val_list_videos.txt --config.val_prefix=videos \
        --config.init_from.path=swin_base_patch244_window1677_kinetics400_22k.pth

Lists, `folder`, `groups` and quirks as in video_swin_k400.py. 32 frames cover the whole video, one
of each of 32 equal parts. imgaug's RandAugment, which the released training uses, always flips half
of the clips and crops a few percent from their sides first, although the config says that nothing
is flipped and classes name left and right: `flip=false` leaves both out.

Published top-1 / top-5 with 1 x 3 views (README of Video-Swin-Transformer):
69.6 / 92.7.
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

PODS = run.read_pods("video_swin_ssv2")


def get_config(arg=None):
    arg = parse_arg(
        arg,
        groups=("released", "intended"),
        flip=True,
        **run.ARGUMENTS,
    )

    # Sizes
    c = video.sizes(epochs=60, batch_size=64, num_train=168_913, num_classes=174)
    c.update(frames=32, size=224, short_side=256, accumulate=8)
    ref, clip_size = c.get_oneway_ref, video.clip_size(c)

    # Model
    model = spec(
        make_video_swin,
        **VARIANTS["base"],
        num_classes=ref("num_classes"),
        image_size=clip_size,
        window_size=(16, 7, 7),
        drop_path_rate=0.4,
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
    mixing = dict(label_smoothing=0.1, mixup=0.0, cutmix=0.0, erase_probability=0.25)
    c.task = spec(Classification, model=model, tx=tx, input="video", **same, **mixing)
    c.task.erase_mode = "const"

    # Data
    clip = dict(size=ref("size"), length=ref("frames"), sampling="uniform")
    augment = spec(
        transforms.video_train_transform,
        **clip,
        short_side=ref("short_side"),
        hflip=0.0,
        randaugment_ops=4,
        randaugment_magnitude=7,
        hidden_flip=arg.flip,
        hidden_crop=arg.flip,
    )
    c.data = video.train_data(c, arg.folder, augment)

    # Evals
    c.evals = video.evaluations(c, arg.folder, clip, clips=1)
    c.predict = video.predict(clip, clips=1)

    # Run
    inflate = dict(patch="inflate", bias="duplicate", resize="bicubic")
    convert = spec(finetune.pretrained, **inflate, head=False)
    c.init_from = run.init_from(required=True, backbone=True, head=finetune.FRESH, convert=convert)
    run.set_up(c, rules.PARTITION, every=ref("steps_per_epoch"))
    return video.use_fakes(c) if arg.fake else run.use_pod(c, arg, PODS)
