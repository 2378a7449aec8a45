"""Trains Video Swin on Kinetics-400 from image weights,
as arXiv 2106.13230 and its released configs do.

    python -m swin_jax.data.video.scan --annotations=lists/kinetics400_train_list.txt \
        --data_prefix=videos/train
    python -m swin_jax.launch --config=experiments/video_swin/video_swin_k400.py:variant=tiny \
        --workdir=runs/video_tiny \
        --config.train_list=lists/kinetics400_train_list.txt --config.train_prefix=videos/train \
        --config.val_list=lists/kinetics400_val_list.txt --config.val_prefix=videos/val \
        --config.init_from.path=swin_tiny_patch4_window7_224.pth

Lists have a line `path.mp4 label` for each video. `folder` reads
--config.data_dir/{train,val}/CLASS/*.mp4 instead, or where there are no folders of classes the
lists data_dir/{train,val}.csv, .json and so on. Videos whose short side was scaled to 256 before,
with a key frame every 12 frames, are read two to three times faster.

`init_from.path` is a file of 2-D Swin weights, which are inflated, or a checkpoint of Video Swin,
official or ours. `--config.total_steps=0` tests it. A test that was stopped resumes with
`--config.evals.test.run.cache=FOLDER`.

Published top-1 / top-5 with 4 x 3 views (README of Video-Swin-Transformer):

    variant=tiny               78.8 / 93.6
    variant=small              80.6 / 94.5
    variant=base               80.6 / 94.6
    variant=base,images=22k    82.7 / 95.5
    variant=large,images=22k   83.1 / 95.9   (weights never released; values of base where none are)
    variant=large,images=22k,size=384   84.6 / 96.5   (windows of 8 x 12 x 12)

Quirks of the released training are the default: the rate falls once an epoch, the batch of 64 is
`accumulate` micro-batches, position tables train at ten times the backbone's rate, and norms and
biases are decayed. `groups=intended` has what the configs meant to say (tables and norms without
decay, all of the backbone at a tenth). The released runs are mixed float16; here matrix products
and the residual stream are bfloat16.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import run, video
from swin_jax.core.errors import UserError
from swin_jax.data.video import transforms
from swin_jax.models.swin import VARIANTS
from swin_jax.models.video_swin import make_video_swin, rules
from swin_jax.optim import adamw, scale_by_name
from swin_jax.pretrained.video_swin import finetune
from swin_jax.tasks.classification import Classification

WEIGHT_DECAY = dict(tiny=0.02, small=0.02, base=0.05, large=0.05)
DROP_PATH = {
    ("tiny", "1k"): 0.1,
    ("small", "1k"): 0.1,
    ("base", "1k"): 0.3,
    ("base", "22k"): 0.2,
    ("large", "22k"): 0.2,
}
SHORT_SIDE = {224: 256, 384: 438}
PODS = run.read_pods("video_swin_k400")


def get_config(arg=None):
    arg = parse_arg(
        arg,
        variant=tuple(WEIGHT_DECAY),
        images=("1k", "22k"),
        size=("224", "384"),
        groups=("released", "intended"),
        **run.ARGUMENTS,
    )
    if (arg.variant, arg.images) not in DROP_PATH:
        known = ", ".join(f"variant={variant},images={images}" for variant, images in DROP_PATH)
        given = f"variant={arg.variant},images={arg.images}"
        raise UserError(f"{given} was not published; those are {known}")

    # Sizes
    size = int(arg.size)
    c = video.sizes(epochs=30, batch_size=64, num_train=240_436, num_classes=400)
    c.update(frames=32, stride=2, size=size, short_side=SHORT_SIDE[size])
    c.accumulate = 4 if arg.variant == "tiny" else 8
    ref, clip_size = c.get_oneway_ref, video.clip_size(c)

    # Model
    model = spec(
        make_video_swin,
        **VARIANTS[arg.variant],
        num_classes=ref("num_classes"),
        image_size=clip_size,
        window_size=(8, size // 32, size // 32),
        drop_path_rate=DROP_PATH[arg.variant, arg.images],
        dropout_rate=0.5,
        dtype="bfloat16",
    )

    # Optimizer
    c.update(base_lr=1e-3 if arg.images == "1k" else 3e-4)
    schedule = run.epoch_cosine(c, 64, warmup_epochs=2.5)
    no_decay, scales = rules.GROUPS[arg.groups]
    groups = dict(no_decay=no_decay, layer_scale=spec(scale_by_name, rules=scales))
    weight_decay = WEIGHT_DECAY[arg.variant]
    tx = spec(adamw, schedule=schedule, weight_decay=weight_decay, clip_norm=0.0, **groups)

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
