"""Video Swin on animated emoji: 16 actions, trained on two persons and tested on the third,
on two CPU cores.

    python -m swin_jax.data.builders.emoji_actions --data_dir=data --packages=anim-3
    python -m swin_jax.launch --config=experiments/video_swin/video_swin_emoji.py:model=frame \
        --workdir=runs/emoji_frame --config.data_dir=data
    python -m swin_jax.launch --config=experiments/video_swin/video_swin_emoji.py:model=clip \
        --workdir=runs/emoji_clip --config.data_dir=data --config.init_from.path=runs/emoji_frame

    for model in frame clip; do
      python -m swin_jax.launch \
          --config=experiments/video_swin/video_swin_emoji.py:task=direction,model=$model \
          --workdir=runs/emoji_direction_$model --config.data_dir=data \
          --config.init_from.path=runs/emoji_$model
    done

`model=frame` is a 2-D Swin of single frames, the control and what the 3-D model is inflated from.
`task=direction` is to tell playback forwards from playback backwards, of the actions that do not
look the same both ways.

Both sides of the split have a random start, speed, scale, place and background, the same for all
frames of a clip; those of the test set are fixed. (`task=direction` has one scale and place.) The
test averages the probabilities of `views` clips, or single frames, of each animation.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

import functools

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from experiments.common import run, video
from swin_jax.data import pipeline
from swin_jax.data.emoji import actions as emoji
from swin_jax.data.emoji.animation import action_eval_transform, action_train_transform
from swin_jax.evals.accuracy import Accuracy
from swin_jax.evals.multi_view import MultiView
from swin_jax.models.swin import Swin, rules
from swin_jax.models.video_swin import make_video_swin
from swin_jax.optim import adamw
from swin_jax.optim.schedules import warmup_cosine
from swin_jax.pretrained.video_swin import finetune
from swin_jax.tasks.classification import Classification

STEPS = dict(actions=dict(frame=7000, clip=6000), direction=dict(frame=2000, clip=3000))
CLASSES = dict(actions=16, direction=2)
DRAWS = dict(actions=emoji.ACTION_DRAWS, direction=emoji.PLAYBACK_DRAWS)
SOURCE = dict(actions=emoji.emoji_actions, direction=emoji.emoji_playback)
FAKES = dict(actions=emoji.fake_emoji_actions, direction=emoji.fake_emoji_playback)


def get_config(arg=None):
    arg = parse_arg(arg, task=tuple(STEPS), model=("clip", "frame"), fake=False)
    clip, actions = arg.model == "clip", arg.task == "actions"

    # Sizes
    c = ConfigDict(dict(seed=0, batch_size=16, size=64, num_frames=8 if clip else 1, views=4))
    c.update(total_steps=STEPS[arg.task][arg.model], num_classes=CLASSES[arg.task])
    c.update(max_bad_records=0, data_dir=placeholder(str))
    ref = c.get_oneway_ref
    image_size = video.clip_size(c, "num_frames") if clip else ref("size")

    # Model
    own = (
        dict(window_size=(4, 4, 4), dropout_rate=0.2) if clip else dict(window_size=4, small="axis")
    )
    model = spec(
        make_video_swin if clip else Swin,
        num_classes=ref("num_classes"),
        image_size=image_size,
        embed_dim=32,
        depths=(2, 2, 2),
        num_heads=(1, 2, 4),
        drop_path_rate=0.0,
        **own,
    )

    # Optimizer
    rates = dict(base_lr=1e-3, warmup_steps=200, min_lr=1e-5, warmup_prefix=True)
    schedule = spec(warmup_cosine, total_steps=ref("total_steps"), **rates)
    tx = spec(adamw, schedule=schedule, weight_decay=0.05, no_decay=rules.NO_DECAY)

    # Task
    kind = dict(input="video" if clip else "image")
    same = dict(image_size=image_size, **run.refs(c, "num_classes", "seed"), **kind)
    mixing = dict(label_smoothing=0.1, erase_probability=0.0, mixup=0.0, cutmix=0.0)
    c.task = spec(Classification, model=model, tx=tx, **same, **mixing)

    # Data
    shared = dict(**run.refs(c, "size", "num_frames"), **DRAWS[arg.task])
    augment = spec(action_train_transform, **shared)
    augment.hflip = 0.5 if actions else 0.0  # it may turn what goes round one way into the other
    # Persons differ in the colors of hair and clothes. A single frame is worse without them.
    augment.recolor = 0.6 if clip and actions else 0.0
    one = spec(action_eval_transform, **shared, views=0)
    views = spec(action_eval_transform, **shared, views=ref("views"))
    if not clip:
        augment, one, views = (spec(as_image, transform=each) for each in (augment, one, views))
    c.data = spec(
        pipeline.TrainData,
        source=source(c, arg.task, emoji.TRAIN_WHO),
        transform=augment,
        **run.refs(c, "batch_size", "seed"),
        expected_classes=ref("num_classes"),
    )

    # Evals
    one = test_data(c, arg.task, one, batch_size=32)
    views = test_data(c, arg.task, views, batch_size=16)
    test = dict(every=0, run=spec(MultiView, data=views, **kind))
    c.evals = dict(test_one=dict(every=500, run=spec(Accuracy, data=one)), test=test)

    # Run
    c.init_from = run.init_from(backbone=True)
    if clip:
        convert = spec(finetune.pretrained, patch="inflate", bias="duplicate", head=False)
        c.init_from.update(head=finetune.FRESH, convert=convert)
    run.set_up(c, rules.PARTITION, every=500, logs=20)
    return use_fakes(c, clip, arg.task) if arg.fake else c


def source(c, task, who):
    """The animations of some persons."""
    return spec(SOURCE[task], data_dir=c.get_oneway_ref("data_dir"), who=who, config="anim_3")


def test_data(c, task, transform, batch_size):
    """The animations of the third person."""
    test = source(c, task, emoji.TEST_WHO)
    return spec(pipeline.EvalData, source=test, transform=transform, batch_size=batch_size)


def as_image(transform):
    """Single frames, `image`, of a transform's clips of one frame."""
    return functools.partial(_as_image, transform=transform)


def _as_image(*arguments, transform):
    example = transform(*arguments)
    return {"image": example["video"][..., 0, :, :, :], "label": example["label"]}


def use_fakes(c, clip, task):
    """No data and no time: a tiny model on made-up animations."""
    c.update(total_steps=3, batch_size=8, size=16, views=2, num_frames=4 if clip else 1)
    c.task.tx.schedule.warmup_steps = 1
    c.num_classes = 4 if task == "actions" else 2
    c.task.model.update(embed_dim=8, depths=(1, 1), num_heads=(1, 2))
    for seed, data in enumerate((c.data, c.evals.test_one.run.data, c.evals.test.run.data)):
        data.source = spec(FAKES[task], num_examples=16, seed=min(seed, 1))
        data.batch_size = 8
    return c
