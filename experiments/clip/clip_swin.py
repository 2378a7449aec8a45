"""CLIP with a Swin Transformer as its image tower, version 1 or 2, on any image-text pairs.

    python -m swin_jax.launch --config=experiments/clip/clip_swin.py:variant=tiny,generation=v2 \
        --workdir=runs/clip_swin \
        --config.pairs='data/pairs/{00000..00331}.tar' --config.num_train=3300000

The recipe is that of clip_openai.py at a batch that fits a set like CC3M; nothing of this kind
is published. The head of the Swin, a linear map of its pooled features, is the projection.
`--config.init_from.path=` takes a run of this file, or with `pretrained` the official weights
of a Swin (`--config.init_from.path=swin_tiny_patch4_window7_224.pth`). `data` as in
clip_openai.py: shards, lists, tables or a folder; with `validation` the pairs of
`--config.validation_pairs` are searched.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import image_text, run
from swin_jax.data.image import transforms as image
from swin_jax.models.clip import CLIP, TextTransformer, rules
from swin_jax.models.swin import V2, VARIANTS, Swin
from swin_jax.optim import adamw
from swin_jax.optim.schedules import warmup_cosine
from swin_jax.pretrained.clip import finetune
from swin_jax.tasks.contrastive import Contrastive

PODS = run.read_pods("clip_swin")


def get_config(arg=None):
    arg = parse_arg(
        arg,
        variant=("tiny", "small", "base", "large"),
        generation=("v1", "v2"),
        data=image_text.FORMS,
        pretrained=False,
        validation=False,
        pod=run.CHIPS,
        fake=False,
    )
    v2 = arg.generation == "v2"

    # Sizes
    c = image_text.sizes(epochs=32, batch_size=1024, num_train=3_300_000, embed_dim=512)
    c.update(image_size=256 if v2 else 224, context_length=77, form="local")
    ref = c.get_oneway_ref

    # Model
    visual = spec(
        Swin,
        **VARIANTS[arg.variant],
        **(V2 if v2 else {}),
        num_classes=ref("embed_dim"),
        image_size=ref("image_size"),
        window_size=8 if v2 else 7,
        drop_path_rate=0.1,
        dtype="bfloat16",
    )
    text = dict(width=512, num_heads=8, act="gelu", dtype="bfloat16")
    text = spec(TextTransformer, **run.refs(c, "embed_dim", "context_length"), **text)
    model = spec(CLIP, visual=visual, text=text)

    # Optimizer
    c.update(base_lr=1e-3, warmup_steps=2000)
    peak = ref("base_lr") * ref("batch_size") / 1024
    schedule = spec(warmup_cosine, base_lr=peak, **run.refs(c, "total_steps", "warmup_steps"))
    adam, decay = dict(b2=0.98, eps=1e-6), dict(weight_decay=0.1, no_decay=rules.NO_DECAY)
    tx = spec(adamw, schedule=schedule, **adam, **decay, clip_norm=1.0)

    # Task
    same = run.refs(c, "image_size", "context_length", "seed", "form")
    c.task = spec(Contrastive, model=model, tx=tx, **same)

    # Data
    augment = spec(image.clip_train_transform, size=ref("image_size"))
    c.data = image_text.train_data(c, arg.data, augment)

    # Evals
    c.evals = image_text.validation(c, arg, every=1000)
    c.predict = run.predict_images(image_text.crop(c))

    # Run
    c.init_from = run.init_from()
    if arg.pretrained:
        convert = spec(finetune.visual_pretrained)
        c.init_from.update(required=True, backbone=True, head=finetune.VISUAL_ONLY, convert=convert)
    run.set_up(c, rules.PARTITION, every=1000)
    return use_fakes(c) if arg.fake else run.use_pod(c, arg, PODS)


def use_fakes(c):
    """No data, no weights and no time: tiny towers on made-up pairs."""
    c.task.model.visual.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=4)
    c.task.model.text.update(width=16, layers=1, num_heads=2)
    return image_text.use_fakes(c)
