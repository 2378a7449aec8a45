"""What a Swin Transformer trained at 256 pixels and windows of 8 is worth at larger windows, without training again.

    python -m swin_jax.launch --config=experiments/swin/swinv2_window_transfer.py:variant=tiny,window=16 \
        --workdir=runs/transfer --config.data_dir=data --config.init_from.path=swinv2_tiny_patch4_window8_256.pth

`init_from.path` is a file of official weights or a workdir of `swinv2_in1k.py`. The image grows with the window, 32
times its size: windows of 12, 16, 20, 24 at 384, 512, 640, 768 pixels. `size=` sets another; a last stage no larger
than the window has a smaller window then.

generation=v2: the continuous position bias is evaluated at the new window in the coordinates of the old one
(`pretrained_window_sizes`, the effective window of each stage in training: 8 everywhere here; for weights trained at
windows of 16 give `--config.task.model.pretrained_window_sizes="(16,16,16,8)"`). generation=v1: bias tables are
resized, bicubic as in the official code, or `--config.init_from.convert.resize=geometric`. The file takes v1 to be
version 1 altogether (weights: `swinv2_in1k.py` with the three changes off, or `variant=tiny_c24` and the official
swin_tiny_c24_patch4_window8_256.pth); for tables in a network with the other two changes give
`--config.task.model.post_norm=true --config.task.model.cosine_attention=true`.

Published top-1 (table 1 and the appendix of arXiv 2111.09883; theirs, not ours), without / with fine-tuning:

    arguments                        window 12    window 16    window 20    window 24
    variant=tiny                    82.4 / 83.2  81.7 / 83.8  80.4 / 84.0  79.1 / 84.2
    variant=tiny,generation=v1      79.4 / 82.7  77.2 / 83.0  73.2 / 83.2  68.7 / 83.2
    variant=small                   84.1 / 84.8  82.9 / 85.4
    variant=base                    84.5 / 85.1  83.8 / 85.6

Nothing is trained unless `--config.epochs=30` asks for the second column. The paper doesn't give its fine-tuning here,
nor how it crops; this file has the official fine-tuning from 224 to 384 pixels (30 epochs, rate 4e-5, weight decay
1e-8, the drop path of the training) and, as the official configs above 256 pixels, resizes the whole picture without a
crop. `--config.evals.val.run.data.transform.crop=true` crops.

`folder` as in swin_in1k.py.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from swin_jax import optim
from swin_jax.core.config import parse_arg, refuse_as_script, spec
from swin_jax.core.errors import UserError
from swin_jax.data import fake, pipeline, sources
from swin_jax.data.image import transforms as image
from swin_jax.evals.accuracy import Accuracy
from swin_jax.models import swin
from swin_jax.models.swin import rules
from swin_jax.optim import schedules
from swin_jax.plan import presets as pods
from swin_jax.pretrained.swin import finetune
from swin_jax.tasks.classification import Classification
from swin_jax.train import sharding
from swin_jax.train.init_from import InitFrom

DROP_PATH = dict(tiny=0.2, tiny_c24=0.2, small=0.3, base=0.5)
# Sizes are chips of v5e, see `pods`; what the compiler says of them: README, Pod presets.
PODS = {
    "variant=tiny,generation=v2,window=12": pods.Pod(32),
    "variant=tiny,generation=v2,window=24": pods.Pod(128, h100={"task.accumulate": 8}),
}


def get_config(arg=None):
    arg = parse_arg(
        arg,
        variant=tuple(DROP_PATH),
        generation=("v2", "v1"),
        window=12,
        size=0,
        pod=pods.NAMES,
        folder=False,
        fake=False,
    )
    if arg.window < 1 or arg.size < 0:
        raise UserError(f"window={arg.window},size={arg.size}: a window is at least 1, a size at least 0 (32 x window)")
    size = arg.size or 32 * arg.window
    c = ConfigDict(dict(seed=0, epochs=0, warmup_epochs=5, batch_size=1024, num_train=1_281_167, num_classes=1000))
    c.update(image_size=size, base_lr=2e-5, warmup_lr=2e-8, min_lr=2e-7, max_bad_records=1000)
    c.data_dir = placeholder(str)
    ref = c.get_oneway_ref
    c.steps_per_epoch = ref("num_train") // ref("batch_size")
    c.total_steps = ref("epochs") * ref("steps_per_epoch")
    v2 = arg.generation == "v2"
    c.task = spec(
        Classification,
        model=spec(
            swin.Swin,
            **swin.VARIANTS[arg.variant],
            **(swin.V2 if v2 else {}),
            num_classes=ref("num_classes"),
            image_size=ref("image_size"),
            window_size=arg.window,
            pretrained_window_sizes=(8, 8, 8, 8) if v2 else (),
            drop_path_rate=DROP_PATH[arg.variant],
            dtype="bfloat16",
        ),
        tx=spec(
            optim.adamw,
            schedule=spec(
                schedules.warmup_cosine,
                base_lr=ref("base_lr") * ref("batch_size") / 512,
                total_steps=ref("total_steps"),
                warmup_steps=ref("warmup_epochs") * ref("steps_per_epoch"),
                warmup_lr=ref("warmup_lr") * ref("batch_size") / 512,
                min_lr=ref("min_lr") * ref("batch_size") / 512,
                warmup_prefix=False,
                delay=1,
            ),
            weight_decay=1e-8,
            no_decay=rules.NO_DECAY,
            clip_norm=5.0,
        ),
        image_size=ref("image_size"),
        num_classes=ref("num_classes"),
        seed=ref("seed"),
        label_smoothing=0.1,
        mixup=0.8,
        cutmix=1.0,
        mix_group=128,
        erase_probability=0.25,
    )
    if arg.folder:
        train = spec(sources.image_folder, root=ref("data_dir"), split="train")
        validation = spec(sources.image_folder, root=ref("data_dir"), split="val")
    else:
        train = spec(sources.tfds, name="imagenet2012", split="train", data_dir=ref("data_dir"))
        validation = spec(sources.tfds, name="imagenet2012", split="validation", data_dir=ref("data_dir"))
    c.data = spec(
        pipeline.TrainData,
        source=train,
        transform=spec(image.train_transform, size=ref("image_size"), auto_augment="rand-m9-mstd0.5-inc1"),
        batch_size=ref("batch_size"),
        seed=ref("seed"),
        num_workers=16,
        expected_classes=ref("num_classes"),
        expected_examples=ref("num_train"),
    )
    transform = dict(size=ref("image_size"), crop=size <= 256)
    val = spec(
        pipeline.EvalData,
        source=validation,
        transform=spec(image.eval_transform, **transform),
        batch_size=256,
        num_workers=16,
        expected_classes=ref("num_classes"),
    )
    c.evals = dict(val=dict(every=ref("steps_per_epoch"), run=spec(Accuracy, data=val)))
    c.predict = spec(
        pipeline.EvalData,
        source=spec(sources.flat_folder, root=""),
        transform=spec(image.eval_transform, **transform),
        batch_size=64,
    )
    c.init_from = spec(InitFrom, required=True, convert=spec(finetune.pretrained, resize="bicubic"))
    c.partition = spec(sharding.Partition, rules=rules.PARTITION)
    c.mesh = dict(data=-1, fsdp=1, tensor=1)
    c.checkpoint = dict(every=ref("steps_per_epoch"), keep=2)
    c.logs = dict(every=50, wandb="")
    pods.use(c, arg, PODS)
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No data, no weights and no time: three updates of a tiny model at a window larger than the one it is for."""
    c.update(epochs=1, warmup_epochs=0, batch_size=8, num_train=24, num_classes=10, image_size=32)
    c.task.model.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2), window_size=4)
    c.task.model.pretrained_window_sizes = (3, 3) if c.task.model.continuous_bias else ()
    c.init_from.required = False
    for split, data in (("train", c.data), ("test", c.evals.val.run.data)):
        data.source = spec(fake.images, image_size=40, num_examples=24, split=split)
        data.update(num_workers=0, batch_size=8)
    return c


if __name__ == "__main__":
    refuse_as_script()
