"""Fields that arrays do not tell: what another model would compute with a run's weights is said, or nothing is."""

import dataclasses
import json
import warnings
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments.swin import finetune_folder
from ml_collections import ConfigDict

from swin_jax.core import config as configs
from swin_jax.core.config import spec
from swin_jax.models.clip import CLIP, make_clip
from swin_jax.models.segmentation import make_upernet
from swin_jax.models.simmim import SimMIM
from swin_jax.models.stylegan2 import Discriminator, Generator
from swin_jax.models.swin import V2, Swin
from swin_jax.models.video_swin import make_video_swin
from swin_jax.tasks.base import TrainState
from swin_jax.train import checkpoint
from swin_jax.train.checkpoints.model_fields import models_of_task, tell_other_fields
from swin_jax.train.init_from import Frozen, InitFrom

TINY = dict(num_classes=3, image_size=32, patch_size=2, embed_dim=8, depths=(1, 2), num_heads=(1, 2), window_size=4)
SLIDING = dict(token_mixer="sliding", shift="none")
DENSE = dict(num_classes=0, out_norms=(0, 1), small="keep", window_size=16)
SEGMENTER = dict(embed_dim=8, depths=(1, 2), num_heads=(1, 2), window_size=4, channels=8, auxiliary_channels=0)
VIDEO = TINY | dict(image_size=(4, 32, 32), patch_size=(2, 2, 2), window_size=(2, 4, 4))
TOWERS = dict(embed_dim=6, image_size=32, patch_size=8, vision_layers=1, vision_width=12, vision_heads=3)
TOWERS |= dict(context_length=5, vocab_size=20, text_width=8, text_layers=1, text_heads=2)
FACES = dict(resolution=16, channel_base=64, channel_max=8)


def of_run(**models):
    """The flat config of a run, whose models are given as specs."""
    return configs.flatten(ConfigDict({"task": models}))


def swin(**changes):
    return of_run(model=spec(Swin, **TINY | changes))


def simmim(**changes):
    return of_run(model=spec(SimMIM, encoder=spec(Swin, **TINY | dict(num_classes=0) | changes)))


def two_towers(**changes):
    return CLIP(Swin(**TINY | changes), make_clip(**TOWERS).text)


def warned(call, *args, **kwargs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = call(*args, **kwargs)
    return found, [str(line.message) for line in caught]


OTHERS = {
    "mixer": (swin(**SLIDING), Swin(**TINY), "token_mixer='sliding', shift='none'"),
    "shift": (swin(shift="none"), Swin(**TINY), "shift='none'"),
    "norms": (swin(**V2), Swin(**TINY | V2 | dict(post_norm=False)), "post_norm=True"),
    "small": (swin(small="pad", window_size=16), Swin(**TINY | dict(window_size=16)), "small='pad'"),
    "encoder": (simmim(shift="none"), Swin(**TINY), "shift='none'"),
    "masked": (simmim(shift="none"), SimMIM(Swin(**TINY | dict(num_classes=0))), "shift='none'"),
    "backbone": (swin(shift="none"), make_upernet(**SEGMENTER), "shift='none'"),
    "video": (swin(shift="none"), make_video_swin(**VIDEO), "shift='none'"),
    "tower": (swin(**SLIDING), two_towers(), "token_mixer='sliding', shift='none'"),
    "grids": (
        of_run(model=spec(make_upernet, **SEGMENTER, pool_scales=(1, 2, 4, 8))),
        make_upernet(**SEGMENTER),
        "pool_scales=(1, 2, 4, 8)",
    ),
    "act": (of_run(model=spec(make_clip, **TOWERS, act="gelu")), make_clip(**TOWERS, act="quick_gelu"), "act='gelu'"),
    "faces": (
        of_run(generator=spec(Generator, **FACES, conv_clamp=256.0), discriminator=spec(Discriminator, **FACES)),
        Generator(**FACES),
        "conv_clamp=256.0",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_model_that_computes_something_else_with_the_same_weights_is_told(case):
    config, model, field = OTHERS[case]
    (line,) = warned(tell_other_fields, "runs/one", config, [model])[1]
    assert line.startswith(f"runs/one was trained with {field}") and "computes something else" in line


ALIKE = {
    "the same": (swin(), Swin(**TINY)),
    "through JSON": (json.loads(json.dumps(swin(mlp_ratio=4))), Swin(**TINY)),
    "another way to shift": (swin(shift="pad"), Swin(**TINY)),
    "what weights are made to fit": (swin(num_classes=7, image_size=64, window_size=8), Swin(**TINY)),
    "rates and memory": (swin(drop_path_rate=0.5), Swin(**TINY, scan=True, remat="full", dtype="bfloat16")),
    "no map that is one window": (swin(small="keep"), Swin(**TINY)),
    "a dense backbone": (swin(window_size=16), Swin(**TINY | DENSE)),
    "a segmenter": (swin(), make_upernet(**SEGMENTER)),
    "clips": (swin(), make_video_swin(**VIDEO)),
    "no model of ours": ({"task.model.fn": "mine.Net", "task.model.shift": "none"}, Swin(**TINY)),
    "a tower that is none of ours": (
        swin(shift="none") | {"task.model.tower.fn": "swin_jax.data.fake.images", "task.model.tower.num_examples": 4},
        Swin(**TINY),
    ),
    "another family": (of_run(model=spec(make_clip, **TOWERS, act="gelu")), Swin(**TINY)),
    "no config": ({}, Swin(**TINY)),
    "no model": (swin(), None),
}


@pytest.mark.parametrize("case", ALIKE)
def test_nothing_is_told_where_nothing_differs_that_counts(case):
    config, model = ALIKE[case]
    assert not warned(tell_other_fields, "runs/one", config, [model])[1]


def test_heads_that_are_left_do_not_count():
    config, model, _ = OTHERS["grids"]
    assert not warned(tell_other_fields, "runs/one", config, [model], inner=True)[1]
    assert warned(tell_other_fields, "runs/one", OTHERS["backbone"][0], [model], inner=True)[1]


@dataclasses.dataclass(frozen=True)
class TwoModels:
    generator: Any
    discriminator: Any
    rate: float = 0.1


def test_a_task_of_two_models_trains_both():
    task = TwoModels(Generator(**FACES), Discriminator(**FACES))
    assert models_of_task(task) == [task.generator, task.discriminator]
    assert models_of_task(SimpleNamespace(model="mine")) == ["mine"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The workdir of a run whose tokens attend to those around them, and its parameters."""
    path = tmp_path_factory.mktemp("run")
    shapes = jax.eval_shape(Swin(**TINY).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    tree = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    manager, config = checkpoint.open(path), swin(**SLIDING)
    checkpoint.save(manager, TrainState(jnp.int32(1), tree, {}, {}, None), 1, {"config": config}, wait=True)
    manager.close()
    (path / "config.json").write_text(json.dumps(config))
    return path, shapes


def test_first_weights_and_frozen_ones_are_compared_with_their_run(run):
    workdir, shapes = run
    batch = {"image": jax.ShapeDtypeStruct((1, 32, 32, 3), np.uint8)}
    for model, count in ((Swin(**TINY), 1), (Swin(**TINY | SLIDING), 0)):
        task = SimpleNamespace(model=model)
        (_, report), said = warned(InitFrom(path=str(workdir)).load, task, shapes)
        assert "parameters" in report and len(said) == count
        assert len(warned(Frozen(model, str(workdir)).load, batch, "task.teacher")[1]) == count


def test_a_task_without_one_model_starts_from_a_run(run):
    workdir, shapes = run
    task = TwoModels(Swin(**TINY | SLIDING), Swin(**TINY | SLIDING))
    assert len(InitFrom(path=str(workdir)).load(task, shapes)[0]) == len(jax.tree.leaves(shapes))


def test_the_recipe_for_folders_makes_the_model_of_the_run_that_it_starts_from(run):
    config, _, architecture = finetune_folder.sizes()
    assert architecture["token_mixer"].get() == "attention"
    config.init_from.path = str(run[0])
    found = {name: reference.get() for name, reference in architecture.items()}
    made = Swin(**found, image_size=config.image_size, num_classes=3)
    assert made == Swin(**TINY | SLIDING)
