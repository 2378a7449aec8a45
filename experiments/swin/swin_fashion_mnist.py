"""A Swin Transformer on Fashion-MNIST: a real run of half an hour on two CPU cores.

    python -m swin_jax.data.builders.fashion_mnist --data_dir=data [--download]
    python -m swin_jax.launch --config=experiments/swin/swin_fashion_mnist.py \
        --workdir=runs/fashion --config.data_dir=data

Expected: 88.4 % test accuracy at the last step.

Data: 60,000 training and 10,000 test images, 28 x 28 gray,
resized to 32 x 32 for a grid of 8 x 8 patches.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import run, small
from swin_jax.data.image.small import small_train_transform
from swin_jax.evals.accuracy import Accuracy
from swin_jax.models.swin import Swin, rules
from swin_jax.optim import adamw
from swin_jax.optim.schedules import warmup_cosine
from swin_jax.tasks.classification import Classification


def get_config(arg=None):
    arg = parse_arg(arg, fake=False)

    # Sizes
    c = small.sizes(total_steps=8000, batch_size=64, image_size=32, num_classes=10)
    ref = c.get_oneway_ref

    # Model
    model = spec(
        Swin,
        **run.refs(c, "image_size", "num_classes"),
        patch_size=4,
        in_channels=1,
        embed_dim=64,
        depths=(2, 2),
        num_heads=(1, 2),
        window_size=4,
        drop_path_rate=0.0,
    )

    # Optimizer
    rates = dict(base_lr=1.5e-3, warmup_steps=500, min_lr=1e-5, warmup_prefix=True)
    schedule = spec(warmup_cosine, total_steps=ref("total_steps"), **rates)
    tx = spec(adamw, schedule=schedule, no_decay=rules.NO_DECAY)

    # Task
    mixing = dict(label_smoothing=0.1, erase_probability=0.0, mixup=0.0, cutmix=0.0)
    same = run.refs(c, "image_size", "num_classes", "seed")
    c.task = spec(Classification, model=model, tx=tx, **same, **small.PIXELS, **mixing)

    # Data
    augment = dict(size=ref("image_size"), padding=1, hflip=0.5, channels=1)
    augment = spec(small_train_transform, **augment)
    c.data = small.train_data(c, small.read(c, "train"), augment)

    # Evals
    test = small.read(c, "test")
    c.evals = dict(test=small.evaluation(test, small.crop(c), Accuracy, every=1000))
    c.predict = run.predict_images(small.crop(c))

    # Run
    c.init_from = run.init_from()
    run.set_up(c, rules.PARTITION, every=1000)
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No data and no time: a tiny model on made-up images."""
    c.task.model.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2))
    c.task.tx.schedule.warmup_steps = 1
    return small.use_fakes(c)
