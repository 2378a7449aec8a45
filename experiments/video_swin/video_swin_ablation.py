"""The ablations of Video Swin-T on Kinetics-400 (arXiv 2106.13230, tables 4, 5, 7, 8 and 9).

    python -m swin_jax.launch \
        --config=experiments/video_swin/video_swin_ablation.py:design=factorized \
        --workdir=runs/factorized \
        --config.train_list=lists/kinetics400_train_list.txt --config.train_prefix=videos/train \
        --config.val_list=lists/kinetics400_val_list.txt --config.val_prefix=videos/val \
        --config.init_from.path=swin_tiny_patch4_window7_224.pth

Everything that is not an argument is the recipe of video_swin_k400.py:variant=tiny. The code of the
split and the factorized design was never released; `models.video_swin.make_video_swin` says what is
done here. Fewer frames keep their stride of 2.

Published top-1 / top-5 with 4 x 3 views
(those in brackets were not confirmed by a second source):

    design=joint          78.8 / 93.6      88 GFLOPs   28.2 M parameters
    design=split          76.4 / (92.1)    83          42.0
    design=factorized     78.5 / (93.5)    95          36.5

    frames=32,window=16   79.1 / (93.8)    106         28.5
    frames=32,window=8    78.8 / 93.6      88          28.2
    frames=32,window=4    78.6 / (93.4)    79          28.0
    frames=16,window=8    (78.5 / 93.2)    44          28.2
    frames=8,window=4     (76.7 / 92.5)    20          28.0

    backbone_lr=0.1, 1.0 (Swin-B): 80.6 and (80.2) from ImageNet-1K,
                                   82.7 and (82.0) from ImageNet-22K
    patch=inflate, center: 78.8 and (78.8)
    bias=duplicate, center: 78.8 and 78.8
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

PODS = run.read_pods("video_swin_ablation")


def get_config(arg=None):
    arg = parse_arg(
        arg,
        design=("joint", "split", "factorized"),
        frames=("32", "16", "8"),
        window=("8", "16", "4"),
        backbone_lr=0.1,
        patch=("inflate", "center"),
        bias=("duplicate", "center"),
        groups=("released", "intended"),
        **run.ARGUMENTS,
    )

    # Sizes
    c = video.sizes(epochs=30, batch_size=64, num_train=240_436, num_classes=400)
    c.update(frames=int(arg.frames), stride=2, size=224, short_side=256, accumulate=4)
    ref, clip_size = c.get_oneway_ref, video.clip_size(c)

    # Model
    model = spec(
        make_video_swin,
        design=arg.design,
        **VARIANTS["tiny"],
        num_classes=ref("num_classes"),
        image_size=clip_size,
        window_size=(int(arg.window), 7, 7),
        drop_path_rate=0.1,
        dropout_rate=0.5,
        dtype="bfloat16",
    )

    # Optimizer
    c.update(base_lr=1e-3)
    schedule = run.epoch_cosine(c, 64, warmup_epochs=2.5)
    no_decay, scales = rules.GROUPS[arg.groups]
    rate = {0.1: arg.backbone_lr}  # the backbone's; position tables and head have 1
    scales = tuple((names, rate.get(factor, factor)) for names, factor in scales)
    groups = dict(no_decay=no_decay, layer_scale=spec(scale_by_name, rules=scales))
    tx = spec(adamw, schedule=schedule, weight_decay=0.02, clip_norm=0.0, **groups)

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
    convert = spec(finetune.pretrained, patch=arg.patch, bias=arg.bias, head=False)
    c.init_from = run.init_from(required=True, backbone=True, head=finetune.FRESH, convert=convert)
    run.set_up(c, rules.PARTITION, every=ref("steps_per_epoch"))
    return video.use_fakes(c) if arg.fake else run.use_pod(c, arg, PODS)
