"""CLIP on emoji: drawings of five vendors and their names; zero-shot on two drawing styles that it never saw.

    python -m swin_jax.data.builders.emoji --data_dir=data
    python -m swin_jax.launch --config=experiments/clip/clip_emoji.py --workdir=runs/clip_emoji --config.data_dir=data

A small ResNet and a one-layer text transformer learn from the drawings of noto, noto-v1, twemoji, emojione and
fluent-flat at 32 x 32 pixels. Every tenth concept is held out (`data.emoji.images.is_unseen`). What is measured, each
among all 1,571 names that the five vendors of the comparison share: the seen concepts in the styles openmoji (flat with
black outlines) and fluent-3d (rendered), the unseen concepts, and these among their own names only.

Drawings of one concept by several vendors are positives of each other (`positives`). The augmentation changes how
things are drawn: place, colours, outlines (`swin_jax.data.emoji.style`). Towers, rate and augmentation are from four
short runs that left fluent-flat out of training; the two test styles were looked at beside it. The README has the
numbers.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from swin_jax import optim
from swin_jax.core.config import parse_arg, refuse_as_script, spec
from swin_jax.data import pipeline, sources
from swin_jax.data.emoji import images as emoji
from swin_jax.data.emoji import style
from swin_jax.evals.prompts import emoji as emoji_evals
from swin_jax.models.clip import CLIP, ModifiedResNet, TextTransformer, rules
from swin_jax.optim import schedules
from swin_jax.tasks.contrastive import Contrastive
from swin_jax.train import sharding
from swin_jax.train.init_from import InitFrom

STYLES = ("openmoji", "fluent_3d", "fluent_flat")


def get_config(arg=None):
    arg = parse_arg(arg, fake=False)
    c = ConfigDict(dict(seed=0, total_steps=4000, batch_size=256, image_size=32, context_length=20, embed_dim=128))
    c.update(max_bad_records=0, data_dir=placeholder(str))
    ref = c.get_oneway_ref
    model = spec(
        CLIP,
        visual=spec(
            ModifiedResNet,
            embed_dim=ref("embed_dim"),
            image_size=ref("image_size"),
            layers=(1, 1, 1, 1),
            width=24,
            num_heads=12,
        ),
        text=spec(
            TextTransformer,
            embed_dim=ref("embed_dim"),
            context_length=ref("context_length"),
            width=128,
            layers=1,
            num_heads=2,
        ),
    )
    c.task = spec(
        Contrastive,
        model=model,
        tx=spec(
            optim.adamw,
            schedule=spec(schedules.warmup_cosine, base_lr=2e-3, total_steps=ref("total_steps"), warmup_steps=200),
            b2=0.98,
            eps=1e-6,
            weight_decay=0.2,
            clip_norm=1.0,
            no_decay=rules.NO_DECAY,
        ),
        image_size=ref("image_size"),
        context_length=ref("context_length"),
        seed=ref("seed"),
        positives=True,
    )
    c.data = spec(
        pipeline.TrainData,
        source=spec(emoji.emoji, data_dir=ref("data_dir"), concepts="seen"),
        transform=spec(
            emoji.pair_train_transform,
            transform=spec(style.style_train_transform, size=ref("image_size")),
            context_length=ref("context_length"),
        ),
        batch_size=ref("batch_size"),
        seed=ref("seed"),
    )
    c.evals = {name: evaluation(c, name) for name in STYLES}
    c.predict = spec(
        pipeline.EvalData,
        source=spec(sources.flat_folder, root=""),
        transform=spec(emoji.image_eval_transform, size=ref("image_size")),
        batch_size=256,
    )
    c.init_from = spec(InitFrom)
    c.partition = spec(sharding.Partition, rules=rules.PARTITION)
    c.mesh = dict(data=-1, fsdp=1, tensor=1)
    c.checkpoint = dict(every=400, keep=1)
    c.logs = dict(every=50, wandb="")
    return use_fakes(c) if arg.fake else c


def evaluation(c, vendor):
    """Zero-shot classification of one vendor's drawings."""
    ref = c.get_oneway_ref
    data = spec(
        pipeline.EvalData,
        source=spec(emoji.emoji, data_dir=ref("data_dir"), vendors=(vendor,), common=True),
        transform=spec(emoji.image_eval_transform, size=ref("image_size")),
        batch_size=256,
    )
    run = spec(emoji_evals.zero_shot, data=data, context_length=ref("context_length"))
    return dict(every=ref("total_steps") // 4, run=run)


def use_fakes(c):
    """No data and no time: tiny towers on made-up drawings."""
    c.total_steps, c.batch_size = 3, 8
    c.task.model.visual.update(width=8, num_heads=4)
    c.task.model.text.update(width=16, num_heads=2, vocab_size=49408)
    c.data.source = spec(emoji.fake_emoji)
    for name, item in c.evals.items():
        item.run.data.source = spec(emoji.fake_emoji, vendor=name)
        item.run.data.batch_size = 16
    c.predict.batch_size = 16
    return c


if __name__ == "__main__":
    refuse_as_script()
