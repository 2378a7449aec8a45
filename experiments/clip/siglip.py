"""Contrastive pretraining with the sigmoid loss (SigLIP, arXiv 2303.15343) instead of the softmax.

    python -m swin_jax.launch --config=experiments/clip/siglip.py --workdir=runs/siglip \
        --config.pairs='data/pairs/{00000..41455}.tar' --config.num_train=400000000

Every pair of an image and a text is a yes-or-no question, so no normalization over the batch is
needed: the texts travel round the devices and the matrix of logits never exists (`form=ring`). As
in the paper the scale starts at 10 and a bias on the logits at -10, weight decay is 1e-4 and b2 =
0.95 at batch 32,768, texts have 64 tokens without punctuation, and pixels are normalized by 0.5.
The towers are those of CLIP's ViT-B/16 with GELU, and the vocabulary is CLIP's: the paper's
attention pool and its sentencepiece vocabulary are not here, so its results may differ. `data`
and `validation` are those of clip_openai.py.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import image_text, run
from swin_jax.data.image import transforms as image
from swin_jax.models.clip import PRESETS, make_clip, rules
from swin_jax.optim import adamw
from swin_jax.optim.schedules import warmup_cosine
from swin_jax.tasks.contrastive import Contrastive

CLEAN = "canonicalize"  # texts: no punctuation
PODS = run.read_pods("siglip")


def get_config(arg=None):
    models = ("ViT-B/16", "ViT-B/32", "ViT-L/14")
    arg = parse_arg(arg, model=models, **image_text.ARGUMENTS)

    # Sizes
    c = image_text.sizes(epochs=9, batch_size=32768, num_train=400_000_000)
    c.update(image_size=224, context_length=64, form="ring")
    ref = c.get_oneway_ref

    # Model
    fields = PRESETS[arg.model] | run.refs(c, "image_size", "context_length")
    model = spec(make_clip, **(fields | dict(act="gelu")))
    model.update(init_logit_scale=2.302585092994046, dtype="bfloat16", remat="full")  # ln 10
    model.logit_bias = -10.0

    # Optimizer
    c.update(base_lr=1e-3, warmup_steps=10_000)
    peak = ref("base_lr") * ref("batch_size") / 32768
    schedule = spec(warmup_cosine, base_lr=peak, **run.refs(c, "total_steps", "warmup_steps"))
    adam, decay = dict(b2=0.95, eps=1e-6), dict(weight_decay=1e-4, no_decay=rules.NO_DECAY)
    tx = spec(adamw, schedule=schedule, **adam, **decay, clip_norm=1.0)

    # Task
    same = run.refs(c, "image_size", "context_length", "seed", "form")
    pixels = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    c.task = spec(Contrastive, model=model, tx=tx, **same, **pixels, sigmoid=True)

    # Data
    square = dict(scale=(1.0, 1.0), ratio=(1.0, 1.0))
    augment = spec(image.clip_train_transform, size=ref("image_size"), **square)
    c.data = image_text.train_data(c, arg.data, augment, clean=CLEAN)

    # Evals
    c.evals = image_text.validation(c, arg, every=1000)
    c.predict = run.predict_images(image_text.crop(c))

    # Run
    c.init_from = run.init_from()
    run.set_up(c, rules.PARTITION, every=1000)
    return use_fakes(c) if arg.fake else run.use_pod(c, arg, PODS)


def use_fakes(c):
    """No data, no weights and no time: tiny towers on made-up pairs."""
    text = dict(text_width=16, text_heads=2, text_layers=1)
    c.task.model.update(embed_dim=16, vision_width=16, vision_heads=4, **text)
    c.task.model.update(vision_layers=1, patch_size=16)
    return image_text.use_fakes(c)
