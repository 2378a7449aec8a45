"""Sizes and numbers of NumPy, lists and arrays make what Python's own make: equal values that can be hashed."""

import jax
import numpy as np
import pytest

import swin_jax
from swin_jax.core.ranges import Fraction, PositiveFloat, PositiveInt, Seed, checked, plain
from swin_jax.core.sizes import Size, Windows
from swin_jax.data.image.transforms import crop_transform
from swin_jax.models.clip import make_clip
from swin_jax.models.swin import Swin, param_shapes
from swin_jax.models.video_swin import make_video_swin
from swin_jax.optim import schedules, sgd
from swin_jax.tasks.classification import Classification
from swin_jax.tasks.contrastive import Contrastive

TINY = dict(embed_dim=8, depths=(2, 2), num_heads=(1, 2), num_classes=3, patch_size=2)
TX = sgd(schedules.constant(0.1), ())


@pytest.mark.parametrize(
    "hint, value, wanted",
    [
        (Size, np.int64(32), 32),
        (Size, [32, 64], (32, 64)),
        (Size, np.array([32, 64]), (32, 64)),
        (Size, (np.int32(32), 64), (32, 64)),
        (Windows, [[4, 8], np.int64(2)], ((4, 8), 2)),
        (PositiveFloat | None, np.float32(0.5), 0.5),
        (PositiveFloat | None, None, None),
        (Fraction, 1, 1),
        (tuple[PositiveFloat, ...], np.full(2, 0.5, np.float32), (0.5, 0.5)),
        (tuple[Size, Seed], [(4, 5), np.uint8(3)], ((4, 5), 3)),
        (PositiveInt, "x", "x"),  # refused elsewhere
    ],
    ids=str,
)
def test_a_value_becomes_pythons_own(hint, value, wanted):
    found = plain(hint, value)
    assert found == wanted and hash(found) == hash(wanted)
    kinds = lambda x: [*map(kinds, x)] if isinstance(x, tuple) else type(x)  # noqa: E731
    assert kinds(found) == kinds(wanted)


def test_a_call_gets_the_plain_value_and_keeps_the_others():
    @checked
    def call(size: Size, *, what=None, rate: Fraction = 0.5, name: str = "x"):
        return size, what, rate, name

    array = np.zeros(2)
    assert call([1, 2], what=array, name="y") == ((1, 2), array, 0.5, "y")


@pytest.mark.parametrize("image, window", [(np.int64(32), np.int64(4)), ([32, 32], [4, 4]), (np.full(2, 32), [[4, 4]])])
def test_models_are_equal_and_hashable(image, window):
    assert hash(Swin(image_size=image, window_size=window, **TINY)) is not None
    model = Swin(image_size=image, window_size=window, **TINY | dict(depths=[2, 2]))
    assert model == Swin(image_size=model.image_size, window_size=model.window_size, **TINY)
    assert jax.tree.leaves(param_shapes(model))
    size = (np.int64(4), 16, 16)
    clips = make_video_swin(image_size=list(size), window_size=np.array([2, 4, 4]), embed_dim=8, num_heads=(1, 2, 4, 8))
    assert hash(clips) == hash(clips.clone()) and clips.backbone.window_size == (2, 4, 4)
    towers = dict(vision_width=64, text_width=64, text_layers=1, vision_layers=np.int64(1))
    assert hash(make_clip(embed_dim=8, image_size=image, patch_size=[8, 4], **towers)) is not None


def test_load_takes_them(tmp_path):
    from swin_jax.pretrained.swin import convert

    model = Swin(image_size=(24, 40), window_size=(3, 5), **TINY)
    shapes = convert.official_shapes(model)
    np.savez(tmp_path / "a.npz", **{name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    found, _ = swin_jax.load(weights=tmp_path / "a.npz", image_size=np.array([24, 40]), window_size=[np.int64(3), 5])
    assert found == model and hash(found) == hash(model)
    assert swin_jax.preprocess(model, image_size=(np.int64(12), 20))(np.zeros((30, 60, 3), np.uint8)).shape[1] == 12


@pytest.mark.parametrize("size", [np.int64(32), (32,), [32], [32, 32], np.full(2, 32)], ids=str)
def test_tasks_and_transforms_take_them(size):
    assert Classification(None, TX, size, 3).batch_shapes(2)["image"].shape == (2, 32, 32, 3)
    assert Contrastive(None, TX, size).batch_shapes(2)["image"].shape == (2, 32, 32, 3)
    assert crop_transform(16, size)({"image": np.zeros((40, 50, 3), np.uint8)})["image"].shape == (16, 16, 3)
