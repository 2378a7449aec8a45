"""A small Swin Transformer learns to read handwritten digits, in a minute or two on two CPU cores, with no download.

    python -m swin_jax.launch --config=experiments/quickstart.py --workdir=runs/quickstart

Data: `digits` of scikit-learn (1,797 grey images of 8 x 8 pixels), 80 % for training, 20 % for testing, stratified,
split seed 0. Expected: 98.6 % test accuracy at the last step (median of training seeds 0, 1 and 2).
"""

from ml_collections import ConfigDict

from swin_jax import optim
from swin_jax.core.config import parse_arg, refuse_as_script, spec
from swin_jax.data import fake, pipeline, sources
from swin_jax.data.image import small as small_image
from swin_jax.evals.accuracy import Accuracy
from swin_jax.models.swin import Swin, rules
from swin_jax.optim import schedules
from swin_jax.tasks.classification import Classification
from swin_jax.train import sharding
from swin_jax.train.init_from import InitFrom


def get_config(arg=None):
    arg = parse_arg(arg, fake=False)
    c = ConfigDict(dict(seed=0, total_steps=1500, batch_size=64, image_size=8, num_classes=10, max_bad_records=0))
    c.task = spec(
        Classification,
        model=spec(
            Swin,
            num_classes=c.get_oneway_ref("num_classes"),
            image_size=c.get_oneway_ref("image_size"),
            patch_size=2,
            in_channels=1,
            embed_dim=64,
            depths=(2, 2),
            num_heads=(2, 4),
            window_size=2,
            drop_path_rate=0.0,
        ),
        tx=spec(
            optim.adamw,
            schedule=spec(
                schedules.warmup_cosine,
                base_lr=2e-3,
                total_steps=c.get_oneway_ref("total_steps"),
                warmup_steps=100,
                min_lr=1e-5,
                warmup_prefix=True,
            ),
            no_decay=rules.NO_DECAY,
        ),
        image_size=c.get_oneway_ref("image_size"),
        channels=1,
        num_classes=c.get_oneway_ref("num_classes"),
        seed=c.get_oneway_ref("seed"),
        mean=(0.3,),
        std=(0.38,),
        erase_probability=0.0,
        mixup=0.0,
        cutmix=0.0,
    )
    c.data = spec(
        pipeline.TrainData,
        source=spec(sources.digits, split="train"),
        transform=spec(small_image.small_train_transform, size=c.get_oneway_ref("image_size"), padding=1, channels=1),
        batch_size=c.get_oneway_ref("batch_size"),
        seed=c.get_oneway_ref("seed"),
        expected_classes=c.get_oneway_ref("num_classes"),
    )
    test = spec(
        pipeline.EvalData,
        source=spec(sources.digits, split="test"),
        transform=spec(small_image.small_eval_transform, size=c.get_oneway_ref("image_size"), channels=1),
        batch_size=180,
    )
    c.evals = dict(test=dict(every=200, run=spec(Accuracy, data=test)))
    c.predict = spec(
        pipeline.EvalData,
        source=spec(sources.flat_folder, root=""),
        transform=spec(small_image.small_eval_transform, size=c.get_oneway_ref("image_size"), channels=1),
        batch_size=64,
    )
    c.init_from = spec(InitFrom)
    c.partition = spec(sharding.Partition, rules=rules.PARTITION)
    c.mesh = dict(data=-1, fsdp=1, tensor=1)
    c.checkpoint = dict(every=400, keep=2)
    c.logs = dict(every=20, wandb="")
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No data and no time: a tiny model on made-up images."""
    c.total_steps, c.batch_size = 3, 8
    c.task.model.update(embed_dim=16, depths=(1, 1))
    for split, data in (("train", c.data), ("test", c.evals.test.run.data)):
        data.source = spec(fake.images, image_size=8, num_examples=40, split=split, channels=1)
    return c


if __name__ == "__main__":
    refuse_as_script()
