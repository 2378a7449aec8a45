"""Video Swin's learning rates and parameter groups, against a re-statement of what mmcv 1.3 does in its loop."""

import math
import re

import numpy as np
import pytest

from swin_jax import optim
from swin_jax.core import config
from swin_jax.models.video_swin import rules
from swin_jax.optim import schedules
from tests.experiments import config_path


def mmcv_rates(epochs, length, accumulate, warmup_epochs, ratio=0.1):
    """The rate that each update uses: hooks set it before epochs and before micro-batches; updates come after some."""
    warmup, used, rate, done = warmup_epochs * length, [], 0.0, 0
    for epoch in range(epochs):
        regular = 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        rate = regular  # before the epoch
        for _ in range(length):
            if done < warmup:
                rate = regular * (1 - (1 - done / warmup) * (1 - ratio))
            elif done == warmup:
                rate = regular
            done += 1
            if done % accumulate == 0:
                used.append(rate)
    return np.array(used)


@pytest.mark.parametrize(("length", "accumulate", "warmup"), [(8, 4, 2.5), (6, 2, 2.5), (5, 1, 2.5), (4, 4, 0.0)])
def test_epoch_cosine_is_mmcvs(length, accumulate, warmup):
    schedule = schedules.epoch_cosine(2e-3, 6, length // accumulate, warmup, accumulate=accumulate)
    expected = mmcv_rates(6, length, accumulate, warmup)
    ours = np.array([schedule(step) for step in range(len(expected))])
    np.testing.assert_allclose(ours, 2e-3 * expected, rtol=2e-6)
    np.testing.assert_allclose([schedule(3, scale=0.1)], [0.1 * ours[3]], rtol=1e-6)


def test_epoch_cosine_of_the_published_30_epochs():
    schedule = schedules.epoch_cosine(1.0, 30, 1, warmup_epochs=0)
    values = [float(schedule(epoch)) for epoch in (0, 1, 2, 3, 15, 29)]
    np.testing.assert_allclose(values, (1, 0.99726, 0.98907, 0.97553, 0.5, 0.00274), atol=5e-6)


NAMES = {
    "backbone.layers.0.blocks.1.attn.relative_position_bias_table": ((1.0, 0), (0.1, 0)),
    "backbone.layers.0.blocks.1.norm1.weight": ((0.1, 1), (0.1, 0)),
    "backbone.layers.0.blocks.1.norm1.bias": ((0.1, 1), (0.1, 0)),
    "backbone.layers.0.downsample.norm.weight": ((0.1, 1), (0.1, 0)),
    "backbone.norm.weight": ((0.1, 1), (0.1, 0)),
    "backbone.patch_embed.norm.bias": ((0.1, 1), (0.1, 0)),
    "backbone.patch_embed.proj.weight": ((0.1, 1), (0.1, 1)),
    "backbone.layers.0.blocks.1.attn.qkv.bias": ((0.1, 1), (0.1, 1)),
    "cls_head.fc_cls.weight": ((1.0, 1), (1.0, 1)),
    "cls_head.fc_cls.bias": ((1.0, 1), (1.0, 1)),
}


@pytest.mark.parametrize(("kind", "column"), [("released", 0), ("intended", 1)])
def test_groups(kind, column):
    """The table of factors on the rate and on the decay that the released configs have, and the intended one."""
    no_decay, scales = rules.GROUPS[kind]
    factor = optim.scale_by_name(scales)
    found = {name: (factor(name), int(not any(re.search(p, name) for p in no_decay))) for name in NAMES}
    assert found == {name: columns[column] for name, columns in NAMES.items()}


@pytest.mark.parametrize("name", ["k400", "k600", "ssv2", "ablation"])
@pytest.mark.parametrize("kind", ["", ":fake"])
def test_model_and_task_follow_the_frames_and_the_size(name, kind):
    c = config.load(config_path(f"video_swin_{name}{kind}"))
    assert c.task.model.image_size == c.task.image_size == (c.frames, c.size, c.size)
    c.frames, c.size = 5, 64
    assert c.task.model.image_size == c.task.image_size == (5, 64, 64)
    assert c.data.transform.length == 5 and c.evals.test.run.data.transform.size == 64
    c.task.model.image_size = (16, 96, 96)
    assert c.task.model.image_size == (16, 96, 96) and c.frames == 5


@pytest.mark.parametrize("name", ["k400", "k600", "ssv2", "ablation"])
@pytest.mark.parametrize("kind", ["", ":folder"])
def test_only_training_replaces_videos_of_variable_frame_rate(name, kind):
    c = config.load(config_path(f"video_swin_{name}{kind}"))
    assert c.data.source.variable_frame_rate is False
    assert all(c.evals[key].run.data.source.variable_frame_rate is True for key in ("val", "test"))
