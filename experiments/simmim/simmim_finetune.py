"""Fine-tunes a Swin Transformer that SimMIM pretrained, on ImageNet-1K (arXiv 2111.09886;
version 2: arXiv 2206.04664).

    python -m swin_jax.launch --config=experiments/simmim/simmim_finetune.py:variant=base \
        --workdir=runs/simmim_base_ft \
        --config.data_dir=data \
        --config.init_from.path=simmim_pretrain__swin_base__img192_window6__800ep.pth

`init_from.path` is a file of official weights or a workdir of `simmim_in1k.py`. The encoder is
taken, the head starts anew. Version 1's bias tables are resized on the geometric grid of the
official loader; version 2's bias is evaluated anew in the coordinates of the pretraining.

`folder` reads one folder of images for each class, as in swin_in1k.py.

Published top-1 (the README of microsoft/SimMIM and arXiv 2206.04664), 100 epochs at batch
size 2048:

    arguments                          top-1   window  layer decay  drop path
    variant=base,start=100ep,size=192  82.8    6       0.9          0.1
    variant=base,start=100ep           83.5    7       0.9          0.1
    variant=base                       84.0    7       0.8          0.1
    variant=large                      85.4    14      0.7          0.2
    generation=v2,variant=base         85.04   14      0.75         0.1
    generation=v2,variant=small        84.08   14
    generation=v2,variant=large        85.91   14
    generation=v2,variant=huge         86.34   14
    generation=v2,variant=giant_1b     86.46   14

Those of version 2 start from 500,000 updates on ImageNet-1K, the first four from `start` epochs.
For the last four no configuration was released: small has base's values here, the others those of
version 1's large, and huge the norm on the residual stream of the pretraining
(`--config.task.model.main_norm_every=0` leaves it out). The released script computes in float32,
`--config.task.model.dtype=float32`.

The learning rate of a layer falls by `layer decay` for each layer further down; all layers share
the rate that the warm-up starts from and the last one. Quirks of the published runs are the
default: `warmup_prefix=False`, `delay=1`.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import imagenet, run
from swin_jax.core.errors import UserError
from swin_jax.data.image import transforms as image
from swin_jax.models.swin import V2, VARIANTS, Swin, rules
from swin_jax.optim import adamw
from swin_jax.pretrained.swin import finetune
from swin_jax.tasks.classification import Classification

V1_WINDOW = dict(base={192: 6, 224: 7}, large={192: 12, 224: 14})
V2_WINDOW = {192: 12, 224: 14}
LAYER_DECAY = dict(
    v1=dict(base=0.8, large=0.7),
    v2=dict(small=0.75, base=0.75, large=0.7, huge=0.7, giant_1b=0.7),
)
DROP_PATH = dict(small=0.1, base=0.1, large=0.2, huge=0.2, giant_1b=0.2)
PODS = run.read_pods("simmim_finetune")


def get_config(arg=None):
    arg = parse_arg(
        arg,
        variant=("base", "small", "large", "huge", "giant_1b"),
        generation=("v1", "v2"),
        size=("224", "192"),
        start=("800ep", "100ep"),
        **run.ARGUMENTS,
    )
    v2 = arg.generation == "v2"
    if arg.variant not in LAYER_DECAY[arg.generation]:
        raise UserError(f"variant={arg.variant} is one of version 2: add generation=v2")
    layer_decay = LAYER_DECAY[arg.generation][arg.variant]
    if arg.start == "100ep":
        if v2 or arg.variant != "base":
            raise UserError("start=100ep is published for generation=v1,variant=base only")
        layer_decay = 0.9

    # Sizes
    size = int(arg.size)
    c = imagenet.sizes(epochs=100, batch_size=2048, image_size=size, **imagenet.IN1K)
    ref = c.get_oneway_ref

    # Model
    model = spec(
        Swin,
        **VARIANTS[arg.variant],
        **(V2 if v2 else {}),
        **run.refs(c, "image_size", "num_classes"),
        main_norm_every=6 if arg.variant == "huge" else 0,
        window_size=V2_WINDOW[size] if v2 else V1_WINDOW[arg.variant][size],
        pretrained_window_sizes=(12, 12, 12, 6) if v2 else (),
        drop_path_rate=DROP_PATH[arg.variant],
        dtype="bfloat16",
    )

    # Optimizer
    c.update(warmup_epochs=20, base_lr=1.25e-3, warmup_lr=2.5e-7, min_lr=2.5e-7)
    schedule = run.warmup_cosine(c, 512, warmup_prefix=False, delay=1)
    tx = spec(adamw, schedule=schedule, weight_decay=0.05, no_decay=rules.NO_DECAY, clip_norm=5.0)
    depths = model.get_oneway_ref("depths")
    tx.layer_scale = spec(rules.layer_decay, decay=layer_decay, depths=depths)

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
    convert = spec(finetune.simmim_pretrained)
    c.init_from = run.init_from(required=True, backbone=True, convert=convert)
    run.set_up(c, rules.PARTITION, every=ref("steps_per_epoch"))
    return imagenet.use_fakes(c) if arg.fake else run.use_pod(c, arg, PODS)
