"""Learns to tell your own images apart: one folder in, a model out.

    python -m swin_jax.launch --config=experiments/swin/finetune_folder.py --workdir=runs/mine \
        --config.data_dir=my_images
    python -m swin_jax.launch --workdir=runs/mine --predict=new_images

The images of each class lie in a folder of its own, my_images/CLASS/*.jpg. A fifth of each class is
held back to measure with, chosen by the names of the files; my_images/train/CLASS/ and
my_images/val/CLASS/, or lists beside train and val, are taken as they are instead. Classes and
images are counted, and the sizes of batch and run follow from that.

A small Swin learns from scratch: that is enough for classes that differ in pattern, if there are
some 20 images of each. For everything else start from published weights, or from those of
another run, whose architecture and image size are then taken:

    python -m swin_jax.launch --config=experiments/swin/finetune_folder.py --workdir=runs/mine \
        --config.data_dir=my_images --config.init_from.path=swin_tiny_patch4_window7_224_22k.pth
"""

import functools
import os

from ml_collections import ConfigDict

from swin_jax.core import storage
from swin_jax.core.config import derived, parse_arg, refuse_as_script, spec
from swin_jax.core.errors import warn
from swin_jax.core.public_names import name_of
from swin_jax.core.sizes import per_axis

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import run
from swin_jax.data import fake, pipeline
from swin_jax.data.image.color import color_train_transform
from swin_jax.data.image.own_images import count, own_images, split_classes
from swin_jax.data.image.transforms import eval_transform, train_transform
from swin_jax.evals.accuracy import Accuracy
from swin_jax.models.swin import Swin, rules
from swin_jax.optim import adamw
from swin_jax.optim.schedules import warmup_cosine
from swin_jax.pretrained.arguments import read_config
from swin_jax.pretrained.swin import finetune
from swin_jax.pretrained.swin.loader import arguments_of
from swin_jax.tasks.classification import Classification
from swin_jax.train import checkpoint

# The architecture from scratch; weights bring their own, a run's config what arrays do not tell.
SMALL = dict(
    image_size=48,
    patch_size=4,
    embed_dim=32,
    depths=(2, 2),
    num_heads=(2, 4),
    window_size=6,
    mlp_ratio=4.0,
    qkv_bias=True,
    ape=False,
    patch_norm=True,
    cosine_attention=False,
    post_norm=False,
    continuous_bias=False,
    pretrained_window_sizes=(),
    token_mixer="attention",
    shift="roll",
    relative_position=True,
    main_norm_every=0,
    merge_size=2,
    small="shrink",
)
# From scratch and from weights another recipe is right. `crop` is the range of the share of a
# picture that is seen, `ratio` that of its width / height: pictures to be named are made square
# without a cut, so that what learns from scratch has to know such distortions. A run has at least
# `steps` updates and `epochs` passes.
SCRATCH = dict(base_lr=2e-3, layer_decay=1.0, drop_path=0.0, steps=1600, epochs=60)
SCRATCH |= dict(randaugment="rand-m5-mstd0.5-inc1", hue=2.0, gray=0.3)
SCRATCH |= dict(crop=(0.6, 1.0), ratio=(0.5, 2.0))
WEIGHTS = dict(base_lr=1e-4, layer_decay=0.8, drop_path=0.1, steps=200, epochs=20)
WEIGHTS |= dict(randaugment="rand-m7-mstd0.5-inc1", hue=0.1, gray=0.1)
WEIGHTS |= dict(crop=(0.35, 1.0), ratio=(3 / 4, 4 / 3))


def get_config(arg=None):
    arg = parse_arg(arg, fake=False)

    # Sizes
    c, recipe, architecture = sizes()
    ref = c.get_oneway_ref
    size, total_steps = ref("image_size"), ref("total_steps")

    # Model
    same = run.refs(c, "image_size", "num_classes")
    model = spec(Swin, **same, **architecture, drop_path_rate=recipe("drop_path"))

    # Optimizer
    lengths = dict(total_steps=total_steps, warmup_steps=total_steps // 20)
    schedule = spec(warmup_cosine, base_lr=recipe("base_lr"), **lengths, min_lr=1e-6)
    depths = model.get_oneway_ref("depths")
    layer_scale = spec(rules.layer_decay, decay=recipe("layer_decay"), depths=depths)
    tx = spec(adamw, schedule=schedule, no_decay=rules.NO_DECAY, layer_scale=layer_scale)

    # Task
    plain = dict(label_smoothing=0.1, erase_probability=0.0, mixup=0.0, cutmix=0.0)
    c.task = spec(Classification, model=model, tx=tx, **same, seed=ref("seed"), **plain)

    # Data
    folder = dict(root=ref("data_dir"), share=ref("held_back"), seed=split_seed(c))
    cut = dict(size=size, scale=recipe("crop"), ratio=recipe("ratio"))
    cut |= dict(auto_augment=recipe("randaugment"))
    colors = dict(hue=recipe("hue"), gray=recipe("gray"))
    augment = spec(color_train_transform, transform=spec(train_transform, **cut), **colors)
    c.data = spec(
        pipeline.TrainData,
        source=spec(own_images, split="train", side=derived(_copies, size), **folder),
        transform=augment,
        **run.refs(c, "batch_size", "seed"),
        num_workers=derived(_num_workers, ref("num_train")),
        expected_classes=ref("num_classes"),
        expected_examples=ref("num_train"),
    )

    # Evals
    loader = dict(batch_size=64, expected_classes=ref("num_classes"), unreadable="leave_out")
    whole = spec(eval_transform, size=size, crop=False)
    val = spec(own_images, split="val", **folder)
    val = spec(pipeline.EvalData, source=val, transform=whole, **loader)
    c.evals = dict(val=dict(every=total_steps // 5, run=spec(Accuracy, data=val)))
    c.predict = run.predict_images(spec(eval_transform, size=size, crop=False))

    # Run
    run.set_up(c, rules.PARTITION, every=total_steps // 5)
    return use_fakes(c) if arg.fake else c


def sizes():
    """The settings that follow from the folder of images,
    and from the weights that a run starts from.

    Returns:
        (The config so far, a function that gives references to entries of the recipe, references
        for the arguments of the model.)
    """
    c = ConfigDict(dict(seed=0, data_dir="", held_back=0.2))
    ref, found = c.get_oneway_ref, functools.lru_cache(count)
    c.init_from = run.init_from(convert=spec(finetune.pretrained, resize="bicubic"), backbone=True)
    folder = [ref("data_dir"), ref("held_back"), split_seed(c)]
    c.num_classes = derived(lambda *args: found(*args).classes, *folder)
    c.num_train = derived(lambda *args: found(*args).train, *folder)
    c.batch_size = derived(_batch_size, ref("num_train"))
    c.max_bad_records = ref("num_train") // 10

    path, arguments = c.init_from.get_oneway_ref("path"), functools.lru_cache(_arguments)

    def recipe(key):
        return derived(lambda path: (WEIGHTS if path else SCRATCH)[key], path)

    def of_model(key):
        return derived(lambda path: arguments(path)[key], path)

    c.update(steps=recipe("steps"), epochs=recipe("epochs"), image_size=of_model("image_size"))
    lengths = [ref(key) for key in ("steps", "epochs", "num_train", "batch_size")]
    c.total_steps = derived(_total_steps, *lengths)
    return c, recipe, {key: of_model(key) for key in SMALL if key != "image_size"}


def split_seed(c):
    """A reference to the seed that chooses the images to hold back: that of the run whose weights
    are taken, if it learned from the same folder or from any of its classes, else the run's own.
    """
    path = c.init_from.get_oneway_ref("path")
    choose = functools.lru_cache(_split_seed)
    return derived(choose, path, *run.refs(c, "data_dir", "held_back", "seed").values())


def use_fakes(c):
    """No data and no time: a tiny model on made-up images."""
    c.update(total_steps=3, num_classes=10, num_train=24, batch_size=8)
    c.task.model.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2))
    for split, data in (("train", c.data), ("test", c.evals.val.run.data)):
        data.source = spec(fake.images, image_size=40, num_examples=24, split=split)
    return c


def _arguments(path: str) -> dict:
    """The arguments of the Swin whose weights lie at a path; where none do, `init_from` says so."""
    return SMALL | (arguments_of(path) if path and storage.path(path).exists() else {})


def _split_seed(path: str, data_dir: str, held_back: float, seed: int) -> int:
    """The seed of `split_seed`; a warning tells of images to hold back that were trained on."""
    if not (path and data_dir) or not (storage.path(path) / "checkpoints").is_dir():
        return seed
    classes, config = set(split_classes(data_dir)), read_config(path)
    learned = set(checkpoint.class_names(path))
    earlier = {key: config.get(f"data.source.{key}") for key in ("fn", "root", "share", "seed")}
    if earlier["fn"] != name_of(own_images) or None in earlier.values():
        if classes and classes == learned:
            warn(
                f"{path} was trained on images of the same classes, perhaps on some that are held "
                f"back here; put others to measure with into {os.path.join(data_dir, 'val')}/CLASS "
                f"and those to train on into {os.path.join(data_dir, 'train')}/CLASS"
            )
        return seed
    # Another path may lead to the same folder, or to a copy, with more images perhaps.
    roots = (os.path.realpath(os.path.expanduser(root)) for root in (earlier["root"], data_dir))
    is_same = len(set(roots)) == 1
    if not (is_same or classes & learned):
        return seed
    if held_back > earlier["share"]:
        warn(
            f"{path} {'was' if is_same else 'may have been'} trained on some of the images that "
            f"held_back={held_back} holds back: it held back {earlier['share']}, which "
            f"--config.held_back={earlier['share']} does here"
        )
    return earlier["seed"]


def _copies(size: int | tuple[int, int]) -> int:
    """The shorter side of copies in memory, from which crops are cut."""
    return 2 * max(per_axis(size, 2))


def _batch_size(num_train: int) -> int:
    """A power of two, which devices divide, of 8 to 64, and no more than half of the images."""
    return min(max(1 << max(num_train // 2, 1).bit_length() - 1, 8), 64)


def _total_steps(steps: int, epochs: int, num_train: int, batch_size: int) -> int:
    """Updates of a run: as many passes as that takes, but no fewer than a model needs to learn."""
    return max(steps, epochs * num_train // batch_size)


def _num_workers(num_train: int) -> int:
    """Loader processes: one for each core but one, unless there is little to read."""
    return 0 if num_train < 1000 else min(max((os.cpu_count() or 1) - 1, 0), 8)
