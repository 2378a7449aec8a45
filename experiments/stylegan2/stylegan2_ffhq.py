"""StyleGAN2 on FFHQ, or on any square pictures: configuration f, and the settings of ADA.

    python -m swin_jax.launch --config=experiments/stylegan2/stylegan2_ffhq.py --workdir=runs/ffhq \
        --config.data_dir=FOLDER --config.inception=pt_inception-2015-12-05-6726825d.pth
    python -m swin_jax.launch \
        --config=experiments/stylegan2/stylegan2_ffhq.py:cfg=paper256,resolution=256,zip \
        --workdir=runs/ffhq256 --config.data_dir=PICTURES.zip

The folder, at any depth, or with `zip` the archive holds pictures; they are resized to the
resolution, of those that are not square the middle is taken. FFHQ comes under CC BY-NC-SA 4.0: not
for commercial use, nor are networks that learned from it. Each picture is flipped half the times;
`mirror=False` leaves them as they are.

cfg is a row of the table that NVlabs/stylegan2-ada-pytorch has in train.py, in float32. stylegan2
is configuration f of arXiv 1912.04958 (published: FID 2.84 on FFHQ at 1024 pixels; theirs, not
ours), the others are of arXiv 2006.06676. `auto` depends on the resolution and on `devices`. `ada`
augments with a probability that follows how much the discriminator knows by heart, as sets of fewer
than some ten thousand pictures need it.

With the Inception-v3 of the package pytorch-fid the run measures FID and KID of 50,000 samples
against all pictures, unflipped; without it, only samples are drawn.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from experiments.common import run
from swin_jax.data import fake, pipeline, sources
from swin_jax.data.image import archives
from swin_jax.data.image import transforms as image
from swin_jax.evals.sample_quality import SampleQuality
from swin_jax.evals.samples import SampleGrid
from swin_jax.models.inception import Inception
from swin_jax.models.stylegan2 import Discriminator, Generator, rules
from swin_jax.models.swin import Swin
from swin_jax.ops.adaptive_augmentation import bgc
from swin_jax.optim import lazy_adam
from swin_jax.optim.schedules import constant
from swin_jax.pretrained.inception import convert
from swin_jax.tasks.adaptive_augmentation import AdaptiveAugmentation
from swin_jax.tasks.gan import GAN
from swin_jax.train.init_from import Frozen

# Batch, images of a group, width, rate, gamma of R1, half-life of the average and its ramp, mapping
# layers, thousands of images to see.
_COLUMNS = ("batch", "group", "width", "rate", "gamma", "ema_kimg", "ramp", "layers", "kimg")
_ROWS = dict(
    stylegan2=(32, 4, 1.0, 2e-3, 10.0, 10, 0.0, 8, 25_000),
    paper256=(64, 8, 0.5, 2.5e-3, 1.0, 20, 0.0, 8, 25_000),
    paper512=(64, 8, 1.0, 2.5e-3, 0.5, 20, 0.0, 8, 25_000),
    paper1024=(32, 4, 1.0, 2e-3, 2.0, 10, 0.0, 8, 25_000),
    cifar=(64, 32, 1.0, 2.5e-3, 0.01, 500, 0.05, 2, 100_000),
)
PODS = run.read_pods("stylegan2_ffhq")


def settings(cfg, resolution, devices):
    """The row of a `cfg` by the names of its columns."""
    if cfg != "auto":
        return dict(zip(_COLUMNS, _ROWS[cfg]))
    batch = max(min(devices * min(4096 // resolution, 32), 64), devices)
    width, rate = 1.0 if resolution >= 512 else 0.5, 2e-3 if resolution >= 1024 else 2.5e-3
    gamma = 0.0002 * resolution**2 / batch
    values = (batch, min(batch // devices, 4), width, rate, gamma, batch * 10 / 32, 0.05, 2, 25_000)
    return dict(zip(_COLUMNS, values))


def get_config(arg=None):
    own = dict(zip=False, mirror=True, ada=False, pod=run.CHIPS, fake=False)
    arg = parse_arg(arg, cfg=(*_ROWS, "auto"), resolution=1024, devices=8, **own)
    row, cifar = settings(arg.cfg, arg.resolution, arg.devices), arg.cfg == "cifar"

    # Sizes
    sizes = dict(
        seed=0,
        max_bad_records=0,
        data_dir=placeholder(str),
        inception="",
        images=1000 * row["kimg"],
    )
    c = ConfigDict(dict(batch_size=row["batch"], image_size=arg.resolution, **sizes))
    ref = c.get_oneway_ref
    c.total_steps = ref("images") // ref("batch_size")

    # Model
    width = dict(
        resolution=ref("image_size"), channel_base=int(32768 * row["width"]), channel_max=512
    )
    generator = spec(Generator, **width, mapping_layers=row["layers"])
    shortcuts = dict(architecture="orig" if cifar else "resnet")
    discriminator = spec(Discriminator, **width, mbstd_group_size=row["group"], **shortcuts)

    # Optimizer: theirs corrects the generator's for path lengths even where 'cifar' has none
    rates = dict(schedule=spec(constant, base_lr=row["rate"]), b1=0.0, b2=0.99)
    tx = dict(generator_tx=spec(lazy_adam, **rates, regularize_every=4))
    tx["discriminator_tx"] = spec(lazy_adam, **rates, regularize_every=16)

    # Task
    losses = dict(
        r1_gamma=row["gamma"], path_weight=0.0 if cifar else 2.0, mixing=0.0 if cifar else 0.9
    )
    average = dict(ema_images=int(1000 * row["ema_kimg"]), ema_ramp=row["ramp"])
    networks = dict(generator=generator, discriminator=discriminator)
    c.task = spec(GAN, **networks, **tx, seed=ref("seed"), **losses, **average)
    if arg.ada:
        c.task.augmentation = spec(AdaptiveAugmentation, augment=spec(bgc))

    # Data
    pictures = spec(archives.flat_zip, archive=ref("data_dir"))
    if not arg.zip:
        pictures = spec(sources.flat_folder, root=ref("data_dir"))
    whole = dict(scale=(1.0, 1.0), ratio=(1.0, 1.0), interpolation="lanczos", auto_augment="")
    augment = spec(
        image.train_transform, size=ref("image_size"), hflip=0.5 if arg.mirror else 0.0, **whole
    )
    loader = dict(**run.refs(c, "batch_size", "seed"), num_workers=16)
    c.data = spec(pipeline.TrainData, source=pictures, transform=augment, **loader)

    # Evals
    every = 200_000 // ref("batch_size")
    c.evals = dict(
        grid=dict(every=every, run=spec(SampleGrid)),
        quality=dict(every=every, run=quality(c, pictures)),
    )

    # Run
    c.init_from = run.init_from()
    run.set_up(c, rules.PARTITION, every=every)
    return use_fakes(c) if arg.fake else run.use_pod(c, arg, PODS)


def quality(c, pictures):
    """FID and KID against all pictures."""
    ref = c.get_oneway_ref
    crop = spec(
        image.crop_transform,
        size=ref("image_size"),
        short_side=ref("image_size"),
        interpolation="lanczos",
    )
    data = spec(pipeline.EvalData, source=pictures, transform=crop, batch_size=64, num_workers=16)
    weights = dict(
        path=ref("inception"), convert=spec(convert.pretrained), flag="inception", required=False
    )
    return spec(
        SampleQuality,
        data=data,
        network=spec(Frozen, model=spec(Inception), **weights),
        optional=True,
    )


def use_fakes(c):
    """No data and no time: tiny networks on noise, random features."""
    c.update(images=24, batch_size=8, image_size=8)
    for network in (c.task.generator, c.task.discriminator):
        network.update(channel_base=256, channel_max=16)
    c.task.generator.update(z_dim=16, w_dim=16, mapping_layers=2)
    c.task.discriminator.mbstd_group_size = 4
    c.task.update(r1_every=2, path_every=2)
    c.evals.grid.run.update(rows=1, columns=8)
    noise = spec(fake.images, image_size=8, num_examples=24)
    c.data.update(num_workers=0)
    c.data.source = c.evals.quality.run.data.source = noise
    seen = spec(Swin, image_size=8, embed_dim=8, depths=(1,), num_heads=(1,), num_classes=0)
    c.evals.quality.run.update(optional=False, samples=8, batch_size=8, subsets=2)
    c.evals.quality.run.network = spec(Frozen, model=seen, required=False)
    c.evals.quality.run.data.update(num_workers=0)
    return c
