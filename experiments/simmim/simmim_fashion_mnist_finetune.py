"""A classifier of Fashion-MNIST from 1 % or 10 % of the labels,
from SimMIM's weights or from scratch.

    python -m swin_jax.launch \
        --config=experiments/simmim/simmim_fashion_mnist_finetune.py:labels=1 \
        --workdir=runs/finetuned --config.data_dir=data --config.init_from.path=runs/simmim

`labels` is 1 or 10, percent of the 60,000 training images, the same number of each class. Without
`init_from.path` the same network starts from scratch.
`experiments/studies/simmim_fashion_mnist.py` compares the two.

The last 5,000 training images are held out, to choose settings by;
the test set is looked at once, at the last step.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec
from swin_jax.data import subsets

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import run, small
from swin_jax.data import fake
from swin_jax.data.image.small import small_train_transform
from swin_jax.evals.accuracy import Accuracy
from swin_jax.models.swin import Swin, rules
from swin_jax.optim import adamw
from swin_jax.optim.schedules import warmup_cosine
from swin_jax.pretrained.swin import finetune
from swin_jax.tasks.classification import Classification


def get_config(arg=None):
    arg = parse_arg(arg, labels=("1", "10"), fake=False)
    depths = (1, 3)

    # Sizes
    c = small.sizes(total_steps=2000, batch_size=32, image_size=24, num_classes=10)
    ref = c.get_oneway_ref

    # Model
    model = spec(
        Swin,
        **run.refs(c, "image_size", "num_classes"),
        patch_size=4,
        in_channels=1,
        embed_dim=64,
        depths=depths,
        num_heads=(1, 2),
        window_size=6,
        drop_path_rate=0.0,
    )

    # Optimizer
    rates = dict(base_lr=1e-3, min_lr=1e-5, warmup_prefix=True)
    rates["warmup_steps"] = ref("total_steps") // 10
    schedule = spec(warmup_cosine, total_steps=ref("total_steps"), **rates)
    layers = spec(rules.layer_decay, decay=1.0, depths=depths)
    tx = spec(adamw, schedule=schedule, no_decay=rules.NO_DECAY, layer_scale=layers)

    # Task
    mixing = dict(label_smoothing=0.1, erase_probability=0.0, mixup=0.0, cutmix=0.0)
    same = run.refs(c, "image_size", "num_classes", "seed")
    c.task = spec(Classification, model=model, tx=tx, **same, **small.PIXELS, **mixing)

    # Data
    images = small.read(c, "train[:55000]")
    train = spec(subsets.subset, source=images, per_class=60 * int(arg.labels), seed=0)
    augment = dict(size=ref("image_size"), padding=1, hflip=0.5, channels=1)
    augment = spec(small_train_transform, **augment)
    c.data = small.train_data(c, train, augment)

    # Evals
    splits = dict(heldout=small.read(c, "train[55000:]"), test=small.read(c, "test"))
    c.evals = {
        name: small.evaluation(split, small.crop(c), Accuracy, every=0)
        for name, split in splits.items()
    }
    c.predict = run.predict_images(small.crop(c))

    # Run
    c.init_from = run.init_from(backbone=True, convert=spec(finetune.simmim_pretrained))
    run.set_up(c, rules.PARTITION, every=2000, keep=1)
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No data and no time: a tiny model on made-up images."""
    c.task.model.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2))
    c.task.tx.layer_scale.depths = (1, 1)
    small.use_fakes(c)
    images = spec(fake.images, image_size=28, num_examples=40, channels=1)
    c.data.source = spec(subsets.subset, source=images, per_class=3)
    return c
