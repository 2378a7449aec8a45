"""The three stages of SwinV2-G, 3.0 billion parameters (arXiv 2111.09883, appendix A2):
SimMIM, 22K labels, 1K labels.

    python -m swin_jax.launch --config=experiments/swin/swinv2_giant.py:stage=simmim \
        --workdir=runs/giant_simmim --config.data_dir=data
    python -m swin_jax.launch --config=experiments/swin/swinv2_giant.py:stage=in22k \
        --workdir=runs/giant_22k --config.data_dir=data --config.init_from.path=runs/giant_simmim
    python -m swin_jax.launch --config=experiments/swin/swinv2_giant.py:stage=in1k \
        --workdir=runs/giant_1k --config.data_dir=data --config.init_from.path=runs/giant_22k \
        --config.init_from.convert.class_map=map22kto1k.txt

    stage   pixels  window    batch  peak rate  epochs  drop path  layer decay
    simmim  192     12        9216   1.4e-3     20      0.1        -
    in22k   192     12        9216   1.4e-3     30      0.3        0.87
    in1k    640     12 to 40   576   2.1e-5     10      0.5        0.87

Published after the third stage (the weights were never released): top-1 90.17 on
ImageNet-1K, 84.00 on ImageNet-V2.

The paper's first two stages saw 70 million images, most of them private. They don't exist here:
ImageNet-22K's 14 million are seen more often, for the same number of updates. Of the first stage
the paper gives the rate, 30,000 updates of warm-up, weight decay 0.1 and clipping at 100; the
second has the same here. The third has their weight decay, clipping and layer decay, and a warm-up
of a sixth of the run as the other fine-tunings have it. The first stage's drop path, the target
normalized in 47 x 47 pixels, the final rates (a hundredth of the peak) and the quirk in the weight
decay (see simmim_in1k.py; corrected by `weight_decay=corrected`) are those of the smaller models.
Ours, as nothing is published: a warm-up from 0, mixing in groups of 64, and the third stage's
evaluation of the whole picture.

With `folder` the images lie in data/train/CLASS/ and data/val/CLASS/.

What makes it fit: a norm on the residual stream every 6 blocks for stability, blocks stored as
stacked units of 6 (`scan`), so that the 42 blocks compile in the time of one unit; every block
computed again in the backward pass (`remat`); in the third stage one window at a time in the first
two resolutions (`attention`); and the optimizer's moments split over all devices while each holds
all parameters (ZeRO-1, as in the paper). `--config.mesh.fsdp=8` splits the parameters as well.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import imagenet, run
from swin_jax.data import pipeline
from swin_jax.data.image import transforms as image
from swin_jax.evals.accuracy import Accuracy
from swin_jax.evals.reconstruction import Reconstruction
from swin_jax.models.simmim import SimMIM
from swin_jax.models.swin import V2, VARIANTS, Swin, rules
from swin_jax.optim import adamw, schedules
from swin_jax.pretrained.swin import finetune
from swin_jax.pretrained.swin import simmim as convert_simmim
from swin_jax.tasks.classification import Classification
from swin_jax.tasks.masked_image import MaskedImageModeling

PRETRAINING = dict(batch_size=9216, peak_lr=1.4e-3, image_size=192, epoch_size=70_000_000)
FINE_TUNING = dict(batch_size=576, peak_lr=2.1e-5, image_size=640, epoch_size=1_281_167)
STAGES = dict(
    simmim=dict(PRETRAINING, epochs=20, num_train=14_197_122, max_bad_records=10_000),
    in22k=dict(PRETRAINING, epochs=30, **imagenet.IN22K),
    in1k=dict(FINE_TUNING, epochs=10, **imagenet.IN1K),
)
DROP_PATH = dict(simmim=0.1, in22k=0.3, in1k=0.5)
NO_DECAY = dict(published=rules.SIMMIM_NO_DECAY, corrected=rules.NO_DECAY)
PODS = run.read_pods("swinv2_giant")


def get_config(arg=None):
    arg = parse_arg(arg, stage=tuple(STAGES), weight_decay=tuple(NO_DECAY), **run.ARGUMENTS)
    masked, large = arg.stage == "simmim", arg.stage == "in1k"

    # Sizes
    c = imagenet.sizes(examples="epoch_size", **STAGES[arg.stage])
    if masked:
        c.update(mask_cell=32, mask_ratio=0.6)
    ref = c.get_oneway_ref

    # Model
    model = spec(
        Swin,
        **VARIANTS["giant"],
        **V2,
        main_norm_every=6,
        num_classes=0 if masked else ref("num_classes"),
        image_size=ref("image_size"),
        window_size=40 if large else 12,
        pretrained_window_sizes=(12, 12, 12, 6),
        drop_path_rate=DROP_PATH[arg.stage],
        attention=("sequential", "sequential", "xla", "xla") if large else "xla",
        remat="full",
        scan=True,
        dtype="bfloat16",
    )

    # Optimizer
    c.warmup_steps = ref("total_steps") // 6 if large else 30_000
    schedule = cosine(c, c.batch_size)
    tx = spec(adamw, schedule=schedule, weight_decay=0.1, no_decay=rules.NO_DECAY, clip_norm=100.0)
    if masked:
        tx.no_decay = NO_DECAY[arg.weight_decay]
    else:
        depths = model.get_oneway_ref("depths")
        tx.layer_scale = spec(rules.layer_decay, decay=0.87, depths=depths)

    # Task
    c.task = masked_image(c, model, tx) if masked else classification(c, model, tx)

    # Data
    train, val = imagenet.read_1k(c, arg.folder) if large or arg.folder else imagenet.read_22k(c)
    augment = spec(image.train_transform, size=ref("image_size"))
    crop = spec(image.eval_transform, size=ref("image_size"), crop=not large)
    if masked:
        augment.update(scale=(0.67, 1.0), interpolation="bilinear", auto_augment="")
        augment, crop = imagenet.mask(c, augment, crop)
    else:
        augment.auto_augment = "rand-m9-mstd0.5-inc1"
    c.data = imagenet.train_data(c, train, augment)

    # Evals
    data = spec(pipeline.EvalData, source=val, transform=crop, batch_size=512, num_workers=16)
    measure = spec(Reconstruction if masked else Accuracy, data=data)
    c.evals = dict(val=dict(every=ref("steps_per_epoch"), run=measure))
    if not masked:
        c.predict = imagenet.predict(c, dict(size=ref("image_size"), crop=not large))

    # Run
    c.init_from = init_from(arg.stage)
    run.set_up(c, rules.PARTITION, every=1000)
    c.partition.opt_axis = "data"
    return use_fakes(c, masked) if arg.fake else run.use_pod(c, arg, PODS)


def cosine(c, per):
    """Warm-up and cosine; the peak rate is that of the published batch size, `per`."""
    peak = c.get_oneway_ref("peak_lr") * c.get_oneway_ref("batch_size") / per
    return spec(
        schedules.warmup_cosine,
        base_lr=peak,
        **run.refs(c, "total_steps", "warmup_steps"),
        min_lr=peak / 100,
        warmup_prefix=False,
        delay=1,
    )


def masked_image(c, model, tx):
    """The first stage's task."""
    same = run.refs(c, "image_size", "mask_cell", "seed")
    model = spec(SimMIM, encoder=model)
    return spec(MaskedImageModeling, model=model, tx=tx, **same, norm_target=47)


def classification(c, model, tx):
    """The task of the stages with labels."""
    mixing = dict(mixup=0.8, cutmix=1.0, label_smoothing=0.1, erase_probability=0.25)
    mixing["mix_group"] = 64  # divides both batch sizes
    same = run.refs(c, "image_size", "num_classes", "seed")
    return spec(Classification, model=model, tx=tx, **same, **mixing)


def init_from(stage):
    """Each stage starts from the one before."""
    if stage == "simmim":
        return run.init_from(convert=spec(convert_simmim.pretrained))
    if stage == "in22k":
        convert = spec(finetune.simmim_pretrained)
        return run.init_from(required=True, backbone=True, convert=convert)
    return run.init_from(required=True, convert=spec(finetune.pretrained))


def use_fakes(c, masked):
    """No data, no weights and no time: a tiny model of two stacked units on made-up images."""
    c.update(epochs=1, warmup_steps=0, batch_size=8, num_train=24, epoch_size=24, image_size=32)
    if masked:
        c.mask_cell, model = 8, c.task.model.encoder
    else:
        c.num_classes, model = 10, c.task.model
    model.update(embed_dim=16, depths=(4,), num_heads=(1,), window_size=4, main_norm_every=2)
    model.pretrained_window_sizes = (3,)
    if isinstance(model.attention, tuple):
        model.attention = ("sequential",)
    c.init_from.required = False
    imagenet.use_fake_images(c)
    return c
