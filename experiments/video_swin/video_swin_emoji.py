"""Video Swin on animated emoji: 16 actions, trained on two persons and tested on the third, on two CPU cores.

    python -m swin_jax.data.builders.emoji_actions --data_dir=data --packages=anim-3
    python -m swin_jax.launch --config=experiments/video_swin/video_swin_emoji.py:model=frame --workdir=runs/emoji_frame
    \
        --config.data_dir=data
    python -m swin_jax.launch --config=experiments/video_swin/video_swin_emoji.py:model=clip --workdir=runs/emoji_clip \
        --config.data_dir=data --config.init_from.path=runs/emoji_frame

    for model in frame clip; do
      python -m swin_jax.launch --config=experiments/video_swin/video_swin_emoji.py:task=direction,model=$model \
          --workdir=runs/emoji_direction_$model --config.data_dir=data --config.init_from.path=runs/emoji_$model
    done

`model=frame` is a 2-D Swin of single frames, the control and what the 3-D model is inflated from. `task=direction` is
to tell playback forwards from playback backwards, of the actions that do not look the same both ways.

Both sides of the split have a random start, speed, scale, place and background, the same for all frames of a clip;
those of the test set are fixed. (`task=direction` has one scale and place.) The test averages the probabilities of
`views` clips, or single frames, of each animation.
"""

import functools

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from swin_jax import optim
from swin_jax.core.config import parse_arg, refuse_as_script, spec
from swin_jax.data import pipeline
from swin_jax.data.emoji import actions as emoji_actions
from swin_jax.data.emoji import animation
from swin_jax.evals.accuracy import Accuracy
from swin_jax.evals.multi_view import MultiView
from swin_jax.models import swin, video_swin
from swin_jax.models.swin import rules
from swin_jax.optim import schedules
from swin_jax.pretrained.video_swin import finetune as video_swin_finetune
from swin_jax.tasks.classification import Classification
from swin_jax.train import sharding
from swin_jax.train.init_from import InitFrom

STEPS = dict(actions=dict(frame=7000, clip=6000), direction=dict(frame=2000, clip=3000))


def get_config(arg=None):
    arg = parse_arg(arg, task=("actions", "direction"), model=("clip", "frame"), fake=False)
    clip = arg.model == "clip"
    c = ConfigDict(dict(seed=0, batch_size=16, size=64, num_classes=16 if arg.task == "actions" else 2))
    c.update(num_frames=8 if clip else 1, views=4, max_bad_records=0)
    c.total_steps = STEPS[arg.task][arg.model]
    c.data_dir = placeholder(str)
    ref = c.get_oneway_ref
    fields = dict(
        num_classes=ref("num_classes"),
        embed_dim=32,
        depths=(2, 2, 2),
        num_heads=(1, 2, 4),
        drop_path_rate=0.0,
    )
    if clip:
        model = spec(
            video_swin.make_video_swin, **fields, image_size=(8, 64, 64), window_size=(4, 4, 4), dropout_rate=0.2
        )
    else:
        model = spec(swin.Swin, **fields, image_size=64, window_size=4, small="axis")
    c.task = spec(
        Classification,
        model=model,
        tx=spec(
            optim.adamw,
            schedule=spec(
                schedules.warmup_cosine,
                base_lr=1e-3,
                total_steps=ref("total_steps"),
                warmup_steps=200,
                min_lr=1e-5,
                warmup_prefix=True,
            ),
            weight_decay=0.05,
            no_decay=rules.NO_DECAY,
        ),
        image_size=(8, 64, 64) if clip else 64,
        num_classes=ref("num_classes"),
        input="video" if clip else "image",
        seed=ref("seed"),
        label_smoothing=0.1,
        erase_probability=0.0,
        mixup=0.0,
        cutmix=0.0,
    )
    draws = emoji_actions.ACTION_DRAWS if arg.task == "actions" else emoji_actions.PLAYBACK_DRAWS
    shared = dict(size=ref("size"), num_frames=ref("num_frames"), **draws)
    # Persons differ in the colours of hair and clothes. A single frame is worse without them.
    train = spec(
        animation.action_train_transform,
        **shared,
        hflip=0.5 if arg.task == "actions" else 0.0,  # it may turn what goes round one way into the other
        recolour=0.6 if clip and arg.task == "actions" else 0.0,
    )
    one = spec(animation.action_eval_transform, **shared, views=0)
    views = spec(animation.action_eval_transform, **shared, views=ref("views"))
    if not clip:
        train, one, views = (spec(as_image, transform=transform) for transform in (train, one, views))
    c.data = spec(
        pipeline.TrainData,
        source=source(c, arg.task, emoji_actions.TRAIN_WHO),
        transform=train,
        batch_size=ref("batch_size"),
        seed=ref("seed"),
        expected_classes=ref("num_classes"),
    )
    test = lambda: source(c, arg.task, emoji_actions.TEST_WHO)  # noqa: E731
    one = spec(pipeline.EvalData, source=test(), transform=one, batch_size=32)
    views = spec(pipeline.EvalData, source=test(), transform=views, batch_size=16)
    c.evals = dict(
        test_one=dict(every=500, run=spec(Accuracy, data=one)),
        test=dict(every=0, run=spec(MultiView, data=views, input="video" if clip else "image")),
    )
    if clip:
        convert = spec(video_swin_finetune.pretrained, patch="inflate", bias="duplicate", head=False)
        c.init_from = spec(InitFrom, backbone=True, head=video_swin_finetune.FRESH, convert=convert)
    else:
        c.init_from = spec(InitFrom, backbone=True)
    c.partition = spec(sharding.Partition, rules=rules.PARTITION)
    c.mesh = dict(data=-1, fsdp=1, tensor=1)
    c.checkpoint = dict(every=500, keep=2)
    c.logs = dict(every=20, wandb="")
    return use_fakes(c, clip, arg.task) if arg.fake else c


def source(c, task, who):
    make = emoji_actions.emoji_actions if task == "actions" else emoji_actions.emoji_playback
    return spec(make, data_dir=c.get_oneway_ref("data_dir"), who=who, config="anim_3")


def as_image(transform):
    """Single frames, `image`, of a transform's clips of one frame."""
    return functools.partial(_as_image, transform=transform)


def _as_image(*arguments, transform):
    example = transform(*arguments)
    return {"image": example["video"][..., 0, :, :, :], "label": example["label"]}


def use_fakes(c, clip, task):
    """No data and no time: a tiny model on made-up animations."""
    c.update(total_steps=3, batch_size=8, size=16, views=2, num_frames=4 if clip else 1)
    c.num_classes = 4 if task == "actions" else 2
    c.task.model.update(embed_dim=8, depths=(1, 1), num_heads=(1, 2), image_size=(4, 16, 16) if clip else 16)
    c.task.image_size = (4, 16, 16) if clip else 16
    make = emoji_actions.fake_emoji_actions if task == "actions" else emoji_actions.fake_emoji_playback
    for seed, data in enumerate((c.data, c.evals.test_one.run.data, c.evals.test.run.data)):
        data.source = spec(make, num_examples=16, seed=min(seed, 1))
        data.batch_size = 8
    return c


if __name__ == "__main__":
    refuse_as_script()
