"""Optimizers and schedules refuse numbers that would train on without a word."""

import pytest

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import RangeError
from swin_jax.optim import adamw, scale_by_name, schedules, sgd

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


@pytest.mark.parametrize(
    "changes, wanted",
    [
        (
            dict(no_decay="bias$"),
            r"^no_decay='bias\$': it must be a tuple of regular expressions, \('bias\$',\) for one",
        ),
        (dict(no_decay=None), "^no_decay=None: it must be a tuple of regular expressions"),
        (dict(no_decay=("bias", 3)), "^no_decay=.*tuple of regular expressions"),
        (dict(no_decay=("bias", "(")), r"^no_decay=.*: '\(' is not a regular expression: missing \)"),
        (dict(no_decay=("",)), r"^no_decay=\('',\): '' matches all names: leave it out, or write '\.\*'"),
        (dict(freeze=("bias",)), r"^freeze=\('bias',\): it must be a regular expression, '' for none"),
        (dict(freeze="("), r"^freeze='\(' is not a regular expression"),
        (dict(schedule=0.1), r"^schedule=0.1: it must be a function of the step, such as schedules.constant\(0.1\)"),
        (dict(layer_scale=0.5), "^layer_scale=0.5: it must be a function of names, such as scale_by_name gives"),
    ],
    ids=str,
)
@pytest.mark.parametrize("fn", [adamw, sgd])
def test_names_of_parameters_are_regular_expressions(fn, changes, wanted):
    """A text in place of a tuple is one of letters, which match nearly every name: nothing decayed, without a word."""
    fn(**RULE | dict(no_decay=["bias"], freeze="head"))
    with pytest.raises(UserError, match=wanted):
        fn(**RULE | changes)


def test_rules_of_factors_are_regular_expressions():
    with pytest.raises(UserError, match=r"^rules=.*: '\(' is not a regular expression"):
        scale_by_name((("(", 0.0),))
    with pytest.raises(UserError, match=r"^rules=.*: '' matches all names"):
        scale_by_name((("", 0.5),))
