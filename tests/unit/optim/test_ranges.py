"""Optimizers and schedules refuse numbers that would train on without a word."""

import pytest

from swin_jax.core.ranges import RangeError
from swin_jax.optim import adamw, schedules, sgd

NAN = float("nan")
RATE = schedules.constant(0.1)
RULE = dict(schedule=RATE, no_decay=())
WRONG = {
    adamw: (RULE, dict(b1=1.0, b2=-0.1, eps=0.0, weight_decay=-0.1, clip_norm=-1)),
    sgd: (RULE, dict(momentum=1.0, weight_decay=NAN, clip_norm=-1.0)),
    schedules.constant: (dict(base_lr=1.0), dict(base_lr=-0.1)),
    schedules.warmup_cosine: (
        dict(base_lr=1.0, total_steps=10),
        dict(base_lr=NAN, total_steps=-1, warmup_steps=-1, warmup_lr=-1.0, min_lr=-1.0, delay=-1),
    ),
    schedules.warmup_linear: (dict(base_lr=1.0, total_steps=10), dict(total_steps=2.5, warmup_steps=True)),
    schedules.warmup_multistep: (dict(base_lr=1.0, milestones=3), dict(milestones=(3, -1), gamma=1.5)),
    schedules.epoch_cosine: (
        dict(base_lr=1.0, epochs=3, steps_per_epoch=2),
        dict(epochs=0, steps_per_epoch=0, warmup_epochs=-1, warmup_ratio=2.0, accumulate=0),
    ),
}


@pytest.mark.parametrize("fn, name, value", [(fn, *item) for fn, (_, wrong) in WRONG.items() for item in wrong.items()])
def test_out_of_range(fn, name, value):
    right = WRONG[fn][0]
    fn(**right)
    with pytest.raises(RangeError, match=f"^{name}="):
        fn(**right | {name: value})
