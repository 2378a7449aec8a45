"""Tells the attributes of an avatar from its picture: the judge of edits, and of generated avatars.

    pip install -e '.[avatars]' && python -m swin_jax.data.builders.avatars --data_dir=data
    python -m swin_jax.launch --config=experiments/styleclip/avatars_attributes.py \
        --workdir=runs/attributes --config.data_dir=data

A small Swin learns eight attributes at once: glasses, beard, hat, smile, surprised eyes, blond, red
and black hair. What each means, and that a hat hides hair and its color, is defined in
`swin_jax.data.avatars.attributes`; what is hidden counts neither in the loss nor in the accuracy.
Pictures go in as they are, 32 x 32 pixels scaled to -1..1, which is what a generator puts out.

Expected: each attribute right in all 5,000 held-out avatars, after 64,000 pictures. These are
drawings, no photographs. Faces are flipped but not shifted: shifts of a pixel make the smile much
harder to learn.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import run, small
from swin_jax.data.avatars import images as avatars
from swin_jax.data.image.small import small_train_transform
from swin_jax.evals.marks import MarkAccuracy
from swin_jax.models.swin import rules
from swin_jax.optim import adamw
from swin_jax.optim.schedules import warmup_cosine
from swin_jax.tasks.classification import Classification


def get_config(arg=None):
    arg = parse_arg(arg, fake=False)

    # Sizes
    c = small.sizes(total_steps=1000, batch_size=64, image_size=32, num_classes=8)
    ref = c.get_oneway_ref

    # Model
    model = small.avatar_attributes(c, num_classes=ref("num_classes"))

    # Optimizer
    rates = dict(base_lr=2e-3, warmup_steps=100, min_lr=1e-5)
    schedule = spec(warmup_cosine, total_steps=ref("total_steps"), **rates)
    tx = spec(adamw, schedule=schedule, no_decay=rules.NO_DECAY)

    # Task
    mixing = dict(label_smoothing=0.0, erase_probability=0.0, mixup=0.0, cutmix=0.0)
    pixels = dict(mean=(0.5,) * 3, std=(0.5,) * 3)
    same = run.refs(c, "image_size", "num_classes", "seed")
    c.task = spec(Classification, model=model, tx=tx, **same, **pixels, **mixing, multi_label=True)

    # Data
    train = spec(avatars.faces, data_dir=ref("data_dir"), split="train")
    augment = spec(small_train_transform, size=ref("image_size"), padding=0, hflip=0.5)
    c.data = small.train_data(c, train, augment)

    # Evals
    test = spec(avatars.faces, data_dir=ref("data_dir"), split="test")
    crop = small.crop(c, channels=3)
    c.evals = dict(test=small.evaluation(test, crop, MarkAccuracy, every=250))
    c.predict = run.predict_images(crop)

    # Run
    c.init_from = run.init_from()
    run.set_up(c, rules.PARTITION, every=500)
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No data and no time: a tiny model on noise."""
    c.update(total_steps=3, batch_size=8)
    c.task.tx.schedule.warmup_steps = 1
    c.task.model.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2))
    c.data.source = spec(avatars.fake_faces)
    c.evals.test.run.data.source = spec(avatars.fake_faces, split="test")
    return c
