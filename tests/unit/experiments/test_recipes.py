"""The experiment files: each row of a published table gives the published recipe and the published size of model."""

import math
import time

import jax
import numpy as np
import pytest

from swin_jax.core import config
from swin_jax.core.errors import UserError
from swin_jax.models.swin import rules
from tests.experiments import FILES, config_path


def load(name):
    """The config that the launcher has for the name of an experiment."""
    c = config.load(config_path(name))
    c.lock()
    return c


def parameters(c) -> int:
    """Of the whole model of a config, decoder and head included."""
    shapes = jax.eval_shape(config.build(c.task).init, jax.random.key(0)).params
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_steps_and_rates_follow_epochs_and_batch_size(path):
    resolved, other = config.flatten(load(path.stem)), load(path.stem)
    assert resolved["task.fn"].startswith("swin_jax.tasks.")
    assert resolved["total_steps"] > 100 or path.stem == "swinv2_window_transfer"
    if path.stem == "finetune_folder":  # whose rate is of its model, and whose runs have a least length
        other.num_train, other.batch_size, other.epochs = 1600, 64, 8
        assert other.total_steps == other.steps
        other.epochs = 1000
        assert other.total_steps == 25_000
    elif "epochs" in resolved:
        other.batch_size, other.epochs = 2 * other.batch_size, 3
        assert other.total_steps == 3 * (other.get("epoch_size", other.num_train) // other.batch_size)
        rate = other.task.tx.schedule.base_lr
        np.testing.assert_allclose(rate, 2 * resolved["task.tx.schedule.base_lr"])


def test_every_file_takes_fake_and_refuses_what_it_does_not_know():
    for path in FILES:
        assert config.flatten(load(path.stem + ":fake"))["batch_size"] <= 16
        with pytest.raises(UserError, match="unknown config argument"):
            load(path.stem + ":nothing")


# ---- supervised ----

SUPERVISED = {  # arguments -> peak rate, steps, warm-up, weight decay, drop path, pixels, window, crop in evaluation
    "swin_in1k": (1e-3, 375_300, 25_020, 0.05, 0.2, 224, 7, True),
    "swin_in1k:variant=small": (1e-3, 375_300, 25_020, 0.05, 0.3, 224, 7, True),
    "swin_in1k:variant=base": (1e-3, 375_300, 25_020, 0.05, 0.5, 224, 7, True),
    "swin_in22k:variant=base": (1e-3, 311_940, 17_330, 0.05, 0.2, 224, 7, True),
    "swin_in22k:variant=tiny": (1e-3, 311_940, 17_330, 0.05, 0.1, 224, 7, True),
    "swin_in1k_finetune:variant=large,size=384": (4e-5, 37_530, 6_255, 1e-8, 0.2, 384, 12, False),
    "swin_in1k_finetune:variant=base,size=384,start=1k": (4e-5, 37_530, 6_255, 1e-8, 0.5, 384, 12, False),
    "swin_in1k_finetune:variant=tiny": (4e-5, 37_530, 6_255, 1e-8, 0.1, 224, 7, True),
    "swinv2_in1k": (1e-3, 375_300, 25_020, 0.05, 0.2, 256, 8, True),
    "swinv2_in1k:variant=small": (1e-3, 375_300, 25_020, 0.05, 0.3, 256, 8, True),
    "swinv2_in1k:variant=base,window=16": (1e-3, 375_300, 25_020, 0.05, 0.5, 256, 16, True),
    "swinv2_in22k": (1e-3, 311_940, 17_330, 0.1, 0.2, 192, 12, True),
    "swinv2_in22k:variant=large": (1e-3, 311_940, 17_330, 0.1, 0.2, 192, 12, True),
    "swinv2_finetune": (4e-5, 37_530, 6_255, 1e-8, 0.2, 256, 16, True),
    "swinv2_finetune:variant=large,size=384": (4e-5, 37_530, 6_255, 1e-8, 0.2, 384, 24, False),
    "swinv2_window_transfer": (4e-5, 0, 6_255, 1e-8, 0.2, 384, 12, False),
    "swinv2_window_transfer:variant=base,window=24": (4e-5, 0, 6_255, 1e-8, 0.5, 768, 24, False),
    "simmim_finetune": (5e-3, 62_500, 12_500, 0.05, 0.1, 224, 7, True),
    "simmim_finetune:variant=large": (5e-3, 62_500, 12_500, 0.05, 0.2, 224, 14, True),
    "simmim_finetune:start=100ep,size=192": (5e-3, 62_500, 12_500, 0.05, 0.1, 192, 6, True),
    "simmim_finetune:generation=v2": (5e-3, 62_500, 12_500, 0.05, 0.1, 224, 14, True),
}


@pytest.mark.parametrize("name", SUPERVISED)
def test_supervised_recipe(name):
    c = load(name)
    schedule, model = c.task.tx.schedule, c.task.model
    rate, *rest = SUPERVISED[name]
    np.testing.assert_allclose(schedule.base_lr, rate)
    found = (c.total_steps, schedule.warmup_steps, c.task.tx.weight_decay, model.drop_path_rate, c.task.image_size)
    assert (*found, model.window_size, c.predict.transform.crop) == tuple(rest)
    assert model.image_size == c.data.transform.size == c.evals[next(iter(c.evals))].run.data.transform.size == rest[4]
    assert c.task.tx.clip_norm == 5.0 and c.task.mixup == 0.8 and c.task.cutmix == 1.0 and c.task.mix_group == 128
    assert not schedule.warmup_prefix and schedule.delay == 1 and c.task.label_smoothing == 0.1
    assert c.task.tx.no_decay == rules.NO_DECAY and c.data.transform.auto_augment == "rand-m9-mstd0.5-inc1"
    # The official configs give the warm-up's start a thousandth of the peak, and the end a hundredth or two.
    assert schedule.warmup_lr <= rate / 1000 < schedule.min_lr or name.startswith("simmim")


@pytest.mark.parametrize(
    "name, pretrained",
    [
        ("swinv2_in1k:window=16", ()),
        ("swinv2_in22k", ()),
        ("swinv2_finetune", (12, 12, 12, 6)),
        ("swinv2_finetune:size=384", (12, 12, 12, 6)),
        ("swinv2_window_transfer:window=16", (8, 8, 8, 8)),
        ("swinv2_window_transfer:window=16,generation=v1", ()),
        ("simmim_finetune", ()),
        ("simmim_finetune:generation=v2", (12, 12, 12, 6)),
        ("swinv2_giant:stage=in1k", (12, 12, 12, 6)),
    ],
)
def test_coordinates_are_those_of_the_pretraining(name, pretrained):
    assert load(name).task.model.pretrained_window_sizes == pretrained


SIZES = {  # with the head of 1,000 or 21,841 classes, as published or derived from the published architecture
    "swinv2_in1k": 28_347_154,
    "swinv2_in1k:variant=small,window=16": 49_728_418,
    "swinv2_in22k": 109_280_841,
    "swinv2_finetune:variant=large,size=384": 196_739_932,
    "swinv2_window_transfer:window=24": 28_347_154,
    "simmim_finetune": 87_768_224,
    "swinv2_giant:stage=in1k": 2_997_843_680 + 4096 * 1000 + 1000,
}


@pytest.mark.parametrize("name", SIZES)
def test_size_of_the_model(name):
    assert parameters(load(name)) == SIZES[name]


@pytest.mark.parametrize("generation, bias", [("v1", "relative_position_bias_table"), ("v2", "cpb_mlp_0/kernel")])
def test_a_window_transfer_evaluates_only_at_the_window_that_is_asked_for(generation, bias):
    c = load(f"swinv2_window_transfer:window=20,generation={generation}")
    assert c.total_steps == 0 and c.init_from.required and c.init_from.convert.resize == "bicubic"
    assert (c.image_size, c.task.model.window_size) == (640, 20)
    assert load(f"swinv2_window_transfer:window=20,size=320,generation={generation}").image_size == 320
    c.epochs = 30
    assert c.total_steps == c.task.tx.schedule.total_steps == 37_530
    from swin_jax.core.params import flatten

    shapes = flatten(jax.eval_shape(config.build(c.task).init, jax.random.key(0)).params)
    assert shapes[f"layers_0/blocks_0/attn/{bias}"].shape == ((39**2, 3) if generation == "v1" else (2, 512))


@pytest.mark.parametrize("post_norm", [False, True])
@pytest.mark.parametrize("cosine_attention", [False, True])
@pytest.mark.parametrize("continuous_bias", [False, True])
def test_every_row_of_the_ablation_is_an_override(post_norm, cosine_attention, continuous_bias):
    c = load("swinv2_in1k:fake")
    c.task.model.update(post_norm=post_norm, cosine_attention=cosine_attention, continuous_bias=continuous_bias)
    assert parameters(c) > 1000


# ---- SimMIM ----

SIMMIM = {  # arguments -> peak rate, steps, warm-up start, drop path, window, side of the normalized target's window
    "simmim_in1k:schedule=100ep": (8e-4, 62_500, 4e-6, 0.0, 6, 0),
    "simmim_in1k": (4e-4, 500_000, 2e-6, 0.0, 6, 0),
    "simmim_in1k:variant=large": (4e-4, 500_000, 2e-6, 0.0, 12, 0),
    "simmim_in1k:generation=v2": (4e-4, 500_000, 2e-6, 0.1, 12, 47),
    "simmim_in1k:generation=v2,variant=giant_1b,schedule=125k": (4e-4, 125_000, 2e-6, 0.1, 12, 47),
}


@pytest.mark.parametrize("name", SIMMIM)
def test_simmim_recipe(name):
    c = load(name)
    schedule, encoder = c.task.tx.schedule, c.task.model.encoder
    np.testing.assert_allclose((schedule.base_lr, schedule.warmup_lr), (SIMMIM[name][0], SIMMIM[name][2]))
    found = (c.total_steps, encoder.drop_path_rate, encoder.window_size, c.task.norm_target)
    assert found == (SIMMIM[name][1], *SIMMIM[name][3:])
    assert (c.batch_size, c.image_size, c.task.image_size, encoder.image_size) == (2048, 192, 192, 192)
    assert schedule.warmup_steps == 6250 and c.task.tx.weight_decay == 0.05 and c.task.tx.clip_norm == 5.0
    assert c.task.tx.no_decay == rules.SIMMIM_NO_DECAY
    mask, crop = c.data.transform, c.data.transform.transform
    assert (mask.cell, mask.ratio, mask.patch) == (32, 0.6, 4)
    assert (crop.scale, crop.interpolation, crop.auto_augment) == ((0.67, 1.0), "bilinear", "")


@pytest.mark.parametrize("schedule, fall", [("800ep", 437_500), ("250k", 218_750)])
def test_the_long_schedules_fall_to_a_tenth_once(schedule, fall):
    c = load(f"simmim_in1k:schedule={schedule}")
    rate = config.build(c.task.tx.schedule)
    np.testing.assert_allclose(rate(np.array([6251, fall, fall + 1, c.total_steps])), [4e-4, 4e-4, 4e-5, 4e-5])
    assert 437_500 == 700 * c.steps_per_epoch


def test_the_schedule_of_100_epochs_is_the_old_cosine():
    rate = config.build(load("simmim_in1k:schedule=100ep").task.tx.schedule)
    middle = 4e-5 + (8e-4 - 4e-5) / 2
    np.testing.assert_allclose(rate(np.array([0, 31_251, 62_501])), [4e-6, middle, 4e-5], rtol=1e-5)
    assert rate(6251) < 0.98 * 8e-4


def test_weight_decay_as_published_or_corrected():
    assert load("simmim_in1k:weight_decay=corrected").task.tx.no_decay == rules.NO_DECAY
    assert load("swinv2_giant").task.tx.no_decay == rules.SIMMIM_NO_DECAY
    assert load("swinv2_giant:weight_decay=corrected").task.tx.no_decay == rules.NO_DECAY
    assert load("swinv2_giant:stage=in22k").task.tx.no_decay == rules.NO_DECAY


LAYER_DECAY = {
    "simmim_finetune:start=100ep": 0.9,
    "simmim_finetune": 0.8,
    "simmim_finetune:variant=large": 0.7,
    "simmim_finetune:generation=v2": 0.75,
    "swinv2_giant:stage=in22k": 0.87,
}


@pytest.mark.parametrize("name", LAYER_DECAY)
def test_layer_decay(name):
    c = load(name)
    scale, depth = config.build(c.task.tx.layer_scale), sum(c.task.model.depths)
    np.testing.assert_allclose(scale("patch_embed.proj.weight"), LAYER_DECAY[name] ** (depth + 1))
    assert scale("head.weight") == 1.0 and c.init_from.backbone and c.init_from.required
    c.task.model.depths = (1, 1)
    np.testing.assert_allclose(config.build(c.task.tx.layer_scale)("patch_embed.proj.weight"), LAYER_DECAY[name] ** 3)


@pytest.mark.parametrize("file", ["simmim_in1k", "simmim_finetune"])
def test_a_size_that_only_version_2_has_says_so(file):
    with pytest.raises(UserError, match="add generation=v2"):
        load(f"{file}:variant=huge")


# ---- SwinV2-G ----

GIANT = {  # peak rate, steps, warm-up, batch, drop path, pixels, window, attention
    "simmim": (1.4e-3, 151_900, 30_000, 9216, 0.1, 192, 12, "xla"),
    "in22k": (1.4e-3, 227_850, 30_000, 9216, 0.3, 192, 12, "xla"),
    "in1k": (2.1e-5, 22_240, 3_706, 576, 0.5, 640, 40, ("sequential", "sequential", "xla", "xla")),
}


@pytest.mark.parametrize("stage", GIANT)
def test_giant_recipe(stage):
    c = load(f"swinv2_giant:stage={stage}")
    model = c.task.model.encoder if stage == "simmim" else c.task.model
    schedule = c.task.tx.schedule
    found = (schedule.base_lr, c.total_steps, schedule.warmup_steps, c.batch_size, model.drop_path_rate)
    np.testing.assert_allclose(found, GIANT[stage][:5])
    assert (c.task.image_size, model.window_size, model.attention) == GIANT[stage][5:]
    assert c.task.tx.weight_decay == 0.1 and c.task.tx.clip_norm == 100.0
    assert model.main_norm_every == 6 and model.scan and model.remat == "full"
    assert c.num_train == (1_281_167 if stage == "in1k" else 14_197_122)


def test_giant_keeps_parameters_whole_and_splits_the_moments():
    """ZeRO-1, the stacked blocks included."""
    from swin_jax.core.params import flatten
    from swin_jax.train import sharding

    c = load("swinv2_giant")
    state = jax.eval_shape(config.build(c.task).init, jax.random.key(0))
    mesh = sharding.make_mesh(**c.mesh)
    assert mesh.shape["data"] == 8
    laid_out = flatten(config.build(c.partition).shardings(state, mesh))
    split = {path for path, leaf in laid_out.items() if "data" in str(leaf.spec)}
    assert split and all(path.startswith("opt_state/") for path in split)
    elements = {path: math.prod(leaf.shape) for path, leaf in flatten(state).items() if path.startswith("opt_state/")}
    whole = sum(count for path, count in elements.items() if path not in split)
    assert whole < 0.02 * sum(elements.values())
    # The units of a loop stay together.
    assert all(laid_out[path].spec[0] is None for path in split if "/units_" in path)


@pytest.mark.parametrize("stage", ["simmim", "in22k"])
def test_the_training_step_of_the_giant_is_lowered_within_a_minute(stage):
    c = load(f"swinv2_giant:stage={stage}")
    task, size = config.build(c.task), c.image_size
    batch = {
        "image": jax.ShapeDtypeStruct((c.batch_size, size, size, 3), np.uint8),
        "label": jax.ShapeDtypeStruct((c.batch_size,), np.int32),
        "mask": jax.ShapeDtypeStruct((c.batch_size, size // 32, size // 32), np.uint8),
    }
    state = jax.eval_shape(task.init, jax.random.key(0))
    began = time.process_time()  # not the clock: the machine may be busy
    program = jax.jit(task.train_step, donate_argnums=0).lower(state, batch, {}).as_text()
    assert time.process_time() - began < 60
    assert "x2048x" in program and "stablehlo.while" in program
