"""Tells an avatar from its picture: the network of the identity loss.

    pip install -e '.[avatars]' && python -m swin_jax.data.builders.avatars --data_dir=data
    python -m swin_jax.launch --config=experiments/styleclip/avatars_identity.py \
        --workdir=runs/identity --config.data_dir=data

Networks that know photographs of persons say little of drawings. Here an avatar's identity is its
hair (form and color), its beard, its nose and its skin; mouth, eyes, brows, glasses and hats are
free to vary (`swin_jax.data.avatars.attributes.IDENTITY`). A small IR-SE of ArcFace learns
embeddings whose cosine is the share of these five choices that two avatars have in common: 1 for
the same person with another mouth, 0.8 for one who has dyed the hair. Hair below a hat is not
compared.

Expected, on all pairs of held-out avatars, after 128,000 pictures: a mean cosine of 0.82 where the
five are the same, 0.58 where one of them differs and 0.30 of any two; in 95 % of pairs of pairs it
is larger in the first kind than in the second. These are drawings, no photographs.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import run, small
from swin_jax.data.avatars import images as avatars
from swin_jax.data.image.small import small_train_transform
from swin_jax.evals.embedding import CosineOfPairs
from swin_jax.models.arcface import IRSE, rules
from swin_jax.optim import adamw
from swin_jax.optim.schedules import warmup_cosine
from swin_jax.tasks.embedding import SharedChoices


def get_config(arg=None):
    arg = parse_arg(arg, fake=False)

    # Sizes
    c = small.sizes(total_steps=1000, batch_size=128, image_size=32, num_classes=29)
    ref = c.get_oneway_ref

    # Model
    blocks = ((24, 24, 1), (24, 48, 1), (48, 96, 1))
    model = spec(IRSE, blocks=blocks, image_size=ref("image_size"), embed_dim=64)

    # Optimizer
    rates = dict(base_lr=3e-3, warmup_steps=50, min_lr=1e-5)
    schedule = spec(warmup_cosine, total_steps=ref("total_steps"), **rates)
    tx = spec(adamw, schedule=schedule, no_decay=rules.NO_DECAY)

    # Task
    same = run.refs(c, "image_size", "num_classes", "seed")
    c.task = spec(SharedChoices, model=model, tx=tx, **same)

    # Data
    read = dict(data_dir=ref("data_dir"), labels="identity")
    augment = spec(small_train_transform, size=ref("image_size"), padding=0)
    c.data = small.train_data(c, spec(avatars.faces, **read, split="train"), augment)

    # Evals
    test, crop = spec(avatars.faces, **read, split="test"), small.crop(c, channels=3)
    c.evals = dict(test=small.evaluation(test, crop, CosineOfPairs, every=500))
    c.predict = run.predict_images(crop)

    # Run
    c.init_from = run.init_from()
    run.set_up(c, rules.PARTITION, every=500)
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No data and no time: a tiny network on noise."""
    c.update(total_steps=3, batch_size=8)
    c.task.tx.schedule.warmup_steps = 1
    c.task.model.update(blocks=((8, 8, 1), (8, 16, 1)), embed_dim=8)
    c.data.source = spec(avatars.fake_faces, labels="identity")
    c.evals.test.run.data.source = spec(avatars.fake_faces, split="test", labels="identity")
    return c
