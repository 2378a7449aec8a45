"""CLIP's contrastive pretraining on image-text pairs (arXiv 2103.00020), all nine models.

    python -m swin_jax.launch --config=experiments/clip/clip_openai.py:model=ViT-B/32 --workdir=runs/clip \
        --config.pairs='data/pairs/{00000..41455}.tar' --config.form=ring

`data` says what `pairs` is: `tar` (shards of .jpg and .txt members of equal names; other image formats too), `jsonl` (a
file of {"image": path, "text": caption} lines), `folder` (images with a .txt of the same name beside them), or `tfds`
(`--config.tfds_name=coco_captions --config.data_dir=data`, captions in `--config.text_key=captions/text`). With
`validation` the pairs of `--config.validation_pairs` are searched every epoch (R@1, 5, 10 both ways), with `imagenet`
ImageNet's validation set in `--config.data_dir` is classified zero-shot with 80 prompts; the curated class names come
with `pip install --no-deps clip-benchmark==1.6.2`.

The released models saw 400 million pairs that were never published, 32 times. Zero-shot top-1 on ImageNet (the paper's
table 11; theirs, not ours) and the rate and hours of table 19 and section 2.5:

    model           top-1   peak rate  text width         model           top-1   peak rate  text width
    RN50            59.6    5e-4       512                ViT-B/32        63.2    5e-4       512
    RN101           62.2    5e-4       512                ViT-B/16        68.6    5e-4       512
    RN50x4          65.8    5e-4       640                ViT-L/14        75.3    4e-4       768
    RN50x16         70.5    4e-4       768                ViT-L/14@336px  76.2    2e-5       768
    RN50x64         73.6    3.6e-4     1024

ViT-L/14@336px is one more epoch of ViT-L/14 at 336 pixels, its positions stretched bilinearly: give
`--config.init_from.path=` a workdir or a file of ViT-L/14. Batch 32,768 (the rate follows it linearly), warm-up of
2,000 updates, cosine to 0, weight decay 0.2, one random square crop: here the crop of open_clip, 90 to 100 % of the
area. Adam's constants are those of table 18 (ResNets 0.9, 0.999, 1e-8; ViTs 0.9, 0.98, 1e-6). Not published: whether
position embeddings decay (here they do, as in open_clip's released models) and whether the statistics of batch norm
are global (here they are).

Fine-tuning on a folder of your own images with captions, from OpenAI's weights:

    python -m swin_jax.launch --config=experiments/clip/clip_openai.py:model=ViT-B/32,data=folder --workdir=runs/mine \
        --config.pairs=my_pictures --config.num_train=5000 --config.batch_size=256 --config.epochs=5 \
        --config.task.tx.schedule.base_lr=1e-5 --config.warmup_steps=20 --config.init_from.path=ViT-B-32.pt
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from swin_jax import optim
from swin_jax.core.config import parse_arg, refuse_as_script, spec
from swin_jax.data import fake, pipeline, sources
from swin_jax.data.image import transforms as image
from swin_jax.data.image_text import pairs, tar_shards
from swin_jax.evals.prompts.imagenet import imagenet_zero_shot
from swin_jax.evals.retrieval import Retrieval
from swin_jax.models.clip import OPENAI, make_clip, rules
from swin_jax.optim import schedules
from swin_jax.plan import presets as pods
from swin_jax.pretrained.clip import finetune as clip_finetune
from swin_jax.tasks.contrastive import Contrastive
from swin_jax.train import sharding
from swin_jax.train.init_from import InitFrom

PEAK = {name: 5e-4 for name in OPENAI} | {"RN50x16": 4e-4, "RN50x64": 3.6e-4, "ViT-L/14": 4e-4, "ViT-L/14@336px": 2e-5}
SOURCES = ("tar", "jsonl", "folder", "tfds")
# Sizes are chips of v5e, see `pods`; what the compiler says of them: README, Pod presets.
PODS = {
    "model=RN50": pods.Pod(64, h100={"task.accumulate": 2}),
    "model=RN101": pods.Pod(64, h100={"task.accumulate": 2}),
    "model=RN50x4": pods.Pod(256, h100={"task.accumulate": 4}),
    "model=RN50x16": pods.Pod(256, {"task.accumulate": 2}, h100={"task.accumulate": 16}),
    "model=RN50x64": pods.Pod(256, {"task.accumulate": 8, "partition.opt_axis": "data"}, h100={"task.accumulate": 32}),
    "model=ViT-B/32": pods.Pod(32),
    "model=ViT-B/16": pods.Pod(128),
    "model=ViT-L/14": pods.Pod(128, h100={"task.accumulate": 2}),
    "model=ViT-L/14@336px": pods.Pod(256, {"task.accumulate": 2}, h100={"task.accumulate": 16}),
}


def get_config(arg=None):
    arg = parse_arg(
        arg,
        model=("ViT-B/32", *(name for name in OPENAI if name != "ViT-B/32")),
        data=SOURCES,
        validation=False,
        imagenet=False,
        pod=pods.NAMES,
        fake=False,
    )
    fields, last_epoch = OPENAI[arg.model], arg.model == "ViT-L/14@336px"
    c = ConfigDict(dict(seed=0, epochs=1 if last_epoch else 32, batch_size=32768, num_train=400_000_000))
    c.update(base_lr=PEAK[arg.model], warmup_steps=2000, image_size=fields["image_size"], context_length=77)
    c.update(form="local", tfds_name="coco_captions", text_key="captions/text")
    c.update(pairs=placeholder(str), validation_pairs=placeholder(str), data_dir=placeholder(str))
    ref = c.get_oneway_ref
    c.steps_per_epoch = ref("num_train") // ref("batch_size")
    c.total_steps = ref("epochs") * ref("steps_per_epoch")
    c.max_bad_records = ref("total_steps") * ref("batch_size") // 100
    resnet = arg.model.startswith("RN")
    model = spec(make_clip, **fields | dict(image_size=ref("image_size"), context_length=ref("context_length")))
    model.update(dtype="bfloat16", remat="full")
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
            b2=0.999 if resnet else 0.98,
            eps=1e-8 if resnet else 1e-6,
            weight_decay=0.2,
            clip_norm=0.0,
            no_decay=rules.NO_DECAY,
        ),
        image_size=ref("image_size"),
        context_length=ref("context_length"),
        seed=ref("seed"),
        form=ref("form"),
    )
    c.data = spec(
        pipeline.TrainData,
        source=source(c, arg.data, ref("pairs"), "train"),
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
    every = ref("steps_per_epoch")
    if arg.validation:
        val = spec(
            pipeline.EvalData,
            source=source(c, arg.data, ref("validation_pairs"), "validation"),
            transform=spec(
                pairs.eval_transform,
                image=spec(image.clip_eval_transform, size=ref("image_size")),
                context_length=ref("context_length"),
            ),
            batch_size=1024,
            num_workers=16,
        )
        c.evals.validation = dict(every=every, run=spec(Retrieval, data=val))
    if arg.imagenet:
        val = spec(
            pipeline.EvalData,
            source=spec(sources.tfds, name="imagenet2012", split="validation", data_dir=ref("data_dir")),
            transform=spec(image.clip_eval_transform, size=ref("image_size")),
            batch_size=1024,
            num_workers=16,
        )
        c.evals.imagenet = dict(
            every=every, run=spec(imagenet_zero_shot, data=val, context_length=ref("context_length"))
        )
    c.predict = spec(
        pipeline.EvalData,
        source=spec(sources.flat_folder, root=""),
        transform=spec(image.clip_eval_transform, size=ref("image_size")),
        batch_size=64,
    )
    c.init_from = spec(
        InitFrom,
        required=last_epoch,
        convert=spec(clip_finetune.pretrained, resize="bilinear" if last_epoch else None),
    )
    c.partition = spec(sharding.Partition, rules=rules.PARTITION)
    c.mesh = dict(data=-1, fsdp=1, tensor=1)
    c.checkpoint = dict(every=1000, keep=2)
    c.logs = dict(every=50, wandb="")
    pods.use(c, arg, PODS)
    return use_fakes(c, resnet) if arg.fake else c


def source(c, kind, path, split):
    """The pairs of one split."""
    if kind == "tar":
        return spec(tar_shards.tar_shards, patterns=path)
    if kind == "jsonl":
        return spec(pairs.jsonl, path=path)
    if kind == "folder":
        return spec(pairs.folder, root=path)
    ref = c.get_oneway_ref
    return spec(pairs.tfds, name=ref("tfds_name"), split=split, data_dir=ref("data_dir"), text_key=ref("text_key"))


def use_fakes(c, resnet):
    """No data, no weights and no time: tiny towers on made-up pairs."""
    c.update(epochs=1, batch_size=8, num_train=24, image_size=32, context_length=16, warmup_steps=1)
    c.task.model.update(embed_dim=16, vision_width=16, vision_heads=4, text_width=16, text_heads=2, text_layers=1)
    c.task.model.update(vision_layers=(1, 1, 1, 1)) if resnet else c.task.model.update(vision_layers=1, patch_size=16)
    c.data.source = spec(fake.pairs, image_size=40, num_examples=24)
    c.data.num_workers = 0
    val = spec(
        pipeline.EvalData,
        source=spec(fake.pairs, image_size=40, num_examples=24, split="test"),
        transform=spec(
            pairs.eval_transform,
            image=spec(image.clip_eval_transform, size=c.get_oneway_ref("image_size")),
            context_length=c.get_oneway_ref("context_length"),
        ),
        batch_size=8,
    )
    c.evals = dict(validation=dict(every=c.get_oneway_ref("steps_per_epoch"), run=spec(Retrieval, data=val, ks=(1, 5))))
    c.init_from.required = False
    return c


if __name__ == "__main__":
    refuse_as_script()
