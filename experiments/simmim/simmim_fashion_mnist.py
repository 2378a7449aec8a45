"""SimMIM on Fashion-MNIST: pretrains a small Swin Transformer without labels, in minutes on a CPU core.

    python -m swin_jax.data.builders.fashion_mnist --data_dir=data [--download]
    python -m swin_jax.launch --config=experiments/simmim/simmim_fashion_mnist.py --workdir=runs/simmim \
        --config.data_dir=data

Then `simmim_fashion_mnist_finetune.py` trains a classifier from it with 1 % or 10 % of the labels. At every evaluation
a picture of inputs, masked inputs and reconstructions goes into the workdir.

Data: the first 55,000 training images, resized to 24 x 24 for a grid of 6 x 6 patches, each of them a cell
of the mask; the last 5,000 are held out.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from swin_jax import optim
from swin_jax.core.config import parse_arg, refuse_as_script, spec
from swin_jax.data import fake, pipeline, sources
from swin_jax.data.image import masking
from swin_jax.data.image import small as small_image
from swin_jax.evals.reconstruction import Reconstruction
from swin_jax.models.simmim import SimMIM
from swin_jax.models.swin import Swin, rules
from swin_jax.optim import schedules
from swin_jax.tasks.masked_image import MaskedImageModeling
from swin_jax.train import sharding
from swin_jax.train.init_from import InitFrom


def get_config(arg=None):
    arg = parse_arg(arg, fake=False)
    c = ConfigDict(dict(seed=0, total_steps=9000, batch_size=32, image_size=24, max_bad_records=0))
    c.data_dir = placeholder(str)
    ref = c.get_oneway_ref
    c.mask = dict(cell=4, ratio=0.75)
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
    c.task = spec(
        MaskedImageModeling,
        model=spec(SimMIM, encoder=encoder),
        tx=spec(
            optim.adamw,
            schedule=spec(
                schedules.warmup_cosine,
                base_lr=3e-3,
                total_steps=ref("total_steps"),
                warmup_steps=ref("total_steps") // 10,
                min_lr=1e-5,
                warmup_prefix=True,
            ),
            no_decay=rules.NO_DECAY,
        ),
        image_size=ref("image_size"),
        channels=1,
        seed=ref("seed"),
        mean=(0.286,),
        std=(0.353,),
        mask_cell=c.mask.get_oneway_ref("cell"),
    )
    masks = dict(
        size=ref("image_size"),
        cell=c.mask.get_oneway_ref("cell"),
        patch=encoder.get_oneway_ref("patch_size"),
        ratio=c.mask.get_oneway_ref("ratio"),
    )
    c.data = spec(
        pipeline.TrainData,
        source=spec(
            sources.tfds, name="fashion_mnist", split="train[:55000]", data_dir=ref("data_dir"), in_memory=True
        ),
        transform=spec(
            masking.mask_train_transform,
            transform=spec(small_image.small_train_transform, size=ref("image_size"), padding=1, hflip=0.5, channels=1),
            **masks,
        ),
        batch_size=ref("batch_size"),
        seed=ref("seed"),
    )
    heldout = spec(
        pipeline.EvalData,
        source=spec(
            sources.tfds, name="fashion_mnist", split="train[55000:]", data_dir=ref("data_dir"), in_memory=True
        ),
        transform=spec(
            masking.mask_eval_transform,
            transform=spec(small_image.small_eval_transform, size=ref("image_size"), channels=1),
            **masks,
        ),
        batch_size=500,
    )
    c.evals = dict(heldout=dict(every=ref("total_steps") // 4, run=spec(Reconstruction, data=heldout)))
    c.init_from = spec(InitFrom)
    c.partition = spec(sharding.Partition, rules=rules.PARTITION)
    c.mesh = dict(data=-1, fsdp=1, tensor=1)
    c.checkpoint = dict(every=2000, keep=1)
    c.logs = dict(every=50, wandb="")
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No data and no time: a tiny model on made-up images."""
    c.total_steps, c.batch_size = 3, 8
    c.task.model.encoder.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2))
    for split, data in (("train", c.data), ("test", c.evals.heldout.run.data)):
        data.source = spec(fake.images, image_size=28, num_examples=40, split=split, channels=1)
    return c


if __name__ == "__main__":
    refuse_as_script()
