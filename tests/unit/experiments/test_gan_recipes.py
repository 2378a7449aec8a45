"""The settings of StyleGAN2 and ADA: each row of the table that train.py of stylegan2-ada-pytorch has."""

import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

from swin_jax.core import config
from swin_jax.core.errors import UserError
from swin_jax.tasks.adaptive_augmentation import AdaptiveAugmentation
from swin_jax.train import sharding
from tests.experiments import config_path

# Arguments -> batch, group, channels * side, rate, gamma, images of the average, its ramp, mapping layers, images.
ROWS = {
    "": (32, 4, 32768, 2e-3, 10, 10_000, 0, 8, 25e6),
    "cfg=stylegan2": (32, 4, 32768, 2e-3, 10, 10_000, 0, 8, 25e6),
    "cfg=paper256,resolution=256": (64, 8, 16384, 2.5e-3, 1, 20_000, 0, 8, 25e6),
    "cfg=paper512,resolution=512": (64, 8, 32768, 2.5e-3, 0.5, 20_000, 0, 8, 25e6),
    "cfg=paper1024": (32, 4, 32768, 2e-3, 2, 10_000, 0, 8, 25e6),
    "cfg=cifar,resolution=32": (64, 32, 32768, 2.5e-3, 0.01, 500_000, 0.05, 2, 100e6),
    # 8 devices: 4 images each at 1024 pixels, 8 at 512 and below.
    "cfg=auto": (32, 4, 32768, 2e-3, 0.0002 * 1024**2 / 32, 10_000, 0.05, 2, 25e6),
    "cfg=auto,resolution=512": (64, 4, 32768, 2.5e-3, 0.0002 * 512**2 / 64, 20_000, 0.05, 2, 25e6),
    "cfg=auto,resolution=256,devices=1": (16, 4, 16384, 2.5e-3, 0.0002 * 256**2 / 16, 5_000, 0.05, 2, 25e6),
    "cfg=auto,resolution=1024,devices=128": (128, 1, 32768, 2e-3, 0.0002 * 1024**2 / 128, 40_000, 0.05, 2, 25e6),
}


def load(arguments):
    return config.load(config_path(f"stylegan2_ffhq:{arguments}"))


@pytest.mark.parametrize("arguments", ROWS)
def test_a_row_is_that_of_the_published_code(arguments):
    c, (batch, group, channels, rate, gamma, images, ramp, layers, seen) = load(arguments), ROWS[arguments]
    task = c.task
    assert (c.batch_size, task.discriminator.mbstd_group_size) == (batch, group)
    assert {task.generator.channel_base, task.discriminator.channel_base} == {channels}
    assert {task.generator_tx.schedule.base_lr, task.discriminator_tx.schedule.base_lr} == {rate}
    assert (task.generator_tx.regularize_every, task.discriminator_tx.regularize_every) == (4, 16)
    np.testing.assert_allclose([task.r1_gamma, task.ema_images, task.ema_ramp], [gamma, images, ramp])
    assert task.generator.mapping_layers == layers and c.total_steps == seen // batch
    cifar = "cifar" in arguments
    assert (task.path_weight, task.mixing) == ((0, 0) if cifar else (2, 0.9))
    assert task.discriminator.architecture == ("orig" if cifar else "resnet")
    assert (task.r1_every, task.path_every, task.path_shrink, task.w_decay) == (16, 4, 2, 0.995)


def test_configuration_f_has_the_published_sizes():
    task = config.build(load("").task)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    counts = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in shapes.params.items()}
    assert counts == {"generator": 30_370_060, "discriminator": 29_012_513}


def test_augmentation_is_asked_for():
    assert load("").task.augmentation is None
    found = config.build(load("ada").task).augmentation
    assert isinstance(found, AdaptiveAugmentation)
    assert (found.target, found.every, found.images) == (0.6, 4, 500_000)


def test_pictures_of_a_folder_and_of_an_archive_come_out_square_and_flipped_half_the_times(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    wide = np.zeros((16, 24, 3), np.uint8)
    wide[:, 4:12] = 200  # the left half of the middle
    Image.fromarray(wide).save(folder / "a.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)).save(folder / "b.png")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("a.png", "b.png"):
            archive.write(folder / name, f"inside/{name}")
    for arguments, where in (("resolution=8", folder), ("resolution=8,zip", tmp_path / "all.zip")):
        plain, mirrored = load(f"{arguments},mirror=False"), load(arguments)
        plain.data_dir = mirrored.data_dir = str(where)
        source, transform = config.build(plain.data.source), config.build(plain.data.transform)
        image, square = (transform(source[k], np.random.default_rng(0))["image"] for k in range(2))
        assert image.shape == (8, 8, 3) and image[4, 1, 0] > 150 > 50 > image[4, 6, 0]
        real = config.build(plain.evals.quality.run.data.transform)(source[1])["image"]
        np.testing.assert_array_equal(real, square)
        transform, rng = config.build(mirrored.data.transform), np.random.default_rng(0)
        lefts = [transform(source[0], rng)["image"][4, 1, 0] > 150 for _ in range(40)]
        assert 8 < sum(lefts) < 32


def test_the_file_of_inception_is_named_by_its_flag_before_anything_is_computed(tmp_path):
    c = load("resolution=8")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    c.data_dir, c.inception = str(tmp_path), str(tmp_path / "nowhere.pth")
    evaluation, task = config.build(c.evals.quality.run), config.build(c.task)
    assert evaluation.names() == ("fid", "kid") and evaluation.samples == 50_000
    placement = sharding.Placement(sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1]))
    with pytest.raises(UserError, match="inception=.*nowhere.pth"):
        evaluation.bind(task, placement)
    c.inception = ""
    assert config.build(c.evals.quality.run).bind(task, placement)(None, None) == {}
