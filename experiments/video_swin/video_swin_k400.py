"""Trains Video Swin on Kinetics-400 from image weights, as arXiv 2106.13230 and its released configs do.

    python -m swin_jax.data.video.scan --annotations=lists/kinetics400_train_list.txt --data_prefix=videos/train
    python -m swin_jax.launch --config=experiments/video_swin/video_swin_k400.py:variant=tiny --workdir=runs/video_tiny
    \
        --config.train_list=lists/kinetics400_train_list.txt --config.train_prefix=videos/train \
        --config.val_list=lists/kinetics400_val_list.txt --config.val_prefix=videos/val \
        --config.init_from.path=swin_tiny_patch4_window7_224.pth

Lists have a line `path.mp4 label` for each video. `folder` reads --config.data_dir/{train,val}/CLASS/*.mp4 instead.
Videos whose short side was scaled to 256 before, with a key frame every 12 frames, are read two to three times faster.

`init_from.path` is a file of 2-D Swin weights, which are inflated, or a checkpoint of Video Swin, official or ours.
`--config.total_steps=0` tests it. A test that was stopped goes on with `--config.evals.test.run.cache=FOLDER`.

Published top-1 / top-5 with 4 x 3 views (README of Video-Swin-Transformer; theirs, not ours):

    variant=tiny               78.8 / 93.6
    variant=small              80.6 / 94.5
    variant=base               80.6 / 94.6
    variant=base,images=22k    82.7 / 95.5
    variant=large,images=22k   83.1 / 95.9   (weights never released; values of base where none are)
    variant=large,images=22k,size=384   84.6 / 96.5   (windows of 8 x 12 x 12)

Quirks of the released training are the default: the rate falls once an epoch, the batch of 64 is `accumulate`
micro-batches, position tables train at ten times the backbone's rate, and norms and biases are decayed.
`groups=intended` has what the configs meant to say (tables and norms without decay, all of the backbone at a tenth).
The released runs are mixed float16; here matrix products and the residual stream are bfloat16.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from swin_jax import optim
from swin_jax.core.config import derived, parse_arg, refuse_as_script, spec
from swin_jax.core.errors import UserError
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

WEIGHT_DECAY = dict(tiny=0.02, small=0.02, base=0.05, large=0.05)
DROP_PATH = {
    ("tiny", "1k"): 0.1,
    ("small", "1k"): 0.1,
    ("base", "1k"): 0.3,
    ("base", "22k"): 0.2,
    ("large", "22k"): 0.2,
}
# Sizes are chips of v5e, see `pods`; what the compiler says of them: README, Pod presets.
PODS = {
    "variant=tiny,images=1k": pods.Pod(16, {"task.accumulate": 4}, h100={"task.accumulate": 2}),
    "variant=small,images=1k": pods.Pod(16, {"task.accumulate": 4}, h100={"task.accumulate": 2}),
    "variant=base,images=1k": pods.Pod(16, {"task.accumulate": 4}, h100={"task.accumulate": 2}),
    "variant=base,images=22k": pods.Pod(16, {"task.accumulate": 4}, h100={"task.accumulate": 2}),
    "variant=large,images=22k": pods.Pod(16, {"task.accumulate": 4}, h100={"task.accumulate": 2}),
    "variant=large,images=22k,size=384": pods.Pod(16, {"task.accumulate": 4, "task.model.remat": "full"}),
}


def get_config(arg=None):
    arg = parse_arg(
        arg,
        variant=("tiny", "small", "base", "large"),
        images=("1k", "22k"),
        size=("224", "384"),
        groups=("released", "intended"),
        pod=pods.NAMES,
        folder=False,
        fake=False,
    )
    if (arg.variant, arg.images) not in DROP_PATH:
        known = ", ".join(f"variant={variant},images={images}" for variant, images in DROP_PATH)
        raise UserError(f"variant={arg.variant},images={arg.images} was not published; those are {known}")
    size = int(arg.size)
    c = ConfigDict(dict(seed=0, epochs=30, batch_size=64, num_train=240_436, num_classes=400, max_bad_records=1000))
    c.update(base_lr=1e-3 if arg.images == "1k" else 3e-4, accumulate=4 if arg.variant == "tiny" else 8)
    c.update(frames=32, stride=2, size=size, short_side=256 if size == 224 else 438)
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
            **VARIANTS[arg.variant],
            num_classes=ref("num_classes"),
            image_size=clip_size,
            window_size=(8, size // 32, size // 32),
            drop_path_rate=DROP_PATH[arg.variant, arg.images],
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
            weight_decay=WEIGHT_DECAY[arg.variant],
            no_decay=no_decay,
            clip_norm=0.0,
            layer_scale=spec(optim.scale_by_name, rules=scales),
        ),
        image_size=clip_size,
        num_classes=ref("num_classes"),
        input="video",
        seed=ref("seed"),
        label_smoothing=0.0,
        mixup=0.0,
        cutmix=0.0,
        erase_probability=0.0,
        accumulate=ref("accumulate"),
    )
    clip = dict(size=ref("size"), length=ref("frames"), stride=ref("stride"))
    c.data = spec(
        pipeline.TrainData,
        source=source(c, arg.folder, "train"),
        transform=spec(video.video_train_transform, **clip, short_side=ref("short_side"), hflip=0.5),
        batch_size=ref("batch_size"),
        seed=ref("seed"),
        num_workers=32,
        prefetch=2,
        expected_classes=ref("num_classes"),
        expected_examples=ref("num_train"),
    )
    shared = dict(num_workers=32, prefetch=2, expected_classes=ref("num_classes"))
    one = spec(video.video_eval_transform, **clip, short_side=ref("short_side"))
    views = lambda: spec(video.video_views_transform, **clip, clips=4, crops=3)  # noqa: E731
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
        convert=spec(video_swin_finetune.pretrained, patch="inflate", bias="duplicate", head=False),
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
