"""CLIP on emoji: drawings of five vendors and their names;
zero-shot on two drawing styles that it never saw.

    python -m swin_jax.data.builders.emoji --data_dir=data
    python -m swin_jax.launch --config=experiments/clip/clip_emoji.py --workdir=runs/clip_emoji \
        --config.data_dir=data

A small ResNet and a one-layer text transformer learn from the drawings of noto, noto-v1, twemoji,
emojione and fluent-flat at 32 x 32 pixels. Every tenth concept is held out
(`data.emoji.images.is_unseen`). What is measured, each among all 1,571 names that the five vendors
of the comparison share: the seen concepts in the styles openmoji (flat with black outlines) and
fluent-3d (rendered), the unseen concepts, and these among their own names only.

Drawings of one concept by several vendors are positives of each other (`positives`). The
augmentation changes how things are drawn: place, colors, outlines (`swin_jax.data.emoji.style`).
Towers, rate and augmentation are from four short runs that left fluent-flat out of training; the
two test styles were looked at beside it. docs/clip.md has the numbers.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from experiments.common import run
from swin_jax.data import pipeline
from swin_jax.data.emoji import images as emoji
from swin_jax.data.emoji.style import style_train_transform
from swin_jax.evals.prompts.emoji import zero_shot
from swin_jax.models.clip import CLIP, ModifiedResNet, TextTransformer, rules
from swin_jax.optim import adamw
from swin_jax.optim.schedules import warmup_cosine
from swin_jax.tasks.contrastive import Contrastive

STYLES = ("openmoji", "fluent_3d", "fluent_flat")


def get_config(arg=None):
    arg = parse_arg(arg, fake=False)

    # Sizes
    c = ConfigDict(dict(seed=0, total_steps=4000, batch_size=256, image_size=32))
    c.update(context_length=20, embed_dim=128, max_bad_records=0, data_dir=placeholder(str))
    ref = c.get_oneway_ref

    # Model
    visual = dict(layers=(1, 1, 1, 1), width=24, num_heads=12)
    visual = spec(ModifiedResNet, **run.refs(c, "embed_dim", "image_size"), **visual)
    text = dict(width=128, layers=1, num_heads=2)
    text = spec(TextTransformer, **run.refs(c, "embed_dim", "context_length"), **text)
    model = spec(CLIP, visual=visual, text=text)

    # Optimizer
    steps = dict(total_steps=ref("total_steps"), warmup_steps=200)
    schedule = spec(warmup_cosine, base_lr=2e-3, **steps)
    adam, decay = dict(b2=0.98, eps=1e-6), dict(weight_decay=0.2, no_decay=rules.NO_DECAY)
    tx = spec(adamw, schedule=schedule, **adam, **decay, clip_norm=1.0)

    # Task
    same = run.refs(c, "image_size", "context_length", "seed")
    c.task = spec(Contrastive, model=model, tx=tx, **same, positives=True)

    # Data
    augment = spec(style_train_transform, size=ref("image_size"))
    context = run.refs(c, "context_length")
    c.data = spec(
        pipeline.TrainData,
        source=spec(emoji.emoji, data_dir=ref("data_dir"), concepts="seen"),
        transform=spec(emoji.pair_train_transform, transform=augment, **context),
        **run.refs(c, "batch_size", "seed"),
    )

    # Evals
    c.evals = {vendor: evaluation(c, vendor) for vendor in STYLES}
    crop = spec(emoji.image_eval_transform, size=ref("image_size"))
    c.predict = run.predict_images(crop, batch_size=256)

    # Run
    c.init_from = run.init_from()
    run.set_up(c, rules.PARTITION, every=400, keep=1)
    return use_fakes(c) if arg.fake else c


def evaluation(c, vendor):
    """Zero-shot classification of one vendor's drawings."""
    ref = c.get_oneway_ref
    source = spec(emoji.emoji, data_dir=ref("data_dir"), vendors=(vendor,), common=True)
    crop = spec(emoji.image_eval_transform, size=ref("image_size"))
    data = spec(pipeline.EvalData, source=source, transform=crop, batch_size=256)
    measure = spec(zero_shot, data=data, context_length=ref("context_length"))
    return dict(every=ref("total_steps") // 4, run=measure)


def use_fakes(c):
    """No data and no time: tiny towers on made-up drawings."""
    c.update(total_steps=3, batch_size=8)
    c.task.tx.schedule.warmup_steps = 1
    c.task.model.visual.update(width=8, num_heads=4)
    c.task.model.text.update(width=16, num_heads=2, vocab_size=49408)
    c.data.source = spec(emoji.fake_emoji)
    for name, item in c.evals.items():
        item.run.data.source = spec(emoji.fake_emoji, vendor=name)
        item.run.data.batch_size = 16
    c.predict.batch_size = 16
    return c
