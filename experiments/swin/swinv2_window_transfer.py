"""Measures a Swin Transformer trained at 256 pixels and windows of 8 at larger windows, without
training again.

    python -m swin_jax.launch \
        --config=experiments/swin/swinv2_window_transfer.py:variant=tiny,window=16 \
        --workdir=runs/transfer --config.data_dir=data \
        --config.init_from.path=swinv2_tiny_patch4_window8_256.pth

`init_from.path` is a file of official weights or a workdir of `swinv2_in1k.py`. The image grows
with the window, 32 times its size: windows of 12, 16, 20, 24 at 384, 512, 640, 768 pixels. `size=`
sets another; a last stage no larger than the window has a smaller window then.

generation=v2: the continuous position bias is evaluated at the new window in the coordinates of the
old one (`pretrained_window_sizes`, the effective window of each stage in training: 8 everywhere
here; for weights trained at windows of 16 give
`--config.task.model.pretrained_window_sizes="(16,16,16,8)"`). generation=v1: bias tables are
resized, bicubic as in the official code, or `--config.init_from.convert.resize=geometric`. The file
takes v1 to be version 1 altogether (weights: `swinv2_in1k.py` with the three changes off, or
`variant=tiny_c24` and the official swin_tiny_c24_patch4_window8_256.pth); for tables in a network
with the other two changes give `--config.task.model.post_norm=true
--config.task.model.cosine_attention=true`.

Published top-1 (table 1 and the appendix of arXiv 2111.09883), without / with fine-tuning:

    arguments                        window 12    window 16    window 20    window 24
    variant=tiny                    82.4 / 83.2  81.7 / 83.8  80.4 / 84.0  79.1 / 84.2
    variant=tiny,generation=v1      79.4 / 82.7  77.2 / 83.0  73.2 / 83.2  68.7 / 83.2
    variant=small                   84.1 / 84.8  82.9 / 85.4
    variant=base                    84.5 / 85.1  83.8 / 85.6

Nothing is trained unless `--config.epochs=30` asks for the second column. The paper doesn't give
its fine-tuning here, nor how it crops; this file has the official fine-tuning from 224 to 384
pixels (30 epochs, rate 4e-5, weight decay 1e-8, the drop path of the training) and, as the official
configs above 256 pixels, resizes the whole picture without a crop.
`--config.evals.val.run.data.transform.crop=true` crops.

`folder` as in swin_in1k.py.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import imagenet, run
from swin_jax.core.errors import UserError
from swin_jax.data.image import transforms as image
from swin_jax.models.swin import V2, VARIANTS, Swin, rules
from swin_jax.optim import adamw
from swin_jax.pretrained.swin import finetune
from swin_jax.tasks.classification import Classification

DROP_PATH = dict(tiny=0.2, tiny_c24=0.2, small=0.3, base=0.5)
PODS = run.read_pods("swinv2_window_transfer")


def get_config(arg=None):
    own = dict(variant=tuple(DROP_PATH), generation=("v2", "v1"), window=12, size=0)
    arg = parse_arg(arg, **own, **run.ARGUMENTS)
    if arg.window < 1 or arg.size < 0:
        given = f"window={arg.window},size={arg.size}"
        raise UserError(f"{given}: a window is at least 1, a size at least 0 (32 x window)")
    v2 = arg.generation == "v2"

    # Sizes
    size = arg.size or 32 * arg.window
    c = imagenet.sizes(epochs=0, batch_size=1024, image_size=size, **imagenet.IN1K)
    ref = c.get_oneway_ref

    # Model
    model = spec(
        Swin,
        **VARIANTS[arg.variant],
        **(V2 if v2 else {}),
        **run.refs(c, "image_size", "num_classes"),
        window_size=arg.window,
        pretrained_window_sizes=(8, 8, 8, 8) if v2 else (),
        drop_path_rate=DROP_PATH[arg.variant],
        dtype="bfloat16",
    )

    # Optimizer
    c.update(warmup_epochs=5, base_lr=2e-5, warmup_lr=2e-8, min_lr=2e-7)
    schedule = run.warmup_cosine(c, 512, warmup_prefix=False, delay=1)
    tx = spec(adamw, schedule=schedule, weight_decay=1e-8, no_decay=rules.NO_DECAY, clip_norm=5.0)

    # Task
    mixing = dict(mixup=0.8, cutmix=1.0, mix_group=128, label_smoothing=0.1, erase_probability=0.25)
    same = run.refs(c, "image_size", "num_classes", "seed")
    c.task = spec(Classification, model=model, tx=tx, **same, **mixing)

    # Data
    train, val = imagenet.read_1k(c, arg.folder)
    augment = dict(size=ref("image_size"), auto_augment="rand-m9-mstd0.5-inc1")
    c.data = imagenet.train_data(c, train, spec(image.train_transform, **augment))

    # Evals
    crop = dict(size=ref("image_size"), crop=size <= 256)
    c.evals = dict(val=imagenet.validation(c, val, crop, batch_size=256))
    c.predict = imagenet.predict(c, crop)

    # Run
    convert = spec(finetune.pretrained, resize="bicubic")
    c.init_from = run.init_from(required=True, convert=convert)
    run.set_up(c, rules.PARTITION, every=ref("steps_per_epoch"))
    return imagenet.use_fakes(c) if arg.fake else run.use_pod(c, arg, PODS)
