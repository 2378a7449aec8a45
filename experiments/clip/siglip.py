"""Contrastive pretraining with the sigmoid loss (SigLIP, arXiv 2303.15343) instead of the softmax.

    python -m swin_jax.launch --config=experiments/clip/siglip.py --workdir=runs/siglip \
        --config.pairs='data/pairs/{00000..41455}.tar' --config.num_train=400000000

Every pair of an image and a text is a yes-or-no question, so no normalisation over the batch is needed: the texts
travel round the devices and the matrix of logits never exists (`form=ring`). As in the paper the scale starts at 10
and a bias on the logits at -10, weight decay is 1e-4 and b2 = 0.95 at batch 32,768, texts have 64 tokens without
punctuation, and pixels are normalised by 0.5. The towers are those of CLIP's ViT-B/16 with GELU, and the vocabulary
is CLIP's: the paper's attention pool and its sentencepiece vocabulary are not here, so its numbers are no promise.
`data` and `validation` as in clip_openai.py.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from swin_jax import optim
from swin_jax.core.config import parse_arg, refuse_as_script, spec
from swin_jax.data import fake, pipeline, sources
from swin_jax.data.image import transforms as image
from swin_jax.data.image_text import pairs, tar_shards
from swin_jax.evals.retrieval import Retrieval
from swin_jax.models.clip import make_clip, rules
from swin_jax.models.clip.presets import PRESETS
from swin_jax.optim import schedules
from swin_jax.plan import presets as pods
from swin_jax.tasks.contrastive import Contrastive
from swin_jax.train import sharding
from swin_jax.train.init_from import InitFrom

# Sizes are chips of v5e, see `pods`; what the compiler says of them: README, Pod presets.
PODS = {
    "model=ViT-B/16": pods.Pod(64),
    "model=ViT-B/32": pods.Pod(32),
    "model=ViT-L/14": pods.Pod(128, h100={"task.accumulate": 4}),
}


def get_config(arg=None):
    arg = parse_arg(
        arg,
        model=("ViT-B/16", "ViT-B/32", "ViT-L/14"),
        data=("tar", "jsonl", "folder"),
        validation=False,
        pod=pods.NAMES,
        fake=False,
    )
    c = ConfigDict(dict(seed=0, epochs=9, batch_size=32768, num_train=400_000_000, base_lr=1e-3, warmup_steps=10_000))
    c.update(image_size=224, context_length=64, form="ring")
    c.update(pairs=placeholder(str), validation_pairs=placeholder(str))
    ref = c.get_oneway_ref
    c.steps_per_epoch = ref("num_train") // ref("batch_size")
    c.total_steps = ref("epochs") * ref("steps_per_epoch")
    c.max_bad_records = ref("total_steps") * ref("batch_size") // 100
    fields = PRESETS[arg.model] | dict(image_size=ref("image_size"), context_length=ref("context_length"), act="gelu")
    model = spec(make_clip, **fields)
    model.update(init_logit_scale=2.302585092994046, dtype="bfloat16", remat="full")  # ln 10
    model.logit_bias = -10.0
    c.task = spec(
        Contrastive,
        model=model,
        tx=spec(
            optim.adamw,
            schedule=spec(
                schedules.warmup_cosine,
                base_lr=ref("base_lr") * ref("batch_size") / 32768,
                total_steps=ref("total_steps"),
                warmup_steps=ref("warmup_steps"),
            ),
            b2=0.95,
            eps=1e-6,
            weight_decay=1e-4,
            clip_norm=1.0,
            no_decay=rules.NO_DECAY,
        ),
        image_size=ref("image_size"),
        context_length=ref("context_length"),
        seed=ref("seed"),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        sigmoid=True,
        form=ref("form"),
    )
    c.data = spec(
        pipeline.TrainData,
        source=source(arg.data, ref("pairs")),
        transform=spec(
            pairs.train_transform,
            image=spec(image.clip_train_transform, size=ref("image_size"), scale=(1.0, 1.0), ratio=(1.0, 1.0)),
            context_length=ref("context_length"),
            clean="canonicalize",
        ),
        batch_size=ref("batch_size"),
        seed=ref("seed"),
        num_workers=16,
        expected_examples=ref("num_train"),
    )
    c.evals = {}
    if arg.validation:
        c.evals.validation = dict(
            every=1000, run=spec(Retrieval, data=validation(c, source(arg.data, ref("validation_pairs"))))
        )
    c.predict = spec(
        pipeline.EvalData,
        source=spec(sources.flat_folder, root=""),
        transform=spec(image.clip_eval_transform, size=ref("image_size")),
        batch_size=64,
    )
    c.init_from = spec(InitFrom)
    c.partition = spec(sharding.Partition, rules=rules.PARTITION)
    c.mesh = dict(data=-1, fsdp=1, tensor=1)
    c.checkpoint = dict(every=1000, keep=2)
    c.logs = dict(every=50, wandb="")
    pods.use(c, arg, PODS)
    return use_fakes(c) if arg.fake else c


def source(kind, path):
    """The pairs of one split."""
    if kind == "tar":
        return spec(tar_shards.tar_shards, patterns=path)
    return spec(pairs.jsonl, path=path) if kind == "jsonl" else spec(pairs.folder, root=path)


def validation(c, pair_source):
    """Pairs that are searched, both ways."""
    ref = c.get_oneway_ref
    transform = spec(
        pairs.eval_transform,
        image=spec(image.clip_eval_transform, size=ref("image_size")),
        context_length=ref("context_length"),
        clean="canonicalize",
    )
    return spec(pipeline.EvalData, source=pair_source, transform=transform, batch_size=1024, num_workers=16)


def use_fakes(c):
    """No data, no weights and no time: tiny towers on made-up pairs."""
    c.update(epochs=1, batch_size=8, num_train=24, image_size=32, context_length=16, warmup_steps=1)
    c.task.model.update(embed_dim=16, vision_width=16, vision_heads=4, text_width=16, text_heads=2, text_layers=1)
    c.task.model.update(vision_layers=1, patch_size=16)
    c.data.source = spec(fake.pairs, image_size=40, num_examples=24)
    c.data.num_workers = 0
    data = validation(c, spec(fake.pairs, image_size=40, num_examples=24, split="test"))
    data.update(num_workers=0, batch_size=8)
    c.evals = dict(validation=dict(every=3, run=spec(Retrieval, data=data, ks=(1, 5))))
    return c


if __name__ == "__main__":
    refuse_as_script()
