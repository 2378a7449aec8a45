"""CLIP's contrastive pretraining on image-text pairs (arXiv 2103.00020), all nine models.

    python -m swin_jax.launch --config=experiments/clip/clip_openai.py:model=ViT-B/32 \
        --workdir=runs/clip --config.pairs='data/pairs/{00000..41455}.tar' --config.form=ring

`data` says what `pairs` is: `tar` (shards of .jpg and .txt members of equal names; other image
formats too), `jsonl` (a file of {"image": path, "text": caption, or several in a list} lines),
`folder` (images with a .txt of the same name beside them), `table` (.csv, .tsv or .parquet with
columns such as image and text, filepath and title), `json` (one file: Karpathy's
dataset_coco.json, COCO's captions_val2017.json, a list of records; `--config.data.source.root=`
is the folder of the images), or `tfds` (`--config.tfds_name=coco_captions
--config.data_dir=data`, captions in `--config.text_key=captions/text`). Of several captions of an
image each epoch draws one. With `validation` the pairs of `--config.validation_pairs` are
searched every epoch (R@1, 5, 10 both ways, on all captions), with `imagenet` ImageNet's
validation set in `--config.data_dir` is classified zero-shot with 80 prompts; the curated class
names come with `pip install --no-deps clip-benchmark==1.6.2`.

The released models saw 400 million pairs that were never published, 32 times. Published
zero-shot top-1 on ImageNet (the paper's table 11) and the rate and hours of table
19 and section 2.5:

    model           top-1   peak rate  text width     model           top-1   peak rate  text width
    RN50            59.6    5e-4       512            ViT-B/32        63.2    5e-4       512
    RN101           62.2    5e-4       512            ViT-B/16        68.6    5e-4       512
    RN50x4          65.8    5e-4       640            ViT-L/14        75.3    4e-4       768
    RN50x16         70.5    4e-4       768            ViT-L/14@336px  76.2    2e-5       768
    RN50x64         73.6    3.6e-4     1024

ViT-L/14@336px is one more epoch of ViT-L/14 at 336 pixels, its positions stretched bilinearly:
give `--config.init_from.path=` a workdir or a file of ViT-L/14. Batch 32,768 (the rate follows
it linearly), warm-up of 2,000 updates, cosine to 0, weight decay 0.2, one random square crop:
here the crop of open_clip, 90 to 100 % of the area. Adam's constants are those of table 18
(ResNets 0.9, 0.999, 1e-8; ViTs 0.9, 0.98, 1e-6). Not published: whether position embeddings
decay (here they do, as in open_clip's released models) and whether the statistics of batch norm
are global (here they are).

Fine-tuning on a folder of your own images with captions, from OpenAI's weights:

    python -m swin_jax.launch --config=experiments/clip/clip_openai.py:model=ViT-B/32,data=folder \
        --workdir=runs/mine \
        --config.pairs=my_pictures --config.num_train=5000 --config.batch_size=256 \
        --config.epochs=5 \
        --config.task.tx.schedule.base_lr=1e-5 --config.warmup_steps=20 \
        --config.init_from.path=ViT-B-32.pt
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from ml_collections.config_dict import placeholder

from experiments.common import image_text, run
from swin_jax.data import pipeline, sources
from swin_jax.data.image import transforms as image
from swin_jax.evals.prompts.imagenet import imagenet_zero_shot
from swin_jax.models.clip import OPENAI, make_clip, rules
from swin_jax.optim import adamw
from swin_jax.optim.schedules import warmup_cosine
from swin_jax.pretrained.clip import finetune
from swin_jax.tasks.contrastive import Contrastive

PEAK = {name: 5e-4 for name in OPENAI}
PEAK |= {"RN50x16": 4e-4, "RN50x64": 3.6e-4, "ViT-L/14": 4e-4, "ViT-L/14@336px": 2e-5}
RESNET_ADAM = dict(b2=0.999, eps=1e-8)
VIT_ADAM = dict(b2=0.98, eps=1e-6)
PODS = run.read_pods("clip_openai")


def get_config(arg=None):
    arg = parse_arg(
        arg,
        model=("ViT-B/32", *(name for name in OPENAI if name != "ViT-B/32")),
        data=(*image_text.FORMS, "tfds"),
        validation=False,
        imagenet=False,
        pod=run.CHIPS,
        fake=False,
    )
    resnet, last_epoch = arg.model.startswith("RN"), arg.model == "ViT-L/14@336px"

    # Sizes
    epochs = 1 if last_epoch else 32
    c = image_text.sizes(epochs=epochs, batch_size=32768, num_train=400_000_000)
    c.update(image_size=OPENAI[arg.model]["image_size"], context_length=77, form="local")
    c.update(tfds_name="coco_captions", text_key="captions/text", data_dir=placeholder(str))
    ref = c.get_oneway_ref

    # Model
    same = run.refs(c, "image_size", "context_length")
    model = spec(make_clip, **(OPENAI[arg.model] | same))
    model.update(dtype="bfloat16", remat="full")

    # Optimizer
    c.update(base_lr=PEAK[arg.model], warmup_steps=2000)
    peak = ref("base_lr") * ref("batch_size") / 32768
    schedule = spec(warmup_cosine, base_lr=peak, **run.refs(c, "total_steps", "warmup_steps"))
    adam = RESNET_ADAM if resnet else VIT_ADAM
    decay = dict(weight_decay=0.2, no_decay=rules.NO_DECAY)
    tx = spec(adamw, schedule=schedule, **adam, **decay, clip_norm=0.0)

    # Task
    same = run.refs(c, "image_size", "context_length", "seed", "form")
    c.task = spec(Contrastive, model=model, tx=tx, **same)

    # Data
    augment = spec(image.clip_train_transform, size=ref("image_size"))
    c.data = image_text.train_data(c, arg.data, augment)

    # Evals
    c.evals = image_text.validation(c, arg, every=ref("steps_per_epoch"))
    if arg.imagenet:
        c.evals.imagenet = dict(every=ref("steps_per_epoch"), run=zero_shot(c))
    c.predict = run.predict_images(image_text.crop(c))

    # Run
    convert = spec(finetune.pretrained, resize="bilinear" if last_epoch else None)
    c.init_from = run.init_from(required=last_epoch, convert=convert)
    run.set_up(c, rules.PARTITION, every=1000)
    return use_fakes(c, resnet) if arg.fake else run.use_pod(c, arg, PODS)


def zero_shot(c):
    """Classifies ImageNet's validation set with 80 prompts."""
    data = spec(
        pipeline.EvalData,
        source=spec(
            sources.tfds, name="imagenet2012", split="validation", **run.refs(c, "data_dir")
        ),
        transform=image_text.crop(c),
        batch_size=1024,
        num_workers=16,
    )
    texts = dict(clean=image_text.cleaning(c), **run.refs(c, "context_length"))
    return spec(imagenet_zero_shot, data=data, **texts)


def use_fakes(c, resnet):
    """No data, no weights and no time: tiny towers on made-up pairs."""
    text = dict(text_width=16, text_heads=2, text_layers=1)
    c.task.model.update(embed_dim=16, vision_width=16, vision_heads=4, **text)
    if resnet:
        c.task.model.vision_layers = (1, 1, 1, 1)
    else:
        c.task.model.update(vision_layers=1, patch_size=16)
    return image_text.use_fakes(c, every=c.get_oneway_ref("steps_per_epoch"))
