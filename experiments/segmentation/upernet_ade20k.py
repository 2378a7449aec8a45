"""UPerNet over Swin Transformers on ADE20K, the official recipe of 160,000 updates
(arXiv 2103.14030, appendix A2.3).

    python -m swin_jax.launch --config=experiments/segmentation/upernet_ade20k.py:variant=tiny \
        --workdir=runs/upernet_tiny --config.data_dir=data/ADEChallengeData2016 \
        --config.init_from.path=swin_tiny_patch4_window7_224.pth

`init_from.path` is a file or a workdir of a classifier, which becomes the backbone. A released
segmenter is evaluated, or trained further, as a whole, with its heads:

    ... --config.init_from.path=upernet_swin_tiny_patch4_window7_512x512.pth \
        --config.init_from.backbone=False --config.total_steps=0

The same recipe learns a folder of your own, with labels as docs/segmentation.md describes them; an
error says what `num_classes` and `num_train` must be:

    ... upernet_ade20k.py:variant=tiny,folder --config.data_dir=street \
        --config.num_classes=12 --config.num_train=367 --config.total_steps=16000

Published mean IoU on the 2,000 pictures of validation, single scale and with six scales and
mirroring (the READMEs of the official repositories); GFLOPs of a picture of 4 : 1:

    variant     weights          crop  mIoU   ms + flip  parameters  GFLOPs
    tiny        ImageNet-1K       512  44.51  45.81       59.9 M       945
    small       ImageNet-1K       512  47.64  49.47       81.3 M      1038
    base        ImageNet-1K       512  48.13  49.72      121.3 M      1188
    base_22k    ImageNet-22K      640  50.04  51.66      121.3 M      1841
    large_22k   ImageNet-22K      640  52.05  53.53      233.8 M      3230
    tiny_moby   MoBY, no labels   512  44.06  45.58       59.9 M       945

The column `ms + flip` takes `--config.evals.val.run.data.ratios=(0.5,0.75,1.0,1.25,1.5,1.75)` and
`--config.evals.val.run.data.flip=True`, twelve times the work of an evaluation.

Theirs ran on 8 GPUs with 2 crops each, whose batch norms shared their statistics; ours are always
of the whole batch. Runs of this recipe differ by about 0.5.

The recipe of `base_22k` and `large_22k` was never published, only their numbers: crop and scale
follow from the size of the published GFLOPs, the window is ours (`window=12`, or `window=7`, which
weights from 224 pixels have), and all else is the recipe of the others. The log says so.

Quirks of the published runs are the default: the loss is divided by the number of all pixels,
ignored ones too (`task.count_ignored=False` is the corrected form), and the weight decay falls on
biases and on the heads' batch norms.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec
from swin_jax.core.errors import UserError

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import run, segmentation
from swin_jax.data.segmentation.transforms import train_transform
from swin_jax.models.segmentation import make_upernet, rules
from swin_jax.models.swin import VARIANTS
from swin_jax.optim import adamw, schedules
from swin_jax.pretrained.segmentation import finetune
from swin_jax.tasks.segmentation import Segmentation

ROWS = ("tiny", "small", "base", "base_22k", "large_22k", "tiny_moby")
NOTICE = "this row's recipe was never published: crop, scale and window are assumed"
PODS = run.read_pods("upernet_ade20k")


def get_config(arg=None):
    windows = ("", "7", "12")
    arg = parse_arg(arg, variant=ROWS, window=windows, folder=False, pod=run.CHIPS, fake=False)
    backbone, _, start = arg.variant.partition("_")
    is_published = start != "22k"
    if is_published and arg.window not in ("", "7"):
        raise UserError(f"window={arg.window}: variant={arg.variant} was published with window=7")

    # Sizes
    numbers = dict(num_train=20_210, num_classes=150, max_bad_records=100)
    size = 512 if is_published else 640
    c = segmentation.sizes(total_steps=160_000, batch_size=16, image_size=size, **numbers)
    ref, same = c.get_oneway_ref, run.refs(c, "image_size", "num_classes")
    c.notice = "" if is_published else NOTICE

    # Model
    window = int(arg.window or (7 if is_published else 12))
    model = dict(window_size=window, drop_path_rate=0.3, dropout_rate=0.1, dtype="float32")
    model = spec(make_upernet, **VARIANTS[backbone], **same, **model)

    # Optimizer
    schedule = dict(base_lr=6e-5, total_steps=ref("total_steps"), warmup_steps=1500)
    schedule = spec(schedules.warmup_poly, **schedule, power=1.0, warmup_ratio=1e-6)
    tx = spec(adamw, schedule=schedule, weight_decay=0.01, no_decay=rules.NO_DECAY, clip_norm=0.0)

    # Task
    losses = dict(auxiliary_weight=0.4, count_ignored=True)
    c.task = spec(Segmentation, model=model, tx=tx, **same, seed=ref("seed"), **losses)

    # Data
    train, val = segmentation.read(c, arg.folder)
    augment = dict(size=ref("image_size"), scale=ref("scale"), ratio=(0.5, 2.0), hflip=0.5)
    augment = spec(train_transform, **augment, most_of_one_class=0.75, distort=True)
    c.data = segmentation.train_data(c, train, augment)

    # Evals
    c.evals = dict(val=segmentation.validation(c, val, every=16_000))
    c.predict = segmentation.predict(c)
    c.predict_method = segmentation.predict_method(c)

    # Run
    fresh = dict(backbone=True, head=finetune.FRESH, required=True)
    c.init_from = run.init_from(convert=spec(finetune.pretrained), **fresh)
    run.set_up(c, rules.PARTITION, every=4000)
    return segmentation.use_fakes(c) if arg.fake else run.use_pod(c, arg, PODS)
