"""FLOPs of an update, as tasks tell them, against published counts and against traced programs."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest

from swin_jax.core import config as configs
from swin_jax.models import clip
from swin_jax.models.stylegan2 import Discriminator, Generator
from swin_jax.plan import flops
from swin_jax.tasks.base import describe, example_name, train_flops
from swin_jax.tasks.contrastive import Contrastive
from swin_jax.tasks.gan import GAN
from swin_jax.train import run_info
from tests.experiments import config_path


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


# Operations of a forward pass in 1e9 (docs/model_profile.csv of mlfoundations/open_clip): image, text.
PUBLISHED = {
    "RN50": (12.22, 5.96),
    "RN101": (19.54, 5.96),
    "RN50x4": (42.56, 9.27),
    "RN50x16": (149.39, 13.3),
    "RN50x64": (529.11, 23.55),
    "ViT-B/32": (8.82, 5.96),
    "ViT-B/16": (35.13, 5.96),
    "ViT-L/14": (162.03, 13.3),
    "ViT-L/14@336px": (381.92, 13.3),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_towers_of_clip_count_what_is_published(name):
    model = clip.make_clip(**clip.PRESETS[name])
    image, text = PUBLISHED[name]
    counted = model.visual.flops()
    if name.startswith("RN"):  # the profile has the queries of all places of the pool, of which one is used
        places, width = (model.visual.image_size // 32) ** 2, 32 * model.visual.width
        counted += places * width * (width + 2 * (places + 1) + model.visual.embed_dim)
    assert 2e-9 * counted == pytest.approx(image, rel=0.003)
    assert 2e-9 * model.text.flops() == pytest.approx(text, rel=0.01)
    assert model.flops() == model.visual.flops() + model.text.flops()


TOY = dict(embed_dim=24, image_size=64, text_width=64, text_layers=2, context_length=9, vocab_size=50)
TOWERS = dict(resnet=dict(vision_layers=(2, 1, 2, 1), vision_width=16, patch_size=None),
              vit=dict(vision_layers=2, vision_width=64, patch_size=16))  # fmt: skip


@pytest.mark.parametrize("tower", TOWERS)
def test_a_pair_counts_each_product_of_a_traced_forward(tower):
    model = clip.make_clip(**TOY, **TOWERS[tower])
    inputs = array(2, 64, 64, 3), array(2, 9, dtype=jnp.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    for name, given in zip(("encode_image", "encode_text"), inputs):
        found = flops.count(lambda v, x: model.apply(v, x, method=name), variables, given)
        tower = model.visual if name == "encode_image" else model.text
        assert found == 2 * 2 * tower.flops()


def test_a_locked_tower_counts_once_and_unknown_ones_not_at_all():
    model = clip.make_clip(**TOY, **TOWERS["vit"])
    image, text = 2 * model.visual.flops(), 2 * model.text.flops()
    task = Contrastive(model, optax.sgd(1.0), image_size=64, context_length=9)
    assert train_flops(task) == 3 * (image + text) and example_name(task) == "pair"
    assert train_flops(dataclasses.replace(task, locked=("visual",))) == image + 3 * text
    unknown = model.clone(text=nn.Dense(24))
    assert train_flops(dataclasses.replace(task, model=unknown)) == 0 == unknown.flops()


def gan(c_dim=0, architecture="resnet", **fields):
    # So wide that filters of a channel each, which do not count, weigh little.
    sizes = dict(resolution=16, c_dim=c_dim, channel_base=32768, channel_max=512, resampling="plain")
    return GAN(
        Generator(z_dim=64, w_dim=64, mapping_layers=2, **sizes),
        Discriminator(mapping_layers=2, architecture=architecture, **sizes),
        optax.sgd(1.0),
        optax.sgd(1.0),
        **fields,
    )


@pytest.mark.parametrize("c_dim, architecture", [(0, "resnet"), (5, "orig")])
def test_a_discriminator_counts_its_convolutions(c_dim, architecture):
    model = gan(c_dim, architecture).discriminator
    inputs = array(4, 16, 16, 3), array(4, c_dim) if c_dim else None
    variables = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    found = flops.count(model.apply, variables, *inputs)
    assert found == pytest.approx(2 * 4 * model.flops(), rel=0.01)


def test_updates_of_two_networks_count_with_their_penalties_at_their_share():
    task, size = gan(mixing=0.0, noise="none"), 8
    state, batch = jax.eval_shape(task.init, jax.random.key(0)), task.batch_shapes(size)
    parts = [
        flops.count(update, state, batch) / size
        for update in (
            task.update_generator,
            task.update_discriminator,
            task.regularize_generator,
            task.regularize_discriminator,
        )
    ]
    assert task.train_flops() == pytest.approx(parts[0] + parts[1] + parts[2] / 4 + parts[3] / 16, rel=0.1)
    without = dataclasses.replace(task, r1_gamma=0.0, path_weight=0.0)
    assert without.train_flops() == pytest.approx(parts[0] + parts[1], rel=0.1) and train_flops(without)
    assert describe(task, state)["train_gflops"] == task.train_flops() / 1e9


EXPERIMENTS = {
    "clip_openai": "pair",
    "simmim_in1k": "image",
    "video_swin_k400": "clip",
    "upernet_ade20k": "image",
    "swin_in1k": "image",
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_task_says_what_a_traced_step_computes(name):
    config = configs.load(config_path(f"{name}:fake"))
    task = configs.build(config.task)
    state, batch = jax.eval_shape(task.init, jax.random.key(0)), task.batch_shapes(config.batch_size)
    told = describe(task, state)
    step = flops.count(task.train_step, state, batch, {}) / config.batch_size
    # Norms count in the official formula, and the gradient of the pixels is not computed.
    assert told["train_gflops"] * 1e9 == pytest.approx(step, rel=0.2)
    assert told["example"] == EXPERIMENTS[name]
    clock = run_info.clock(config.batch_size, told | {"device_kind": "TPU v5e"})
    assert clock._flops_per_step == pytest.approx(told["train_gflops"] * 1e9 * config.batch_size)


def test_published_counts_of_clips_are_three_forward_passes():
    task = configs.build(configs.load(config_path("video_swin_k400:variant=tiny")).task)
    assert train_flops(task) / 6e9 == pytest.approx(87.76, rel=1e-3)


def test_the_auxiliary_head_counts_where_it_trains():
    task = configs.build(configs.load(config_path("upernet_ade20k:variant=tiny")).task)
    assert task.model.flops() / 1e9 == pytest.approx(236.9, rel=2e-3)  # spec of mmsegmentation's model at 512
    without = dataclasses.replace(task, auxiliary_weight=0.0)
    head = (512 // 16) ** 2 * (9 * 384 + 150) * 256
    assert train_flops(without) == 6 * task.model.flops() and train_flops(task) - train_flops(without) == 6 * head
