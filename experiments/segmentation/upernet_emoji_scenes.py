"""UPerNet on scenes of emoji: a real run from random weights on two CPU cores.

    pip install -e '.[emoji]' && python -m swin_jax.data.builders.emoji_scenes --data_dir=data
    python -m swin_jax.launch --config=experiments/segmentation/upernet_emoji_scenes.py \
        --workdir=runs/emoji_scenes --config.data_dir=data

A small Swin with a narrow UPerNet names the class of every pixel: background or one of 12 emoji.
It learns from 4,000 scenes of 128 x 128 pixels with the drawings of five vendors, and is measured
on 400 scenes of the same vendors over other parts of the photographs (val) and on 400 of openmoji,
a vendor that it never saw (shift). `mean_iou` is over all 13 classes, `foreground_iou` over the 12
emoji. Four pixels of five are background: who calls all of them that has a mean IoU of 6 %, and who
looks up the color of each pixel 39 % (val) and 17 % (shift).

experiments/studies/emoji_scenes.py makes tables and pictures of runs; docs/segmentation.md has the
numbers.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from experiments.common import run, segmentation
from swin_jax.data import fake, pipeline
from swin_jax.data.emoji.scenes import emoji_scenes
from swin_jax.data.segmentation.transforms import eval_transform, train_transform
from swin_jax.evals.mean_iou import MeanIoU
from swin_jax.models.segmentation import make_upernet, rules
from swin_jax.models.swin import rules as swin_rules
from swin_jax.optim import adamw
from swin_jax.optim.schedules import warmup_linear
from swin_jax.pretrained.segmentation import finetune
from swin_jax.tasks.segmentation import Segmentation


def get_config(arg=None):
    arg = parse_arg(arg, fake=False)

    # Sizes
    c = ConfigDict(dict(seed=0, total_steps=5000, batch_size=8, image_size=128, num_classes=13))
    c.update(max_bad_records=0, data_dir=placeholder(str))
    ref = c.get_oneway_ref

    # Model
    backbone = dict(embed_dim=32, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=4)
    head = dict(channels=64, auxiliary_channels=64)
    same = run.refs(c, "image_size", "num_classes")
    model = spec(make_upernet, **same, **backbone, **head, drop_path_rate=0.0)

    # Optimizer
    steps = dict(total_steps=ref("total_steps"), warmup_steps=100)
    schedule = spec(warmup_linear, base_lr=1e-3, **steps)
    no_decay = (*swin_rules.NO_DECAY, r"\.bn\.")
    tx = spec(adamw, schedule=schedule, weight_decay=0.05, no_decay=no_decay)

    # Task
    same = run.refs(c, "image_size", "num_classes", "seed")
    c.task = spec(Segmentation, model=model, tx=tx, **same)

    # Data
    augment = dict(scale=None, most_of_one_class=1.0, hflip=0.5, distort=True)
    c.data = spec(
        pipeline.TrainData,
        source=spec(emoji_scenes, data_dir=ref("data_dir"), split="train"),
        transform=spec(train_transform, size=ref("image_size"), **augment),
        **run.refs(c, "batch_size", "seed"),
        expected_classes=ref("num_classes"),
    )

    # Evals
    c.evals = dict(val=evaluation(c, "val"), shift=evaluation(c, "shift"))
    c.predict = run.predict_images(spec(eval_transform, scale=None))
    c.predict_method = segmentation.predict_method(c)

    # Run
    c.init_from = run.init_from(convert=spec(finetune.pretrained), head=finetune.FRESH)
    run.set_up(c, rules.PARTITION, every=500)
    return use_fakes(c) if arg.fake else c


def evaluation(c, split):
    """Mean IoU over the scenes of a split."""
    source = spec(emoji_scenes, data_dir=c.get_oneway_ref("data_dir"), split=split)
    crop = spec(eval_transform, scale=None)
    data = spec(pipeline.EvalData, source=source, transform=crop, batch_size=50)
    measure = spec(MeanIoU, data=data, background="background")
    return dict(every=c.get_oneway_ref("total_steps") // 10, run=measure)


def use_fakes(c):
    """No data and no time: a tiny model on made-up scenes."""
    c.update(total_steps=3, batch_size=8, image_size=32, num_classes=4)
    c.task.tx.schedule.warmup_steps = 1
    c.task.model.update(embed_dim=8, depths=(1, 1), num_heads=(1, 2))
    c.task.model.update(channels=8, auxiliary_channels=8, pool_scales=(1, 2))
    fields = dict(image_size=32, num_examples=20)
    c.data.source = spec(fake.scenes, **fields, split="train")
    for item in c.evals.values():
        item.run.data.source = spec(fake.scenes, **fields, split="test")
        item.run.data.batch_size = 10
        item.run.background = "class 0"
    return c
