"""A small Swin Transformer learns to read handwritten digits, in a minute or two on two CPU cores,
with no download.

    python -m swin_jax.launch --config=experiments/quickstart.py --workdir=runs/quickstart

Data: `digits` of scikit-learn (1,797 gray images of 8 x 8 pixels), 80 % for training, 20 % for
testing, stratified, split seed 0. Expected: 98.6 % test accuracy at the last step (median of
training seeds 0, 1 and 2).

Pictures for --predict show one digit each, dark or bright, of any color and size, in thick strokes
on a plain ground; it is cut out and made as small as the digits of the data.
"""

from ml_collections import ConfigDict

from swin_jax.core.config import derived, parse_arg, refuse_as_script, spec
from swin_jax.data import fake, pipeline, sources
from swin_jax.data.image.small import drawing_eval_transform, small_train_transform
from swin_jax.evals.accuracy import Accuracy
from swin_jax.models.swin import Swin, rules
from swin_jax.optim import adamw
from swin_jax.optim.schedules import warmup_cosine
from swin_jax.tasks.classification import Classification
from swin_jax.train.init_from import InitFrom
from swin_jax.train.sharding import Partition


def get_config(arg=None):
    arg = parse_arg(arg, fake=False)

    # Sizes: what is ref("seed") below follows the seed here, also when the command line sets it.
    c = ConfigDict(dict(seed=0, total_steps=1500, batch_size=64, image_size=8, num_classes=10))
    c.max_bad_records = 0
    ref = c.get_oneway_ref

    # Model
    model = spec(
        Swin,
        num_classes=ref("num_classes"),
        image_size=ref("image_size"),
        patch_size=2,
        in_channels=1,
        embed_dim=64,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=2,
        drop_path_rate=0.0,
    )

    # Optimizer
    schedule = spec(
        warmup_cosine,
        base_lr=2e-3,
        total_steps=ref("total_steps"),
        warmup_steps=100,
        min_lr=1e-5,
        warmup_prefix=True,
    )
    tx = spec(adamw, schedule=schedule, no_decay=rules.NO_DECAY)

    # Task
    gray = dict(channels=1, mean=(0.3,), std=(0.38,))
    same = dict(image_size=ref("image_size"), num_classes=ref("num_classes"), seed=ref("seed"))
    plain = dict(erase_probability=0.0, mixup=0.0, cutmix=0.0)
    c.task = spec(Classification, model=model, tx=tx, **gray, **same, **plain)

    # Data
    augment = spec(small_train_transform, size=ref("image_size"), padding=1, channels=1)
    c.data = spec(
        pipeline.TrainData,
        source=spec(sources.digits, split="train"),
        transform=augment,
        batch_size=ref("batch_size"),
        seed=ref("seed"),
        expected_classes=ref("num_classes"),
    )

    # Evals
    crop = spec(drawing_eval_transform, size=ref("image_size"))
    digits = spec(sources.digits, split="test")
    test = spec(pipeline.EvalData, source=digits, transform=crop, batch_size=180)
    c.evals = dict(test=dict(every=200, run=spec(Accuracy, data=test)))
    crop = spec(drawing_eval_transform, size=ref("image_size"))
    folder = spec(sources.flat_folder, root="")
    c.predict = spec(pipeline.EvalData, source=folder, transform=crop, batch_size=64)

    # Run
    c.init_from = spec(InitFrom)
    c.partition = spec(Partition, rules=rules.PARTITION)
    c.mesh = dict(data=-1, fsdp=1, tensor=1)
    c.checkpoint = dict(every=400, keep=2)
    c.logs = dict(every=derived(lambda n: min(20, max(n // 20, 1)), ref("total_steps")), wandb="")
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No data and no time: a tiny model on made-up images."""
    c.total_steps, c.batch_size, c.task.tx.schedule.warmup_steps = 3, 8, 1
    c.task.model.update(embed_dim=16, depths=(1, 1))
    for split, data in (("train", c.data), ("test", c.evals.test.run.data)):
        data.source = spec(fake.images, image_size=8, num_examples=40, split=split, channels=1)
    return c


if __name__ == "__main__":
    refuse_as_script()
