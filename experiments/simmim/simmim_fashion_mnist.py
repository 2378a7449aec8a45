"""SimMIM on Fashion-MNIST: pretrains a small Swin Transformer without labels,
in minutes on a CPU core.

    python -m swin_jax.data.builders.fashion_mnist --data_dir=data [--download]
    python -m swin_jax.launch --config=experiments/simmim/simmim_fashion_mnist.py \
        --workdir=runs/simmim --config.data_dir=data

Then `simmim_fashion_mnist_finetune.py` trains a classifier from it with 1 % or 10 % of the labels.
At every evaluation a picture of inputs, masked inputs and reconstructions goes into the workdir.

Data: the first 55,000 training images, resized to 24 x 24 for a grid of 6 x 6 patches, each of them
a cell of the mask; the last 5,000 are held out.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import run, small
from swin_jax.data.image import masking
from swin_jax.data.image.small import small_train_transform
from swin_jax.evals.reconstruction import Reconstruction
from swin_jax.models.simmim import SimMIM
from swin_jax.models.swin import Swin, rules
from swin_jax.optim import adamw
from swin_jax.optim.schedules import warmup_cosine
from swin_jax.tasks.masked_image import MaskedImageModeling


def get_config(arg=None):
    arg = parse_arg(arg, fake=False)

    # Sizes
    c = small.sizes(total_steps=9000, batch_size=32, image_size=24)
    c.mask = dict(cell=4, ratio=0.75)
    ref = c.get_oneway_ref

    # Model
    encoder = spec(
        Swin,
        num_classes=0,
        image_size=ref("image_size"),
        patch_size=4,
        in_channels=1,
        embed_dim=64,
        depths=(1, 3),
        num_heads=(1, 2),
        window_size=6,
        drop_path_rate=0.0,
    )
    model = spec(SimMIM, encoder=encoder)

    # Optimizer
    rates = dict(base_lr=3e-3, min_lr=1e-5, warmup_prefix=True)
    rates["warmup_steps"] = ref("total_steps") // 10
    schedule = spec(warmup_cosine, total_steps=ref("total_steps"), **rates)
    tx = spec(adamw, schedule=schedule, no_decay=rules.NO_DECAY)

    # Task
    same = run.refs(c, "image_size", "seed")
    same["mask_cell"] = c.mask.get_oneway_ref("cell")
    c.task = spec(MaskedImageModeling, model=model, tx=tx, **same, **small.PIXELS)

    # Data
    masks = dict(size=ref("image_size"), **run.refs(c.mask, "cell", "ratio"))
    masks["patch"] = encoder.get_oneway_ref("patch_size")
    augment = dict(size=ref("image_size"), padding=1, hflip=0.5, channels=1)
    augment = spec(small_train_transform, **augment)
    augment = spec(masking.mask_train_transform, transform=augment, **masks)
    c.data = small.train_data(c, small.read(c, "train[:55000]"), augment)

    # Evals
    heldout = small.read(c, "train[55000:]")
    crop = spec(masking.mask_eval_transform, transform=small.crop(c), **masks)
    every = ref("total_steps") // 4
    c.evals = dict(heldout=small.evaluation(heldout, crop, Reconstruction, every))

    # Run
    c.init_from = run.init_from()
    run.set_up(c, rules.PARTITION, every=2000, keep=1)
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No data and no time: a tiny model on made-up images."""
    c.task.model.encoder.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2))
    return small.use_fakes(c)
