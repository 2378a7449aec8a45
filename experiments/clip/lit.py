"""Locked-image tuning (LiT, arXiv 2111.07991): a pretrained Swin stays as it is, a text tower learns to read it.

    python -m swin_jax.launch --config=experiments/clip/lit.py:variant=base --workdir=runs/lit \
        --config.pairs='data/pairs/{00000..01242}.tar' --config.num_train=12400000 \
        --config.init_from.path=swin_base_patch4_window7_224_22k.pth

The image tower is the backbone without its head (`locked`, and out of the optimizer by `freeze`); the text tower's
projection has its width. `init_from.path` is a file of official weights or a workdir of a Swin. The paper's towers are
ViTs on private pairs; its recipe for public ones is batch 16,384, a peak rate of 1e-3, weight decay 1e-4. `data` and
`validation` as in clip_openai.py.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from swin_jax import optim
from swin_jax.core.config import parse_arg, refuse_as_script, spec
from swin_jax.core.constants import IMAGENET_MEAN, IMAGENET_STD
from swin_jax.data import fake, pipeline, sources
from swin_jax.data.image import transforms as image
from swin_jax.data.image_text import pairs, tar_shards
from swin_jax.evals.retrieval import Retrieval
from swin_jax.models import swin
from swin_jax.models.clip import CLIP, TextTransformer, rules
from swin_jax.optim import schedules
from swin_jax.plan import presets as pods
from swin_jax.pretrained.clip import finetune as clip_finetune
from swin_jax.tasks.contrastive import Contrastive
from swin_jax.train import sharding
from swin_jax.train.init_from import InitFrom

# Sizes are chips of v5e, see `pods`; what the compiler says of them: README, Pod presets.
PODS = {
    "variant=base": pods.Pod(32, h100={"task.accumulate": 2}),
    "variant=large": pods.Pod(32, h100={"task.accumulate": 2}),
}


def get_config(arg=None):
    arg = parse_arg(
        arg,
        variant=("base", "tiny", "small", "large"),
        data=("tar", "jsonl", "folder"),
        validation=False,
        pod=pods.NAMES,
        fake=False,
    )
    c = ConfigDict(dict(seed=0, epochs=10, batch_size=16384, num_train=12_400_000, base_lr=1e-3, warmup_steps=1000))
    c.update(image_size=224, context_length=77, form="local")
    c.update(pairs=placeholder(str), validation_pairs=placeholder(str))
    ref = c.get_oneway_ref
    c.steps_per_epoch = ref("num_train") // ref("batch_size")
    c.total_steps = ref("epochs") * ref("steps_per_epoch")
    c.max_bad_records = ref("total_steps") * ref("batch_size") // 100
    fields = swin.VARIANTS[arg.variant]
    c.embed_dim = fields["embed_dim"] * 2 ** (len(fields["depths"]) - 1)
    model = spec(
        CLIP,
        visual=spec(
            swin.Swin,
            **fields,
            num_classes=0,
            image_size=ref("image_size"),
            window_size=7,
            drop_path_rate=0.0,
            dtype="bfloat16",
        ),
        text=spec(
            TextTransformer,
            embed_dim=ref("embed_dim"),
            context_length=ref("context_length"),
            width=768,
            num_heads=12,
            act="gelu",
            dtype="bfloat16",
        ),
    )
    c.task = spec(
        Contrastive,
        model=model,
        tx=spec(
            optim.adamw,
            schedule=spec(
                schedules.warmup_cosine,
                base_lr=ref("base_lr") * ref("batch_size") / 16384,
                total_steps=ref("total_steps"),
                warmup_steps=ref("warmup_steps"),
            ),
            b2=0.98,
            eps=1e-6,
            weight_decay=1e-4,
            clip_norm=1.0,
            no_decay=rules.NO_DECAY,
            freeze=r"^visual\.",
        ),
        image_size=ref("image_size"),
        context_length=ref("context_length"),
        seed=ref("seed"),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        locked=("visual",),
        form=ref("form"),
    )
    c.data = spec(
        pipeline.TrainData,
        source=source(arg.data, ref("pairs")),
        transform=spec(
            pairs.train_transform,
            image=spec(image.clip_train_transform, size=ref("image_size")),
            context_length=ref("context_length"),
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
    convert = spec(clip_finetune.visual_pretrained)
    c.init_from = spec(InitFrom, required=True, backbone=True, head=clip_finetune.VISUAL_ONLY, convert=convert)
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
    )
    return spec(pipeline.EvalData, source=pair_source, transform=transform, batch_size=1024, num_workers=16)


def use_fakes(c):
    """No data, no weights and no time: tiny towers on made-up pairs."""
    c.update(epochs=1, batch_size=8, num_train=24, image_size=32, context_length=16, warmup_steps=1)
    c.embed_dim = 32
    c.task.model.visual.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=4)
    c.task.model.text.update(width=16, layers=1, num_heads=2)
    c.init_from.required = False
    c.data.source = spec(fake.pairs, image_size=40, num_examples=24)
    c.data.num_workers = 0
    data = validation(c, spec(fake.pairs, image_size=40, num_examples=24, split="test"))
    data.update(num_workers=0, batch_size=8)
    c.evals = dict(validation=dict(every=3, run=spec(Retrieval, data=data, ks=(1, 5))))
    return c


if __name__ == "__main__":
    refuse_as_script()
