"""Fine-tunes a Swin Transformer that SimMIM pretrained, on ImageNet-1K (arXiv 2111.09886; version 2: arXiv 2206.04664).

    python -m swin_jax.launch --config=experiments/simmim/simmim_finetune.py:variant=base --workdir=runs/simmim_base_ft
    \
        --config.data_dir=data --config.init_from.path=simmim_pretrain__swin_base__img192_window6__800ep.pth

`init_from.path` is a file of official weights or a workdir of `simmim_in1k.py`. The encoder is taken, the head starts
anew. Version 1's bias tables are resized on the geometric grid of the official loader; version 2's bias is evaluated
anew in the coordinates of the pretraining.

`folder` as in swin_in1k.py.

Published top-1 (the README of microsoft/SimMIM and arXiv 2206.04664; theirs, not ours), 100 epochs at batch size 2048:

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

Those of version 2 start from 500,000 updates on ImageNet-1K, the first four from `start` epochs. For the last four
no configuration was released: small has base's values here, the others those of version 1's large, and huge the norm
on the residual stream of the pretraining (`--config.task.model.main_norm_every=0` leaves it out). The released script
computes in float32, `--config.task.model.dtype=float32`.

The learning rate of a layer falls by `layer decay` for each layer further down; all layers share the rate that the
warm-up starts from and the last one. Quirks of the published runs are the default: `warmup_prefix=False`, `delay=1`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from swin_jax import optim
from swin_jax.core.config import parse_arg, refuse_as_script, spec
from swin_jax.core.errors import UserError
from swin_jax.data import fake, pipeline, sources
from swin_jax.data.image import transforms as image
from swin_jax.evals.accuracy import Accuracy
from swin_jax.models import swin
from swin_jax.models.swin import rules
from swin_jax.optim import schedules
from swin_jax.plan import presets as pods
from swin_jax.pretrained.swin import finetune
from swin_jax.tasks.classification import Classification
from swin_jax.train import sharding
from swin_jax.train.init_from import InitFrom

V1_WINDOW = dict(base={192: 6, 224: 7}, large={192: 12, 224: 14})
V2_WINDOW = {192: 12, 224: 14}
LAYER_DECAY = dict(v1=dict(base=0.8, large=0.7), v2=dict(small=0.75, base=0.75, large=0.7, huge=0.7, giant_1b=0.7))
DROP_PATH = dict(small=0.1, base=0.1, large=0.2, huge=0.2, giant_1b=0.2)
# Sizes are chips of v5e, see `pods`; what the compiler says of them: README, Pod presets.
PODS = {
    "variant=base": pods.Pod(64),
    "variant=large": pods.Pod(128, h100={"task.accumulate": 2}),
    "generation=v2,variant=small": pods.Pod(64),
    "generation=v2,variant=base": pods.Pod(64, h100={"task.accumulate": 2}),
    "generation=v2,variant=large": pods.Pod(128, h100={"task.accumulate": 2}),
    "generation=v2,variant=huge": pods.Pod(256, {"partition.opt_axis": "data"}, h100={"task.accumulate": 4}),
    "generation=v2,variant=giant_1b": pods.Pod(256, {"partition.opt_axis": "data"}, h100={"task.accumulate": 8}),
}


def get_config(arg=None):
    arg = parse_arg(
        arg,
        variant=("base", "small", "large", "huge", "giant_1b"),
        generation=("v1", "v2"),
        size=("224", "192"),
        start=("800ep", "100ep"),
        pod=pods.NAMES,
        folder=False,
        fake=False,
    )
    v2, size = arg.generation == "v2", int(arg.size)
    if arg.variant not in LAYER_DECAY[arg.generation]:
        raise UserError(f"variant={arg.variant} is one of version 2: add generation=v2")
    layer_decay = LAYER_DECAY[arg.generation][arg.variant]
    if arg.start == "100ep":
        if v2 or arg.variant != "base":
            raise UserError("start=100ep is published for generation=v1,variant=base only")
        layer_decay = 0.9
    c = ConfigDict(dict(seed=0, epochs=100, warmup_epochs=20, batch_size=2048, num_train=1_281_167, num_classes=1000))
    c.update(image_size=size, base_lr=1.25e-3, warmup_lr=2.5e-7, min_lr=2.5e-7, max_bad_records=1000)
    c.data_dir = placeholder(str)
    ref = c.get_oneway_ref
    c.steps_per_epoch = ref("num_train") // ref("batch_size")
    c.total_steps = ref("epochs") * ref("steps_per_epoch")
    model = spec(
        swin.Swin,
        **swin.VARIANTS[arg.variant],
        **(swin.V2 if v2 else {}),
        main_norm_every=6 if arg.variant == "huge" else 0,
        num_classes=ref("num_classes"),
        image_size=ref("image_size"),
        window_size=V2_WINDOW[size] if v2 else V1_WINDOW[arg.variant][size],
        pretrained_window_sizes=(12, 12, 12, 6) if v2 else (),
        drop_path_rate=DROP_PATH[arg.variant],
        dtype="bfloat16",
    )
    c.task = spec(
        Classification,
        model=model,
        tx=spec(
            optim.adamw,
            schedule=spec(
                schedules.warmup_cosine,
                base_lr=ref("base_lr") * ref("batch_size") / 512,
                total_steps=ref("total_steps"),
                warmup_steps=ref("warmup_epochs") * ref("steps_per_epoch"),
                warmup_lr=ref("warmup_lr") * ref("batch_size") / 512,
                min_lr=ref("min_lr") * ref("batch_size") / 512,
                warmup_prefix=False,
                delay=1,
            ),
            weight_decay=0.05,
            no_decay=rules.NO_DECAY,
            clip_norm=5.0,
            layer_scale=spec(rules.layer_decay, decay=layer_decay, depths=model.get_oneway_ref("depths")),
        ),
        image_size=ref("image_size"),
        num_classes=ref("num_classes"),
        seed=ref("seed"),
        label_smoothing=0.1,
        mixup=0.8,
        cutmix=1.0,
        mix_group=128,
        erase_probability=0.25,
    )
    if arg.folder:
        train = spec(sources.image_folder, root=ref("data_dir"), split="train")
        validation = spec(sources.image_folder, root=ref("data_dir"), split="val")
    else:
        train = spec(sources.tfds, name="imagenet2012", split="train", data_dir=ref("data_dir"))
        validation = spec(sources.tfds, name="imagenet2012", split="validation", data_dir=ref("data_dir"))
    c.data = spec(
        pipeline.TrainData,
        source=train,
        transform=spec(image.train_transform, size=ref("image_size"), auto_augment="rand-m9-mstd0.5-inc1"),
        batch_size=ref("batch_size"),
        seed=ref("seed"),
        num_workers=16,
        expected_classes=ref("num_classes"),
        expected_examples=ref("num_train"),
    )
    transform = dict(size=ref("image_size"), crop=True)
    val = spec(
        pipeline.EvalData,
        source=validation,
        transform=spec(image.eval_transform, **transform),
        batch_size=1024,
        num_workers=16,
        expected_classes=ref("num_classes"),
    )
    c.evals = dict(val=dict(every=ref("steps_per_epoch"), run=spec(Accuracy, data=val)))
    c.predict = spec(
        pipeline.EvalData,
        source=spec(sources.flat_folder, root=""),
        transform=spec(image.eval_transform, **transform),
        batch_size=64,
    )
    c.init_from = spec(InitFrom, required=True, backbone=True, convert=spec(finetune.simmim_pretrained))
    c.partition = spec(sharding.Partition, rules=rules.PARTITION)
    c.mesh = dict(data=-1, fsdp=1, tensor=1)
    c.checkpoint = dict(every=ref("steps_per_epoch"), keep=2)
    c.logs = dict(every=50, wandb="")
    pods.use(c, arg, PODS)
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No data, no weights and no time: a tiny model on made-up images."""
    c.update(epochs=1, warmup_epochs=0, batch_size=8, num_train=24, num_classes=10, image_size=32)
    c.task.model.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=4)
    c.task.model.pretrained_window_sizes = (3, 3) if c.task.model.continuous_bias else ()
    c.init_from.required = False
    for split, data in (("train", c.data), ("test", c.evals.val.run.data)):
        data.source = spec(fake.images, image_size=40, num_examples=24, split=split)
        data.update(num_workers=0, batch_size=8)
    return c


if __name__ == "__main__":
    refuse_as_script()
