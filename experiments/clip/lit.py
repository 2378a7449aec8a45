"""Locked-image tuning (LiT, arXiv 2111.07991):
a pretrained Swin stays as it is, a text tower learns to read it.

    python -m swin_jax.launch --config=experiments/clip/lit.py:variant=base --workdir=runs/lit \
        --config.pairs='data/pairs/{00000..01242}.tar' --config.num_train=12400000 \
        --config.init_from.path=swin_base_patch4_window7_224_22k.pth

The image tower is the backbone without its head (`locked`, and out of the optimizer by `freeze`);
the text tower's projection has its width. `init_from.path` is a file of official weights or a
workdir of a Swin. The paper's towers are ViTs on private pairs; its recipe for public ones is batch
16,384, a peak rate of 1e-3, weight decay 1e-4. `data` and `validation` as in clip_openai.py.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import image_text, run
from swin_jax.core.constants import IMAGENET_MEAN, IMAGENET_STD
from swin_jax.data.image import transforms as image
from swin_jax.models.clip import CLIP, TextTransformer, rules
from swin_jax.models.swin import VARIANTS, Swin
from swin_jax.optim import adamw
from swin_jax.optim.schedules import warmup_cosine
from swin_jax.pretrained.clip import finetune
from swin_jax.tasks.contrastive import Contrastive

PODS = run.read_pods("lit")


def get_config(arg=None):
    variants = ("base", "tiny", "small", "large")
    arg = parse_arg(arg, variant=variants, **image_text.ARGUMENTS)
    fields = VARIANTS[arg.variant]
    width = fields["embed_dim"] * 2 ** (len(fields["depths"]) - 1)

    # Sizes
    c = image_text.sizes(epochs=10, batch_size=16384, num_train=12_400_000, embed_dim=width)
    c.update(image_size=224, context_length=77, form="local")
    ref = c.get_oneway_ref

    # Model
    visual = spec(
        Swin,
        **fields,
        num_classes=0,
        image_size=ref("image_size"),
        window_size=7,
        drop_path_rate=0.0,
        dtype="bfloat16",
    )
    text = dict(width=768, num_heads=12, act="gelu", dtype="bfloat16")
    text = spec(TextTransformer, **run.refs(c, "embed_dim", "context_length"), **text)
    model = spec(CLIP, visual=visual, text=text)

    # Optimizer
    c.update(base_lr=1e-3, warmup_steps=1000)
    peak = ref("base_lr") * ref("batch_size") / 16384
    schedule = spec(warmup_cosine, base_lr=peak, **run.refs(c, "total_steps", "warmup_steps"))
    adam, decay = dict(b2=0.98, eps=1e-6), dict(weight_decay=1e-4, no_decay=rules.NO_DECAY)
    tx = spec(adamw, schedule=schedule, **adam, **decay, clip_norm=1.0, freeze=r"^visual\.")

    # Task
    same = run.refs(c, "image_size", "context_length", "seed", "form")
    pixels = dict(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    c.task = spec(Contrastive, model=model, tx=tx, **same, **pixels, locked=("visual",))

    # Data
    augment = spec(image.clip_train_transform, size=ref("image_size"))
    c.data = image_text.train_data(c, arg.data, augment)

    # Evals
    c.evals = image_text.validation(c, arg, every=1000)
    c.predict = run.predict_images(image_text.crop(c))

    # Run
    locked = dict(head=finetune.VISUAL_ONLY, convert=spec(finetune.visual_pretrained))
    c.init_from = run.init_from(required=True, backbone=True, **locked)
    run.set_up(c, rules.PARTITION, every=1000)
    return use_fakes(c) if arg.fake else run.use_pod(c, arg, PODS)


def use_fakes(c):
    """No data, no weights and no time: tiny towers on made-up pairs."""
    c.embed_dim = 32
    c.task.model.visual.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=4)
    c.task.model.text.update(width=16, layers=1, num_heads=2)
    return image_text.use_fakes(c)
