"""StyleGAN2 on drawn faces of 32 pixels: a generator from nothing on two CPU cores.

    pip install -e '.[avatars]' && python -m swin_jax.data.builders.avatars --data_dir=data
    XLA_FLAGS=--xla_force_host_platform_device_count=2 python -m swin_jax.launch \
        --config=experiments/stylegan2/stylegan2_avatars.py --workdir=runs/avatars \
        --config.data_dir=data --config.classifier=runs/attributes

The settings start from those of ADA's 'cifar' (arXiv 2006.06676, table 5): two mapping layers, a
discriminator without shortcuts that compares the images of a whole batch, neither path lengths nor
mixing. Width and batch are smaller. Three more differ, because drawings are flat and no detail of
theirs is random: the generator draws no noise, which it would take for eyes and glasses; gradients
are penalized 100 times as much, so that the discriminator does not know every sample at once; and
the rate falls over the last fifth of the run. 220,000 images are seen, 11 times the training set,
which is flipped at random. XLA's flag makes a device of each core: the two halves of a batch keep
both cores busier than one device does.

With the classifier of experiments/styleclip/avatars_attributes.py the run measures, on
5,000 samples, the Fréchet and the kernel distance between its features of samples and of
held-out avatars. They are not FID and KID, which are defined by another network. Without
it, only samples are drawn.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import run, small
from swin_jax.data import pipeline
from swin_jax.data.avatars import images as avatars
from swin_jax.data.avatars.attributes import ATTRIBUTES
from swin_jax.data.image.small import small_train_transform
from swin_jax.evals.sample_quality import SampleQuality
from swin_jax.evals.samples import SampleGrid
from swin_jax.models.stylegan2 import Discriminator, Generator, rules
from swin_jax.optim import lazy_adam
from swin_jax.optim.schedules import ramps
from swin_jax.tasks.gan import GAN
from swin_jax.train.init_from import Frozen


def get_config(arg=None):
    arg = parse_arg(arg, fake=False)

    # Sizes
    c = small.sizes(total_steps=6875, batch_size=32, image_size=32, classifier="")
    ref = c.get_oneway_ref

    # Model
    width = dict(resolution=ref("image_size"), channel_base=2048, channel_max=64)
    generator = spec(Generator, **width, z_dim=64, w_dim=64, mapping_layers=2)
    discriminator = spec(Discriminator, **width, mbstd_group_size=32, architecture="orig")

    # Optimizer
    falling = dict(rampup=0.0, rampdown=0.2)
    schedule = spec(ramps, base_lr=2.5e-3, total_steps=ref("total_steps"), **falling)
    rates = dict(schedule=schedule, b1=0.0, b2=0.99)
    tx = dict(generator_tx=spec(lazy_adam, **rates))
    tx["discriminator_tx"] = spec(lazy_adam, **rates, regularize_every=16)

    # Task
    losses = dict(r1_gamma=1.0, path_weight=0.0, mixing=0.0, noise="none")
    average = dict(ema_images=10_000, ema_ramp=0.05)
    networks = dict(generator=generator, discriminator=discriminator)
    c.task = spec(GAN, **networks, **tx, seed=ref("seed"), **losses, **average)

    # Data
    train = spec(avatars.faces, data_dir=ref("data_dir"), split="train")
    augment = spec(small_train_transform, size=ref("image_size"), padding=0, hflip=0.5)
    c.data = small.train_data(c, train, augment)

    # Evals
    c.evals = dict(grid=dict(every=625, run=spec(SampleGrid)))
    c.evals.quality = dict(every=1250, run=quality(c))

    # Run
    c.init_from = run.init_from()
    run.set_up(c, rules.PARTITION, every=625)
    return use_fakes(c) if arg.fake else c


def quality(c):
    """Distances to held-out avatars by what the attribute classifier sees, which are not FIDs."""
    ref = c.get_oneway_ref
    test = spec(avatars.faces, data_dir=ref("data_dir"), split="test")
    data = spec(pipeline.EvalData, source=test, transform=small.crop(c, channels=3), batch_size=250)
    # The names and widths of experiments/styleclip/avatars_attributes.py.
    model = small.avatar_attributes(c, num_classes=len(ATTRIBUTES))
    network = spec(Frozen, model=model, path=ref("classifier"), required=False, flag="classifier")
    pixels = dict(mean=(0.5,) * 3, std=(0.5,) * 3)
    sizes = dict(samples=5000, batch_size=250, optional=True)
    return spec(
        SampleQuality,
        data=data,
        network=network,
        of="avatar_features",
        method="features",
        **pixels,
        **sizes,
    )


def use_fakes(c):
    """No data and no time: tiny networks on noise, random features."""
    c.update(total_steps=3, batch_size=8, image_size=8)
    c.evals.quality.run.update(optional=False, samples=8, batch_size=8, subsets=2)
    c.evals.quality.run.network.model.update(embed_dim=8, depths=(1, 1), num_heads=(1, 1))
    c.evals.quality.run.data.source = spec(avatars.fake_faces, split="test")
    for network in (c.task.generator, c.task.discriminator):
        network.update(channel_base=256, channel_max=16)
    c.task.update(r1_gamma=1.0, r1_every=2)
    c.evals.grid.run.update(rows=1, columns=8)
    c.data.source = spec(avatars.fake_faces)
    return c
