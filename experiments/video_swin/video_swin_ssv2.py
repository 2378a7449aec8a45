"""Trains Video Swin-B on Something-Something v2 from Kinetics-400, as arXiv 2106.13230 and its released config do.

    python -m swin_jax.launch --config=experiments/video_swin/video_swin_ssv2.py --workdir=runs/video_ssv2 \
        --config.train_list=lists/sthv2_train_list_videos.txt --config.train_prefix=videos \
        --config.val_list=lists/sthv2_val_list_videos.txt --config.val_prefix=videos \
        --config.init_from.path=swin_base_patch244_window1677_kinetics400_22k.pth

Lists, `folder`, `groups` and quirks as in video_swin_k400.py. 32 frames cover the whole video, one of each of 32 equal
parts. imgaug's RandAugment, which the released training uses, always flips half of the clips and crops a few percent
from their sides first, although the config says that nothing is flipped and classes name left and right:
`flip=false` leaves both out.

Published top-1 / top-5 with 1 x 3 views (README of Video-Swin-Transformer; theirs, not ours): 69.6 / 92.7.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from swin_jax import optim
from swin_jax.core.config import derived, parse_arg, refuse_as_script, spec
from swin_jax.data import fake, pipeline
from swin_jax.data.video import sources as video_sources
from swin_jax.data.video import transforms as video
from swin_jax.evals.accuracy import Accuracy
from swin_jax.evals.multi_view import MultiView
from swin_jax.models import video_swin
from swin_jax.models.swin.presets import VARIANTS
from swin_jax.models.video_swin import rules
from swin_jax.optim import schedules
from swin_jax.plan import presets as pods
from swin_jax.pretrained.video_swin import finetune as video_swin_finetune
from swin_jax.tasks.classification import Classification
from swin_jax.train import sharding
from swin_jax.train.init_from import InitFrom

# Sizes are chips of v5e, see `pods`; what the compiler says of them: README, Pod presets.
PODS = {"": pods.Pod(16, {"task.accumulate": 4}, h100={"task.accumulate": 2})}


def get_config(arg=None):
    arg = parse_arg(
        arg,
        groups=("released", "intended"),
        flip=True,
        pod=pods.NAMES,
        folder=False,
        fake=False,
    )
    c = ConfigDict(dict(seed=0, epochs=60, batch_size=64, num_train=168_913, num_classes=174, max_bad_records=1000))
    c.update(base_lr=3e-4, accumulate=8)
    c.update(frames=32, size=224, short_side=256)
    c.update(train_list="", train_prefix="", val_list="", val_prefix="", data_dir=placeholder(str))
    ref = c.get_oneway_ref
    c.steps_per_epoch = ref("num_train") // ref("batch_size")
    c.total_steps = ref("epochs") * ref("steps_per_epoch")
    no_decay, scales = rules.GROUPS[arg.groups]
    clip_size = derived(lambda frames, size: (frames, size, size), ref("frames"), ref("size"))
    c.task = spec(
        Classification,
        model=spec(
            video_swin.make_video_swin,
            **VARIANTS["base"],
            num_classes=ref("num_classes"),
            image_size=clip_size,
            window_size=(16, 7, 7),
            drop_path_rate=0.4,
            dropout_rate=0.5,
            dtype="bfloat16",
        ),
        tx=spec(
            optim.adamw,
            schedule=spec(
                schedules.epoch_cosine,
                base_lr=ref("base_lr") * ref("batch_size") / 64,
                epochs=ref("epochs"),
                steps_per_epoch=ref("steps_per_epoch"),
                warmup_epochs=2.5,
                accumulate=ref("accumulate"),
            ),
            weight_decay=0.05,
            no_decay=no_decay,
            clip_norm=0.0,
            layer_scale=spec(optim.scale_by_name, rules=scales),
        ),
        image_size=clip_size,
        num_classes=ref("num_classes"),
        input="video",
        seed=ref("seed"),
        label_smoothing=0.1,
        mixup=0.0,
        cutmix=0.0,
        erase_probability=0.25,
        erase_mode="const",
        accumulate=ref("accumulate"),
    )
    clip = dict(size=ref("size"), length=ref("frames"), sampling="uniform")
    c.data = spec(
        pipeline.TrainData,
        source=source(c, arg.folder, "train"),
        transform=spec(
            video.video_train_transform,
            **clip,
            short_side=ref("short_side"),
            hflip=0.0,
            randaugment_ops=4,
            randaugment_magnitude=7,
            hidden_flip=arg.flip,
            hidden_crop=arg.flip,
        ),
        batch_size=ref("batch_size"),
        seed=ref("seed"),
        num_workers=32,
        prefetch=2,
        expected_classes=ref("num_classes"),
        expected_examples=ref("num_train"),
    )
    shared = dict(num_workers=32, prefetch=2, expected_classes=ref("num_classes"))
    one = spec(video.video_eval_transform, **clip, short_side=ref("short_side"))
    views = lambda: spec(video.video_views_transform, **clip, clips=1, crops=3)  # noqa: E731
    c.evals = dict(
        val=dict(
            every=5 * ref("steps_per_epoch"),
            run=spec(
                Accuracy,
                data=spec(
                    pipeline.EvalData, source=source(c, arg.folder, "val"), transform=one, batch_size=64, **shared
                ),
            ),
        ),
        test=dict(
            every=0,
            run=spec(
                MultiView,
                data=spec(
                    pipeline.EvalData, source=source(c, arg.folder, "val"), transform=views(), batch_size=8, **shared
                ),
                views_at_once=0,
            ),
        ),
    )
    c.predict = spec(
        pipeline.EvalData,
        source=spec(video_sources.flat_video_folder, root=""),
        transform=views(),
        batch_size=4,
    )
    c.init_from = spec(
        InitFrom,
        required=True,
        backbone=True,
        head=video_swin_finetune.FRESH,
        convert=spec(video_swin_finetune.pretrained, patch="inflate", bias="duplicate", resize="bicubic", head=False),
    )
    c.partition = spec(sharding.Partition, rules=rules.PARTITION)
    c.mesh = dict(data=-1, fsdp=1, tensor=1)
    c.checkpoint = dict(every=ref("steps_per_epoch"), keep=2)
    c.logs = dict(every=50, wandb="")
    pods.use(c, arg, PODS)
    return use_fakes(c) if arg.fake else c


def source(c, folder, split):
    """Training replaces files of variable frame rate, whose motion changes speed; evaluation reads them exactly."""
    ref, exact = c.get_oneway_ref, split != "train"
    if folder:
        return spec(video_sources.video_folder, root=ref("data_dir"), split=split, variable_frame_rate=exact)
    return spec(
        video_sources.video_list,
        annotation=ref(f"{split}_list"),
        data_prefix=ref(f"{split}_prefix"),
        num_classes=ref("num_classes"),
        variable_frame_rate=exact,
    )


def use_fakes(c):
    """No data, no weights and no time: a tiny model on made-up videos."""
    c.update(epochs=1, batch_size=8, num_train=24, num_classes=10, frames=4, size=32, short_side=36, accumulate=1)
    tiny = dict(embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=(2, 4, 4))
    c.task.model.update(tiny)
    c.init_from.required = False
    for split, data in (("train", c.data), ("test", c.evals.val.run.data), ("test", c.evals.test.run.data)):
        data.source = spec(fake.videos, image_size=40, num_examples=24, split=split)
        data.update(num_workers=0, batch_size=8)
    return c


if __name__ == "__main__":
    refuse_as_script()
