"""A Swin Transformer on Fashion-MNIST for one epoch, with a part of it changed or taken away.

    python -m swin_jax.data.builders.fashion_mnist --data_dir=data [--download]
    python -m swin_jax.launch --config=experiments/swin/swin_fashion_mnist_ablation.py:row=sliding \
        --workdir=runs/sliding --config.data_dir=data

The ablations of Swin Transformer (arXiv 2103.14030), on a grid of 14 x 14 tokens with windows of
7 x 7. experiments/studies/swin_ablation.py runs them all.

    row=shifted         windows shift by rolling the map; relative positions
        padded          they shift by padding it: the same function
        unshifted       they stay
        no_positions    no position bias
        absolute        absolute positions instead of the bias
        both            absolute positions and the bias
        sliding         every token attends to the 7 x 7 tokens around it, with the same bias
        performer       every token attends to all, by random features (arXiv 2009.14794), which
                        leaves no room for a bias: absolute positions
        mlp             Swin-MLP: a matrix over the tokens of each window, shifted by padding
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import run, small
from swin_jax.data.image.small import small_train_transform
from swin_jax.evals.accuracy import Accuracy
from swin_jax.models.swin import MLP, Swin, rules
from swin_jax.optim import adamw
from swin_jax.optim.schedules import warmup_cosine
from swin_jax.tasks.classification import Classification

ABSOLUTE = dict(relative_position=False, ape=True)
ROWS = {
    "shifted": {},
    "padded": dict(shift="pad"),
    "unshifted": dict(shift="none"),
    "no_positions": dict(relative_position=False),
    "absolute": ABSOLUTE,
    "both": dict(ape=True),
    "sliding": dict(token_mixer="sliding", shift="none"),
    "performer": dict(token_mixer="performer", shift="none", **ABSOLUTE),
    "mlp": MLP,
}


def get_config(arg=None):
    arg = parse_arg(arg, row=tuple(ROWS), fake=False)

    # Sizes
    c = small.sizes(total_steps=937, batch_size=64, image_size=28, num_classes=10)
    ref = c.get_oneway_ref

    # Model
    model = spec(
        Swin,
        **run.refs(c, "image_size", "num_classes"),
        patch_size=2,
        in_channels=1,
        embed_dim=32,
        depths=(2, 2),
        num_heads=(1, 2),
        window_size=7,
        drop_path_rate=0.0,
        **ROWS[arg.row],
    )

    # Optimizer
    rates = dict(base_lr=1.5e-3, warmup_steps=100, min_lr=1e-5, warmup_prefix=True)
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
    c.evals = dict(test=small.evaluation(test, small.crop(c), Accuracy, every=0))
    c.predict = run.predict_images(small.crop(c))

    # Run
    c.init_from = run.init_from()
    run.set_up(c, rules.PARTITION, every=250)
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No data and no time: a tiny model on made-up images."""
    c.task.model.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2))
    c.task.tx.schedule.warmup_steps = 1
    return small.use_fakes(c)
